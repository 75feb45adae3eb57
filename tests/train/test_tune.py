"""The stage `tune`: what its steps move, and when; and that its run holds all three networks."""

import functools

import jax
import numpy as np
import pytest

from flashsr_jax.cli import main as flashsr
from flashsr_jax.cost.plan.run import batch_shapes
from flashsr_jax.errors import UserError
from flashsr_jax.models.networks import NETWORKS
from flashsr_jax.runs.checkpoint import load_tree
from flashsr_jax.train.frozen import model_of
from flashsr_jax.train.stages import tune
from flashsr_jax.weights.store import load_weights, save_weights

from helpers import micro
from helpers.steps import frozen_of
from helpers.training import checkpoint, logged, run

ALONE, STEPS = 3, 5  # steps of the discriminators alone (helpers/micro.py), and of all


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A weights file of random networks to start from."""
    path, frozen = tmp_path_factory.mktemp("given") / "given.safetensors", frozen_of("tune")
    params = {
        "vae": frozen["vae"],
        "unet": frozen["init"],
        "vocoder": frozen["vocoder"],
        "scale_factor": np.float32(0.5),
    }
    save_weights(path, model_of(micro.get_config("tune")), params)
    return path


@pytest.fixture(scope="module")
def tuned(given, dataset, tmp_path_factory):
    """The folder of a run with a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("tune")
    sources = [f"--config.{role}_from={given}" for role in ("vae", "init", "vocoder")]
    options = [f"--config.steps={STEPS}", f"--config.eval.every={STEPS}", "--config.log_every=1"]
    options += ["--config.checkpoint.every=1", f"--config.checkpoint.keep_last={STEPS}"]
    code, stderr = run("tune", folder, dataset, *sources, *options)
    assert code == 0, stderr
    return folder


def unchanged(before, after):
    """Whether each array of a tree is the same."""
    return jax.tree.leaves(jax.tree.map(np.array_equal, before, after))


@pytest.mark.training
def test_discriminators_learn_alone_then_all_but_the_encoder_do(tuned, given):
    first, alone, together = (checkpoint(tuned, step)[0] for step in (1, ALONE, STEPS))
    assert all(unchanged(first["state"]["params"]["tune"], alone["state"]["params"]["tune"]))
    assert all(unchanged(first["state"]["opt_state"]["tune"], alone["state"]["opt_state"]["tune"]))
    judges = unchanged(first["state"]["params"]["discriminator"], alone["state"]["params"]["discriminator"])
    assert judges.count(True) < 0.1 * len(judges)
    for network in NETWORKS:
        for tree in (lambda state: state["state"]["params"], lambda state: state["weights"]):
            same = unchanged(tree(alone)["tune"][network], tree(together)["tune"][network])
            assert same.count(True) < 0.1 * len(same), network
    encoder = {"encoder", "quant_conv"}
    assert not encoder & together["state"]["params"]["tune"]["vae"].keys(), "nor does it take the optimizer's memory"
    before = load_weights(given).params["vae"]
    assert all(unchanged({name: before[name] for name in encoder}, together["weights"]["encoder"]))


@pytest.mark.training
def test_every_loss_is_logged_and_the_rate_is_0_while_discriminators_learn_alone(tuned):
    training = [line for line in logged(tuned) if line["kind"] == "train"]
    terms = {"mel", "power", "decoded", "adversarial", "features", "discriminator", "loss", "grad_norm/discriminator"}
    assert all(terms <= line.keys() and np.isfinite(line["loss"]) for line in training)
    assert [line["grad_norm/tune"] > 0 for line in training] == [False] * ALONE + [True] * (STEPS - ALONE)
    assert [line["learning_rate/tune"] > 0 for line in training] == [False] * ALONE + [True] * (STEPS - ALONE)
    assert {"mel_l1_hf", "lsd", "loud_band_gain_db"} <= logged(tuned)[-1].keys()


@pytest.mark.training
def test_its_run_is_packed_and_exported_as_all_three_networks(tuned, given, tmp_path):
    arguments = [word for network in NETWORKS for word in (f"--{network}", str(tuned))]
    assert flashsr(["weights", "pack", *arguments, "-o", str(tmp_path / "tuned.safetensors")]) == 0
    packed = load_weights(tmp_path / "tuned.safetensors")
    assert packed.metadata == dict.fromkeys(NETWORKS, f"tune, step {STEPS}")
    before = load_weights(given)
    for network in NETWORKS:
        same = unchanged(before.params[network], packed.params[network])
        assert (same.count(True) > 0.3 * len(same)) == (network == "vae"), "the encoder alone is as it was"
    assert packed.params["scale_factor"] == 0.5
    assert flashsr(["weights", "export", str(tuned), "--to", "orbax", "-o", str(tmp_path / "orbax")]) == 0
    assert all(unchanged(load_tree(tmp_path / "orbax"), packed.params))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_frames": 40}, "config.decoder_frames=40: give a multiple of 2, and at most the 32"),
        ({"decoder_frames": 15}, "config.decoder_frames=15: give a multiple of 2"),
        ({"crop_frames": 17}, "config.crop_frames=17 does not fit into 16 frames"),
    ],
)
def test_stretches_that_do_not_fit_are_mistakes(changes, message):
    config = micro.get_config("tune")
    config.update(changes)
    frozen, key = frozen_of("tune"), jax.random.key(0)
    state = jax.eval_shape(functools.partial(tune.init, config), frozen, key)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(functools.partial(tune.train_step, config), state, frozen, batch_shapes(config, 2), key)
