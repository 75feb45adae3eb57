"""Stage `teacher`: the diffusion U-Net. Mean square of the v-prediction's error, weighted by timestep and position.

`losses.weighting` says how much each timestep counts, `timestep_power` how often it is drawn, `losses.loudness` how
much more loud moments count.
Salimans & Ho 2022 (arXiv:2202.00512) for v; classifier-free guidance by dropping the condition (Ho & Salimans 2022,
arXiv:2207.12598); latent super-resolution as AudioSR (Liu et al. 2023, arXiv:2309.07314).
Letters: B batch, N samples; latents are (B, T, F, C).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from flashsr_jax.models.diffusion import STEPS, UNCONDITIONAL, q_sample, velocity
from flashsr_jax.models.unet import UNet
from flashsr_jax.train import losses
from flashsr_jax.train.batch import band_weights
from flashsr_jax.train.evaluation import unet_outputs
from flashsr_jax.train.frozen import dtype_of, initial, model_of, named
from flashsr_jax.train.latents import latents
from flashsr_jax.train.state import Gradients, TrainState, create, descend, finish_step, gradient

LEVELS = (99, 299, 499, 699, 899)  # timesteps of `velocity_mse`


def needs(config: ConfigDict) -> dict[str, str]:
    """The VAE, and where the config names them the first U-Net and the vocoder that renders evaluation audio."""
    return {"vae": "vae"} | named(config, init="unet", vocoder="vocoder")


def init(config: ConfigDict, frozen: dict[str, Any], key: jax.Array) -> TrainState:
    """A fresh U-Net, or that of config.init_from."""
    return create(config, {"teacher": initial(config, frozen, "unet", key)}, "teacher")


def train_step(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the U-Net."""
    of_part = functools.partial(gradients, config, state, frozen)
    state, metrics, _ = descend(config, state, of_part, batch, key)
    return finish_step(config, state, "teacher"), metrics


def gradients(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> Gradients:
    """Of the U-Net, for a batch or a part of it."""
    key_encode, key_t, key_eps, key_drop = jax.random.split(key, 4)
    unet = UNet(model_of(config).unet, dtype_of(config), config.remat)
    windows, metrics = latents(config, frozen, batch, key_encode)
    z0, z_lr = windows.hr, windows.lr
    t_B = draw_timesteps(key_t, z0.shape[:1], config.timestep_power)
    eps = jax.random.normal(key_eps, z0.shape)
    dropped_B = jax.random.bernoulli(key_drop, config.condition_drop, z0.shape[:1])
    cond = jnp.where(dropped_B[:, None, None, None], UNCONDITIONAL, z_lr)
    _, weight = band_weights(config, batch, z0.shape[2])
    weight *= losses.loudness_weights(windows.mel, z0.shape[1:3], config.losses.loudness)
    weight_B = losses.level_weights(config.losses.weighting, t_B, config.losses.snr_limit)

    def loss(params: dict) -> tuple[jax.Array, dict, None]:
        v = unet.apply({"params": params}, q_sample(z0, t_B, eps), cond, t_B)
        loss_B = weight_B * losses.l2(v, velocity(z0, t_B, eps), weight)
        return losses.weighted_mean(loss_B, windows.weight), {}, None

    of_unet, terms, _ = gradient(state, "teacher", loss, "loss")
    return Gradients({"teacher": of_unet}, metrics | terms, jnp.sum(windows.weight))


def eval_step(
    config: ConfigDict, weights: dict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Super-resolution of clips by `eval.steps` guided solver steps, and the v-prediction's error at fixed levels."""
    steps, guidance = config.eval.steps, config.eval.guidance
    outputs, z = unet_outputs(config, weights["teacher"], frozen, batch, key, steps, guidance)
    unet = UNet(model_of(config).unet, dtype_of(config))

    def error(level: int) -> jax.Array:
        t_B = jnp.full(z.hr.shape[:1], level)
        v = unet.apply({"params": weights["teacher"]}, q_sample(z.hr, t_B, z.noise), z.lr, t_B)
        return losses.l2(v, velocity(z.hr, t_B, z.noise))

    outputs["metrics"]["velocity_mse"] = sum(map(error, LEVELS)) / len(LEVELS)
    return outputs


def draw_timesteps(key: jax.Array, shape: tuple[int, ...], power: float) -> jax.Array:
    """Timesteps whose density rises as t^(power - 1), uniform at 1. A high band's level is decided where little but
    noise is seen, in a solver's first steps."""
    return jnp.minimum(STEPS * jax.random.uniform(key, shape) ** (1 / power), STEPS - 1).astype(jnp.int32)
