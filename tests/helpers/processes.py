"""Training runs that are watched while they run, and runs of several processes; else as `training`."""

import contextlib
import random
import socket
import subprocess
import time

from helpers.training import ENVIRONMENT, ROOT, command

JOB_PORTS = range(65_536 - 4096, 65_536)


def start(*args):
    """Start in one process, the leader of a group of its own."""
    streams = {"stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*args), cwd=ROOT, env=ENVIRONMENT, start_new_session=True, **streams)


def free_ports(count):
    """Different ports on which nothing listens, of those that JAX derives from the number of a Slurm or MPI job."""
    with contextlib.ExitStack() as held:
        ports = []
        for port in random.sample(JOB_PORTS, len(JOB_PORTS)):
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("", port))
                ports.append(port)
            if len(ports) == count:
                break
    return ports


def start_several(count, *args, devices=2):
    """Start one run of `count` processes with `devices` host devices each."""
    together = [f"--coordinator_address=localhost:{free_ports(1)[0]}", f"--num_processes={count}"]
    environment = ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": str(devices)}
    return [
        subprocess.Popen(
            [*command(*args), *together, f"--process_id={i}"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,  # of the collectives, which print there
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def finish_all(processes, timeout=900):
    """Wait for the processes; [(exit code, stderr)]."""
    try:
        stderr = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, stderr, strict=True)]


def wait_for_checkpoint(workdir, processes, step=0):
    """Wait until a checkpoint of at least `step` is complete; its step."""
    while True:
        steps = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
        if steps and max(steps) >= step:
            return max(steps)
        assert all(process.poll() is None for process in processes), processes[0].communicate()[1]
        time.sleep(0.01)


def run_on(devices, *args):
    """Run to the end in one process with so many host devices; (exit code, stderr)."""
    environment = ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": str(devices)}
    done = subprocess.run(command(*args), cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr
