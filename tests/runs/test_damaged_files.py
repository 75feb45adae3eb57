"""Damage in what a run's folder holds beside its checkpoints stops neither a resume nor `flashsr runs`."""

import json

import pytest

from flashsr_jax.cli import main
from flashsr_jax.train import loop

from helpers.toy import toy_stage
from helpers.training import logged, run

DAMAGE = b'\xff\xfe{"step": \n5\n{"step": "x", "kind": "train"}\n{}\n'


@pytest.mark.training
def test_a_run_goes_on_and_is_listed_whatever_its_files_hold(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ("--config.best_metric=error", "--config.eval.every=100")
    code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=6")
    assert code == 0, stderr
    code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=6", "--config.seed=1")
    assert code == 0 and "goes on with another seed than before: 1, it was 0" in stderr, stderr
    for name in ("metrics.jsonl", "provenance.jsonl"):
        (tmp_path / name).write_bytes(DAMAGE + (tmp_path / name).read_bytes())
    capsys.readouterr()
    assert main(["runs", str(tmp_path)]) == 0 and "6/6" in capsys.readouterr().out
    (tmp_path / "config.json").write_bytes(b"\xff{")
    code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=12")
    assert code == 0 and "config.json is not the configuration of a run" in stderr, stderr
    assert "resuming from step 6" in stderr and json.loads((tmp_path / "config.json").read_text())["steps"] == 12
    assert [line["step"] for line in logged(tmp_path) if line["kind"] == "train"] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert [json.loads(line)["step"] for line in (tmp_path / "provenance.jsonl").read_text().splitlines()] == [0, 6, 6]
