"""Where a recording's band ends, measured on the host.

Letters: N samples, T frames, K bins, J bands, W samples of a frame, H hops, P a period.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.rolloff import rolloff


def published_cutoff(x_N: np.ndarray) -> float:
    """Cutoff in Hz as the published inference code reads it off a 48 kHz signal (N,), N >= 2048; for comparison only.

    The last bin under 98.3 % of the cumulated spectrum, where the spectrum is the *real part* of the STFT (a slip of
    that code). Gives 24000 where the reading is under 1 kHz.
    """
    frames_TxW = np.lib.stride_tricks.sliding_window_view(x_N, 2048)[::480]
    spectrum_K = np.abs(np.fft.rfft(frames_TxW * np.hanning(2049)[:-1]).real).sum(axis=0)
    below = np.flatnonzero(np.cumsum(spectrum_K) < 0.983 * spectrum_K.sum())
    cutoff = below[-1] * SAMPLE_RATE / 2048 if below.size else 0.0
    return float(cutoff) if cutoff >= 1000 else SAMPLE_RATE / 2


def bandwidth(x_N: np.ndarray, sample_rate: int) -> float:
    """Highest frequency in Hz that a recording (N,) really contains: 0 for silence, half the rate for full band.

    Measured per block of 5 s and taken high among the blocks, since most music is dull most of the time; within a block
    see `read_block`. Never raises: silence and constants read 0, noise and single clicks full band.
    """
    meter = BandwidthMeter(sample_rate)
    meter.update(x_N)
    return meter.value()


class Reading(NamedTuple):
    """What a block of sound tells about its band.

    cutoff_hz: where the band ends; 0 for silence, half the rate for full band. end_hz: where what a low-pass leaves
    over the cutoff has sunk into what lies above it, a floor or nothing; real sound ends there. level_db: mean square
    of the loudest frames, full scale 0 dB. filtered: a filter's mark is there, not only a floor that hides the rest.
    """

    cutoff_hz: float
    end_hz: float
    level_db: float
    filtered: bool


# Written out, as in `rolloff`: a listener's first second would go to the import of scipy.signal.
BLACKMAN_HARRIS = np.array([0.35875, -0.48829, 0.14128, -0.01168])  # Harris 1978, table 1: 92 dB
BLOCK_SECONDS = 5
QUIET_DB = 40.0  # blocks so far below the loudest do not tell where the others end


class BandwidthMeter:
    """`bandwidth` of a recording that is read piece by piece."""

    def __init__(self, sample_rate: int):
        self._sample_rate = sample_rate
        self._block = BLOCK_SECONDS * sample_rate
        self._pending = np.zeros(0, np.float32)
        self._readings: list[Reading] = []
        self._levels: list[np.ndarray] = []

    def update(self, x_N: np.ndarray) -> None:
        """Takes the next samples (N,), mono."""
        self._pending = np.concatenate([self._pending, x_N])
        while len(self._pending) >= 2 * self._block:  # so that the last block is never a short one
            self._readings.append(read_block(self._pending[: self._block], self._sample_rate))
            self._levels.append(band_levels(self._pending[: self._block], self._sample_rate))
            self._pending = self._pending[self._block :]

    def readings(self) -> list[Reading]:
        """Of each block of 5 s so far; the last one is of 5 to 10 s."""
        return [*self._readings, read_block(self._pending, self._sample_rate)]

    def levels(self) -> np.ndarray:
        """Levels in dB (T, J) of each tenth of a second so far, in the bands of `band_edges`."""
        return np.concatenate([*self._levels, band_levels(self._pending, self._sample_rate)]).astype(np.float32)

    def value(self) -> float:
        """Bandwidth in Hz of everything so far."""
        readings = [reading for reading in self.readings() if reading.cutoff_hz > 0]
        loudest = max((reading.level_db for reading in readings), default=0.0)
        cutoffs = [reading.cutoff_hz for reading in readings if reading.level_db > loudest - QUIET_DB]
        return float(np.quantile(cutoffs, 0.8, method="higher")) if cutoffs else 0.0


FRAMES_PER_SECOND = 10  # of `band_levels`


def band_edges(sample_rate: int) -> np.ndarray:
    """Of the bands of `band_levels` in Hz (J + 1,): thirds of an octave from 1 kHz to half the rate."""
    octaves = np.log2(sample_rate / 2000)
    return 1000 * 2 ** np.linspace(0, octaves, max(1, round(3 * octaves)) + 1)


def band_levels(x_N: np.ndarray, sample_rate: int) -> np.ndarray:
    """Levels in dB (T, J) of each tenth of a second of a signal in each band, float16: 2 KB a minute and band."""
    hop = sample_rate // FRAMES_PER_SECOND
    frames_TxW = x_N[: len(x_N) // hop * hop].reshape(-1, hop) * np.hanning(hop + 1)[:-1].astype(np.float32)
    power_TxK = np.square(np.abs(np.fft.rfft(frames_TxW)))
    edges = np.round(band_edges(sample_rate) * hop / sample_rate).astype(int)
    power_TxJ = np.stack([power_TxK[:, a:b].mean(axis=1) for a, b in zip(edges[:-1], edges[1:], strict=True)], axis=1)
    return (10 * np.log10(power_TxJ / hop**2 + 1e-16)).astype(np.float16)


SILENCE_DB = -90.0  # mean square of a frame, full scale 0 dB, under which it holds nothing
ACTIVE_DB = 50.0  # frames further below the loudest do not count
DEEP_WALL_DB = 35.0  # a drop from 0.9 to 1.1 of a frequency that only a filter makes ...
WALL_DB, FLOOR_DB = 20.0, 12.0  # ... or a smaller one, if what follows is no further above the lowest level up there
STEADY_WALL_DB, STEADY_DB = 9.0, 5.0  # ... or a yet smaller one, if what follows is a steady floor, flat to this
EDGE_DB = 12.0  # the wall's edge: so far below the band before it
CLEARLY_LOWER = 0.93  # the end of a gentle low-pass, of what is read otherwise
LOWEST_WALL_HZ = 1000.0  # under it a spectrum falls by itself
QUANTISATION_DB = -114.0  # level per bin, full scale 0 dB, under which the top of the spectrum is rounding or dither
REST_DB, REST_RANGE_DB = 40.0, 12.0  # what a codec leaves over a band: so far below its loudest, and so even
END_DB = 5.0  # a low-pass's skirt ends so far above the floor it sinks into
LEAK_HZ, LEAK = 6000.0, 1.1  # what a codec's wall from 6 kHz on leaks goes on past so much of it ...
AT_ONCE_DB, AT_ONCE = 14.0, 0.025  # ... and the wall falls so deep from one so wide stretch to the next
LEAKING_EDGE_DB = 6.0  # the edge of such a wall, which the leak blurs: so far below the band before it
ROUNDING_WALL_DB, ROUNDING_RANGE_DB = 5.5, 5.0  # a drop that is a wall, if no more than this over rounding follows
ROUNDING_DB = 6.0  # 95th percentile over the mean of a smoothed bin of white noise, and its window's bandwidth


def read_block(x_N: np.ndarray, sample_rate: int) -> Reading:
    """The reading of a few seconds of sound.

    The upper edge of the deepest wall in the spectrum of the loud frames (95th percentile per bin, which an isolated
    click does not reach; images of a resampler may stick out above the wall), or where the spectrum has sunk into the
    floor of quantisation, whichever comes first; half the rate if there is neither. Where a gentle low-pass ends
    clearly before that, its end. What a codec leaks over its wall is none of the band. Frames with a crackle in them do
    not count where others are there. Of samples that were only held or joined by lines, as at a higher rate than they
    were taken at, the samples before that are read.
    """
    held = _held(x_N, sample_rate)
    if held:
        factor, first = held
        reading = read_block(x_N[first::factor], sample_rate // factor)
        return reading._replace(filtered=True, end_hz=max(reading.end_hz, reading.cutoff_hz))
    size = 1 << round(np.log2(sample_rate / 24))  # 2048 at 48 kHz
    rounding_db = _rounding_db(x_N, size)
    x_N = np.pad(x_N - x_N.mean(), (0, max(0, size - len(x_N)))) if len(x_N) else np.zeros(size)
    frames_TxW = np.lib.stride_tricks.sliding_window_view(x_N, size)[:: size // 4]
    power_H = np.square(x_N[: len(x_N) // (size // 4) * (size // 4)]).reshape(-1, size // 4).sum(axis=1)
    power_T = np.lib.stride_tricks.sliding_window_view(power_H, 4).sum(axis=1) / size
    energy_T = 10 * np.log10(power_T + 1e-20)
    loud_db = float(energy_T.max())
    if loud_db < SILENCE_DB:
        return Reading(0.0, 0.0, loud_db, False)
    active_T = energy_T > loud_db - ACTIVE_DB
    quiet_T = active_T & ~_crackle(x_N, size)[: len(active_T)]
    if active_T.sum() > quiet_T.sum() >= CRACKLE_SHARE * active_T.sum():
        active_T = quiet_T
    window_W = BLACKMAN_HARRIS @ np.cos(2 * np.pi / size * np.outer(np.arange(4), np.arange(size)))
    power_TxK = np.abs(np.fft.rfft(frames_TxW[active_T] * (window_W / window_W.sum()))) ** 2
    power_TxK = ndimage.uniform_filter1d(power_TxK, 5, axis=1, mode="nearest")
    median_K, power_K = _quantiles(power_TxK.T, 0.5, 0.95)
    level_K = 10 * np.log10(power_K + power_K.max() * 1e-14)
    swing_K = level_K - 10 * np.log10(median_K + power_K.max() * 1e-14)

    edge, filtered = _edge(level_K, swing_K, sample_rate, rounding_db)
    hz = edge * sample_rate / size
    mirror_hz = _mirror(x_N, sample_rate, hz)
    if mirror_hz:
        hz = max(0.9 * mirror_hz, _edge_before(level_K, int(mirror_hz * size / sample_rate)) * sample_rate / size)
        return Reading(float(hz), float(hz), loud_db, True)
    inside = int(0.93 * edge)
    rest_K = level_K[int(0.7 * edge) : inside]
    if len(rest_K) > 8 and np.ptp(rest_K) < REST_RANGE_DB and rest_K.max() < level_K[:inside].max() - REST_DB:
        # What ends there may be the rests that a codec left over a band that was cut before.
        rate = 2 * inside * sample_rate / size
        before, cut_before = _edge(level_K[: inside + 1], swing_K[: inside + 1], rate, rounding_db, floor=False)
        if cut_before:  # gentle filters, too, are seen down to the rests only: from the band, not from the shoulder
            hz = _edge_before(level_K, before) * sample_rate / size
            return Reading(float(hz), _end(level_K[: inside + 1], float(hz), rate, rounding_db), loud_db, True)
    gentle_hz = rolloff(level_K, sample_rate)
    if gentle_hz and gentle_hz < CLEARLY_LOWER * hz:
        hz, filtered = gentle_hz, True
    elif (leaking := _leaking_edge(level_K, edge, sample_rate, rounding_db)) is not None:
        hz = leaking * sample_rate / size
        return Reading(hz, hz, loud_db, True)
    return Reading(float(hz), _end(level_K, float(hz), sample_rate, rounding_db), loud_db, filtered)


def _quantiles(x: np.ndarray, *shares: float) -> list[np.ndarray]:
    """Quantiles (...) of an array (..., N) as `np.quantile` has them; sorting is faster than what it does."""
    ordered = np.sort(x, axis=-1)
    found = []
    for share in shares:
        place = share * (x.shape[-1] - 1)
        below = int(place)
        a, b, part = ordered[..., below], ordered[..., min(below + 1, x.shape[-1] - 1)], place - below
        found.append(a + (b - a) * part if part < 0.5 else b - (b - a) * (1 - part))
    return found


def _rounding_db(x_N: np.ndarray, size: int) -> float:
    """Level per bin of the rounding of a signal of 16 bits, were it white; -inf for others.

    That of a faint signal is not quite white, and not steady, but follows it.
    """
    steps_N = x_N * np.float32(1 << 15)
    rounded = np.array_equal(steps_N, np.round(steps_N))
    return float(-20 * np.log10(1 << 15) - 10 * np.log10(12 * size) + ROUNDING_DB) if rounded else -np.inf


def _edge(
    level_K: np.ndarray, swing_K: np.ndarray, sample_rate: float, rounding_db: float, floor: bool = True
) -> tuple[int, bool]:
    """The bin at which a spectrum in dB ends by a wall, or by the floor of quantisation, and whether by a wall.

    swing_K: how much louder than their median the loud frames are. rounding_db: as `_rounding_db` says. No wall is
    found in a spectrum that ends too near to LOWEST_WALL_HZ for one to show.
    """
    size, highest = 2 * (len(level_K) - 1), len(level_K) - 1
    groups: list[list[tuple[float, int, float]]] = []
    last = None
    first, end = LOWEST_WALL_HZ * size / sample_rate, highest / 1.1
    candidates = np.unique(np.geomspace(first, end, 200).astype(int)) if first < end else ()
    for number, k in enumerate(candidates):
        before = float(level_K[int(0.8 * k) : int(0.93 * k) + 1].mean())
        after = float(level_K[math.ceil(1.08 * k) : math.ceil(1.3 * k) + 1].mean())
        drop = before - after
        if _is_wall(level_K, k, before, after) or _falls_to_floor(level_K, swing_K, k, drop, rounding_db):
            if last != number - 1:
                groups.append([])
            groups[-1].append((drop, k, before))
            last = number
    edge, filtered = highest, bool(groups)
    if groups:
        deepest = max(max(group) for group in groups)[0]
        group = next(g for g in groups if max(g)[0] >= min(0.9 * deepest, DEEP_WALL_DB))
        k, before = next((k, before) for drop, k, before in group if drop >= 0.9 * max(group)[0])
        drop = max(group)[0]
        edge = int(np.flatnonzero(level_K[: math.ceil(1.08 * k)] >= before - min(EDGE_DB, drop / 2))[-1])
    bottom = np.median(level_K[int(0.9 * highest) :])
    if floor and bottom < QUANTISATION_DB:
        above_floor = np.flatnonzero(ndimage.median_filter(level_K, 15, mode="nearest") > bottom + 6)
        if above_floor.size and above_floor[-1] < edge:
            edge, filtered = int(above_floor[-1]), False
    return edge, filtered


def _is_wall(level_K: np.ndarray, k: int, before: float, after: float) -> bool:
    """Whether a spectrum in dB, of these levels before and after bin k, falls there as a filter makes it fall."""
    drop = before - after
    if drop < WALL_DB:  # quantiles take long, and most bins are none
        return False
    lowest, high = np.quantile(level_K[math.ceil(1.08 * k) :], (0.25, 0.75))
    return bool(before - high >= WALL_DB and (drop >= DEEP_WALL_DB or after - lowest <= FLOOR_DB))


def _falls_to_floor(level_K: np.ndarray, swing_K: np.ndarray, k: int, drop: float, rounding_db: float) -> bool:
    """Whether a spectrum in dB falls at bin k at once to a floor up to the top: one that is flat and as steady as
    noise, or what rounding makes of a faint signal."""
    if drop < min(STEADY_WALL_DB, ROUNDING_WALL_DB):
        return False
    steep = level_K[int(0.93 * k) : int(0.97 * k) + 1].mean() - level_K[math.ceil(1.04 * k) : math.ceil(1.1 * k)].mean()
    if not steep >= 0.7 * drop:
        return False
    above = slice(math.ceil(1.08 * k), None)
    low, high = np.quantile(level_K[above], (0.05, 0.95))
    steady = high - low <= STEADY_DB and np.quantile(swing_K[above], 0.95) <= STEADY_DB
    return bool((drop >= STEADY_WALL_DB and steady) or level_K[above].max() <= rounding_db + ROUNDING_RANGE_DB)


def _edge_before(level_K: np.ndarray, wall: int) -> int:
    """The last bin up to a wall's that is no more than EDGE_DB under the band of a spectrum in dB before it."""
    band_db = np.quantile(level_K[int(0.6 * wall) : int(0.85 * wall)], 0.75)
    return int(np.flatnonzero(level_K[: wall + 1] >= band_db - EDGE_DB)[-1])


def _leaking_edge(level_K: np.ndarray, wall: int, sample_rate: float, rounding_db: float) -> int | None:
    """The bin at which the band of a codec ends that leaks over its wall's bin, by transients in short blocks say: that
    is no sound, and nothing of it stays. None for other spectra in dB: of filters only the steepest, Chebyshev's say,
    fall as deep at once, and what is over such a wall is as little."""
    wall_hz = wall * sample_rate / (2 * (len(level_K) - 1))
    if wall_hz < LEAK_HZ or not LEAK * wall_hz < _end(level_K, wall_hz, sample_rate, rounding_db) < sample_rate / 2:
        return None
    width = int(AT_ONCE * wall)
    mean_K = ndimage.uniform_filter1d(level_K, width, mode="nearest")
    near = np.arange(int(0.93 * wall), math.ceil(1.04 * wall))
    apart = width // 2 + 3  # past what the window and the smoothing blur
    if (mean_K[near - apart] - mean_K[near + apart]).max() < AT_ONCE_DB:
        return None
    before_db = level_K[int(0.8 * wall) : int(0.93 * wall) + 1].mean()
    return int(np.flatnonzero(level_K[: wall + 1] >= before_db - LEAKING_EDGE_DB)[-1])


def _end(level_K: np.ndarray, cutoff_hz: float, sample_rate: float, rounding_db: float) -> float:
    """Where in Hz what is left over a cutoff has sunk into what lies above it; half the rate if nothing does."""
    bins_per_hz = 2 * (len(level_K) - 1) / sample_rate
    cutoff = math.ceil(cutoff_hz * bins_per_hz)
    above_K = level_K[math.ceil(1.3 * cutoff) :]
    if len(above_K) < 8:
        return sample_rate / 2
    sunk_K = ndimage.median_filter(level_K[cutoff:], 5, mode="nearest") <= max(np.median(above_K), rounding_db) + END_DB
    return float(min((cutoff + np.argmax(sunk_K)) / bins_per_hz, sample_rate / 2))


MIRROR_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000)  # that sound was taken at
MIRROR_WIDTH = (1.04, 1.2)  # of half the rate: where an image is looked for
MIRROR_FRAME, MOST_FRAME = 0.032, 0.128  # seconds
MIRRORED = 0.7  # correlation of an image with what it is of: 0.9 and more; of other sound under 0.3
MIRROR_DROP_DB = 1.0  # by which an image is softer than what it is of


def _mirror(x_N: np.ndarray, sample_rate: int, end_hz: float) -> float | None:
    """Half the rate in Hz that a signal (N,) was resampled from, over which it has the mirror image that a poor
    resampler leaves, Opus' own say; None if it seems to end there already, or has other sound there.

    An image follows what it is of in each frame and bin. Frames are as long as makes half the rate a whole bin or the
    middle of two, and the louder half counts.
    """
    for rate in MIRROR_RATES:
        whole = sample_rate // math.gcd(rate, sample_rate)
        size = whole * max(1, round(MIRROR_FRAME * sample_rate / whole))
        frames = len(x_N) // size
        if rate / 2 > end_hz / MIRROR_WIDTH[0] or MIRROR_WIDTH[1] * rate > 0.98 * sample_rate:
            return None
        if size > MOST_FRAME * sample_rate or frames < 8:
            continue
        frames_TxW = x_N[: frames * size].reshape(frames, size) * np.hanning(size + 1)[:-1].astype(np.float32)
        power_TxK = np.square(np.abs(np.fft.rfft(frames_TxW)))
        twice = rate * size // sample_rate
        over = np.arange(*(math.ceil(edge * twice / 2) for edge in MIRROR_WIDTH))
        sound_TxK, image_TxK = (10 * np.log10(power_TxK[:, bins] + 1e-20) for bins in (twice - over, over))
        loud_T = image_TxK.mean(axis=1) >= np.median(image_TxK.mean(axis=1))
        drop_db = (sound_TxK[loud_T] - image_TxK[loud_T]).mean()
        sound, image = (_detail(level_TxK[loud_T]) for level_TxK in (sound_TxK, image_TxK))
        if drop_db >= MIRROR_DROP_DB and (sound * image).sum() > MIRRORED * np.sqrt(
            np.square(sound).sum() * np.square(image).sum()
        ):
            return rate / 2
    return None


def _detail(level_TxK: np.ndarray) -> np.ndarray:
    """Levels without the mean of each frame and of each bin."""
    level_TxK = level_TxK - level_TxK.mean(axis=1, keepdims=True)
    return level_TxK - level_TxK.mean(axis=0)


MOST_HELD = 12  # 4 to 48 kHz
COMMON_PERIOD = math.lcm(*range(2, MOST_HELD + 1))  # P: what repeats with any factor repeats with this
HELD_SHARE = 0.98  # of the energy of the differences, in one of so many samples


def _held(x_N: np.ndarray, sample_rate: int) -> tuple[int, int] | None:
    """(factor, first of the samples before) of a signal that was brought to its rate by holding each sample or by
    lines between them; None for others."""
    if len(x_N) < sample_rate // 4:
        return None
    for order in (1, 2):  # of the difference that is zero except where a sample was
        energy_N = np.square(np.diff(np.asarray(x_N, np.float64), order))
        energy_P = np.pad(energy_N, (0, -len(energy_N) % COMMON_PERIOD)).reshape(-1, COMMON_PERIOD).sum(axis=0)
        total = energy_P.sum()
        for factor in range(MOST_HELD, 1, -1):
            if sample_rate % factor or sample_rate // factor < 4000 or not total:
                continue
            whole = energy_P.reshape(-1, factor).sum(axis=0)
            if whole.max() >= HELD_SHARE * total:
                return factor, int(whole.argmax() + 1) % factor
    return None


CRACKLE_SHARE = 0.15  # of the loud frames, that have to be without
CRACKLE_RATIO = 30.0  # of a crackle's second difference to the usual one around it
CRACKLE_SAMPLES = 12  # a crackle is over within so many: sound rings


def _crackle(x_N: np.ndarray, size: int) -> np.ndarray:
    """Whether there is a crackle, of a record or a wrong sample, in each frame of `size` at a hop of size / 4 (T,)."""
    hop = size // 4
    bend_N = np.abs(np.diff(x_N, 2, append=[0, 0]))
    bend_HxN = np.pad(bend_N, (0, -len(bend_N) % hop)).reshape(-1, hop)
    usual_H = ndimage.median_filter(np.median(bend_HxN, axis=1), 3, mode="nearest")
    usual_N = np.repeat(usual_H, hop)[: len(bend_N)] + 1e-12
    around = hop // 4
    lively = ndimage.uniform_filter1d((bend_N > CRACKLE_RATIO / 4 * usual_N).astype(np.float32), around) * around
    crackle_N = (bend_N > CRACKLE_RATIO * usual_N) & (lively < CRACKLE_SAMPLES)
    crackle_H = np.pad(crackle_N, (0, -len(crackle_N) % hop)).reshape(-1, hop).any(axis=1)
    frames = (len(x_N) - size) // hop + 1
    return np.asarray(np.lib.stride_tricks.sliding_window_view(np.pad(crackle_H, (0, 4)), 4).any(axis=1))[:frames]
