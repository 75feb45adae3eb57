"""Networks that a stage uses without training them, and the configuration they must agree with.

Letters: B batch, N samples; latents are (B, T, F, C).
"""

import contextlib
import hashlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np

from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.errors import UserError
from flashsr_jax.models.pipeline import encode, latent_shape
from flashsr_jax.models.presets import ModelConfig, model_config
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vae import VAE
from flashsr_jax.models.vocoder import SRVocoder
from flashsr_jax.runs.networks import load_network
from flashsr_jax.train.batch import Windows

_SHAPES_ONLY = ContextVar("shapes only", default=False)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Within it `load` returns `jax.ShapeDtypeStruct`s of the configuration's own sizes and reads no file."""
    token = _SHAPES_ONLY.set(True)
    try:
        yield
    finally:
        _SHAPES_ONLY.reset(token)


def model_of(config) -> ModelConfig:
    """The model's sizes as the networks take them."""
    return model_config(config.model.to_dict())


def dtype_of(config) -> jnp.dtype:
    """Type of the computation; parameters, norms' statistics and losses are float32 whatever it is."""
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.dtype={config.dtype!r} is not one of float32, bfloat16")
    return jnp.dtype(config.dtype)


def load(config, name: str, network: str) -> dict:
    """{role: parameters} of the network that config.`name` points to, and the scale factor of a VAE.

    The role is the option's name without `_from`. Raises UserError where it is missing or of other sizes.
    """
    if _SHAPES_ONLY.get():
        scale = {"scale_factor": jax.ShapeDtypeStruct((), jnp.float32)} if network == "vae" else {}
        return {name.removesuffix("_from"): _shapes(config, network)} | scale
    trained = load_network(config[name], network, f"config.{name}")
    ours, theirs = getattr(model_of(config), network), getattr(trained.config, network)
    if ours != theirs:
        different = [field for field in vars(ours) if getattr(ours, field) != getattr(theirs, field)]
        changes = " ".join(f"--config.model.{network}.{field}={getattr(theirs, field)}" for field in different)
        raise UserError(f"config.{name}={config[name]} was trained with other sizes than this run's: use {changes}")
    loaded = {name.removesuffix("_from"): trained.params}
    return loaded | ({"scale_factor": trained.scale_factor} if network == "vae" else {})


def _shapes(config, network: str) -> dict:
    model, frames = model_of(config), config.data.window_frames
    mel = jnp.zeros((1, frames, model.vae.mel_bins))
    z = jnp.zeros((1, *latent_shape(model, frames * model.vocoder.hop)))
    module, inputs = {
        "vae": (VAE(model.vae), (mel,)),
        "unet": (UNet(model.unet), (z, z, jnp.zeros(1, jnp.int32))),
        "vocoder": (SRVocoder(model.vocoder), (mel, jnp.zeros((1, frames * model.vocoder.hop)))),
    }[network]
    return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]


def load_vocoder(config) -> dict:
    """The vocoder that renders evaluation audio, if config.vocoder_from names one."""
    return load(config, "vocoder_from", "vocoder") if config.vocoder_from else {}


def load_initial(config, network: str) -> dict:
    """The network that training starts from, if config.init_from names one."""
    return load(config, "init_from", network) if config.init_from else {}


def fingerprint(params) -> str:
    """SHA-256 of a tree of parameters: paths, shapes and values, as float32."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {np.shape(leaf)}".encode())
        digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
    return digest.hexdigest()


def initial_unet(config, frozen: dict, key: jax.Array) -> dict:
    """Parameters of the U-Net of config.init_from, else fresh ones."""
    if "init" in frozen:
        return jax.tree.map(jnp.copy, frozen["init"])
    model = model_of(config)
    z = jnp.zeros((1, *latent_shape(model, config.data.window_frames * model.vocoder.hop)))
    return UNet(model.unet).init(key, z, z, jnp.zeros(1, jnp.int32))["params"]


def encode_waveforms(config, frozen: dict, x_BxN: jax.Array, key: jax.Array) -> jax.Array:
    """Scaled latents of normalised waveforms: samples of the frozen VAE's posterior."""
    model = model_of(config)
    eps = jax.random.normal(key, (x_BxN.shape[0], *latent_shape(model, x_BxN.shape[1])))
    mel = log_mel(x_BxN, model.vae.mel_bins)
    return jax.lax.stop_gradient(encode(frozen["vae"], model, mel, eps, frozen["scale_factor"], dtype_of(config)))


def encode_pair(config, frozen: dict, windows: Windows, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scaled latents (z_hr, z_lr) of both waveforms, in one evaluation."""
    batch, samples = windows.hr.shape
    # Stacked along a new axis after the batch's, so that a batch sharded over devices stays where it is.
    both = jnp.stack([windows.hr, windows.lr], axis=1).reshape(2 * batch, samples)
    z = encode_waveforms(config, frozen, both, key)
    z = z.reshape(batch, 2, *z.shape[1:])
    return z[:, 0], z[:, 1]
