"""Peak limiters with look-ahead for streams of blocks: no delay, no click, one gain for all channels.

Letters: C channels, N samples.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from scipy import ndimage

TRUE_PEAK_CEILING = 10 ** (-0.1 / 20)  # of the waveform between the samples
FULL_SCALE = 1 - 2**-15  # what a file of 16 bits holds
REACH = 240  # samples (5 ms) over which the gain goes down before a peak, and up after it
OVERSAMPLING = 4  # ITU-R BS.1770-5, annex 2
TAPS = 12  # on each side, of the interpolation between the samples


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
            if np.abs(both_2xCxN[0]).max(initial=0) < 0.5 * ceiling:
                return np.ones(both_2xCxN.shape[-1])
            gains = []
            for signal_CxN, added_CxN in _between(both_2xCxN):
                over_CxN = np.abs(signal_CxN) > ceiling
                raises_CxN = added_CxN * np.sign(signal_CxN)  # by how much the added band does it
                room_CxN = ceiling - np.abs(signal_CxN) + raises_CxN
                limited = over_CxN & (raises_CxN > 0)
                gain_CxN = np.where(limited, room_CxN / np.where(limited, raises_CxN, 1), 1)
                gains.append(np.clip(gain_CxN, 0, 1).min(axis=0))
            return np.min(gains, axis=0)

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


def _between(x: np.ndarray) -> Iterator[np.ndarray]:
    """The samples (..., N), and the values at each quarter of the way to the next."""
    yield x
    position = np.arange(-TAPS + 1, TAPS + 1)
    for phase in range(1, OVERSAMPLING):
        distance = position - phase / OVERSAMPLING
        taps = np.sinc(distance) * np.cos(np.pi / 2 * distance / (TAPS + 0.5)) ** 2
        yield ndimage.correlate1d(x, taps / taps.sum(), axis=-1, mode="constant", origin=-1)
