"""Discriminators: waveforms (vocoder), their high band (tune), mel patches (VAE), frozen teacher features (student).

Those of waveforms return logits and inner features (for `losses.feature_matching`), those of mels and latents logits
alone, as lists of one entry. Letters: B batch, N samples, T time, F frequency, C channels, P period.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flashsr_jax.audio import SAMPLE_RATE, front_end
from flashsr_jax.models.layers import Dtype, conv

FOLDS = (8, 2, 2)  # of bins into channels, before each layer of a HighBandResolutionDiscriminator


class PeriodDiscriminator(nn.Module):
    """2-D convolutions over a waveform folded to (N / P, P). HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), 2.3."""

    period: int
    channels: int  # of the first layer; multiplied by 4 a layer up to max_channels
    max_channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxN: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        batch, samples = x_BxN.shape
        x = jnp.pad(x_BxN, ((0, 0), (0, -samples % self.period)), mode="reflect")
        h = x.reshape(batch, -1, self.period, 1).astype(self.dtype)
        features = []
        widths = [min(self.channels * 4**i, self.max_channels) for i in range(4)]
        for width, stride in zip((*widths, widths[-1]), (3, 3, 3, 3, 1), strict=True):
            h = _conv(width, (5, 1), (stride, 1), self.dtype)(h)
            h = nn.leaky_relu(h, 0.1)
            features.append(h)
        return _conv(1, (3, 1), (1, 1), self.dtype)(h).astype(jnp.float32), features


class ResolutionDiscriminator(nn.Module):
    """2-D convolutions over one magnitude spectrogram. UnivNet (Jang et al. 2021, arXiv:2106.07889), section 2.2."""

    n_fft: int
    hop: int
    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxN: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        pad = (self.n_fft - self.hop) // 2
        x = jnp.pad(x_BxN.astype(jnp.float32), ((0, 0), (pad, pad)), mode="reflect")
        h = front_end.magnitude(front_end.stft(x, self.n_fft, self.hop))[..., None].astype(self.dtype)
        features = []
        for kernel, stride in (((3, 9), 1), ((3, 9), 2), ((3, 9), 2), ((3, 9), 2), ((3, 3), 1)):
            h = _conv(self.channels, kernel, (1, stride), self.dtype)(h)
            h = nn.leaky_relu(h, 0.1)
            features.append(h)
        return _conv(1, (3, 3), (1, 1), self.dtype)(h).astype(jnp.float32), features


class WaveDiscriminator(nn.Module):
    """Multi-period and multi-resolution discriminators together, as BigVGAN trains with."""

    periods: Sequence[int]
    resolutions: Sequence[tuple[int, int]]  # (n_fft, hop)
    channels: int
    max_channels: int
    spectrogram_channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxN: jax.Array) -> tuple[list[jax.Array], list[list[jax.Array]]]:
        """(logits, features) of each sub-discriminator for waveforms (B, N)."""
        parts = [
            PeriodDiscriminator(period, self.channels, self.max_channels, self.dtype, name=f"period_{period}")
            for period in self.periods
        ]
        parts += [
            ResolutionDiscriminator(n_fft, hop, self.spectrogram_channels, self.dtype, name=f"resolution_{n_fft}")
            for n_fft, hop in self.resolutions
        ]
        logits, features = zip(*(part(x_BxN) for part in parts), strict=True)
        return list(logits), list(features)


class Band(NamedTuple):
    """Where each example is judged, in Hz, (B,) each: from its cutoff to its recording's own bandwidth."""

    low_B: jax.Array
    high_B: jax.Array


class HighBandResolutionDiscriminator(nn.Module):
    """2-D convolutions over one complex spectrogram of what was added to a low resolution, beside that of the low
    resolution itself, which is the condition.

    Neighbouring bins are folded into channels instead of strided over: few wide layers at low rates, for a CPU.
    Spectra are compressed, S |S|^-0.7, so that a high band 60 dB under the low one is not lost beside it (as the inputs
    of complex speech enhancement, Braun & Tashev 2020, arXiv:2009.12286). Complex spectrograms of several resolutions:
    EnCodec (Defossez et al. 2022, arXiv:2210.13438), section 3.4.
    """

    n_fft: int
    hop: int
    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, added_BxN: jax.Array, lr_BxN: jax.Array, band: Band
    ) -> tuple[jax.Array, list[jax.Array], jax.Array]:
        """(logits (B, T, F), features, weight (B, 1, F): the share of the bins under each logit that is judged)."""
        hz_K = jnp.asarray(np.fft.rfftfreq(self.n_fft, 1 / SAMPLE_RATE)[:-1], jnp.float32)
        judged_BxK = ((hz_K >= band.low_B[:, None]) & (hz_K < band.high_B[:, None])).astype(jnp.float32)
        added, lr = self._spectrum(added_BxN), self._spectrum(lr_BxN)
        judged = jnp.broadcast_to(judged_BxK[:, None], added.shape)
        h = jnp.stack([added.real * judged, added.imag * judged, lr.real, lr.imag, judged], axis=-1).astype(self.dtype)
        features = []
        for index, fold in enumerate(FOLDS):
            h = h.reshape(*h.shape[:2], h.shape[2] // fold, fold * h.shape[3])
            h = nn.WeightNorm(conv(self.channels, 3, self.dtype, f"conv_{index}"))(h)
            h = nn.leaky_relu(h, 0.1)
            features.append(h)
        logits = nn.WeightNorm(conv(1, 3, self.dtype, "conv_out"))(h)[..., 0].astype(jnp.float32)
        weight_Bx1xF = judged_BxK.reshape(len(judged_BxK), 1, logits.shape[2], -1).mean(axis=-1)
        return logits, features, weight_Bx1xF

    def _spectrum(self, x_BxN: jax.Array) -> jax.Array:
        """Compressed (B, T, n_fft / 2): without the bin of 24 kHz."""
        pad = (self.n_fft - self.hop) // 2
        padded = jnp.pad(x_BxN.astype(jnp.float32), ((0, 0), (pad, pad)), mode="reflect")
        spectrum = front_end.stft(padded, self.n_fft, self.hop)[..., :-1]
        power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        return spectrum * (power + 1e-8) ** -0.35  # finite, and with a finite gradient, in silence


class HighBandDiscriminator(nn.Module):
    """Judges what a model adds over the cutoff: complex spectrograms at several resolutions, given the low-resolution
    waveform, and what is added as a waveform, folded by several periods.

    What lies under the cutoff is the low resolution's matter, and over the recording's own bandwidth a codec has taken
    away what was there: neither is seen.
    """

    resolutions: Sequence[tuple[int, int]]  # (n_fft, hop)
    channels: int
    periods: Sequence[int]
    period_channels: int  # of the first layer; at most 8 times as many in the others
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x_BxN: jax.Array, lr_BxN: jax.Array, band: Band
    ) -> tuple[list[jax.Array], list[list[jax.Array]], list[jax.Array]]:
        """(logits, features, weights of the logits) of each part for waveforms (B, N)."""
        added_BxN = front_end.only_band(x_BxN - lr_BxN, *band)
        parts = [
            HighBandResolutionDiscriminator(n_fft, hop, self.channels, self.dtype, name=f"resolution_{n_fft}")(
                added_BxN, lr_BxN, band
            )
            for n_fft, hop in self.resolutions
        ]
        for period in self.periods:
            of_period = PeriodDiscriminator(
                period, self.period_channels, 8 * self.period_channels, self.dtype, name=f"period_{period}"
            )
            parts.append((*of_period(added_BxN), jnp.ones(())))
        logits, features, weights = zip(*parts, strict=True)
        return list(logits), list(features), list(weights)


class PatchDiscriminator(nn.Module):
    """Real or decoded, patch by patch, on log-mels (B, T, F). pix2pix (Isola et al. 2017), 3 layers, as LDM uses.

    GroupNorm instead of batch norm: no running statistics, and the same values at any sharding of the batch.
    """

    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, mel_BxTxF: jax.Array) -> list[jax.Array]:
        h = nn.Conv(self.channels, (4, 4), (2, 2), padding=1, dtype=self.dtype)(mel_BxTxF[..., None])
        h = nn.leaky_relu(h, 0.2)
        for i, stride in enumerate((2, 2, 1)):
            width = self.channels * min(2 ** (i + 1), 8)
            h = nn.Conv(width, (4, 4), (stride, stride), padding=1, use_bias=False, dtype=self.dtype)(h)
            h = nn.leaky_relu(nn.GroupNorm(num_groups=8, dtype=self.dtype)(h), 0.2)
        return [nn.Conv(1, (4, 4), padding=1, dtype=self.dtype)(h).astype(jnp.float32)]


class LatentHead(nn.Module):
    """The trainable part of the student's discriminator: a small head on the frozen teacher's middle-block features.

    Flash Diffusion (Chadebec et al. 2025, arXiv:2406.02347), section 3.3.
    """

    channels: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features_BxTxFxC: jax.Array) -> list[jax.Array]:
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(features_BxTxFxC)
        for _ in range(2):
            h = nn.silu(nn.GroupNorm(num_groups=8, dtype=self.dtype)(h))
            h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(h)
        h = nn.silu(nn.GroupNorm(num_groups=8, dtype=self.dtype)(h))
        return [nn.Conv(1, (1, 1), dtype=self.dtype)(h).astype(jnp.float32)]


def _conv(width: int, kernel: tuple[int, int], strides: tuple[int, int], dtype: Any) -> nn.WeightNorm:
    padding = [((k - 1) // 2, (k - 1) // 2) for k in kernel]
    return nn.WeightNorm(nn.Conv(width, kernel, strides, padding=padding, dtype=dtype))
