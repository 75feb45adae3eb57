"""Anti-aliased SnakeBeta: x2 upsampling, periodic activation, low-pass, x2 decimation.

Letters: B batch, N samples, C channels. Source: BigVGAN (Lee et al., ICLR 2023, arXiv:2206.04658), section 3.2;
the filters are StyleGAN3's alias-free ones (Karras et al., arXiv:2106.12423) in 12 taps.
"""

import jax
import jax.numpy as jnp
import numpy as np

TAPS = 12
EPSILON = 1e-9


def lowpass_filter() -> np.ndarray:
    """Half-band Kaiser-windowed sinc of 12 taps and unit sum, float32."""
    attenuation = 2.285 * (TAPS / 2 - 1) * np.pi * 1.2 + 7.95
    beta = 0.1102 * (attenuation - 8.7)
    t = np.arange(TAPS) - (TAPS - 1) / 2
    taps = 0.5 * np.sinc(0.5 * t) * np.kaiser(TAPS, beta)
    return (taps / taps.sum()).astype(np.float32)


FILTER = lowpass_filter()
EVEN_TAPS, ODD_TAPS = FILTER[0::2], FILTER[1::2]


def snake_beta(x, alpha_C, beta_C):
    return x + jnp.square(jnp.sin(x * jnp.exp(alpha_C))) / (jnp.exp(beta_C) + EPSILON)


def fir(x_BxNxC, taps):
    samples = x_BxNxC.shape[1] - len(taps) + 1
    return sum(tap * x_BxNxC[:, j : j + samples] for j, tap in enumerate(taps))


def antialiased_snake_beta(x_BxNxC: jax.Array, alpha_C: jax.Array, beta_C: jax.Array) -> jax.Array:
    padded = jnp.pad(x_BxNxC, ((0, 0), (3, 3), (0, 0)), mode="edge")
    even = snake_beta(fir(padded[:, :-1], 2 * ODD_TAPS[::-1]), alpha_C, beta_C)
    odd = snake_beta(fir(padded[:, 1:], 2 * EVEN_TAPS[::-1]), alpha_C, beta_C)
    first, last = even[:, :1], odd[:, -1:]
    even = jnp.concatenate([first] * 2 + [even] + [last] * 3, axis=1)
    odd = jnp.concatenate([first] * 3 + [odd] + [last] * 2, axis=1)
    return fir(even, ODD_TAPS) + fir(odd, EVEN_TAPS)
