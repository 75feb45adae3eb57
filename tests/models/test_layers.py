"""Layers that the VAE and the U-Net share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.models.layers import GroupNorm, attention, group_norm


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_group_norm_is_that_of_flax_with_its_gradient(mean, dtype):
    rng = np.random.default_rng(0)
    x = (mean + 3 * rng.standard_normal((2, 6, 8, 12))).astype(dtype)
    params = {"scale": 1 + 0.3 * rng.standard_normal(12, np.float32), "bias": rng.standard_normal(12, np.float32)}
    direction = rng.standard_normal(x.shape, np.float32)
    settings = {"num_groups": 4, "epsilon": 1e-6, "dtype": dtype}
    ours, flax = (
        jax.jit(
            jax.value_and_grad(lambda p, x, m=module: jnp.vdot(direction, m.apply({"params": p}, x)), argnums=(0, 1))
        )(params, x)
        for module in (GroupNorm(**settings), nn.GroupNorm(**settings, use_fast_variance=False))
    )
    tolerance = 0.03 if dtype == jnp.bfloat16 else 1e-5 * max(1.0, mean / 3)
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(flax), strict=True):
        expected = np.asarray(expected, np.float32)
        np.testing.assert_allclose(np.asarray(got, np.float32), expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (16, 16), (8, 8), (48, 24), (80, 20), (56, 28)])
def test_group_norm_groups(channels, groups):
    assert group_norm(channels, 1e-6, jnp.float32, None).num_groups == groups


@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    [(jnp.float32, 1, 1e-5), (jnp.float32, 100, 1e-4), (jnp.bfloat16, 1, 0.02)],  # at 100, exp(logits) overflows
)
def test_attention_is_that_of_jax_with_its_gradient(dtype, scale, tolerance):
    rng = np.random.default_rng(0)
    q, k, v, direction = (rng.standard_normal((2, 3, 10, 8), np.float32) for _ in range(4))
    inputs = [x.astype(dtype) for x in (scale * q, k, v)]

    def of_jax(q, k, v):
        return jax.nn.dot_product_attention(*(x.swapaxes(1, 2) for x in (q, k, v))).swapaxes(1, 2)

    ours, theirs = (
        jax.jit(jax.value_and_grad(lambda *x, f=f: jnp.vdot(direction, f(*x).astype(jnp.float32)), argnums=(0, 1, 2)))(
            *inputs
        )
        for f in (attention, of_jax)
    )
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        expected = np.asarray(expected, np.float32)
        np.testing.assert_allclose(np.asarray(got, np.float32), expected, atol=tolerance * np.abs(expected).max())
