"""Where the band of sound ends that is still coming, by what of it has been heard.

Letters: C channels, N samples.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bands import CROSSFADE, Bands, BandsByStretch, bands_of
from flashsr_jax.audio.bandwidth import BLOCK_SECONDS, QUIET_DB, Reading, read_block
from flashsr_jax.audio.resampling import LOUDEST
from flashsr_jax.audio.stretches import SAME, Stretch, without_top

READS_AT_FIRST = 4  # in the stream's first second; one in each after it
FINER = 0.03  # of a cutoff: how much higher one has to be that is taken instead
LOWER, LOWER_UNFILTERED = 3, 20  # lower readings, one after the other, before they count: with a filter's mark, without
NETWORKS_ALONE = Bands(SAMPLE_RATE / 2)


class BandsAsHeard:
    """`BandsByStretch` of a stream, found while it comes: each second the last five are read, channel by channel.

    The first reading comes after a quarter of a second; until there is sound in one, the networks have the stream to
    themselves. What more of the band is heard counts at once; less only after some seconds, since it may be a dull
    passage. A reading counts from the end of what was read, so that blocks of any length give the same. `highest_hz`
    is what the resampler to 48 kHz leaves.
    """

    def __init__(self, sample_rate: int, channels: int, highest_hz: float):
        self._rate, self._highest_hz = sample_rate, highest_hz
        self._piece = sample_rate // READS_AT_FIRST
        self._pending_CxN = self._last_CxN = np.zeros((channels, 0), np.float32)
        self._pieces = 0
        self._ears = [_Ear() for _ in range(channels)]
        self._parts: list[list[tuple[int, Bands | None]]] = [[(0, NETWORKS_ALONE)] for _ in range(channels)]

    def listening(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The blocks (C, n), each once it has been heard."""
        for block_CxN in blocks:
            if np.abs(block_CxN).max(initial=0) <= LOUDEST:  # others are refused where they are resampled
                self._pending_CxN = np.concatenate([self._pending_CxN, block_CxN], axis=1)
            while self._pending_CxN.shape[1] >= self._piece:
                self._hear(self._pending_CxN[:, : self._piece])
                self._pending_CxN = self._pending_CxN[:, self._piece :]
            yield block_CxN

    def bands(self, start: int) -> BandsByStretch:
        """What to do from a sample on, at 48 kHz, as far as the stream has been heard; what is before is forgotten."""
        for parts in self._parts:
            while len(parts) > 1 and parts[1][0] + CROSSFADE < start:
                del parts[0]
        return BandsByStretch(tuple(map(tuple, self._parts)))

    def _hear(self, piece_CxN: np.ndarray) -> None:
        self._last_CxN = np.concatenate([self._last_CxN, piece_CxN], axis=1)[:, -BLOCK_SECONDS * self._rate :]
        self._pieces += 1
        if self._pieces > READS_AT_FIRST and self._pieces % READS_AT_FIRST:
            return
        # The fade to another treatment begins where the piece ends.
        first = round(self._pieces * self._piece / self._rate * SAMPLE_RATE) + CROSSFADE // 2
        for ear, x_N, parts in zip(self._ears, self._last_CxN, self._parts, strict=True):
            reading = ear.another(read_block(x_N, self._rate))
            if reading:
                stretch = Stretch(0.0, np.inf, *without_top(reading, self._rate)[:2])
                bands = bands_of(stretch, lowpass=True, keep_low_band=True)
                parts.append((first, bands and bands.within(self._highest_hz)))


class _Ear:
    """A channel's reading so far."""

    def __init__(self) -> None:
        self._reading: Reading | None = None
        self._loudest_db = -np.inf
        self._lower = 0

    def another(self, reading: Reading) -> Reading | None:
        """Takes the reading of the last seconds; gives it back where it now takes the place of the one before."""
        if not reading.cutoff_hz or reading.level_db < self._loudest_db - QUIET_DB:
            return None
        self._loudest_db = max(self._loudest_db, reading.level_db)
        ratio = reading.cutoff_hz / self._reading.cutoff_hz if self._reading else np.inf
        self._lower = self._lower + 1 if ratio < 1 / (1 + SAME) else 0
        patience = LOWER if reading.filtered else LOWER_UNFILTERED
        if ratio < 1 + FINER and self._lower < patience:
            return None
        self._reading, self._lower = reading, 0
        return reading
