"""Weights from and to other formats: the published PyTorch checkpoints, and Orbax.

An import keeps, in a second file beside the weights, the tensors of the checkpoints that no network here uses, so that
an export gives back every tensor, bit for bit.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import lsd
from flashsr_jax.exchange.names import checkpoint_names, to_params, to_torch, untrained
from flashsr_jax.exchange.source import read
from flashsr_jax.exchange.torch_files import load_torch, save_torch
from flashsr_jax.files import local, replacing, writable_folder
from flashsr_jax.models.diffusion import PUBLISHED_SCALE_FACTOR
from flashsr_jax.models.presets import PRESETS, ModelConfig
from flashsr_jax.runs.checkpoint import save_tree
from flashsr_jax.upscale.model import Model
from flashsr_jax.upscale.stream import upscale
from flashsr_jax.weights.origin import origin
from flashsr_jax.weights.shipped import weights_path
from flashsr_jax.weights.store import NETWORKS, Weights, save_weights

FILES = {"vae": "vae", "unet": "student_ldm", "vocoder": "sr_vocoder"}  # names of the published checkpoints
STAGES = {"vae": "vae", "unet": "student", "vocoder": "vocoder"}  # that made them
OTHERS = ".others.safetensors"  # takes the place of the weights file's suffix
LISTED = 20  # misfits spelled out in an error


def import_published(
    files: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    dtype: str = "float32",
    config: ModelConfig = PRESETS["base"],
) -> None:
    """Write published checkpoints (.pth or .safetensors, in any order) as one weights file, and what no network uses
    beside it. `config` are their sizes.

    Raises UserError for a file that cannot be read safely, that is none of the three, or twice the same one, and for
    tensors that are missing, extra or misshaped, by their names.
    """
    out, tables = Path(out), checkpoint_names(config)
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: weights are .safetensors files: end its name so", "output")
    params: dict[str, Any] = {}
    others: dict[str, np.ndarray] = {}
    given: dict[str, str] = {}
    for file in files:
        tensors = _load(file)
        network = _network_of(file, tensors, tables)
        if network in params:
            raise UserError(f"{file} and {given[network]} are both a {FILES[network]}: give one")
        try:
            views, rest = to_params(tensors, tables[network])
        except ValueError as error:
            raise UserError(f"{file}: {_shortened(str(error))}") from error
        # Copies: the file's own bytes, all that were read, stay in memory as long as one view refers to them.
        params[network] = jax.tree.map(lambda view: np.array(view, order="C"), views)
        others |= {f"{network}/{name}": np.array(tensor, order="C") for name, tensor in rest.items()}
        given[network] = Path(file).name
        del tensors, views, rest
    if missing := [FILES[name] for name in NETWORKS if name not in params]:
        raise UserError(f"no checkpoint of {', '.join(missing)} among the files: give all three")
    params["scale_factor"] = np.float32(PUBLISHED_SCALE_FACTOR)
    origins = {network: origin(STAGES[network], name) for network, name in given.items()}
    save_weights(out, config, params, origins, dtype)
    with replacing(out.with_suffix(OTHERS)) as partial:
        save_file(others, partial)


def export_torch(
    weights: Weights, others: Mapping[str, np.ndarray], folder: str | os.PathLike, suffix: str
) -> list[Path]:
    """Write each network of `weights` as a state dict that the published PyTorch code loads; returns the files.

    `suffix` is "pth" or "safetensors". What no network uses comes from `others` ({network/name: tensor}), or follows
    from its definition, or is 0 where it is of no consequence.
    """
    folder, written = writable_folder(folder), []
    for network, names in checkpoint_names(weights.config).items():
        if network not in weights.params:
            continue
        unused = {name.torch: name for name in names if name.kind != "parameter"}
        kept = {torch: others.get(f"{network}/{torch}") for torch in unused}
        rest = {torch: untrained(unused[torch]) if tensor is None else tensor for torch, tensor in kept.items()}
        tensors = to_torch(weights.params[network], rest, names)
        path = folder / f"{FILES[network]}.{suffix}"
        with replacing(path) as partial:
            save_torch(partial, tensors) if suffix == "pth" else save_file(tensors, partial)
        written.append(path)
    return written


def export_orbax(weights: Weights, folder: str | os.PathLike) -> list[Path]:
    """Write the parameters as an Orbax checkpoint: a tree of the networks, and `scale_factor`. Raises UserError where
    the folder exists or cannot be written."""
    folder = local(folder)
    if folder.exists():
        raise UserError(f"{folder} exists: choose another", "output")
    writable_folder(folder.parent)
    save_tree(folder, weights.params)
    return [folder]


def export(
    source: str, to: str, out: str, dtype: str = "float32", suffix: str = "pth", ema: bool = True
) -> tuple[list[Path], float | None]:
    """Write a weights file, a shipped model or what a training run trains (`source`) in the format `to`: "torch" or
    "orbax"; returns what was written, and the change that `dtype` makes to the output (see `change_in_output`).

    `ema`: a run's averaged parameters rather than the last ones. Raises UserError where there is nothing to read, and
    for a model that the published code cannot hold.
    """
    weights, others = _source(source, ema)
    if to == "torch":
        _check_published_form(source, weights.config)
    stored = _as_type(weights, dtype)
    files = export_orbax(stored, out) if to == "orbax" else export_torch(stored, others, out, suffix)
    complete = dtype != "float32" and set(NETWORKS) <= weights.params.keys()
    return files, change_in_output(weights, stored) if complete else None


def change_in_output(weights: Weights, stored: Weights) -> float:
    """LSD between the outputs of two sets of weights, of 1.28 s of a gliding tone in noise at 8 kHz."""
    time_N = np.arange(10_240) / 8000
    noise_N = np.random.default_rng(0).normal(size=len(time_N))
    x_N = 0.2 * np.sin(2 * np.pi * (200 + 1000 * time_N) * time_N) + 0.02 * noise_N
    one, other = (
        upscale(
            Model(w.config, jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), w.params)), x_N, 8000, window_frames=128
        )
        for w in (weights, stored)
    )
    return lsd(one, other)


def _source(source: str, ema: bool) -> tuple[Weights, dict[str, np.ndarray]]:
    weights = read(source, ema)
    others = weights_path(source).with_suffix(OTHERS)
    return weights, _load(others) if others.is_file() and not Path(source).is_dir() else {}


def _load(file: str | os.PathLike) -> dict[str, np.ndarray]:
    """Tensors of a .pth or .safetensors file."""
    if Path(file).suffix != ".safetensors":
        return load_torch(file)
    if not Path(file).is_file():
        raise UserError(f"no checkpoint at {file}")
    try:
        with safe_open(file, framework="np") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{file} is not a safetensors file, or is cut short: {error}") from error


def _network_of(file: str | os.PathLike, tensors: Iterable[str], tables: Mapping) -> str:
    """Which checkpoint a file is, by the names of its tensors."""
    shared = {network: len(set(tensors) & {name.torch for name in names}) for network, names in tables.items()}
    best = max(shared, key=lambda network: shared[network])
    if not shared[best]:
        raise UserError(f"{file} is none of {', '.join(FILES.values())}: no tensor has a name that they have")
    return best


def _shortened(text: str) -> str:
    first, *lines = text.splitlines()
    more = [f"... and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return f"{first} {'; '.join([*lines[:LISTED], *more])}"


def _check_published_form(source: str, config: ModelConfig) -> None:
    standardised = (config.vae.mel_mean, config.vae.mel_std) != (0.0, 1.0)
    vocoder = config.vocoder
    if config.vae.patch != 1 or vocoder.istft_size or not vocoder.lr_conditioned or standardised:
        raise UserError(
            f"{source} has a VAE on patches, a vocoder with an inverse STFT or of the mel alone, or standardised mels, "
            "which the published PyTorch code has not: export it to orbax"
        )
    if config.expansion:
        raise UserError(
            f"{source} has an expansion of {config.expansion:g}, which the published PyTorch code has not: pack it "
            "with `expansion` 0, or export it to orbax"
        )


def _as_type(weights: Weights, dtype: str) -> Weights:
    """The networks in a storage type; `scale_factor` stays float32."""

    def convert(tree: Any) -> Any:
        return jax.tree.map(lambda x: np.asarray(x, jnp.dtype(dtype)), tree)

    params = {name: value if name == "scale_factor" else convert(value) for name, value in weights.params.items()}
    return weights._replace(params=params)
