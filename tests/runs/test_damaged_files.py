"""Damage in what a run's folder holds beside its checkpoints stops neither a resume nor `flashsr runs`."""

import dataclasses
import json

import pytest

from flashsr_jax.cli import main
from flashsr_jax.models.presets import PRESETS
from flashsr_jax.runs.folder import read_metrics
from flashsr_jax.train import loop

from helpers.configs import get_config
from helpers.toy import toy_stage
from helpers.training import logged, run

DAMAGE = b'\xff\xfe{"step": \n5\n{"step": "x", "kind": "train"}\n{}\n'


@pytest.mark.training
def test_a_run_goes_on_and_is_listed_whatever_its_files_hold(dataset, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ("--config.best_metric=error", "--config.eval.every=100")
    code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=6")
    assert code == 0, stderr
    code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=6", "--config.seed=1")
    assert code == 0 and "damaged" not in stderr and "goes on with another seed than before: 1, it was 0" in stderr, (
        stderr
    )
    for name in ("metrics.jsonl", "provenance.jsonl"):
        (tmp_path / name).write_bytes(DAMAGE + (tmp_path / name).read_bytes())
    capsys.readouterr()
    assert main(["runs", str(tmp_path)]) == 0 and "6/6" in capsys.readouterr().out
    assert len(caplog.messages) == 2 and all(
        "4 of " in line and "first of them line 1" in line for line in caplog.messages
    )
    (tmp_path / "config.json").write_bytes(b"\xff{")
    code, stderr = run("vae", tmp_path, dataset, *options, "--config.steps=12")
    assert code == 0 and "config.json is not the configuration of a run" in stderr, stderr
    for name, lines in (("metrics.jsonl", 9), ("provenance.jsonl", 6)):
        assert f"{tmp_path / name}: 4 of {lines} lines are damaged and left out, the first of them line 1" in stderr
    assert "resuming from step 6" in stderr and json.loads((tmp_path / "config.json").read_text())["steps"] == 12
    assert [line["step"] for line in logged(tmp_path) if line["kind"] == "train"] == [2, 3, 4, 6, 8, 9, 10, 12]
    assert [json.loads(line)["step"] for line in (tmp_path / "provenance.jsonl").read_text().splitlines()] == [0, 6, 6]


def test_a_line_that_is_being_written_is_no_damage(tmp_path, caplog):
    whole = json.dumps({"step": 1, "kind": "train", "loss": 1.0}) + "\n"
    (tmp_path / "metrics.jsonl").write_text(2 * whole + whole[:20])
    assert len(read_metrics(tmp_path)) == 2 and not caplog.messages


WHOLE = json.loads(get_config("vae", "tiny").to_json())
MODEL = dataclasses.asdict(PRESETS["tiny"])
LACKING = {  # {what a config.json holds: what is said of it}
    "[1]": "is not the configuration of a run: it has no stage, or another kind of it",
    '{"stage": 1}': "is not the configuration of a run: it has no stage, or another kind of it",
    '{"stage": "vae"}': "is not the configuration of a run: it has no model, or another kind of it",
    '{"stage": "vae", "model": 3}': "is not the configuration of a run: it has no model, or another kind of it",
    '{"stage": "vae", "model": {}}': ": a model configuration has vae, unet, vocoder, not {}",
    json.dumps({"stage": "none", "model": MODEL}): ": there is no stage 'none'; those are vae, ",
}


def test_the_name_of_a_run_stays_in_its_row(tmp_path, capsys):
    folder = tmp_path / "a\n\x1b[2Jb"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(WHOLE))
    assert main(["runs", str(tmp_path)]) == 0
    _, row = capsys.readouterr().out.splitlines()
    assert row.startswith("a\\n\\x1b[2Jb ")


@pytest.mark.parametrize("content", LACKING, ids=lambda content: content[:30])
def test_a_configuration_that_lacks_fields_is_one_line(content, tmp_path, capsys, caplog):
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "metrics.jsonl").write_text("")
    out = str(tmp_path / "out")
    for command in (
        ["weights", "pack", "--vae", str(tmp_path), "-o", f"{out}.safetensors"],
        ["weights", "export", str(tmp_path), "--to", "orbax", "-o", out],
    ):
        assert main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{tmp_path}/config.json{LACKING[content].removeprefix('is')}" in line.replace("json is", "json")
    for command in (["runs", str(tmp_path)], ["plan", "--config", f"{tmp_path}/config.json", "--devices", "1"]):
        assert main(command) == 1
        assert str(tmp_path) in capsys.readouterr().err.splitlines()[-1]
    (said,) = caplog.messages
    assert "config.json" in said and said.endswith("; that run is not listed")


@pytest.mark.parametrize("section", ["data", "eval", "optimizer", "losses", "steps", "checkpoint", "mesh"])
def test_a_run_is_not_made_again_from_a_configuration_that_lacks_a_section(section, tmp_path, capsys):
    for changed in ({section: None}, {section: 5} if section != "steps" else {section: "many"}):
        fields = {name: value for name, value in (WHOLE | changed).items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(fields))
        assert main(["train", "--config", f"{tmp_path}/config.json", "--workdir", str(tmp_path / "run")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert section in line and not (tmp_path / "run").exists()
