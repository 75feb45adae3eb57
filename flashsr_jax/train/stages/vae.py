"""Stage `vae`: encoder and decoder of log-mel spectrograms, with an optional patch discriminator.

Loss: L1 (or L2) on the log-mel + kl x mean KL + adversarial x hinge, the last from a given step on.
LDM (Rombach et al. 2022, arXiv:2112.10752), section 3.1 and appendix G; AudioSR (Liu et al. 2023, arXiv:2309.07314).
Letters: B batch, N samples, T mel frames, F mel bins.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.errors import UserError
from flashsr_jax.models.discriminators import PatchDiscriminator
from flashsr_jax.models.pipeline import latent_shape
from flashsr_jax.models.vae import VAE, posterior_sample
from flashsr_jax.train import losses
from flashsr_jax.train.batch import Windows, prepare
from flashsr_jax.train.evaluation import mel_outputs
from flashsr_jax.train.frozen import dtype_of, initial, model_of, named
from flashsr_jax.train.optimisers import update_ema
from flashsr_jax.train.state import Gradients, TrainState, create, descend, finish_step, gradient

ENCODER = ("encoder", "quant_conv")  # parts of the VAE that make latents


def needs(config: ConfigDict) -> dict[str, str]:
    """Where the config names them, the first VAE and the vocoder that renders evaluation audio.

    Raises UserError where the encoder of no VAE is to be kept.
    """
    if not config.train_encoder and not config.init_from:
        raise UserError("config.train_encoder=False keeps the encoder of a trained VAE: set config.init_from")
    return named(config, init="vae", vocoder="vocoder")


def init(config: ConfigDict, frozen: dict[str, Any], key: jax.Array) -> TrainState:
    """Encoder and decoder (fresh, or of config.init_from) and, where its weight is not zero, a fresh discriminator."""
    key_vae, key_discriminator = jax.random.split(key)
    params = {"vae": initial(config, frozen, "vae", key_vae)}
    if config.losses.adversarial > 0:
        mel = jnp.zeros((1, config.data.window_frames, config.model.vae.mel_bins))
        params["discriminator"] = _discriminator(config).init(key_discriminator, mel)["params"]
    # Moments of the unscaled latents; whoever loads the VAE takes scale_factor = 1 / std from them.
    square = jnp.float32(1.0) / jnp.square(frozen.get("scale_factor", 1.0))
    return create(config, params, "vae", {"latent_mean": jnp.zeros(()), "latent_square": square})


def train_step(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the autoencoder and of the discriminator, which counts from `losses.adversarial_from` on."""
    after, metrics, moments = descend(config, state, functools.partial(gradients, config, state), batch, key)
    if config.train_encoder:
        moments = jax.tree.map(jnp.mean, moments)
        averaged = update_ema({name: state.weights[name] for name in moments}, moments, state.step, config.ema_decay)
        after = after.replace(weights={**after.weights, **averaged})
    else:  # without gradients, its weights would still decay
        kept = {name: state.params["vae"][name] for name in ENCODER}
        after = after.replace(params={**after.params, "vae": {**after.params["vae"], **kept}})
    return finish_step(config, after, "vae"), metrics


def gradients(config: ConfigDict, state: TrainState, batch: dict[str, Any], key: jax.Array) -> Gradients:
    """Of the autoencoder and, where there is one, the discriminator, for a batch or a part of it; with the moments (B,)
    of the latents."""
    key_low, key_eps = jax.random.split(key)
    windows, metrics = prepare(batch)
    mel = _shown(config, windows, key_low)
    eps = jax.random.normal(key_eps, (mel.shape[0], *latent_shape(model_of(config), windows.hr.shape[-1])))
    has_discriminator = config.losses.adversarial > 0
    weights = {
        "reconstruction": 1.0,
        "kl": config.losses.kl,
        "adversarial": config.losses.adversarial * (state.step >= config.losses.adversarial_from),
    }

    def autoencoder_loss(params: dict) -> tuple[jax.Array, dict, tuple[jax.Array, jax.Array]]:
        z, decoded, of_example = _reconstruct(config, params, mel, eps)
        if has_discriminator:
            logits = _discriminator(config).apply({"params": state.params["discriminator"]}, decoded)
            of_example["adversarial"] = losses.adversarial_generator(logits, "hinge")
        total, terms = losses.weighted_sum(of_example, weights, windows.weight)
        return total, terms, (z, lax.stop_gradient(decoded))

    of_vae, terms, (z, decoded) = gradient(state, "vae", autoencoder_loss, "loss")
    of_role, metrics = {"vae": of_vae}, metrics | terms

    def discriminator_loss(params: dict) -> tuple[jax.Array, dict, None]:
        real, fake = (_discriminator(config).apply({"params": params}, x) for x in (mel, decoded))
        loss_B = losses.adversarial_discriminator(real, fake, "hinge")
        return losses.weighted_mean(loss_B, windows.weight), {}, None

    if has_discriminator:
        of_role["discriminator"], terms, _ = gradient(state, "discriminator", discriminator_loss, "discriminator")
        metrics |= terms
    moments = {"latent_mean": z, "latent_square": jnp.square(z)}
    of_example = {name: jnp.mean(x, axis=(1, 2, 3)) for name, x in moments.items()}
    return Gradients(of_role, metrics, jnp.sum(windows.weight), of_example)


def eval_step(
    config: ConfigDict, weights: dict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Reconstruction of clips through the posterior's mean: metrics per clip, mels and, with a vocoder, audio."""
    model = model_of(config)
    windows, _ = prepare(batch)
    mel = log_mel(windows.hr, model.vae.mel_bins)
    decoded = VAE(model.vae, dtype_of(config)).apply({"params": weights["vae"]}, mel)
    return mel_outputs(config, frozen, windows, decoded, batch["cutoff_hz"])


def _shown(config: ConfigDict, windows: Windows, key: jax.Array) -> jax.Array:
    """Log-mels (B, T, F), a share of them of the low resolution.

    The condition is the latent of a low-resolution mel, so the autoencoder has to know those too.
    """
    show_low_Bx1 = jax.random.bernoulli(key, config.low_resolution_fraction, (windows.hr.shape[0], 1))
    return log_mel(jnp.where(show_low_Bx1, windows.lr, windows.hr), config.model.vae.mel_bins)


def _reconstruct(
    config: ConfigDict, params: dict, mel: jax.Array, eps: jax.Array
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """A sample of the posterior, the log-mel decoded from it, and what each costs (B,)."""
    vae = VAE(model_of(config).vae, dtype_of(config), config.remat)
    mean, logvar = vae.apply({"params": params}, mel, method=VAE.encode)
    if not config.train_encoder:
        mean, logvar = lax.stop_gradient((mean, logvar))
    z = posterior_sample(mean, logvar, eps)
    decoded = vae.apply({"params": params}, z, method=VAE.decode)
    distance = {"l1": losses.l1, "l2": losses.l2}[config.losses.distance]
    return z, decoded, {"reconstruction": distance(decoded, mel), "kl": losses.kl_divergence(mean, logvar)}


def _discriminator(config: ConfigDict) -> PatchDiscriminator:
    return PatchDiscriminator(config.discriminator.channels, dtype_of(config))
