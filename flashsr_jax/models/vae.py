"""The mel autoencoder: AutoencoderKL on log-mel spectrograms.

Letters: B batch, T mel frames, F mel bins, C channels, D = T F positions; s the stride of the VAE (8 as published).
Source: LDM (Rombach et al., CVPR 2022, arXiv:2112.10752), in the variant of AudioSR (Liu et al., arXiv:2309.07314).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flashsr_jax.errors import UserError
from flashsr_jax.models.layers import (
    Dtype,
    ResidualBlock,
    attention,
    conv,
    group_norm,
    rematerialised,
    upsample_nearest,
)
from flashsr_jax.models.presets import VAEConfig

EPSILON = 1e-6
LOGVAR_RANGE = (-30.0, 20.0)


def posterior_sample(mean: jax.Array, logvar: jax.Array, eps: jax.Array) -> jax.Array:
    """mean + std eps, `eps` standard normal noise of their shape."""
    return mean + jnp.exp(0.5 * logvar) * eps


def _to_patches(x_BxTxFx1: jax.Array, size: int) -> jax.Array:
    """(B, T, F, 1) -> (B, T / size, F / size, size^2)."""
    batch, time, frequency, _ = x_BxTxFx1.shape
    x = x_BxTxFx1.reshape(batch, time // size, size, frequency // size, size).swapaxes(2, 3)
    return x.reshape(batch, time // size, frequency // size, size * size)


def _from_patches(x_BxTxFxC: jax.Array, size: int) -> jax.Array:
    """Inverse of `_to_patches`."""
    batch, time, frequency, _ = x_BxTxFxC.shape
    x = x_BxTxFxC.reshape(batch, time, frequency, size, size).swapaxes(2, 3)
    return x.reshape(batch, time * size, frequency * size, 1)


class Attention(nn.Module):
    """Single-head self-attention over all positions, residual."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxTxFxC: jax.Array) -> jax.Array:
        batch, time, frequency, channels = x_BxTxFxC.shape
        h_BxTxFxC = group_norm(channels, EPSILON, self.dtype, "norm")(x_BxTxFxC)
        q, k, v = (
            conv(channels, 1, self.dtype, name)(h_BxTxFxC).reshape(batch, 1, time * frequency, channels)
            for name in ("q", "k", "v")
        )
        h_Bx1xDxC = attention(q, k, v)
        return x_BxTxFxC + conv(channels, 1, self.dtype, "out")(h_Bx1xDxC.reshape(x_BxTxFxC.shape))


class Middle(nn.Module):
    """Block, attention, block at the coarsest level."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        channels = h.shape[-1]
        h = ResidualBlock(channels, EPSILON, dtype=self.dtype, name="block_1")(h)
        h = Attention(self.dtype, name="attention")(h)
        return ResidualBlock(channels, EPSILON, dtype=self.dtype, name="block_2")(h)


class Encoder(nn.Module):
    """Standardised mel (B, T, F, 1) -> (B, T/s, F/s, 2 latent channels)."""

    config: VAEConfig
    dtype: Dtype = jnp.float32
    remat: str = "none"  # of each block: `layers.rematerialised`

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        config, block_of = self.config, rematerialised(ResidualBlock, self.remat)
        h = conv(config.channels, 3, self.dtype, "conv_in")(_to_patches(h, config.patch))
        for level, multiplier in enumerate(config.multipliers):
            channels = config.channels * multiplier
            for block in range(config.blocks):
                h = block_of(channels, EPSILON, dtype=self.dtype, name=f"down_{level}_block_{block}")(h)
            if level < len(config.multipliers) - 1:
                padding = ((0, 1), (0, 1))  # at the end only
                h = conv(channels, 3, self.dtype, f"down_{level}_downsample", stride=2, padding=padding)(h)
        h = rematerialised(Middle, self.remat)(self.dtype, name="middle")(h)
        h = nn.silu(group_norm(h.shape[-1], EPSILON, self.dtype, "norm_out")(h))
        return conv(2 * config.latent_channels, 3, self.dtype, "conv_out")(h)


class Decoder(nn.Module):
    """(B, T/s, F/s, latent channels) -> standardised mel (B, T, F, 1). Level 0 is the finest, and the last."""

    config: VAEConfig
    dtype: Dtype = jnp.float32
    remat: str = "none"  # of each block: `layers.rematerialised`

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        config, block_of = self.config, rematerialised(ResidualBlock, self.remat)
        h = conv(config.channels * config.multipliers[-1], 3, self.dtype, "conv_in")(h)
        h = rematerialised(Middle, self.remat)(self.dtype, name="middle")(h)
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            channels = config.channels * multiplier
            for block in range(config.blocks + 1):
                h = block_of(channels, EPSILON, dtype=self.dtype, name=f"up_{level}_block_{block}")(h)
            if level > 0:
                h = conv(channels, 3, self.dtype, f"up_{level}_upsample")(upsample_nearest(h))
        h = nn.silu(group_norm(h.shape[-1], EPSILON, self.dtype, "norm_out")(h))
        return _from_patches(conv(config.patch**2, 3, self.dtype, "conv_out")(h), config.patch)


class VAE(nn.Module):
    """Log-mel spectrograms to Gaussian latents and back. Outputs are float32.

    The latent scale factor (0.3342 of the published weights) is the caller's: z = scale x latent.
    """

    config: VAEConfig
    dtype: Dtype = jnp.float32
    remat: str = "none"  # of each block: `layers.rematerialised`

    def setup(self) -> None:
        self.encoder = Encoder(self.config, self.dtype, self.remat)
        self.decoder = Decoder(self.config, self.dtype, self.remat)
        self.quant_conv = conv(2 * self.config.latent_channels, 1, self.dtype, None)
        self.post_quant_conv = conv(self.config.latent_channels, 1, self.dtype, None)

    def encode(self, mel_BxTxF: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and clipped log-variance of the posterior, each (B, T/s, F/s, latent channels).

        Raises UserError unless T is a multiple of s and F the configured number of mel bins.
        """
        _, frames, bins = mel_BxTxF.shape
        if frames % self.config.stride or bins != self.config.mel_bins:
            raise UserError(
                f"VAE: mel of {frames} frames x {bins} bins; it needs a multiple of {self.config.stride} frames "
                f"(pad the audio) x {self.config.mel_bins} bins"
            )
        standardised = (mel_BxTxF - self.config.mel_mean) / self.config.mel_std
        moments = self.quant_conv(self.encoder(standardised[..., None].astype(self.dtype)))
        mean, logvar = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return mean, jnp.clip(logvar, *LOGVAR_RANGE)

    def decode(self, latent: jax.Array) -> jax.Array:
        """Unscaled latents (B, T/s, F/s, latent channels) -> log-mel (B, T, F)."""
        standardised = self.decoder(self.post_quant_conv(latent.astype(self.dtype)))[..., 0]
        return standardised.astype(jnp.float32) * self.config.mel_std + self.config.mel_mean

    def __call__(self, mel_BxTxF: jax.Array) -> jax.Array:
        """Reconstruction from the posterior's mean."""
        return self.decode(self.encode(mel_BxTxF)[0])
