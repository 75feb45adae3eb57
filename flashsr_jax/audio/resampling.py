"""Blocks of a signal of any rate to 48 kHz, and what they have to be for that.

Letters: C channels.
"""

import functools
import numbers
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.errors import UserError

MIN_SAMPLE_RATE = 4_000
MAX_SAMPLE_RATE = 768_000  # the highest that converters have: more is a damaged header, and memory grows with the rate
BEST, PROMPT = "VHQ", "LQ"  # of soxr's qualities: for files, and for what is heard as it comes
REACH = {BEST: 0.96, PROMPT: 0.86}  # of half the lower rate: where their filters have taken 10 dB
PASSBAND = 0.91  # of half the lower rate: up to where the best filter takes nothing
PROBE_HZ = 1000  # pieces a second in which `held_back` feeds a resampler
LOUDEST = 1e10  # of a sample: floats at the scale of 32-bit integers are under it, broken ones seldom


def check_rate(sample_rate: float) -> int:
    """The rate as Python's int: a float will do that is a whole number, and NumPy's integers, which overflow. Raises
    UserError for what is no whole number of Hz, and for a rate under 4 kHz or over 768 kHz."""
    number = isinstance(sample_rate, numbers.Real) and not isinstance(sample_rate, bool)
    if not number or not float(sample_rate).is_integer():
        given = sample_rate if number else f"a value of type {type(sample_rate).__name__}"
        raise UserError(f"the sample rate is {given}: give a whole number of Hz, 44100 say")
    if sample_rate < MIN_SAMPLE_RATE:
        raise UserError(f"the sample rate is {sample_rate} Hz; super-resolution needs {MIN_SAMPLE_RATE} Hz or more")
    if sample_rate > MAX_SAMPLE_RATE:
        raise UserError(
            f"the sample rate is {sample_rate} Hz, over {MAX_SAMPLE_RATE} Hz: repair the header, or resample"
        )
    return int(sample_rate)


def check_finite(block_CxN: np.ndarray, position: int) -> None:
    """Raise UserError naming the first sample that is not finite, or larger than `LOUDEST`, of a block that begins at
    sample `position`: what is measured of larger ones overflows."""
    good_CxN = np.abs(block_CxN) <= LOUDEST
    if not good_CxN.all():
        channel, sample = np.argwhere(~good_CxN)[0]
        raise UserError(
            f"sample {position + sample} of channel {channel + 1} is {block_CxN[channel, sample]}: repair the input"
        )


def resample_stream(
    blocks: Iterable[np.ndarray], sample_rate: int, channels: int, to_rate: int = SAMPLE_RATE, quality: str = BEST
) -> Iterator[np.ndarray]:
    """Resample blocks (C, n) in one of soxr's qualities: exact length, no offset, whatever the blocks."""
    resampler = soxr.ResampleStream(sample_rate, to_rate, channels, dtype="float32", quality=quality)
    position = 0
    for block in blocks:
        check_finite(block, position)
        position += block.shape[1]
        yield resampler.resample_chunk(np.ascontiguousarray(block.T, np.float32)).T
    yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True).T


def reach_hz(sample_rate: float, quality: str = BEST) -> float:
    """How high in Hz a signal of this rate reaches after resampling to 48 kHz: to where the filter has taken 10 dB."""
    return REACH[quality] * sample_rate / 2 if sample_rate < SAMPLE_RATE else SAMPLE_RATE / 2


def passband_hz(sample_rate: float) -> float:
    """Up to where in Hz a signal of this rate is what it was after the best resampling to 48 kHz."""
    return PASSBAND * sample_rate / 2 if sample_rate < SAMPLE_RATE else SAMPLE_RATE / 2


@functools.cache
def held_back(sample_rate: int, quality: str) -> float:
    """Seconds of input that `resample_stream` to 48 kHz holds back at most, measured on half a second of silence."""
    resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality=quality)
    given = taken = most = 0.0
    for piece in range(1, PROBE_HZ // 2):
        samples = piece * sample_rate // PROBE_HZ - (piece - 1) * sample_rate // PROBE_HZ
        given += samples / sample_rate
        taken += len(resampler.resample_chunk(np.zeros((samples, 1), np.float32))) / SAMPLE_RATE
        most = max(most, given - taken)
    return most


def of_length(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Blocks (C, n) of `samples` in all: what is more is left out, what is missing, a sample after two roundings, is
    the last one again."""
    written, last_Cx1 = 0, None
    for block in blocks:
        block = block[:, : samples - written]
        if block.shape[1]:
            written, last_Cx1 = written + block.shape[1], block[:, -1:]
            yield block
    if last_Cx1 is not None and written < samples:
        yield np.repeat(last_Cx1, samples - written, axis=1)


def fitted(x_N: np.ndarray, samples: int) -> np.ndarray:
    """`of_length` of a signal (N,) at 48 kHz that came back from another rate. Raises ValueError where its length
    differs by more than rounding to the lowest rate makes."""
    if abs(len(x_N) - samples) > SAMPLE_RATE / MIN_SAMPLE_RATE:
        raise ValueError(f"{samples} samples came back as {len(x_N)}")
    return np.concatenate(list(of_length([x_N[None]], samples)), axis=1)[0]
