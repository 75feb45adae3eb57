"""Anti-aliased SnakeBeta: x2 upsampling, periodic activation, low-pass and decimation by 2, with its own gradient.

Letters: B batch, N samples, C channels, K taps. Source: BigVGAN (Lee et al., ICLR 2023, arXiv:2206.04658), section
3.2, with the filters of alias-free networks (Karras et al., StyleGAN3, arXiv:2106.12423) of 12 taps.

The filters run polyphase, as sums of six shifted copies: a signal at twice the rate is two arrays, its even and its odd
samples. The barriers keep XLA from fusing one step into the shifts of the next, which would evaluate each sine many
times over: on a CPU they and the polynomials are worth a factor of 12 forward and 25 backward.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import optimization_barrier

TAPS = 12
EPSILON = 1e-9


def lowpass_filter() -> np.ndarray:
    """Half-band Kaiser-windowed sinc of 12 taps and unit sum, float32; symmetric."""
    attenuation = 2.285 * (TAPS / 2 - 1) * np.pi * 1.2 + 7.95
    beta = 0.1102 * (attenuation - 8.7)
    t = np.arange(TAPS) - (TAPS - 1) / 2
    taps = 0.5 * np.sinc(0.5 * t) * np.kaiser(TAPS, beta)
    return (taps / taps.sum()).astype(np.float32)


# Each is the other one reversed, by the symmetry of the filter: so either is the adjoint of the other.
EVEN_TAPS, ODD_TAPS = lowpass_filter()[0::2], lowpass_filter()[1::2]


@jax.jit  # traced once a shape instead of once a layer
def antialiased_snake_beta(x_BxNxC: jax.Array, alpha_C: jax.Array, beta_C: jax.Array) -> jax.Array:
    """Anti-aliased x + sin^2(x e^alpha) / (e^beta + 1e-9), (B, N, C) in the type of x, the edges replicated."""
    return _activation(x_BxNxC, alpha_C, beta_C)


@jax.custom_vjp
def _activation(x_BxNxC: jax.Array, alpha_C: jax.Array, beta_C: jax.Array) -> jax.Array:
    frequency_C, gain_C = jnp.exp(alpha_C), 1 / (jnp.exp(beta_C) + EPSILON)
    phases = [u + jnp.square(_sine_cosine(u * frequency_C)[0]) * gain_C for u in _upsample(x_BxNxC)]
    even, odd = optimization_barrier([phase.astype(x_BxNxC.dtype) for phase in phases])
    first, last = even[:, :1], odd[:, -1:]
    even = jnp.concatenate([first] * 2 + [even] + [last] * 3, axis=1)
    odd = jnp.concatenate([first] * 3 + [odd] + [last] * 2, axis=1)
    even, odd = optimization_barrier((even, odd))
    return (_fir(even, ODD_TAPS) + _fir(odd, EVEN_TAPS)).astype(x_BxNxC.dtype)


def _forward(x_BxNxC: jax.Array, alpha_C: jax.Array, beta_C: jax.Array) -> tuple[jax.Array, tuple]:
    return _activation(x_BxNxC, alpha_C, beta_C), (x_BxNxC, alpha_C, beta_C)


def _backward(residuals: tuple, g_BxNxC: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x_BxNxC, alpha_C, beta_C = residuals
    samples = x_BxNxC.shape[1]

    # Through the low-pass. The first and the last sample also receive the gradients of their replicas.
    g_BxNxC = optimization_barrier(_pad_zeros(g_BxNxC, 5, 5))
    head, tail = g_BxNxC[:, :8], g_BxNxC[:, -8:]
    first_BxC = _fir(head, EVEN_TAPS)[:, :2].sum(1) + _fir(head, ODD_TAPS).sum(1)
    last_BxC = _fir(tail, EVEN_TAPS).sum(1) + _fir(tail, ODD_TAPS)[:, 1:].sum(1)
    g_even, g_odd = _fir(g_BxNxC[:, 2:-3], EVEN_TAPS), _fir(g_BxNxC[:, 3:-2], ODD_TAPS)
    u_even, u_odd = _upsample(x_BxNxC)
    u_even, u_odd, g_even, g_odd, first_BxC, last_BxC = optimization_barrier(
        (u_even, u_odd, g_even, g_odd, first_BxC, last_BxC)
    )
    position_Nx1 = np.arange(samples)[:, None]
    g_even += jnp.where(position_Nx1 == 0, first_BxC[:, None], 0)
    g_odd += jnp.where(position_Nx1 == samples - 1, last_BxC[:, None], 0)

    # Through the activation: d sin^2(uw) = sin(2uw) d(uw).
    frequency_C, gain_C = jnp.exp(alpha_C), 1 / (jnp.exp(beta_C) + EPSILON)
    d_frequency: Any = 0
    d_gain: Any = 0
    d_phases = []
    for u, g in ((u_even, g_even), (u_odd, g_odd)):
        sine, cosine = _sine_cosine(u * frequency_C)
        double = 2 * sine * cosine * g
        d_phases.append(g + double * frequency_C * gain_C)
        d_frequency += double * u
        d_gain += jnp.square(sine) * g
    *d_phases, d_frequency, d_gain = optimization_barrier((*d_phases, d_frequency, d_gain))
    d_alpha_C = jnp.sum(d_frequency, (0, 1)) * gain_C * frequency_C
    d_beta_C = -jnp.sum(d_gain, (0, 1)) * gain_C**2 * jnp.exp(beta_C)

    # Through the upsampling, whose edges are replicated too.
    d_even, d_odd = optimization_barrier((_pad_zeros(d_phases[0], 5, 6), _pad_zeros(d_phases[1], 6, 5)))
    d_BxNxC = optimization_barrier(2 * (_fir(d_even, ODD_TAPS) + _fir(d_odd, EVEN_TAPS)))
    d_x_BxNxC = d_BxNxC[:, 3:-3].at[:, 0].add(d_BxNxC[:, :3].sum(1)).at[:, -1].add(d_BxNxC[:, -3:].sum(1))
    return d_x_BxNxC.astype(x_BxNxC.dtype), d_alpha_C, d_beta_C


_activation.defvjp(_forward, _backward)


def _upsample(x_BxNxC: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Even and odd samples, each (B, N, C) float32, of x at twice the rate."""
    x_BxNxC = optimization_barrier(jnp.pad(x_BxNxC, ((0, 0), (3, 3), (0, 0)), mode="edge"))
    return 2 * _fir(x_BxNxC[:, :-1], EVEN_TAPS), 2 * _fir(x_BxNxC[:, 1:], ODD_TAPS)


def _fir(x_BxNxC: jax.Array, taps_K: np.ndarray) -> Any:
    """Correlation with the taps, (B, N - K + 1, C) float32."""
    samples = x_BxNxC.shape[1] - len(taps_K) + 1
    return sum(tap * x_BxNxC[:, k : k + samples].astype(jnp.float32) for k, tap in enumerate(taps_K))


def _pad_zeros(x_BxNxC: jax.Array, left: int, right: int) -> jax.Array:
    return jnp.pad(x_BxNxC, ((0, 0), (left, right), (0, 0)))


def _sine_cosine(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """sin and cos of x modulo pi: their common sign is lost. For |x| < 1e4, sin^2 and sin 2x are right to 5e-7."""
    turns = jnp.round(x * (1 / np.pi))
    r = (x - turns * 3.140625) - turns * (np.pi - 3.140625)  # the first product is exact
    r2 = r * r
    # Taylor series; the first terms left out are r^13 / 13! and r^14 / 14!, |r| <= pi / 2.
    sine = r * _polynomial(r2, [1, -1 / 6, 1 / 120, -1 / 5040, 1 / 362_880, -1 / 39_916_800])
    cosine = _polynomial(r2, [1, -1 / 2, 1 / 24, -1 / 720, 1 / 40_320, -1 / 3_628_800, 1 / 479_001_600])
    return sine, cosine


def _polynomial(x: jax.Array, coefficients: Sequence[float]) -> Any:
    total: Any = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
