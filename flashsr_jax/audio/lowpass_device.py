"""Low-resolution simulation on the device: `lowpass.simulate_low_resolution` in the frequency domain.

Forward-backward filtering is a multiplication by |H|^2, resampling down and up one by the squared response of
`resample_poly`'s windowed sinc plus the image that the down-sampling folds back around the cutoff. The host designs the
filters (`lowpass.filter_arrays`), the device applies them; every operation is per example, so batches shard freely.

Letters: B batch, N samples, L transform length, K = L / 2 + 1 frequency bins, R = 20 roots (10 poles, 10 zeros).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

from flashsr_jax.audio import SAMPLE_RATE, fft

EXTENSION = 4096  # samples beyond each edge, in which a 2 kHz filter of order 10 has rung off
SINC_PERIODS = 10  # half-length of resample_poly's filter, in samples of the lower rate
SINC_BAND = 36.0  # frequency over cutoff: 72 kHz, the end of the last folded image, for a cutoff of 2 kHz
SINC_STEP = 1 / 1280


@functools.cache
def _sinc_response() -> np.ndarray:
    """Response of resample_poly's Kaiser(5)-windowed sinc at SINC_STEP intervals of frequency over cutoff."""
    oversampling = 256
    taps = signal.firwin(2 * SINC_PERIODS * oversampling + 1, 1 / oversampling, window=("kaiser", 5.0))
    transform = np.fft.rfft(taps, round(2 * oversampling / SINC_STEP))
    linear_phase = np.exp(1j * np.pi * SINC_STEP * SINC_PERIODS * np.arange(len(transform)))
    return (transform * linear_phase).real[: round(SINC_BAND / SINC_STEP) + 2].astype(np.float32)


def _resampling_response(ratio: jax.Array | np.ndarray) -> jax.Array:
    """`_sinc_response` interpolated linearly at frequency / cutoff."""
    table = jnp.asarray(_sinc_response())
    position = jnp.minimum(jnp.abs(ratio), SINC_BAND) / SINC_STEP
    index = position.astype(jnp.int32)
    fraction = position - index
    return table[index] * (1 - fraction) + table[index + 1] * fraction


def _squared_magnitude(length: int, filters: dict[str, jax.Array]) -> jax.Array:
    """|H|^2 (B, K) of the digital filters at the bins of a transform, through the bilinear transform's warped axis.

    Summed in logarithms, where ten poles far above the cutoff neither overflow nor underflow.
    """
    warped_K = np.tan(np.pi / length * np.minimum(np.arange(length // 2 + 1), length / 2 - 0.5)).astype(np.float32)
    omega_BxK = warped_K / jnp.tan(jnp.pi / SAMPLE_RATE * filters["cutoff_hz"][:, None])

    def add_root(log_BxK: jax.Array, root: list[jax.Array]) -> tuple[jax.Array, None]:
        real_B, imag_B, sign_B = (value[:, None] for value in root)
        return log_BxK + sign_B * jnp.log(real_B**2 + (omega_BxK - imag_B) ** 2 + 1e-30), None

    roots = [filters[name].T for name in ("real", "imag", "sign")]
    log_BxK, _ = jax.lax.scan(add_root, jnp.broadcast_to(filters["log_gain"][:, None], omega_BxK.shape), roots)
    return jnp.exp(log_BxK)


def simulate_low_resolution(hr_BxN: jax.Array, filters: dict[str, jax.Array]) -> jax.Array:
    """Low-resolution version (B, N) float32 of 48 kHz waveforms (B, N), one filter of `lowpass.filter_arrays` each.

    Stands for `lowpass.simulate_low_resolution`, with the tolerances of tests/audio/test_degrade.py.
    Raises ValueError if N is under 64.
    """
    samples = hr_BxN.shape[-1]
    if samples < 64:
        raise ValueError(f"low-resolution simulation needs at least 64 samples, got {samples}")
    # A whole number of seconds, so that every integer rate has a whole number of samples in it.
    length = SAMPLE_RATE * math.ceil((samples + 2 * EXTENSION) / SAMPLE_RATE)
    extended_BxL = _extend(hr_BxN.astype(jnp.float32), filters["edge_samples"], length)
    filtered_BxK = fft.rfft(extended_BxL, length) * _squared_magnitude(length, filters)
    low_passed_BxN = fft.irfft(filtered_BxK, length)[:, :samples]
    return fft.irfft(_resample_down_and_up(low_passed_BxN, filters["low_rate_hz"], length), length)[:, :samples]


def _extend(x_BxN: jax.Array, edge_samples_B: jax.Array, length: int) -> jax.Array:
    """(B, length): the signal and sosfiltfilt's extensions: odd reflection over the edge samples, its last value held.

    What comes before the signal stands at the end, since the transform is circular.
    """
    samples = x_BxN.shape[-1]
    after_L = np.arange(length)[samples:] - (samples - 1)
    before_L = np.arange(length, 0, -1)[samples:]
    edge_Bx1 = edge_samples_B[:, None].astype(jnp.int32)
    right_BxL = 2 * x_BxN[:, -1:] - jnp.take_along_axis(x_BxN, samples - 1 - jnp.minimum(after_L, edge_Bx1), axis=-1)
    left_BxL = 2 * x_BxN[:, :1] - jnp.take_along_axis(x_BxN, jnp.minimum(before_L, edge_Bx1), axis=-1)
    return jnp.concatenate([x_BxN, jnp.where(after_L <= before_L, right_BxL, left_BxL)], axis=-1)


def _resample_down_and_up(x_BxN: jax.Array, rate_B: jax.Array, length: int) -> jax.Array:
    """Spectrum (B, K) of the signals resampled to their integer rates in Hz and back.

    Sampling at the lower rate folds the spectrum W = R X into V[q] = sum_j W[q + j M], M samples in all; interpolating
    repeats it, Y[p] = R[p] V[p mod M], whose part beyond 24 kHz folds once more. Terms below about -90 dB are left out.
    """
    period_Bx1 = (rate_B[:, None] * (length / SAMPLE_RATE)).astype(jnp.int32)
    bins_K = np.arange(length // 2 + 1, dtype=np.int32)
    low_passed_BxK = fft.rfft(x_BxN, length) * _resampling_response(bins_K / (period_Bx1 / 2))
    low_BxK = low_passed_BxK + _at(low_passed_BxK, bins_K - period_Bx1) + _at(low_passed_BxK, bins_K + period_Bx1)
    back_BxK: Any = 0.0
    for fold in (-length, 0, length):
        offset_BxK = (bins_K + fold + period_Bx1 // 2) % period_Bx1 - period_Bx1 // 2
        back_BxK += _resampling_response((bins_K + fold) / (period_Bx1 / 2)) * _at(low_BxK, offset_BxK)
    return back_BxK


def _at(spectrum_BxK: jax.Array, bins_BxK: jax.Array | np.ndarray) -> jax.Array:
    """Values of a real signal's spectrum at bins of either sign; zero beyond its last bin."""
    magnitude_BxK = jnp.abs(bins_BxK)
    last = spectrum_BxK.shape[-1] - 1
    value_BxK = jnp.take_along_axis(spectrum_BxK, jnp.minimum(magnitude_BxK, last), axis=-1)
    value_BxK = jnp.where(bins_BxK < 0, jnp.conj(value_BxK), value_BxK)
    return jnp.where(magnitude_BxK <= last, value_BxK, 0.0)
