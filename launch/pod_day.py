"""One day, or hour, on a machine with accelerators: everything that is measured there, in one report.

    bash launch/pod_day.sh OUT [--minutes N] [--preset base] [--stages teacher,student,...] [--steps 50] [--data DIR]

The same on every host of a slice or a cluster (`srun bash launch/pod_day.sh OUT`, or JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID), which find each other as those of a training run do; all see OUT.

For each stage: compiling, steps on noise with a profile, a checkpoint saved and restored; the same steps on a dataset,
where there is one; and on 1, 2, 4 ... of process 0's devices alone with as many windows each. A measurement is a
process of its own, so that one that fails is a line in the report, and is tried again by the same command; what has
been measured in OUT is not measured again. The report, OUT/report.md, is written anew after each. When the minutes are
over, no further measurement begins.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

# Windows a device, of 5.12 s at `base`: what fits 80 GB by `flashsr plan`.
WINDOWS = {"teacher": 64, "student": 32, "regression": 16, "vae": 8, "vocoder": 16, "tune": 8}
VISIBLE = {"gpu": "CUDA_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}  # which devices a process sees
HEAD = (
    "what",
    "devices",
    "windows",
    "windows/s",
    "TFLOP/s",
    "of peak",
    "waiting",
    "GiB",
    "compile, s",
    "save, s",
    "restore, s",
)
FIELDS = (
    "batch",
    "windows_per_second",
    "tflop_per_second",
    "share_of_peak",
    "data_wait_share",
    "peak_memory_gib",
    "compile_seconds",
    "save_seconds",
    "restore_seconds",
)
ASK = """
import json, jax
from flashsr_jax.devices import processes
processes.initialize(None, None, None)
print(json.dumps([jax.default_backend(), jax.device_count(), jax.local_device_count(), jax.process_index()]))
"""


class Machine(NamedTuple):
    """What there is: of all processes, and of this one."""

    platform: str
    devices: int
    local_devices: int
    process: int


class Measurement(NamedTuple):
    """One line of the report: `flashsr benchmark train` on so many devices, with options."""

    name: str
    stage: str
    devices: int
    options: tuple[str, ...]


def measurements(stages: list[str], machine: Machine, out: Path, data: str, steps: int) -> list[Measurement]:
    """All of a day, what matters most first."""
    repeats = ("--repeats", str(steps))
    traced = [
        Measurement(s, s, machine.devices, (*repeats, "--profile", str(out / f"trace-{s}"), "--checkpoint", str(out)))
        for s in stages
    ]
    fed = [Measurement(f"{s}, with data", s, machine.devices, (*repeats, "--data", data)) for s in stages if data]
    counts = [2**n for n in range(machine.local_devices.bit_length()) if 2**n < machine.devices]
    return traced + fed + [Measurement(f"{s}, scaling", s, n, repeats) for n in counts for s in stages]


def command(measurement: Measurement, preset: str, windows: int, machine: Machine) -> tuple[list[str], dict[str, str]]:
    """The words, and the environment, which hides the other devices and processes."""
    words = [sys.executable, "-m", "flashsr_jax", "benchmark", "train", "--json"]
    words += ["--config", f"{measurement.stage}:{preset}", f"--config.batch_size={windows * measurement.devices}"]
    hidden = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # the peak of memory is to be what was needed
    if measurement.devices < machine.devices:
        numbers = ",".join(map(str, range(measurement.devices)))
        cpu = machine.platform == "cpu"
        hidden |= {"JAX_NUM_CPU_DEVICES": str(measurement.devices)} if cpu else {VISIBLE[machine.platform]: numbers}
        hidden["JAX_NUM_PROCESSES"] = "1"
    return words + list(measurement.options), os.environ | hidden


def run(measurement: Measurement, preset: str, windows: int, seconds: float, machine: Machine) -> dict:
    """Figures as `flashsr benchmark train --json` gives them to process 0, or {"error": why there are none}."""
    words, environment = command(measurement, preset, windows, machine)
    try:
        done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {seconds:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return {} if machine.process else json.loads(done.stdout.strip().splitlines()[-1])


def report(found: list[tuple[Measurement, dict]], left_out: int) -> str:
    """Markdown of what has been measured so far."""
    lines = ["| " + " | ".join(HEAD) + " |", "| --- " + "| ---: " * (len(HEAD) - 1) + "|"]
    for measurement, figures in found:
        values = [figures.get(field, "") for field in FIELDS]
        values[0] = figures.get("error", values[0])
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
        lines.append("| " + " | ".join([measurement.name, str(measurement.devices), *cells]) + " |")
    rates = {
        (m.stage, m.devices): f["windows_per_second"]
        for m, f in found
        if "windows_per_second" in f and "with data" not in m.name
    }
    scaling = [
        f"- {stage}: {count} devices give {rate / rates[stage, 1]:.2f} times the windows of one"
        for (stage, count), rate in sorted(rates.items())
        if count > 1 and (stage, 1) in rates
    ]
    machine = next(
        (f"{f['device']}, {f['cores']} cores, jax {f['jax']}, {f['dtype']}" for _, f in found if "device" in f), ""
    )
    parts = ["# Measured", machine, "\n".join(lines), "\n".join(scaling)]
    parts.append(f"Left out, since the time was over: {left_out}." if left_out else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def main() -> None:
    """Measures and writes until all is done or the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--stages", default=",".join(WINDOWS))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--windows", type=int, help="a device (default: by stage, for 80 GB)")
    parser.add_argument("--data", default="", help="a dataset of `flashsr data build`")
    args = parser.parse_args()
    ends = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    machine = ask()
    todo = measurements(args.stages.split(","), machine, args.out, args.data, args.steps)
    if machine.process:
        todo = [measurement for measurement in todo if measurement.devices == machine.devices]
    found: list[tuple[Measurement, dict]] = []
    left_out = 0
    for measurement in todo:
        file = args.out / f"{measurement.name.replace(', ', '-').replace(' ', '-')}-{measurement.devices}.json"
        left = ends - time.monotonic()
        if file.exists():
            figures = json.loads(file.read_text())
        elif left <= 0:
            left_out += 1
            continue
        else:
            print(f"{measurement.name} on {measurement.devices}", flush=True)
            figures = run(measurement, args.preset, args.windows or WINDOWS[measurement.stage], left, machine)
            if machine.process == 0 and "error" not in figures:
                file.write_text(json.dumps(figures))
        found.append((measurement, figures))
        if machine.process == 0:
            (args.out / "report.md").write_text(report(found, 0))
    if machine.process == 0:
        (args.out / "report.md").write_text(report(found, left_out))
        print(args.out / "report.md")


def ask() -> Machine:
    """In a process of its own: the devices belong to whoever has opened them."""
    done = subprocess.run([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True, check=True)
    return Machine(*json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
