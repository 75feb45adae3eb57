"""What a training run carries from step to step, by role (`generator`, `discriminator`, `student`, `head` ...)."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from flashsr_jax.train.optimisers import learning_rate, make_optimizer, update_ema


@flax.struct.dataclass
class TrainState:
    """Step counter; parameters and optimizer state by role; EMA and measured constants, which are what is exported."""

    step: jax.Array
    params: dict
    opt_state: dict
    weights: dict  # {network: EMA of its parameters}, and constants such as the VAE's scale factor


def create(config, params: dict, exported: str, constants: dict | None = None) -> TrainState:
    """A state at step 0. `exported` is the role whose EMA is kept; `constants` go beside it."""
    opt_state = {role: make_optimizer(config.optimizer[role]).init(tree) for role, tree in params.items()}
    ema = jax.tree.map(jnp.copy, params[exported])
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, {exported: ema, **(constants or {})})


def apply_gradients(config, state: TrainState, role: str, gradients) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer update of one role. Returns the state, and the role's gradient norm before clipping and rate."""
    updates, opt_state = make_optimizer(config.optimizer[role]).update(
        gradients, state.opt_state[role], state.params[role]
    )
    params = optax.apply_updates(state.params[role], updates)
    state = state.replace(params={**state.params, role: params}, opt_state={**state.opt_state, role: opt_state})
    rate = learning_rate(config.optimizer[role])(state.step)
    return state, {f"grad_norm/{role}": optax.global_norm(gradients), f"learning_rate/{role}": rate}


def finish_step(config, state: TrainState, exported: str) -> TrainState:
    """Update the exported EMA and advance the step counter."""
    ema = update_ema(state.weights[exported], state.params[exported], state.step, config.ema_decay)
    return state.replace(step=state.step + 1, weights={**state.weights, exported: ema})


def if_finite(before: TrainState, after: TrainState, metrics: dict[str, jax.Array]) -> TrainState:
    """`after`, or where any of the metrics, gradient norms among them, is not finite, `before` one step on."""
    finite = jnp.all(jnp.isfinite(jnp.stack([jnp.asarray(value, jnp.float32) for value in metrics.values()])))
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    return kept.replace(step=after.step)
