"""Layers that the VAE and the latent U-Net share: normalisation, convolution, residual block, upsampling.

Letters: B batch, T time, F frequency, C channels, D positions, H heads. Images are (B, T, F, C), channels last.
Parameters are float32 and `dtype` is the type of the computation, except for the statistics of normalisations and
softmax: always float32.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from flashsr_jax.errors import UserError
from flashsr_jax.models.convolution import conv2d

Dtype = Any
PRODUCTS = ("conv_general_dilated", "dot_general")


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_normalise(
    x_BxTxFxC: jax.Array, scale_C: jax.Array, bias_C: jax.Array, num_groups: int, epsilon: float
) -> jax.Array:
    """(B, T, F, C) in float32, each group of channels at mean 0 and deviation 1, then scale and bias a channel.

    On a CPU half the time of Flax's and of its gradient (docs/performance.md): XLA spreads a sum over threads by its
    outputs, of which a group's sum has one, and the sums of every row and channel have thousands; and the gradient,
    written out, has two sums over the image instead of four.
    """
    return _group_normalise(x_BxTxFxC, scale_C, bias_C, num_groups, epsilon)[0]


def _group_normalise(
    x: jax.Array, scale_C: jax.Array, bias_C: jax.Array, num_groups: int, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x = x.astype(jnp.float32)
    mean_Bx1x1xC = _group_mean(_sum_of_image(x), x.shape, num_groups)
    centred = x - mean_Bx1x1xC  # not E[x^2] - E[x]^2, which cancels where the mean is large
    variance_Bx1x1xC = _group_mean(_sum_of_image(jnp.square(centred)), x.shape, num_groups)
    rstd_Bx1x1xC = lax.rsqrt(variance_Bx1x1xC + epsilon)
    return centred * (rstd_Bx1x1xC * scale_C) + bias_C, (mean_Bx1x1xC, rstd_Bx1x1xC)


def _group_normalise_forward(
    x: jax.Array, scale_C: jax.Array, bias_C: jax.Array, num_groups: int, epsilon: float
) -> tuple[jax.Array, tuple]:
    y, statistics = _group_normalise(x, scale_C, bias_C, num_groups, epsilon)
    return y, (x, scale_C, *statistics)


def _group_normalise_backward(
    num_groups: int, epsilon: float, saved: tuple, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale_C, mean, rstd = saved
    centred = x.astype(jnp.float32) - mean
    sum_of_g, sum_of_product = _sum_of_image(g), _sum_of_image(g * centred) * rstd
    mean_of_g = _group_mean(sum_of_g * scale_C, x.shape, num_groups)
    mean_of_product = _group_mean(sum_of_product * scale_C, x.shape, num_groups)
    d_x = g * (rstd * scale_C) - centred * (jnp.square(rstd) * mean_of_product) - rstd * mean_of_g
    return d_x.astype(x.dtype), sum_of_product.sum((0, 1, 2)), sum_of_g.sum((0, 1, 2))


group_normalise.defvjp(_group_normalise_forward, _group_normalise_backward)


def _sum_of_image(x_BxTxFxC: jax.Array) -> jax.Array:
    """(B, 1, 1, C), row by row."""
    return x_BxTxFxC.sum(2, keepdims=True).sum(1, keepdims=True)


def _group_mean(sum_Bx1x1xC: jax.Array, shape: tuple[int, ...], num_groups: int) -> jax.Array:
    """Of the channels' sums over an image of `shape` to the mean of each one's group, (B, 1, 1, C)."""
    batch, time, frequency, channels = shape
    of_group = channels // num_groups
    sum_BxG = sum_Bx1x1xC.reshape(batch, num_groups, of_group).sum(-1)
    mean_BxC = jnp.repeat(sum_BxG / (time * frequency * of_group), of_group, axis=-1)
    return mean_BxC[:, None, None]


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018, arXiv:1803.08494) of (B, T, F, C): `group_normalise` with its parameters."""

    num_groups: int
    epsilon: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxFxC: jax.Array) -> jax.Array:
        channels = x_BxTxFxC.shape[-1]
        scale_C = self.param("scale", nn.initializers.ones, (channels,))
        bias_C = self.param("bias", nn.initializers.zeros, (channels,))
        return group_normalise(x_BxTxFxC, scale_C, bias_C, self.num_groups, self.epsilon).astype(self.dtype)


def group_count(channels: int) -> int:
    """32 groups, or the largest divisor of `channels` below 32 (the published sizes all have 32)."""
    return max(count for count in range(1, min(32, channels) + 1) if channels % count == 0)


def group_norm(channels: int, epsilon: float, dtype: Dtype, name: str) -> GroupNorm:
    """GroupNorm of `group_count` groups."""
    return GroupNorm(group_count(channels), epsilon, dtype, name=name)


class Conv(nn.Module):
    """Square 2-D convolution with bias; `zero` initialises its kernel with zeros."""

    features: int
    size: int
    stride: int = 1
    padding: Any = "SAME"
    zero: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxFxC: jax.Array) -> jax.Array:
        init = nn.initializers.zeros if self.zero else nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (self.size, self.size, x_BxTxFxC.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = (value.astype(self.dtype) for value in (x_BxTxFxC, kernel, bias))
        return conv2d(x, kernel, self.stride, self.padding) + bias


def conv(
    features: int,
    kernel: int,
    dtype: Dtype,
    name: str | None,
    *,
    stride: int = 1,
    padding: Any = "SAME",
    zero: bool = False,
) -> Conv:
    """Square 2-D convolution `name` in the compute type `dtype`."""
    return Conv(features, kernel, stride, padding, zero, dtype, name=name)


def rematerialised(block: type[nn.Module], remat: str) -> type[nn.Module]:
    """`block` with less kept for its backward pass, which computes the rest again; same parameters, same values.

    `remat` is "none" (XLA's choice), "products" (keep the results of convolutions and matrix products: norms and
    activations again, at hardly any FLOPs) or "blocks" (keep the block's input alone: a third more FLOPs a step).
    Chen et al. 2016, arXiv:1604.06174. Raises UserError for another.
    """
    if remat == "none":
        return block
    if remat == "products":
        return nn.remat(block, policy=lambda primitive, *_, **__: primitive.name in PRODUCTS)
    if remat == "blocks":
        return nn.remat(block)
    raise UserError(f"config.remat={remat!r} is not one of none, products, blocks")


def attention(q_BxHxDxC: jax.Array, k_BxHxDxC: jax.Array, v_BxHxDxC: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(C)) v over D positions for each of H heads, (B, H, D, C) in the type of `v_BxHxDxC`.

    The weights are divided by their sum after the product with v, of which there are D / C times fewer; this and the
    heads in front make it two to three times as fast as `jax.nn.dot_product_attention` on a CPU.
    """
    scale = q_BxHxDxC.shape[-1] ** -0.5
    logits = jnp.einsum("bhqc,bhkc->bhqk", q_BxHxDxC, k_BxHxDxC, preferred_element_type=jnp.float32)
    weights = jnp.exp(scale * (logits - lax.stop_gradient(logits.max(-1, keepdims=True))))
    sums = jnp.einsum("bhqk,bhkc->bhqc", weights.astype(v_BxHxDxC.dtype), v_BxHxDxC, preferred_element_type=jnp.float32)
    return (sums / weights.sum(-1, keepdims=True)).astype(v_BxHxDxC.dtype)


def upsample_nearest(x_BxTxFxC: jax.Array) -> jax.Array:
    """(B, T, F, C) -> (B, 2T, 2F, C), each position repeated."""
    return jnp.repeat(jnp.repeat(x_BxTxFxC, 2, axis=1), 2, axis=2)


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3x3; (+ time embedding); GroupNorm, SiLU, 3x3; plus the input (1x1 where channels change).

    The VAE's block has no embedding; the diffusion U-Net's starts its second convolution at zero.
    """

    channels: int
    epsilon: float
    zero: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxFxC: jax.Array, embedding_BxE: jax.Array | None = None) -> jax.Array:
        in_channels = x_BxTxFxC.shape[-1]
        h = nn.silu(group_norm(in_channels, self.epsilon, self.dtype, "norm1")(x_BxTxFxC))
        h = conv(self.channels, 3, self.dtype, "conv1")(h)
        if embedding_BxE is not None:
            h += nn.Dense(self.channels, dtype=self.dtype, name="embedding")(nn.silu(embedding_BxE))[:, None, None]
        h = nn.silu(group_norm(self.channels, self.epsilon, self.dtype, "norm2")(h))
        h = conv(self.channels, 3, self.dtype, "conv2", zero=self.zero)(h)
        if in_channels != self.channels:
            x_BxTxFxC = conv(self.channels, 1, self.dtype, "shortcut")(x_BxTxFxC)
        return x_BxTxFxC + h
