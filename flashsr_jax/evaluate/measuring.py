"""Every metric of an output against its original. Without JAX: the processes that measure start without it.

Letters: N samples, K STFT bins.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flashsr_jax.audio.pictures import spectrogram_db
from flashsr_jax.evaluate.metrics import ReferenceSpectra, all_metrics
from flashsr_jax.evaluate.perceptual import perceptual_metrics
from flashsr_jax.evaluate.signals import Unmeasurable


class Output(NamedTuple):
    """What a system made (N,) of a clip."""

    system: str
    cutoff_hz: float
    seed: int
    audio: np.ndarray


class Measured(NamedTuple):
    """Metrics and mean spectrum in dB (K,) of an output, or why there are none; they are empty then."""

    metrics: dict[str, float]
    level_db: np.ndarray
    problem: str = ""


def every_metric(
    spectra: ReferenceSpectra, estimate: np.ndarray, cutoff_hz: float, perceptual: bool
) -> dict[str, float]:
    """`all_metrics` and, if wanted, `perceptual_metrics` of an estimate (N,); raises as they do."""
    metrics = all_metrics(spectra, estimate, cutoff_hz)
    return metrics | perceptual_metrics(spectra.signal, spectra.prepared(estimate)) if perceptual else metrics


def measure(audio_N: np.ndarray, wall_hz: float, outputs: Sequence[Output], perceptual: bool) -> list[Measured]:
    """Measure outputs against one original, which is transformed once. The first of the results is the original's own
    spectrum."""
    spectra = ReferenceSpectra(audio_N, wall_hz)
    measured = [Measured({}, _level_db(audio_N))]
    for output in outputs:
        try:
            metrics = every_metric(spectra, output.audio, output.cutoff_hz, perceptual)
            measured.append(Measured(metrics, _level_db(output.audio)))
        except Unmeasurable as error:
            measured.append(Measured({}, np.zeros(0), str(error)))
    return measured


def _level_db(x_N: np.ndarray) -> np.ndarray:
    """Mean power of each bin, in dB."""
    return 10 * np.log10(np.mean(10 ** (spectrogram_db(x_N) / 10), axis=1))
