"""A checkpoint in which one bit has flipped is refused wherever a run is read: by a resume, which goes on from the one
before, and in one line by whatever takes a run's networks."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from flashsr_jax.cli import main
from flashsr_jax.models.presets import model_config
from flashsr_jax.runs.checkpoint import Checkpoints
from flashsr_jax.train import loop

from helpers import RECORDINGS
from helpers.micro import get_config
from helpers.toy import toy_stage
from helpers.training import assert_same_checkpoint, checkpoint, run

MODEL = dataclasses.asdict(model_config(get_config("vae").model.to_dict()))


def flip(folder, part):
    """The lowest bit of a byte in the largest file of values of a checkpoint's part: a kernel, or a moment, changes."""
    file = max((folder / part).rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file


@pytest.fixture
def regression(tmp_path):
    """The folder of a run that has a checkpoint of step 7, with a network of one kernel."""
    folder = tmp_path / "regression"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"stage": "regression", "model": MODEL}))
    values = {"regression": {"kernel": np.random.default_rng(0).standard_normal(1000).astype(np.float32)}}
    checkpoints = Checkpoints(folder, 1, "lsd")
    checkpoints.save(7, values, {"params": values}, {"batches": 7})
    checkpoints.close()
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("weights", "pack", "--unet", "RUN", "-o", "OUT.safetensors"),
        ("weights", "export", "RUN", "--to", "orbax", "-o", "OUT"),
        ("weights", "export", "RUN", "--to", "orbax", "--last", "-o", "OUT"),
        ("evaluate", "--data", str(RECORDINGS), "--weights", "small", "--regression", "RUN", "-o", "OUT"),
    ],
    ids=lambda command: " ".join(command[:2]) + (" --last" if "--last" in command else ""),
)
def test_whatever_takes_a_runs_networks_says_in_one_line_that_they_changed(command, regression, tmp_path, capsys):
    file = flip(regression / "checkpoints" / "7", "state" if "--last" in command else "weights")
    out = str(tmp_path / "out")
    places = {"RUN": str(regression), "OUT": out, "OUT.safetensors": f"{out}.safetensors"}
    assert main([places.get(word, word) for word in command]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{regression / 'checkpoints' / '7'} cannot be read" in line and "move it away" in line
    assert f"{file.relative_to(regression / 'checkpoints' / '7')} has other bytes than were saved" in line
    assert not list(tmp_path.glob("out*"))


def test_what_is_not_asked_for_may_be_damaged(regression, tmp_path):
    flip(regression / "checkpoints" / "7", "state")
    assert main(["weights", "export", str(regression), "--to", "orbax", "-o", str(tmp_path / "out")]) == 0


@pytest.mark.training
def test_a_run_resumes_from_the_checkpoint_before_and_ends_the_same(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ("--config.best_metric=error", "--config.eval.every=100", "--config.checkpoint.keep_last=3")
    code, stderr = run("vae", tmp_path / "whole", dataset, *options, "--config.steps=9")
    assert code == 0, stderr
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    flip(tmp_path / "resumed" / "checkpoints" / "9", "state")
    for name in ("whole", "resumed"):
        code, stderr = run("vae", tmp_path / name, dataset, *options, "--config.steps=12")
        assert code == 0, stderr
    assert "checkpoint 9 cannot be read (ChecksumError: state/" in stderr and "going on from 6" in stderr
    assert (tmp_path / "resumed" / "damaged_checkpoints" / "9").is_dir()
    assert checkpoint(tmp_path / "resumed", 12)[1]["data_position"]["batches"] == 12
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "resumed", 12, least=5)


@pytest.mark.parametrize(
    ("name", "cause"),
    {
        "weights/_METADATA": "JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        "weights/manifest.ocdbt": "ValueError: DATA_LOSS: Error opening",
    }.items(),
)
def test_of_an_earlier_version_without_checksums_a_damaged_file_is_said_by_its_cause(
    name, cause, regression, tmp_path, capfd
):
    """Orbax's own words are its registry of handlers, a thousand characters that say nothing about the file."""
    step = regression / "checkpoints" / "7"
    (step / "checksums.json").unlink()
    (step / name).write_bytes(bytes((step / name).stat().st_size))
    assert main(["weights", "pack", "--unet", str(regression), "-o", str(tmp_path / "o.safetensors")]) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f"flashsr: --unet {regression}: {step} cannot be read ({cause}"), line
    assert line.endswith("); move it away to use another checkpoint") and len(line) < 700 and "registry" not in line
