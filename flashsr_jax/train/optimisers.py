"""Optimizers and the schedules of learning rate, loss weights and EMA."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from ml_collections import ConfigDict
from optax.contrib import MuonDimensionNumbers

from flashsr_jax.errors import UserError

Tree = TypeVar("Tree")  # of arrays
SPENT = 0.01  # of a rate: what is left then teaches little
ADAMW_RMS = 0.2  # typical root mean square of AdamW's updates at rate 1


def learning_rate(config: ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up to `lr`, then by `config.schedule`, of a run of `steps`.

    exponential: `lr` times `decay` to the power of (steps since the warm-up) / `decay_steps`. cosine: half a period of
    it, from `lr` to `final` times that at the last of `updates` (Loshchilov & Hutter 2017, arXiv:1608.03983). wsd:
    `lr`, and in the last `cooldown` of the updates a straight line to `final` times that (Hu et al. 2024,
    arXiv:2404.06395; the line: Haegele et al. 2024, arXiv:2405.18392). Raises UserError for another schedule.
    """
    if config.schedule not in FACTORS:
        raise UserError(f"config.optimizer: schedule={config.schedule!r} is not one of {', '.join(FACTORS)}")
    factor = FACTORS[config.schedule]

    def rate(step: jax.Array) -> jax.Array:
        warm = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
        return config.lr * warm * factor(config, step, config.updates or steps)

    return rate


def _exponential(config: ConfigDict, step: jax.Array, updates: int) -> jax.Array:
    del updates
    return config.decay ** (jnp.maximum(step - config.warmup_steps, 0) / config.decay_steps)


def _cosine(config: ConfigDict, step: jax.Array, updates: int) -> jax.Array:
    done = jnp.clip((step - config.warmup_steps) / max(updates - config.warmup_steps, 1), 0.0, 1.0)
    return config.final + (1.0 - config.final) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))


def _warmup_stable_decay(config: ConfigDict, step: jax.Array, updates: int) -> jax.Array:
    falling = max(config.cooldown * updates, 1.0)
    done = jnp.clip((step - (updates - falling)) / falling, 0.0, 1.0)
    return 1.0 - (1.0 - config.final) * done


def spent_rates(config: ConfigDict, steps: int) -> Iterator[str]:
    """A line for each role whose exponential rate is all but gone before a run of `steps` ends: a preset's fall is
    meant for its own number of steps."""
    for role, section in config.items():
        if section.schedule == "exponential" and section.decay < 1.0:
            spent = section.warmup_steps + int(section.decay_steps * math.log(SPENT) / math.log(section.decay))
            if spent < steps:
                yield (
                    f"config.optimizer.{role}: from step {spent} of {steps} on its rate is under a hundredth of "
                    f"lr={section.lr:g} (decay={section.decay:g} every {section.decay_steps} steps): a larger "
                    "decay_steps, or schedule=cosine, which falls over the whole run"
                )


FACTORS = {"exponential": _exponential, "cosine": _cosine, "wsd": _warmup_stable_decay}


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """`config.kind`, `adamw` or `muon`, after clipping gradients to a global norm of `clip_norm`; of a run of `steps`.

    AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101. Muon orthogonalises the momentum of every kernel (Jordan et al.
    2024, https://kellerjordan.github.io/posts/muon), scaled to the size of AdamW's updates so that the two share a rate
    (Liu et al. 2025, arXiv:2502.16982); biases and gains stay with Adam. Raises UserError for another kind.
    """
    b1, b2 = config.betas
    rate = learning_rate(config, steps)
    if config.kind == "adamw":
        optimizer = optax.adamw(rate, b1=b1, b2=b2, weight_decay=config.weight_decay)
    elif config.kind == "muon":
        optimizer = optax.contrib.muon(
            rate,
            weight_decay=config.weight_decay,
            consistent_rms=ADAMW_RMS,
            muon_weight_dimension_numbers=_kernels_as_matrices,
            adam_b1=b1,
            adam_b2=b2,
        )
    else:
        raise UserError(f"config.optimizer: kind={config.kind!r} is not one of adamw, muon")
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


def _kernels_as_matrices(params: dict) -> dict:
    """For Muon: kernels (..., I, O) as matrices with all but the outputs as rows; None for what is no kernel."""

    def matrix(path: tuple, leaf: jax.Array) -> MuonDimensionNumbers | None:
        is_kernel = path[-1].key in ("kernel", "v") and leaf.ndim >= 2
        return MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,)) if is_kernel else None

    return jax.tree_util.tree_map_with_path(matrix, params)


def by_phase(values: Sequence[float] | np.ndarray, boundaries: Sequence[int], step: jax.Array) -> jax.Array:
    """The value (or row of values) of the phase that `step` is in; phase i ends before boundaries[i].

    Raises UserError unless there is one value more than boundaries.
    """
    if len(values) != len(boundaries) + 1:
        raise UserError(
            f"{len(values)} phase values {tuple(values)} for {len(boundaries)} boundaries {tuple(boundaries)}: "
            "give config.phases one boundary less than every loss weight has values"
        )
    phase = jnp.sum(step >= jnp.asarray(boundaries, jnp.int32))
    return jnp.asarray(values, jnp.float32)[phase]


def update_ema(ema: Tree, params: Tree, step: jax.Array, decay: float) -> Tree:
    """Exponential moving average with decay min(`decay`, (1 + n) / (10 + n)) after n steps."""
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda average, value: average + rate * (value - average), ema, params)
