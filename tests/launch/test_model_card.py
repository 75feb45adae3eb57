"""launch/small/model_card.py: its tables say what was measured, and fill the documents between their markers."""

import dataclasses
import gzip
import hashlib
import json

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.report.tables import markdown_table, write_scores
from flashsr_jax.evaluate.results import Results, Score, Speed

import model_card

CLASSES = ("speech", "speech, read", "music", "effects")


def results(classes=CLASSES, model_lsd=1.2) -> Results:
    """Two clips a class and three seeds; the middle seed's means are 1.6 and 1.2 in LSD for noise and the model."""
    systems = {
        "unprocessed": {"lsd": 3.0, "zimtohrli": 0.030, "visqol": 2.0},
        "mirror": {"lsd": 1.8, "zimtohrli": 0.014, "visqol": 1.9},
        "noise": {"lsd": 1.6, "zimtohrli": 0.020, "visqol": 2.5},
        "regression": {"lsd": model_lsd, "zimtohrli": 0.015, "visqol": 2.9},
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
        for class_name in classes
        for clip in range(2)
        for seed in range(3)
    ]  # fmt: skip
    speeds = [Speed("regression", 0.1, 2.0), Speed("teacher", 1.5, 2.0)]
    settings = {"data": f"{len(classes)} classes", "weights": "small", "teacher": "run, 50 steps, guidance 1.5"}
    return Results(settings, scores, [], [], [], speeds, "regression")


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


@pytest.fixture
def evaluation(tmp_path):
    """What launch/model_card.sh leaves of one evaluation: the test clips' scores and those of the later voices."""
    write_scores(results(("speech", "music", "effects")), tmp_path / "4khz")
    write_scores(results(("speech",), model_lsd=0.9), tmp_path / "4khz_read")
    return tmp_path


def test_voices_that_came_later_are_a_row_of_their_own(evaluation):
    both = model_card.measured(evaluation, "4khz")
    table = rows(model_card.relative_table(both))
    assert table["speech, lsd"][1] == "1.2"
    assert table["speech, read, lsd"][1] == "0.9"
    assert both.settings["data"] == "3 classes; speech, read: 1 classes"
    classes = [line.split(" | ")[0] for line in markdown_table(both, ["lsd"]).splitlines()[2:]]
    assert list(dict.fromkeys(classes)) == [f"| {name}" for name in CLASSES]


def test_what_was_measured_otherwise_makes_no_table(evaluation):
    path = evaluation / "4khz_read" / "scores.json"
    scores = json.loads(path.read_text())
    scores["settings"]["weights"] = "other"
    path.write_text(json.dumps(scores))
    with pytest.raises(UserError, match="4khz was measured with weights small, 4khz_read with other: measure both"):
        model_card.measured(evaluation, "4khz")
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*4khz_read"):
        model_card.measured(evaluation, "4khz")


def test_relative_figures_say_what_is_reached():
    table = rows(model_card.relative_table(results()))
    assert len(table) == 12
    assert table["speech, lsd"][:5] == ["1.6", "1.2", "**0.75**", "1.00", "1.13"]
    assert table["speech, read, lsd"][:5] == ["1.6", "1.2", "**0.75**", "1.00", "–"]
    required = {"speech": "0.60", "speech, read": "0.55", "music": "0.65", "effects": "0.62"}
    for name, figure in required.items():
        assert table[f"{name}, zimtohrli"][2:4] == ["0.75, not reached", figure]
    assert table["effects, visqol"][2:4] == ["**+0.40**", "+0.15"]


def test_the_model_is_compared_with_the_best_of_the_baselines():
    table = rows(model_card.baselines_table(results()))
    assert list(table) == [f"{name}, 4 kHz" for name in CLASSES]
    # mirror's Zimtohrli distance is the least, noise's ViSQOL the highest
    assert table["speech, 4 kHz"] == ["0.014", "0.015, not better", "2.5", "**2.9**"]
    assert list(rows(model_card.baselines_table(results(), ("music",), (4000.0,)))) == ["music, 4 kHz"]
    of_files = rows(model_card.baselines_table(results(), ("music",), said=model_card.file_of))
    assert list(of_files) == ["music, a file of 8 kHz"]


def test_the_model_is_compared_with_the_weights_before_clip_by_clip():
    measured = results()
    before = [
        dataclasses.replace(score, system="before")
        for score in results(model_lsd=1.5).scores
        if score.system == "regression"
    ]
    table = rows(model_card.before_table(dataclasses.replace(measured, scores=measured.scores + before)))
    assert len(table) == 4 * 3
    # clips of 0.95 and 1.05 times the mean, which is all that two clips can be drawn to
    assert table["speech, read, lsd"] == ["1.5", "1.2", "-0.3 [-0.315, -0.285]", "2 of 2"]
    assert table["music, visqol"] == ["2.9", "2.9", "+0 [+0, +0]", "0 of 2"]


def test_the_data_s_hours_and_hashes_are_of_the_corpus(tmp_path):
    (tmp_path / "licences.md").write_text("# Title\n\n| hours | train |\n| --- | --- |\n| speech | 2.40 |\n\nmore\n")
    (tmp_path / "manifest.csv.gz").write_bytes(gzip.compress(b"package\n"))
    for name in ("test", "test_read"):
        (tmp_path / name).mkdir()
    lines = model_card.data_table(tmp_path).splitlines()
    assert lines[2] == "| speech | 2.40 |"
    assert [line.split(":")[0] for line in lines[4:]] == [
        "- SHA-256 of the manifest (unpacked)",
        "- SHA-256 of the samples in test/",
        "- SHA-256 of the samples in test_read/",
    ]
    assert f"`{hashlib.sha256(b'package' + bytes([10])).hexdigest()}`" in lines[4]


def test_the_clips_hash_is_of_their_names_and_samples(tmp_path):
    x_N = np.random.default_rng(0).uniform(-0.5, 0.5, 480)
    digests = []
    for folder, name, gain, title in (
        ("a", "x", 1, ""),
        ("b", "x", 1, "tagged"),
        ("c", "y", 1, ""),
        ("d", "x", 0.9, ""),
    ):
        path = tmp_path / folder / "speech" / f"{name}.flac"
        path.parent.mkdir(parents=True)
        with sf.SoundFile(path, "w", 48_000, 1, subtype="PCM_24") as file:
            if title:
                file.title = title
            file.write(gain * x_N)
        digests.append(model_card.clips_digest(tmp_path / folder))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


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
