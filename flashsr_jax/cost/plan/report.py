"""The text of a dry run."""

import functools
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType
from ml_collections import ConfigDict

from flashsr_jax.cost.plan import placement
from flashsr_jax.cost.plan.chips import (
    BANDWIDTH_SHARE,
    CHIPS,
    OPERATION_SECONDS,
    POD_SIZES,
    PRODUCT_SHARE,
    USABLE_MEMORY,
    operation_seconds,
)
from flashsr_jax.cost.plan.run import Run
from flashsr_jax.devices.sharding import AXES, check_batch_size, path_string
from flashsr_jax.train.batch import seconds_per_window

WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def report(config: ConfigDict, devices: int) -> Iterator[str]:
    """Lines about a run of `config` on `devices` devices, then about pods. Raises UserError for a mesh or a batch that
    do not divide."""
    mesh = placement.abstract_mesh(config, devices)
    check_batch_size(config.batch_size, mesh, config.accumulate)
    run = Run.of(config)
    yield from _shardings(run, mesh)
    per_device = config.batch_size // mesh.size
    yield ""
    yield (
        f"{config.stage}: mesh {dict(mesh.shape)}, batch {config.batch_size} ({per_device} a device), "
        f"{config.dtype}, remat {config.remat}"
    )
    yield from _memory(run, mesh, per_device)
    yield from _flops(run)
    yield from _collectives(run, mesh)
    yield from _limits(run)
    yield from _pods(run)


def _shardings(run: Run, mesh: AbstractMesh) -> Iterator[str]:
    """Every parameter; optimizer moments and the EMA lie as the parameter that they belong to."""
    state, frozen = run.shardings(mesh)
    yield "array | type and shape | split over | a device holds"
    trees = {"params": (run.state.params, state.params), "frozen": (run.frozen, frozen)}
    leaves = jax.tree.leaves_with_path({name: tree for name, (tree, _) in trees.items()})
    placed = jax.tree.leaves({name: shardings for name, (_, shardings) in trees.items()})
    for (path, leaf), where in zip(leaves, placed, strict=True):
        size = _size(placement.held_bytes(leaf, where))
        split = ", ".join(str(axis or "-") for axis in where.spec) if any(where.spec) else "every device whole"
        yield f"{path_string(path)} | {leaf.dtype}{list(leaf.shape)} | {split} | {size}"


def _memory(run: Run, mesh: AbstractMesh, per_device: int) -> Iterator[str]:
    held = placement.memory(run, mesh, per_device)
    yield "\na device holds (activations: from the jaxpr, with pointwise operations fused; no compiler's figure)"
    for name, size in {**held._asdict(), "total": held.total}.items():
        yield f"  {name:12s} {_size(size):>10s}"


def _flops(run: Run) -> Iterator[str]:
    yield "\nTFLOP a step, convolutions and matrix products"
    batch = run.config.batch_size
    for phase, trips in enumerate(run.solver_steps):
        solver = f" in phase {phase + 1}, {trips:.1f} solver steps" if run.config.stage == "student" else ""
        yield f"  {run.program.total_flops(batch, trips) / 1e12:.3g}{solver}"


def _collectives(run: Run, mesh: AbstractMesh) -> Iterator[str]:
    found = placement.collectives(run, mesh)
    yield "\ncollectives a step: size of the arrays, and what each device sends" if found else "\nno collectives"
    for each in found:
        times = f", {each.times:g} times" if each.times != 1 else ""
        yield f"  {each.kind:14s} {each.what}{times}: {_size(each.size)}, {_size(each.sent)}"


def _pods(run: Run) -> Iterator[str]:
    yield (
        f"\npredicted, not measured: products at {PRODUCT_SHARE:.0%} of the peak, memory and links at "
        f"{BANDWIDTH_SHARE:.0%} of theirs,\nan operation at least {1e6 * OPERATION_SECONDS:g} us, collectives not "
        "overlapped; scaling: windows/s a chip against the fewest chips"
    )
    yield "chip  chips  batch  a chip   a chip holds        step   windows/s  audio s/s    MFU  scaling"
    seconds_of_audio = seconds_per_window(run.config)
    meshes = [_pod_mesh(run.config, count) for count in POD_SIZES]
    windows = [max(1, run.config.batch_size // count) for count in POD_SIZES]
    held = [placement.memory(run, mesh, local).total for mesh, local in zip(meshes, windows, strict=True)]
    exchanged = [placement.collectives(run, mesh) for mesh in meshes]
    trips = float(np.average(run.solver_steps, weights=_phase_lengths(run.config)))
    for chip in CHIPS:
        rates = []
        for count, local, size, collectives in zip(POD_SIZES, windows, held, exchanged, strict=True):
            seconds = sum(run.program.seconds(local, trips, functools.partial(operation_seconds, chip)).values())
            seconds += sum(each.seconds(chip) for each in collectives)
            mfu = run.program.total_flops(local, trips) / seconds / chip.peak
            rates.append(local / seconds)
            fits = "fits" if size <= USABLE_MEMORY * chip.memory else "NO"
            yield (
                f"{chip.name:5s} {count:5d} {local * count:6d} {local:7d} {_size(size):>10s} {fits:4s} "
                f"{_duration(seconds):>9s} {rates[-1] * count:11.1f} {rates[-1] * count * seconds_of_audio:10.0f} "
                f"{mfu:6.1%} {rates[-1] / rates[0]:7.0%}"
            )


def _limits(run: Run) -> Iterator[str]:
    """Per chip: the largest batch that fits, and where the time goes with it."""
    trips = float(np.average(run.solver_steps, weights=_phase_lengths(run.config)))
    mesh = _pod_mesh(run.config, POD_SIZES[0])
    yield f"\nwindows a chip that fit on {POD_SIZES[0]} chips, and where the time of such a step is predicted to go"
    for chip in CHIPS:
        fits = [n for n in WINDOWS if placement.memory(run, mesh, n).total <= USABLE_MEMORY * chip.memory]
        if not fits:
            yield f"  {chip.name}: none; try config.remat=blocks, or config.mesh.fsdp={8 * mesh.shape['fsdp']}"
            continue
        kinds = run.program.seconds(fits[-1], trips, functools.partial(operation_seconds, chip))
        shares = ", ".join(f"{name} {part / sum(kinds.values()):.0%}" for name, part in list(kinds.items())[:5])
        yield f"  {chip.name}: {fits[-1]} ({shares})"


def _pod_mesh(config: ConfigDict, count: int) -> AbstractMesh:
    """The configuration's `fsdp` (at most all chips), the rest over `data`."""
    fsdp = min(config.mesh.fsdp, count) if config.mesh.fsdp > 0 else count // max(config.mesh.data, 1)
    return AbstractMesh((count // fsdp, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def _phase_lengths(config: ConfigDict) -> np.ndarray:
    if config.stage != "student":
        return np.ones(1)
    return np.diff(np.clip([0, *config.phases, config.steps], 0, config.steps))


def _size(size: float) -> str:
    unit, name = next((u, n) for u, n in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")) if size >= u or n == "KiB")
    return f"{size / unit:.2f} {name}"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.1f} ms"
