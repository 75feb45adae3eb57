"""The convolution's own gradient rule against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flashsr_jax.models.convolution import LAYOUT, conv2d


def gradients(convolve, x, kernel):
    """Of a function that gives every output another weight, so that no shift or flip of a gradient goes unseen."""
    return jax.jit(jax.grad(lambda x, kernel: jnp.sum(jnp.sin(3 * convolve(x, kernel))), (0, 1)))(x, kernel)


@pytest.mark.parametrize(
    ("size", "stride", "rows", "columns"), [(3, 1, 6, 10), (5, 1, 4, 7), (1, 1, 5, 3), (3, 2, 8, 6)]
)
def test_outputs_and_gradients_are_those_of_xla(size, stride, rows, columns):
    x = jax.random.normal(jax.random.key(0), (2, rows, columns, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 4)) * 0.2

    def reference(x, kernel):
        return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT)

    def ours(x, kernel):
        return conv2d(x, kernel, stride)

    np.testing.assert_allclose(ours(x, kernel), reference(x, kernel), rtol=1e-5, atol=1e-5)
    for ours_, theirs in zip(gradients(ours, x, kernel), gradients(reference, x, kernel), strict=True):
        assert ours_.shape == theirs.shape
        np.testing.assert_allclose(ours_, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_keep_the_compute_type():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 2, 2), jnp.bfloat16)
    assert [g.dtype for g in gradients(conv2d, x, kernel)] == [jnp.bfloat16] * 2
