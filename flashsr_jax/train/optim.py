"""Optimizers and the schedules of learning rate, loss weights and EMA."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from flashsr_jax.errors import UserError


def learning_rate(config) -> optax.Schedule:
    """Linear warm-up to `lr`, then `lr` times `decay` to the power of (steps since) / `decay_steps`."""

    def rate(step):
        warm = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
        return config.lr * warm * config.decay ** (jnp.maximum(step - config.warmup_steps, 0) / config.decay_steps)

    return rate


def make_optimizer(config) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) after clipping the gradients to a global norm of `clip_norm`."""
    b1, b2 = config.betas
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(learning_rate(config), b1=b1, b2=b2, weight_decay=config.weight_decay),
    )


def by_phase(values: Sequence[float], boundaries: Sequence[int], step: jax.Array) -> jax.Array:
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


def update_ema(ema, params, step: jax.Array, decay: float):
    """Exponential moving average with decay min(`decay`, (1 + n) / (10 + n)) after n steps."""
    rate = 1.0 - jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda average, value: average + rate * (value - average), ema, params)
