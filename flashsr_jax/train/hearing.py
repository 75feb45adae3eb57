"""Latents as they sound: a part of each window through decoder and vocoder, and discriminators of what is over the
cutoff of it. Stage `tune` trains both networks by them; stage `student` has them frozen.

Least squares and features: HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), section 2.4; a low band that conditions the
judges: AP-BWE (Lu et al. 2024, arXiv:2401.06387).
Letters: B batch, N samples of a window, T its mel frames, F mel bins, S samples of a crop.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.audio import HOP
from flashsr_jax.errors import UserError
from flashsr_jax.models.discriminators import Band, HighBandDiscriminator
from flashsr_jax.models.pipeline import decode
from flashsr_jax.models.vocoder import SRVocoder
from flashsr_jax.train import losses
from flashsr_jax.train.batch import Crops, Windows, random_crops
from flashsr_jax.train.frozen import dtype_of, model_of


class Stretch(NamedTuple):
    """A part of each window: its waveforms, and the position (B,) of the latent's grid where it begins."""

    windows: Windows
    first_B: jax.Array


class Heard(NamedTuple):
    """A generated waveform (B, S) of each example, what was recorded there, and the band that is judged."""

    estimate: jax.Array
    crops: Crops
    band: Band


def random_stretch(config: ConfigDict, windows: Windows, key: jax.Array) -> Stretch:
    """A random `decoder_frames` of each window, at positions of the latent's grid.

    Raises UserError where there are fewer, or where they end between two positions.
    """
    batch, samples = windows.hr.shape
    stride = model_of(config).vae.stride
    kept = config.decoder_frames * HOP
    if kept > samples or config.decoder_frames % stride:
        raise UserError(
            f"config.decoder_frames={config.decoder_frames}: give a multiple of {stride}, and at most the "
            f"{samples // HOP} of config.data.window_frames"
        )
    first_B = jax.random.randint(key, (batch,), 0, (samples - kept) // (stride * HOP) + 1)

    def cut(x_N: jax.Array, first: jax.Array) -> jax.Array:
        return lax.dynamic_slice(x_N, (first * stride * HOP,), (kept,))

    hr, lr = (jax.vmap(cut)(x, first_B) for x in (windows.hr, windows.lr))
    return Stretch(windows._replace(hr=hr, lr=lr), first_B)


def hear(
    config: ConfigDict,
    networks: dict,
    scale_factor: jax.Array,
    z: jax.Array,
    stretch: Stretch,
    band: Band,
    key: jax.Array,
) -> tuple[jax.Array, Heard]:
    """What decoder and vocoder, `vae` and `vocoder` of `networks`, make of latents: the log-mel of each stretch, and a
    random crop of it as a waveform."""
    mel = _decoded(config, networks["vae"], scale_factor, z, stretch.first_B)
    crops = random_crops(mel, stretch.windows, config.crop_frames, key)
    vocoder = SRVocoder(model_of(config).vocoder, dtype_of(config), config.remat)
    return mel, Heard(vocoder.apply({"params": networks["vocoder"]}, crops.mel, crops.lr), crops, band)


def _decoded(config: ConfigDict, decoder: dict, scale_factor: jax.Array, z: jax.Array, first_B: jax.Array) -> jax.Array:
    """Log-mel (B, `decoder_frames`, F) of the latents from position `first_B` on."""
    model = model_of(config)
    count = config.decoder_frames // model.vae.stride
    cut = jax.vmap(lambda z_TxFxC, first: lax.dynamic_slice_in_dim(z_TxFxC, first, count))
    return decode(decoder, model, cut(z, first_B), scale_factor, dtype_of(config), config.remat)


def judged(config: ConfigDict, judge: dict, heard: Heard) -> dict[str, jax.Array]:
    """What the discriminators of parameters `judge` say of the generated waveforms (B,)."""
    estimate, crops, band = heard
    _, real_features, weights = _discriminator(config).apply({"params": judge}, crops.hr, crops.lr, band)
    logits, features, _ = _discriminator(config).apply({"params": judge}, estimate, crops.lr, band)
    return {
        "adversarial": losses.adversarial_generator(logits, "lsgan", weights),
        "features": losses.feature_matching(real_features, features),
    }


def discriminator_loss(
    config: ConfigDict, heard: Heard, weight_B: jax.Array, params: dict
) -> tuple[jax.Array, dict, None]:
    """Of the discriminators of `params`: least squares on recordings and generated waveforms."""
    estimate, crops, band = heard
    real, _, weights = _discriminator(config).apply({"params": params}, crops.hr, crops.lr, band)
    fake, _, _ = _discriminator(config).apply({"params": params}, estimate, crops.lr, band)
    loss_B = losses.adversarial_discriminator(real, fake, "lsgan", weights)
    return losses.weighted_mean(loss_B, weight_B), {}, None


def initial_discriminator(config: ConfigDict, key: jax.Array) -> dict:
    """Fresh parameters, of the sizes of config.discriminator."""
    waveform, hz = jnp.zeros((1, config.crop_frames * HOP)), jnp.zeros(1)
    return _discriminator(config).init(key, waveform, waveform, Band(hz, hz))["params"]


def _discriminator(config: ConfigDict) -> HighBandDiscriminator:
    sizes = config.discriminator
    return HighBandDiscriminator(
        tuple(tuple(resolution) for resolution in sizes.resolutions),
        sizes.channels,
        tuple(sizes.periods),
        sizes.period_channels,
        dtype_of(config),
    )
