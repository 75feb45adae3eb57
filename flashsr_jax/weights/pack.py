"""From the runs of the stages to one weights file that `flashsr upscale` takes."""

import dataclasses
from collections.abc import Mapping

from flashsr_jax.errors import UserError
from flashsr_jax.weights.runs import load_network
from flashsr_jax.weights.store import NETWORKS, save_weights


def pack(runs: Mapping[str, str], out: str, dtype: str = "float32") -> None:
    """Write the EMA weights of `runs`, {network: folder of a run, or weights file}, to `out`, a .safetensors file.

    The networks are any of `vae`, `unet` (a regression's, teacher's or student's run) and `vocoder`; upscaling takes
    all three. Raises UserError where a run has no checkpoint, learned on another VAE's sizes, or trains something else.
    """
    networks = {name: load_network(path, name, f"--{name}") for name, path in runs.items()}
    if not networks:
        raise UserError(f"nothing to pack: give any of {', '.join(f'--{name}' for name in NETWORKS)}")
    first = next(iter(networks.values()))
    config = dataclasses.replace(
        first.config, **{name: getattr(network.config, name) for name, network in networks.items()}
    )
    params = {name: network.params for name, network in networks.items()}
    if "unet" in networks and networks["unet"].config.vae != config.vae:
        raise UserError(f"--unet {runs['unet']} learned on a VAE of other sizes than --vae {runs['vae']}: give its own")
    if "vae" in networks:
        params["scale_factor"] = networks["vae"].scale_factor
    save_weights(out, config, params, {name: network.origin for name, network in networks.items()}, dtype)
