"""Two simple ways to fill the missing high band, against which every system is held: LSD alone can be fooled.

Letters: N samples, T frames, W samples of a frame, K bins of an STFT or of a whole signal's transform.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import scipy.fft
import scipy.signal

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.evaluate.signals import Unmeasurable, checked

MIRROR_DECAY_DB_PER_KHZ = 2.0

FADE_HZ = 100.0  # above the cutoff, over which the filling begins
N_FFT, HOP = 2048, 512
LEVEL_BAND = (0.525, 0.9)  # of the cutoff: the upper part of the kept band, 2.1 to 3.6 kHz for 4 kHz
LOWEST_CUTOFF = 100.0  # Hz: under it the level band may hold no bin
POWER_FLOOR = 1e-8
COUNTED_LEVEL = -6.0  # log10 power of a frame's level under which it says nothing about the high band: 16-bit rounding
NOISE_GAIN = 1.3  # noise has a lower mean logarithm than log mean, by 2.5 dB


def mirror(lr: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """A low-resolution signal (N,) at 48 kHz with its band mirrored upward about the cutoff: (N,), of its dtype.

    Folded again about each multiple of the cutoff, so that the cutoff + d sounds like the cutoff - d for d up to the
    cutoff, then like d - cutoff, and so on; 2 dB quieter for each kHz above the cutoff. Nothing is added under it.
    Raises Unmeasurable for signals that are empty or not finite, ValueError for cutoffs outside [100, 24000) Hz.
    """
    lr = _checked(lr, cutoff_hz)
    spectrum_K = scipy.fft.rfft(lr.astype(np.float64))
    period = round(2 * cutoff_hz * len(lr) / SAMPLE_RATE)
    if not period:
        return lr.copy()  # too short to have bins under the cutoff
    within_K = np.arange(len(spectrum_K)) % period
    source_K = spectrum_K[np.minimum(within_K, period - within_K)]
    folded_K = np.where(2 * within_K > period, source_K.conj(), source_K)  # a mirrored band runs backward in phase
    above_khz_K = (np.fft.rfftfreq(len(lr), 1 / SAMPLE_RATE) - cutoff_hz) / 1000
    gain_K = _high_pass(len(lr), cutoff_hz) * 10 ** (-MIRROR_DECAY_DB_PER_KHZ * above_khz_K / 20)
    return (lr + scipy.fft.irfft(folded_K * gain_K, len(lr))).astype(lr.dtype)


@dataclasses.dataclass(frozen=True)
class NoiseProfile:
    """Mean spectrum of a class of recordings relative to each frame's level under a cutoff, see `measure_profile`.

    `dataclasses.asdict` makes it JSON, `NoiseProfile(**json)` reads it.
    """

    cutoff_hz: float
    log10_power: list[float]  # (1025,): of the bins of an STFT of 2048 at 48 kHz

    def at(self, cutoff_hz: float) -> "NoiseProfile":
        """The profile of another cutoff: relative to the level under that one. A mean of logarithms allows it, but for
        the few frames that have a level under one cutoff and none under the other."""
        power_K = np.array(self.log10_power)
        return NoiseProfile(cutoff_hz, (power_K - _level(power_K[None], cutoff_hz)[0]).tolist())


def measure_profile(signals: Iterable[tuple[np.ndarray, float]], cutoff_hz: float) -> NoiseProfile:
    """The noise profile of training recordings of one class, each (N,) at 48 kHz with its own bandwidth in Hz.

    It is the mean over all frames of log10 power in each bin minus the frame's level: the mean of log10 power between
    0.525 and 0.9 of the cutoff. Power of an STFT 2048 / hop 512 with Hann window; frames without a level do not count,
    nor do bins over a recording's own bandwidth; bins over all of them continue the highest that was measured.
    Raises as `mirror` does, and Unmeasurable where no frame has a level.
    """
    sum_K, count_K = np.zeros(N_FFT // 2 + 1), np.zeros(N_FFT // 2 + 1)
    hz_K = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    for signal, bandwidth_hz in signals:
        log_power_TxK = _log_power(_stft(_checked(signal, cutoff_hz).astype(np.float64)))
        level_T = _level(log_power_TxK, cutoff_hz)
        counted_T, inside_K = level_T > COUNTED_LEVEL, hz_K <= bandwidth_hz
        sum_K += inside_K * (log_power_TxK[counted_T] - level_T[counted_T, None]).sum(axis=0)
        count_K += inside_K * counted_T.sum()
    measured = int(np.count_nonzero(count_K))
    if not measured:
        raise Unmeasurable(f"no sound to measure a noise profile on under {cutoff_hz:g} Hz")
    mean_K = sum_K[:measured] / count_K[:measured]
    return NoiseProfile(cutoff_hz, np.round(np.pad(mean_K, (0, len(hz_K) - measured), mode="edge"), 4).tolist())


def noise(lr: np.ndarray, cutoff_hz: float, profile: NoiseProfile, rng: np.random.Generator) -> np.ndarray:
    """A low-resolution signal (N,) at 48 kHz with noise of its class's profile above the cutoff: (N,), of its dtype.

    White Gaussian noise, weighed in each frame and bin by the profile at the frame's level, times 1.3. Where the level
    band of a frame is silent nothing is added; nothing is added under the cutoff.
    Raises as `mirror` does, and ValueError for a profile of another cutoff.
    """
    lr = _checked(lr, cutoff_hz)
    if profile.cutoff_hz != cutoff_hz:
        raise ValueError(f"the noise profile is of {profile.cutoff_hz:g} Hz, the cutoff {cutoff_hz:g} Hz")
    level_T = _level(_log_power(_stft(lr.astype(np.float64))), cutoff_hz)
    sounds_T = level_T > np.log10(POWER_FLOOR)
    amplitude_TxK = NOISE_GAIN * 10 ** ((level_T[:, None] + np.array(profile.log10_power)) / 2) * sounds_T[:, None]
    white_TxK = _stft(rng.normal(size=len(lr))) / np.sqrt(np.sum(_window() ** 2))  # mean power 1
    added = _inverse_stft(white_TxK * amplitude_TxK, len(lr))
    spectrum_K = scipy.fft.rfft(added) * _high_pass(len(lr), cutoff_hz)  # finer than the bins of a frame can cut
    return (lr + scipy.fft.irfft(spectrum_K, len(lr))).astype(lr.dtype)


def _checked(x: np.ndarray, *cutoffs_hz: float) -> np.ndarray:
    x = checked(x)
    for cutoff_hz in cutoffs_hz:
        if not LOWEST_CUTOFF <= cutoff_hz < SAMPLE_RATE / 2:
            raise ValueError(f"the cutoff must lie in [{LOWEST_CUTOFF:g}, {SAMPLE_RATE / 2:g}) Hz, got {cutoff_hz:g}")
    return x


def _high_pass(samples: int, cutoff_hz: float) -> np.ndarray:
    """Gain of a whole signal's bins (K,): 0 up to the cutoff, 1 from 100 Hz above; sharper edges ring into pauses."""
    above_K = (np.fft.rfftfreq(samples, 1 / SAMPLE_RATE) - cutoff_hz) / FADE_HZ
    return 0.5 - 0.5 * np.cos(np.pi * np.clip(above_K, 0, 1))


def _window() -> np.ndarray:
    return scipy.signal.get_window("hann", N_FFT)


def _stft(x_N: np.ndarray) -> np.ndarray:
    """(T, K): a frame every 512 samples, with silence around the signal, so that four frames see each sample."""
    padded = np.pad(x_N, (N_FFT, N_FFT + -len(x_N) % HOP))
    frames_TxW = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    return scipy.fft.rfft(frames_TxW * _window(), overwrite_x=True)


def _inverse_stft(spectrum_TxK: np.ndarray, samples: int) -> np.ndarray:
    """The signal (samples,) whose `_stft` is nearest (Griffin and Lim 1984, equation 6)."""
    frames_TxW = scipy.fft.irfft(spectrum_TxK, N_FFT) * _window()
    overlap = N_FFT // HOP
    hops = np.zeros((len(frames_TxW) + overlap - 1, HOP))
    for part in range(overlap):
        hops[part : part + len(frames_TxW)] += frames_TxW[:, part * HOP : (part + 1) * HOP]
    window_sum = np.sum(_window()[::HOP] ** 2)  # the same at every sample
    return hops.ravel()[N_FFT : N_FFT + samples] / window_sum


def _log_power(spectrum_TxK: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(spectrum_TxK.real**2 + spectrum_TxK.imag**2, POWER_FLOOR))


def _level(log_power_TxK: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """Mean log10 power (T,) of each frame in the upper part of the kept band."""
    hz_K = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    low, high = (cutoff_hz * edge for edge in LEVEL_BAND)
    return log_power_TxK[:, (hz_K >= low) & (hz_K <= high)].mean(axis=1)
