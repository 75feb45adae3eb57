"""What a training run carries from step to step, by role (`generator`, `discriminator`, `student`, `head` ...)."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.train.optimisers import learning_rate, make_optimizer, update_ema


@flax.struct.dataclass
class TrainState:
    """Step counter; parameters and optimizer state by role; EMA and measured constants, which are what is exported."""

    step: jax.Array
    params: dict
    opt_state: dict
    weights: dict  # {network: EMA of its parameters}, and constants such as the VAE's scale factor


def create(config: ConfigDict, params: dict, exported: str, constants: dict | None = None) -> TrainState:
    """A state at step 0. `exported` is the role whose EMA is kept; `constants` go beside it."""
    optimizers = {role: make_optimizer(config.optimizer[role], config.steps) for role in params}
    opt_state = {role: optimizers[role].init(tree) for role, tree in params.items()}
    ema = jax.tree.map(jnp.copy, params[exported])
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, {exported: ema, **(constants or {})})


def descend(
    config: ConfigDict,
    state: TrainState,
    role: str,
    loss: Callable[[dict], tuple[jax.Array, dict, Any]],
    name: str,
    when: jax.Array | None = None,
) -> tuple[TrainState, dict[str, jax.Array], Any]:
    """One optimizer update of one role down the gradient of `loss(params) -> (value, terms, made)`.

    Returns the state, what there is to log (the value as `name`, its terms, the role's gradient norm and rate), and
    whatever else the loss has made. Where `when`, a scalar, is False there is no update, nor the backward pass to it,
    and norm and rate are 0.
    """

    def with_auxiliaries(params: dict) -> tuple[jax.Array, tuple[dict, Any]]:
        value, terms, made = loss(params)
        return value, (terms, made)

    value, pull_back, (terms, made) = jax.vjp(with_auxiliaries, state.params[role], has_aux=True)

    def update() -> tuple[TrainState, dict[str, jax.Array]]:
        (gradients,) = pull_back(jnp.ones_like(value))
        return apply_gradients(config, state, role, gradients)

    def keep() -> tuple[TrainState, dict[str, jax.Array]]:
        return state, dict.fromkeys((f"grad_norm/{role}", f"learning_rate/{role}"), jnp.zeros(()))

    state, norm = update() if when is None else lax.cond(when, update, keep)
    return state, {name: value, **terms, **norm}, made


def apply_gradients(
    config: ConfigDict, state: TrainState, role: str, gradients: dict
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer update of one role. Returns the state, and the role's gradient norm before clipping and rate.

    A role's schedule counts its own updates, not the run's steps.
    """
    (_, updates_before), *_ = optax.tree_utils.tree_get_all_with_path(state.opt_state[role], "count")
    updates, opt_state = make_optimizer(config.optimizer[role], config.steps).update(
        gradients, state.opt_state[role], state.params[role]
    )
    params = optax.apply_updates(state.params[role], updates)
    state = state.replace(params={**state.params, role: params}, opt_state={**state.opt_state, role: opt_state})
    rate = learning_rate(config.optimizer[role], config.steps)(updates_before)
    return state, {f"grad_norm/{role}": optax.global_norm(gradients), f"learning_rate/{role}": rate}


def finish_step(config: ConfigDict, state: TrainState, exported: str) -> TrainState:
    """Update the exported EMA and advance the step counter."""
    ema = update_ema(state.weights[exported], state.params[exported], state.step, config.ema_decay)
    return state.replace(step=state.step + 1, weights={**state.weights, exported: ema})
