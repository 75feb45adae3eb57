"""What programs pass to the Python functions: arrays of any library and type, and options by their names.

Letters: C channels, N samples.
"""

import difflib
import math
import numbers
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from flashsr_jax.audio.files import MOST_CHANNELS
from flashsr_jax.errors import UserError

CHANNELS = MOST_CHANNELS["wav"]  # that are upscaled at most
INTEGERS = {"uint8": (128, 128), "int8": (0, 128), "int16": (0, 1 << 15), "int32": (0, 1 << 31)}  # (zero, full scale)


def as_samples(x: Any) -> np.ndarray:
    """Samples as float32 around [-1, 1]: from floats of any width, or from integers by the full scale of their type.

    Takes what NumPy takes (lists, JAX arrays), and tensors of PyTorch on any device. Raises UserError for what has no
    scale (booleans, wide and unsigned integers) and for what are no samples at all.
    """
    if isinstance(x, (str, bytes)):
        raise UserError(f"expected an array of samples, got {_said(x)}: read a file with soundfile.read first")
    try:
        if hasattr(x, "detach") and hasattr(x, "cpu"):  # a tensor: NumPy takes none with a gradient or from a GPU
            x = x.detach().cpu()
            x = x.float() if x.is_floating_point() else x  # bfloat16 is unknown to NumPy
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of different lengths, a tensor without values, say
        raise UserError(f"expected an array of samples: {str(error).splitlines()[0]}") from error
    kind = array.dtype.name
    if kind in INTEGERS:
        zero, full_scale = INTEGERS[kind]
        return (array.astype(np.float32) - np.float32(zero)) / np.float32(full_scale)
    if kind != "bfloat16" and array.dtype.kind != "f":
        raise UserError(f"samples of type {kind} have no scale: pass floats in [-1, 1], or int16, int32, int8 or uint8")
    with np.errstate(over="ignore"):  # an infinity, which is named with its place later on
        return array.astype(np.float32, copy=False)


def check_channels(x: np.ndarray) -> None:
    """Raise UserError where the shape (..., C, N) has no channels, or so many that they must be something else."""
    *_, channels, length = x.shape
    if not channels:
        raise UserError(f"expected at least one channel, got shape {x.shape}")
    if channels > CHANNELS:
        raise UserError(f"shape {x.shape}: channels come first, up to {CHANNELS}: pass {_way_out(x.ndim, length)}")


def _way_out(dimensions: int, length: int) -> str:
    if length > CHANNELS:
        return "mono examples as (examples, 1, samples): x[:, None]" if dimensions == 2 else "fewer"
    return "x.T" if dimensions == 2 else "x.swapaxes(1, 2)"


def as_blocks(blocks: Iterable[Any], channels: int) -> Iterator[np.ndarray]:
    """Blocks as `as_samples` reads them, each of shape (C, n). Raises UserError naming the first that has another."""
    if isinstance(blocks, (str, bytes)) or not isinstance(blocks, Iterable):
        raise UserError(f"expected an iterable of blocks ({channels}, n), got {type(blocks).__name__}")
    return _as_blocks(blocks, channels)


def _as_blocks(blocks: Iterable[Any], channels: int) -> Iterator[np.ndarray]:
    for number, block in enumerate(blocks):
        block = as_samples(block)
        if block.ndim != 2 or len(block) != channels:
            flipped = block.ndim == 2 and block.shape[1] == channels
            way_out = "channels come first: pass block.T" if flipped else "one channel is block[None]"
            raise UserError(f"block {number} has shape {block.shape}, not ({channels}, n): {way_out}")
        yield block


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UserError for the first option that does not exist, with the one it resembles."""
    known = list(known)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise UserError(
                f"there is no option {name}: {f'is it {close[0]}?' if close else 'take ' + ', '.join(known)}"
            )


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """An option as Python's int; those of NumPy, which overflow, are integers, too. Raises UserError where it is none
    from `low` to `high`."""
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None or not low <= whole <= high:
        raise UserError(f"{name}={_said(value)} is not an integer from {low} to {high}")
    return whole


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise UserError where an option is none of some words."""
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{name}={_said(value)}: take {' or '.join(map(repr, choices))}")


def check_number(name: str, value: Any) -> None:
    """Raise UserError where an option is no finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise UserError(f"{name}={_said(value)} is not a number")


def _said(value: Any) -> str:
    """A value as a message of one line shows it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
