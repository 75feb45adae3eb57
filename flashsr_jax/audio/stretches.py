"""Where the band of each channel ends, by stretch of time: a recording may be joined from others of other bandwidths.

Letters: B blocks, S states (the cutoffs that occur), C channels, T tenths of a second, J bands.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bandwidth import BLOCK_SECONDS, FRAMES_PER_SECOND, BandwidthMeter, Reading, band_edges

# The networks know cutoffs up to 16 kHz, which detection may read a tenth too high.
FULL_BAND_HZ = 17_600.0


class Stretch(NamedTuple):
    """A part of a channel, from `start` to `end` in seconds, whose band ends at cutoff_hz and of which nothing real is
    over end_hz (see `bandwidth.Reading`). A cutoff of 0 is silence."""

    start: float
    end: float
    cutoff_hz: float
    end_hz: float

    @property
    def passes(self) -> bool:
        """Whether there is nothing to restore: full band, or silence."""
        return not 0 < self.cutoff_hz < FULL_BAND_HZ


SAME = 0.15  # cutoffs that differ by no more are one: blocks of one recording are not read alike
CHANGE = 0.45  # what a change costs, in blocks whose reading is denied
LOWER, LOWER_UNFILTERED = (
    0.35,
    0.03,
)  # cost of a block that reads lower: a dull passage, with a filter's mark or without
UNHEARD_DB, HEARD_DB = 45.0, 20.0  # blocks so far below the loudest have no say, and so far below it their full one
MARGIN_DB = 6.0  # over the loudest of a duller stretch, what belongs to the brighter one


def stretches(meters: Sequence[BandwidthMeter], sample_rate: int, samples: int) -> tuple[tuple[Stretch, ...], ...]:
    """The stretches of each channel of a recording from what its meters read, one a channel.

    The path of least cost through the blocks' readings: real sound over a cutoff denies it, a duller block hardly does,
    and each change has its price, so that a recording of one bandwidth stays one stretch. A change from one block to
    the next is placed where the brighter side's high band begins or ends, to a tenth of a second.
    """
    seconds = samples / sample_rate
    readings_CxB = [meter.readings() for meter in meters]
    states = _states([reading for readings in readings_CxB for reading in readings])
    states = [without_top(state, sample_rate) for state in states]
    if not states:
        return tuple((Stretch(0.0, seconds, 0.0, 0.0),) for _ in meters)
    found: list[tuple[Stretch, ...]] = []
    for meter, readings in zip(meters, readings_CxB, strict=True):
        if not any(reading.cutoff_hz for reading in readings):
            found.append((Stretch(0.0, seconds, 0.0, 0.0),))
            continue
        path_B = _path(readings, [state.cutoff_hz for state in states])
        changes = (np.flatnonzero(np.diff(path_B)) + 1).tolist()
        times = [0.0, *(_change(meter, sample_rate, states, path_B, block) for block in changes), seconds]
        of_stretch = [states[path_B[block]] for block in (0, *changes)]
        found.append(tuple(Stretch(a, b, *s[:2]) for a, b, s in zip(times[:-1], times[1:], of_stretch, strict=True)))
    return tuple(found)


def stretches_of(x_CxN: np.ndarray, sample_rate: int) -> tuple[tuple[Stretch, ...], ...]:
    """The stretches of each channel of a signal in memory."""
    meters = [BandwidthMeter(sample_rate) for _ in x_CxN]
    for meter, x_N in zip(meters, x_CxN, strict=True):
        meter.update(x_N)
    return stretches(meters, sample_rate, x_CxN.shape[1])


def without_top(reading: Reading, sample_rate: int) -> Reading:
    """The reading, with no end where so little of the rate is over it that a low-pass could take nothing away."""
    return reading._replace(end_hz=SAMPLE_RATE / 2) if reading.end_hz >= 0.98 * sample_rate / 2 else reading


def _states(readings: list[Reading]) -> list[Reading]:
    """The cutoffs that occur, from low to high, each as one reading for its blocks' many."""
    loudest = max((reading.level_db for reading in readings), default=0.0)
    heard = [r for r in readings if r.cutoff_hz and r.level_db > loudest - UNHEARD_DB]
    sure = [r for r in heard if r.filtered or r.cutoff_hz >= FULL_BAND_HZ]
    groups: list[list[Reading]] = []
    for reading in sorted(sure or heard):
        if groups and min(reading.cutoff_hz, FULL_BAND_HZ) <= (1 + SAME) * groups[-1][0].cutoff_hz:
            groups[-1].append(reading)
        else:
            groups.append([reading])
    high = (float(np.quantile([r[k] for r in g], 0.8, method="higher")) for g in groups for k in (0, 1))
    return [Reading(cutoff_hz, end_hz, 0.0, True) for cutoff_hz, end_hz in zip(high, high, strict=True)]


def _path(readings: list[Reading], cutoff_S: list[float]) -> np.ndarray:
    """The state of each block (B,)."""
    loudest = max(reading.level_db for reading in readings)
    cost_S, back_BxS = np.zeros(len(cutoff_S)), []
    for reading in readings:
        say = np.clip((reading.level_db - loudest + UNHEARD_DB) / (UNHEARD_DB - HEARD_DB), 0, 1)
        lower = LOWER if reading.filtered else LOWER_UNFILTERED
        ratio_S = min(reading.cutoff_hz, FULL_BAND_HZ) / np.minimum(cutoff_S, FULL_BAND_HZ)
        denied_S = np.where(ratio_S > 1 + SAME, 1.0, np.where(ratio_S < 1 - SAME, lower, 0.0)) * (reading.cutoff_hz > 0)
        change_SxS = cost_S[:, None] + CHANGE * (1 - np.eye(len(cutoff_S)))
        back_BxS.append(change_SxS.argmin(axis=0))
        cost_S = change_SxS.min(axis=0) + say * denied_S
    path = [int(cost_S.argmin())]
    for back_S in back_BxS[:0:-1]:
        path.append(int(back_S[path[-1]]))
    return np.array(path[::-1])


def _change(meter: BandwidthMeter, sample_rate: int, states: list[Reading], path_B: np.ndarray, block: int) -> float:
    """Seconds at which the state of `block` begins: within it or the block before."""
    before, after = states[path_B[block - 1]], states[path_B[block]]
    low, high = sorted((before, after))
    edges = band_edges(sample_rate)
    bands_J = (edges[:-1] >= 1.15 * low.cutoff_hz) & (edges[1:] <= 1.05 * high.cutoff_hz)
    size = BLOCK_SECONDS * FRAMES_PER_SECOND
    middle = block * BLOCK_SECONDS
    if not bands_J.any():
        return float(middle)
    level_T = meter.levels()[:, bands_J].mean(axis=1)
    first, last = (block - 1) * size, min((block + 1) * size, len(level_T))
    falls = before > after
    dull_T = level_T[last : last + size] if falls else level_T[max(0, first - size) : first]
    if not len(dull_T) or (
        path_B[min(block + 1, len(path_B) - 1)] if falls else path_B[max(block - 2, 0)]
    ) != states.index(low):
        dull_T = level_T[last - size // 4 : last] if falls else level_T[first : first + size // 4]
    bright = np.flatnonzero(level_T[first:last] > dull_T.max() + MARGIN_DB)
    if not len(bright):
        return float(middle)
    return float(first + (bright[-1] + 1 if falls else bright[0])) / FRAMES_PER_SECOND
