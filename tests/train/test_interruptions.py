"""What ends a run too early, done to a real one: kill -9, SIGTERM, a damaged checkpoint, a full disk, a dead process.

The same command then goes on to what an uninterrupted run has, bit for bit."""

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from flashsr_jax.devices.processes import HEARTBEAT_S, RESUMABLE

from helpers.processes import finish_all, start, start_several, wait_for_checkpoint
from helpers.training import ENVIRONMENT, ROOT, assert_same_checkpoint, command, logged, run_alone, without_speed

STEPS = 20
# A line a step, so that the log shows each one once; a save every other step, so that kills meet one.
OPTIONS = (f"--config.steps={STEPS}", "--config.log_every=1", "--config.checkpoint.every=2", "--config.eval.every=20")
OPTIONS += ("--config.losses.adversarial=0.0",)  # half as much to compile


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """A run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole")
    code, stderr = run_alone("vae", folder, dataset, *OPTIONS)
    assert code == 0, stderr
    return folder


def assert_same_run(folder, whole):
    """The same examples in the same steps: each step's losses once, and everything that is saved at the end."""
    assert without_speed(logged(folder)) == without_speed(logged(whole))
    assert [line["step"] for line in logged(folder) if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert_same_checkpoint(folder, whole, STEPS)


def kill(folder, dataset, rng, during_save):
    """Start the run and kill -9 it, at a random moment or while a save is under way; what it was doing then."""
    partial = folder / "checkpoints"
    before = {path.name for path in partial.glob("*")}
    process = start("vae", folder, dataset, *OPTIONS)
    try:
        if during_save:
            while not (saving := [p.name for p in partial.glob("*.orbax-checkpoint-tmp") if p.name not in before]):
                if process.poll() is not None:
                    break
                time.sleep(0.001)
        else:
            first = max((int(name) for name in before if name.isdigit()), default=0) + 1
            while process.poll() is None and not any((partial / str(step)).exists() for step in (first, first + 1)):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 2))
            saving = [path.name for path in partial.glob("*.orbax-checkpoint-tmp")]
    finally:
        process.kill()
        process.communicate()
    saved = max((int(path.name) for path in partial.glob("*") if path.name.isdigit()), default=0)
    return f"after step {saved}" + (f", while {saving[0].split('.')[0]} was being saved" if saving else "")


@pytest.mark.training
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_ends_as_if_it_had_not_been(kills, whole, dataset, tmp_path):
    seed = time.time_ns()
    rng = random.Random(seed)
    moments = []
    while len(moments) < kills:
        moments.append(kill(tmp_path, dataset, rng, during_save=len(moments) % 2 == 0))
        if (tmp_path / "checkpoints" / str(STEPS)).exists():  # too fast for more: once again from the start
            assert_same_run(tmp_path, whole)
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
    print(f"killed {kills} times (seed {seed}): {'; '.join(moments)}")
    assert sum("being saved" in moment for moment in moments) >= max(1, kills // 4)
    code, stderr = run_alone("vae", tmp_path, dataset, *OPTIONS)
    assert code == 0, stderr
    assert_same_run(tmp_path, whole)


@pytest.mark.training
def test_told_to_stop_it_saves_and_a_damaged_save_is_replaced_by_the_one_before(whole, dataset, tmp_path):
    process = start("vae", tmp_path, dataset, *OPTIONS, "--config.data.workers=1")
    wait_for_checkpoint(tmp_path, [process], step=4)
    os.killpg(process.pid, signal.SIGTERM)  # the processes that read the data too, as schedulers do
    told = time.monotonic()
    ((code, stderr),) = finish_all([process])
    took = time.monotonic() - told
    assert code == RESUMABLE and "Traceback" not in stderr, stderr
    last = stderr.strip().splitlines()[-1]
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert last == f"flashsr_jax: told to stop; step {saved} is saved, and the same command goes on from there"
    print(f"saved and ended {took:.1f} s after SIGTERM")

    data = max((tmp_path / "checkpoints" / str(saved) / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    code, stderr = run_alone("vae", tmp_path, dataset, *OPTIONS)
    assert code == 0 and f"checkpoint {saved} cannot be read" in stderr, stderr
    assert (tmp_path / "damaged_checkpoints" / str(saved)).is_dir()
    assert_same_run(tmp_path, whole)


DISK = """
mount -t tmpfs -o size=3m none "$0" || exit 77
"$@"
code=$?
ls "$0/run/checkpoints" | grep -x "[0-9]*"
mount -o remount,size=64m "$0"
"$@" >&2 && ls "$0/run/checkpoints"
exit $code
"""


@pytest.mark.training
def test_a_full_disk_is_one_line_and_with_room_the_run_goes_on(dataset, tmp_path):
    """On a disk of 3 MB of its own; that takes a mount, which not every host allows."""
    training = command("vae", tmp_path / "run", dataset, "--config.eval.every=60")
    mounting = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", DISK, str(tmp_path), *training]
    done = subprocess.run(mounting, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"no mount allowed here: {done.stderr.strip()}")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("flashsr_jax: ")]
    assert "No space left on device" in line
    assert done.stdout.split() == ["3", "6", "12", "9"], done.stdout  # what the failed run kept, then the next one
    assert "could not be written" in line and "step 6 is the last complete one" in line
    assert "resuming from step 6" in done.stderr


@pytest.mark.slow
def test_several_processes_stop_at_one_step_and_none_waits_for_a_dead_one(dataset, tmp_path):
    """SIGTERM to one of two: both save the same step. Started again, one is killed: the other ends within a minute."""
    options = (
        "--config.steps=10000",
        "--config.log_every=1",
        "--config.checkpoint.every=2",
        "--config.eval.every=10000",
    )
    processes = start_several(2, "vae", tmp_path, dataset, *options)
    wait_for_checkpoint(tmp_path, processes)
    processes[1].send_signal(signal.SIGTERM)
    lines = set()
    for code, stderr in finish_all(processes):
        assert code == RESUMABLE, stderr
        lines.add(stderr.strip().splitlines()[-1])
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert lines == {f"flashsr_jax: told to stop; step {saved} is saved, and the same command goes on from there"}

    processes = start_several(2, "vae", tmp_path, dataset, *options)
    wait_for_checkpoint(tmp_path, processes, saved + 1)
    processes[1].kill()
    killed = time.monotonic()
    (code, stderr), _ = finish_all(processes)
    took = time.monotonic() - killed
    assert f"resuming from step {saved}" in stderr and took < 60
    # Either this project's word, or JAX's own where it is the first to know.
    assert "has lost the others" in stderr or "another task died" in stderr, stderr
    assert code in (RESUMABLE, -signal.SIGABRT)
    print(f"the other process ended {took:.0f} s after the first was killed (JAX's limit: {HEARTBEAT_S} s)")
