"""Stage `vae`: encoder and decoder of log-mel spectrograms, with an optional patch discriminator.

Loss: L1 (or L2) on the log-mel + kl x mean KL + adversarial x hinge, the last from a given step on.
LDM (Rombach et al. 2022, arXiv:2112.10752), section 3.1 and appendix G; AudioSR (Liu et al. 2023, arXiv:2309.07314).
Letters: B batch, N samples, T mel frames, F mel bins.
"""

import jax
import jax.numpy as jnp
from jax import lax

from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.errors import UserError
from flashsr_jax.models.discriminators import PatchDiscriminator
from flashsr_jax.models.pipeline import latent_shape
from flashsr_jax.models.vae import VAE, posterior_sample
from flashsr_jax.train import losses
from flashsr_jax.train.batch import prepare
from flashsr_jax.train.evaluation import mel_outputs
from flashsr_jax.train.frozen import dtype_of, load_initial, load_vocoder, model_of
from flashsr_jax.train.optimisers import update_ema
from flashsr_jax.train.state import TrainState, apply_gradients, create, finish_step

ENCODER = ("encoder", "quant_conv")  # parts of the VAE that make latents


def load_frozen(config) -> dict:
    """Where the config names them, the first VAE and the vocoder that renders evaluation audio."""
    if not config.train_encoder and not config.init_from:
        raise UserError("config.train_encoder=False keeps the encoder of a trained VAE: set config.init_from")
    return load_initial(config, "vae") | load_vocoder(config)


def init(config, frozen: dict, key: jax.Array) -> TrainState:
    """Encoder and decoder (fresh, or of config.init_from) and, where its weight is not zero, a fresh discriminator."""
    model = model_of(config)
    mel = jnp.zeros((1, config.data.window_frames, model.vae.mel_bins))
    key_vae, key_discriminator = jax.random.split(key)
    fresh = VAE(model.vae).init(key_vae, mel)["params"]
    params = {"vae": jax.tree.map(jnp.copy, frozen.get("init", fresh))}
    if config.losses.adversarial > 0:
        params["discriminator"] = _discriminator(config).init(key_discriminator, mel)["params"]
    # Moments of the unscaled latents; whoever loads the VAE takes scale_factor = 1 / std from them.
    square = jnp.float32(1.0) / jnp.square(frozen.get("scale_factor", 1.0))
    return create(config, params, "vae", {"latent_mean": jnp.zeros(()), "latent_square": square})


def train_step(config, state: TrainState, frozen: dict, batch: dict, key: jax.Array):
    """One update of the autoencoder and of the discriminator, which counts from `losses.adversarial_from` on."""
    key_low, key_eps = jax.random.split(key)
    model = model_of(config)
    vae, discriminator = VAE(model.vae, dtype_of(config), config.remat), _discriminator(config)
    windows, metrics = prepare(batch)
    # The condition is the latent of a low-resolution mel, so the autoencoder has to know those too.
    show_low_Bx1 = jax.random.bernoulli(key_low, config.low_resolution_fraction, (windows.hr.shape[0], 1))
    mel = log_mel(jnp.where(show_low_Bx1, windows.lr, windows.hr), model.vae.mel_bins)
    eps = jax.random.normal(key_eps, (mel.shape[0], *latent_shape(model, windows.hr.shape[-1])))
    distance = {"l1": losses.l1, "l2": losses.l2}[config.losses.distance]
    has_discriminator = config.losses.adversarial > 0
    adversarial_weight = config.losses.adversarial * (state.step >= config.losses.adversarial_from)

    def mean_of(loss_B):
        return losses.weighted_mean(loss_B, windows.weight)

    def autoencoder_loss(params):
        mean, logvar = vae.apply({"params": params}, mel, method=VAE.encode)
        if not config.train_encoder:
            mean, logvar = lax.stop_gradient((mean, logvar))
        z = posterior_sample(mean, logvar, eps)
        decoded = vae.apply({"params": params}, z, method=VAE.decode)
        terms = {
            "reconstruction": mean_of(distance(decoded, mel)),
            "kl": mean_of(losses.kl_divergence(mean, logvar)),
        }
        total = terms["reconstruction"] + config.losses.kl * terms["kl"]
        if has_discriminator:
            logits = discriminator.apply({"params": state.params["discriminator"]}, decoded)
            terms["adversarial"] = mean_of(losses.adversarial_generator(logits, "hinge"))
            total += adversarial_weight * terms["adversarial"]
        return total, (terms, z, lax.stop_gradient(decoded))

    (total, (terms, z, decoded)), gradients = jax.value_and_grad(autoencoder_loss, has_aux=True)(state.params["vae"])
    state_after, norm = apply_gradients(config, state, "vae", gradients)
    if not config.train_encoder:  # without gradients, its weights would still decay
        kept = {name: state.params["vae"][name] for name in ENCODER}
        trained = {**state_after.params, "vae": {**state_after.params["vae"], **kept}}
        state_after = state_after.replace(params=trained)
    metrics |= {"loss": total, **terms, **norm}

    if has_discriminator:

        def discriminator_loss(params):
            real, fake = (discriminator.apply({"params": params}, x) for x in (mel, decoded))
            return mean_of(losses.adversarial_discriminator(real, fake, "hinge"))

        loss, gradients = jax.value_and_grad(discriminator_loss)(state.params["discriminator"])
        state_after, norm = apply_gradients(config, state_after, "discriminator", gradients)
        metrics |= {"discriminator": loss, **norm}

    if config.train_encoder:
        moments = {"latent_mean": jnp.mean(z), "latent_square": jnp.mean(jnp.square(z))}
        averaged = update_ema({name: state.weights[name] for name in moments}, moments, state.step, config.ema_decay)
        state_after = state_after.replace(weights={**state_after.weights, **averaged})
    return finish_step(config, state_after, "vae"), metrics


def eval_step(config, weights: dict, frozen: dict, batch: dict, key: jax.Array) -> dict:
    """Reconstruction of clips through the posterior's mean: metrics per clip, mels and, with a vocoder, audio."""
    model = model_of(config)
    windows, _ = prepare(batch)
    mel = log_mel(windows.hr, model.vae.mel_bins)
    decoded = VAE(model.vae, dtype_of(config)).apply({"params": weights["vae"]}, mel)
    return mel_outputs(config, frozen, windows, decoded, batch["cutoff_hz"])


def _discriminator(config) -> PatchDiscriminator:
    return PatchDiscriminator(config.discriminator.channels, dtype_of(config))
