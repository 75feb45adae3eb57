"""Stage `regression`: the student's U-Net trained without diffusion, to predict the clean latents at t = 999 at once.

L1 of the clean latents + latent_l2 x their mean square + mel x L1 of the log-mel that the frozen VAE decodes of them.
What the diffusion stages have to beat, and a start for the teacher (config.init_from).

The best guess under L1 is a median. Where a loud consonant is rare it is silence, 30 dB too quiet; the mean square's
best guess is the mean, and its gradient grows with the error. `losses.loudness` weighs loud moments more.
Letters: B batch, N samples, F mel bins; latents are (B, T, F, C).
"""

import jax
import jax.numpy as jnp

from flashsr_jax.models.diffusion import STEPS, z0_from_v
from flashsr_jax.models.pipeline import decode
from flashsr_jax.models.unet import UNet
from flashsr_jax.train import losses
from flashsr_jax.train.batch import band_weights
from flashsr_jax.train.frozen import dtype_of, initial_unet, load, load_initial, load_vocoder, model_of
from flashsr_jax.train.latents import latents
from flashsr_jax.train.stages import student
from flashsr_jax.train.state import TrainState, apply_gradients, create, finish_step


def load_frozen(config) -> dict:
    """The VAE, and where the config names them the first U-Net and the vocoder that renders evaluation audio."""
    return load(config, "vae_from", "vae") | load_initial(config, "unet") | load_vocoder(config)


def init(config, frozen: dict, key: jax.Array) -> TrainState:
    """A fresh U-Net, or that of config.init_from."""
    return create(config, {"regression": initial_unet(config, frozen, key)}, "regression")


def train_step(config, state: TrainState, frozen: dict, batch: dict, key: jax.Array):
    """One update of the U-Net."""
    key_encode, key_noise = jax.random.split(key)
    model, dtype = model_of(config), dtype_of(config)
    unet = UNet(model.unet, dtype, config.remat)
    windows, metrics = latents(config, frozen, batch, key_encode)
    z0, z_lr = windows.hr, windows.lr
    mel_weight, latent_weight = band_weights(config, batch, z0.shape[2])
    latent_weight *= losses.loudness_weights(windows.mel, z0.shape[1:3], config.losses.loudness)
    noise, t_B = jax.random.normal(key_noise, z0.shape), jnp.full(z0.shape[:1], STEPS - 1)

    def mean_of(loss_B):
        return losses.weighted_mean(loss_B, windows.weight)

    def loss(params):
        z_hat = z0_from_v(noise, t_B, unet.apply({"params": params}, noise, z_lr, t_B))
        terms = {
            "latent": mean_of(losses.l1(z_hat, z0, latent_weight)),
            "latent_l2": mean_of(losses.l2(z_hat, z0, latent_weight)),
        }
        if config.losses.mel:
            decoded = decode(frozen["vae"], model, z_hat, frozen["scale_factor"], dtype, config.remat)
            terms["mel"] = mean_of(losses.l1(decoded, windows.mel, mel_weight))
        return sum(config.losses[name] * term for name, term in terms.items()), terms

    (total, terms), gradients = jax.value_and_grad(loss, has_aux=True)(state.params["regression"])
    state, norm = apply_gradients(config, state, "regression", gradients)
    return finish_step(config, state, "regression"), metrics | {"loss": total, **terms, **norm}


def eval_step(config, weights: dict, frozen: dict, batch: dict, key: jax.Array) -> dict:
    """Super-resolution of clips by one evaluation, as the student's."""
    return student.eval_step(config, {"student": weights["regression"]}, frozen, batch, key)
