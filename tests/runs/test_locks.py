"""One process at a time writes to a folder; what a killed one left behind is taken over."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.cli import main
from flashsr_jax.train import loop

from helpers.toy import toy_stage
from helpers.training import run

HOLD = """
import sys, time
from flashsr_jax.locks import locked
with locked(sys.argv[1], "a folder"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hold():
    """A function that has another process hold a lock file, until it is killed."""
    held = []

    def start(path):
        held.append(subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True))
        assert held[-1].stdout.readline() == "held\n"
        return held[-1]

    yield start
    for process in held:
        process.kill()
        process.communicate()


def test_a_second_build_of_a_dataset_is_refused_until_the_first_is_gone(tmp_path, hold, capsys, caplog):
    (tmp_path / "music").mkdir()
    sf.write(tmp_path / "music" / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(96_000), 48_000)
    build = ["data", "build", str(tmp_path / "music"), "--out", str(tmp_path / "out"), "--workers", "1"]
    other = hold(tmp_path / ".out.lock")
    assert main(build) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'out'} is in use by process {other.pid} on " in line and not (tmp_path / "out").exists()
    other.kill()
    other.wait()
    assert main(build) == 0
    assert f"was left behind by process {other.pid} on " in caplog.text
    assert (tmp_path / "out" / "manifest.csv").is_file() and not (tmp_path / ".out.lock").exists()


def test_a_second_encoding_of_windows_is_refused_until_the_first_is_gone(tmp_path, hold, monkeypatch, capsys, caplog):
    monkeypatch.setattr("flashsr_jax.train.latents._write_cache", lambda config, folder, windows: folder.mkdir())
    encode = ["data", "encode", "--config", "regression:tiny", "--out", str(tmp_path / "out"), "--windows", "3"]
    other = hold(tmp_path / ".out.lock")
    assert main(encode) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'out'} is in use by process {other.pid} on " in line and not (tmp_path / "out").exists()
    other.kill()
    other.wait()
    assert main(encode) == 0
    assert f"was left behind by process {other.pid} on " in capsys.readouterr().err
    assert (tmp_path / "out").is_dir() and not (tmp_path / ".out.lock").exists()


@pytest.mark.training
def test_a_second_start_in_a_runs_folder_is_refused_until_the_first_is_gone(dataset, tmp_path, hold, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ("--config.best_metric=error", "--config.eval.every=100")
    other = hold(tmp_path / ".lock")
    code, stderr = run("vae", tmp_path, dataset, *options)
    last = stderr.strip().splitlines()[-1]
    assert code == 1 and f"{tmp_path} is in use by process {other.pid} on " in last, stderr
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    other.kill()
    other.wait()
    code, stderr = run("vae", tmp_path, dataset, *options)
    assert code == 0 and f"was left behind by process {other.pid} on " in stderr, stderr
    assert (tmp_path / "checkpoints" / "12").is_dir() and not (tmp_path / ".lock").exists()
