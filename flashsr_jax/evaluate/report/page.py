"""An evaluation as one page to look at and listen to."""

import base64
import html
import itertools
import json
import os
import string
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import matplotlib
import numpy as np

from flashsr_jax.audio.pictures import COLOURS, RANGE_DB
from flashsr_jax.evaluate.metrics import BETTER
from flashsr_jax.evaluate.report.players import player_data, spectrograms
from flashsr_jax.evaluate.report.plots import Summaries, legend, plots
from flashsr_jax.evaluate.report.tables import class_title, khz
from flashsr_jax.evaluate.results import BASELINES, Problem, Results, Speed
from flashsr_jax.evaluate.statistics import Comparison, Summary, paired, summarise
from flashsr_jax.files import replacing

ALL_CLASSES = "all classes"
MOST_PAIRED_SYSTEMS = 6  # of more, only the first model is compared
WORST = 6  # clips listed


def write_report(results: Results, folder: str | os.PathLike) -> Path:
    """Write `index.html` into `folder` (made where missing), a page that needs no other file; return its path.

    Raises UserError where nothing was scored, ValueError where a metric or a sample is not finite or the signals of a
    sample differ in length.
    """
    results.check()
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _page(results)
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _page(results: Results) -> str:
    folder = files("flashsr_jax.evaluate.report") / "static"
    walls = any(not score.wall_free for score in results.scores)
    audio: dict[bytes, int] = {}  # numbered by content: an original shown at two cutoffs is stored once
    samples = [player_data(sample, audio) for sample in results.samples]
    every = _summaries(results, wall_free=False)
    pairs = _pairs(results)
    data = {
        "metrics": [
            {"name": name, "better": BETTER[name], "shown": name in results.main_metrics} for name in results.metrics
        ],
        "systems": results.systems,
        "classes": _class_titles(results),
        "cutoffs": [khz(hz) for hz in results.cutoffs],
        "walls": walls,
        "every": _summary_data(results, every),
        "wall_free": _summary_data(results, _summaries(results, wall_free=True)) if walls else [],
        "pairs": pairs,
        "pair_shown": _pair_shown(results),
        "samples": samples,
    }
    parts = {
        "css": (folder / "report.css").read_text(encoding="utf-8"),
        "js": (folder / "report.js").read_text(encoding="utf-8"),
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c"),
        "lead": _lead(results),
        "settings": "".join(_row(name, value) for name, value in results.settings.items()),
        "problems": _problems(results.problems),
        "legend": legend(results),
        "plots": plots(results, every),
        "speeds": _speeds(results.speeds),
        "clips": "".join(map(spectrograms, results.samples)),
        "range_db": f"{RANGE_DB:g}",
        "colour_scale": ", ".join(
            matplotlib.colors.to_hex(matplotlib.colormaps[COLOURS](at)) for at in np.linspace(0, 1, 9)
        ),
        "audio": "".join(
            f'<script type="text/plain" id="audio-{number}">{base64.b64encode(flac).decode()}</script>'
            for flac, number in audio.items()
        ),
        "hide_with_walls": "hidden" if walls else "",
        "hide_without_walls": "" if walls else "hidden",
        "hide_without_pairs": "" if pairs else "hidden",
        "hide_without_speeds": "" if results.speeds else "hidden",
        "hide_without_samples": "" if results.samples else "hidden",
    }
    return string.Template((folder / "report.html").read_text(encoding="utf-8")).substitute(parts)


def _row(*cells: str) -> str:
    first, *rest = map(html.escape, cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'


def _lead(results: Results) -> str:
    clips = len({score.clip for score in results.scores})
    cutoffs = ", ".join(f"{hz / 1000:g}" for hz in results.cutoffs)
    systems = len(results.systems)
    return f"{systems} systems on {clips} clips, cutoff {cutoffs} kHz; {len(results.scores)} outputs scored."


def _problems(problems: Sequence[Problem]) -> str:
    if not problems:
        return '<p class="note">Nothing was left out.</p>'
    rows = "".join(_row(p.clip, p.system, khz(p.cutoff_hz) if p.cutoff_hz else "", p.reason) for p in problems)
    head = "".join(f'<th scope="col">{title}</th>' for title in ("clip", "system", "cutoff", "reason"))
    return (
        f"<details><summary>{len(problems)} left out of the figures</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _speeds(speeds: Sequence[Speed]) -> str:
    slowest = max((speed.rtf for speed in speeds), default=1)
    rows = []
    for speed in speeds:
        numbers = f"{speed.rtf:.3g}", f"{1 / speed.rtf:.3g} ×", f"{speed.compile_s:.1f} s"
        bar = f'<td><span class="bar" style="width: {100 * speed.rtf / slowest:.1f}%"></span></td>'
        rows.append(_row(speed.system, *numbers).replace("</tr>", f"{bar}</tr>"))
    return "".join(rows)


# Figures of the tables, as the page's script reads them: objects by the numbers of class, cutoff, system, metric


def _class_titles(results: Results) -> list[str]:
    titles = [class_title(name) for name in results.classes]
    return titles if len(titles) == 1 else [*titles, ALL_CLASSES]


def _groupings(results: Results) -> list[tuple[str, ...]]:
    """Fields to group scores by: each class alone; where there are several, also all together."""
    alone, together = ("class_name", "cutoff_hz"), ("cutoff_hz",)
    return [alone] if len(results.classes) == 1 else [alone, together]


def _row_title(row: Summary | Comparison) -> str:
    return class_title(row.group["class_name"]) if "class_name" in row.group else ALL_CLASSES


def _summaries(results: Results, wall_free: bool) -> Summaries:
    summaries = {}
    for metric, by in itertools.product(results.metrics, _groupings(results)):
        for row in summarise(results.scores, metric, (*by, "system"), wall_free=wall_free):
            if row.count:
                summaries[metric, _row_title(row), row.group["cutoff_hz"], row.group["system"]] = row
    return summaries


def _summary_data(results: Results, summaries: Summaries) -> list[dict]:
    """For each class, {cutoff: {system: {metric: [mean, low, high, count]}}}."""
    titles, cutoffs = _class_titles(results), results.cutoffs
    systems, metrics = results.systems, results.metrics
    data: list[dict] = [{} for _ in titles]
    for (metric, title, cutoff_hz, system), row in summaries.items():
        of_cutoff = data[titles.index(title)].setdefault(cutoffs.index(cutoff_hz), {})
        cell = [*map(_short, (row.mean, row.low, row.high)), row.count]
        of_cutoff.setdefault(systems.index(system), {})[metrics.index(metric)] = cell
    return data


def _pairs(results: Results) -> dict[str, dict]:
    """For "class cutoff system other", {metric: how the system differs from the other}."""
    titles, cutoffs = _class_titles(results), results.cutoffs
    systems, metrics = results.systems, results.metrics
    pairs: dict[str, dict] = {}
    for (a, b), metric, by in itertools.product(_compared(results), results.main_metrics, _groupings(results)):
        for row in paired(results.scores, systems[a], systems[b], metric, by):
            if row.mean is None:
                continue
            key = f"{titles.index(_row_title(row))} {cutoffs.index(row.group['cutoff_hz'])} {a} {b}"
            pairs.setdefault(key, {})[metrics.index(metric)] = {
                "difference": [*map(_short, (row.mean, row.low, row.high))],
                "worse": row.worse,
                "count": row.better + row.worse + row.equal,
                "worst": [(clip, _short(difference)) for clip, difference in row.worsened[:WORST]],
            }
    return pairs


def _compared(results: Results) -> list[tuple[int, int]]:
    """Numbers of the systems to compare: all pairs, or where these are many, the first model with each other."""
    systems = results.systems
    pairs = list(itertools.permutations(range(len(systems)), 2))
    if len(systems) <= MOST_PAIRED_SYSTEMS:
        return pairs
    return [pair for pair in pairs if _first_model(systems) in pair]


def _first_model(systems: Sequence[str]) -> int:
    return next((number for number, name in enumerate(systems) if name not in BASELINES), 0)


def _pair_shown(results: Results) -> list[int] | None:
    """The two systems to show first: the first model, and the next, or where there is one model, the unprocessed."""
    systems = results.systems
    if len(systems) == 1:
        return None
    model = _first_model(systems)
    return [model, model + 1 if model + 1 < len(systems) else 0]


def _short(value: float) -> float:
    return float(f"{value:.5g}")
