"""Objective measures of super-resolution against the original recording, in float64 numpy.

Every name says its variant, since papers disagree on what "LSD" is.
Letters: N samples, T frames, W samples of a frame, K STFT bins.
"""

import numpy as np
import scipy.signal

from flashsr_jax.audio import SAMPLE_RATE

LSD_N_FFT, LSD_HOP = 2048, 512
LSD_FLOOR = 1e-8


def lsd(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Log-spectral distance of two mono signals (N,): mean over frames of the RMS over bins of log10 power ratios.

    The variant of AERO and AP-BWE: STFT 2048 / hop 512, periodic Hann, frames centred with reflected edges, power
    clamped at 1e-8. A gain of G dB gives |G| / 10. Raises ValueError where shapes differ, a signal is not longer than
    half a frame, or a sample is not finite.
    """
    return _rms_over_bins(_log_power_difference(reference, estimate))


def lsd_hf(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float, sample_rate: int = SAMPLE_RATE) -> float:
    """`lsd` over the bins at or above `cutoff_hz`: what super-resolution adds. Raises ValueError as `lsd` does."""
    return _rms_over_bins(_log_power_difference(reference, estimate)[:, _bins_hz(sample_rate, cutoff_hz) >= cutoff_hz])


def lsd_lf(reference: np.ndarray, estimate: np.ndarray, cutoff_hz: float, sample_rate: int = SAMPLE_RATE) -> float:
    """`lsd` over the bins under `cutoff_hz`: what super-resolution must keep. Raises ValueError as `lsd` does."""
    return _rms_over_bins(_log_power_difference(reference, estimate)[:, _bins_hz(sample_rate, cutoff_hz) < cutoff_hz])


def _rms_over_bins(difference_TxK: np.ndarray) -> float:
    return float(np.mean(np.sqrt(np.mean(difference_TxK**2, axis=-1))))


def _log_power_difference(reference: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """log10 of clamped power, reference minus estimate, (T, K)."""
    reference, estimate = np.asarray(reference, np.float64), np.asarray(estimate, np.float64)
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"expected two mono signals of one length, got shapes {reference.shape}, {estimate.shape}")
    if len(reference) <= LSD_N_FFT // 2:
        raise ValueError(f"LSD needs more than {LSD_N_FFT // 2} samples, got {len(reference)}")
    if not (np.isfinite(reference).all() and np.isfinite(estimate).all()):
        raise ValueError("a signal has samples that are not finite")
    return _log_power(reference) - _log_power(estimate)


def _log_power(x_N: np.ndarray) -> np.ndarray:
    padded = np.pad(x_N, LSD_N_FFT // 2, mode="reflect")
    frames_TxW = np.lib.stride_tricks.sliding_window_view(padded, LSD_N_FFT)[::LSD_HOP]
    spectrum_TxK = np.fft.rfft(frames_TxW * scipy.signal.get_window("hann", LSD_N_FFT))
    return np.log10(np.maximum(np.abs(spectrum_TxK) ** 2, LSD_FLOOR))


def _bins_hz(sample_rate: int, cutoff_hz: float) -> np.ndarray:
    if not 0 < cutoff_hz <= sample_rate / 2:
        raise ValueError(f"the cutoff must lie in (0, {sample_rate / 2:g}] Hz, got {cutoff_hz:g}")
    return np.fft.rfftfreq(LSD_N_FFT, 1 / sample_rate)
