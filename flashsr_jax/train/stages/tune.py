"""Stage `tune`: U-Net, VAE decoder and vocoder trained together for how they sound; the encoder stays as it is.

Latents of the low resolution -> U-Net at t = 999 -> decoder -> vocoder, the last on a crop. Loss: mel x log-mel
distance + power x log-power distance of wide bands + decoded x L1 of the decoded log-mel + adversarial x least squares
+ features x feature matching. The discriminators see only what is over the cutoff, given the low resolution, and learn
alone for the first `discriminator_steps`.

A regression's best guess is a mean: too soft and too smooth wherever the high band could have been louder. A judge of
waveforms rewards what could have been recorded.
Least squares and features: HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), section 2.4; a low band that conditions the
judges: AP-BWE (Lu et al. 2024, arXiv:2401.06387).
Letters: B batch, N samples of a window, T its mel frames, F mel bins, S samples of a crop.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.audio import HOP
from flashsr_jax.audio.front_end import log_mel, only_band
from flashsr_jax.errors import UserError
from flashsr_jax.models.diffusion import STEPS, z0_from_v
from flashsr_jax.models.discriminators import Band, HighBandDiscriminator
from flashsr_jax.models.pipeline import decode
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vocoder import SRVocoder
from flashsr_jax.train import losses
from flashsr_jax.train.batch import Windows, band_weights, prepare
from flashsr_jax.train.evaluation import unet_outputs
from flashsr_jax.train.frozen import dtype_of, encode_waveforms, model_of
from flashsr_jax.train.stages.vae import ENCODER
from flashsr_jax.train.stages.vocoder import Crops, random_crops
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
    stretch, first_B = random_stretch(config, windows, key_stretch)
    band, judge = Band(batch["cutoff_hz"], batch["bandwidth_hz"]), state.params["discriminator"]

    def loss(params: dict) -> tuple[jax.Array, dict, tuple[jax.Array, Crops]]:
        z_hat = clean_latents(config, params["unet"], z_lr, noise)
        mel, crops, estimate = rendered(config, params, frozen["scale_factor"], z_hat, stretch, first_B, key_crop)
        # What a codec has taken away is not to be learned.
        recorded = crops.hr + only_band(estimate - crops.hr, jnp.zeros_like(band.high_B), band.high_B)
        of_example = {
            "mel": losses.mel_l1(recorded, crops.hr, crops.mel.shape[-1]),
            "power": losses.band_power_l1(recorded, crops.hr),
            "decoded": losses.l1(mel, log_mel(stretch.hr, mel.shape[-1]), mel_weight),
        } | judged(config, judge, estimate, crops, band)
        total, terms = losses.weighted_sum(of_example, config.losses, windows.weight)
        return total, terms, lax.stop_gradient((estimate, crops))

    # Discriminators that know nothing yet would only lead astray.
    learning = state.step >= config.discriminator_steps
    of_networks, terms, (estimate, crops) = gradient(state, "tune", loss, "loss", learning)
    judge_loss = functools.partial(discriminator_loss, config, estimate, crops, band, windows.weight)
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


def random_stretch(config: ConfigDict, windows: Windows, key: jax.Array) -> tuple[Windows, jax.Array]:
    """A random `decoder_frames` of each window, at positions of the latent's grid, and the first of these (B,).

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
    return windows._replace(hr=hr, lr=lr), first_B


def clean_latents(config: ConfigDict, unet: dict, z_lr: jax.Array, noise: jax.Array) -> jax.Array:
    """The U-Net's one-step prediction from pure noise, for whole windows."""
    t_B = jnp.full(z_lr.shape[:1], STEPS - 1)
    module = UNet(model_of(config).unet, dtype_of(config), config.remat)
    return z0_from_v(noise, t_B, module.apply({"params": unet}, noise, z_lr, t_B))


def decoded(config: ConfigDict, decoder: dict, scale_factor: jax.Array, z: jax.Array, first_B: jax.Array) -> jax.Array:
    """Log-mel (B, `decoder_frames`, F) of the latents from position `first_B` on."""
    model = model_of(config)
    count = config.decoder_frames // model.vae.stride
    cut = jax.vmap(lambda z_TxFxC, first: lax.dynamic_slice_in_dim(z_TxFxC, first, count))
    return decode(decoder, model, cut(z, first_B), scale_factor, dtype_of(config), config.remat)


def rendered(
    config: ConfigDict,
    networks: dict,
    scale_factor: jax.Array,
    z_hat: jax.Array,
    stretch: Windows,
    first_B: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, Crops, jax.Array]:
    """What decoder and vocoder, `vae` and `vocoder` of `networks`, make of latents: the log-mel of each `stretch`, a
    random crop of it with the waveforms there, and the crop's waveform (B, S)."""
    mel = decoded(config, networks["vae"], scale_factor, z_hat, first_B)
    crops = random_crops(mel, stretch, config.crop_frames, key)
    vocoder = SRVocoder(model_of(config).vocoder, dtype_of(config), config.remat)
    return mel, crops, vocoder.apply({"params": networks["vocoder"]}, crops.mel, crops.lr)


def judged(config: ConfigDict, judge: dict, estimate: jax.Array, crops: Crops, band: Band) -> dict[str, jax.Array]:
    """What the discriminators of parameters `judge` say of the generated waveforms (B,)."""
    _, real_features, weights = discriminator(config).apply({"params": judge}, crops.hr, crops.lr, band)
    logits, features, _ = discriminator(config).apply({"params": judge}, estimate, crops.lr, band)
    return {
        "adversarial": losses.adversarial_generator(logits, "lsgan", weights),
        "features": losses.feature_matching(real_features, features),
    }


def discriminator_loss(
    config: ConfigDict, estimate: jax.Array, crops: Crops, band: Band, weight_B: jax.Array, params: dict
) -> tuple[jax.Array, dict, None]:
    """Of the discriminators of `params`: least squares on recordings and generated waveforms."""
    real, _, weights = discriminator(config).apply({"params": params}, crops.hr, crops.lr, band)
    fake, _, _ = discriminator(config).apply({"params": params}, estimate, crops.lr, band)
    loss_B = losses.adversarial_discriminator(real, fake, "lsgan", weights)
    return losses.weighted_mean(loss_B, weight_B), {}, None


def initial_discriminator(config: ConfigDict, key: jax.Array) -> dict:
    """Fresh parameters."""
    waveform, hz = jnp.zeros((1, config.crop_frames * HOP)), jnp.zeros(1)
    return discriminator(config).init(key, waveform, waveform, Band(hz, hz))["params"]


def discriminator(config: ConfigDict) -> HighBandDiscriminator:
    """Of the sizes of config.discriminator."""
    sizes = config.discriminator
    return HighBandDiscriminator(
        tuple(tuple(resolution) for resolution in sizes.resolutions),
        sizes.channels,
        tuple(sizes.periods),
        sizes.period_channels,
        dtype_of(config),
    )
