"""The report's plots as SVG: metrics against the cutoff, average spectra, and what their lines stand for."""

import html
import io
import itertools
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.evaluate.report.figures import Summaries
from flashsr_jax.evaluate.report.tables import arrow, class_title, khz
from flashsr_jax.evaluate.results import BASELINES, Results, Spectrum, class_rank

BASELINE_LINES = dict(zip(BASELINES, (":", "--", "-."), strict=True))  # grey, so that the models stand out
MODEL_COLOURS = ("#2f7fd0", "#dd7a2f", "#2b9f72", "#b462b0", "#b8960c", "#d1495b", "#4aa8bd", "#7d7bd6")
BASELINE_COLOUR = "#868d96"
INK = "#010203"  # stands for the page's text colour in pictures, which has to suit a light and a dark page


def legend(results: Results) -> str:
    """What the lines of the plots stand for, as items of a list (HTML)."""
    dashes = {"-": "", ":": "2 3", "--": "7 4", "-.": "8 3 2 3"}
    names = results.systems + (["original"] if results.spectra else [])
    items = []
    for name in names:
        colour, line = _styles(results)[name]
        colour = "currentColor" if colour == INK else colour
        stroke = f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes[line]}"'
        swatch = f'<svg viewBox="0 0 30 10" aria-hidden="true"><path d="M0 5h30" {stroke}/></svg>'
        items.append(f"<li>{swatch}{html.escape(name)}</li>")
    return "".join(items)


def plots(results: Results, summaries: Summaries) -> str:
    """Every main metric against the cutoff for every class, then the average spectra."""
    parts = []
    for metric in results.main_metrics:
        figures = [_metric_plot(results, summaries, metric, class_title(name)) for name in results.classes]
        parts.append(f'<h3>{html.escape(metric + arrow(metric))}</h3><div class="plots">{"".join(figures)}</div>')
    if results.spectra:
        by_panel = sorted(results.spectra, key=_panel)
        figures = [_spectrum_plot(results, *key[1:], list(group)) for key, group in itertools.groupby(by_panel, _panel)]
        parts.append(f'<h3>Average spectra</h3><div class="plots">{"".join(figures)}</div>')
    return "".join(parts)


def _styles(results: Results) -> dict[str, tuple[str, str]]:
    """Colour and line style of each system, and of the original."""
    models = [name for name in results.systems if name not in BASELINES]
    colours = dict(zip(models, itertools.cycle(MODEL_COLOURS), strict=False))
    return {
        **{name: (BASELINE_COLOUR, line) for name, line in BASELINE_LINES.items()},
        **{name: (colour, "-") for name, colour in colours.items()},
        "original": (INK, "-"),
    }


def _panel(spectrum: Spectrum) -> tuple[int, str, float]:
    return class_rank(spectrum.class_name), spectrum.class_name, spectrum.cutoff_hz


def _metric_plot(results: Results, summaries: Summaries, metric: str, title: str) -> str:
    cutoffs = results.cutoffs
    with _plot_style():
        figure, ax = _axes()
        for system in results.systems:
            at = [(hz, summaries[key]) for hz in cutoffs if (key := (metric, title, hz, system)) in summaries]
            if not at:
                continue
            khz, mean, low, high = np.transpose([(hz / 1000, *row.figures()) for hz, row in at])
            colour, line = _styles(results)[system]
            ax.plot(khz, mean, line, color=colour, marker="o", markersize=3.5, linewidth=1.6)
            if len(cutoffs) > 1:
                ax.fill_between(khz, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                ax.errorbar(khz, mean, [mean - low, high - mean], color=colour, capsize=3)
        ax.set_xticks([hz / 1000 for hz in cutoffs])
        ax.set_xlabel("cutoff, kHz")
        return _figure_html(figure, f"{metric} against cutoff, {title}", title)


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
        title = f"{class_title(class_name)}, cutoff {khz(cutoff_hz)}"
        return _figure_html(figure, f"average spectra, {title}", title)


def _plot_style() -> AbstractContextManager[None]:
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


def _axes() -> tuple[Figure, Axes]:
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
