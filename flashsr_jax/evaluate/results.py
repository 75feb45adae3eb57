"""What an evaluation measured: one score per system, cutoff, clip and seed, and what could not be measured.

Letters: N samples, K STFT bins.
"""

import dataclasses

import numpy as np

WALL_FREE_HZ = 21_000.0  # lossless recordings of 44.1 kHz end at 21 to 22 kHz, codecs under that


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
    """All of an evaluation. `settings` says in words what was run: data, weights, seeds, machine, versions."""

    settings: dict[str, str]
    scores: list[Score]
    problems: list[Problem]
    samples: list[Sample]
    spectra: list[Spectrum]
    speeds: list[Speed]
