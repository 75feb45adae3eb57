"""The latent diffusion U-Net of teacher and student, conditioned on the low-resolution latent.

Letters: B batch, T, F latent positions along time and frequency, C channels, D = T F, E embedding, H heads.
Source: LDM (Rombach et al., CVPR 2022, arXiv:2112.10752) in the variant of AudioSR (Liu et al., arXiv:2309.07314).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flashsr_jax.models.layers import (
    Dtype,
    ResidualBlock,
    attention,
    conv,
    group_norm,
    rematerialised,
    upsample_nearest,
)
from flashsr_jax.models.presets import UNetConfig

BLOCK_EPSILON = 1e-5
TRANSFORMER_EPSILON = 1e-6
LAYER_EPSILON = 1e-5
TRANSFORMERS = 2  # one after the other, at each place that attends
MAX_PERIOD = 10_000.0


def timestep_embedding(t_B: jax.Array, size: int) -> jax.Array:
    """(B, size) float32: cosines, then sines, of t times size / 2 frequencies from 1 down towards 1 / 10000."""
    half = size // 2
    frequencies = np.exp(np.float32(-np.log(MAX_PERIOD)) * np.arange(half, dtype=np.float32) / half)
    angles = t_B.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention over (B, D, C)."""

    head_channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxDxC: jax.Array) -> jax.Array:
        batch, positions, channels = x_BxDxC.shape
        q, k, v = (
            nn.Dense(channels, use_bias=False, dtype=self.dtype, name=name)(x_BxDxC)
            .reshape(batch, positions, channels // self.head_channels, self.head_channels)
            .swapaxes(1, 2)
            for name in ("q", "k", "v")
        )
        h_BxDxHxC = attention(q, k, v).swapaxes(1, 2)
        return nn.Dense(channels, dtype=self.dtype, name="out")(h_BxDxHxC.reshape(x_BxDxC.shape))


class SpatialTransformer(nn.Module):
    """GroupNorm, 1x1, [two self-attentions and a GEGLU feed-forward, each residual], 1x1 from zero; residual."""

    head_channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxFxC: jax.Array) -> jax.Array:
        channels = x_BxTxFxC.shape[-1]
        h = group_norm(channels, TRANSFORMER_EPSILON, self.dtype, "norm")(x_BxTxFxC)
        h = conv(channels, 1, self.dtype, "conv_in")(h).reshape(x_BxTxFxC.shape[0], -1, channels)
        for index in (1, 2):
            normed = self.layer_norm(f"norm{index}")(h)
            h += SelfAttention(self.head_channels, self.dtype, name=f"attention{index}")(normed)
        value, gate = jnp.split(
            nn.Dense(8 * channels, dtype=self.dtype, name="feed_forward_in")(self.layer_norm("norm3")(h)), 2, axis=-1
        )
        gated = value * nn.gelu(gate, approximate=False)
        h += nn.Dense(channels, dtype=self.dtype, name="feed_forward_out")(gated)
        return x_BxTxFxC + conv(channels, 1, self.dtype, "conv_out", zero=True)(h.reshape(x_BxTxFxC.shape))

    def layer_norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=LAYER_EPSILON, use_fast_variance=False, dtype=self.dtype, name=name)


class Block(nn.Module):
    """Residual block with time embedding and, where the level attends, two spatial transformers."""

    channels: int
    attends: bool
    config: UNetConfig
    dtype: Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, h: jax.Array, embedding_BxE: jax.Array) -> jax.Array:
        residual_of, transformer_of = (rematerialised(part, self.remat) for part in (ResidualBlock, SpatialTransformer))
        h = residual_of(self.channels, BLOCK_EPSILON, zero=True, dtype=self.dtype, name="residual")(h, embedding_BxE)
        for index in range(TRANSFORMERS if self.attends else 0):
            h = transformer_of(self.config.head_channels, self.dtype, name=f"transformer_{index}")(h)
        return h


class Encoder(nn.Module):
    """The way down and the middle: (features of the middle, skip connections, time embedding)."""

    config: UNetConfig
    dtype: Dtype = jnp.float32
    remat: str = "none"  # of each residual block and transformer: `layers.rematerialised`

    @nn.compact
    def __call__(self, h: jax.Array, t_B: jax.Array) -> tuple[jax.Array, list[jax.Array], jax.Array]:
        config, width = self.config, 4 * self.config.channels
        embedding_BxE = timestep_embedding(t_B, config.channels).astype(self.dtype)
        embedding_BxE = nn.silu(nn.Dense(width, dtype=self.dtype, name="time_1")(embedding_BxE))
        embedding_BxE = nn.Dense(width, dtype=self.dtype, name="time_2")(embedding_BxE)

        h = conv(config.channels, 3, self.dtype, "conv_in")(h)
        skips = [h]
        for level, multiplier in enumerate(config.multipliers):
            channels, attends = config.channels * multiplier, 2**level in config.attention_downsamplings
            for block in range(config.blocks):
                name = f"down_{level}_block_{block}"
                h = Block(channels, attends, config, self.dtype, self.remat, name=name)(h, embedding_BxE)
                skips.append(h)
            if level < len(config.multipliers) - 1:
                padding = ((1, 1), (1, 1))
                h = conv(channels, 3, self.dtype, f"down_{level}_downsample", stride=2, padding=padding)(h)
                skips.append(h)
        h = Block(channels, True, config, self.dtype, self.remat, name="middle_1")(h, embedding_BxE)
        h = Block(channels, False, config, self.dtype, self.remat, name="middle_2")(h, embedding_BxE)
        return h, skips, embedding_BxE


class Decoder(nn.Module):
    """The way up: each block takes one skip connection, the last first."""

    config: UNetConfig
    dtype: Dtype = jnp.float32
    remat: str = "none"  # of each residual block and transformer: `layers.rematerialised`

    @nn.compact
    def __call__(self, h: jax.Array, skips: list[jax.Array], embedding_BxE: jax.Array) -> jax.Array:
        config = self.config
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            channels, attends = config.channels * multiplier, 2**level in config.attention_downsamplings
            for block in range(config.blocks + 1):
                h = jnp.concatenate([h, skips[-1]], axis=-1)
                skips = skips[:-1]
                h = Block(channels, attends, config, self.dtype, self.remat, name=f"up_{level}_block_{block}")(
                    h, embedding_BxE
                )
            if level > 0:
                h = conv(channels, 3, self.dtype, f"up_{level}_upsample")(upsample_nearest(h))
        h = nn.silu(group_norm(h.shape[-1], BLOCK_EPSILON, self.dtype, "norm_out")(h))
        return conv(config.latent_channels, 3, self.dtype, "conv_out", zero=True)(h)


class UNet(nn.Module):
    """v-prediction of the noisy latent z given the low-resolution latent, float32.

    `features` gives the middle block's output alone, for a discriminator on frozen teacher features.
    """

    config: UNetConfig
    dtype: Dtype = jnp.float32
    remat: str = "none"  # of each residual block and transformer: `layers.rematerialised`

    def setup(self) -> None:
        self.encoder = Encoder(self.config, self.dtype, self.remat)
        self.decoder = Decoder(self.config, self.dtype, self.remat)

    def _encode(self, z: jax.Array, cond: jax.Array, t_B: jax.Array) -> tuple[jax.Array, list[jax.Array], jax.Array]:
        _, time, frequency, channels = z.shape
        stride, latent_channels = self.config.stride, self.config.latent_channels
        if z.shape != cond.shape or time % stride or frequency % stride or channels != latent_channels:
            raise ValueError(
                f"U-Net: latents {z.shape} and condition {cond.shape}; both must be (B, T, F, {latent_channels}) "
                f"with T and F multiples of {stride}"
            )
        return self.encoder(jnp.concatenate([z, cond], axis=-1).astype(self.dtype), t_B)

    def features(self, z: jax.Array, cond: jax.Array, t_B: jax.Array) -> jax.Array:
        """(B, T/s, F/s, channels of the coarsest level), s the U-Net's stride, in the compute type."""
        return self._encode(z, cond, t_B)[0]

    def __call__(self, z: jax.Array, cond: jax.Array, t_B: jax.Array) -> jax.Array:
        """z, cond: scaled latents (B, T, F, C); t_B: timesteps 0..999 -> v (B, T, F, C).

        Raises ValueError where the shapes do not fit.
        """
        return self.decoder(*self._encode(z, cond, t_B)).astype(jnp.float32)
