"""Means, their uncertainty, and paired comparisons of an evaluation's scores.

Metrics that are better nearer to zero (`BETTER`) count by their size, without sign. Intervals are 95 % percentile
bootstraps over clips, since clips are what another test set would draw anew; seeds are not resampled. The same scores
give the same intervals. Letters: C clips, S seeds, R resamplings.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flashsr_jax.evaluate.metrics import BETTER
from flashsr_jax.evaluate.results import Score

RESAMPLINGS = 2000
PERCENTILES = (2.5, 97.5)
GROUPABLE = {field.name for field in dataclasses.fields(Score)} - {"metrics"}


@dataclasses.dataclass(frozen=True)
class _Estimate:
    """A mean over clips with its 95 % interval."""

    group: dict[str, Any]  # value of each field that was grouped by
    mean: float | None  # None, as the interval, where no clip has the metric
    low: float | None
    high: float | None

    def figures(self) -> tuple[float, float, float]:
        """Mean, low and high. Raises ValueError where there are none."""
        if self.mean is None or self.low is None or self.high is None:
            raise ValueError(f"no clip of {self.group} has the metric")
        return self.mean, self.low, self.high


@dataclasses.dataclass(frozen=True)
class Summary(_Estimate):
    """A metric of one group of scores: mean over clips, median over seeds."""

    count: int  # clips with the metric
    missing: int  # clips without it for some seed or cutoff of the group; not in the mean


@dataclasses.dataclass(frozen=True)
class Comparison(_Estimate):
    """A system minus another: the difference's mean on the clips of both, and clip by clip."""

    better: int
    worse: int
    equal: int
    missing: int  # clips without the metric for one of the two
    worsened: list[tuple[str, float]]  # the clips where the system is worse and their differences, the largest first


def summarise(scores: Sequence[Score], metric: str, by: Sequence[str], *, wall_free: bool = False) -> list[Summary]:
    """A row for each combination of the `Score` fields `by`, in order of first appearance.

    A clip counts once, with its mean over the cutoffs of the group. `wall_free` leaves out clips whose original ends at
    a codec's wall. Raises ValueError for an unknown metric or field, and where a group mixes systems.
    """
    rows = []
    for group, of_group in _groups(scores, metric, by, wall_free):
        clips, missing = _clips(of_group, metric)
        mean, low, high = _interval(_table(clips, list(clips)))
        rows.append(Summary(group, mean, low, high, len(clips), missing))
    return rows


def paired(
    scores: Sequence[Score], system: str, other: str, metric: str, by: Sequence[str] = (), *, wall_free: bool = False
) -> list[Comparison]:
    """`system` against `other` for each combination of the `Score` fields `by`, in order of first appearance.

    The mean is the difference of what `summarise` gives for the two on the clips that both have at the same cutoffs; a
    single clip is compared by its median over seeds. Raises ValueError as `summarise` does, where `by` would part the
    two systems, and where one has no scores at all.
    """
    if {"system", "seed"} & set(by):
        raise ValueError("a comparison cannot be grouped by system or seed: systems differ in both")
    if missing_systems := {system, other} - {score.system for score in scores}:
        raise ValueError(f"no scores of {', '.join(sorted(missing_systems))}")
    both = [score for score in scores if score.system in (system, other)]
    rows = []
    for group, of_group in _groups(both, metric, by, wall_free):
        mine, theirs = (_clips([s for s in of_group if s.system == name], metric)[0] for name in (system, other))
        shared = [clip for clip in mine if clip in theirs and mine[clip].cutoffs_hz == theirs[clip].cutoffs_hz]
        values_CxS, other_CxS = _table(mine, shared), _table(theirs, shared)
        mean, low, high = _interval(values_CxS, other_CxS)
        difference_C = np.median(values_CxS, axis=1) - np.median(other_CxS, axis=1)
        loss_C = -difference_C if BETTER[metric] == "higher" else difference_C
        worse = [index for index in np.argsort(-loss_C, kind="stable") if loss_C[index] > 0]
        rows.append(
            Comparison(
                group,
                mean,
                low,
                high,
                better=int((loss_C < 0).sum()),
                worse=len(worse),
                equal=int((loss_C == 0).sum()),
                missing=len({score.clip for score in of_group}) - len(shared),
                worsened=[(shared[index], float(difference_C[index])) for index in worse],
            )
        )
    return rows


def _groups(
    scores: Sequence[Score], metric: str, by: Sequence[str], wall_free: bool
) -> list[tuple[dict[str, object], list[Score]]]:
    if metric not in BETTER:
        raise ValueError(f"no metric {metric!r}; there are {', '.join(BETTER)}")
    if unknown := set(by) - GROUPABLE:
        raise ValueError(f"scores have no {', '.join(sorted(unknown))} to group by")
    groups: dict[tuple, list[Score]] = {}
    for score in scores:
        if score.wall_free or not wall_free:
            groups.setdefault(tuple(getattr(score, field) for field in by), []).append(score)
    return [(dict(zip(by, values, strict=True)), of_group) for values, of_group in groups.items()]


class _Clip(NamedTuple):
    cutoffs_hz: list[float]
    values_S: np.ndarray  # mean over the cutoffs


def _clips(scores: Sequence[Score], metric: str) -> tuple[dict[str, _Clip], int]:
    """(clips that have the metric for every seed of the scores and every cutoff of their own, number of the others)."""
    seeds = sorted({score.seed for score in scores})
    values: dict[str, dict[tuple[float, int], Any]] = {}
    for score in scores:
        of_clip = values.setdefault(score.clip, {})
        if (score.cutoff_hz, score.seed) in of_clip:
            raise ValueError(f"clip {score.clip!r} has several scores for a cutoff and seed: group by system")
        of_clip[score.cutoff_hz, score.seed] = score.metrics.get(metric)
    clips = {}
    for name, of_clip in values.items():
        cutoffs_hz = sorted({cutoff_hz for cutoff_hz, _ in of_clip})
        table = [[of_clip.get((cutoff_hz, seed)) for cutoff_hz in cutoffs_hz] for seed in seeds]
        if not any(value is None for row in table for value in row):
            sizes = np.array(table, np.float64)
            sizes = np.abs(sizes) if BETTER[metric] == "zero" else sizes
            clips[name] = _Clip(cutoffs_hz, sizes.mean(axis=1))
    return clips, len(values) - len(clips)


def _table(clips: dict[str, _Clip], names: Sequence[str]) -> np.ndarray:
    """(C, S)."""
    return np.array([clips[name].values_S for name in names]).reshape(len(names), -1 if names else 1)


def _interval(
    values_CxS: np.ndarray, other_CxS: np.ndarray | None = None
) -> tuple[float, float, float] | tuple[None, None, None]:
    """Mean over clips, median over seeds, and its interval; of the difference where there is another."""
    count = len(values_CxS)
    if not count:
        return None, None, None
    weights_RxC = _weights(count)
    means_R = np.median(weights_RxC @ values_CxS, axis=1)
    if other_CxS is not None:
        means_R = means_R - np.median(weights_RxC @ other_CxS, axis=1)
    low, high = np.percentile(means_R[1:], PERCENTILES)
    return float(means_R[0]), float(low), float(high)


@functools.lru_cache(maxsize=8)  # drawing takes longer than everything else, and most groups have the same clips
def _weights(count: int) -> np.ndarray:
    """Share (1 + R, C) of each clip in a mean: equal ones, then those of resampled clips."""
    draws_RxC = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLINGS)
    return np.concatenate([np.ones((1, count)), draws_RxC]) / count
