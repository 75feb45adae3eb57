"""An evaluation as files: one page to look at and listen to, tables for other programs, tables for a README.

Letters: N samples, T frames, K STFT bins, H and W pixels.
"""

import base64
import csv
import dataclasses
import html
import io
import itertools
import json
import math
import os
import re
import string
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
from matplotlib.figure import Figure
from PIL import Image

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import BETTER
from flashsr_jax.evaluate.pictures import COLOURS, RANGE_DB, spectrogram_db
from flashsr_jax.evaluate.results import Problem, Results, Sample, Score, Spectrum, Speed
from flashsr_jax.evaluate.statistics import Comparison, Summary, paired, summarise
from flashsr_jax.files import replacing

MAIN_METRICS = ("lsd", "lsd_hf", "zimtohrli", "visqol")
BASELINES = {"unprocessed": ":", "mirror": "--", "noise": "-."}  # line styles; grey, so that the models stand out
MODEL_COLOURS = ("#2f7fd0", "#dd7a2f", "#2b9f72", "#b462b0", "#b8960c", "#d1495b", "#4aa8bd", "#7d7bd6")
BASELINE_COLOUR = "#868d96"
INK = "#010203"  # stands for the page's text colour in pictures, which has to suit a light and a dark page
CLASSES = ("speech", "music", "effects")
ALL_CLASSES = "all classes"
MOST_PAIRED_SYSTEMS = 6  # of more, only the first model is compared
WORST = 6  # clips listed
PICTURE_COLUMNS, PICTURE_ROWS, PICTURE_LEVELS = 500, 512, 64  # 64 colours: 1.6 dB each, half the bytes of 256


def write_report(results: Results, folder: str | os.PathLike) -> Path:
    """Write `index.html` into `folder` (made where missing), a page that needs no other file; return its path.

    Raises UserError where nothing was scored, ValueError where a metric or a sample is not finite or the signals of a
    sample differ in length.
    """
    _check(results)
    path = Path(folder) / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _page(results)
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def write_scores(results: Results, folder: str | os.PathLike) -> None:
    """Write `scores.csv` (a row per system, cutoff, clip and seed; a metric not measured is empty) and `scores.json`
    (also settings, problems and speeds; for `read_scores`) into `folder` (made where missing).

    Raises as `write_report` does.
    """
    _check(results)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = [field.name for field in dataclasses.fields(Score) if field.name != "metrics"]
    metrics = _metrics(results)
    with replacing(folder / "scores.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(fields + metrics)
        for score in results.scores:
            writer.writerow(
                [getattr(score, name) for name in fields] + [score.metrics.get(name, "") for name in metrics]
            )
    tables = {
        name: [dataclasses.asdict(row) for row in getattr(results, name)] for name in ("scores", "problems", "speeds")
    }
    with replacing(folder / "scores.json") as partial:
        partial.write_text(json.dumps({"settings": results.settings, **tables}, indent=1), encoding="utf-8")


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
        )
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the scores.json of an evaluation: {error}") from error


def markdown_table(results: Results, metrics: Sequence[str], by: Sequence[str] = ("class_name", "cutoff_hz")) -> str:
    """A Markdown table of means with 95 % intervals: a row per value of the `by` fields of a score and system.

    The best of each column among the rows of equal `by` is bold. Raises as `write_report` does, and ValueError for a
    metric that no score has.
    """
    _check(results)
    if absent := set(metrics) - set(_metrics(results)):
        raise ValueError(f"no score has {', '.join(sorted(absent))}; there are {', '.join(_metrics(results))}")
    cells = {
        (metric, *row.group.values()): row
        for metric in metrics
        for row in summarise(results.scores, metric, (*by, "system"))
        if row.count
    }
    groups = sorted(
        {key[1:-1] for key in cells}, key=lambda group: [_rank(*field) for field in zip(by, group, strict=True)]
    )
    lines = [[*(_field_title(name) for name in by), "system", *(name + _arrow(name) for name in metrics)]]
    lines.append(["---"] * len(by) + ["---"] + ["---:"] * len(metrics))
    for group in groups:
        systems = [name for name in _systems(results) if any((metric, *group, name) in cells for metric in metrics)]
        columns = [[cells.get((metric, *group, system)) for system in systems] for metric in metrics]
        best = [_best(metric, column) for metric, column in zip(metrics, columns, strict=True)]
        for system, *row in zip(systems, *columns, strict=True):
            lines.append([*map(_field_text, by, group), system, *map(_markdown_cell, row, best)])
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines) + "\n"


def _markdown_cell(row: Summary | None, best: float) -> str:
    if row is None:
        return "–"
    mean, low, high = (f"{value:#.3g}".rstrip(".") for value in (row.mean, row.low, row.high))
    return f"{f'**{mean}**' if row.mean == best else mean} [{low}, {high}]"


def _best(metric: str, column: Iterable[Summary | None]) -> float:
    return (max if BETTER[metric] == "higher" else min)(row.mean for row in column if row)


def _rank(name: str, value) -> tuple:
    """What a field of a score is sorted by."""
    return (_class_rank(value), value) if name == "class_name" else (value,)


def _field_title(name: str) -> str:
    return {"class_name": "class", "cutoff_hz": "cutoff"}.get(name, name)


def _field_text(name: str, value) -> str:
    if name == "cutoff_hz":
        return _khz(value)
    return _class_title(value) if name == "class_name" else str(value)


def _khz(hz: float) -> str:
    return f"{hz / 1000:g} kHz"


def _class_title(name: str) -> str:
    return name or "no class"


def _arrow(metric: str) -> str:
    return {"lower": " ↓", "higher": " ↑", "zero": " → 0"}[BETTER[metric]]


def _check(results: Results) -> None:
    if not results.scores:
        raise UserError(
            "nothing was scored, so there is nothing to report; the problems say why each clip was left out"
        )
    for score in results.scores:
        for metric, value in score.metrics.items():
            if metric not in BETTER:
                raise ValueError(f"{metric} is not a known metric: metrics.BETTER has to say which values are better")
            if not math.isfinite(value):
                raise ValueError(f"{metric} of {score.system} on {score.clip} at {_khz(score.cutoff_hz)} is {value}")
    for sample in results.samples:
        for name, x_N in sample.signals.items():
            if not np.isfinite(x_N).all():
                raise ValueError(f"the sample {sample.clip} of {name} has values that are not finite")
        if len({len(x_N) for x_N in sample.signals.values()}) != 1:
            raise ValueError(f"the signals of the sample {sample.clip} differ in length")


def _metrics(results: Results) -> list[str]:
    names = dict.fromkeys(name for score in results.scores for name in score.metrics)
    return [name for name in MAIN_METRICS if name in names] + [name for name in names if name not in MAIN_METRICS]


def _main_metrics(results: Results) -> list[str]:
    names = _metrics(results)
    return [name for name in names if name in MAIN_METRICS] or names[: len(MAIN_METRICS)]


def _systems(results: Results) -> list[str]:
    """The baselines, then the models in the order of the scores."""
    names = dict.fromkeys(score.system for score in results.scores)
    return [name for name in BASELINES if name in names] + [name for name in names if name not in BASELINES]


def _classes(results: Results) -> list[str]:
    return sorted({score.class_name for score in results.scores}, key=lambda name: (_class_rank(name), name))


def _class_rank(name: str) -> int:
    return CLASSES.index(name) if name in CLASSES else len(CLASSES)


def _cutoffs(results: Results) -> list[float]:
    return sorted({score.cutoff_hz for score in results.scores})


# The page


def _page(results: Results) -> str:
    folder = files("flashsr_jax.evaluate") / "page"
    walls = any(not score.wall_free for score in results.scores)
    audio: dict[bytes, int] = {}  # numbered by content: an original shown at two cutoffs is stored once
    samples = [_sample_data(sample, audio) for sample in results.samples]
    every = _summaries(results, wall_free=False)
    pairs = _pairs(results)
    data = {
        "metrics": [
            {"name": name, "better": BETTER[name], "shown": name in _main_metrics(results)}
            for name in _metrics(results)
        ],
        "systems": _systems(results),
        "classes": _class_titles(results),
        "cutoffs": [_khz(hz) for hz in _cutoffs(results)],
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
        "legend": _legend(results),
        "plots": _plots(results, every),
        "speeds": _speeds(results.speeds),
        "clips": "".join(map(_clip, results.samples)),
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
    cutoffs = ", ".join(f"{hz / 1000:g}" for hz in _cutoffs(results))
    systems = len(_systems(results))
    return f"{systems} systems on {clips} clips, cutoff {cutoffs} kHz; {len(results.scores)} outputs scored."


def _problems(problems: Sequence[Problem]) -> str:
    if not problems:
        return '<p class="note">Nothing was left out.</p>'
    rows = "".join(_row(p.clip, p.system, _khz(p.cutoff_hz) if p.cutoff_hz else "", p.reason) for p in problems)
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

Summaries = dict[tuple[str, str, float, str], Summary]  # by metric, class title, cutoff, system


def _class_titles(results: Results) -> list[str]:
    titles = [_class_title(name) for name in _classes(results)]
    return titles if len(titles) == 1 else [*titles, ALL_CLASSES]


def _groupings(results: Results) -> list[tuple[str, ...]]:
    """Fields to group scores by: each class alone; where there are several, also all together."""
    alone, together = ("class_name", "cutoff_hz"), ("cutoff_hz",)
    return [alone] if len(_classes(results)) == 1 else [alone, together]


def _row_title(row: Summary | Comparison) -> str:
    return _class_title(row.group["class_name"]) if "class_name" in row.group else ALL_CLASSES


def _summaries(results: Results, wall_free: bool) -> Summaries:
    summaries = {}
    for metric, by in itertools.product(_metrics(results), _groupings(results)):
        for row in summarise(results.scores, metric, (*by, "system"), wall_free=wall_free):
            if row.count:
                summaries[metric, _row_title(row), row.group["cutoff_hz"], row.group["system"]] = row
    return summaries


def _summary_data(results: Results, summaries: Summaries) -> list[dict]:
    """For each class, {cutoff: {system: {metric: [mean, low, high, count]}}}."""
    titles, cutoffs, systems, metrics = (f(results) for f in (_class_titles, _cutoffs, _systems, _metrics))
    data: list[dict] = [{} for _ in titles]
    for (metric, title, cutoff_hz, system), row in summaries.items():
        of_cutoff = data[titles.index(title)].setdefault(cutoffs.index(cutoff_hz), {})
        cell = [*map(_short, (row.mean, row.low, row.high)), row.count]
        of_cutoff.setdefault(systems.index(system), {})[metrics.index(metric)] = cell
    return data


def _pairs(results: Results) -> dict[str, dict]:
    """For "class cutoff system other", {metric: how the system differs from the other}."""
    titles, cutoffs, systems, metrics = (f(results) for f in (_class_titles, _cutoffs, _systems, _metrics))
    pairs: dict[str, dict] = {}
    for (a, b), metric, by in itertools.product(_compared(results), _main_metrics(results), _groupings(results)):
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
    systems = _systems(results)
    pairs = list(itertools.permutations(range(len(systems)), 2))
    if len(systems) <= MOST_PAIRED_SYSTEMS:
        return pairs
    return [pair for pair in pairs if _first_model(systems) in pair]


def _first_model(systems: Sequence[str]) -> int:
    return next((number for number, name in enumerate(systems) if name not in BASELINES), 0)


def _pair_shown(results: Results) -> list[int] | None:
    """The two systems to show first: the first model, and the next, or where there is one model, the unprocessed."""
    systems = _systems(results)
    if len(systems) == 1:
        return None
    model = _first_model(systems)
    return [model, model + 1 if model + 1 < len(systems) else 0]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


# Plots


def _styles(results: Results) -> dict[str, tuple[str, str]]:
    """Colour and line style of each system, and of the original."""
    models = [name for name in _systems(results) if name not in BASELINES]
    colours = dict(zip(models, itertools.cycle(MODEL_COLOURS), strict=False))
    return {
        **{name: (BASELINE_COLOUR, line) for name, line in BASELINES.items()},
        **{name: (colour, "-") for name, colour in colours.items()},
        "original": (INK, "-"),
    }


def _legend(results: Results) -> str:
    dashes = {"-": "", ":": "2 3", "--": "7 4", "-.": "8 3 2 3"}
    names = _systems(results) + (["original"] if results.spectra else [])
    items = []
    for name in names:
        colour, line = _styles(results)[name]
        colour = "currentColor" if colour == INK else colour
        stroke = f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes[line]}"'
        swatch = f'<svg viewBox="0 0 30 10" aria-hidden="true"><path d="M0 5h30" {stroke}/></svg>'
        items.append(f"<li>{swatch}{html.escape(name)}</li>")
    return "".join(items)


def _plots(results: Results, summaries: Summaries) -> str:
    """Every main metric against the cutoff for every class, then the average spectra."""
    parts = []
    for metric in _main_metrics(results):
        figures = [_metric_plot(results, summaries, metric, _class_title(name)) for name in _classes(results)]
        parts.append(f'<h3>{html.escape(metric + _arrow(metric))}</h3><div class="plots">{"".join(figures)}</div>')
    if results.spectra:
        by_panel = sorted(results.spectra, key=_panel)
        figures = [_spectrum_plot(results, *key[1:], list(group)) for key, group in itertools.groupby(by_panel, _panel)]
        parts.append(f'<h3>Average spectra</h3><div class="plots">{"".join(figures)}</div>')
    return "".join(parts)


def _panel(spectrum: Spectrum) -> tuple[int, str, float]:
    return _class_rank(spectrum.class_name), spectrum.class_name, spectrum.cutoff_hz


def _metric_plot(results: Results, summaries: Summaries, metric: str, class_title: str) -> str:
    cutoffs = _cutoffs(results)
    with _plot_style():
        figure, ax = _axes()
        for system in _systems(results):
            at = [(hz, summaries[key]) for hz in cutoffs if (key := (metric, class_title, hz, system)) in summaries]
            if not at:
                continue
            khz, mean, low, high = np.transpose([(hz / 1000, row.mean, row.low, row.high) for hz, row in at])
            colour, line = _styles(results)[system]
            ax.plot(khz, mean, line, color=colour, marker="o", markersize=3.5, linewidth=1.6)
            if len(cutoffs) > 1:
                ax.fill_between(khz, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                ax.errorbar(khz, mean, [mean - low, high - mean], color=colour, capsize=3)
        ax.set_xticks([hz / 1000 for hz in cutoffs])
        ax.set_xlabel("cutoff, kHz")
        return _figure_html(figure, f"{metric} against cutoff, {class_title}", class_title)


def _spectrum_plot(results: Results, class_name: str, cutoff_hz: float, spectra: Sequence[Spectrum]) -> str:
    with _plot_style():
        figure, ax = _axes()
        for spectrum in spectra:
            colour, line = _styles(results).get(spectrum.system, (BASELINE_COLOUR, "-"))
            ax.plot(spectrum.frequencies_hz / 1000, spectrum.level_db, line, color=colour, linewidth=1.2)
        ax.axvline(cutoff_hz / 1000, color=INK, linewidth=0.6, linestyle="--")
        ax.set_xlim(0, SAMPLE_RATE / 2000)
        ax.set_xticks(range(0, SAMPLE_RATE // 2000 + 1, 4))
        ax.set_xlabel("kHz")
        ax.set_ylabel("dB")
        title = f"{_class_title(class_name)}, cutoff {_khz(cutoff_hz)}"
        return _figure_html(figure, f"average spectra, {title}", title)


def _plot_style():
    names = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return matplotlib.rc_context(
        {
            **dict.fromkeys(names, INK),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": 9,
            "path.simplify_threshold": 0.5,  # pixels: a spectrum has more points than can be seen
            "svg.fonttype": "none",
        }
    )


def _axes():
    figure = Figure(figsize=(4.4, 2.9), layout="constrained")
    ax = figure.subplots()
    ax.grid(color=INK, alpha=0.12, linewidth=0.6)
    return figure, ax


def _figure_html(figure: Figure, description: str, caption: str) -> str:
    """The figure as SVG for the page: ids of its own, text and lines in the page's colour, no foreign names."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": description}):
        figure.savefig(file, format="svg", transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # groups are numbered alike in every figure
    svg = re.sub(r' (xmlns(:\w+)?|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(description)}"', 1)
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{svg}</figure>"


# Samples


def _sample_data(sample: Sample, audio: dict[bytes, int]) -> dict:
    """What the player needs: names, and numbers of the sounds in `audio`, to which new ones are added.

    One gain for all signals of a sample keeps the loudest under full scale.
    """
    peak = max(float(np.abs(x_N).max(initial=0)) for x_N in sample.signals.values())
    gain = 0.999 / max(peak, 0.999)
    sounds = {name: _flac(gain * x_N) for name, x_N in sample.signals.items()}
    return {
        "title": _sample_title(sample),
        "signals": [{"name": name, "audio": audio.setdefault(flac, len(audio))} for name, flac in sounds.items()],
    }


def _sample_title(sample: Sample) -> str:
    return ", ".join(filter(None, (sample.clip, sample.class_name, f"cutoff {_khz(sample.cutoff_hz)}")))


def _flac(x_N: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, x_N, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _clip(sample: Sample) -> str:
    """Spectrograms of a sample's signals on one colour scale, which the page shows when the sample is chosen."""
    longest = max(len(x_N) for x_N in sample.signals.values())
    hop = max(256, -(-longest // PICTURE_COLUMNS))
    spectra = {name: spectrogram_db(x_N, hop) for name, x_N in sample.signals.items()}
    top = max(spectrum_KxT.max() for spectrum_KxT in spectra.values())
    frequencies = "".join(f"<span>{khz}</span>" for khz in range(SAMPLE_RATE // 2000, -1, -4))
    seconds = f"<span>0</span><span>{longest / SAMPLE_RATE:.1f} s</span>"
    figures = []
    for title, spectrum_KxT in spectra.items():
        name = html.escape(title)
        png = base64.b64encode(_spectrogram_png(spectrum_KxT - top)).decode()
        figures.append(
            f'<figure><figcaption>{name}</figcaption><div class="axes"><div class="frequencies">{frequencies}</div>'
            f'<div class="view" data-view="{name}"><img alt="Spectrogram of {name}, 0 to 24 kHz" '
            f'src="data:image/png;base64,{png}"><div class="cutoff"></div><div class="playhead"></div></div>'
            f'<div class="seconds">{seconds}</div></div></figure>'
        )
    cutoff = 100 * sample.cutoff_hz / (SAMPLE_RATE / 2)
    return f'<div class="clip spectrograms" style="--cutoff: {cutoff:.2f}%" hidden>{"".join(figures)}</div>'


def _spectrogram_png(level_KxT: np.ndarray) -> bytes:
    """Levels in dB, 0 the brightest, as a PNG of `PICTURE_LEVELS` colours, the highest frequency on top."""
    rows_HxT = level_KxT[:-1].reshape(PICTURE_ROWS, -1, level_KxT.shape[1]).max(axis=1)[::-1]
    scaled_HxT = np.clip(1 + rows_HxT / RANGE_DB, 0, 1) * (PICTURE_LEVELS - 1)
    image = Image.fromarray(np.round(scaled_HxT).astype(np.uint8), mode="P")
    colours = matplotlib.colormaps[COLOURS](np.linspace(0, 1, PICTURE_LEVELS), bytes=True)[:, :3]
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
