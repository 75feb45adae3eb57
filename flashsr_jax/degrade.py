"""Low-resolution simulation and bandwidth measurement on the host; `degrade_jax` simulates on the device.

Source: FlashSR (Im & Nam, ICASSP 2025, arXiv:2501.10807), its published inference code's filters and cutoff detector.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal

from flashsr_jax.rolloff import rolloff

SAMPLE_RATE = 48_000
NYQUIST = SAMPLE_RATE / 2
FILTER_TYPES = ("cheby1", "butter", "bessel", "ellip")
MAX_ORDER = 10
RIPPLE_DB, STOPBAND_DB = 0.1, 60.0
CUTOFF_TO_BANDWIDTH = 0.94  # a simulated cutoff stays below the recording's own


@dataclass(frozen=True)
class LowpassFilter:
    """A zero-phase low-pass for 48 kHz audio: one of `FILTER_TYPES`, its order (1-10) and its cutoff in Hz."""

    type: str
    order: int
    cutoff_hz: float

    def __post_init__(self):
        if self.type not in FILTER_TYPES:
            raise ValueError(f"filter type {self.type!r} is not one of {', '.join(FILTER_TYPES)}")
        if not 1 <= self.order <= MAX_ORDER:
            raise ValueError(f"filter order {self.order} is not within 1-{MAX_ORDER}")
        if not 1 <= self.cutoff_hz < NYQUIST:
            raise ValueError(f"filter cutoff {self.cutoff_hz} Hz is not within 1-{NYQUIST:.0f} Hz")

    @property
    def low_rate(self) -> int:
        """Sample rate in Hz of the simulated low-resolution signal: twice the cutoff, rounded down."""
        return int(self.cutoff_hz / NYQUIST * SAMPLE_RATE)

    def sos(self) -> np.ndarray:
        """Second-order sections of the digital filter, one pass."""
        wn = self.cutoff_hz / NYQUIST
        match self.type:
            case "cheby1":
                return signal.cheby1(self.order, RIPPLE_DB, wn, output="sos")
            case "butter":
                return signal.butter(self.order, wn, output="sos")
            case "bessel":
                return signal.bessel(self.order, wn, output="sos")
            case "ellip":
                return signal.ellip(self.order, RIPPLE_DB, STOPBAND_DB, wn, output="sos")

    def analog_prototype(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Zeros, poles and gain of the analog low-pass with its edge at 1 rad/s that the digital filter comes from."""
        match self.type:
            case "cheby1":
                return signal.cheb1ap(self.order, RIPPLE_DB)
            case "butter":
                return signal.buttap(self.order)
            case "bessel":
                return signal.besselap(self.order, norm="phase")
            case "ellip":
                return signal.ellipap(self.order, RIPPLE_DB, STOPBAND_DB)


def filter_arrays(lowpass_filter: LowpassFilter) -> dict[str, np.ndarray]:
    """The filter as float32 arrays of fixed shapes for `degrade_jax`, to be stacked along a new first axis for a batch.

    `real`, `imag` (20,): roots of the analog prototype in rad/s, `sign` (20,): +1 zero, -1 pole, 0 unused;
    `log_gain` (): log of the squared gain; `cutoff_hz`, `low_rate_hz`, `edge_samples` (): scipy's odd edge padding.
    """
    zeros, poles, gain = lowpass_filter.analog_prototype()
    roots = np.concatenate([zeros, poles])
    unused = 2 * MAX_ORDER - len(roots)
    sign = np.concatenate([np.ones(len(zeros)), -np.ones(len(poles)), np.zeros(unused)])
    sos = lowpass_filter.sos()
    edge = 3 * (2 * len(sos) + 1 - min((sos[:, 2] == 0).sum(), (sos[:, 5] == 0).sum()))  # as sosfiltfilt
    arrays = {
        "real": np.pad(roots.real, (0, unused), constant_values=1.0),
        "imag": np.pad(roots.imag, (0, unused)),
        "sign": sign,
        "log_gain": 2 * np.log(gain),
        "cutoff_hz": lowpass_filter.cutoff_hz,
        "low_rate_hz": lowpass_filter.low_rate,
        "edge_samples": edge,
    }
    return {name: np.asarray(value, np.float32) for name, value in arrays.items()}


def draw_filter(
    rng: np.random.Generator,
    bandwidth_hz: float,
    *,
    cutoff_hz: tuple[float, float] = (2000.0, 16_000.0),
    order: tuple[int, int] = (2, MAX_ORDER),
    log_cutoff: bool = False,
) -> LowpassFilter:
    """Random filter for a recording of that bandwidth: type, order and cutoff uniform in the given (inclusive) ranges.

    The cutoff's range ends at 0.94 of the bandwidth, so that there is always something to restore. `log_cutoff`: its
    logarithm is uniform, which gives the low cutoffs, where most is missing, the larger share.
    """
    highest = min(cutoff_hz[1], CUTOFF_TO_BANDWIDTH * bandwidth_hz)
    lowest = min(cutoff_hz[0], highest)
    return LowpassFilter(
        type=FILTER_TYPES[rng.integers(len(FILTER_TYPES))],
        order=int(rng.integers(order[0], order[1] + 1)),
        cutoff_hz=lowest * (highest / lowest) ** rng.random() if log_cutoff else float(rng.uniform(lowest, highest)),
    )


def lowpass(x_N: np.ndarray, lowpass_filter: LowpassFilter) -> np.ndarray:
    """Forward-backward (zero-phase) filtering of a 48 kHz signal (N,), float32. N exceeds scipy's edge padding (33)."""
    return signal.sosfiltfilt(lowpass_filter.sos(), x_N).astype(np.float32)


def simulate_low_resolution(x_N: np.ndarray, lowpass_filter: LowpassFilter) -> np.ndarray:
    """What is left of a 48 kHz signal (N,) after low-pass, resampling to twice the cutoff and back: (N,) float32.

    The published recipe: `sosfiltfilt`, `resample_poly` with its defaults both ways, trimmed or zero-padded to N.
    """
    low_passed = signal.sosfiltfilt(lowpass_filter.sos(), x_N)
    rate = lowpass_filter.low_rate
    taps = _resampling_taps(SAMPLE_RATE // np.gcd(rate, SAMPLE_RATE))
    low = signal.resample_poly(low_passed, rate, SAMPLE_RATE, window=taps)
    back = signal.resample_poly(low, SAMPLE_RATE, rate, window=taps)[: len(x_N)]
    return np.pad(back, (0, len(x_N) - len(back))).astype(np.float32)


@functools.cache
def _resampling_taps(max_rate: int) -> np.ndarray:
    """The filter that `resample_poly` designs for itself; kept, since designing it is slower than using it.

    48 000 has 56 divisors: 25 MB at most.
    """
    return signal.firwin(20 * max_rate + 1, 1 / max_rate, window=("kaiser", 5.0))


def published_cutoff(x_N: np.ndarray) -> float:
    """Cutoff in Hz as the published inference code reads it off a 48 kHz signal (N,), N >= 2048; for comparison only.

    The last bin under 98.3 % of the cumulated spectrum, where the spectrum is the *real part* of the STFT (a slip of
    that code). Gives 24000 where the reading is under 1 kHz.
    """
    frames_TxW = np.lib.stride_tricks.sliding_window_view(x_N, 2048)[::480]
    spectrum_K = np.abs(np.fft.rfft(frames_TxW * signal.get_window("hann", 2048)).real).sum(axis=0)
    below = np.flatnonzero(np.cumsum(spectrum_K) < 0.983 * spectrum_K.sum())
    cutoff = below[-1] * NYQUIST / 1024 if below.size else 0.0
    return float(cutoff) if cutoff >= 1000 else NYQUIST


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
