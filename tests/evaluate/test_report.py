"""The report's files: a page that is whole by itself, tables that can be read back, nothing that is not a number."""

import base64
import csv
import dataclasses
import html.parser
import io
import json
import re

import numpy as np
import pytest
import soundfile

from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.evaluation import summary
from flashsr_jax.evaluate.report.page import write_report
from flashsr_jax.evaluate.report.tables import markdown_table, read_scores, write_scores
from flashsr_jax.evaluate.results import Problem, Results, Sample, Score, Speed
from flashsr_jax.evaluate.statistics import paired, summarise

from helpers.synthetic_results import SYSTEMS, TONES_HZ, synthetic_results

NAME = '<b onclick="x()">&amp;</script> $lead $y'
VOID = {"meta", "link", "input", "img", "br"}


class Page(html.parser.HTMLParser):
    """Every tag with its attributes, the text outside scripts and styles, and the scripts' text by id."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.open, self.text, self.scripts = [], [], "", {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"{tag} closes nothing"

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script":
            self.scripts[attributes.get("id", "")] = self.scripts.get(attributes.get("id", ""), "") + data
        elif tag != "style":
            self.text += data

    def data(self) -> dict:
        return json.loads(self.scripts["data"])


def small_results(**changes) -> Results:
    scores = [
        Score(system, 4000.0, f"clip {number}", "music", "", 0.0, 0, {"lsd": level + number / 10, "visqol": 4 - level})
        for system, level in (("unprocessed", 3.0), ("model", 1.0))
        for number in range(3)
    ]
    return dataclasses.replace(Results({"data": "three clips"}, scores, [], [], [], []), **changes)


@pytest.fixture(scope="module")
def results() -> Results:
    return synthetic_results()


@pytest.fixture(scope="module")
def text(results, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report") / "made"
    path = write_report(results, folder)
    assert path == folder / "index.html" and [file.name for file in folder.iterdir()] == ["index.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_every_element_is_closed_and_every_id_is_there_once(page):
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'byId\("([\w-]+)"\)', page.scripts[""]))
    assert len(used) > 30 and used <= set(ids)


def test_the_page_needs_no_other_file(text, page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "srcset", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, name)
    for address in re.findall(r"url\(([^)]*)\)", text):
        assert address.startswith("#")
    assert not re.search(r"https?://|@import|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")


def test_figures_are_those_of_the_statistics(results, page):
    data = page.data()
    assert data["systems"] == list(SYSTEMS) and data["classes"] == ["speech", "music", "effects", "all classes"]
    assert [metric["name"] for metric in data["metrics"] if metric["shown"]] == ["lsd", "lsd_hf", "zimtohrli", "visqol"]
    music_8khz_noise_visqol = ("1", "1", "2", "3")
    for key, wall_free in (("every", False), ("wall_free", True)):
        cell = data[key]
        for part in music_8khz_noise_visqol:
            cell = cell[int(part)] if isinstance(cell, list) else cell[part]
        rows = summarise(results.scores, "visqol", ("class_name", "cutoff_hz", "system"), wall_free=wall_free)
        expected = {"class_name": "music", "cutoff_hz": 8000.0, "system": "noise"}
        row = next(row for row in rows if row.group == expected)
        assert cell == pytest.approx([row.mean, row.low, row.high, row.count], rel=1e-4)
    assert data["every"][1]["1"]["2"]["3"] != data["wall_free"][1]["1"]["2"]["3"]
    together = paired(results.scores, "flashsr_jax base", "noise", "lsd", ("cutoff_hz",))[0]
    pair = data["pairs"]["3 0 4 2"]["0"]
    assert pair["difference"] == pytest.approx([together.mean, together.low, together.high], rel=1e-4)
    assert (pair["worse"], pair["count"]) == (together.worse, 30)
    assert [clip for clip, _ in pair["worst"]] == [clip for clip, _ in together.worsened[:6]]


def test_each_sound_is_stored_once_and_whole(page):
    samples = page.data()["samples"]
    assert [list(TONES_HZ) == [signal["name"] for signal in sample["signals"]] for sample in samples] == [True] * 3
    sounds = {name: text for name, text in page.scripts.items() if name.startswith("audio-")}
    assert len(sounds) == len(TONES_HZ)  # the three samples hold the same sounds
    for number, hz in enumerate(TONES_HZ.values()):
        x_N, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[f"audio-{number}"])))
        assert rate == 48_000 and len(x_N) == 96_000
        assert np.abs(x_N - 0.4 * np.sin(2 * np.pi * hz * np.arange(96_000) / 48_000)).max() < 1e-4


def test_loud_samples_are_turned_down_together(tmp_path):
    loud = {"original": np.full(4800, 0.5, np.float32), "unprocessed": np.full(4800, 2.0, np.float32)}
    page = Page(write_report(small_results(samples=[Sample("a", "", 4000, loud)]), tmp_path).read_text())
    levels = [soundfile.read(io.BytesIO(base64.b64decode(page.scripts[f"audio-{n}"])))[0].max() for n in range(2)]
    assert levels == pytest.approx([0.25, 1.0], abs=0.002)


def test_pictures_and_plots_are_there(text, page):
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 3 * len(TONES_HZ)
    assert {picture["alt"] for picture in pictures} == {f"Spectrogram of {name}, 0 to 24 kHz" for name in TONES_HZ}
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg" and "aria-label" in attributes]
    assert len(labels) == len(set(labels)) == 4 * 3 + 3 * 2
    assert "#010203" not in text  # the colour that stands for the page's own
    assert len(text) < 2_000_000


def test_names_are_text_wherever_they_stand(tmp_path):
    scores = [Score(system, 4000.0, NAME, NAME, NAME, 0.0, 0, {"lsd": 1.0}) for system in ("unprocessed", NAME)]
    results = Results(
        settings={NAME: NAME},
        scores=scores,
        problems=[Problem(NAME, NAME, 4000, NAME)],
        samples=[Sample(NAME, NAME, 4000, {"original": np.zeros(4800), NAME: np.zeros(4800)})],
        spectra=[],
        speeds=[Speed(NAME, 1.0, 0.0)],
    )
    page = Page(write_report(results, tmp_path).read_text())
    assert page.open == []
    assert not any(tag == "b" or "onclick" in attributes for tag, attributes in page.tags)
    assert page.text.count(NAME) >= 8
    data = page.data()
    assert data["systems"][1] == data["classes"][0] == data["samples"][0]["signals"][1]["name"] == NAME


def test_parts_without_figures_are_hidden(tmp_path):
    page = Page(write_report(small_results(), tmp_path).read_text())
    hidden = {attributes.get("id") for tag, attributes in page.tags if tag == "section" and "hidden" in attributes}
    assert hidden == {"speed", "listen", "loud"}
    one = small_results(scores=[score for score in small_results().scores if score.system == "model"])
    page = Page(write_report(one, tmp_path).read_text())
    assert ("section", {"id": "paired", "hidden": None}) in page.tags
    assert page.data()["pair_shown"] is None and page.data()["wall_free"] == []


def test_a_failed_report_leaves_the_last_one(tmp_path):
    before = write_report(small_results(), tmp_path).read_text()
    samples = [Sample("a", "", 4000, {"original": np.zeros(4800), "unprocessed": np.zeros(4799)})]
    with pytest.raises(ValueError, match="sample a differ in length"):
        write_report(small_results(samples=samples), tmp_path)
    assert (tmp_path / "index.html").read_text() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", [write_report, write_scores, lambda results, _: markdown_table(results, ["lsd"])])
def test_bad_results_are_refused(write, tmp_path):
    good = small_results().scores
    for value in (float("nan"), float("inf")):
        bad = dataclasses.replace(good[4], metrics={"lsd": value})
        with pytest.raises(ValueError, match=f"lsd of model on clip 1 at 4 kHz is {value}"):
            write(small_results(scores=[*good[:4], bad, *good[5:]]), tmp_path)
    with pytest.raises(ValueError, match="loudness is not a known metric"):
        write(small_results(scores=[dataclasses.replace(good[0], metrics={"loudness": 1.0})]), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_report, lambda results, _: markdown_table(results, ["lsd"])])
def test_where_nothing_was_scored_the_reasons_are_said(write, tmp_path):
    problems = [Problem(f"clip {number}", "", 0, "is silent") for number in range(9)]
    problems.append(Problem("clip 9", "noise", 4000, "has no profile"))
    with pytest.raises(UserError) as error:
        write(small_results(scores=[], problems=problems[-2:]), tmp_path)
    reasons = "clip 8: is silent; clip 9, noise, 4 kHz: has no profile"
    assert str(error.value) == f"nothing was scored, every clip was left out: {reasons}"
    with pytest.raises(UserError, match=r"clip 7: is silent; \.\.\. and 2 more, see scores.json$"):
        write(small_results(scores=[], problems=problems), tmp_path)
    assert not list(tmp_path.iterdir())


def test_scores_without_any_keep_the_problems(tmp_path):
    empty = small_results(scores=[], problems=[Problem("a", "", 0, "is silent")])
    write_scores(empty, tmp_path)
    assert read_scores(tmp_path / "scores.json") == empty


def test_scores_say_which_system_the_model_is(tmp_path):
    write_scores(small_results(model="model"), tmp_path)
    assert read_scores(tmp_path / "scores.json").model == "model"


def test_samples_that_are_not_finite_are_refused(tmp_path):
    sample = Sample("a", "", 4000, {"original": np.zeros(4800), "model": np.full(4800, np.nan)})
    with pytest.raises(ValueError, match="sample a of model"):
        write_report(small_results(samples=[sample]), tmp_path)


def test_scores_survive_the_round_trip(results, tmp_path):
    write_scores(results, tmp_path / "new")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["scores.csv", "scores.json"]
    assert read_scores(tmp_path / "new" / "scores.json") == dataclasses.replace(results, samples=[], spectra=[])


def test_the_csv_has_a_row_per_score_and_blanks_where_nothing_was_measured(results, tmp_path):
    write_scores(results, tmp_path)
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.scores)
    for row, score in zip(rows, results.scores, strict=True):
        assert (row["system"], float(row["cutoff_hz"]), row["clip"]) == (score.system, score.cutoff_hz, score.clip)
        metrics = {name: row[name] for name in ("lsd", "lsd_hf", "lsd_lf", "zimtohrli", "visqol", "low_band_gain_db")}
        assert {name: float(value) for name, value in metrics.items() if value} == score.metrics
    assert sum(row["visqol"] == "" for row in rows) == 30


@pytest.mark.parametrize("text", ["", "[]", '{"settings": {}}', '{"settings": {}, "scores": [{"x": 1}]}'])
def test_other_files_are_not_scores(text, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is not the scores.json of an evaluation"):
        read_scores(path)
    with pytest.raises(UserError, match="cannot read"):
        read_scores(tmp_path / "missing.json")


def test_markdown_has_a_row_per_group_and_system_and_the_best_in_bold():
    scores = [*small_results().scores, Score("a|b", 4000.0, "clip 0", "music", "", 0.0, 0, {"visqol": 4.5})]
    lines = markdown_table(small_results(scores=scores), ["lsd", "visqol"]).splitlines()
    assert lines[0] == "| class | cutoff | system | lsd ↓ | visqol ↑ |"
    assert lines[1] == "| --- | --- | --- | ---: | ---: |"
    assert lines[2].startswith("| music | 4 kHz | unprocessed | 3.10 [3.00, 3.20] | 1.00")
    assert lines[3].startswith("| music | 4 kHz | model | **1.10** [1.00, 1.20] | 3.00")
    assert lines[4] == r"| music | 4 kHz | a\|b | – | **4.50** [4.50, 4.50] |"
    assert len(lines) == 5
    assert markdown_table(small_results(), ["lsd"], by=()).splitlines()[0] == "| system | lsd ↓ |"
    with pytest.raises(ValueError, match="no score has zimtohrli; there are lsd, visqol"):
        markdown_table(small_results(), ["zimtohrli"])


FORMULAS = ('=HYPERLINK("http://x","y")', "+1", "-2", "@SUM(A1)", "\t=1", "\r=1")


@pytest.mark.parametrize("name", FORMULAS, ids=ascii)
def test_a_cell_that_spreadsheets_would_run_is_text(tmp_path, name):
    scores = [Score(name, 4000.0, name, name, name, 0.0, 0, {"lsd": 1.0, "low_band_gain_db": -3.0})]
    write_scores(small_results(scores=scores), tmp_path)
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as lines:
        (row,) = csv.DictReader(lines)
    assert [row[field] for field in ("system", "clip", "class_name", "group")] == [f"'{name}"] * 4
    assert row["low_band_gain_db"] == "-3.0"  # a number stays one
    assert read_scores(tmp_path / "scores.json").scores == scores


def test_names_in_markdown_are_text(results):
    """No cells, lines, links, pictures, HTML, emphasis or mathematics of their own."""
    names = {
        "a|b": r"a\|b",
        "a\\|b": r"a\\\|b",
        "two\nlines": "two lines",
        "\x1b[2Jclear": r" \[2Jclear",
        "<script>&lt;": r"\<script\>\&lt;",
        "![x](http://y)": r"!\[x\](http:\//y)",
        "*a* _b_ `c` ~~d~~ $e$": r"\*a\* \_b\_ \`c\` \~\~d\~\~ \$e\$",
        "flashsr_jax base": "flashsr_jax base",
    }
    for name, shown in names.items():
        scores = [Score(name, 4000.0, "clip", name, "", 0.0, 0, {"lsd": 1.0}, {"4000": 1.0})]
        of_name = dataclasses.replace(results, scores=scores, speeds=[Speed(name, 1.0, 0.0)])
        text = summary(of_name)
        assert text.count(f"| {shown} | 4 kHz | {shown} |") == 2 and f"\n| {shown} | 1.000 |" in text
        assert {line.count(" | ") for line in markdown_table(of_name, ["lsd"]).splitlines()} == {3}


def test_a_metric_that_no_clip_of_a_group_has_is_a_dash():
    """As a high band is above 16 kHz of recordings that end there."""
    scores = [
        Score(
            system, hz, name, "speech", name, 16_000, 0, {"lsd": 1.0} if hz == 16_000 else {"lsd": 1.0, "lsd_hf": 2.0}
        )
        for system in ("unprocessed", "mirror")
        for hz in (8000.0, 16_000.0)
        for name in ("a", "b")
    ]
    results = Results(settings={}, scores=scores, problems=[], samples=[], spectra=[], speeds=[])
    rows = markdown_table(results, ["lsd", "lsd_hf"]).splitlines()
    assert [row.endswith(" – |") for row in rows[2:]] == [False, False, True, True]


def test_markdown_orders_classes_and_cutoffs(results):
    shuffled = dataclasses.replace(results, scores=results.scores[::-1])
    lines = [line.split(" | ") for line in markdown_table(shuffled, ["lsd"]).splitlines()[2:]]
    groups = list(dict.fromkeys((line[0], line[1]) for line in lines))
    assert groups == [(f"| {name}", hz) for name in ("speech", "music", "effects") for hz in ("4 kHz", "8 kHz")]
