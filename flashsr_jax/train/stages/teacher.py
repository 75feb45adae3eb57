"""Stage `teacher`: the diffusion U-Net. Mean square of the v-prediction's error at uniform timesteps.

Salimans & Ho 2022 (arXiv:2202.00512) for v; classifier-free guidance by dropping the condition (Ho & Salimans 2022,
arXiv:2207.12598); latent super-resolution as AudioSR (Liu et al. 2023, arXiv:2309.07314).
Letters: B batch, N samples; latents are (B, T, F, C).
"""

import jax
import jax.numpy as jnp

from flashsr_jax.models.diffusion import STEPS, UNCONDITIONAL, guided_v, q_sample, solve, solver_grid, velocity
from flashsr_jax.models.pipeline import decode
from flashsr_jax.models.unet import UNet
from flashsr_jax.train import losses
from flashsr_jax.train.batch import band_weights, prepare
from flashsr_jax.train.evaluation import mel_outputs
from flashsr_jax.train.frozen import dtype_of, encode_pair, initial_unet, load, load_initial, load_vocoder, model_of
from flashsr_jax.train.latents import latents
from flashsr_jax.train.state import TrainState, apply_gradients, create, finish_step


def load_frozen(config) -> dict:
    """The VAE, and where the config names them the first U-Net and the vocoder that renders evaluation audio."""
    return load(config, "vae_from", "vae") | load_initial(config, "unet") | load_vocoder(config)


def init(config, frozen: dict, key: jax.Array) -> TrainState:
    """A fresh U-Net, or that of config.init_from."""
    return create(config, {"teacher": initial_unet(config, frozen, key)}, "teacher")


def train_step(config, state: TrainState, frozen: dict, batch: dict, key: jax.Array):
    """One update of the U-Net."""
    key_encode, key_t, key_eps, key_drop = jax.random.split(key, 4)
    unet = UNet(model_of(config).unet, dtype_of(config), config.remat)
    windows, metrics = latents(config, frozen, batch, key_encode)
    z0, z_lr = windows.hr, windows.lr
    t_B = jax.random.randint(key_t, z0.shape[:1], 0, STEPS)
    eps = jax.random.normal(key_eps, z0.shape)
    dropped_B = jax.random.bernoulli(key_drop, config.condition_drop, z0.shape[:1])
    _, weight = band_weights(config, batch, z0.shape[2])
    cond = jnp.where(dropped_B[:, None, None, None], UNCONDITIONAL, z_lr)

    def loss(params):
        v = unet.apply({"params": params}, q_sample(z0, t_B, eps), cond, t_B)
        return losses.weighted_mean(losses.l2(v, velocity(z0, t_B, eps), weight), windows.weight)

    value, gradients = jax.value_and_grad(loss)(state.params["teacher"])
    state, norm = apply_gradients(config, state, "teacher", gradients)
    return finish_step(config, state, "teacher"), metrics | {"loss": value, **norm}


def eval_step(config, weights: dict, frozen: dict, batch: dict, key: jax.Array) -> dict:
    """Super-resolution of clips by `eval.steps` guided solver steps, and the v-prediction's error at fixed levels."""
    key_encode, key_noise = jax.random.split(key)
    model = model_of(config)
    unet = UNet(model.unet, dtype_of(config))

    def apply(z, cond, t_B):
        return unet.apply({"params": weights["teacher"]}, z, cond, t_B)

    windows, _ = prepare(batch)
    z0, z_lr = encode_pair(config, frozen, windows, key_encode)
    noise = jax.random.normal(key_noise, z0.shape)
    errors = []
    for level in (99, 299, 499, 699, 899):
        t_B = jnp.full(z0.shape[:1], level)
        errors.append(losses.l2(apply(q_sample(z0, t_B, noise), z_lr, t_B), velocity(z0, t_B, noise)))

    def predict_v(z, t_B):
        return guided_v(apply, z, z_lr, t_B, config.eval.guidance)

    z_hat = solve(predict_v, noise, solver_grid(config.eval.steps))
    decoded = decode(frozen["vae"], model, z_hat, frozen["scale_factor"], dtype_of(config))
    outputs = mel_outputs(config, frozen, windows, decoded, batch["cutoff_hz"])
    outputs["metrics"]["velocity_mse"] = sum(errors) / len(errors)
    return outputs
