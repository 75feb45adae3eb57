"""Where a gentle low-pass ends that no wall marks: a Butterworth or Bessel filter's shape, found in a spectrum.

The levels of a recording in twelfths of an octave wander like a random walk that falls a little. With a filter's
attenuation added back, they do so again; with that of another filter, or none, they keep a knee or a slope. Of all
filters of the family the posterior mean of the frequency at -20 dB is taken.

Letters: K bins, J bands, C cutoffs, S shapes.
"""

import functools
from math import factorial

import numpy as np

BANDS_PER_OCTAVE = 12
LOWEST_HZ = 500.0
ORDERS = (4, 5, 6, 8)  # of the filters, Butterworth and Bessel, run forward and backward
# A recording's step from band to band, dB: Student's t, whose mean falls by the octave. By tests/recordings.
STEP_MEAN_PER_OCTAVE, STEP_SCALE, STEP_FREEDOM = -0.2, 2.5, 10.0
ABOVE_FLOOR_DB = 12.0  # bands nearer to the lowest level do not count
DEPTH_DB = 35.0  # attenuation that has to be seen before the floor
EVIDENCE = 10.5  # log likelihood that a filter has to gain over none; one of 130 unfiltered recordings gains more
SHARPNESS = 1.5  # of the posterior: the steps' model is wider than recordings are, and the mean drawn to steep filters
STEEPEST_DB = 30.0  # drop within a quarter of an octave that recordings have without a wall


def rolloff(level_K: np.ndarray, sample_rate: int) -> float | None:
    """Frequency in Hz at which a gentle low-pass has taken 20 dB of a spectrum in dB, from 0 to half the rate.

    None where the spectrum gives no evidence of one, or has a wall that no such filter explains.
    """
    top = 0.98 * sample_rate / 2
    frequency_J = LOWEST_HZ * 2 ** (np.arange(int(BANDS_PER_OCTAVE * np.log2(top / LOWEST_HZ))) / BANDS_PER_OCTAVE)
    half_band = 2 ** (0.5 / BANDS_PER_OCTAVE)
    bins_per_hz = 2 * (len(level_K) - 1) / sample_rate
    first_J, last_J = (
        np.ceil(edge * bins_per_hz).astype(int) for edge in (frequency_J / half_band, frequency_J * half_band)
    )
    level_J = np.array([level_K[a : max(b, a + 1)].mean() for a, b in zip(first_J, last_J, strict=True)])
    at_floor = level_J <= level_J.min() + ABOVE_FLOOR_DB
    bands = int(np.argmax(at_floor))
    if bands < 2 * BANDS_PER_OCTAVE:
        return None
    frequency_J, level_J = frequency_J[:bands], level_J[:bands]

    octaves, attenuation_SxU, down_20_S = _shapes()
    first = 2 * BANDS_PER_OCTAVE  # a passband of two octaves has to be there
    cutoff_C = LOWEST_HZ * 2 ** (np.arange(first, bands + BANDS_PER_OCTAVE / 2, 0.5) / BANDS_PER_OCTAVE)
    position_CxJ = np.log2(frequency_J / cutoff_C[:, None])
    attenuation_SxCxJ = np.array([np.interp(position_CxJ, octaves, a) for a in attenuation_SxU])
    down_20_SxC = cutoff_C * 2 ** down_20_S[:, None]
    cost_SxC = _cost(level_J + attenuation_SxCxJ)
    possible_SxC = (attenuation_SxCxJ[..., -1] >= DEPTH_DB) & (down_20_SxC <= top)
    if not possible_SxC.any():
        return None
    cost_SxC = np.where(possible_SxC, cost_SxC, np.inf)
    best = np.unravel_index(cost_SxC.argmin(), cost_SxC.shape)
    unfiltered_J = level_J + attenuation_SxCxJ[best]
    quarter = BANDS_PER_OCTAVE // 4
    explained = (unfiltered_J[quarter:] - unfiltered_J[:-quarter]).min() > -STEEPEST_DB
    if not explained or _cost(level_J) - cost_SxC[best] < EVIDENCE:
        return None
    weight_SxC = np.exp(SHARPNESS * (cost_SxC[best] - cost_SxC))
    return float(np.exp((weight_SxC * np.log(down_20_SxC)).sum() / weight_SxC.sum()))


def _cost(level_J: np.ndarray) -> np.ndarray:
    """Negative log likelihood of a recording's levels (..., J) from the lowest band on, but for a constant."""
    octaves_over_1_khz = np.log2(LOWEST_HZ / 1000) + np.arange(level_J.shape[-1] - 1) / BANDS_PER_OCTAVE
    step = (np.diff(level_J) - STEP_MEAN_PER_OCTAVE * np.maximum(octaves_over_1_khz, 0)) / STEP_SCALE
    return ((STEP_FREEDOM + 1) / 2 * np.log1p(step**2 / STEP_FREEDOM)).sum(axis=-1)


@functools.cache
def _shapes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Octaves from the cutoff (U), attenuation in dB there of each shape (S, U), and where it is 20 dB (S)."""
    octaves = np.arange(-6, 6, 1 / 48)
    frequency = 2.0**octaves
    butter = [1 / np.sqrt(1 + frequency ** (2 * order)) for order in ORDERS]
    bessel = [np.abs(c[-1] / np.polyval(c, 1j * frequency * c[-1] ** (1 / len(c[1:])))) for c in map(_bessel, ORDERS)]
    responses = np.array(butter + bessel)
    attenuation = -40 * np.log10(responses)
    return octaves, attenuation, octaves[[np.flatnonzero(a < 20)[-1] for a in attenuation]]


def _bessel(order: int) -> np.ndarray:
    """Coefficients of the reverse Bessel polynomial, the highest power first: a Bessel filter's denominator."""
    powers = range(order, -1, -1)
    return np.array(
        [factorial(2 * order - k) / (2.0 ** (order - k) * factorial(k) * factorial(order - k)) for k in powers]
    )
