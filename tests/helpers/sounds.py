"""Recordings of the tests as arrays, and what low-passes make of them."""

import numpy as np
import scipy.signal
import soundfile as sf
import soxr

from helpers import RECORDINGS

RATE = 48_000


def recording(path: str, seconds: float) -> np.ndarray:
    x, rate = sf.read(RECORDINGS / path, dtype="float32", always_2d=True)
    x_N = soxr.resample(x[:, 0], rate, RATE, "VHQ")
    return np.resize(x_N / np.abs(x_N).max(), int(seconds * RATE))


def low_passed(x_N: np.ndarray, hz: float) -> np.ndarray:
    return scipy.signal.sosfiltfilt(scipy.signal.cheby1(10, 0.05, hz, fs=RATE, output="sos"), x_N)
