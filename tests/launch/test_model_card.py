"""launch/small/model_card.py: its tables say what was measured, and fill the documents between their markers."""

import json

import pytest

from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.report.tables import write_scores
from flashsr_jax.evaluate.results import Results, Score, Speed

import model_card

CLASSES = ("speech", "music", "effects")


def results() -> Results:
    """Two clips a class and three seeds; the middle seed's means are 1.6 and 1.2 in LSD for noise and the model."""
    systems = {
        "unprocessed": {"lsd": 3.0, "zimtohrli": 0.030, "visqol": 2.0},
        "noise": {"lsd": 1.6, "zimtohrli": 0.020, "visqol": 2.5},
        "regression": {"lsd": 1.2, "zimtohrli": 0.015, "visqol": 2.9},
        "teacher": {"lsd": 1.0, "zimtohrli": 0.014, "visqol": 3.0},
    }
    low = {"lsd_lf": 0.25, "time_offset": 0.0}
    scores = [
        Score(
            system, 4000.0, f"{class_name}-{clip}", class_name, "g", 0.0, seed,
            {name: value * (1 + (clip - 0.5) * 0.1 + (seed - 1) * 0.01) for name, value in values.items()}
            | low | {"low_band_gain_db": -0.13 if system == "unprocessed" else -0.13 + 0.05 * clip},
        )
        for system, values in systems.items()
        for class_name in CLASSES
        for clip in range(2)
        for seed in range(3)
    ]  # fmt: skip
    speeds = [Speed("regression", 0.1, 2.0), Speed("teacher", 1.5, 2.0)]
    return Results({"teacher": "run, 50 steps, guidance 1.5"}, scores, [], [], [], speeds, "regression")


def rows(table: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in lines[2:]}


def test_tables_call_the_model_what_it_is():
    for made in (model_card.relative_table(results()), model_card.teacher_table(results())):
        assert "regression" in made.splitlines()[0] and "student" not in made


def test_scores_that_do_not_say_what_the_model_is_are_refused(tmp_path):
    write_scores(results(), tmp_path)
    path = tmp_path / "scores.json"
    assert model_card.read(path).model == "regression"
    old = json.loads(path.read_text())
    del old["model"]
    path.write_text(json.dumps(old))
    with pytest.raises(UserError, match=r"scores\.json does not say what its `student` is.*measure again"):
        model_card.read(path)


def test_relative_figures_say_what_is_reached():
    table = rows(model_card.relative_table(results()))
    assert len(table) == 9
    assert table["speech, lsd"][:4] == ["1.6", "1.2", "**0.75**", "1.05"]
    assert table["speech, zimtohrli"][2] == "0.75, not reached"  # required 0.65
    assert table["music, zimtohrli"][2] == "**0.75**"  # required 1.00
    assert table["effects, visqol"][2] == "**+0.40**"
    assert table["effects, visqol"][4] == "–"


def test_low_band_is_compared_with_the_input_and_the_model_with_the_teacher():
    assert rows(model_card.low_band(results()))["music"] == ["0.250", "0.250", "0.025", "0.050", "0"]
    teacher = model_card.teacher_table(results())
    assert rows(teacher)["speech"] == ["1.200", "1.000", "1.20"]
    assert "15.0 times as long" in teacher


def test_pictures_are_of_the_best_the_median_and_the_worst_clip():
    difference = model_card.clip_differences(results(), "speech")
    assert difference == pytest.approx({"speech-0": -0.005 * 0.95, "speech-1": -0.005 * 1.05})


def test_documents_are_filled_between_their_markers(tmp_path):
    path = tmp_path / "card.md"
    path.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\n<!-- /b -->\nafter\n")
    kept = tmp_path / "kept.md"
    kept.write_text("<!-- teacher -->\nmeasured before\n<!-- /teacher -->\n")
    model_card.fill(kept, {"a": "new"})
    for _ in range(2):
        model_card.fill(path, {"a": "new\n", "b": "| x |", "c": "unused"})
        filled = "before\n<!-- a -->\nnew\n<!-- /a -->\nbetween\n<!-- b -->\n| x |\n<!-- /b -->\nafter\n"
        assert path.read_text() == filled
    assert "measured before" in kept.read_text()
    with pytest.raises(ValueError, match="no such part"):
        model_card.fill(path, {"a": ""})
    assert path.read_text() == filled
