"""How fast a training step is on this machine: the body of `flashsr benchmark train`.

Weights are random, since they take as long as trained ones; so are the waveforms, unless the configuration names a
dataset.
"""

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from flashsr_jax.audio import HOP, SAMPLE_RATE
from flashsr_jax.audio.lowpass import LowpassFilter, filter_arrays
from flashsr_jax.cost.machine import MatrixRate, peak_memory
from flashsr_jax.cost.plan.chips import CHIPS
from flashsr_jax.cost.plan.run import Run
from flashsr_jax.devices import sharding
from flashsr_jax.files import writable_folder
from flashsr_jax.runs.checkpoint import FOLDER, PARTS, Checkpoints
from flashsr_jax.runs.checksums import verify, write_checksums
from flashsr_jax.train.batch import seconds_per_window, waveform_batches
from flashsr_jax.train.loop import make_programs, resumed_from, step_flops
from flashsr_jax.train.stages import STAGES
from flashsr_jax.train.state import TrainState

CHECKPOINTED = ".flashsr-benchmark"  # the folder of a checkpoint that is timed
COLUMNS = {
    "configuration": "configuration",
    "batch": "batch",
    "windows_per_second": "windows/s",
    "audio_seconds_per_second": "audio s/s",
    "tflop_per_second": "TFLOP/s",
    "share_of_peak": "of peak",
    "data_wait_share": "waiting for data",
    "peak_memory_gib": "memory (GiB)",
    "trace_seconds": "trace (s)",
    "compile_seconds": "compile (s)",
}


def measure(
    config: ConfigDict,
    name: str,
    steps: int,
    profile: str | os.PathLike | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Figures of `steps` training steps of `config`, called `name`, after compiling anew and one step to warm up.

    Of several processes each makes its part of a batch; memory, and what is waited for, are this one's. Share of the
    peak: of the maker's figure where the device is in `plan.chips`, else of the rate of a matrix product of the same
    type measured just before and after. With `profile`, a folder, the steps are traced into it; with `checkpoint`, a
    folder, the state is saved there and restored, and removed again. Raises UserError for a configuration that cannot
    run on the devices that are here, and where there is no such dataset, OSError for a folder that cannot be written.
    """
    for folder in (profile, checkpoint):
        if folder:
            writable_folder(folder)
    jax.config.update("jax_enable_compilation_cache", False)
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_batch_size(config.batch_size, mesh, config.accumulate)
    data, frozen = _batches(config), _random_frozen(config, mesh)
    programs = make_programs(config, STAGES[config.stage], mesh, frozen)
    key = jax.random.key(0)
    state = programs.init(frozen, key)
    batch = sharding.to_global(next(data), mesh)
    fixed, of_trip = step_flops(programs.step, state, frozen, batch, key)
    rate = MatrixRate(config.dtype, mesh.local_devices)

    began, processor = time.perf_counter(), time.process_time()
    lowered = programs.step.lower(state, frozen, batch, key)
    traced = time.perf_counter()
    step = lowered.compile()
    compiled, processor = time.perf_counter(), time.process_time() - processor
    state, metrics = step(state, frozen, batch, key)
    jax.block_until_ready(metrics)

    rates, trips, waited = [rate()], 0.0, 0.0
    if profile:
        jax.profiler.start_trace(profile)
    start = time.perf_counter()
    for _ in range(steps):
        waiting = time.perf_counter()
        batch = sharding.to_global(next(data), mesh)
        waited += time.perf_counter() - waiting
        state, each = step(state, frozen, batch, key)
        trips = trips + each.get("solver_steps", 0)
    jax.block_until_ready((state, trips))
    seconds = time.perf_counter() - start
    if profile:
        jax.profiler.stop_trace()
    rates.append(rate())
    stored = _checkpoint_times(checkpoint, state, programs.abstract_state) if checkpoint else {}
    per_device = (fixed * steps + of_trip * float(trips)) / seconds / mesh.size
    kind, processes = jax.devices()[0].device_kind, jax.process_count()
    peak = next((chip.peak for chip in CHIPS if chip.matches(kind)), None)
    return {
        "configuration": name,
        "batch": config.batch_size,
        "windows_per_second": steps * config.batch_size / seconds,
        "audio_seconds_per_second": steps * config.batch_size * seconds_per_window(config) / seconds,
        "tflop_per_second": per_device * mesh.size / 1e12,
        "share_of_peak": per_device / (peak or np.mean(rates)),
        "data_wait_share": waited / seconds,
        "peak_memory_gib": peak_memory() / 2**30,
        "trace_seconds": traced - began,
        "compile_seconds": compiled - traced,
        "trace_and_compile_processor_seconds": processor,  # of all cores; on a shared machine the fairer figure
        "peak_tflop_per_second": (peak or float(np.mean(rates))) / 1e12,
        "peak_is": "the maker's, bfloat16" if peak else f"a {config.dtype} matrix product, measured",
        "device": f"{mesh.size} x {kind}" + (f" in {processes} processes" if processes > 1 else ""),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "dtype": config.dtype,
        "remat": config.remat,
        "steps": steps,
        "data": ", ".join(config.data.mixture) or config.data.dir or "random",
        **stored,
    }


def _checkpoint_times(folder: str | os.PathLike, state: TrainState, abstract: TrainState) -> dict[str, float]:
    """Seconds until a run's state is on disk with its checksums, and until it is back; its size; and seconds of the
    checksums in each, which are computed once more by themselves."""
    index, count = jax.process_index(), jax.process_count()
    workdir = Path(folder) / CHECKPOINTED  # the same in all processes
    saved, times = workdir / FOLDER / "0", {}
    with contextlib.ExitStack() as at_the_end:
        if index == 0:
            shutil.rmtree(workdir, ignore_errors=True)  # of a measurement that was killed
            at_the_end.callback(shutil.rmtree, workdir, ignore_errors=True)
        with contextlib.closing(Checkpoints(workdir, 1, "")) as checkpoints:

            def save() -> None:
                checkpoints.save(0, state.weights, resumed_from(state), {})
                checkpoints.wait()
                multihost_utils.sync_global_devices("a checkpoint is saved")

            def restore() -> None:
                jax.block_until_ready(checkpoints.restore(abstract.weights, resumed_from(abstract))[:2])

            times["save_seconds"] = _seconds(save)
            times["restore_seconds"] = _seconds(restore)
        times["restore_checksums_seconds"] = _seconds(lambda: verify(saved, PARTS, index, count))
        multihost_utils.sync_global_devices("a checkpoint is read")
        if index == 0:
            times["checkpoint_gib"] = sum(file.stat().st_size for file in saved.rglob("*") if file.is_file()) / 2**30
            times["save_checksums_seconds"] = _seconds(lambda: write_checksums(saved))
        multihost_utils.sync_global_devices("a checkpoint is measured")
    return times


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def table(row: dict[str, Any]) -> str:
    """Markdown of what `measure` returned."""

    def text(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [
        "| " + " | ".join(COLUMNS.values()) + " |",
        "| --- " + "| ---: " * (len(COLUMNS) - 1) + "|",
        "| " + " | ".join(text(row[name]) for name in COLUMNS) + " |",
        "",
        f"{row['device']}, {row['cores']} cores, jax {row['jax']}; {row['steps']} steps on {row['data']} data",
        f"peak of a device: {row['peak_tflop_per_second']:.3g} TFLOP/s ({row['peak_is']})",
    ]
    if "checkpoint_gib" in row:
        saved, restored = (
            f"{row[f'{what}_seconds']:.3g} s (checksums {row[f'{what}_checksums_seconds']:.3g})"
            for what in ("save", "restore")
        )
        lines.append(f"a checkpoint, {row['checkpoint_gib']:.3g} GiB: saved in {saved}, restored in {restored}")
    return "\n".join(lines)


def _random_frozen(config: ConfigDict, mesh: Mesh) -> dict:
    rng = np.random.default_rng(0)
    run = Run.of(config)
    _, shardings = run.shardings(mesh)
    values = jax.tree.map(lambda x: 0.02 * rng.standard_normal(x.shape, np.float32), run.frozen)
    if "scale_factor" in values:
        values["scale_factor"] = np.float32(1.0)
    return sharding.place(values, shardings)


def _batches(config: ConfigDict) -> Iterator[dict]:
    """This process's part of endless training batches: of config.data where it names a dataset, else the same noise
    again and again."""
    index, count = jax.process_index(), jax.process_count()
    samples, size = config.data.window_frames * HOP, config.batch_size // count
    if config.data.dir or config.data.mixture:
        return waveform_batches(config, size, index, count)
    lowpass = filter_arrays(LowpassFilter("bessel", 10, 4000.0))
    batch = {
        "hr": 0.1 * np.random.default_rng(0).standard_normal((size, samples), np.float32),
        "filter": jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], size, axis=0), lowpass),
        "cutoff_hz": np.full(size, 4000, np.float32),
        "bandwidth_hz": np.full(size, SAMPLE_RATE / 2, np.float32),
        "class_id": np.zeros(size, np.int32),
    }
    return itertools.repeat(batch)
