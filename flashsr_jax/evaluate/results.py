"""What an evaluation measured: one score per system, cutoff, clip and seed, and what could not be measured.

Letters: N samples, K STFT bins.
"""

import dataclasses
import functools
import math

import numpy as np

from flashsr_jax.data import CLASSES
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import BETTER

BASELINES = ("unprocessed", "mirror", "noise")
SHOWN_METRICS = ("lsd", "lsd_hf", "zimtohrli", "visqol")  # first, and alone where not all can be
LISTED_PROBLEMS = 8  # spelled out where nothing was scored
WALL_FREE_HZ = 21_000.0  # lossless recordings of 44.1 kHz end at 21 to 22 kHz, codecs under that


def class_rank(name: str) -> int:
    """Where a class stands among the others; those without a name of ours, and none, come last.

    What a class has in a row of its own has the class's name before a comma, as in "speech, read".
    """
    name = name.partition(",")[0]
    return CLASSES.index(name) if name in CLASSES else len(CLASSES)


def wall_free(wall_hz: float) -> bool:
    """Whether an original that ends at `wall_hz` (0: it has the full band) was spared by codecs."""
    return not wall_hz or wall_hz >= WALL_FREE_HZ


@dataclasses.dataclass(frozen=True)
class Score:
    """The metrics of one output. A metric that is not defined for the clip is absent, never NaN."""

    system: str
    cutoff_hz: float
    clip: str  # unique name of the original
    class_name: str  # speech, music, effects; "" where unknown
    group: str  # speaker, kit, album of the original
    wall_hz: float  # where the original itself ends, if under half the sample rate; else 0
    seed: int
    metrics: dict[str, float]
    # `metrics.loud_band_gains_db`, by the lower edge in Hz.
    loud_bands_db: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def wall_free(self) -> bool:
        """Whether no codec has cut the original: see `wall_free`."""
        return wall_free(self.wall_hz)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that was left out of the figures, and why. `system` and `cutoff_hz` are "" and 0 for a whole clip."""

    clip: str
    system: str
    cutoff_hz: float
    reason: str

    def text(self) -> str:
        """As a line."""
        cutoff = f"{self.cutoff_hz / 1000:g} kHz" if self.cutoff_hz else ""
        return ", ".join(filter(None, (self.clip, self.system, cutoff))) + f": {self.reason}"


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip to look at and listen to: mono signals (N,) float32 at 48 kHz by name, of one length.

    The first is `original`, the second `unprocessed`, then the other systems.
    """

    clip: str
    class_name: str
    cutoff_hz: float
    signals: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Mean power spectrum in dB (K,), at `frequencies_hz` (K,), of a signal's clips of a class at a cutoff.

    `system` may be `original`.
    """

    system: str
    class_name: str
    cutoff_hz: float
    frequencies_hz: np.ndarray
    level_db: np.ndarray


@dataclasses.dataclass(frozen=True)
class Speed:
    """Processing time over audio length after compilation, and seconds of compilation. Systems that were measured."""

    system: str
    rtf: float
    compile_s: float


@dataclasses.dataclass(frozen=True)
class Results:
    """All of an evaluation. `settings` says in words what was run: data, weights, seeds, machine, versions; `model` is
    the name of the system that those weights are, where there was one."""

    settings: dict[str, str]
    scores: list[Score]
    problems: list[Problem]
    samples: list[Sample]
    spectra: list[Spectrum]
    speeds: list[Speed]
    model: str | None = None

    @property
    def model_name(self) -> str:
        """`model`. Raises ValueError where no weights were among the systems."""
        if self.model is None:
            raise ValueError("no weights were among the systems")
        return self.model

    @functools.cached_property
    def metrics(self) -> list[str]:
        """Names of all that was measured, those that are shown first."""
        names = dict.fromkeys(name for score in self.scores for name in score.metrics)
        return [name for name in SHOWN_METRICS if name in names] + [name for name in names if name not in SHOWN_METRICS]

    @property
    def main_metrics(self) -> list[str]:
        """Those that are shown where not all can be."""
        return [name for name in self.metrics if name in SHOWN_METRICS] or self.metrics[: len(SHOWN_METRICS)]

    @functools.cached_property
    def systems(self) -> list[str]:
        """The baselines, then the models in the order of the scores."""
        names = dict.fromkeys(score.system for score in self.scores)
        return [name for name in BASELINES if name in names] + [name for name in names if name not in BASELINES]

    @property
    def classes(self) -> list[str]:
        """Classes of the clips, ours first."""
        return sorted({score.class_name for score in self.scores}, key=lambda name: (class_rank(name), name))

    @property
    def cutoffs(self) -> list[float]:
        """Cutoffs in Hz, the lowest first."""
        return sorted({score.cutoff_hz for score in self.scores})

    def check_scored(self) -> None:
        """Raise UserError with the reasons where nothing was scored, and ValueError as `check` does."""
        if not self.scores:
            reasons = [problem.text() for problem in self.problems[:LISTED_PROBLEMS]]
            if len(self.problems) > LISTED_PROBLEMS:
                reasons.append(f"... and {len(self.problems) - LISTED_PROBLEMS} more, see scores.json")
            raise UserError(f"nothing was scored, every clip was left out: {'; '.join(reasons)}")
        self.check()

    def check(self) -> None:
        """Raise ValueError where a metric is not known, a metric or a sample is not finite, or the signals of a sample
        differ in length."""
        for score in self.scores:
            for metric, value in score.metrics.items():
                if metric not in BETTER:
                    raise ValueError(
                        f"{metric} is not a known metric: metrics.BETTER has to say which values are better"
                    )
                if not math.isfinite(value):
                    place = f"{score.clip} at {score.cutoff_hz / 1000:g} kHz"
                    raise ValueError(f"{metric} of {score.system} on {place} is {value}")
        for sample in self.samples:
            for name, x_N in sample.signals.items():
                if not np.isfinite(x_N).all():
                    raise ValueError(f"the sample {sample.clip} of {name} has values that are not finite")
            if len({len(x_N) for x_N in sample.signals.values()}) != 1:
                raise ValueError(f"the signals of the sample {sample.clip} differ in length")
