"""What the systems of an evaluation get of an original: low-passed as the field does it, or as a file has it.

Letters: N samples at 48 kHz, M at the rate of a file.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.signal
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bands import Bands, BandsByStretch
from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.audio.resampling import fitted, reach_hz
from flashsr_jax.audio.stretches import Stretch, stretches_of
from flashsr_jax.evaluate.references import Reference
from flashsr_jax.evaluate.signals import Unmeasurable

FILTER, ORDER = "cheby1", 8


class Input(NamedTuple):
    """A band-limited original: low_N (N,) at 48 kHz, and the same as its file holds it, file_M (M,) at sample_rate.

    cutoff_hz: of the filter, or half the file's rate; end_hz: where the band ends, which a resampler's filter puts
    under that. stretches: how `flashsr upscale` reads it from the file; None: it need not, and has nothing to take
    away over the cutoff.
    """

    cutoff_hz: float
    end_hz: float
    low_N: np.ndarray
    file_M: np.ndarray
    sample_rate: int
    stretches: tuple[tuple[Stretch, ...], ...] | None = None

    def bands(self, keep_low_band: bool) -> Bands | BandsByStretch | None:
        """What upscaling does about the cutoff; `keep_low_band` as in `Bands`."""
        if self.stretches is not None:
            return BandsByStretch.of(self.stretches, lowpass=True, keep_low_band=keep_low_band)
        return Bands(self.cutoff_hz, keep_low_band=True) if keep_low_band else None


def low_passed(reference: Reference, cutoff_hz: float) -> Input:
    """By a Chebyshev I filter of order 8, zero-phase, resampled down and up: the protocol of the field since NVSR."""
    low_N = simulate_low_resolution(reference.audio, LowpassFilter(FILTER, ORDER, cutoff_hz))
    return Input(cutoff_hz, cutoff_hz, low_N, low_N, SAMPLE_RATE)


def as_file(reference: Reference, cutoff_hz: float) -> Input:
    """As a file of twice the cutoff has it, from a good resampler (soxr): a steep end, and nothing over it.

    Raises Unmeasurable where it reads as full band, and upscaling would let it pass.
    """
    return _of_file(reference, cutoff_hz, soxr.resample(reference.audio, SAMPLE_RATE, round(2 * cutoff_hz), "VHQ"))


def as_full_file(reference: Reference, cutoff_hz: float) -> Input:
    """As a file of twice the cutoff has it whose band goes up to half its rate, as that of a voice made at this rate:
    the original's spectrum, cut there. Raises as `as_file` does."""
    rate = round(2 * cutoff_hz)
    whole = SAMPLE_RATE // math.gcd(rate, SAMPLE_RATE)  # samples that are a whole number of the file's, too
    padded_N = np.pad(reference.audio, (0, -len(reference.audio) % whole))
    file_M = scipy.signal.resample(padded_N, len(padded_N) * rate // SAMPLE_RATE).astype(np.float32)
    file_M = file_M[: round(len(reference.audio) * rate / SAMPLE_RATE)]
    return _of_file(reference, cutoff_hz, file_M)._replace(end_hz=reach_hz(rate))


def _of_file(reference: Reference, cutoff_hz: float, file_M: np.ndarray) -> Input:
    rate = round(2 * cutoff_hz)
    stretches = stretches_of(file_M[None], rate)
    ends_hz = [stretch.cutoff_hz for stretch in stretches[0] if not stretch.passes]
    if not ends_hz:
        raise Unmeasurable(f"as a file of {rate} Hz it reads as full band: nothing to restore")
    low_N = soxr.resample(file_M, rate, SAMPLE_RATE, "VHQ")
    return Input(cutoff_hz, max(ends_hz), fitted(low_N, len(reference.audio)), file_M, rate, stretches)


INPUTS: dict[str, Callable[[Reference, float], Input]] = {
    "low-pass": low_passed,
    "file": as_file,
    "full-file": as_full_file,
}
SAID = {
    "low-pass": f"Chebyshev I, order {ORDER}, zero-phase",
    "file": "files of twice the cutoff, resampled by soxr, upscaled as `flashsr upscale` does it",
    "full-file": "files of twice the cutoff that fill their rate, upscaled as `flashsr upscale` does it",
}
