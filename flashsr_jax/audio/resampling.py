"""Blocks of a signal of any rate to 48 kHz, and what they have to be for that.

Letters: C channels.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.errors import UserError

MIN_SAMPLE_RATE = 4_000


def check_rate(sample_rate: int) -> None:
    """Raise UserError for a rate under 4 kHz."""
    if sample_rate < MIN_SAMPLE_RATE:
        raise UserError(f"the sample rate is {sample_rate} Hz; super-resolution needs {MIN_SAMPLE_RATE} Hz or more")


def check_finite(block_CxN: np.ndarray, position: int, most: float = np.inf) -> None:
    """Raise UserError naming the first sample that is not finite, or larger than `most`, of a block that begins at
    sample `position`."""
    good_CxN = np.isfinite(block_CxN) & (np.abs(block_CxN) <= most)
    if not good_CxN.all():
        channel, sample = np.argwhere(~good_CxN)[0]
        raise UserError(
            f"sample {position + sample} of channel {channel + 1} is {block_CxN[channel, sample]}: repair the input"
        )


def resample_stream(blocks: Iterable[np.ndarray], sample_rate: int, channels: int) -> Iterator[np.ndarray]:
    """Resample blocks (C, n) to 48 kHz with soxr's best quality: exact length, no offset, whatever the blocks."""
    resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, channels, dtype="float32", quality="VHQ")
    position = 0
    for block in blocks:
        check_finite(block, position)
        position += block.shape[1]
        yield resampler.resample_chunk(np.ascontiguousarray(block.T, np.float32)).T
    yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True).T
