"""Networks that a stage uses without training them, and the configuration they must agree with.

A stage says what it needs as data, {role: network}; its configuration says where that lies, in the field ROLE_from.
Letters: B batch, N samples; latents are (B, T, F, C).
"""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.errors import UserError
from flashsr_jax.models.networks import initial_parameters, parameter_shapes
from flashsr_jax.models.pipeline import encode, latent_shape
from flashsr_jax.models.presets import ModelConfig, model_config
from flashsr_jax.runs.networks import load_network
from flashsr_jax.train.batch import Windows


def model_of(config: ConfigDict) -> ModelConfig:
    """The model's sizes as the networks take them."""
    return model_config(config.model.to_dict())


def dtype_of(config: ConfigDict) -> np.dtype:
    """Type of the computation; parameters, norms' statistics and losses are float32 whatever it is.

    Raises UserError for one that is neither float32 nor bfloat16.
    """
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.dtype={config.dtype!r} is not one of float32, bfloat16")
    return jnp.dtype(config.dtype)


def named(config: ConfigDict, **roles: str) -> dict[str, str]:
    """Of {role: network}, those whose config.ROLE_from names one: what a stage can do without."""
    return {role: network for role, network in roles.items() if config[f"{role}_from"]}


def load(config: ConfigDict, needs: dict[str, str]) -> dict[str, Any]:
    """{role: parameters} of the networks that `needs` lists, and `scale_factor` where a VAE is among them.

    Raises UserError where config.ROLE_from names none, or one of other sizes.
    """
    frozen: dict[str, Any] = {}
    for role, network in needs.items():
        option, path = f"config.{role}_from", config[f"{role}_from"]
        trained = load_network(path, network, option)
        ours, theirs = getattr(model_of(config), network), getattr(trained.config, network)
        if ours != theirs:
            different = [field for field in vars(ours) if getattr(ours, field) != getattr(theirs, field)]
            changes = ", ".join(f"config.model.{network}.{field}={getattr(theirs, field)}" for field in different)
            raise UserError(f"{option}={path} was trained with other sizes than this run's: set {changes}")
        frozen[role] = trained.params
        if network == "vae":
            frozen["scale_factor"] = trained.scale_factor
    return frozen


def shapes(config: ConfigDict, needs: dict[str, str]) -> dict[str, Any]:
    """What `load` returns, as `jax.ShapeDtypeStruct`s of the configuration's own sizes; no file is read."""
    frozen: dict[str, Any] = {role: parameter_shapes(model_of(config), network) for role, network in needs.items()}
    scale = {"scale_factor": jax.ShapeDtypeStruct((), jnp.float32)}
    return frozen | (scale if "vae" in needs.values() else {})


def fingerprint(params: Any) -> str:
    """SHA-256 of a tree of parameters: paths, shapes and values, as float32."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {np.shape(leaf)}".encode())
        digest.update(np.ascontiguousarray(leaf, np.float32).tobytes())
    return digest.hexdigest()


def initial(config: ConfigDict, frozen: dict[str, Any], network: str, key: jax.Array) -> dict:
    """Parameters of the network that a stage trains: those of config.init_from, else fresh ones."""
    fresh = initial_parameters(model_of(config), network, key)
    return jax.tree.map(jnp.copy, frozen.get("init", fresh))


def encode_waveforms(config: ConfigDict, frozen: dict[str, Any], x_BxN: jax.Array, key: jax.Array) -> jax.Array:
    """Scaled latents of normalised waveforms: samples of the frozen VAE's posterior."""
    model = model_of(config)
    eps = jax.random.normal(key, (x_BxN.shape[0], *latent_shape(model, x_BxN.shape[1])))
    mel = log_mel(x_BxN, model.vae.mel_bins)
    return jax.lax.stop_gradient(encode(frozen["vae"], model, mel, eps, frozen["scale_factor"], dtype_of(config)))


def encode_pair(
    config: ConfigDict, frozen: dict[str, Any], windows: Windows, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scaled latents (z_hr, z_lr) of both waveforms, in one evaluation."""
    batch, samples = windows.hr.shape
    # Stacked along a new axis after the batch's, so that a batch sharded over devices stays where it is.
    both = jnp.stack([windows.hr, windows.lr], axis=1).reshape(2 * batch, samples)
    z = encode_waveforms(config, frozen, both, key)
    z = z.reshape(batch, 2, *z.shape[1:])
    return z[:, 0], z[:, 1]
