"""Stage `tune`: U-Net, VAE decoder and vocoder trained together for how they sound; the encoder stays as it is.

Latents of the low resolution -> U-Net at t = 999 -> decoder -> vocoder, the last on a crop. Loss: mel x log-mel
distance + power x log-power distance of wide bands + decoded x L1 of the decoded log-mel + adversarial x least squares
+ features x feature matching. The discriminators see only what is over the cutoff, given the low resolution, and learn
alone for the first `discriminator_steps`.

A regression's best guess is a mean: too soft and too smooth wherever the high band could have been louder. A judge of
waveforms rewards what could have been recorded. `train.hearing` has the judges and their sources.
Letters: B batch, N samples.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.audio.front_end import log_mel, only_band
from flashsr_jax.models.diffusion import STEPS, z0_from_v
from flashsr_jax.models.discriminators import Band
from flashsr_jax.models.unet import UNet
from flashsr_jax.train import losses
from flashsr_jax.train.batch import band_weights, prepare
from flashsr_jax.train.evaluation import unet_outputs
from flashsr_jax.train.frozen import dtype_of, encode_waveforms, model_of
from flashsr_jax.train.hearing import Heard, discriminator_loss, hear, initial_discriminator, judged, random_stretch
from flashsr_jax.train.stages.vae import ENCODER
from flashsr_jax.train.state import Gradients, TrainState, create, descend, finish_step, gradient


def needs(config: ConfigDict) -> dict[str, str]:
    """All three networks to start from: the VAE, the U-Net of config.init_from, the vocoder."""
    return {"vae": "vae", "init": "unet", "vocoder": "vocoder"}


def init(config: ConfigDict, frozen: dict[str, Any], key: jax.Array) -> TrainState:
    """U-Net, decoder and vocoder as one role, and fresh discriminators. The encoder goes on as it is, beside them."""
    encoder = {name: frozen["vae"][name] for name in ENCODER}
    decoder = {name: part for name, part in frozen["vae"].items() if name not in ENCODER}
    networks = {"vae": decoder, "unet": frozen["init"], "vocoder": frozen["vocoder"]}
    params = {"tune": networks, "discriminator": initial_discriminator(config, key)}
    constants = {"encoder": encoder, "scale_factor": jnp.asarray(frozen["scale_factor"])}
    params, constants = jax.tree.map(jnp.copy, (params, constants))
    return create(config, params, "tune", constants)


def train_step(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the networks against the discriminators before it, after these have had theirs alone, and one of
    the discriminators."""
    of_part = functools.partial(gradients, config, state, frozen)
    learning = {"tune": state.step >= config.discriminator_steps}
    state, metrics, _ = descend(config, state, of_part, batch, key, learning)
    return finish_step(config, state, "tune"), metrics


def gradients(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> Gradients:
    """Of the networks and of the discriminators, for a batch or a part of it."""
    key_encode, key_noise, key_stretch, key_crop = jax.random.split(key, 4)
    windows, metrics = prepare(batch)
    z_lr = encode_waveforms(config, frozen, windows.lr, key_encode)
    noise = jax.random.normal(key_noise, z_lr.shape)
    mel_weight, _ = band_weights(config, batch, z_lr.shape[2])
    stretch = random_stretch(config, windows, key_stretch)
    band, judge = Band(batch["cutoff_hz"], batch["bandwidth_hz"]), state.params["discriminator"]

    def loss(params: dict) -> tuple[jax.Array, dict, Heard]:
        z_hat = clean_latents(config, params["unet"], z_lr, noise)
        mel, heard = hear(config, params, frozen["scale_factor"], z_hat, stretch, band, key_crop)
        estimate, crops, _ = heard
        # What a codec has taken away is not to be learned.
        recorded = crops.hr + only_band(estimate - crops.hr, jnp.zeros_like(band.high_B), band.high_B)
        of_example = {
            "mel": losses.mel_l1(recorded, crops.hr, crops.mel.shape[-1]),
            "power": losses.band_power_l1(recorded, crops.hr),
            "decoded": losses.l1(mel, log_mel(stretch.windows.hr, mel.shape[-1]), mel_weight),
        } | judged(config, judge, heard)
        total, terms = losses.weighted_sum(of_example, config.losses, windows.weight)
        return total, terms, lax.stop_gradient(heard)

    # Discriminators that know nothing yet would only lead astray.
    learning = state.step >= config.discriminator_steps
    of_networks, terms, heard = gradient(state, "tune", loss, "loss", learning)
    judge_loss = functools.partial(discriminator_loss, config, heard, windows.weight)
    of_judge, judge_terms, _ = gradient(state, "discriminator", judge_loss, "discriminator")
    of_role = {"tune": of_networks, "discriminator": of_judge}
    return Gradients(of_role, metrics | terms | judge_terms, jnp.sum(windows.weight))


def eval_step(
    config: ConfigDict, weights: dict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Super-resolution of clips by all three networks, one evaluation of the U-Net."""
    tuned = weights["tune"]
    networks = {**frozen, "vae": {**tuned["vae"], **weights["encoder"]}, "vocoder": tuned["vocoder"]}
    return unet_outputs(config, tuned["unet"], networks, batch, key)[0]


def clean_latents(config: ConfigDict, unet: dict, z_lr: jax.Array, noise: jax.Array) -> jax.Array:
    """The U-Net's one-step prediction from pure noise, for whole windows."""
    t_B = jnp.full(z_lr.shape[:1], STEPS - 1)
    module = UNet(model_of(config).unet, dtype_of(config), config.remat)
    return z0_from_v(noise, t_B, module.apply({"params": unet}, noise, z_lr, t_B))
