"""Perceptual measures from maintained packages that ship their models: Zimtohrli and ViSQOL.

Both packages are optional: `pip install 'flashsr_jax[eval]'`. Both take full scale as 1 and hear levels against it, so
signals go in as they are, without normalisation; samples beyond full scale are not clipped. Letters: N samples.
"""

import functools
from typing import Any

import numpy as np
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.evaluate.signals import Unmeasurable, check_lengths, checked
from flashsr_jax.extras import needing

ZIMTOHRLI_SAMPLES = 4800  # 100 ms; under 4000 samples zimtohrli 0.2.1 writes outside its memory
VISQOL_SAMPLES = 46_080  # 0.96 s: 45 frames, one patch of its comparison
SILENCE = 1e-12  # mean square, -120 dB of full scale


def perceptual_metrics(reference: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
    """`zimtohrli` and `visqol` of two mono signals (N,) at 48 kHz; one that is not defined for them is absent.

    Raises Unmeasurable for bad signals and UserError where a package is missing.
    """
    reference, estimate = _pair(reference, estimate, SAMPLE_RATE)
    metrics = {}
    if not _zimtohrli_refuses(reference):
        metrics["zimtohrli"] = zimtohrli(reference, estimate)
    if not _visqol_refuses(reference, estimate):
        metrics["visqol"] = visqol(reference, estimate)
    return metrics


def zimtohrli(reference: np.ndarray, estimate: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float:
    """Zimtohrli's distance of two mono signals (N,): 0 for equal ones, less than 1, lower is better; symmetric.

    Computed by the package in float32 at 48 kHz; other rates are resampled. It aligns the signals in time by itself.
    Raises Unmeasurable for signals that are not of one length and finite or that are shorter than 100 ms, UserError
    where the package is missing. Source: github.com/google/zimtohrli.
    """
    reference, estimate = _pair(reference, estimate, sample_rate)
    if reason := _zimtohrli_refuses(reference):
        raise Unmeasurable(reason)
    return float(_pyohrli().distance(reference.astype(np.float32), estimate.astype(np.float32)))


def zimtohrli_loudness(x_N: np.ndarray) -> np.ndarray:
    """The spectrogram by which Zimtohrli compares a mono signal (N,) at 48 kHz: loudness (T, 128), float32, a row about
    every 12 ms. Raises UserError where the package is missing."""
    return _pyohrli().analyze(x_N.astype(np.float32))


def visqol(reference: np.ndarray, estimate: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float:
    """ViSQOL's MOS-LQO of two mono signals (N,), audio mode: 1 to about 4.73 (equal signals), higher is better.

    Computed by the package in float64 at 48 kHz; other rates are resampled. It brings the estimate to the reference's
    level, aligns it in time, and hears 50 Hz to 15 kHz. Not symmetric. For one thread of a process at a time;
    a process that has used it cannot fork, so that workers are to be spawned.
    Raises Unmeasurable for signals that are not of one length and finite, that are shorter than 0.96 s, or of which one
    is silent (the package has no sensible answer); UserError where the package is missing.
    Source: Chinen et al., arXiv:2004.09584; github.com/talker93/visqol-python.
    """
    reference, estimate = _pair(reference, estimate, sample_rate)
    if reason := _visqol_refuses(reference, estimate):
        raise Unmeasurable(reason)
    return float(_visqol_api().measure_from_arrays(reference, estimate, SAMPLE_RATE).moslqo)


def _pair(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Both signals in float64 at 48 kHz."""
    pair = [np.asarray(checked(x), np.float64) for x in (reference, estimate)]
    check_lengths(*pair)
    if sample_rate != SAMPLE_RATE:
        pair = [soxr.resample(x, sample_rate, SAMPLE_RATE, "VHQ") for x in pair]
    return pair[0], pair[1]


def _zimtohrli_refuses(reference: np.ndarray) -> str | None:
    if len(reference) < ZIMTOHRLI_SAMPLES:
        return f"Zimtohrli needs {ZIMTOHRLI_SAMPLES / SAMPLE_RATE:g} s, got {len(reference) / SAMPLE_RATE:g} s"
    return None


def _visqol_refuses(reference: np.ndarray, estimate: np.ndarray) -> str | None:
    if len(reference) < VISQOL_SAMPLES:
        return f"ViSQOL needs {VISQOL_SAMPLES / SAMPLE_RATE:g} s, got {len(reference) / SAMPLE_RATE:g} s"
    if min(np.mean(reference**2), np.mean(estimate**2)) < SILENCE:
        return "ViSQOL is not defined for silence"
    return None


def check_installed() -> None:
    """Raises UserError where a package is missing."""
    _pyohrli()
    _visqol_api()


@functools.cache
def _pyohrli() -> Any:
    with needing("eval", "a perceptual metric"):
        from zimtohrli import Pyohrli
    return Pyohrli()


@functools.cache
def _visqol_api() -> Any:
    with needing("eval", "a perceptual metric"):
        import numba  # makes visqol fast
        from visqol import VisqolApi
    numba.set_num_threads(1)  # more do not make it faster, and the evaluation runs a process for each core
    api = VisqolApi()
    api.create(mode="audio")
    return api
