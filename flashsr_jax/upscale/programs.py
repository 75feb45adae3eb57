"""Programs of inference that are traced once a machine, not once a process, and made ready beside other work.

Flax and JAX take longer to trace the networks than to upscale ten seconds of audio by them. What tracing gives is kept
as StableHLO beside the compiled programs (`jax.export`), and the next process goes from there to the compiled one.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax import export

from flashsr_jax import kept
from flashsr_jax.devices.runtime import compiler_options

_THREADS = ThreadPoolExecutor(1, "programs")  # XLA compiles one by all cores, two at once no sooner
_BEGUN: dict[tuple, Future] = {}


def run(function: Callable[..., jax.Array], static: tuple, *arrays: Any) -> jax.Array:
    """`function(*static, *arrays)`, compiled; `arrays` are trees of arrays, and `static` has a repr that says all."""
    return prepare(function, static, *arrays).result()(*jax.tree.leaves(arrays))


def prepare(function: Callable[..., jax.Array], static: tuple, *arrays: Any) -> Future:
    """Begin to compile, in another thread, what `run` will need for such `arrays` (or `jax.ShapeDtypeStruct`s)."""
    leaves, structure = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    program = (function, static, structure, shapes, folder)
    begun = _BEGUN.get(program)
    if begun is None or (begun.done() and begun.exception()):  # which may have been for want of memory
        begun = _BEGUN[program] = _THREADS.submit(_compiled, *program)
    return begun


@contextlib.contextmanager
def dropped_at_interrupts() -> Iterator[None]:
    """Where the block is interrupted, what `prepare` was told in it and has not begun is not compiled: the process
    would not end before."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        for program, begun in list(_BEGUN.items()):
            if begun.cancel():
                del _BEGUN[program]
        raise


def _compiled(
    function: Callable[..., jax.Array], static: tuple, structure: Any, shapes: tuple, folder: str | None
) -> Callable[..., jax.Array]:
    def flat(*leaves: jax.Array) -> jax.Array:
        return function(*static, *jax.tree.unflatten(structure, leaves))

    flat.__name__ = function.__name__  # what profiles and the compiled programs' files say
    traced = jax.jit(flat)
    if jax.default_backend() != "cpu":  # measured on CPUs alone; elsewhere the arrays say on which device
        return traced
    examples = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    if folder is None:
        return compiled(traced, *examples)
    of = (function.__qualname__, static, str(structure), shapes)
    data = kept.load("program", of)
    if data is None:
        exported = export.export(traced)(*examples)
        kept.save("program", of, bytes(exported.serialize()))
    else:
        exported = export.deserialize(bytearray(data))
    return compiled(jax.jit(exported.call), *examples)


def compiled(jitted: jax.stages.Wrapped, *examples: Any) -> jax.stages.Compiled:
    """The program of a jitted function for such arguments, on the default device."""
    return jitted.lower(*examples).compile(compiler_options(jax.default_backend()))
