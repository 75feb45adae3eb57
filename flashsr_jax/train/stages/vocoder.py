"""Stage `vocoder`: the SR Vocoder against multi-period and multi-resolution discriminators.

Generator: mel x log-mel distance + stft x log-STFT distance + power x log-power distance of wide bands + features x
feature matching + adversarial x least squares.
HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), section 2.4; BigVGAN (Lee et al. 2023, arXiv:2206.04658).
Letters: B batch, N samples of a window, T its mel frames, F mel bins.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.audio import HOP
from flashsr_jax.audio.front_end import denormalise, log_mel
from flashsr_jax.errors import UserError
from flashsr_jax.models.discriminators import WaveDiscriminator
from flashsr_jax.models.pipeline import decode, sample_latent, vocode
from flashsr_jax.models.vocoder import SRVocoder
from flashsr_jax.train import losses
from flashsr_jax.train.batch import Crops, Windows, prepare, random_crops
from flashsr_jax.train.evaluation import mel_outputs
from flashsr_jax.train.frozen import dtype_of, encode_pair, encode_waveforms, initial, model_of, named
from flashsr_jax.train.state import Gradients, TrainState, create, descend, finish_step, gradient

SOURCES = {"true": {}, "vae": {"vae": "vae"}, "student": {"vae": "vae", "student": "unet"}}  # what makes the mel


def needs(config: ConfigDict) -> dict[str, str]:
    """What `mel_source` needs, nothing (`true`), the VAE (`vae`), or VAE and student (`student`); the first vocoder
    where the config names one. Raises UserError for another source."""
    if config.mel_source not in SOURCES:
        raise UserError(f"config.mel_source={config.mel_source!r}: choose 'true', 'vae' or 'student'")
    return SOURCES[config.mel_source] | named(config, init="vocoder")


def init(config: ConfigDict, frozen: dict[str, Any], key: jax.Array) -> TrainState:
    """Generator (fresh, or of config.init_from) and fresh discriminators."""
    key_generator, key_discriminator = jax.random.split(key)
    params = {"vocoder": initial(config, frozen, "vocoder", key_generator)}
    if _uses_discriminator(config):
        waveform = jnp.zeros((1, config.crop_frames * HOP))
        params["discriminator"] = _discriminator(config).init(key_discriminator, waveform)["params"]
    return create(config, params, "vocoder")


def train_step(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the generator against the discriminators before it, and one of the discriminators."""
    of_part = functools.partial(gradients, config, state, frozen)
    state, metrics, _ = descend(config, state, of_part, batch, key)
    return finish_step(config, state, "vocoder"), metrics


def gradients(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> Gradients:
    """Of the generator and, where there are any, the discriminators, for a batch or a part of it."""
    key_mel, key_crop = jax.random.split(key)
    vocoder = SRVocoder(model_of(config).vocoder, dtype_of(config), config.remat)
    windows, metrics = prepare(batch)
    crops = random_crops(_conditioning_mel(config, frozen, windows, key_mel), windows, config.crop_frames, key_crop)
    judge = state.params.get("discriminator")

    def generator_loss(params: dict) -> tuple[jax.Array, dict, jax.Array]:
        estimate = vocoder.apply({"params": params}, crops.mel, crops.lr)
        of_example = _distances(config, estimate, crops)
        if judge is not None:
            of_example |= _judged(config, estimate, crops.hr, judge)
        total, terms = losses.weighted_sum(of_example, config.losses, windows.weight)
        return total, terms, lax.stop_gradient(estimate)

    of_vocoder, terms, estimate = gradient(state, "vocoder", generator_loss, "loss")
    of_role, metrics = {"vocoder": of_vocoder}, metrics | terms

    def discriminator_loss(params: dict) -> tuple[jax.Array, dict, None]:
        real_logits, _ = _discriminator(config).apply({"params": params}, crops.hr)
        fake_logits, _ = _discriminator(config).apply({"params": params}, estimate)
        loss_B = losses.adversarial_discriminator(real_logits, fake_logits, "lsgan")
        return losses.weighted_mean(loss_B, windows.weight), {}, None

    if judge is not None:
        of_role["discriminator"], terms, _ = gradient(state, "discriminator", discriminator_loss, "discriminator")
        metrics |= terms
    return Gradients(of_role, metrics, jnp.sum(windows.weight))


def eval_step(
    config: ConfigDict, weights: dict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Whole windows resynthesised from the same kind of mel as in training."""
    model = model_of(config)
    windows, _ = prepare(batch)
    mel = _conditioning_mel(config, frozen, windows, key)
    estimate = vocode(weights["vocoder"], model, mel, windows.lr, dtype_of(config))
    outputs = mel_outputs(config, {}, windows, log_mel(estimate, model.vocoder.mel_bins), batch["cutoff_hz"])
    return outputs | {"audio": denormalise(estimate, windows.stats)}


def _conditioning_mel(config: ConfigDict, frozen: dict[str, Any], windows: Windows, key: jax.Array) -> jax.Array:
    """Mel (B, T, F) of `mel_source`: the true one, decoded from the true latents, or from the student's."""
    model, dtype = model_of(config), dtype_of(config)
    if config.mel_source == "true":
        return log_mel(windows.hr, model.vocoder.mel_bins)
    key_encode, key_noise = jax.random.split(key)
    if config.mel_source == "vae":
        z = encode_waveforms(config, frozen, windows.hr, key_encode)
    else:
        _, z_lr = encode_pair(config, frozen, windows, key_encode)
        noise = jax.random.normal(key_noise, z_lr.shape)
        z = sample_latent(frozen["student"], model, z_lr, noise, dtype=dtype)
    return lax.stop_gradient(decode(frozen["vae"], model, z, frozen["scale_factor"], dtype))


def _distances(config: ConfigDict, estimate: jax.Array, crops: Crops) -> dict[str, jax.Array]:
    """Spectral distances (B,) of the generated waveforms from the recordings'."""
    if config.mel_loss == "single":
        distances = {"mel": losses.mel_l1(estimate, crops.hr, crops.mel.shape[-1])}
    else:
        distances = {"mel": losses.multi_scale_mel_l1(estimate, crops.hr)}
    if config.losses.stft:
        distances["stft"] = losses.multi_resolution_stft_l1(estimate, crops.hr)
    if config.losses.power:
        distances["power"] = losses.band_power_l1(estimate, crops.hr)
    return distances


def _judged(config: ConfigDict, estimate: jax.Array, hr: jax.Array, judge: dict) -> dict[str, jax.Array]:
    """What the discriminators of parameters `judge` say of the generated waveforms (B,)."""
    _, real_features = _discriminator(config).apply({"params": judge}, hr)
    fake_logits, fake_features = _discriminator(config).apply({"params": judge}, estimate)
    return {
        "adversarial": losses.adversarial_generator(fake_logits, "lsgan"),
        "features": losses.feature_matching(real_features, fake_features),
    }


def _uses_discriminator(config: ConfigDict) -> bool:
    return config.losses.adversarial > 0 or config.losses.features > 0


def _discriminator(config: ConfigDict) -> WaveDiscriminator:
    sizes = config.discriminator
    return WaveDiscriminator(
        tuple(sizes.periods),
        tuple(tuple(resolution) for resolution in sizes.resolutions),
        sizes.channels,
        sizes.max_channels,
        sizes.spectrogram_channels,
        dtype_of(config),
    )
