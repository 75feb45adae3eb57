"""How fast a training step is here: python -m flashsr_jax.cost.training train [--stage student] [--preset base].

Weights are random, since they take as long as trained ones; so are the waveforms, unless --data names a dataset. Every
stage and preset runs in a process of its own, whose peak memory is its own.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from flashsr_jax.audio import HOP, SAMPLE_RATE
from flashsr_jax.audio.lowpass import LowpassFilter, filter_arrays
from flashsr_jax.cost.machine import MatrixRate, peak_memory
from flashsr_jax.cost.plan.chips import CHIPS
from flashsr_jax.cost.plan.run import Run
from flashsr_jax.data.batches import make_iterator
from flashsr_jax.devices import sharding
from flashsr_jax.errors import UserError
from flashsr_jax.models import flops
from flashsr_jax.models.presets import PRESETS
from flashsr_jax.train.loop import STAGES, make_programs

COLUMNS = {
    "stage": "stage",
    "preset": "preset",
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


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        if len(args.stage) * len(args.preset) == 1:
            rows = [measure(_config(args), args.preset[0], args.steps, args.profile)]
        else:
            rows = [_in_own_process(args, stage, preset) for preset in args.preset for stage in args.stage]
    except UserError as error:
        print(f"flashsr_jax: {error}", file=sys.stderr)
        return 1
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))
    return 0


def measure(config, preset: str, steps: int, profile: str | None = None) -> dict:
    """Figures of `steps` training steps of `config`, after compiling anew and one step to warm up.

    Share of the peak: of the maker's figure where the device is in `plan.chips`, else of the rate of a matrix product
    of the same type measured just before and after. With `profile`, a folder, the steps are traced into it.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_batch_size(config.batch_size, mesh)
    frozen, data = _random_frozen(config, mesh), _batches(config)
    programs = make_programs(config, STAGES[config.stage], mesh, frozen)
    key = jax.random.key(0)
    state = programs.init(frozen, key)
    batch = sharding.to_global(next(data), mesh)
    fixed, with_one = (flops.count(programs.step, state, frozen, batch, key, while_trips=n) for n in (0, 1))
    rate = MatrixRate(config.dtype)

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
    per_device = (fixed * steps + (with_one - fixed) * float(trips)) / seconds / mesh.size
    frames = config.get("crop_frames", config.data.window_frames)
    kind = jax.devices()[0].device_kind
    peak = next((chip.peak for chip in CHIPS if chip.matches(kind)), None)
    return {
        "stage": config.stage,
        "preset": preset,
        "batch": config.batch_size,
        "windows_per_second": steps * config.batch_size / seconds,
        "audio_seconds_per_second": steps * config.batch_size * frames * HOP / SAMPLE_RATE / seconds,
        "tflop_per_second": per_device * mesh.size / 1e12,
        "share_of_peak": per_device / (peak or np.mean(rates)),
        "data_wait_share": waited / seconds,
        "peak_memory_gib": peak_memory() / 2**30,
        "trace_seconds": traced - began,
        "compile_seconds": compiled - traced,
        "trace_and_compile_processor_seconds": processor,  # of all cores; on a shared machine the fairer figure
        "peak_tflop_per_second": (peak or float(np.mean(rates))) / 1e12,
        "peak_is": "the maker's, bfloat16" if peak else f"a {config.dtype} matrix product, measured",
        "device": f"{mesh.size} x {kind}",
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "dtype": config.dtype,
        "remat": config.remat,
        "steps": steps,
        "data": config.data.dir if Path(config.data.dir).is_dir() else "random",
    }


def table(rows: list[dict]) -> str:
    """Markdown of what `measure` returned."""

    def text(value) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "| --- | --- " + "| ---: " * (len(COLUMNS) - 2) + "|"]
    lines += ["| " + " | ".join(text(row[name]) for name in COLUMNS) + " |" for row in rows]
    first = rows[0]
    about = (
        f"{first['device']}, {first['cores']} cores, jax {first['jax']}; {first['steps']} steps on {first['data']} data"
    )
    peaks = sorted({f"{row['peak_tflop_per_second']:.3g} TFLOP/s ({row['peak_is']})" for row in rows})
    return "\n".join([*lines, "", about, f"peak of a device: {', '.join(peaks)}"])


def _random_frozen(config, mesh) -> dict:
    rng = np.random.default_rng(0)
    run = Run.of(config)
    _, shardings = run.shardings(mesh)
    values = jax.tree.map(lambda x: 0.02 * rng.standard_normal(x.shape, np.float32), run.frozen)
    if "scale_factor" in values:
        values["scale_factor"] = np.float32(1.0)
    return sharding.place(values, shardings)


def _batches(config):
    """Endless training batches: of the dataset where there is one, else the same noise again and again."""
    samples = config.data.window_frames * HOP
    if Path(config.data.dir).is_dir():
        yield from make_iterator(
            config.data,
            "train",
            batch_size=config.batch_size,
            window_samples=samples,
            seed=config.seed,
            workers=config.data.workers,
        )
    lowpass = filter_arrays(LowpassFilter("bessel", 10, 4000.0))
    size = config.batch_size
    batch = {
        "hr": 0.1 * np.random.default_rng(0).standard_normal((size, samples), np.float32),
        "filter": jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], size, axis=0), lowpass),
        "cutoff_hz": np.full(size, 4000, np.float32),
        "bandwidth_hz": np.full(size, SAMPLE_RATE / 2, np.float32),
        "class_id": np.zeros(size, np.int32),
    }
    while True:
        yield batch


def _config(args: argparse.Namespace):
    path = Path(args.configs) / f"{args.stage[0]}.py"
    if not path.is_file():
        raise UserError(
            f"--configs {args.configs}: there is no {path.name}; run from the repository, or name its configs/"
        )
    spec = importlib.util.spec_from_file_location(f"config_{args.stage[0]}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(args.preset[0])
    config.batch_size = args.batch or config.batch_size
    config.remat = args.remat or config.remat
    config.dtype = args.dtype or config.dtype
    config.data.dir = args.data or "random"
    return config


def _in_own_process(args: argparse.Namespace, stage: str, preset: str) -> dict:
    options = {"batch": args.batch, "steps": args.steps, "remat": args.remat, "dtype": args.dtype, "data": args.data}
    options |= {"configs": args.configs, "stage": stage, "preset": preset, "json": "/dev/stdout"}
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    if args.profile:
        given.append(f"--profile={args.profile}/{stage}-{preset}")
    command = [sys.executable, "-m", "flashsr_jax.cost.training", "train", *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UserError(f"{stage}:{preset} ended with exit code {done.returncode}; its messages are above")
    return json.JSONDecoder().raw_decode(done.stdout)[0][0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flashsr_jax.cost.training", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="train")
    train = commands.add_parser("train", help="training steps of stages and presets")
    train.add_argument("--stage", nargs="+", choices=list(STAGES), default=list(STAGES), help="default: all")
    train.add_argument("--preset", nargs="+", choices=list(PRESETS), default=list(PRESETS), help="default: all")
    train.add_argument("--batch", type=int, help="windows a step, over all devices (default: the configuration's)")
    train.add_argument("--steps", type=int, default=5, help="steps that are timed (default 5)")
    train.add_argument("--remat", help="instead of the configuration's: none, products, blocks")
    train.add_argument("--dtype", help="instead of the configuration's: float32, bfloat16")
    train.add_argument("--data", help="a dataset of `flashsr data build` instead of noise")
    train.add_argument("--configs", default="configs", help="folder of the stages' configurations (default: configs)")
    train.add_argument("--profile", help="a folder for a trace of the timed steps, for TensorBoard or Perfetto")
    train.add_argument("--json", help="a file for all figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
