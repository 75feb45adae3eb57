"""Every metric of an output against its original. Without JAX: the processes that measure start without it.

Letters: N samples, K STFT bins.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flashsr_jax.audio.pictures import spectrogram_db
from flashsr_jax.evaluate.metrics import ReferenceSpectra, all_metrics, loud_band_gains_db
from flashsr_jax.evaluate.perceptual import perceptual_metrics
from flashsr_jax.evaluate.signals import Unmeasurable


class Output(NamedTuple):
    """What a system made (N,) of a clip."""

    system: str
    cutoff_hz: float
    seed: int
    audio: np.ndarray


class Measured(NamedTuple):
    """Metrics, mean spectrum in dB (K,) and `loud_band_gains_db` of an output, or why there are none; they are empty
    then."""

    metrics: dict[str, float]
    level_db: np.ndarray
    loud_bands_db: dict[float, float]
    problem: str = ""


def every_metric(
    spectra: ReferenceSpectra, estimate: np.ndarray, cutoff_hz: float, perceptual: bool
) -> tuple[dict[str, float], dict[float, float]]:
    """(`all_metrics`, with `perceptual_metrics` if wanted; `loud_band_gains_db`) of an estimate (N,); raising alike.

    Among the metrics is `loud_band_gain_db`, the mean over these bands, where there are any.
    """
    metrics = all_metrics(spectra, estimate, cutoff_hz)
    loud_bands_db = loud_band_gains_db(spectra, estimate, cutoff_hz)
    if loud_bands_db:
        metrics["loud_band_gain_db"] = float(np.mean(list(loud_bands_db.values())))
    if perceptual:
        metrics |= perceptual_metrics(spectra.signal, spectra.prepared(estimate))
    return metrics, loud_bands_db


def measure(audio_N: np.ndarray, wall_hz: float, outputs: Sequence[Output], perceptual: bool) -> list[Measured]:
    """Measure outputs against one original, which is transformed once. The first of the results is the original's own
    spectrum."""
    spectra = ReferenceSpectra(audio_N, wall_hz)
    measured = [Measured({}, _level_db(audio_N), {})]
    for output in outputs:
        try:
            metrics, loud_bands_db = every_metric(spectra, output.audio, output.cutoff_hz, perceptual)
            for name, value in metrics.items():
                if not math.isfinite(value):
                    raise Unmeasurable(f"{name} is {value}")
            measured.append(Measured(metrics, _level_db(output.audio), loud_bands_db))
        except Unmeasurable as error:
            measured.append(Measured({}, np.zeros(0), {}, str(error)))
    return measured


def _level_db(x_N: np.ndarray) -> np.ndarray:
    """Mean power of each bin, in dB."""
    return 10 * np.log10(np.mean(10 ** (spectrogram_db(x_N) / 10), axis=1))
