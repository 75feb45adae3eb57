"""An evaluation as one page to look at and listen to."""

import base64
import html
import json
import os
import string
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import matplotlib
import numpy as np

from flashsr_jax.audio.pictures import COLOURS, RANGE_DB
from flashsr_jax.evaluate.report.figures import figures, summaries
from flashsr_jax.evaluate.report.players import player_data, spectrograms
from flashsr_jax.evaluate.report.plots import legend, plots
from flashsr_jax.evaluate.report.tables import khz, loud_rows
from flashsr_jax.evaluate.results import Problem, Results, Speed
from flashsr_jax.files import replacing


def write_report(results: Results, folder: str | os.PathLike) -> Path:
    """Write `index.html` into `folder` (made where missing), a page that needs no other file; return its path.

    Raises UserError where nothing was scored, ValueError where a metric or a sample is not finite or the signals of a
    sample differ in length.
    """
    results.check_scored()
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _page(results)
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _script(folder: Traversable) -> str:
    """The page's script. A module is none in a page by itself: what it exports stands before what uses it."""
    player, report = ((folder / name).read_text(encoding="utf-8") for name in ("player.js", "report.js"))
    return player.replace("export class", "class") + report


def _page(results: Results) -> str:
    folder = files("flashsr_jax.evaluate.report") / "static"
    every = summaries(results, wall_free=False)
    data = figures(results, every)
    audio: dict[bytes, int] = {}  # numbered by content: an original shown at two cutoffs is stored once
    data["samples"] = [player_data(sample, audio) for sample in results.samples]
    parts = {
        "css": (folder / "report.css").read_text(encoding="utf-8"),
        "js": _script(folder),
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c"),
        "lead": _lead(results),
        "settings": "".join(_row(name, value) for name, value in results.settings.items()),
        "problems": _problems(results.problems),
        "legend": legend(results),
        "plots": plots(results, every),
        "loud": _loud(results),
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
        "hide_with_walls": "hidden" if data["walls"] else "",
        "hide_without_walls": "" if data["walls"] else "hidden",
        "hide_without_pairs": "" if data["pairs"] else "hidden",
        "hide_without_loud": "" if any(score.loud_bands_db for score in results.scores) else "hidden",
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


def _loud(results: Results) -> str:
    head, *rows = loud_rows(results)
    titles = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in head)
    return f"<thead><tr>{titles}</tr></thead><tbody>{''.join(_row(*row) for row in rows)}</tbody>"


def _speeds(speeds: Sequence[Speed]) -> str:
    slowest = max((speed.rtf for speed in speeds), default=1)
    rows = []
    for speed in speeds:
        numbers = f"{speed.rtf:.3g}", f"{1 / speed.rtf:.3g} ×", f"{speed.compile_s:.1f} s"
        bar = f'<td><span class="bar" style="width: {100 * speed.rtf / slowest:.1f}%"></span></td>'
        rows.append(_row(speed.system, *numbers).replace("</tr>", f"{bar}</tr>"))
    return "".join(rows)
