"""launch/pod_day.py: what is measured on which devices, and a report whatever happens."""

import subprocess
import sys

import pytest

import pod_day
from helpers import ROOT

FIGURES = {
    **dict.fromkeys(pod_day.FIELDS, 1.5),
    "batch": 8,
    "device": "8 x H100",
    "cores": 16,
    "jax": "0.10",
    "dtype": "bfloat16",
}
GPUS = pod_day.Machine("gpu", devices=8, local_devices=8, process=0)


@pytest.fixture
def machine(monkeypatch):
    """Eight devices, and measurements that are made up: {what was asked for: figures}."""
    asked = []

    def run(measurement, preset, windows, seconds, machine):
        asked.append(measurement)
        if measurement.stage == "vae":
            return {"error": "RESOURCE_EXHAUSTED: out of memory"}
        return FIGURES | {"windows_per_second": 10.0 * measurement.devices**0.5}

    monkeypatch.setattr(pod_day, "ask", lambda: GPUS)
    monkeypatch.setattr(pod_day, "run", run)
    return asked


def day(monkeypatch, out, *options):
    monkeypatch.setattr(sys, "argv", ["pod_day.py", str(out), *options])
    pod_day.main()
    return (out / "report.md").read_text()


def test_the_report_has_every_stage_and_how_it_scales(machine, monkeypatch, tmp_path):
    report = day(monkeypatch, tmp_path, "--stages", "teacher,vae", "--data", "dataset")
    assert [(m.name, m.devices) for m in machine] == [
        ("teacher", 8),
        ("vae", 8),
        ("teacher, with data", 8),
        ("vae, with data", 8),
        *((f"{stage}, scaling", n) for n in (1, 2, 4) for stage in ("teacher", "vae")),
    ]
    assert {"--profile", "--checkpoint"} <= set(machine[0].options) and "--data" in machine[2].options
    assert "8 x H100, 16 cores, jax 0.10, bfloat16" in report
    assert "- teacher: 4 devices give 2.00 times the windows of one" in report
    assert "| vae | 8 | RESOURCE_EXHAUSTED: out of memory |" in report
    asked = len(machine)
    day(monkeypatch, tmp_path, "--stages", "teacher,vae", "--data", "dataset")
    assert {m.stage for m in machine[asked:]} == {"vae"}  # what has been measured is not measured again, what failed is


def test_when_the_time_is_over_what_there_is_is_reported(machine, monkeypatch, tmp_path):
    report = day(monkeypatch, tmp_path, "--stages", "teacher", "--minutes", "0")
    assert not machine
    assert "Left out, since the time was over: 4." in report


def test_of_several_processes_all_measure_together_and_the_first_alone_as_well(machine, monkeypatch, tmp_path):
    for process in (0, 1):
        four_of_16 = pod_day.Machine("gpu", devices=16, local_devices=4, process=process)
        monkeypatch.setattr(pod_day, "ask", lambda here=four_of_16: here)
        monkeypatch.setattr(sys, "argv", ["pod_day.py", str(tmp_path / str(process)), "--stages", "teacher"])
        pod_day.main()
    together, *alone, last = [m.devices for m in machine]
    assert together == last == 16 and alone == [1, 2, 4]
    assert not list((tmp_path / "1").iterdir())  # the first one writes


@pytest.mark.parametrize("devices", [1, 2])
def test_a_measurement_is_a_command_that_sees_its_devices_alone(devices, tmp_path):
    here = pod_day.Machine("gpu", devices=4, local_devices=2, process=0)
    measurement = pod_day.Measurement("student", "student", devices, ("--repeats", "5", "--checkpoint", str(tmp_path)))
    words, environment = pod_day.command(measurement, "tiny", 3, here)
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"[: 2 * devices - 1] and environment["JAX_NUM_PROCESSES"] == "1"
    assert f"--config.batch_size={3 * devices}" in words
    help_text = subprocess.run([*words[:5], "--help"], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert all(word in help_text for word in words if word.startswith("--") and "." not in word)


def test_what_fails_says_why():
    here = pod_day.Machine("cpu", devices=2, local_devices=2, process=0)
    measurement = pod_day.Measurement("x", "teacher", 1, ("--repeats", "1"))
    assert "tiny, small, base" in pod_day.run(measurement, "huge", 1, 60, here)["error"]
    assert pod_day.run(measurement, "tiny", 1, 0.01, here) == {"error": "not done after 0 s"}


def test_a_process_says_what_devices_it_has(monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "3")
    assert pod_day.ask() == pod_day.Machine("cpu", devices=3, local_devices=3, process=0)
