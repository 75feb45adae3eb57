"""Low-resolution simulation on the host; `lowpass_device` simulates on the device.

Source: FlashSR (Im & Nam, ICASSP 2025, arXiv:2501.10807), its published inference code's filters and cutoff detector.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import signal

from flashsr_jax.audio import SAMPLE_RATE

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

    def __post_init__(self) -> None:
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
            case _:  # "ellip"
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
            case _:  # "ellip"
                return signal.ellipap(self.order, RIPPLE_DB, STOPBAND_DB)


def filter_arrays(lowpass_filter: LowpassFilter) -> dict[str, np.ndarray]:
    """The filter as float32 arrays of fixed shapes for `lowpass_device`, to be stacked along a new first axis.

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


def apply_filter(x_N: np.ndarray, lowpass_filter: LowpassFilter) -> np.ndarray:
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
