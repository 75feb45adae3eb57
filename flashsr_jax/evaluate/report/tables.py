"""The scores as files for other programs, and as Markdown tables for a README."""

import csv
import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import BETTER
from flashsr_jax.evaluate.results import Problem, Results, Score, Speed, class_rank
from flashsr_jax.evaluate.statistics import Summary, summarise
from flashsr_jax.files import csv_cell, replacing

MARKUP = re.compile(r"[\\`*<>\[\]|&~$]|(?<!\w)_|_(?!\w)|(?<=:)/(?=/)")  # in a word, _ is only itself


def write_scores(results: Results, folder: str | os.PathLike) -> None:
    """Write `scores.csv` (a row per system, cutoff, clip and seed; a metric not measured is empty) and `scores.json`
    (also settings, model, problems and speeds; for `read_scores`) into `folder` (made where missing).

    Raises as `Results.check` does.
    """
    results.check()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = [field.name for field in dataclasses.fields(Score) if field.name != "metrics"]
    metrics = results.metrics
    with replacing(folder / "scores.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(fields + metrics)
        for score in results.scores:
            writer.writerow(
                [csv_cell(getattr(score, name)) for name in fields] + [score.metrics.get(name, "") for name in metrics]
            )
    tables = {
        name: [dataclasses.asdict(row) for row in getattr(results, name)] for name in ("scores", "problems", "speeds")
    }
    with replacing(folder / "scores.json") as partial:
        whole = {"settings": results.settings, "model": results.model, **tables}
        partial.write_text(json.dumps(whole, indent=1), encoding="utf-8")


def read_scores(path: str | os.PathLike) -> Results:
    """What `write_scores` wrote to `scores.json`; samples and spectra are empty. Raises UserError for another file."""
    try:
        tables = json.loads(Path(path).read_text(encoding="utf-8"))
        return Results(
            settings=tables["settings"],
            scores=[Score(**row) for row in tables["scores"]],
            problems=[Problem(**row) for row in tables["problems"]],
            samples=[],
            spectra=[],
            speeds=[Speed(**row) for row in tables["speeds"]],
            model=tables.get("model"),
        )
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the scores.json of an evaluation: {error}") from error


def markdown_table(results: Results, metrics: Sequence[str], by: Sequence[str] = ("class_name", "cutoff_hz")) -> str:
    """A Markdown table of means with 95 % intervals: a row per value of the `by` fields of a score and system.

    The best of each column among the rows of equal `by` is bold. Raises as `Results.check_scored` does, and
    ValueError for a metric that no score has.
    """
    results.check_scored()
    if absent := set(metrics) - set(results.metrics):
        raise ValueError(f"no score has {', '.join(sorted(absent))}; there are {', '.join(results.metrics)}")
    cells = {
        (metric, *row.group.values()): row
        for metric in metrics
        for row in summarise(results.scores, metric, (*by, "system"))
        if row.count
    }
    groups = sorted(
        {key[1:-1] for key in cells}, key=lambda group: [_rank(*field) for field in zip(by, group, strict=True)]
    )
    lines = [[*(_field_title(name) for name in by), "system", *(name + arrow(name) for name in metrics)]]
    lines.append(["---"] * len(by) + ["---"] + ["---:"] * len(metrics))
    for group in groups:
        systems = [name for name in results.systems if any((metric, *group, name) in cells for metric in metrics)]
        columns = [[cells.get((metric, *group, system)) for system in systems] for metric in metrics]
        best = [_best(metric, column) for metric, column in zip(metrics, columns, strict=True)]
        for system, *row in zip(systems, *columns, strict=True):
            names = map(markdown_text, (*map(_field_text, by, group), system))
            lines.append([*names, *map(_markdown_cell, row, best)])
    return _markdown(lines)


def loud_table(results: Results) -> str:
    """A Markdown table of `metrics.loud_band_gains_db`: mean in dB over the clips, with its sign, of each 2 kHz band, a
    row per class, cutoff and system; "" where nothing was measured. Of several seeds the median."""
    head, *rows = loud_rows(results)
    if not rows:
        return ""
    named = [[*map(markdown_text, row[:3]), *row[3:]] for row in rows]
    return _markdown([head, ["---"] * 3 + ["---:"] * (len(head) - 3), *named])


def markdown_text(name: str) -> str:
    """A name, which may hold anything, as Markdown that shows it: one line without markup, HTML or cells of its own."""
    line = "".join(character if character.isprintable() else " " for character in name)
    return MARKUP.sub(r"\\\g<0>", line)


def _markdown(lines: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def loud_rows(results: Results) -> list[list[str]]:
    """The head and the rows of `loud_table`."""
    bands = sorted({band for score in results.scores for band in score.loud_bands_db}, key=float)
    head = ["class", "cutoff", "system", *(f"{float(band) / 1000:g}–{float(band) / 1000 + 2:g} kHz" for band in bands)]
    by_row: dict[tuple[str, float, str], list[Score]] = {}
    for score in results.scores:
        if score.loud_bands_db:
            by_row.setdefault((score.class_name, score.cutoff_hz, score.system), []).append(score)
    order = itertools.product(results.classes, results.cutoffs, results.systems)
    rows = [
        [class_title(row[0]), khz(row[1]), row[2], *(_gain_cell(by_row[row], band) for band in bands)]
        for row in order
        if row in by_row
    ]
    return [head, *rows]


def _gain_cell(scores: Sequence[Score], band: str) -> str:
    by_seed: dict[int, list[float]] = {}
    for score in scores:
        if band in score.loud_bands_db:
            by_seed.setdefault(score.seed, []).append(score.loud_bands_db[band])
    return f"{np.median([np.mean(gains) for gains in by_seed.values()]):+.1f}" if by_seed else "–"


def _markdown_cell(row: Summary | None, best: float) -> str:
    if row is None:
        return "–"
    mean, low, high = (f"{value:#.3g}".rstrip(".") for value in row.figures())
    return f"{f'**{mean}**' if row.mean == best else mean} [{low}, {high}]"


def _best(metric: str, column: Iterable[Summary | None]) -> float:
    """NaN where no system was measured: no clip of a group has a high band above its cutoff, say."""
    means = (row.figures()[0] for row in column if row)
    return (max if BETTER[metric] == "higher" else min)(means, default=math.nan)


def _rank(name: str, value: Any) -> tuple:
    """What a field of a score is sorted by."""
    return (class_rank(value), value) if name == "class_name" else (value,)


def _field_title(name: str) -> str:
    return {"class_name": "class", "cutoff_hz": "cutoff"}.get(name, name)


def _field_text(name: str, value: Any) -> str:
    if name == "cutoff_hz":
        return khz(value)
    return class_title(value) if name == "class_name" else str(value)


def khz(hz: float) -> str:
    """A frequency as tables and titles write it."""
    return f"{hz / 1000:g} kHz"


def class_title(name: str) -> str:
    """A class as tables and titles write it."""
    return name or "no class"


def arrow(metric: str) -> str:
    """Which way a metric gets better, to put after its name."""
    return {"lower": " ↓", "higher": " ↑", "zero": " → 0"}[BETTER[metric]]
