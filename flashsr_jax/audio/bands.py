"""What may be done to a window's bands beside the networks: low-pass of the input, splice and gain of the output.

All by zero-phase masks on the window's spectrum, whose wrap-around falls into the context that is thrown away.
Letters: N samples at 48 kHz, K bins.
"""

import dataclasses

import numpy as np
from scipy import fft

from flashsr_jax.audio import SAMPLE_RATE

# Of the cutoff. The splice ends where the input still has its level, the low-pass begins there.
SPLICE = (0.8, 0.95)
LOWPASS = (0.95, 1.05)


@dataclasses.dataclass(frozen=True)
class Bands:
    """What to do about the cutoff of an input.

    lowpass: take away what the input has over the cutoff (the rests that a codec leaves) before the networks see it.
    keep_low_band: put the input's own band under the cutoff in the place of the networks'.
    high_band_gain_db: gain of what is over the cutoff in the output.
    """

    cutoff_hz: float
    lowpass: bool = False
    keep_low_band: bool = False
    high_band_gain_db: float = 0.0

    def before(self, x: np.ndarray) -> np.ndarray:
        """The input (..., N) as the networks get it."""
        return _masked(x, low_mask(x.shape[-1], self.cutoff_hz, LOWPASS)) if self.lowpass else x

    def after(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The output (..., N) of the networks for the input x."""
        if not self.keep_low_band and not self.high_band_gain_db:
            return y
        low = _masked(x if self.keep_low_band else y, low_mask(y.shape[-1], self.cutoff_hz, SPLICE))
        high = y - _masked(y, low_mask(y.shape[-1], self.cutoff_hz, SPLICE))
        return low + np.float32(10 ** (self.high_band_gain_db / 20)) * high


def low_mask(samples: int, cutoff_hz: float, edges: tuple[float, float]) -> np.ndarray:
    """Gain (K,) of each bin of a window's spectrum: 1 up to edges[0] x cutoff, 0 from edges[1] x cutoff, a cosine
    between them."""
    low, high = (edge * cutoff_hz for edge in edges)
    position_K = np.clip((fft.rfftfreq(samples, 1 / SAMPLE_RATE) - low) / (high - low), 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * position_K)).astype(np.float32)


def _masked(x: np.ndarray, mask_K: np.ndarray) -> np.ndarray:
    return fft.irfft(fft.rfft(x.astype(np.float32)) * mask_K, x.shape[-1])
