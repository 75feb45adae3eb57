"""The stage `tune`: what a step moves, and when."""

import jax
import numpy as np
import pytest

from flashsr_jax.data.batches import make_iterator
from flashsr_jax.devices import sharding

from helpers.steps import config_of, programs_of


@pytest.fixture(scope="module")
def steps(dataset):
    """(the state before, after one step in which the discriminators learn alone, and after one of all), and metrics of
    both steps."""
    programs, frozen, mesh = programs_of("tune", dataset, 1, 1)
    config = config_of("tune", dataset)
    data = make_iterator(config.data, "train", batch_size=8, window_samples=32 * 480, seed=0)
    batch, key = sharding.to_global(next(data), mesh), jax.random.key(3)
    state = programs.init(frozen, key)
    states, metrics = [jax.device_get(state)], []
    for start in (0, config.discriminator_steps):
        state, measured = programs.step(state.replace(step=state.step * 0 + start), frozen, batch, key)
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(measured))
    return states, metrics


def unchanged(before, after):
    """Whether each array of a tree is the same."""
    return jax.tree.leaves(jax.tree.map(np.array_equal, before, after))


@pytest.mark.training
def test_discriminators_learn_alone_then_all_but_the_encoder_do(steps):
    (first, alone, together), _ = steps
    assert all(unchanged(first.params["tune"], alone.params["tune"]))
    assert all(unchanged(first.opt_state["tune"], alone.opt_state["tune"]))
    assert not any(unchanged(first.params["discriminator"], alone.params["discriminator"]))
    for network in ("vae", "unet", "vocoder"):
        moved = unchanged(alone.params["tune"][network], together.params["tune"][network])
        assert moved.count(False) > 0.9 * len(moved), network
        averaged = unchanged(first.weights["tune"][network], together.weights["tune"][network])
        assert averaged.count(False) > 0.9 * len(averaged), network
    assert all(unchanged(first.weights["encoder"], together.weights["encoder"]))
    assert {"encoder", "quant_conv"} == together.weights["encoder"].keys()
    assert not {"encoder", "quant_conv"} & together.params["tune"]["vae"].keys()


@pytest.mark.training
def test_every_loss_is_logged_and_the_rate_is_0_while_discriminators_learn_alone(steps):
    _, (alone, together) = steps
    terms = {"mel", "power", "decoded", "adversarial", "features", "discriminator", "loss"}
    assert terms <= alone.keys() == together.keys()
    assert all(np.isfinite(value) for measured in (alone, together) for value in measured.values())
    assert alone["grad_norm/tune"] == alone["learning_rate/tune"] == 0.0 < together["grad_norm/tune"]
