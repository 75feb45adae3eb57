"""Where arrays live: the device mesh, rules that shard parameters over it, and host batches as global arrays.

The mesh has two axes. A batch is split over both; a parameter is split over `fsdp` alone and repeated over `data`.
The same program then runs on one device (1 x 1), data parallel (n x 1), fully sharded (1 x n) or mixed.
"""

import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from flashsr_jax.errors import UserError

LOGGER = logging.getLogger(__name__)
AXES = ("data", "fsdp")
BATCH_SPEC = PartitionSpec(AXES)


def make_mesh(data: int, fsdp: int) -> Mesh:
    """A (data, fsdp) mesh over all devices; one of the two may be -1, "whatever remains".

    Raises UserError where the sizes do not multiply to the number of devices.
    """
    return jax.make_mesh(mesh_shape(data, fsdp, jax.device_count()), AXES, axis_types=(AxisType.Auto,) * 2)


def mesh_shape(data: int, fsdp: int, count: int) -> tuple[int, int]:
    """Sizes of the axes over `count` devices; one of the two may be -1. Raises UserError as `make_mesh` does."""
    if data == -1 and fsdp > 0 and count % fsdp == 0:
        data = count // fsdp
    elif fsdp == -1 and data > 0 and count % data == 0:
        fsdp = count // data
    if data * fsdp != count or data < 1:
        raise UserError(
            f"mesh data={data} x fsdp={fsdp} does not cover {count} devices: "
            "set config.mesh.data and config.mesh.fsdp so that their product is that number (-1: the rest)"
        )
    return data, fsdp


def check_batch_size(batch_size: int, mesh: Mesh | AbstractMesh, accumulate: int = 1) -> None:
    """Raises UserError unless each of `accumulate` parts of the global batch divides over all devices of the mesh."""
    if accumulate < 1:
        raise UserError(f"config.accumulate={accumulate}: give the number of a batch's parts, 1 or more")
    multiple = mesh.size * accumulate
    if batch_size < 1 or batch_size % multiple:
        below = max(multiple, batch_size // multiple * multiple)
        parts = f", in config.accumulate={accumulate} parts each" if accumulate > 1 else ""
        raise UserError(
            f"config.batch_size={batch_size} does not divide over the mesh's {mesh.size} devices "
            f"({dict(mesh.shape)}){parts}: use a multiple of {multiple}, such as {below}"
        )


def path_string(path: tuple) -> str:
    """`params/student/conv_in/kernel` for a pytree key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def tree_shardings(
    tree: Any, mesh: Mesh | AbstractMesh, rules: Sequence[tuple[str, tuple]], min_size: int, name: str = "state"
) -> Any:
    """A NamedSharding for every leaf of `tree` (arrays or ShapeDtypeStructs).

    `rules` are (regular expression on the leaf's path, partition spec); the first match wins. Without a match, a leaf
    of at least `min_size` elements is split over `fsdp` along its largest axis that divides, and a smaller one is
    repeated. Optimizer moments carry their parameter's path and shape, so they follow it. What was decided is logged.
    Raises UserError for a rule whose spec does not fit a leaf that it matches.
    """
    fsdp = mesh.shape["fsdp"]
    sharded = []

    def spec_of(path: tuple, leaf: jax.ShapeDtypeStruct) -> PartitionSpec:
        where = path_string(path)
        for pattern, spec in rules:
            if re.search(pattern, where):
                check_spec(pattern, tuple(spec), where, leaf.shape)
                return PartitionSpec(*spec)
        divisible = [axis for axis, size in enumerate(leaf.shape) if size % fsdp == 0]
        if fsdp == 1 or not divisible or math.prod(leaf.shape) < min_size:
            return PartitionSpec()
        axis = max(divisible, key=lambda axis: leaf.shape[axis])
        return PartitionSpec(*(None,) * axis, "fsdp")

    def check_spec(pattern: str, spec: tuple, where: str, shape: tuple[int, ...]) -> None:
        sizes = [math.prod(mesh.shape[axis] for axis in np.atleast_1d(entry)) if entry else 1 for entry in spec]
        if len(spec) > len(shape) or any(n % size for n, size in zip(shape, sizes, strict=False)):
            raise UserError(
                f"sharding rule {pattern!r} -> {spec} does not fit {where} of shape {shape}: change the rule"
            )

    def sharding_of(path: tuple, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        spec = spec_of(path, leaf)
        if any(spec):
            sharded.append((path_string(path), leaf.shape, spec))
        return NamedSharding(mesh, spec)

    shardings = jax.tree_util.tree_map_with_path(sharding_of, tree)
    LOGGER.info("%s: %d of %d arrays sharded on %s", name, len(sharded), len(jax.tree.leaves(tree)), dict(mesh.shape))
    for where, shape, spec in sharded:
        LOGGER.debug("  %s %s -> %s", where, shape, spec)
    return shardings


def to_global(batch: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Each process's part of a batch (numpy, leading axis: examples) as global arrays split over the whole mesh."""
    sharding = NamedSharding(mesh, BATCH_SPEC)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def place(tree: Any, shardings: Any) -> Any:
    """Put host arrays that every process holds whole (frozen networks) onto the mesh."""
    return jax.tree.map(
        lambda x, sharding: jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.asarray(x)[index]),
        tree,
        shardings,
    )
