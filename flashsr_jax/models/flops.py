"""Floating-point operations of a JAX function, counted in its jaxpr, and the table of the presets.

Convolutions and matrix products count, 2 a multiply-add, as is the custom; pointwise functions and FFTs do not.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from flashsr_jax.audio import HOP, SAMPLE_RATE, WINDOW_SAMPLES
from flashsr_jax.models.networks import module, parameter_shapes
from flashsr_jax.models.pipeline import latent_shape
from flashsr_jax.models.presets import PRESETS, ModelConfig


def count(function: Callable, *args: Any, while_trips: int | None = None) -> float:
    """FLOPs of `function(*args)`, jitted or not, of arrays or `jax.ShapeDtypeStruct`s: it is traced, neither compiled
    nor run.

    A scan (and a `fori_loop` of static length, which is one) counts its body times its length, a `cond` its dearest
    branch. The zeros between the samples of a dilated input (transposed convolution) are not counted, padding is.
    The trip count of a while loop is not in its jaxpr: `while_trips` says it. Raises ValueError where it is None and
    there is such a loop around convolutions or matrix products.
    """
    jitted = function if isinstance(function, jax.stages.Wrapped) else jax.jit(function)  # JAX nests none with options
    return float(_jaxpr_flops(jitted.trace(*args).jaxpr.jaxpr, while_trips))


def _jaxpr_flops(jaxpr: Jaxpr, while_trips: int | None) -> int:
    return sum(_equation_flops(equation, while_trips) for equation in jaxpr.eqns)


def _equation_flops(equation: JaxprEqn, while_trips: int | None) -> int:
    if (product := product_flops(equation)) is not None:
        return product
    primitive = equation.primitive.name
    inner: list[int] = [_jaxpr_flops(jaxpr, while_trips) for jaxpr in inner_jaxprs(equation.params)]
    if primitive == "scan":
        return equation.params["length"] * sum(inner)
    if primitive == "cond":
        return max(inner)
    if primitive == "while" and any(inner):
        if while_trips is None:
            raise ValueError("the trip count of a while loop is unknown, so are its FLOPs: give while_trips")
        return while_trips * sum(inner)
    return sum(inner)


def product_flops(equation: JaxprEqn) -> int | None:
    """FLOPs of one convolution or matrix product; None for any other equation."""
    if equation.primitive.name == "dot_general":
        return _dot_flops(equation)
    if equation.primitive.name == "conv_general_dilated":
        return _convolution_flops(equation)
    return None


def inner_jaxprs(params: dict[str, Any]) -> Iterator[Jaxpr]:
    """The jaxprs among an equation's parameters: bodies of loops, branches, called functions."""
    for value in params.values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _dot_flops(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(equation: Any) -> int:
    params, kernel, out = equation.params, equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    products = 2 * out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * kernel[numbers.rhs_spec[1]]
    for axis, (low, _) in enumerate(params["padding"]):
        positions = np.arange(out[numbers.out_spec[2 + axis]]) * params["window_strides"][axis] - low
        taps = np.arange(kernel[numbers.rhs_spec[2 + axis]]) * params["rhs_dilation"][axis]
        dilation = params["lhs_dilation"][axis]
        # A tap meets a real input where position + tap is a multiple of the input's dilation.
        counts = (
            np.bincount(positions % dilation, minlength=dilation),
            np.bincount(-taps % dilation, minlength=dilation),
        )
        products *= int(counts[0] @ counts[1])
    return products


class Cost(NamedTuple):
    """Parameters, and FLOPs per second of audio."""

    parameters: int
    flops: float


@functools.cache
def preset_costs(config: ModelConfig) -> dict[str, Cost]:
    """The networks that inference needs, with one evaluation of the U-Net, on a window of 5.12 s."""

    def abstract(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    def cost(network: str, *inputs: jax.ShapeDtypeStruct, method: str = "__call__", parts: tuple = ()) -> Cost:
        params = parameter_shapes(config, network)
        size = sum(math.prod(leaf.shape) for part in parts or params for leaf in jax.tree.leaves(params[part]))

        def apply(params: dict, *inputs: jax.Array) -> jax.Array:
            return module(config, network).apply({"params": params}, *inputs, method=method)

        return Cost(size, count(apply, params, *inputs) * SAMPLE_RATE / WINDOW_SAMPLES)

    mel, waveform = abstract(1, WINDOW_SAMPLES // HOP, config.vae.mel_bins), abstract(1, WINDOW_SAMPLES)
    latent, t = abstract(1, *latent_shape(config, WINDOW_SAMPLES)), abstract(1)
    return {
        "VAE encoder": cost("vae", mel, method="encode", parts=("encoder", "quant_conv")),
        "VAE decoder": cost("vae", latent, method="decode", parts=("decoder", "post_quant_conv")),
        "U-Net, one evaluation": cost("unet", latent, latent, t),
        "SR Vocoder": cost("vocoder", mel, waveform),
    }


def table() -> str:
    """Markdown table of every preset's networks: parameters, and GFLOP per second of audio."""
    lines = ["| preset | network | parameters (M) | GFLOP per second of audio |", "| --- | --- | ---: | ---: |"]
    for name, config in PRESETS.items():
        costs = preset_costs(config)
        costs = costs | {"all": Cost(*map(sum, zip(*costs.values(), strict=True)))}
        for network, cost in costs.items():
            lines.append(f"| {name} | {network} | {cost.parameters / 1e6:.2f} | {cost.flops / 1e9:.2f} |")
    return "\n".join(lines)
