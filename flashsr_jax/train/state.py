"""What a training run carries from step to step, by role (`vocoder`, `discriminator`, `student`, `head` ...), and how a
step moves it: gradients of a batch, at once or in parts (config.accumulate), and an optimizer's update of each role.

Letters: B batch.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.train.logs import COUNTS
from flashsr_jax.train.optimisers import learning_rate, make_optimizer, update_ema


class TrainState(flax.struct.PyTreeNode):
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


class Gradients(NamedTuple):
    """Of a batch, or of a part of it.

    of_role: {role: gradient}, of the mean over the examples that count. metrics: what there is to log. examples: how
    many count. made: arrays (B, ...) of the examples, for what comes after.
    """

    of_role: dict[str, Any]
    metrics: dict[str, jax.Array]
    examples: jax.Array
    made: Any = None


def gradient(
    state: TrainState,
    role: str,
    loss: Callable[[dict], tuple[jax.Array, dict, Any]],
    name: str,
    when: jax.Array | None = None,
) -> tuple[dict, dict[str, jax.Array], Any]:
    """The gradient of `loss(params) -> (value, terms, made)` on a role's parameters.

    Returns it, what there is to log (the value as `name`, and its terms), and whatever else the loss has made. Where
    `when`, a scalar, is False the gradient is 0, without the backward pass.
    """

    def with_auxiliaries(params: dict) -> tuple[jax.Array, tuple[dict, Any]]:
        value, terms, made = loss(params)
        return value, (terms, made)

    value, pull_back, (terms, made) = jax.vjp(with_auxiliaries, state.params[role], has_aux=True)

    def backward() -> dict:
        return pull_back(jnp.ones_like(value))[0]

    def nothing() -> dict:
        return jax.tree.map(jnp.zeros_like, state.params[role])

    return backward() if when is None else lax.cond(when, backward, nothing), {name: value, **terms}, made


def descend(
    config: ConfigDict,
    state: TrainState,
    gradients: Callable[[Any, jax.Array], Gradients],
    batch: Any,
    key: jax.Array,
    when: Mapping[str, jax.Array] | None = None,
) -> tuple[TrainState, dict[str, jax.Array], Any]:
    """One optimizer update of each role that `gradients(batch, key)` has one for; `when`, by role, as `apply_gradients`
    takes it. Returns the state, what there is to log, and what `gradients` has made."""
    found = accumulated(config.accumulate, gradients, batch, key)
    metrics = found.metrics
    for role, of_role in found.of_role.items():
        state, norm = apply_gradients(config, state, role, of_role, (when or {}).get(role))
        metrics = metrics | norm
    return state, metrics, found.made


def accumulated(parts: int, gradients: Callable[[Any, jax.Array], Gradients], batch: Any, key: jax.Array) -> Gradients:
    """`gradients(batch, key)` of arrays (B, ...), one of so many parts after the other, so that only one part's
    activations live at a time: their mean, each as much as it has examples that count.

    As of the whole batch, but for what each part draws from its own key. Part i has the examples i, i + parts, ...: the
    same number on each device that the batch is split over, and none moves.
    """
    if parts == 1:
        return gradients(batch, key)
    split = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch)

    def weighed(part: Any, key: jax.Array) -> tuple[Gradients, Any]:
        found = gradients(part, key)
        of_role = jax.tree.map(lambda x: x * found.examples, found.of_role)
        metrics = {name: x if name.startswith(COUNTS) else x * found.examples for name, x in found.metrics.items()}
        return Gradients(of_role, metrics, found.examples), found.made

    def add(total: Gradients, part_key: tuple) -> tuple[Gradients, Any]:
        part, made = weighed(*part_key)
        return jax.tree.map(jnp.add, total, part), made

    first = jax.tree.map(lambda x: x[0], split)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(weighed, first, key)[0])
    total, made = lax.scan(add, zeros, (split, jax.random.split(key, parts)))
    count = jnp.maximum(total.examples, 1.0)
    of_role = jax.tree.map(lambda x: x / count, total.of_role)
    metrics = {name: x if name.startswith(COUNTS) else x / count for name, x in total.metrics.items()}
    joined = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), made)
    return Gradients(of_role, metrics, total.examples, joined)


def apply_gradients(
    config: ConfigDict, state: TrainState, role: str, gradients: dict, when: jax.Array | None = None
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer update of one role. Returns the state, and the role's gradient norm before clipping and rate.

    A role's schedule counts its own updates, not the run's steps. Where `when`, a scalar, is False there is no update,
    and norm and rate are 0.
    """
    names = f"grad_norm/{role}", f"learning_rate/{role}"

    def update() -> tuple[TrainState, dict[str, jax.Array]]:
        (_, updates_before), *_ = optax.tree_utils.tree_get_all_with_path(state.opt_state[role], "count")
        optimizer = make_optimizer(config.optimizer[role], config.steps)
        updates, opt_state = optimizer.update(gradients, state.opt_state[role], state.params[role])
        params = optax.apply_updates(state.params[role], updates)
        after = state.replace(params={**state.params, role: params}, opt_state={**state.opt_state, role: opt_state})
        rate = learning_rate(config.optimizer[role], config.steps)(updates_before)
        return after, dict(zip(names, (optax.global_norm(gradients), rate), strict=True))

    def keep() -> tuple[TrainState, dict[str, jax.Array]]:
        return state, dict.fromkeys(names, jnp.zeros(()))

    return update() if when is None else lax.cond(when, update, keep)


def finish_step(config: ConfigDict, state: TrainState, exported: str) -> TrainState:
    """Update the exported EMA and advance the step counter."""
    ema = update_ema(state.weights[exported], state.params[exported], state.step, config.ema_decay)
    return state.replace(step=state.step + 1, weights={**state.weights, exported: ema})
