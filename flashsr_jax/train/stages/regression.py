"""Stage `regression`: the student's U-Net trained without diffusion, to predict the clean latents at t = 999 at once.

L1 of the clean latents + latent_l2 x their mean square + mel x the quantile loss of the log-mel that the frozen VAE
decodes of them (L1 for the median, 0.5) + zimtohrli and visqol x what these metrics hear of the mel
+ keep x L1 to the clean latents of another U-Net, config.keep_from, where the cutoff is over config.keep_over_hz: what
is trained for some inputs must not forget the others (Li & Hoiem 2016, arXiv:1606.09282).
What the diffusion stages have to beat, and a start for the teacher (config.init_from).

The best guess under L1 is a median. Where a loud consonant is rare it is silence, 30 dB too quiet; the mean square's
best guess is the mean, and its gradient grows with the error. `losses.loudness` weighs loud moments more. A quantile of
the mel over 0.5 is louder where the band is uncertain, and as loud where it is not.
Letters: B batch, N samples, F mel bins; latents are (B, T, F, C).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from flashsr_jax.evaluate.metrics import PERCEPTUAL
from flashsr_jax.models.diffusion import STEPS, z0_from_v
from flashsr_jax.models.unet import UNet
from flashsr_jax.train import losses
from flashsr_jax.train.batch import band_weights
from flashsr_jax.train.evaluation import unet_outputs
from flashsr_jax.train.frozen import dtype_of, initial, model_of, named
from flashsr_jax.train.latents import decoded_mel, latents
from flashsr_jax.train.perceptual import metric_losses
from flashsr_jax.train.state import Gradients, TrainState, create, descend, finish_step, gradient


def needs(config: ConfigDict) -> dict[str, str]:
    """The VAE, and where the config names them the first U-Net, the one whose answers are kept, and the vocoder that
    renders evaluation audio."""
    return {"vae": "vae"} | named(config, init="unet", keep="unet", vocoder="vocoder")


def init(config: ConfigDict, frozen: dict[str, Any], key: jax.Array) -> TrainState:
    """A fresh U-Net, or that of config.init_from."""
    return create(config, {"regression": initial(config, frozen, "unet", key)}, "regression")


def train_step(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the U-Net."""
    of_part = functools.partial(gradients, config, state, frozen)
    state, metrics, _ = descend(config, state, of_part, batch, key)
    return finish_step(config, state, "regression"), metrics


def gradients(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> Gradients:
    """Of the U-Net, for a batch or a part of it."""
    key_encode, key_noise, key_level = jax.random.split(key, 3)
    unet = UNet(model_of(config).unet, dtype_of(config), config.remat)
    windows, metrics = latents(config, frozen, batch, key_encode)
    z0, z_lr = windows.hr, windows.lr
    mel_weight, latent_weight = band_weights(config, batch, z0.shape[2])
    latent_weight *= losses.loudness_weights(windows.mel, z0.shape[1:3], config.losses.loudness)
    quantile = losses.band_quantiles(config.model.vae.mel_bins, batch["cutoff_hz"], config.losses.mel_quantile)
    metrics_asked = [name for name in PERCEPTUAL if config.losses[name]]
    noise, t_B = jax.random.normal(key_noise, z0.shape), jnp.full(z0.shape[:1], STEPS - 1)

    def clean(params: dict) -> jax.Array:
        return z0_from_v(noise, t_B, unet.apply({"params": params}, noise, z_lr, t_B))

    z_kept = clean(frozen["keep"]) if config.keep_from else None

    def loss(params: dict) -> tuple[jax.Array, dict, None]:
        z_hat = clean(params)
        of_example = {"latent": losses.l1(z_hat, z0, latent_weight), "latent_l2": losses.l2(z_hat, z0, latent_weight)}
        if config.losses.mel or metrics_asked:
            mel = decoded_mel(config, frozen, z_hat)
            of_example["mel"] = losses.pinball(mel, windows.mel, quantile, mel_weight)
            of_example |= metric_losses(metrics_asked, mel, windows.mel, batch, key_level)
        if z_kept is not None:
            over_B = batch["cutoff_hz"] > config.keep_over_hz
            of_example["keep"] = over_B * losses.l1(z_hat, z_kept, latent_weight)
        total, terms = losses.weighted_sum(of_example, config.losses, windows.weight)
        return total, terms, None

    of_unet, terms, _ = gradient(state, "regression", loss, "loss")
    return Gradients({"regression": of_unet}, metrics | terms, jnp.sum(windows.weight))


def eval_step(
    config: ConfigDict, weights: dict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Super-resolution of clips by one evaluation, as the student's."""
    return unet_outputs(config, weights["regression"], frozen, batch, key)[0]
