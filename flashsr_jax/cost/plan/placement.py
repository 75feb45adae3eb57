"""What each device of a mesh holds during a step, and what the devices send each other. From shapes and rules alone."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from ml_collections import ConfigDict

from flashsr_jax.cost.plan.chips import Chip, gather_seconds
from flashsr_jax.cost.plan.run import Run, batch_shapes
from flashsr_jax.devices import sharding


class Memory(NamedTuple):
    """Bytes on each device."""

    parameters: float
    optimizer: float
    average: float  # the exported EMA
    frozen: float
    batch: float
    activations: float  # and gradients: whatever lives within a step, by the model of `program`

    @property
    def total(self) -> float:
        """Bytes of all of them."""
        return sum(self)


class Collective(NamedTuple):
    """One kind of exchange of a step: bytes of the whole array that each of `devices` ends with, or adds to."""

    kind: str  # all-reduce, all-gather, reduce-scatter
    what: str
    size: float
    devices: int
    times: float

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step, over a ring."""
        return (2 if self.kind == "all-reduce" else 1) * self.size * (self.devices - 1) / self.devices * self.times

    def seconds(self, chip: Chip) -> float:
        """Of a step, over the links of such chips."""
        once = gather_seconds(chip, self.size, self.devices)
        return (2 if self.kind == "all-reduce" else 1) * once * self.times


def abstract_mesh(config: ConfigDict, devices: int) -> AbstractMesh:
    """The configuration's mesh over `devices` devices that need not exist. Raises UserError as `make_mesh` does."""
    shape = sharding.mesh_shape(config.mesh.data, config.mesh.fsdp, devices)
    return AbstractMesh(shape, sharding.AXES, axis_types=(AxisType.Auto,) * 2)


def held_bytes(tree: Any, shardings: Any) -> int:
    """Bytes of a tree's arrays on one device."""

    def size(leaf: jax.ShapeDtypeStruct, placed: NamedSharding) -> int:
        return math.prod(placed.shard_shape(leaf.shape)) * leaf.dtype.itemsize

    return sum(jax.tree.leaves(jax.tree.map(size, tree, shardings)))


def memory(run: Run, mesh: AbstractMesh, per_device: float) -> Memory:
    """Of a step of `per_device` windows a device."""
    state, frozen = run.shardings(mesh)
    fsdp = mesh.shape["fsdp"]
    activations = run.program.peak(per_device, 1 / fsdp)
    if fsdp > 1:  # the largest network is whole on every device while it computes
        networks = [*run.state.params.values(), *(tree for tree in run.frozen.values() if isinstance(tree, dict))]
        activations += max(map(_elements, networks)) * jnp.dtype(run.config.dtype).itemsize
    windows = sum(math.prod(x.shape[1:]) * x.dtype.itemsize for x in jax.tree.leaves(batch_shapes(run.config, 1)))
    return Memory(
        held_bytes(run.state.params, state.params),
        held_bytes(run.state.opt_state, state.opt_state),
        held_bytes(run.state.weights, state.weights),
        held_bytes(run.frozen, frozen),
        2 * windows * per_device,  # one in use, one on its way
        activations,
    )


def collectives(run: Run, mesh: AbstractMesh) -> list[Collective]:
    """Of a step: gradients summed over the devices' parts of the batch; where parameters are split over `fsdp`, these
    gathered for use. With config.accumulate, all of it for each part in turn.

    Exchanges of scalars (losses, norms) are left out.
    """
    state, frozen = run.shardings(mesh)
    data, fsdp = mesh.shape["data"], mesh.shape["fsdp"]
    found = []

    def add(kind: str, what: str, size: float, devices: int, times: float) -> None:
        if devices > 1 and size:
            found.append(Collective(kind, what, size, devices, times * run.config.accumulate))

    for role, params in run.state.params.items():
        times = run.config.fake_score_updates if role == "fake_score" else 1
        split, whole = _split_bytes(params, state.params[role])
        add("all-reduce", f"gradients of {role}", whole, mesh.size, times)
        add("reduce-scatter", f"gradients of {role}", split, fsdp, times)
        add("all-reduce", f"gradients of {role}, each its part", split / fsdp, data, times)
        add("all-gather", f"{role}, forward and backward", split, fsdp, 2 * times)
    for role, params in run.frozen.items():
        add("all-gather", f"{role}, frozen", _split_bytes(params, frozen[role])[0], fsdp, 1)
    return found


def _split_bytes(tree: Any, shardings: Any) -> tuple[int, int]:
    """(bytes of the arrays that are split, bytes of those that are whole on every device)."""
    split = whole = 0
    for leaf, placed in zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True):
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        split, whole = (split, whole + size) if placed.is_fully_replicated else (split + size, whole)
    return split, whole


def _elements(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
