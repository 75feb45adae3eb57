"""One window through the three networks: log-mel, VAE encoder, U-Net, VAE decoder, SR Vocoder. Pure functions.

Letters: B batch, N samples, T mel frames (N / 480), F mel bins; latents are (B, T / s, F / s, C), s the VAE's stride.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashsr_jax.audio import HOP
from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.audio.mel import mel_frequencies
from flashsr_jax.errors import UserError
from flashsr_jax.models.diffusion import guided_v, solve, solver_grid
from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vae import VAE, posterior_sample
from flashsr_jax.models.vocoder import SRVocoder, phase_groups


def latent_shape(config: ModelConfig, samples: int) -> tuple[int, int, int]:
    """(T / s, F / s, C) of the latents of a window. Raises UserError where the window does not divide evenly."""
    multiple = HOP * config.frame_multiple
    if samples <= 0 or samples % multiple:
        raise UserError(f"a window must be a positive multiple of {multiple} samples for this model, got {samples}")
    stride = config.vae.stride
    return samples // HOP // stride, config.vae.mel_bins // stride, config.vae.latent_channels


def encode(
    params: dict, config: ModelConfig, mel_BxTxF: jax.Array, eps: jax.Array, scale: jax.Array, dtype: Any = jnp.float32
) -> jax.Array:
    """A sample of the VAE's posterior as the U-Net sees it: scale x (mean + std x eps)."""
    mean, logvar = VAE(config.vae, dtype).apply({"params": params}, mel_BxTxF, method=VAE.encode)
    return scale * posterior_sample(mean, logvar, eps)


def decode(
    params: dict, config: ModelConfig, z: jax.Array, scale: jax.Array, dtype: Any = jnp.float32, remat: str = "none"
) -> jax.Array:
    """Log-mel (B, T, F) of scaled latents; `remat` (`layers.rematerialised`) where a gradient goes through."""
    return VAE(config.vae, dtype, remat).apply({"params": params}, z / scale, method=VAE.decode)


def phase_noise_shape(config: ModelConfig, samples: int) -> tuple[int, int] | None:
    """(T / s, values of a latent frame) of the noise by which `vocode` disperses a window's phases; None where the
    model does not. Raises UserError as `latent_shape` does."""
    frames = latent_shape(config, samples)[0]
    if not config.dispersed:
        return None
    return frames, samples // config.vocoder.stage_hop // frames * phase_groups(config.vocoder)


def drawn_phase_noise(config: ModelConfig, key: jax.Array, shape: tuple[int, ...]) -> jax.Array | None:
    """What `vocode` takes for waveforms of a shape (B, N), where nothing has to go on from window to window."""
    of_window = phase_noise_shape(config, shape[1])
    return jax.random.normal(key, (shape[0], *of_window)) if of_window else None


EXPANSION_LIMIT = 0.5  # nat of amplitude, 4.3 dB
EXPANSION_HZ = (6000.0, 8000.0)  # where it begins to fade, and where it has


def expanded(mel_BxTxF: jax.Array, expansion: float) -> jax.Array:
    """A log-mel whose loud moments are louder: what a bin has over its mean of the window grows by the share
    `expansion`, by `EXPANSION_LIMIT` at most, and less within `EXPANSION_HZ`, from where on the level was right.

    A best guess moves less than what it guesses at, by the share that is not known. Speech synthesis gives a guess its
    variance back so (Toda & Tokuda 2007, IEICE Trans. Inf. & Syst. E90-D; as a postfilter: Silen et al. 2012,
    Interspeech); here over the mean alone, since a pause is no louder for being guessed.
    """
    if not expansion:
        return mel_BxTxF
    over = jax.nn.relu(mel_BxTxF - jnp.mean(mel_BxTxF, axis=1, keepdims=True))
    return mel_BxTxF + expansion_weights(mel_BxTxF.shape[-1]) * jnp.minimum(expansion * over, EXPANSION_LIMIT)


def expansion_weights(bins: int) -> np.ndarray:
    """How far each mel bin (F,) is expanded: from 1 under `EXPANSION_HZ` to 0 over it."""
    low, high = EXPANSION_HZ
    return np.clip((high - mel_frequencies(bins + 2)[1:-1]) / (high - low), 0, 1).astype(np.float32)


def restored_mel(
    params: dict, config: ModelConfig, z: jax.Array, scale: jax.Array, dtype: Any = jnp.float32
) -> jax.Array:
    """Log-mel (B, T, F) of the U-Net's latents, as the vocoder gets it: decoded and, as config.expansion says,
    expanded. `params` are the VAE's."""
    return expanded(decode(params, config, z, scale, dtype), config.expansion)


def sample_latent(
    params: dict,
    config: ModelConfig,
    z_lr: jax.Array,
    initial_noise: jax.Array,
    steps: int = 1,
    guidance: jax.Array | float = 1.0,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Clean high-resolution latents from noise at t = 999, `steps` evaluations of the U-Net (1: the student's way).

    `guidance` is the scale of classifier-free guidance, for a teacher: one, of which 1 is none at half the cost, or
    one for each example, (B, 1, 1, 1).
    """
    unet = UNet(config.unet, dtype)

    def apply(z: jax.Array, cond: jax.Array, t_B: jax.Array) -> jax.Array:
        return unet.apply({"params": params}, z, cond, t_B)

    def predict_v(z: jax.Array, t_B: jax.Array) -> jax.Array:
        unguided = not isinstance(guidance, jax.Array) and guidance == 1
        return apply(z, z_lr, t_B) if unguided else guided_v(apply, z, z_lr, t_B, guidance)

    return solve(predict_v, initial_noise, solver_grid(steps))


def predict_latent(
    params: dict,
    config: ModelConfig,
    lr_BxN: jax.Array,
    posterior_noise: jax.Array,
    initial_noise: jax.Array,
    steps: int = 1,
    guidance: float = 1.0,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Clean high-resolution latents of normalised low-resolution windows (B, N): the first half of `super_resolve`."""
    latent_shape(config, lr_BxN.shape[-1])
    mel_lr = log_mel(lr_BxN, config.vae.mel_bins)
    z_lr = encode(params["vae"], config, mel_lr, posterior_noise, params["scale_factor"], dtype)
    return sample_latent(params["unet"], config, z_lr, initial_noise, steps, guidance, dtype)


def vocode(
    params: dict,
    config: ModelConfig,
    mel_BxTxF: jax.Array,
    lr_BxN: jax.Array,
    dtype: Any = jnp.float32,
    phase_noise: jax.Array | None = None,
) -> jax.Array:
    """Waveforms (B, N) of log-mels and low-resolution waveforms; `params` are the vocoder's.

    `phase_noise` is standard normal, (B, *phase_noise_shape(config, N)); None: phases as the network makes them.
    """
    return SRVocoder(config.vocoder, dtype).apply({"params": params}, mel_BxTxF, lr_BxN, phase_noise)


def super_resolve(
    params: dict,
    config: ModelConfig,
    lr_BxN: jax.Array,
    posterior_noise: jax.Array,
    initial_noise: jax.Array,
    steps: int = 1,
    guidance: float = 1.0,
    dtype: Any = jnp.float32,
    phase_noise: jax.Array | None = None,
) -> jax.Array:
    """High-resolution waveforms (B, N) of normalised low-resolution windows (B, N) at 48 kHz.

    `params` holds `vae`, `unet`, `vocoder` and the scalar `scale_factor`; both noises are standard normal,
    (B, *latent_shape(config, N)); `phase_noise` is as in `vocode`, where the model is dispersed.
    FlashSR (Im & Nam 2025, arXiv:2501.10807), figure 1.
    Raises UserError where N does not suit the model (see `latent_shape`).
    """
    z0 = predict_latent(params, config, lr_BxN, posterior_noise, initial_noise, steps, guidance, dtype)
    mel_hr = restored_mel(params["vae"], config, z0, params["scale_factor"], dtype)
    return vocode(params["vocoder"], config, mel_hr, lr_BxN, dtype, phase_noise)
