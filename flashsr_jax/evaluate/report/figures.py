"""The numbers of the report's page as its script reads them: by the numbers of class, cutoff, system and metric."""

import itertools
from collections.abc import Sequence

from flashsr_jax.evaluate.metrics import BETTER
from flashsr_jax.evaluate.report.tables import class_title, khz
from flashsr_jax.evaluate.results import BASELINES, Results
from flashsr_jax.evaluate.statistics import Comparison, Summary, paired, summarise

ALL_CLASSES = "all classes"
MOST_PAIRED_SYSTEMS = 6  # of more, only the first model is compared
WORST = 6  # clips listed

Summaries = dict[tuple[str, str, float, str], Summary]  # by metric, class title, cutoff, system


def summaries(results: Results, wall_free: bool) -> Summaries:
    """Every metric by class (and all together), cutoff and system; `wall_free`: on clips that no codec cut."""
    rows = {}
    for metric, by in itertools.product(results.metrics, _groupings(results)):
        for row in summarise(results.scores, metric, (*by, "system"), wall_free=wall_free):
            if row.count:
                rows[metric, _row_title(row), row.group["cutoff_hz"], row.group["system"]] = row
    return rows


def figures(results: Results, every: Summaries) -> dict:
    """Names and numbers of all tables, as JSON takes them; `every` are the summaries of all clips."""
    walls = any(not score.wall_free for score in results.scores)
    return {
        "metrics": [
            {"name": name, "better": BETTER[name], "shown": name in results.main_metrics} for name in results.metrics
        ],
        "systems": results.systems,
        "classes": _class_titles(results),
        "cutoffs": [khz(hz) for hz in results.cutoffs],
        "walls": walls,
        "every": _by_class(results, every),
        "wall_free": _by_class(results, summaries(results, wall_free=True)) if walls else [],
        "pairs": _pairs(results),
        "pair_shown": _pair_shown(results),
    }


def _class_titles(results: Results) -> list[str]:
    titles = [class_title(name) for name in results.classes]
    return titles if len(titles) == 1 else [*titles, ALL_CLASSES]


def _groupings(results: Results) -> list[tuple[str, ...]]:
    """Fields to group scores by: each class alone; where there are several, also all together."""
    alone, together = ("class_name", "cutoff_hz"), ("cutoff_hz",)
    return [alone] if len(results.classes) == 1 else [alone, together]


def _row_title(row: Summary | Comparison) -> str:
    return class_title(row.group["class_name"]) if "class_name" in row.group else ALL_CLASSES


def _by_class(results: Results, rows: Summaries) -> list[dict]:
    """For each class, {cutoff: {system: {metric: [mean, low, high, count]}}}."""
    titles, cutoffs = _class_titles(results), results.cutoffs
    systems, metrics = results.systems, results.metrics
    data: list[dict] = [{} for _ in titles]
    for (metric, title, cutoff_hz, system), row in rows.items():
        of_cutoff = data[titles.index(title)].setdefault(cutoffs.index(cutoff_hz), {})
        cell = [*map(_short, row.figures()), row.count]
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
                "difference": [*map(_short, row.figures())],
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
