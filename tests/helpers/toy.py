"""A stage of one number, which compiles at once: for tests of what goes on around the stages' steps.

The number follows the loudness of the windows. `broken` are the steps in which its gradient is not finite; `role` is
what it trains, and `metric` what its evaluation measures, for runs of another stage than the VAE's.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp

from flashsr_jax.train.batch import prepare
from flashsr_jax.train.state import apply_gradients, create, finish_step

from helpers import micro


def toy_config(dataset, **changes):
    """The configuration of such a run, of 12 steps; evaluation, which draws pictures, only at the end."""
    config = micro.get_config("vae")
    config.data.dir = str(dataset)
    config.best_metric, config.optimizer = "error", {"vae": config.optimizer.vae}
    config.eval.every = 100
    config.update(changes)
    return config


def toy_stage(broken: tuple[int, ...] = (), role: str = "vae", metric: str = "error") -> SimpleNamespace:
    """What the loop takes in place of the module of a stage."""

    def init(config, frozen, key):
        return create(config, {role: {"number": jax.random.normal(key)}}, role)

    def train_step(config, state, frozen, batch, key):
        windows, metrics = prepare(batch)
        poison = jnp.where(jnp.isin(state.step + 1, jnp.array(broken)), jnp.nan, 1.0)

        def loss(params):
            return jnp.square(params["number"] * poison - jnp.std(windows.hr) - 0.1 * jax.random.normal(key))

        value, gradients = jax.value_and_grad(loss)(state.params[role])
        state, norm = apply_gradients(config, state, role, gradients)
        return finish_step(config, state, role), metrics | {"loss": value, **norm}

    def eval_step(config, weights, frozen, batch, key):
        count = batch["hr"].shape[0]
        error = jnp.full(count, jnp.abs(weights[role]["number"]))
        return {"metrics": {metric: error}, "mels": jnp.zeros((count, 3, 32, 32))}

    return SimpleNamespace(needs=lambda config: {}, init=init, train_step=train_step, eval_step=eval_step)
