"""Folders that nobody may write to: one line, before the work, names the folder and the way out; or it just works."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.cli import main
from flashsr_jax.cost import training
from flashsr_jax.evaluate import protocol
from flashsr_jax.train import loop

from helpers.read_only import read_only
from helpers.toy import toy_stage
from helpers.training import logged, run

WORDS = {  # {command: the folder that it names}
    "data build effects --out shut/data --workers 1": "shut",
    "data build effects --out shut/deep/data --workers 1": "shut/deep",
    "data encode --config regression:tiny --out shut/latents --windows 3": "shut",
    "train --config vae:tiny --workdir shut --config.data.dir=DATASET --config.batch_size=8": "shut",
    "train --config vae:tiny --workdir shut/run --config.data.dir=DATASET --config.batch_size=8": "shut/run",
    "benchmark train --config vae:tiny --checkpoint shut": "shut",
    "benchmark train --config vae:tiny --profile shut/trace": "shut/trace",
    "weights pack --unet small -o shut/o.safetensors": "shut",
    "weights export small --to orbax -o shut/o": "shut",
    "evaluate --data effects -o shut --no-perceptual": "shut",
    "upscale effects/a.wav -o shut/o.wav": "effects/a.wav: shut",
    "upscale effects/a.wav -o shut/new/o.wav": "effects/a.wav: shut/new",
}


@pytest.mark.parametrize("command", WORDS)
def test_a_read_only_folder_is_named_before_anything_is_computed(command, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(protocol, "run", lambda *_, **__: pytest.fail("measured first"))
    monkeypatch.setattr(training, "make_programs", lambda *_: pytest.fail("compiled first"))
    Path("shut").mkdir()
    Path("effects").mkdir()
    sf.write("effects/a.wav", 0.1 * np.random.default_rng(0).standard_normal(96_000), 48_000)
    before = sorted(tmp_path.rglob("*"))
    with read_only(Path("shut")):
        assert main(command.replace("DATASET", str(dataset)).split()) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    how = "nothing can be written there (Permission denied): choose another folder, or change its permissions"
    assert line == f"flashsr: {WORDS[command]}: {how}"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.training
def test_a_run_in_a_read_only_folder_goes_on_once_it_can_be_written(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ("--config.best_metric=error", "--config.eval.every=100")
    code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=3")
    assert code == 0, stderr
    for folder, said in {
        ".": f"{tmp_path}: nothing can be",
        "checkpoints": "the checkpoint of step 6 could not",
    }.items():
        with read_only(tmp_path / folder):
            code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=6")
        last = stderr.strip().splitlines()[-1]
        assert code == 1 and "Traceback" not in stderr and last.startswith(f"flashsr_jax: {said}"), stderr
    code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=6")
    assert code == 0 and "resuming from step 3" in stderr and logged(tmp_path)[-1]["step"] == 6


@pytest.mark.training
def test_a_run_only_reads_its_dataset(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    shutil.copytree(dataset, tmp_path / "dataset")
    options = ("--config.best_metric=error", "--config.steps=2", "--config.data.bright=-30.0,")
    with read_only(tmp_path / "dataset"):
        code, stderr = run("vae", tmp_path / "run", tmp_path / "dataset", *options)
    assert code == 0 and "cannot be kept, and the next run measures again" in stderr, stderr
