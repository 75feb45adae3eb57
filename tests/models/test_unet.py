"""The latent U-Net: golden parity, start at zero, features, shapes it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.exchange.names import unet_names
from flashsr_jax.models.presets import UNetConfig
from flashsr_jax.models.unet import UNet, timestep_embedding

from helpers.parity import UNET_TINY, assert_parity, golden, synthetic_params


@pytest.mark.training
def test_parity():
    arrays = golden("unet_tiny")
    variables = {"params": synthetic_params(unet_names(UNET_TINY))}
    out = jax.jit(UNet(UNET_TINY).apply)(variables, arrays["z"], arrays["cond"], arrays["t"])
    assert_parity(out, arrays["out"])


def test_timestep_embedding_has_cosines_first():
    embedding = jax.jit(timestep_embedding, static_argnums=1)(np.array([0, 1]), 8)
    np.testing.assert_array_equal(embedding[0], [1, 1, 1, 1, 0, 0, 0, 0])
    frequencies = 10_000.0 ** -np.array([0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(embedding[1], np.concatenate([np.cos(frequencies), np.sin(frequencies)]), rtol=1e-6)


@pytest.fixture(scope="module")
def micro():
    """A network that compiles fast: (config, variables, latents, timesteps); drawn by numpy, since compiling the draws
    takes longer than the tests."""
    config = UNetConfig(8, (1, 2), blocks=1, attention_downsamplings=(), head_channels=4, latent_channels=4)
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((1, 8, 4, 4)).astype(np.float32), np.array([999])
    shapes = jax.eval_shape(UNet(config).init, jax.random.key(1), z, z, t)
    return config, jax.tree.map(lambda x: (0.3 * rng.standard_normal(x.shape)).astype(np.float32), shapes), z, t


@pytest.mark.training
def test_fresh_network_predicts_zero_and_learns(micro):
    config, _, z, t = micro
    variables = jax.jit(UNet(config).init)(jax.random.key(1), z, z, t)
    loss, gradient = jax.jit(
        jax.value_and_grad(lambda variables: jnp.sum((UNet(config).apply(variables, z, z, t) - 1) ** 2))
    )(variables)
    assert loss == z.size
    assert np.abs(gradient["params"]["decoder"]["conv_out"]["kernel"]).max() > 0


@pytest.mark.training
def test_features_are_the_middle_and_need_the_encoder_only(micro):
    config, variables, z, t = micro
    encoder = {"params": {"encoder": variables["params"]["encoder"]}}
    features = jax.jit(lambda *args: UNet(config).apply(*args, method="features"))(encoder, z, z, t)
    assert features.shape == (1, 4, 2, 16)
    assert np.abs(features).max() > 0


@pytest.mark.training
def test_bfloat16_computes_close_and_returns_float32(micro):
    config, variables, z, t = micro
    exact, half = (jax.jit(UNet(config, dtype).apply)(variables, z, z, t) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == jnp.float32
    assert 1e-4 < np.abs(half - exact).max() / np.abs(exact).max() < 0.1


@pytest.mark.parametrize("shape", [(1, 9, 4, 4), (1, 8, 5, 4), (1, 8, 4, 3)])
def test_refuses_what_does_not_halve(micro, shape):
    config, variables, _, t = micro
    with pytest.raises(ValueError, match="multiples of 2"):
        jax.eval_shape(UNet(config).apply, variables, jnp.zeros(shape), jnp.zeros(shape), t)
