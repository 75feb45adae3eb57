"""The SR Vocoder: BigVGAN's generator conditioned on the low-resolution waveform.

Letters: B batch, T mel frames, F mel bins, N = 480 T samples, M samples at a stage's rate, C channels.
Source: FlashSR (Im & Nam, arXiv:2501.10807), section III; BigVGAN (Lee et al., ICLR 2023, arXiv:2206.04658).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from flashsr_jax.models.antialias import antialiased_snake_beta
from flashsr_jax.models.layers import Dtype
from flashsr_jax.models.presets import VocoderConfig

KERNEL = 7  # of the first and last convolutions
DIMENSIONS = ("NWC", "WIO", "NWC")
# Residual branches start small, so that the sum of nine of them a stage keeps its scale.
RESIDUAL_INIT = nn.initializers.variance_scaling(0.04, "fan_in", "normal")


class WeightNormConv(nn.Module):
    """1-D convolution with weight normalisation: kernel = g v / |v|, |v| over all but the output channel.

    `rate` > 1 makes it a transposed convolution (upsampling), where the norm is per *input* channel as torch's is.
    """

    channels: int
    kernel: int
    dilation: int = 1
    rate: int = 1
    init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxMxC: jax.Array) -> jax.Array:
        v = self.param("v", self.init, (self.kernel, x_BxMxC.shape[-1], self.channels))
        norm = jnp.sqrt(jnp.sum(jnp.square(v), axis=(0, 1) if self.rate == 1 else (0, 2)))
        g = self.param("g", lambda _: norm)
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        scale = g / norm
        kernel = (v * (scale if self.rate == 1 else scale[:, None])).astype(self.dtype)
        if self.rate == 1:
            pad = self.dilation * (self.kernel - 1) // 2
        else:
            pad = self.kernel - 1 - (self.kernel - self.rate) // 2
        y_BxMxC = lax.conv_general_dilated(
            x_BxMxC,
            kernel,
            window_strides=(1,),
            padding=((pad, pad),),
            lhs_dilation=(self.rate,),
            rhs_dilation=(self.dilation,),
            dimension_numbers=DIMENSIONS,
        )
        return y_BxMxC + bias.astype(self.dtype)


class SnakeBeta(nn.Module):
    """Anti-aliased SnakeBeta with its two parameters a channel, on a log scale."""

    @nn.compact
    def __call__(self, x_BxMxC: jax.Array) -> jax.Array:
        alpha = self.param("alpha", nn.initializers.zeros, x_BxMxC.shape[-1:])
        beta = self.param("beta", nn.initializers.zeros, x_BxMxC.shape[-1:])
        return antialiased_snake_beta(x_BxMxC, alpha, beta)


class AMPBlock(nn.Module):
    """Anti-aliased multi-periodicity block: per dilation, [activation, dilated conv, activation, conv], residual."""

    kernel: int
    dilations: tuple[int, ...]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxMxC: jax.Array) -> jax.Array:
        channels = x_BxMxC.shape[-1]
        for i, dilation in enumerate(self.dilations):
            h = SnakeBeta(name=f"activation1_{i}")(x_BxMxC)
            h = WeightNormConv(channels, self.kernel, dilation, dtype=self.dtype, name=f"conv1_{i}")(h)
            h = SnakeBeta(name=f"activation2_{i}")(h)
            conv2 = WeightNormConv(channels, self.kernel, init=RESIDUAL_INIT, dtype=self.dtype, name=f"conv2_{i}")
            x_BxMxC += conv2(h)
        return x_BxMxC


class LRBranch(nn.Module):
    """Features of the low-resolution waveform at the rate of each upsampling stage, the coarsest first."""

    config: VocoderConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, lr_BxN: jax.Array) -> list[jax.Array]:
        rates = self.config.rates
        channels = self.config.channels >> len(rates)
        h = nn.Conv(channels, (KERNEL,), dtype=self.dtype, name="conv_in")(lr_BxN[..., None])
        features = [h]
        for index, rate in enumerate(reversed(rates[1:])):
            channels *= 2
            padding = ((rate - 1, rate - 1),)
            h = nn.Conv(channels, (2 * rate,), rate, padding, dtype=self.dtype, name=f"downsample_{index}")(h)
            h = nn.leaky_relu(h, 0.1)
            features.append(h)
        return features[::-1]


class SRVocoder(nn.Module):
    """Waveform from a log-mel spectrogram and the normalised low-resolution waveform, which carries the low band."""

    config: VocoderConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, mel_BxTxF: jax.Array, lr_BxN: jax.Array) -> jax.Array:
        """Log-mel (B, T, F) and waveform (B, N), N = T x the product of the rates -> waveform (B, N), float32.

        Raises ValueError where the lengths do not fit.
        """
        config = self.config
        samples = mel_BxTxF.shape[1] * config.hop
        if lr_BxN.shape[1] != samples or mel_BxTxF.shape[2] != config.mel_bins:
            raise ValueError(
                f"SR Vocoder: mel {mel_BxTxF.shape} and waveform {lr_BxN.shape}; it needs {config.mel_bins} mel bins "
                f"and {config.hop} samples a mel frame"
            )
        lr_features = LRBranch(config, self.dtype, name="lr_branch")(lr_BxN.astype(self.dtype))
        h = ((mel_BxTxF - config.mel_mean) / config.mel_std).astype(self.dtype)
        h = WeightNormConv(config.channels, KERNEL, dtype=self.dtype, name="conv_pre")(h)
        for stage, (rate, lr_BxMxC) in enumerate(zip(config.rates, lr_features, strict=True)):
            channels = config.channels >> (stage + 1)
            h = WeightNormConv(channels, 2 * rate, rate=rate, dtype=self.dtype, name=f"upsample_{stage}")(h)
            h = h + lr_BxMxC
            h = sum(
                AMPBlock(kernel, config.dilations, self.dtype, name=f"stage_{stage}_block_{index}")(h)
                for index, kernel in enumerate(config.kernels)
            ) / len(config.kernels)
        h = SnakeBeta(name="activation_post")(h)
        h_BxNx1 = WeightNormConv(1, KERNEL, dtype=self.dtype, name="conv_post")(h)
        return jnp.tanh(h_BxNx1[..., 0].astype(jnp.float32))
