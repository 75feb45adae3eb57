"""Where the one-step student and its teacher's solve begin: a step of the teacher's grid, drawn from a mixture of modes
whose weights each phase of the training has its own of.

Flash Diffusion (Chadebec et al. 2025, arXiv:2406.02347), section 3.2.
Letters: B batch, K steps of the teacher's grid; latents are (B, T, F, C).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flashsr_jax.models.diffusion import SolverGrid, q_sample, solver_grid
from flashsr_jax.train.optimisers import by_phase


class Start(NamedTuple):
    """The teacher's grid; the index of the first step in it, one for the whole batch and traced, so that one program
    serves them all; its timestep for each example, and the noisy latents there."""

    grid: SolverGrid
    first: jax.Array
    t_B: jax.Array
    z: jax.Array


def draw_start(config: ConfigDict, step: jax.Array, z0: jax.Array, key_start: jax.Array, key_noise: jax.Array) -> Start:
    """A start of the current phase's mixture; at the grid's first step pure noise, else noised latents."""
    grid = solver_grid(config.teacher_steps)
    first = draw_first(config, key_start, step)
    t_B = jnp.full(z0.shape[:1], jnp.asarray(grid.timesteps)[first])
    noise = jax.random.normal(key_noise, z0.shape)
    return Start(grid, first, t_B, jnp.where(first == 0, noise, q_sample(z0, t_B, noise)))


def draw_first(config: ConfigDict, key: jax.Array, step: jax.Array) -> jax.Array:
    """Index into the teacher's grid where this batch starts, drawn from the current phase's mixture."""
    probabilities = start_probabilities(config.teacher_steps, config.start_modes)
    return jax.random.choice(key, config.teacher_steps, p=by_phase(probabilities, config.phases, step))


def start_probabilities(steps: int, mode_weights: Sequence[Sequence[float]]) -> np.ndarray:
    """Probability (phases, K) of each start step: modes at every (K / modes)-th step, of width exp(-d^2 / 0.5).

    `mode_weights` is (phases, modes), noisiest mode first. Each mode is normalised over the K steps by itself, so that
    the first, which the grid's edge cuts in half, keeps its weight.
    """
    weights = np.asarray(mode_weights, np.float64)
    modes = np.arange(weights.shape[1]) * steps / weights.shape[1]
    bumps = np.exp(-np.square(np.arange(steps) - modes[:, None]) / 0.5)
    return weights @ (bumps / bumps.sum(axis=1, keepdims=True))


def mean_solver_steps(config: ConfigDict) -> np.ndarray:
    """Steps that the teacher's solve takes on average in each phase, (phases,)."""
    probabilities = start_probabilities(config.teacher_steps, config.start_modes)
    return config.teacher_steps - probabilities @ np.arange(config.teacher_steps)
