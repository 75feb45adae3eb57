"""What the loop takes of every stage, and that what is scored during training is what ships."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.audio.front_end import denormalise
from flashsr_jax.errors import UserError
from flashsr_jax.models import diffusion
from flashsr_jax.models.networks import initial_parameters, parameter_shapes
from flashsr_jax.models.pipeline import latent_shape, super_resolve
from flashsr_jax.models.presets import preset
from flashsr_jax.train import frozen
from flashsr_jax.train.batch import prepare
from flashsr_jax.train.divergence import Divergence
from flashsr_jax.train.stages import STAGES, student
from flashsr_jax.train.starts import Start

from helpers import micro
from helpers.steps import frozen_of, random_params

RNG = np.random.default_rng(0)
SAMPLES = 32 * 480


def test_a_stage_lists_the_networks_that_its_configuration_names():
    for stage, expected in {
        "vae": {},
        "regression": {"vae": "vae"},
        "teacher": {"vae": "vae"},
        "student": {"vae": "vae", "teacher": "unet"},
        "vocoder": {},
        "tune": {"vae": "vae", "init": "unet", "vocoder": "vocoder"},
    }.items():
        config = micro.get_config(stage)
        assert STAGES[stage].needs(config) == expected
        config.init_from = "run"
        network = stage if stage in ("vae", "vocoder") else "unet"
        assert STAGES[stage].needs(config) == expected | {"init": network}
    config = micro.get_config("vocoder")
    config.update(init_from="run", mel_source="student")
    assert STAGES["vocoder"].needs(config) == {"vae": "vae", "student": "unet", "init": "vocoder"}
    config.mel_source = "dream"
    with pytest.raises(UserError, match="mel_source='dream': choose"):
        STAGES["vocoder"].needs(config)


def test_networks_are_loaded_really_or_as_shapes():
    config = micro.get_config("student")
    abstract = frozen.shapes(config, student.needs(config))
    real = frozen_of("student")
    assert jax.tree.map(lambda x: (np.shape(x), np.dtype(x.dtype)), abstract) == jax.tree.map(
        lambda x: (np.shape(x), np.dtype(x.dtype)), real
    )
    with pytest.raises(UserError, match=r"config\.vae_from is not set"):
        frozen.load(config, student.needs(config))


def test_fresh_parameters_have_the_shapes_of_a_weights_file():
    model = frozen.model_of(micro.get_config("vae"))
    for network in ("vae", "unet", "vocoder"):
        fresh = jax.eval_shape(lambda key, network=network: initial_parameters(model, network, key), jax.random.key(0))
        assert fresh == parameter_shapes(model, network)
    config = micro.get_config("vae")
    config.model.vocoder.rates = (10, 6, 4)
    with pytest.raises(UserError, match="make 240 samples of a mel frame, which has 480"):
        frozen.model_of(config)
    assert preset("small").vocoder.hop == 480


@pytest.mark.training
@pytest.mark.parametrize(("stage", "steps", "guidance"), [("student", 1, 1.0), ("teacher", 2, 1.5)])
def test_what_is_scored_is_what_ships(stage, steps, guidance):
    """The audio of `eval_step` is that of `pipeline.super_resolve`, with the same noise, steps and guidance."""
    config = micro.get_config(stage)
    if stage == "teacher":
        config.eval.update(steps=steps, guidance=guidance)
    model, rng = frozen.model_of(config), np.random.default_rng(1)
    vocoder = jax.tree.map(
        lambda x: (0.2 * rng.standard_normal(x.shape)).astype(np.float32), parameter_shapes(model, "vocoder")
    )
    given = frozen_of("regression") | {"vocoder": vocoder}
    unet = random_params("teacher", given, rng)
    hr, lr = (0.1 * rng.standard_normal((2, SAMPLES), np.float32) for _ in range(2))
    batch, key = {"hr": hr, "lr": lr, "cutoff_hz": np.full(2, 4000, np.float32)}, jax.random.key(0)
    outputs = jax.jit(lambda *args: STAGES[stage].eval_step(config, {stage: unet}, *args))(given, batch, key)

    windows, _ = prepare(batch)
    key_encode, key_noise = jax.random.split(key)
    shape = latent_shape(model, SAMPLES)
    posterior = jax.random.normal(key_encode, (2, 2, *shape))[:, 1]  # of high and low resolution in turn
    params = {"vae": given["vae"], "unet": unet, "vocoder": vocoder, "scale_factor": given["scale_factor"]}

    @jax.jit
    def ship(lr: jax.Array, posterior: jax.Array, noise: jax.Array) -> jax.Array:
        return super_resolve(params, model, lr, posterior, noise, steps, guidance)

    shipped = denormalise(ship(windows.lr, posterior, jax.random.normal(key_noise, (2, *shape))), windows.stats)
    assert np.std(shipped) > 1e-4
    np.testing.assert_allclose(outputs["audio"], shipped, atol=1e-4 * np.abs(shipped).max())


@pytest.mark.training
def test_the_students_losses_are_functions_of_its_prediction():
    """At t = 0 the student's prediction is its input; what the teacher makes of the same start is a constant."""
    z0 = jnp.asarray(RNG.standard_normal((2, 4, 4, 2)), jnp.float32)
    grid = diffusion.solver_grid(4)
    start = Start(grid, jnp.int32(1), jnp.full(2, 749), z0)

    def teacher(z: jax.Array, t_B: jax.Array) -> jax.Array:
        return 0.3 * z

    expected, solved = jax.jit(lambda: (diffusion.solve(teacher, z0, grid, 1), student.solved(teacher, start)))()
    np.testing.assert_allclose(solved, expected, rtol=1e-6)
    assert np.abs(expected - z0).max() > 0.1
    moved = jax.jit(jax.grad(lambda z: jnp.sum(student.solved(teacher, start._replace(z=z)))))(z0)
    np.testing.assert_array_equal(moved, 0.0)  # nothing is learned through it
    at_zero = start._replace(t_B=jnp.zeros(2, jnp.int32))
    np.testing.assert_allclose(jax.jit(lambda: student.clean_latents(teacher, at_zero))(), z0, rtol=1e-6)


def test_a_step_that_is_not_finite_is_one_too_many_or_skipped():
    metrics = {"loss": float("nan"), "data/rejected": 2.0}
    with pytest.raises(FloatingPointError, match="step 3: loss = nan; stopped"):
        Divergence(0).check(3, metrics)
    assert Divergence(0).check(3, {"loss": 1.0}) == {"loss": 1.0}
    divergence = Divergence(2, skipped=1)
    assert divergence.check(4, {"loss": 1.0}) == {"loss": 1.0, "skipped_steps": 0.0}
    assert divergence.check(5, metrics) == {"data/rejected": 2.0, "skipped_steps": 1.0}
    with pytest.raises(FloatingPointError, match="2 steps were skipped before, config.max_skipped_steps"):
        divergence.check(6, metrics)
    assert divergence.skipped == 3
