"""The gate before a student: its teacher, sampled, has to beat the network that it starts from."""

import json
import logging

import jax
import numpy as np
import pytest

from flashsr_jax.cli import main as flashsr
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import ReferenceSpectra, all_metrics
from flashsr_jax.evaluate.references import wall
from flashsr_jax.runs.folder import GATE_FILE
from flashsr_jax.train import gate
from flashsr_jax.train.evaluation import ClipSet
from flashsr_jax.train.logs import Logs

from helpers import micro
from helpers.steps import mesh_of
from helpers.training import checkpoint, logged, run


@pytest.fixture
def case(dataset, tmp_path, monkeypatch):
    """`check(teacher, start, **changes)` of a student's run in tmp_path, whose networks make these waveforms of a clip;
    and its configuration, its clips, and how often a network was asked."""
    config = micro.get_config("student")
    config.data.dir = str(dataset)
    config.update(teacher_from="runs/teacher", init_from="runs/regression", vocoder_from="runs/vocoder")
    clips, asked = ClipSet.load(config, mesh_of(1, 1)), []
    (tmp_path / "config.json").write_text(config.to_json())

    def check(teacher, start, networks=None, **changes):
        config.update(changes)

        def outputs_of(program, weights, frozen, clips, key):
            asked.append("start" if weights else "teacher")
            return {"audio": [(start if weights else teacher)(clip) for clip in clips.clips]}

        monkeypatch.setattr(gate, "outputs_of", outputs_of)
        frozen = {role: {} for role in networks or ("vae", "teacher", "init", "vocoder")}
        with Logs(tmp_path, 0, config.steps) as logs:
            gate.check(config, None, frozen, {"teacher": "a"}, clips, jax.random.key(0), logs, tmp_path)

    return check, config, clips, asked


def original(clip):
    return clip.hr


def unprocessed(clip):
    return clip.lr


def test_a_teacher_that_is_better_is_let_through_and_measured_once(case, tmp_path, caplog, capsys):
    check, _, clips, asked = case
    with caplog.at_level(logging.INFO, "flashsr_jax"):
        check(original, unprocessed)
    assert asked == ["teacher", "start"]
    kept = json.loads((tmp_path / GATE_FILE).read_text())
    pairs = ((ReferenceSpectra(clip.hr, wall(clip.bandwidth_hz)), clip.lr) for clip in clips.clips)
    distance = np.mean([all_metrics(*pair, 4000.0)["lsd"] for pair in pairs])
    assert kept["metric"] == "lsd" and kept["margin"] == pytest.approx(distance, rel=1e-6)
    assert kept["scores"]["teacher"]["lsd"] == 0 < kept["scores"]["noise"]["lsd"] < distance
    (line,) = logged(tmp_path)
    assert (line["step"], line["kind"], line["teacher/lsd"]) == (0, "gate", 0)
    assert line["init_from/lsd"] == pytest.approx(distance, rel=1e-6) and line["noise/lsd"] > 0
    side_by_side = f"teacher lsd 0; init_from lsd {distance:.4g}; noise lsd {kept['scores']['noise']['lsd']:.4g}"
    assert f"teacher of 2 steps, by lsd: {side_by_side}" in caplog.text
    assert flashsr(["runs", str(tmp_path)]) == 0
    assert f"before .: {side_by_side}" in capsys.readouterr().out
    assert flashsr(["runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["gate"] == kept

    check(original, unprocessed)
    assert len(asked) == 2 and len(logged(tmp_path)) == 1, "a start before the first checkpoint measures nothing again"
    check(original, unprocessed, teacher_gate_steps=3)
    assert len(asked) == 4


def test_a_teacher_that_is_no_better_ends_the_run_in_one_line_unless_that_is_wanted(case, tmp_path, caplog):
    check, _, _, asked = case
    said = (
        r"^config.teacher_from=runs/teacher does not beat config.init_from=runs/regression: lsd is worse by [\d.]+ \("
    )
    with pytest.raises(UserError, match=said + ".*; train the teacher on, or set config.teacher_gate=False$"):
        check(unprocessed, original)
    assert (tmp_path / GATE_FILE).exists()
    with caplog.at_level(logging.WARNING, "flashsr_jax"):
        check(unprocessed, original, teacher_gate=False)
    assert "lsd is worse by" in caplog.text and "it is learned from all the same" in caplog.text
    assert len(asked) == 2
    with pytest.raises(UserError, match="worse by 0 "):
        check(original, original, teacher_gate=True, seed=1)


def test_zimtohrli_decides_where_it_is_measured(case, tmp_path):
    check, config, *_ = case
    config.eval.perceptual = True

    def louder(clip):
        return 1.3 * clip.hr

    with pytest.raises(UserError, match=r"zimtohrli is worse by .*teacher zimtohrli [\d.e-]+, lsd [\d.]+; init_from"):
        check(unprocessed, louder)
    kept = json.loads((tmp_path / GATE_FILE).read_text())
    assert kept["metric"] == "zimtohrli" and kept["margin"] < 0


def test_a_gate_without_a_vocoder_hears_nothing(case):
    check, _, _, asked = case
    with pytest.raises(UserError, match="set config.vocoder_from, or config.teacher_gate=False"):
        check(original, unprocessed, networks=("vae", "teacher", "init"))
    check(original, unprocessed, networks=("vae", "teacher", "init"), teacher_gate=False)
    assert not asked


def test_a_student_that_starts_from_its_teacher_has_no_gate():
    config = micro.get_config("student")
    assert not gate.applies(config)
    config.init_from = "runs/regression"
    assert gate.applies(config)
    assert not any(gate.applies(micro.get_config(stage)) for stage in ("regression", "teacher", "tune"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"metric": "lsd"}', '{"metric": "lsd", "margin": 1, "scores": {}}'])
def test_a_damaged_record_is_measured_again_and_lists_nothing(case, tmp_path, damage, capsys):
    check, _, _, asked = case
    (tmp_path / GATE_FILE).write_text(damage)
    assert flashsr(["runs", str(tmp_path)]) == 0
    assert "before" not in capsys.readouterr().out
    check(original, unprocessed)
    assert asked


@pytest.mark.training
def test_a_student_from_a_regression_with_all_losses_in_parts(runs, dataset, tmp_path):
    """The gate before it is measured by the real networks, at the first start only; then every role has its updates."""
    sources = {"vae": "vae", "teacher": "teacher", "init": "regression", "vocoder": "vocoder"}
    options = [f"--config.{role}_from={runs[stage]}" for role, stage in sources.items()]
    options += [f"--config.losses.{name}=0,1,1,1" for name in ("distill_mel", "waveform", "features")]
    options += ["--config.accumulate=2", "--config.fake_score=separate", "--config.teacher_gate=False"]
    options += ["--config.guidance.speech=2.0,3.0", "--config.phases=1,2,3", "--config.checkpoint.every=2"]
    options += ["--config.steps=2", "--config.eval.every=2"]
    code, stderr = run("student", tmp_path, dataset, *options)
    assert code == 0, stderr
    gate_line, *lines = logged(tmp_path)
    kept = json.loads((tmp_path / GATE_FILE).read_text())
    assert gate_line["kind"] == "gate" and f"teacher lsd {kept['scores']['teacher']['lsd']:.4g}" in stderr
    assert ("is worse by" in stderr) == (kept["margin"] <= 0)
    assert kept["settings"]["guidance"]["speech"] == [2.0, 3.0]
    terms = {"distill", "distill_mel", "mel", "adversarial", "waveform", "features", "dmd"}
    assert terms | {"head", "discriminator", "fake_score"} <= lines[0].keys()
    state = checkpoint(tmp_path, 2)[0]["state"]
    updates = {role: int(moments[1][0]["count"]) for role, moments in state["opt_state"].items()}
    assert updates == {"student": 2, "head": 2, "discriminator": 2, "fake_score": 4}

    code, stderr = run("student", tmp_path, dataset, *options)
    assert code == 0 and "resuming from step 2" in stderr and "teacher of" not in stderr, stderr
    assert [line["kind"] for line in logged(tmp_path)].count("gate") == 1
