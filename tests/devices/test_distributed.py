"""Several processes on one machine: how they find each other, and that together they compute what one does."""

import http.server
import json
import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from helpers.processes import finish_all, free_ports, run_on, start_several
from helpers.training import ROOT, assert_same_checkpoint, logged, run, sources, without_speed

JOIN = """
import sys
import jax
from flashsr_jax.devices import processes
processes.initialize(None, None, None)
from jax.experimental.multihost_utils import process_allgather
found = jax.process_index(), jax.process_count(), process_allgather(jax.process_index()).tolist()
sys.stderr.write("RESULT {} {} {}\\n".format(*found))  # at once, and not where the collectives print
"""
# What makes JAX's detection take this for a host with TPUs; the rest it reads from the environment or metadata server.
TPU_HOST = "from jax._src.clusters import cloud_tpu_cluster; cloud_tpu_cluster.running_in_cloud_tpu_vm = True\n"
GCE = "import os, jax; os.environ.pop('TPU_SKIP_MDS_QUERY', None)\n"  # which JAX sets where there is no TPU


def metadata_server(worker):
    """A stand-in for the metadata server of a TPU pod's host; its address."""
    answers = {"agent-worker-number": str(worker), "worker-network-endpoints": "127.0.0.1,localhost", "tpu-env": ""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(self.path.rsplit("/", 1)[-1])
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write((answer or "").encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"127.0.0.1:{server.server_port}"


def environments(way, port):
    """What each of two processes finds in its environment, and what to run before the program itself."""
    per_process = {
        "variables": lambda i: {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(i),
        },
        "slurm": lambda i: {
            "SLURM_JOB_ID": str(port % 4096),  # JAX derives its port from it
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": str(i),
            "SLURM_LOCALID": str(i),
        },
        "mpi": lambda i: {
            "OMPI_MCA_orte_hnp_uri": f"{port % 4096 * 4096}.0;tcp://127.0.0.1:{port}",
            "OMPI_COMM_WORLD_SIZE": "2",
            "OMPI_COMM_WORLD_RANK": str(i),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(i),
        },
        "tpu metadata": lambda i: {"JAX_COORDINATOR_PORT": str(port), "GCE_METADATA_IP": metadata_server(i)},
        "gke tpu": lambda i: {
            "JAX_COORDINATOR_PORT": str(port),
            "GCE_METADATA_IP": metadata_server(i),
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost,127.0.0.1",
            "TPU_WORKER_ID": str(i),
        },
    }[way]
    before = {"tpu metadata": TPU_HOST + GCE, "gke tpu": TPU_HOST}.get(way, "")
    return [per_process(i) for i in range(2)], before


@pytest.mark.training
def test_processes_find_each_other_by_what_their_launcher_sets(tmp_path):
    """By variables (a JobSet's manifest sets them), Slurm's srun, Open MPI's mpirun, TPU metadata, GKE's TPU hosts."""
    (tmp_path / "libtpu.py").write_text("def get_library_path():\n    return None\n")
    started = {}
    ways = ("variables", "slurm", "mpi", "tpu metadata", "gke tpu")
    for way, port in zip(ways, free_ports(len(ways)), strict=True):  # two ways at one port would be one run
        variables, before = environments(way, port)
        path = f"{tmp_path}:{ROOT}" if "tpu" in way else str(ROOT)
        started[way] = [
            subprocess.Popen(
                [sys.executable, "-c", before + JOIN],
                env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": path} | extra,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for extra in variables
        ]
    for way, processes in started.items():
        for i, process in enumerate(processes):
            _, stderr = process.communicate(timeout=300)
            assert f"RESULT {i} 2 [0, 1]" in stderr, f"{way}: {stderr}"


MISTAKES = {
    ("--num_processes=2",): "coordinator_address, process_id missing",
    (
        "--coordinator_address=localhost:1",
        "--num_processes=2",
        "--process_id=2",
    ): "process_id=2 is not one of 0 ... 1",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_mistakes_in_the_processes_options_are_one_line(options, dataset, tmp_path):
    code, stderr = run("vae", tmp_path, dataset, *options)
    assert code == 1 and MISTAKES[options] in stderr.strip().splitlines()[-1]


def test_one_process_by_its_options_is_a_run_like_any_other(monkeypatch):
    from flashsr_jax.devices import processes

    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("nothing to join"))
    processes.initialize("localhost:1", 1, 0)
    processes.initialize(None, 1, None)
    processes.initialize(None, None, None)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    processes.initialize(None, None, None)


def assert_equal_but_for_rounding(workdir, expected, steps):
    """The lines that both logs have, and the parameters, optimizer state and averages at the end."""
    lines, expected_lines = (
        {(line["kind"], line["step"]): line for line in without_speed(logged(folder))} for folder in (workdir, expected)
    )
    common = lines.keys() & expected_lines.keys()
    assert {("train", 2), ("train", steps), ("eval", steps)} <= common
    worst = {}
    for which in common:
        assert lines[which].keys() == expected_lines[which].keys()
        for name, value in lines[which].items():
            if name != "kind":
                np.testing.assert_allclose(
                    value, expected_lines[which][name], rtol=2e-3, atol=1e-6, err_msg=f"{which} {name}"
                )
                worst[name] = max(
                    worst.get(name, 0.0), abs(value - expected_lines[which][name]) / max(abs(value), 1e-6)
                )
    print({name: f"{difference:.0e}" for name, difference in worst.items()})
    # AdamW's first steps are as long for a gradient that is rounding alone as for any other: a few rates at most.
    assert_same_checkpoint(workdir, expected, steps, atol=5e-3)


def assert_written_by_all(workdir, step, processes):
    for part in ("weights", "state"):
        folders = (workdir / "checkpoints" / str(step) / part).glob("ocdbt.process_*")
        assert {folder.name for folder in folders if any(folder.glob("d/*"))} == {
            f"ocdbt.process_{i}" for i in range(processes)
        }


def train_on_several(count, stage, workdir, dataset, *options):
    for code, stderr in finish_all(start_several(count, stage, workdir, dataset, *options)):
        assert code == 0, stderr


@pytest.mark.training
def test_two_processes_train_as_one_and_others_go_on_from_their_checkpoints(dataset, tmp_path):
    """2 processes of 2 devices, then 1 of 2, then 1 of 1: at the end what one process with one device has."""
    one, several = tmp_path / "one", tmp_path / "several"
    options = ["--config.losses.adversarial=0.0"]  # half as much to compile, of each of three meshes
    train_on_several(2, "vae", several, dataset, *options, "--config.steps=2")
    assert_written_by_all(several, 2, processes=2)
    code, stderr = run_on(2, "vae", several, dataset, *options, "--config.steps=4")
    assert code == 0 and "resuming from step 2" in stderr, stderr
    code, stderr = run("vae", several, dataset, *options, "--config.steps=6")
    assert code == 0 and "resuming from step 4" in stderr, stderr
    code, stderr = run("vae", one, dataset, *options, "--config.steps=6")
    assert code == 0, stderr
    assert_equal_but_for_rounding(several, one, 6)


BENCHMARK = """
import sys
from flashsr_jax.cli import main
from flashsr_jax.cost import machine
from flashsr_jax.train.stages import STAGES
from helpers import ROOT
from helpers.toy import toy_stage
machine.MATRIX = 256
STAGES["vae"] = toy_stage()
sys.exit(main(["benchmark", "train", "--config", f"{ROOT}/tests/helpers/micro.py:vae", "--json", *sys.argv[1:]]))
"""


@pytest.mark.training
@pytest.mark.parametrize("data", [True, False], ids=["a dataset", "noise"])
def test_two_processes_measure_a_step_and_a_checkpoint_together(data, dataset, tmp_path):
    options = ["--config.batch_size=8", "--repeats", "3", *(["--data", str(dataset)] if data else [])]
    variables, _ = environments("variables", *free_ports(1))
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                BENCHMARK,
                *options,
                "--checkpoint",
                str(tmp_path),
                "--profile",
                str(tmp_path / "trace"),
            ],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": f"{ROOT}:{ROOT}/tests"} | extra,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for extra in variables
    ]
    first, second = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], first[1] + second[1]
    row = json.loads(first[0].splitlines()[-1])
    assert row["device"] == "4 x cpu in 2 processes" and row["batch"] == 8 and row["windows_per_second"] > 0
    assert 0 < row["save_checksums_seconds"] < row["save_seconds"] and row["checkpoint_gib"] > 0
    assert "windows_per_second" not in second[0]
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]


@pytest.mark.slow
def test_two_processes_train_a_stage_with_frozen_networks_and_a_state_split_over_both(runs, dataset, tmp_path):
    options = sources(runs, "teacher")
    train_on_several(2, "teacher", tmp_path, dataset, *options, "--config.mesh.data=1", "--config.mesh.fsdp=4")
    assert_written_by_all(tmp_path, 12, processes=2)
    assert_equal_but_for_rounding(tmp_path, runs["teacher"], 12)


# The gradient of the mel through the decoder of so small a VAE is chaotic: in one process, too, a learning rate that is
# a millionth higher changes its norm by a tenth within ten steps. Three steps are compared with it, all without it.
WITHOUT_MEL = {"regression": ["--config.losses.mel=0.0"], "student": ["--config.losses.mel=0.0,0.0,0.0,0.0"]}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("stage", ["vocoder", "vae", "regression", "teacher", "student"])
def test_every_stage_on_two_and_on_four_processes(stage, count, runs, dataset, tmp_path):
    options, expected = [*sources(runs, stage), *WITHOUT_MEL.get(stage, [])], runs[stage]
    if stage in WITHOUT_MEL:
        expected = tmp_path / "one"
        code, stderr = run(stage, expected, dataset, *options)
        assert code == 0, stderr
    workdir = tmp_path / "several"
    train_on_several(count, stage, workdir, dataset, *options, "--config.mesh.fsdp=2")
    assert_written_by_all(workdir, 12, processes=count)
    assert_equal_but_for_rounding(workdir, expected, 12)


@pytest.mark.slow
def test_the_mel_loss_on_two_processes(runs, dataset, tmp_path):
    options = [*sources(runs, "regression"), "--config.steps=3", "--config.eval.every=3"]
    code, stderr = run("regression", tmp_path / "one", dataset, *options)
    assert code == 0, stderr
    train_on_several(2, "regression", tmp_path / "several", dataset, *options, "--config.mesh.fsdp=2")
    assert_equal_but_for_rounding(tmp_path / "several", tmp_path / "one", 3)
