"""From the runs of the stages to one weights file that `flashsr upscale` takes."""

import dataclasses

from flashsr_jax.errors import UserError
from flashsr_jax.weights.runs import load_network
from flashsr_jax.weights.store import NETWORKS, save_weights


def pack(vae: str, unet: str, vocoder: str, out: str, dtype: str = "float32") -> None:
    """Write the EMA weights of three runs (folders, or weights files) to `out`, a .safetensors file.

    `unet` may be a student's or a teacher's run. Raises UserError where a run has no checkpoint, was trained with
    another VAE's sizes, or trains something else.
    """
    paths = dict(zip(NETWORKS, (vae, unet, vocoder), strict=True))
    networks = {name: load_network(path, name, f"--{name}") for name, path in paths.items()}
    config = dataclasses.replace(
        networks["vae"].config, **{name: getattr(network.config, name) for name, network in networks.items()}
    )
    if networks["unet"].config.vae != config.vae:
        raise UserError(f"--unet {unet} learned on a VAE of other sizes than --vae {vae}: give that one")
    params = {name: network.params for name, network in networks.items()}
    params["scale_factor"] = networks["vae"].scale_factor
    save_weights(out, config, params, {name: network.origin for name, network in networks.items()}, dtype)
