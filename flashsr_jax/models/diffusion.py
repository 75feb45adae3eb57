"""The diffusion process on latents: schedule, conversions between v, z0 and noise, guidance and DPM-Solver++.

Letters: B batch, T and F latent time and frequency, C latent channels, K steps of a solver's grid.
Timesteps are the integers 0..999; 999 is pure noise. All networks predict v (Salimans & Ho, 2022, arXiv:2202.00512):
z_t = alpha_t z0 + sigma_t eps, v = alpha_t eps - sigma_t z0.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flashsr_jax.errors import UserError

STEPS = 1000
PUBLISHED_SCALE_FACTOR = 0.3342  # latents as the published U-Net sees them = scale factor x the VAE's
UNCONDITIONAL = -11.4981 * PUBLISHED_SCALE_FACTOR  # the constant latent that stands for "no condition", as published


class Schedule(NamedTuple):
    """float64 arrays of shape (1000,): betas, cumulative products, and their signal and noise amplitudes."""

    beta: np.ndarray
    alpha_bar: np.ndarray
    alpha: np.ndarray  # sqrt(alpha_bar)
    sigma: np.ndarray  # sqrt(1 - alpha_bar)


@functools.cache
def schedule() -> Schedule:
    """The cosine schedule of the published checkpoints (Nichol & Dhariwal 2021, eq. 17, on a grid of 1001 points).

    In float64: in float32, alpha_bar near t = 999 (2.4e-9) is wrong by 1e-4 of itself.
    """
    u = np.linspace(0, STEPS + 1, STEPS + 1) / (STEPS + 1)
    f = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    cosine = f / f[0]
    beta = np.clip(1 - cosine[1:] / cosine[:-1], 0, 0.999)
    alpha_bar = np.cumprod(1 - beta)
    return Schedule(beta, alpha_bar, np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))


def amplitudes(t_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(alpha_t, sigma_t) at integer timesteps (B,), each (B, 1, 1, 1) float32, ready to scale latents."""
    table = schedule()
    alpha = jnp.asarray(table.alpha, jnp.float32)[t_B]
    sigma = jnp.asarray(table.sigma, jnp.float32)[t_B]
    return alpha[:, None, None, None], sigma[:, None, None, None]


def q_sample(z0: jax.Array, t_B: jax.Array, eps: jax.Array) -> jax.Array:
    """z_t of the forward process from clean latents and standard normal noise, all (B, T, F, C)."""
    alpha, sigma = amplitudes(t_B)
    return alpha * z0 + sigma * eps


def velocity(z0: jax.Array, t_B: jax.Array, eps: jax.Array) -> jax.Array:
    """The v-prediction target, alpha_t eps - sigma_t z0."""
    alpha, sigma = amplitudes(t_B)
    return alpha * eps - sigma * z0


def z0_from_v(z_t: jax.Array, t_B: jax.Array, v: jax.Array) -> jax.Array:
    """The clean latents that a v-prediction implies, alpha_t z_t - sigma_t v."""
    alpha, sigma = amplitudes(t_B)
    return alpha * z_t - sigma * v


def consistency_scalings(t_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(c_skip, c_out) of a consistency model's boundary condition, each (B, 1, 1, 1): identity at t = 0.

    sigma_data 0.5 and timesteps divided by 0.1, as latent consistency models use (Luo et al. 2023, arXiv:2310.04378).
    """
    scaled = t_B[:, None, None, None].astype(jnp.float32) / 0.1
    return 0.25 / (jnp.square(scaled) + 0.25), scaled / jnp.sqrt(jnp.square(scaled) + 0.25)


def guided_v(
    apply: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    z: jax.Array,
    cond: jax.Array,
    t_B: jax.Array,
    scale: jax.Array | float,
) -> jax.Array:
    """Classifier-free guidance: v_u + s (v_c - v_u), both branches in one evaluation of twice the batch.

    `apply(z, cond, t_B)` is the network, which knows `UNCONDITIONAL` as "no condition". The two branches are
    interleaved along the batch, so that a batch sharded over devices stays where it is.
    """
    batch = z.shape[0]

    def interleave(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.stack([a, b], axis=1).reshape(2 * batch, *a.shape[1:])

    v = apply(interleave(z, z), interleave(cond, jnp.full_like(cond, UNCONDITIONAL)), interleave(t_B, t_B))
    v = v.reshape(batch, 2, *z.shape[1:])
    return v[:, 1] + scale * (v[:, 0] - v[:, 1])


class SolverGrid(NamedTuple):
    """DPM-Solver++(2M) coefficients on K timesteps, each (K,): z <- carry z + gain (x0 + slope (x0 - x0_prev))."""

    timesteps: np.ndarray  # int32
    carry: np.ndarray
    gain: np.ndarray
    slope: np.ndarray


@functools.cache
def solver_grid(steps: int) -> SolverGrid:
    """Coefficients for `steps` trailing-spaced timesteps round(arange(1000, 0, -1000 / steps)) - 1, ending at sigma 0.

    DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), algorithm 2, midpoint form, data prediction; first order for the
    first and the last step. Raises UserError unless 1 <= steps <= 1000.
    """
    if not 1 <= steps <= STEPS:
        raise UserError(f"sampling steps must be between 1 and {STEPS}, got {steps}")
    timesteps = (np.round(np.arange(STEPS, 0, -STEPS / steps)) - 1).astype(np.int32)[:steps]
    table = schedule()
    alpha, sigma = table.alpha[timesteps], table.sigma[timesteps]
    h = np.diff(np.log(alpha) - np.log(sigma))
    carry = np.append(sigma[1:] / sigma[:-1], 0.0)
    gain = np.append(-alpha[1:] * np.expm1(-h), 1.0)
    slope = np.zeros(steps)
    slope[1:-1] = h[1:] / (2 * h[:-1])  # 1 / (2 r0), r0 = h_prev / h
    return SolverGrid(timesteps, carry, gain, slope)


def solve(predict_v: Callable, z: jax.Array, grid: SolverGrid, start: jax.Array | int = 0) -> jax.Array:
    """Integrate from z at grid.timesteps[start] down to clean latents (B, T, F, C).

    `predict_v(z, t_B)` is the (guided) network. `start` may be traced: one compiled program serves every start step,
    and only the steps that remain are evaluated.
    """
    timesteps, carry, gain, slope = (jnp.asarray(x, jnp.int32 if x.dtype == np.int32 else jnp.float32) for x in grid)

    def step(k: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        z, x0_prev = state
        t_B = jnp.full((z.shape[0],), timesteps[k])
        x0 = z0_from_v(z, t_B, predict_v(z, t_B))
        first_order = k == start
        data = x0 + jnp.where(first_order, 0.0, slope[k]) * (x0 - x0_prev)
        return carry[k] * z + gain[k] * data, x0

    z, _ = jax.lax.fori_loop(start, len(grid.timesteps), step, (z, jnp.zeros_like(z)))
    return z
