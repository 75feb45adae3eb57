"""Floating-point operations of a JAX function, counted in its jaxpr. Run as a module: the table of the presets.

Convolutions and matrix products count, 2 a multiply-add, as is the custom; pointwise functions and FFTs do not.
"""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from flashsr_jax.audio import HOP, SAMPLE_RATE, WINDOW_SAMPLES
from flashsr_jax.models.presets import PRESETS, ModelConfig
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vae import VAE
from flashsr_jax.models.vocoder import SRVocoder


def count(function: Callable, *args, while_trips: int | None = None) -> float:
    """FLOPs of `function(*args)`, arrays or `jax.ShapeDtypeStruct`s: it is traced, neither compiled nor run.

    A scan (and a `fori_loop` of static length, which is one) counts its body times its length, a `cond` its dearest
    branch. The zeros between the samples of a dilated input (transposed convolution) are not counted, padding is.
    The trip count of a while loop is not in its jaxpr: `while_trips` says it. Raises ValueError where it is None and
    there is such a loop around convolutions or matrix products.
    """
    return float(_jaxpr_flops(jax.make_jaxpr(function)(*args).jaxpr, while_trips))


def _jaxpr_flops(jaxpr: Jaxpr, while_trips: int | None) -> int:
    return sum(_equation_flops(equation, while_trips) for equation in jaxpr.eqns)


def _equation_flops(equation, while_trips: int | None) -> int:
    primitive = equation.primitive.name
    if primitive == "dot_general":
        return _dot_flops(equation)
    if primitive == "conv_general_dilated":
        return _convolution_flops(equation)
    inner = [_jaxpr_flops(jaxpr, while_trips) for jaxpr in _inner_jaxprs(equation.params)]
    if primitive == "scan":
        return equation.params["length"] * sum(inner)
    if primitive == "cond":
        return max(inner)
    if primitive == "while" and sum(inner):
        if while_trips is None:
            raise ValueError("the trip count of a while loop is unknown, so are its FLOPs: give while_trips")
        return while_trips * sum(inner)
    return sum(inner)


def _inner_jaxprs(params: dict) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _dot_flops(equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(equation) -> int:
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


def preset_costs(config: ModelConfig) -> dict[str, tuple[int, float]]:
    """{network: (parameters, FLOPs per second of audio)} of a preset, one U-Net evaluation, on a 5.12 s window."""

    def abstract(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    frames, bins, stride = WINDOW_SAMPLES // HOP, config.vae.mel_bins, config.vae.stride
    mel, waveform = abstract(1, frames, bins), abstract(1, WINDOW_SAMPLES)
    latent = abstract(1, frames // stride, bins // stride, config.vae.latent_channels)
    vae, unet, vocoder = VAE(config.vae), UNet(config.unet), SRVocoder(config.vocoder)

    def cost(module, method, inputs, part=lambda params: params):
        key = jax.random.key(0)
        variables = jax.eval_shape(lambda *args: module.init(key, *args), *(mel,) if module is vae else inputs)
        flops = count(lambda variables, *args: module.apply(variables, *args, method=method), variables, *inputs)
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part(variables["params"])))
        return size, flops * SAMPLE_RATE / WINDOW_SAMPLES

    return {
        "VAE encoder": cost(vae, "encode", (mel,), lambda params: (params["encoder"], params["quant_conv"])),
        "VAE decoder": cost(vae, "decode", (latent,), lambda params: (params["decoder"], params["post_quant_conv"])),
        "U-Net, one evaluation": cost(unet, "__call__", (latent, latent, abstract(1))),
        "SR Vocoder": cost(vocoder, "__call__", (mel, waveform)),
    }


def table() -> str:
    """Markdown table of every preset's networks: parameters, and GFLOP per second of audio."""
    lines = ["| preset | network | parameters (M) | GFLOP per second of audio |", "| --- | --- | ---: | ---: |"]
    for name, config in PRESETS.items():
        costs = preset_costs(config)
        costs["**all**"] = tuple(map(sum, zip(*costs.values(), strict=True)))
        for network, (parameters, flops) in costs.items():
            lines.append(f"| {name} | {network} | {parameters / 1e6:.2f} | {flops / 1e9:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
