"""Trained networks by where they lie: the folder of a training run, or a weights file."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from flashsr_jax.errors import UserError
from flashsr_jax.models.presets import ModelConfig, model_config
from flashsr_jax.runs.checkpoint import load_parameters
from flashsr_jax.runs.checkpoint import load_weights as load_checkpoint
from flashsr_jax.runs.folder import CONFIG_FILE, read_config
from flashsr_jax.weights.origin import origin
from flashsr_jax.weights.shipped import weights_path
from flashsr_jax.weights.store import Weights
from flashsr_jax.weights.store import load_weights as load_file

NETWORKS_OF_STAGE = {
    "vae": ("vae",),
    "regression": ("unet",),
    "teacher": ("unet",),
    "student": ("unet",),
    "vocoder": ("vocoder",),
    "tune": ("vae", "unet", "vocoder"),
}


class Network(NamedTuple):
    """One trained network: its parameters (EMA) as numpy arrays, its model's sizes, and what it was trained for."""

    params: dict
    config: ModelConfig
    scale_factor: np.ndarray | np.floating | None  # of a VAE: latents as the U-Net sees them = scale_factor x the VAE's
    origin: str  # in words, see `weights.origin`: "student, step 20000"


def load_network(path: str, network: str, option: str) -> Network:
    """Load `network` (`vae`, `unet` or `vocoder`) from a run's folder, a .safetensors file, or a shipped model by name.

    A run gives its best checkpoint, or its last where it was never evaluated. `option` is the caller's name for the
    path, for the error. Raises UserError where there is nothing, or something else, at the path.
    """
    if not path:
        raise UserError(f"{option} is not set: give the folder of a finished run, or a .safetensors file")
    if Path(path).is_dir():
        return _from_run(Path(path), network, option)
    file = weights_path(path)
    if not file.exists():
        raise UserError(f"{path} does not exist: give the folder of a finished run, or a .safetensors file", option)
    weights = load_file(file, required=(network,))
    known = weights.metadata.get(network, file.name)
    return Network(weights.params[network], weights.config, weights.params.get("scale_factor"), known)


def load_run(run: str, ema: bool = True) -> Weights:
    """What a run trains, from its best checkpoint (see `load_network`); without `ema` its parameters as they were."""
    folder = Path(run)
    trained = NETWORKS_OF_STAGE[_config(folder, None)["stage"]]
    networks = {network: _from_run(folder, network, None, ema) for network in trained}
    config = next(iter(networks.values())).config
    params: dict = {name: network.params for name, network in networks.items()}
    if "vae" in networks:
        params["scale_factor"] = networks["vae"].scale_factor
    return Weights(config, params, {name: network.origin for name, network in networks.items()})


def _config(run: Path, option: str | None) -> dict:
    """The configuration of a run, with its model as a ModelConfig."""
    if not (run / CONFIG_FILE).is_file():
        raise UserError(f"{run} is not the folder of a training run (it has no {CONFIG_FILE})", option)
    config = read_config(run / CONFIG_FILE)
    if config["stage"] not in NETWORKS_OF_STAGE:
        known = ", ".join(NETWORKS_OF_STAGE)
        raise UserError(f"{run / CONFIG_FILE}: there is no stage {config['stage']!r}; those are {known}", option)
    try:
        config["model"] = model_config(config["model"])
    except UserError as error:
        raise UserError(f"{run / CONFIG_FILE}: {error}", option) from error
    return config


def _from_run(run: Path, network: str, option: str | None, ema: bool = True) -> Network:
    config = _config(run, option)
    stage = config["stage"]
    if network not in NETWORKS_OF_STAGE[stage]:
        raise UserError(f"{run} is a run of stage {stage}, which trains no {network}: give another run", option)
    weights, step = load_checkpoint(run, option)
    trained = weights
    if not ema:
        trained, step = load_parameters(run, option)
    params, scale_factor = trained[stage], None
    if stage == "vae":
        std = np.sqrt(weights["latent_square"] - np.square(weights["latent_mean"]))
        scale_factor = np.float32(1.0 / std)
    if stage == "tune":
        params = params[network]
        if network == "vae":
            params, scale_factor = {**params, **weights["encoder"]}, weights["scale_factor"]
    return Network(params, config["model"], scale_factor, origin(stage, f"step {step}"))
