"""The convolution's own gradient rule against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flashsr_jax.models.convolution import LAYOUT, conv2d


def with_gradients(convolve, x, kernel):
    """The output, and gradients of a function that gives each of it another weight: no shift or flip goes unseen."""

    def weighed(x, kernel):
        y = convolve(x, kernel)
        return jnp.sum(jnp.sin(3 * y)), y

    gradients, y = jax.jit(jax.grad(weighed, (0, 1), has_aux=True))(x, kernel)
    return y, *gradients


@pytest.mark.parametrize(
    ("size", "stride", "rows", "columns"), [(3, 1, 6, 10), (5, 1, 4, 7), (1, 1, 5, 3), (3, 2, 8, 6)]
)
def test_outputs_and_gradients_are_those_of_xla(size, stride, rows, columns):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, rows, columns, 3)).astype(np.float32)
    kernel = (0.2 * rng.standard_normal((size, size, 3, 4))).astype(np.float32)

    def reference(x, kernel):
        return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT)

    def ours(x, kernel):
        return conv2d(x, kernel, stride)

    found, expected = (with_gradients(convolve, x, kernel) for convolve in (ours, reference))
    for ours_, theirs, tolerance in zip(found, expected, (1e-5, 1e-4, 1e-4), strict=True):
        assert ours_.shape == theirs.shape
        np.testing.assert_allclose(ours_, theirs, rtol=tolerance, atol=tolerance)


def test_gradients_keep_the_compute_type():
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((1, 4, 4, 2), (3, 3, 2, 2)))
    found = jax.eval_shape(lambda x, kernel: with_gradients(conv2d, x, kernel), x, kernel)
    assert [each.dtype for each in found] == [jnp.bfloat16] * 3
