"""The FLOP counter against counts by hand, and against the published network's known costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from flashsr_jax.models.flops import count, preset_costs, table
from flashsr_jax.models.presets import preset

MATRIX = jax.ShapeDtypeStruct((8, 8), jnp.float32)
PRODUCT = 2 * 8**3


def conv(x, kernel, stride=1, padding=(0, 0), lhs_dilation=1, rhs_dilation=1, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        (padding,),
        lhs_dilation=(lhs_dilation,),
        rhs_dilation=(rhs_dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=groups,
    )


def multiply_adds(function, *shapes):
    return count(function, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)) / 2


def test_matrix_products():
    assert multiply_adds(lambda a, b: a @ b, (3, 4), (4, 5)) == 3 * 4 * 5
    assert (
        multiply_adds(lambda a, b: jnp.einsum("bhqc,bhkc->bhqk", a, b), (2, 3, 4, 5), (2, 3, 6, 5)) == 2 * 3 * 4 * 6 * 5
    )


def test_convolutions():
    assert multiply_adds(conv, (2, 10, 3), (3, 3, 5)) == 2 * 8 * 3 * 3 * 5
    assert multiply_adds(lambda x, k: conv(x, k, 2, (1, 1)), (2, 10, 3), (3, 3, 5)) == 2 * 5 * 3 * 3 * 5
    assert multiply_adds(lambda x, k: conv(x, k, rhs_dilation=3), (2, 10, 3), (3, 3, 5)) == 2 * 4 * 3 * 3 * 5
    assert multiply_adds(lambda x, k: conv(x, k, groups=3), (2, 10, 3), (3, 1, 6)) == 2 * 8 * 3 * 6


@pytest.mark.parametrize(("kernel", "dilation", "stride"), [(8, 4, 1), (3, 2, 1), (5, 3, 2)])
def test_transposed_convolution_counts_no_inserted_zeros(kernel, dilation, stride):
    """A convolution of ones with ones adds up to its multiply-adds."""

    def transposed(x, taps):
        return conv(x, taps, stride, lhs_dilation=dilation)

    assert (
        multiply_adds(transposed, (1, 11, 1), (kernel, 1, 1))
        == jax.jit(lambda: transposed(jnp.ones((1, 11, 1)), jnp.ones((kernel, 1, 1))).sum())()
    )


@pytest.mark.parametrize(("stride", "rhs_dilation"), [(1, 1), (2, 1), (1, 3)])
def test_gradient_of_a_convolution_costs_two_more(stride, rhs_dilation):
    shapes = (2, 24, 3), (3, 3, 5)
    apply = lambda x, k: conv(x, k, stride, (3, 3 if stride == 1 else 2), rhs_dilation=rhs_dilation)  # noqa: E731
    forward = multiply_adds(apply, *shapes)
    gradient = multiply_adds(jax.grad(lambda x, k: jnp.sum(apply(x, k) ** 2), (0, 1)), *shapes)
    np.testing.assert_allclose(gradient, 3 * forward, rtol=0.25)  # but for the edges


def test_loops_and_branches():
    def scanned(x):
        return lax.scan(lambda carry, _: (carry @ carry, None), x, None, length=7)[0]

    assert count(scanned, MATRIX) == 7 * PRODUCT
    assert count(lambda x: lax.fori_loop(0, 5, lambda _, y: y @ y, x), MATRIX) == 5 * PRODUCT
    assert count(lambda x: lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, lambda y: y, x), MATRIX) == 2 * PRODUCT
    assert count(lambda x: jax.vmap(lambda row: row @ x)(x), MATRIX) == PRODUCT


def test_functions_inside_functions():
    @jax.custom_vjp
    def own(x):
        return x @ x

    own.defvjp(lambda x: (own(x), x), lambda x, g: (g @ x @ x @ x,))
    assert count(jax.jit(lambda x: own(jax.checkpoint(lambda y: y @ y)(x))), MATRIX) == 2 * PRODUCT
    assert count(jax.grad(lambda x: jnp.sum(own(x))), MATRIX) == 4 * PRODUCT


def test_a_while_loop_has_no_count_of_its_own():
    with pytest.raises(ValueError, match="trip count"):
        count(lambda x: lax.while_loop(lambda y: y[0, 0] > 0, lambda y: y @ y, x), MATRIX)
    assert count(lambda x: lax.while_loop(lambda y: y[0, 0] > 0, lambda y: y - 1, x), MATRIX) == 0
    assert (
        count(lambda x: lax.while_loop(lambda y: y[0, 0] > 0, lambda y: y @ y, x), MATRIX, while_trips=3) == 3 * PRODUCT
    )


@pytest.mark.training
def test_published_size_costs_what_is_known_of_it():
    """Parameters and TFLOP of a 5.12 s window, as measured on the published modules."""
    known = {
        "VAE encoder": (90e6, 0.79),
        "VAE decoder": (134e6, 1.72),
        "U-Net, one evaluation": (258e6, 0.067),
        "SR Vocoder": (133e6, 3.11),  # 157 M with the layer that feeds nothing
    }
    costs = preset_costs(preset("base"))
    assert costs.keys() == known.keys()
    for network, (parameters, tflop) in known.items():
        np.testing.assert_allclose(costs[network].parameters, parameters, rtol=0.01)
        np.testing.assert_allclose(costs[network].flops * 5.12 / 1e12, tflop, rtol=0.02)


@pytest.mark.training
def test_table_has_every_preset():
    lines = table().splitlines()
    assert [line.count("|") for line in lines] == [5] * len(lines)
    assert sum(line.startswith("| small |") for line in lines) == 5
