"""Where a recording's band ends, measured on the host.

Letters: N samples, K bins.
"""

import math

import numpy as np
from scipy import ndimage, signal

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.rolloff import rolloff


def published_cutoff(x_N: np.ndarray) -> float:
    """Cutoff in Hz as the published inference code reads it off a 48 kHz signal (N,), N >= 2048; for comparison only.

    The last bin under 98.3 % of the cumulated spectrum, where the spectrum is the *real part* of the STFT (a slip of
    that code). Gives 24000 where the reading is under 1 kHz.
    """
    frames_TxW = np.lib.stride_tricks.sliding_window_view(x_N, 2048)[::480]
    spectrum_K = np.abs(np.fft.rfft(frames_TxW * signal.get_window("hann", 2048)).real).sum(axis=0)
    below = np.flatnonzero(np.cumsum(spectrum_K) < 0.983 * spectrum_K.sum())
    cutoff = below[-1] * SAMPLE_RATE / 2048 if below.size else 0.0
    return float(cutoff) if cutoff >= 1000 else SAMPLE_RATE / 2


def bandwidth(x_N: np.ndarray, sample_rate: int) -> float:
    """Highest frequency in Hz that a recording (N,) really contains: 0 for silence, half the rate for full band.

    Measured per block of 5 s and taken high among the blocks, since most music is dull most of the time; within a block
    see `_block_bandwidth`. Never raises: silence and constants read 0, noise and single clicks full band.
    """
    meter = BandwidthMeter(sample_rate)
    meter.update(x_N)
    return meter.value()


class BandwidthMeter:
    """`bandwidth` of a recording that is read piece by piece."""

    def __init__(self, sample_rate: int):
        self._sample_rate = sample_rate
        self._block = 5 * sample_rate
        self._pending = np.zeros(0, np.float32)
        self._readings = []

    def update(self, x_N: np.ndarray) -> None:
        """Takes the next samples (N,), mono."""
        self._pending = np.concatenate([self._pending, x_N])
        while len(self._pending) >= 2 * self._block:  # so that the last block is never a short one
            self._readings.append(_block_bandwidth(self._pending[: self._block], self._sample_rate))
            self._pending = self._pending[self._block :]

    def value(self) -> float:
        """Bandwidth in Hz of everything so far."""
        readings = [hz for hz in (*self._readings, _block_bandwidth(self._pending, self._sample_rate)) if hz > 0]
        return float(np.quantile(readings, 0.8, method="higher")) if readings else 0.0


SILENCE_DB = -90.0  # mean square of a frame, full scale 0 dB, under which it holds nothing
ACTIVE_DB = 50.0  # frames further below the loudest do not count
DEEP_WALL_DB = 35.0  # a drop from 0.9 to 1.1 of a frequency that only a filter makes ...
WALL_DB, FLOOR_DB = 20.0, 12.0  # ... or a smaller one, if what follows is no further above the lowest level up there
EDGE_DB = 12.0  # the wall's edge: so far below the band before it
CLEARLY_LOWER = 0.93  # the end of a gentle low-pass, of what is read otherwise
QUANTISATION_DB = -114.0  # level per bin, full scale 0 dB, under which the top of the spectrum is rounding or dither


def _block_bandwidth(x_N: np.ndarray, sample_rate: int) -> float:
    """Bandwidth in Hz of a few seconds of sound; 0 if there is none.

    The upper edge of the deepest wall in the spectrum of the loud frames (95th percentile per bin, which an isolated
    click does not reach; images of a resampler may stick out above the wall), or where the spectrum has sunk into the
    floor of quantisation, whichever comes first; half the rate if there is neither. Where a gentle low-pass ends
    clearly before that, its end.
    """
    size = 1 << round(np.log2(sample_rate / 24))  # 2048 at 48 kHz
    x_N = np.pad(x_N - x_N.mean(), (0, max(0, size - len(x_N)))) if len(x_N) else np.zeros(size)
    frames_TxW = np.lib.stride_tricks.sliding_window_view(x_N, size)[:: size // 4]
    energy_T = 10 * np.log10(np.square(frames_TxW).mean(axis=1) + 1e-20)
    if energy_T.max() < SILENCE_DB:
        return 0.0
    window_W = signal.get_window("blackmanharris", size)
    active_TxW = frames_TxW[energy_T > energy_T.max() - ACTIVE_DB]
    power_TxK = np.abs(np.fft.rfft(active_TxW * (window_W / window_W.sum()))) ** 2
    power_K = np.quantile(ndimage.uniform_filter1d(power_TxK, 5, axis=1, mode="nearest"), 0.95, axis=0)
    level_K = 10 * np.log10(power_K + power_K.max() * 1e-14)

    highest = len(level_K) - 1
    walls = []
    for k in np.unique(np.geomspace(1000 * size / sample_rate, highest / 1.1, 200).astype(int)):
        before = level_K[int(0.8 * k) : int(0.93 * k) + 1].mean()
        after = level_K[math.ceil(1.08 * k) : math.ceil(1.3 * k) + 1].mean()
        lowest, high = np.quantile(level_K[math.ceil(1.08 * k) :], (0.25, 0.75))
        drop = before - after
        if before - high >= WALL_DB and (drop >= DEEP_WALL_DB or (drop >= WALL_DB and after - lowest <= FLOOR_DB)):
            walls.append((drop, k, before))
    edge = highest
    if walls:
        deepest = max(drop for drop, _, _ in walls)
        k, before = next((k, before) for drop, k, before in walls if drop >= 0.9 * deepest)
        edge = np.flatnonzero(level_K[: math.ceil(1.08 * k)] >= before - EDGE_DB)[-1]
    floor = np.median(level_K[int(0.9 * highest) :])
    if floor < QUANTISATION_DB:
        above_floor = np.flatnonzero(ndimage.median_filter(level_K, 15, mode="nearest") > floor + 6)
        edge = min(edge, above_floor[-1]) if above_floor.size else edge
    hz = float(edge) * sample_rate / size
    gentle_hz = rolloff(level_K, sample_rate)
    return gentle_hz if gentle_hz and gentle_hz < CLEARLY_LOWER * hz else hz
