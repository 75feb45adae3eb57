"""A process that reads the data is ended by the system: the run ends as for other losses that a restart mends."""

import multiprocessing
import os
import signal

import pytest

from flashsr_jax.data import batches
from flashsr_jax.devices.processes import RESUMABLE
from flashsr_jax.train import loop

from helpers.toy import toy_stage
from helpers.training import assert_same_checkpoint, run

OPTIONS = ("--config.best_metric=error", "--config.eval.every=100")


@pytest.mark.training
def test_a_lost_worker_ends_the_run_with_the_code_of_a_restart(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())

    class Killed(batches.BatchIterator):
        def __next__(self):
            if self.get_state()["batches"] == 4:
                (worker,) = (p for p in multiprocessing.active_children() if "Manager" not in p.name)
                os.kill(worker.pid, signal.SIGKILL)
                worker.join()
            return super().__next__()

    with monkeypatch.context() as patch:
        patch.setattr(batches, "BatchIterator", Killed)
        code, stderr = run("vae", tmp_path / "run", dataset, *OPTIONS, "--config.data.workers=1")
    last = stderr.strip().splitlines()[-1]
    assert code == RESUMABLE and "Traceback" not in stderr, stderr
    assert last == (
        "flashsr_jax: a process that reads the data was ended from outside (exit code -9); "
        "the same command goes on from the last checkpoint"
    )
    for folder in ("run", "whole"):
        code, stderr = run("vae", tmp_path / folder, dataset, *OPTIONS)
        assert code == 0 and ("resuming from step" in stderr) == (folder == "run"), stderr
    assert_same_checkpoint(tmp_path / "run", tmp_path / "whole", 12, least=5)
