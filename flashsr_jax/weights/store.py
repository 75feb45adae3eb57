"""One file for a model's weights: safetensors, with the model's configuration in its metadata.

Tensors are named by their parameter path, `vae/encoder/.../kernel`; the scalar `scale_factor` (latents as the U-Net
sees them = scale_factor x the VAE's) lies beside the networks. Nothing in the file is executed on reading.
"""

import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from flashsr_jax import kept
from flashsr_jax.errors import UserError
from flashsr_jax.files import replacing
from flashsr_jax.models.networks import NETWORKS, parameter_shapes
from flashsr_jax.models.presets import ModelConfig, model_config
from flashsr_jax.weights.shipped import SHIPPED

FORMAT = "flashsr_jax/1"
DTYPES = ("float32", "bfloat16", "float16")
MAPPED = 1 << 28  # bytes of a file that are mapped at a time
RESERVED = ("format", "config")  # metadata keys that this module writes
LISTED = 8  # mismatches spelled out in an error
STORED = ("F32", "BF16", "F16")  # DTYPES in safetensors' words
LONGEST_NAME = 200  # characters of a tensor that are shown
LONGEST_CONFIG = 1 << 16  # characters; that of `base` has 700
DAMAGED = "the file is damaged, fetch it or pack it again"
SCALES = (1e-6, 1e6)  # of a scale_factor: 1 / the deviation of the VAE's latents


class Weights(NamedTuple):
    """A model's configuration, its parameters as float32 arrays, and the free figures kept beside them."""

    config: ModelConfig
    params: dict
    metadata: dict[str, str]


def save_weights(
    path: str | os.PathLike,
    config: ModelConfig,
    params: Mapping,
    metadata: Mapping[str, str] | None = None,
    dtype: str = "float32",
) -> None:
    """Write `params` (any of `vae`, `unet`, `vocoder`: trees without the `params` level; and `scale_factor`).

    `dtype` is how the networks are stored: float32, bfloat16 or float16; `scale_factor` is always float32. `metadata`
    are free strings. Raises UserError where a tree does not fit `config`, or a value is not finite in `dtype`.
    """
    if dtype not in DTYPES:
        raise UserError(f"weights are stored as {', '.join(DTYPES)}; got {dtype!r}")
    metadata = dict(metadata or {})
    if clash := sorted(set(metadata) & set(RESERVED)):
        raise UserError(f"metadata keys {clash} are written by the weights file itself: choose other names")
    flat = {name: np.asarray(value) for name, value in flatten_dict(dict(params), sep="/").items()}
    _check_shapes(path, config, {name: value.shape for name, value in flat.items()})
    tensors = {}
    for name, value in flat.items():
        with np.errstate(over="ignore"):  # reported just below, by name
            stored = np.ascontiguousarray(value, jnp.dtype("float32" if name == "scale_factor" else dtype))
        if not np.isfinite(stored.astype(np.float32, copy=False)).all():
            raise UserError(f"{path}: {name} has values that are not finite in {stored.dtype}; not saved")
        tensors[name] = stored.reshape(value.shape)
    text = metadata | {"format": FORMAT, "config": json.dumps(dataclasses.asdict(config))}
    with replacing(path) as partial:
        save_file(tensors, partial, metadata=text)


def load_weights(
    path: str | os.PathLike, required: Iterable[str] = (), place: Callable[[np.ndarray], Any] = np.asarray
) -> Weights:
    """Read a file of `save_weights`, whatever its storage dtype, as float32.

    `required` names the networks that must be there (`NETWORKS` for upscaling). `place` is applied to each tensor as it
    is read (`jax.device_put`: so that no second copy of all of them is ever in memory). Raises UserError naming the
    file where it is missing, not safetensors, not ours, incomplete, or does not fit its configuration; and the tensor
    where one is stored as integers, has values that are not finite, or is a scale that nothing can be divided by.
    """
    if not Path(path).is_file():
        raise UserError(f"no weights file at {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}
            dtypes = {name: tensor.get_dtype() for name, tensor in slices.items()}
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file, or is cut short: {error}") from error
    if metadata.pop("format", None) != FORMAT:
        raise UserError(f"{path} is a safetensors file, but not of flashsr_jax ({FORMAT}): pack or import it first")
    config = _config(path, metadata.pop("config", ""))
    of = (config, sorted(shapes.items()))
    # The check traces all networks, which takes longer than the rest of loading; files that come along have passed it.
    if Path(path) not in SHIPPED.values() and kept.load("fits", of) is None:
        _check_shapes(path, config, shapes)
        kept.save("fits", of, b"")
    if others := [name for name, dtype in dtypes.items() if dtype not in STORED]:
        raise UserError(
            f"{path}: {_printable(others[0])} is stored as {dtypes[others[0]]}; weights are {', '.join(DTYPES)}: "
            "pack or import it again"
        )
    present = {name.split("/")[0] for name in shapes}
    needed = [*required, *(["scale_factor"] if "vae" in required else [])]
    if missing := [name for name in needed if name not in present]:
        raise UserError(f"{path} has no {', '.join(missing)} (it has {', '.join(sorted(present))}): pack them together")
    flat = {name: place(value) for name, value in _tensors(path, shapes)}
    return Weights(config, unflatten_dict(flat, sep="/"), metadata)


def _tensors(path: str | os.PathLike, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor of a file as float32. The file is opened anew for every group of them: what has been read of it stays
    mapped, and counts as memory in use, until it is closed."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        if size > MAPPED:
            groups, size = [*groups, []], 0
        groups[-1].append(name)
        size += 4 * math.prod(shape)
    for names in groups:
        with safe_open(path, framework="np") as file:
            for name in names:
                tensor = file.get_tensor(name).astype(np.float32, copy=False)
                if not np.isfinite(tensor).all():
                    raise UserError(f"{path}: {_printable(name)} has values that are not finite: {DAMAGED}")
                if name == "scale_factor" and not SCALES[0] <= tensor <= SCALES[1]:
                    raise UserError(
                        f"{path}: scale_factor is {tensor:g}, not from {SCALES[0]:g} to {SCALES[1]:g}: {DAMAGED}"
                    )
                yield name, tensor


@functools.cache
def _shapes_by_path(config: ModelConfig, network: str) -> dict[str, tuple[int, ...]]:
    tree: dict[str, Any] = flatten_dict(parameter_shapes(config, network), sep="/")
    return {f"{network}/{name}": leaf.shape for name, leaf in tree.items()}


def _config(path: str | os.PathLike, text: str) -> ModelConfig:
    """The ModelConfig that `save_weights` wrote as JSON."""
    try:
        if len(text) > LONGEST_CONFIG:
            raise UserError(f"it has {len(text)} characters")
        return model_config(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its model configuration does not suit this version: {error}") from error


def _in_blocks(config: ModelConfig, network: str) -> Iterator[str]:
    """The name of one tensor of each part that a network repeats."""
    if network == "vocoder":
        sizes = (config.vocoder.rates, config.vocoder.kernels, config.vocoder.dilations)
        for stage, block, dilation in itertools.product(*(range(len(entries)) for entries in sizes)):
            yield f"vocoder/stage_{stage}_block_{block}/conv1_{dilation}/v"
        return
    levels = config.vae if network == "vae" else config.unet
    for level, block in itertools.product(range(len(levels.multipliers)), range(levels.blocks + 1)):
        blocks = [f"{network}/decoder/up_{level}_block_{block}"]
        if block < levels.blocks:
            blocks.append(f"{network}/encoder/down_{level}_block_{block}")
        for name in blocks:
            yield f"{name}/conv1/kernel" if network == "vae" else f"{name}/residual/conv1/kernel"
            if network == "unet" and 2**level in config.unet.attention_downsamplings:
                yield f"{name}/transformer_0/conv_in/kernel"


def _printable(name: str) -> str:
    """A name from a file, which may hold anything, in one line."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}..."


def _check_shapes(path: str | os.PathLike, config: ModelConfig, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise UserError listing, by path, tensors that are missing, unexpected or misshaped for `config`.

    Whole blocks that are missing are named before the networks are traced: that takes time by how many there are.
    """
    present = {name.split("/")[0] for name in shapes}
    certain = [name for network in NETWORKS if network in present for name in _in_blocks(config, network)]
    wrong = [f"{name}: missing, expected by the configuration" for name in certain if name not in shapes]
    if not wrong:
        expected: dict[str, tuple[int, ...]] = {"scale_factor": ()} if "scale_factor" in present else {}
        try:
            for network in NETWORKS:
                if network in present:
                    expected |= _shapes_by_path(config, network)
        except (ValueError, TypeError, ArithmeticError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"{path}: its model configuration makes no network: {reason}") from error
        wrong = [
            f"{_printable(name)}: {shapes.get(name, 'missing')}, expected {expected.get(name, 'no such parameter')}"
            for name in sorted(expected.keys() | shapes.keys())
            if shapes.get(name) != expected.get(name)
        ]
    if wrong:
        more = [f"... and {len(wrong) - LISTED} more"] if len(wrong) > LISTED else []
        raise UserError(f"{path}: parameters do not fit the configuration: {'; '.join([*wrong[:LISTED], *more])}")
