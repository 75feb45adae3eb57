"""Peak limiters with look-ahead for streams of blocks: no delay, no click, one gain for all channels.

Letters: C channels, N samples, P places between two samples.
"""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from scipy import ndimage

TRUE_PEAK_CEILING = 10 ** (-0.1 / 20)  # of the waveform between the samples
FULL_SCALE = 1 - 2**-15  # what a file of 16 bits holds
REACH = 240  # samples (5 ms) over which the gain goes down before a peak, and up after it
# Of the waveform between the samples, as ITU-R BS.1770-5, annex 2, does it, but nearer to half the rate: the added band
# goes up to there. The peak is found to 0.02 dB up to 23 kHz, and to 0.1 dB over that.
OVERSAMPLING = 8
TAPS = 32  # on each side
KAISER = 3.0  # the window's beta
PIECE = 4096  # samples that are interpolated at a time


class Limiter:
    """A gain that goes down around what needs it, as a stream goes by. `least`: the smallest gain so far."""

    def __init__(self) -> None:
        self.least = 1.0

    def added(self, blocks: Iterable[np.ndarray], ceiling: float) -> Iterator[np.ndarray]:
        """Blocks (2, C, n) of a signal and of the band that was added to it, to blocks (C, n).

        The added band alone is turned down, where the signal's true peak would exceed `ceiling`. Where the rest exceeds
        it by itself, nothing of the added band is left.
        """

        def needed(both_2xCxN: np.ndarray) -> np.ndarray:
            gain_N = np.ones(both_2xCxN.shape[-1])
            loudest_N = np.abs(both_2xCxN[0]).max(axis=0)
            loud = np.flatnonzero(ndimage.maximum_filter1d(loudest_N, 2 * TAPS) > 0.5 * ceiling)
            for piece in np.split(loud, range(PIECE, len(loud), PIECE)):
                signal_CxNxP = _between(both_2xCxN[0], piece)
                over_N = (np.abs(signal_CxNxP) > ceiling).any(axis=(0, 2))
                signal_CxNxP, added_CxNxP = signal_CxNxP[:, over_N], _between(both_2xCxN[1], piece[over_N])
                raises_CxNxP = added_CxNxP * np.sign(signal_CxNxP)  # by how much the added band does it
                room_CxNxP = ceiling - np.abs(signal_CxNxP) + raises_CxNxP
                limited = (np.abs(signal_CxNxP) > ceiling) & (raises_CxNxP > 0)
                gain_CxNxP = np.where(limited, room_CxNxP / np.where(limited, raises_CxNxP, 1), 1)
                gain_N[piece[over_N]] = np.clip(gain_CxNxP, 0, 1).min(axis=(0, 2))
            return gain_N

        return self._run(blocks, needed, lambda both, gain_N: both[0] - (1 - gain_N) * both[1])

    def whole(self, blocks: Iterable[np.ndarray], ceiling: float) -> Iterator[np.ndarray]:
        """Blocks (C, n), turned down where samples would exceed `ceiling`."""

        def needed(x_CxN: np.ndarray) -> np.ndarray:
            return np.minimum(1, ceiling / np.maximum(np.abs(x_CxN).max(axis=0, initial=0), 1e-9))

        return self._run(blocks, needed, lambda x_CxN, gain_N: x_CxN * gain_N)

    def _run(self, blocks: Iterable[np.ndarray], needed: Callable, applied: Callable) -> Iterator[np.ndarray]:
        """Blocks (..., n) to what `applied` makes of them and their gains (n,).

        `needed` gives the gain that each sample needs. Its minimum within REACH, averaged over as much, is never over
        that, and goes smoothly to and from it.
        """
        context = 2 * REACH + TAPS
        buffer, done = None, 0  # `done` samples at the buffer's beginning are only context
        for block in blocks:
            buffer = block if buffer is None else np.concatenate([buffer, block], axis=-1)
            if buffer.shape[-1] > done + context:
                gain_N = self._gain(needed(buffer))
                last = buffer.shape[-1] - context
                yield self._applied(applied, buffer[..., done:last], gain_N[done:last])
                kept = max(0, last - context)
                buffer, done = buffer[..., kept:], last - kept
        if buffer is not None and buffer.shape[-1] > done:
            gain_N = self._gain(needed(buffer))
            yield self._applied(applied, buffer[..., done:], gain_N[done:])

    def _applied(self, applied: Callable, block: np.ndarray, gain_N: np.ndarray) -> np.ndarray:
        self.least = min(self.least, float(gain_N.min(initial=1)))
        return applied(block, gain_N.astype(np.float32))

    @staticmethod
    def _gain(needed_N: np.ndarray) -> np.ndarray:
        if needed_N.min(initial=1) >= 1:
            return np.ones(len(needed_N))
        lowest_N = ndimage.minimum_filter1d(needed_N, 2 * REACH + 1, mode="nearest")
        window = np.hanning(2 * REACH + 3)[1:-1]
        return ndimage.convolve1d(lowest_N, window / window.sum(), mode="nearest")


def _between(x: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(..., n, P): some of the samples of x (..., N), and the values at each P-th of the way to the next."""
    first, last = samples.min(initial=0), samples.max(initial=0) + 1
    start, stop = max(0, first - TAPS + 1), min(x.shape[-1], last + TAPS)
    beyond = (start - first + TAPS - 1, last + TAPS - stop)
    near = np.pad(x[..., start:stop].astype(np.float64), [(0, 0)] * (x.ndim - 1) + [beyond])
    windows = np.lib.stride_tricks.sliding_window_view(near, 2 * TAPS, axis=-1)
    return windows[..., samples - first, :] @ _interpolation()


@functools.cache
def _interpolation() -> np.ndarray:
    """Taps (2 TAPS, P) for the value at each P-th of the way from a sample to the next."""
    distance = np.arange(-TAPS + 1, TAPS + 1)[:, None] - np.arange(OVERSAMPLING) / OVERSAMPLING
    window = np.i0(KAISER * np.sqrt(1 - (distance / (TAPS + 0.5)) ** 2))
    taps = np.sinc(distance) * window
    return taps / taps.sum(axis=0)
