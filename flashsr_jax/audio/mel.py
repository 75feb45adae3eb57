"""The mel scale and its filterbank, as in Slaney's Auditory Toolbox (1998), bit for bit those of librosa 0.11.

Letters: F mel bins, K = n_fft / 2 + 1 STFT bins.
"""

import functools

import numpy as np

from flashsr_jax.audio import SAMPLE_RATE

MEL_FMIN, MEL_FMAX = 20.0, 24_000.0
HZ_PER_MEL = 200.0 / 3  # the scale is linear up to ...
LOG_FROM_HZ = 1000.0  # ... this frequency, and logarithmic from there: 27 mel to a factor of 6.4
LOG_FROM_MEL = LOG_FROM_HZ / HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27.0


def mel_frequencies(bins: int, fmin: float = MEL_FMIN, fmax: float = MEL_FMAX) -> np.ndarray:
    """`bins` frequencies in Hz, float64, from fmin to fmax at equal distances in mel."""
    mel_F = np.linspace(_hz_to_mel(fmin), _hz_to_mel(fmax), bins)
    hz_F, logarithmic_F = HZ_PER_MEL * mel_F, mel_F >= LOG_FROM_MEL
    hz_F[logarithmic_F] = LOG_FROM_HZ * np.exp(LOG_STEP * (mel_F[logarithmic_F] - LOG_FROM_MEL))
    return hz_F


def _hz_to_mel(hz: float) -> float:
    return hz / HZ_PER_MEL if hz < LOG_FROM_HZ else LOG_FROM_MEL + np.log(hz / LOG_FROM_HZ) / LOG_STEP


@functools.cache
def mel_filterbank(mel_bins: int, n_fft: int, fmin: float = MEL_FMIN) -> np.ndarray:
    """Triangles of area 1 in Hz for 48 kHz, (F, K) float32, from fmin to 24000 Hz.

    Where there are more mel bins than STFT bins, in the lowest octaves, some have no weight at all.
    """
    edges_hz = mel_frequencies(mel_bins + 2, fmin)
    width_hz = np.diff(edges_hz)
    distance_FxK = np.subtract.outer(edges_hz, np.fft.rfftfreq(n_fft, 1.0 / SAMPLE_RATE))
    rising_FxK = -distance_FxK[:-2] / width_hz[:-1, None]
    falling_FxK = distance_FxK[2:] / width_hz[1:, None]
    weights_FxK = np.maximum(0, np.minimum(rising_FxK, falling_FxK)).astype(np.float32)
    weights_FxK *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]  # rounded to float32 before and after, as in librosa
    return weights_FxK
