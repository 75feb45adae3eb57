"""Recordings that end at a cutoff, with a faint floor over it, and how loud a band is where the sound is."""

import numpy as np
import scipy.signal
import soundfile as sf
import soxr

from helpers import RECORDINGS

RATE = 48_000
SECONDS = 4
SOUNDS = {  # file, and where its band is made to end, in Hz
    "speech": ("speech/klettres-german/letters.ogg", 3900.0),
    "music": ("music/mauricio-duarte/ubports.ogg", 7800.0),
}
# Peak of the sound and mean square of the noise in dB of full scale, or what makes the floor.
FLOORS: tuple[tuple[float, float | str], ...] = (
    *((0, -100), (0, -80), (0, -60), (0, -50), (-10, -50), (-20, -60), (-40, -90), (-60, -100)),
    *((0, "16 bit"), (-20, "16 bit"), (-40, "16 bit"), (-50, "16 bit")),
)


def dull(sound: str) -> np.ndarray:
    """Four seconds (N,) at full scale that end at a sound's cutoff."""
    name, cutoff_hz = SOUNDS[sound]
    x, rate = sf.read(RECORDINGS / name, always_2d=True)
    low_pass = scipy.signal.cheby1(10, 0.05, cutoff_hz, fs=RATE, output="sos")
    x_N = scipy.signal.sosfiltfilt(low_pass, soxr.resample(x[:, 0], rate, RATE, "VHQ")[: SECONDS * RATE])
    return x_N / np.abs(x_N).max()


def with_floor(x_N: np.ndarray, peak_db: float, floor: float | str) -> np.ndarray:
    """A sound at a peak of 0.9 x peak_db over a floor."""
    x_N = 0.9 * 10 ** (peak_db / 20) * x_N
    if isinstance(floor, str):  # the rounding to 16 bits
        return np.round(x_N * 2**15) / 2**15
    return x_N + 10 ** (floor / 20) * np.random.default_rng(0).standard_normal(len(x_N))


def loud_band_db(y_N: np.ndarray, loud_N: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Level of a band of y in the loudest fifth of the frames of another signal."""
    y_TxK, loud_TxK = (
        np.square(np.abs(np.fft.rfft(np.lib.stride_tricks.sliding_window_view(z, 2048)[::1024] * np.hanning(2048))))
        for z in (y_N, loud_N)
    )
    energy_T = loud_TxK.sum(axis=1)
    hz_K = np.fft.rfftfreq(2048, 1 / RATE)
    band_TxK = y_TxK[energy_T >= np.quantile(energy_T, 0.8)][:, (hz_K >= low_hz) & (hz_K < high_hz)]
    return float(10 * np.log10(band_TxK.mean() + 1e-30))
