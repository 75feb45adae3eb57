"""launch/ablation.py: its page says what was measured; and launch/ablation.sh runs to its end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flashsr_jax.data import CLASSES
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.report.tables import write_scores
from flashsr_jax.evaluate.results import Results, Score, Speed

import ablation
from helpers import ROOT
from helpers.training import ENVIRONMENT

SYSTEMS = {  # LSD, Zimtohrli and ViSQOL of a clip of middle difficulty
    "unprocessed": (3.0, 0.030, 2.0),
    "student": (1.20, 0.015, 2.9),  # the model of the weights: the regression's row, whatever it calls itself
    "teacher": (1.10, 0.012, 3.2),
    "distill": (1.14, 0.013, 3.1),
    "adversarial": (1.16, 0.012, 3.1),
    "dmd_self": (1.15, 0.012, 3.0),
    "dmd_separate": (1.14, 0.011, 3.15),
    "vocoder_lr": (1.20, 0.015, 2.9),
    "vocoder_mel": (1.30, 0.017, 2.7),
}
LOW_BAND = {"vocoder_lr": (0.25, 25.0, 0.5), "vocoder_mel": (0.60, 2.0, 1.5)}  # LSD, SI-SDR, step at the cutoff


def results(**changes) -> Results:
    """Four clips a class and three seeds, all systems equally far apart on each: every difference can be told."""
    systems = {name: values for name, values in (SYSTEMS | changes).items() if values}
    scores = []
    for system, values in systems.items():
        metrics = dict(zip(("lsd", "zimtohrli", "visqol"), values, strict=True)) | {"loud_band_gain_db": -3.0}
        if system in LOW_BAND:
            metrics |= dict(zip(("lsd_lf", "low_band_si_sdr", "cutoff_step_db"), LOW_BAND[system], strict=True))
        for name in CLASSES:
            for clip in range(4):
                for seed in range(3):
                    of_clip = {metric: value * (1 + 0.1 * clip) for metric, value in metrics.items()}
                    scores.append(Score(system, 4000.0, f"{name}-{clip}", name, "g", 0.0, seed, of_clip))
    speeds = [Speed("student", 0.1, 2.0), Speed("teacher", 1.5, 2.0), Speed("dmd_separate", 0.1, 2.0)]
    return Results({"data": "12 clips", "seeds": "0 to 2"}, scores, [], [], [], speeds, "student")


def page_of(measured, folder) -> str:
    write_scores(measured, folder)
    ablation.main(folder / "scores.json", folder / "page.md")
    return (folder / "page.md").read_text()


def test_each_row_is_compared_with_the_one_that_it_builds_on(tmp_path):
    page = page_of(results(), tmp_path)
    mean = 1 + 0.1 * 1.5  # over the clips
    differences = [line for line in page.splitlines() if line.startswith("| teacher − regression | speech |")]
    cells = [cell.strip() for cell in differences[0].strip("|").split("|")[2:]]
    difference, low, high = map(float, re.fullmatch(r"\*\*(.*)\*\* \[(.*), (.*)\]", cells[0]).groups())
    assert difference == pytest.approx((1.10 - 1.20) * mean, rel=1e-2) and low < difference < high < 0
    assert cells[1].startswith(f"**{(0.012 - 0.015) * mean:+.3g}**") and cells[2].startswith(f"**{0.3 * mean:+.3g}**")
    assert cells[3] == "+0 [+0, +0]"
    assert "Seen, against regression: lsd better (speech, music, effects); zimtohrli better (speech" in page
    assert "| student by distillation − teacher | music |" in page and "| + distribution matching, fake score" in page
    assert (
        "**+ adversarial** (`adversarial`). Expected: Sharper than by distillation alone. Seen, against distill: "
        in page
    )
    assert (
        "lsd worse (speech, music, effects); zimtohrli better (speech, music, effects); visqol not to be told" in page
    )
    assert "`tune`" not in page, "nothing is said of a row that was not measured"
    assert "- seeds: 0 to 2" in page


def test_students_are_compared_with_the_regression_too(tmp_path):
    page = page_of(results(), tmp_path)
    section = page.split("Against the regression:")[1].split("**")[0]
    assert "| student by distillation − regression | speech |" in section and "teacher" not in section


def test_what_was_trained_is_said_of_runs_and_of_weights(tmp_path):
    fields = {"model": {}, "steps": 90, "best_metric": "lsd", "batch_size": 6, "data": {"window_frames": 256}}
    for name, of_stage in {
        "teacher": {"stage": "teacher", "init_from": "small"},
        "dmd_self": {"stage": "student", "init_from": "", "teacher_from": str(tmp_path / "teacher")},
        "vocoder_lr": {"stage": "vocoder", "init_from": "", "crop_frames": 64},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(fields | of_stage))
        evaluated = [{"kind": "eval", "step": step, "lsd": lsd} for step, lsd in ((30, 1.3), (60, 1.1), (90, 1.2))]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in evaluated))
    write_scores(results(), tmp_path)
    of_name = {"regression": "small"} | {name: str(tmp_path / name) for name in ("teacher", "dmd_self", "vocoder_lr")}
    ablation.main(tmp_path / "scores.json", tmp_path / "page.md", of_name)
    section = (tmp_path / "page.md").read_text().split("## What was trained")[1]
    assert "| regression |  | the weights `small` |  |  |  |" in section
    assert "| teacher | teacher | small | 90 | 6 x 2.56 s | 60 |" in section, "the best step is what counts"
    assert "| dmd_self | student | teacher | 90 | 6 x 2.56 s | 60 |" in section
    assert "| vocoder_lr | vocoder | nothing | 90 | 6 x 0.64 s | 60 |" in section


def test_the_vocoders_low_band_has_a_table_of_its_own(tmp_path):
    page = page_of(results(), tmp_path)
    section = page.split("## The vocoder's low band")[1].split("## What was to be shown")[0]
    assert "lsd_lf ↓ | low_band_si_sdr ↑ | cutoff_step_db → 0 |" in section
    assert "lsd_lf worse (speech, music, effects); low_band_si_sdr worse (speech" in section
    assert "dmd_self" not in section


def test_what_was_to_be_shown_is_answered(tmp_path):
    page = page_of(results(), tmp_path / "reached")
    assert "The teacher takes 15.0 times as long as its student (the paper: 22 times)." in page
    assert "- Yes: the teacher is better than the regression in zimtohrli and visqol for at least two classes" in page
    assert "- Yes: the student (dmd_separate) is within 5 % of the teacher in LSD (1.036 times it)" in page
    assert (
        "- Yes: it is better than the regression in zimtohrli and visqol for every class (effects, music, speech)"
        in page
    )
    assert (
        "- Yes: + adversarial is better than distill in a perceptual metric (zimtohrli) and loses none (none)" in page
    )
    assert (
        "fake score: the student is better than adversarial in a perceptual metric (none) and loses none (visqol)"
        in page
    )
    worse = {"teacher": (1.3, 0.016, 3.0), "dmd_separate": (1.4, 0.014, 2.8), "adversarial": (1.16, 0.012, 3.0)}
    page = page_of(results(**worse), tmp_path / "missed")
    assert page.count("- No: ") == 6 and "- Yes: " not in page
    page = page_of(results(dmd_separate=None, dmd_self=None), tmp_path / "fewer")
    assert "the student (adversarial) is within 5 %" in page


def test_scores_of_something_else_are_refused(tmp_path):
    write_scores(results(**dict.fromkeys(list(SYSTEMS)[2:])), tmp_path)
    with pytest.raises(
        UserError, match="scores.json has none of regression, teacher, .*: measure by launch/ablation.sh"
    ):
        ablation.read(tmp_path / "scores.json")


@pytest.mark.slow
def test_a_rehearsal_at_micro_size_runs_to_its_end(runs, dataset, tmp_path):
    """All trainings, two steps each, and the measurement; run again, it trains nothing. A finished run is read."""
    environment = ENVIRONMENT | {
        "FLASHSR_SITE": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    environment |= {"CONFIGS": "tests/helpers/micro.py:%s", "DATA": str(dataset), "CLIPS": str(dataset)}
    environment |= {"RUNS": str(tmp_path / "runs"), "PAGE": str(tmp_path / "page.md"), "TEACHER_STEPS": "4"}
    environment |= {"VAE": str(runs["vae"]), "VOCODER": str(runs["vocoder"]), "REGRESSION": str(runs["regression"])}
    environment |= {"MEASURING": "--clips 1 --seconds 1 --no-perceptual --samples 0 --workers 1", "GATE": "False"}
    command = ["bash", "launch/ablation.sh", "--config.steps=2", "--config.eval.every=2"]
    for resumed in (0, 8):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("resuming from step 2") == resumed
    page = (tmp_path / "page.md").read_text()
    assert all(f"`{row.system}`" in page for row in (*ablation.ROWS[1:], *ablation.VOCODERS[1:]))
    assert "times as long as its student" in page
    assert not (tmp_path / "runs" / "regression").exists()
