"""Every stage traces at the sizes that no other test trains: nothing is compiled, no parameter is held. And `small` is
what the shipped model was trained with."""

import functools
import json
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.audio import HOP
from flashsr_jax.audio.lowpass import LowpassFilter, filter_arrays
from flashsr_jax.errors import UserError
from flashsr_jax.models.networks import parameter_shapes
from flashsr_jax.runs.folder import flattened
from flashsr_jax.runs.networks import NETWORKS_OF_STAGE
from flashsr_jax.train.frozen import model_of
from flashsr_jax.train.stages import STAGES

from helpers import ROOT
from helpers.configs import get_config


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        pytest.param("small", True, marks=pytest.mark.training),
        pytest.param("base", False, marks=pytest.mark.full),
        pytest.param("base", True, marks=pytest.mark.slow),
    ],
)
def test_all_stages_trace(preset, options):
    """As they are configured; with `options`, with the losses, too, that the configurations leave out."""
    key = jax.random.key(0)
    frozen = {"scale_factor": jax.ShapeDtypeStruct((), jnp.float32)}
    for stage in ("vae", "regression", "teacher", "student", "vocoder", "tune"):
        config = get_config(stage, preset)
        if stage == "student" and options:
            config.fake_score = "separate"
            config.losses.update(dict.fromkeys(("distill_mel", "waveform", "features"), (1.0,) * 4))
            frozen["vocoder"] = parameter_shapes(model_of(config), "vocoder")
        if stage == "vocoder":
            config.mel_source = "student"
        if stage == "tune":
            frozen["init"] = frozen["regression"]
        samples = config.data.window_frames * HOP
        one = {
            "filter": filter_arrays(LowpassFilter("bessel", 10, 4000.0)),
            "cutoff_hz": np.float32(4000),
            "bandwidth_hz": np.float32(24000),
            "class_id": np.int32(0),
        }
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *np.shape(x)), jnp.asarray(x).dtype), one)
        batch["hr"] = jax.ShapeDtypeStruct((2, samples), jnp.float32)
        state = jax.eval_shape(functools.partial(STAGES[stage].init, config), frozen, key)
        after, metrics = jax.eval_shape(functools.partial(STAGES[stage].train_step, config), state, frozen, batch, key)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
        assert all(value.shape == () for value in metrics.values())
        assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(after.params))
        frozen[stage] = state.weights[stage]


def test_fine_tuning_starts_every_stage_from_published_or_shipped_weights():
    for stage in STAGES:
        for preset, weights in (("base", "official.safetensors"), ("small", "small")):
            config, from_nothing = get_config("finetune", f"{stage},{preset}"), get_config(stage, preset)
            assert config.stage == stage and config.model == from_nothing.model and config.init_from == weights
            assert all(config.get(name, weights) == weights for name in ("vae_from", "vocoder_from"))
            assert config.optimizer[stage].lr <= from_nothing.optimizer[stage].lr and config.steps <= from_nothing.steps
    for mistake in ("", "decoder", "vae,tiny"):
        with pytest.raises(UserError, match="choose a stage of vocoder, vae, .*, and after a comma base or small"):
            get_config("finetune", mistake)


# What says how weights were made; the rest is where things lay, and how often was looked.
MATTERS = ("batch_size", "crop_frames", "dtype", "ema_decay", "losses", "mel_loss", "mel_source", "best_metric", "seed")
MATTERS += ("low_resolution_fraction", "condition_drop", "optimizer", "eval.steps", "eval.guidance", "eval.cutoff_hz")
LAST_RUNS = {  # of each stage of the shipped model, docs/small/NAME.json: steps that were made, by the card's table
    "vae": ("vae", 4500),
    "vocoder": ("vocoder", 2000),
    "vocoder_tuned": ("vocoder_tuned_on", 700),
    "regression": ("regression_quantile", 1500),
    "teacher": ("teacher", 3600),
}


@pytest.mark.parametrize("name", LAST_RUNS)
def test_small_is_what_the_shipped_model_was_trained_with(name):
    run, steps = LAST_RUNS[name]
    fields = flattened(json.loads((ROOT / "docs" / "small" / f"{run}.json").read_text()))
    config = get_config(name, "small")
    ours = flattened(json.loads(config.to_json()))
    (network,) = NETWORKS_OF_STAGE[config.stage]
    roles = {config.stage}  # without an adversarial loss the discriminator's optimizer has nothing to do
    compared = 0
    for field, value in fields.items():
        if field.startswith("optimizer.") and field.split(".")[1] not in roles:
            continue
        if field.startswith((*MATTERS, "data.", f"model.{network}.")) and field not in ("data.dir", "data.latents"):
            assert ours[field] == value, field
            compared += 1
    assert compared > 25
    assert config.steps == steps
    assert ours.get("losses.adversarial", 0.0) == 0.0
    header = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["__doc__"]
    assert "small:" in header and re.search(r"0\.\d hours|1\.4 hours", header)
