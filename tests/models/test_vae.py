"""The mel autoencoder: golden parity, standardisation, shapes it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.exchange.names import vae_names
from flashsr_jax.models.vae import VAE, posterior_sample

from helpers.parity import VAE_TINY, assert_parity, golden, synthetic_params


@pytest.fixture(scope="module")
def variables():
    return {"params": synthetic_params(vae_names(VAE_TINY))}


def apply(config, variables, x, method, dtype=jnp.float32):
    return jax.jit(lambda variables, x: VAE(config, dtype).apply(variables, x, method=method))(variables, x)


def test_parity(variables):
    arrays = golden("vae_tiny")
    mean, logvar = apply(VAE_TINY, variables, arrays["mel"][..., 0], "encode")
    assert_parity(mean, arrays["mean"])
    assert_parity(logvar, arrays["logvar"])
    assert_parity(apply(VAE_TINY, variables, arrays["mean"], "decode"), arrays["decoded_mean"][..., 0])


@pytest.mark.training
def test_reconstruction_is_the_decoded_mean(variables):
    mel = golden("vae_tiny")["mel"][..., 0]
    mean, _ = apply(VAE_TINY, variables, mel, "encode")
    np.testing.assert_array_equal(
        apply(VAE_TINY, variables, mel, "__call__"), apply(VAE_TINY, variables, mean, "decode")
    )


@pytest.mark.training
def test_standardised_inside(variables):
    """A VAE with mel statistics on a mel is the one without on the standardised mel, and maps back."""
    standardised = golden("vae_tiny")["mel"][..., 0]
    config = dataclasses.replace(VAE_TINY, mel_mean=-5.0, mel_std=3.0)
    plain = apply(VAE_TINY, variables, standardised, "__call__")
    np.testing.assert_allclose(apply(config, variables, standardised * 3 - 5, "__call__"), plain * 3 - 5, atol=1e-3)


@pytest.mark.training
def test_logvar_is_clipped(variables):
    config = dataclasses.replace(VAE_TINY, mel_std=1e-6)  # inputs a million times too large
    params = dict(variables["params"])
    params["quant_conv"] = jax.tree.map(lambda leaf: 100 * leaf, params["quant_conv"])
    _, logvar = apply(config, {"params": params}, golden("vae_tiny")["mel"][..., 0], "encode")
    assert logvar.min() == -30 and logvar.max() == 20


@pytest.mark.training
def test_bfloat16_computes_close_and_returns_float32(variables):
    mel = golden("vae_tiny")["mel"][..., 0]
    exact = apply(VAE_TINY, variables, mel, "__call__")
    half = apply(VAE_TINY, variables, mel, "__call__", jnp.bfloat16)
    assert half.dtype == jnp.float32
    error = np.abs(half - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 0.05


def test_posterior_sample():
    sample = posterior_sample(jnp.array([1.0]), jnp.log(jnp.array([4.0])), jnp.array([3.0]))
    np.testing.assert_allclose(sample, [7.0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 25, 32), (1, 24, 31)])
def test_refuses_what_does_not_halve(variables, shape):
    with pytest.raises(ValueError, match=f"{shape[1]} frames x {shape[2]} bins; it needs a multiple of 2"):
        jax.eval_shape(lambda x: VAE(VAE_TINY).apply(variables, x, method="encode"), jnp.zeros(shape))
