"""Programs of inference that are traced once a machine, not once a process.

Flax and JAX take longer to trace the networks than to upscale ten seconds of audio by them. What tracing gives is kept
as StableHLO beside the compiled programs (`jax.export`), and the next process goes from there to the compiled one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import export

from flashsr_jax import kept


def run(function: Callable[..., jax.Array], static: tuple, *arrays: Any) -> jax.Array:
    """`function(*static, *arrays)`, compiled; `arrays` are trees of arrays, and `static` has a repr that says all."""
    leaves, structure = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return _program(function, static, structure, shapes, folder)(*leaves)


@functools.cache
def _program(
    function: Callable[..., jax.Array], static: tuple, structure: Any, shapes: tuple, folder: str | None
) -> Callable[..., jax.Array]:
    def flat(*leaves: jax.Array) -> jax.Array:
        return function(*static, *jax.tree.unflatten(structure, leaves))

    flat.__name__ = function.__name__  # what profiles and the compiled programs' files say
    traced = jax.jit(flat)
    if folder is None or jax.default_backend() != "cpu":  # measured on CPUs alone
        return traced
    of = (function.__qualname__, static, str(structure), shapes)
    data = kept.load("program", of)
    if data is None:
        examples = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        exported = export.export(traced)(*examples)
        kept.save("program", of, bytes(exported.serialize()))
    else:
        exported = export.deserialize(bytearray(data))
    return jax.jit(exported.call)
