"""From the runs of the stages to one weights file that `flashsr upscale` takes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from flashsr_jax.errors import UserError
from flashsr_jax.runs.networks import Network, load_network
from flashsr_jax.weights.origin import mean_origin
from flashsr_jax.weights.store import NETWORKS, save_weights


def pack(
    runs: Mapping[str, Sequence[str]],
    out: str,
    dtype: str = "float32",
    expansion: float | None = None,
    shares: Sequence[float] | None = None,
    dispersed: bool | None = None,
) -> None:
    """Write the EMA weights of `runs`, {network: folders of runs, or weights files}, to `out`, a .safetensors file.

    The networks are any of `vae`, `unet` (a regression's, teacher's or student's run) and `vocoder`; a run of `tune`
    gives each. Upscaling takes all three. Of several runs of a network the mean is taken: where one goes on from
    another, it is often better than either (Wortsman et al. 2022, arXiv:2203.05482). `shares` are how much of each it
    has, of which one may be under 0: what two runs have learned apart from what both began with can so be added up
    (Ilharco et al. 2023, arXiv:2212.04089). `expansion` is of the U-Net's log-mel, see `pipeline.expanded`; None: as
    the U-Net's own weights say. `dispersed` is of the vocoder's phases, see `vocoder.dispersed`; None: as the vocoder's
    own weights say. Raises UserError where a run has no checkpoint, learned on another VAE's sizes, or
    trains something else, and where there is not a share for each run, no network has several, or the shares do
    not add up to 1, and where there are no phases to disperse.
    """
    if shares and all(len(paths) == 1 for paths in runs.values()):
        raise UserError("are of several networks of one kind: name them, or leave this out", "shares")
    networks = {name: _mean([load_network(path, name, name) for path in paths], shares) for name, paths in runs.items()}
    if not networks:
        raise UserError(f"nothing to pack: give a {', '.join(NETWORKS[:-1])} or {NETWORKS[-1]}")
    first = next(iter(networks.values()))
    of_unet = networks["unet"].config.expansion if "unet" in networks else 0.0
    if dispersed and ("vocoder" not in networks or not networks["vocoder"].config.vocoder.istft_size):
        raise UserError("needs a vocoder with an inverse STFT (istft_size), whose phases it turns", "dispersed")
    of_vocoder = networks["vocoder"].config.dispersed if "vocoder" in networks else False
    config = dataclasses.replace(
        first.config,
        **{name: getattr(network.config, name) for name, network in networks.items()},
        expansion=of_unet if expansion is None else expansion,
        dispersed=of_vocoder if dispersed is None else dispersed,
    )
    params: dict[str, Any] = {name: network.params for name, network in networks.items()}
    if "unet" in networks and networks["unet"].config.vae != config.vae:
        raise UserError(
            f"{runs['unet'][0]} learned on a VAE of other sizes than {runs['vae'][0]}: give its own", "unet"
        )
    if "vae" in networks:
        params["scale_factor"] = networks["vae"].scale_factor
    save_weights(out, config, params, {name: network.origin for name, network in networks.items()}, dtype)


def _mean(networks: Sequence[Network], shares: Sequence[float] | None) -> Network:
    first = networks[0]
    if len(networks) == 1:
        return first
    if shares and (len(shares) != len(networks) or abs(sum(shares) - 1) > 1e-6):
        given = f"{' '.join(f'{share:g}' for share in shares)} (together {sum(shares):g})"
        raise UserError(f"{given}: give one to each of the {len(networks)} networks, together 1", "shares")
    origins = [network.origin for network in networks]
    scales = {float(network.scale_factor) for network in networks if network.scale_factor is not None}
    sizes = {dataclasses.replace(network.config, expansion=0.0, dispersed=False) for network in networks}
    if len(sizes) > 1 or len(scales) > 1:
        raise UserError(f"{'; '.join(origins)} differ in size or in their latents' scale: they have no mean")
    params = jax.tree.map(lambda *leaves: np.average(leaves, 0, shares), *(network.params for network in networks))
    return first._replace(params=params, origin=mean_origin(origins, shares))
