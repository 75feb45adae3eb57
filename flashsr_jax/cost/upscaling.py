"""How fast upscaling runs on this machine, network by network, and how much memory it takes: `flashsr benchmark`.

The yardstick is the machine's own rate of float32 matrix products. It is measured anew before every timing, so that
their ratio holds on a machine that others use too.
"""

import functools
import json
import math
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import flashsr_jax
from flashsr_jax.audio import SAMPLE_RATE, WINDOW_SAMPLES
from flashsr_jax.cost.machine import MATRIX, MatrixRate, peak_memory
from flashsr_jax.models.flops import preset_costs
from flashsr_jax.models.pipeline import drawn_phase_noise, encode, latent_shape, restored_mel, sample_latent, vocode
from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.models.vocoder import fold_weight_norm
from flashsr_jax.progress import Progress
from flashsr_jax.upscale.model import Model
from flashsr_jax.upscale.programs import compiled
from flashsr_jax.upscale.stream import Settings, upscale
from flashsr_jax.upscale.windows import framing
from flashsr_jax.weights.origin import stage_of
from flashsr_jax.weights.store import NETWORKS, parameter_shapes


def random_model(config: ModelConfig) -> Model:
    """A model of that size with random weights, which computes as long as a trained one; one copy of it in memory."""
    rng = np.random.default_rng(0)

    def value(name: str, shape: tuple[int, ...]) -> jax.Array:
        if len(shape) > 1:
            return jnp.asarray(rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(math.prod(shape[:-1]))))
        return jnp.asarray(np.full(shape, name.endswith(("scale", "/g")), np.float32))

    def network(name: str) -> dict:
        shapes = flatten_dict(parameter_shapes(config, name), sep="/")
        return unflatten_dict({path: value(path, leaf.shape) for path, leaf in shapes.items()}, sep="/")

    params = {name: network(name) for name in ("vae", "unet")} | {"scale_factor": jnp.float32(1)}
    params["vocoder"] = fold_weight_norm(network("vocoder"))
    return Model(config, params, dict.fromkeys(NETWORKS, "random weights"))


def benchmark(load: Callable[[], Model], settings: Settings, repeats: int) -> dict:
    """Measure one window through `upscale`, then each network by itself: figures as `table` prints them.

    `load` returns the model; peak memory is that of loading, compiling and upscaling a window. Times are medians of
    `repeats`; programs are compiled anew, whatever the persistent cache holds. What is under way is said on a terminal.
    """
    cached = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with Progress() as progress:
            progress.say("loading the model")
            return _measure(load(), settings, repeats, progress)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)


def _measure(model: Model, settings: Settings, repeats: int, progress: Progress) -> dict:
    batch = settings.batch or 1
    frames = framing(model.config)
    samples = frames.wait - frames.lookahead + (batch - 1) * frames.step  # of so many windows
    x_N = np.random.default_rng(0).uniform(-0.1, 0.1, samples)
    options = {"steps": settings.steps, "dtype": settings.dtype, "batch": batch}

    def window() -> np.ndarray:
        return upscale(model, x_N, SAMPLE_RATE, **options)

    costs = _costs(model, batch, settings.steps)
    progress.say(f"a window: compiling, then {repeats} timings")
    first = _seconds(window)
    memory = peak_memory()
    rate = MatrixRate()
    whole = _timing(window, rate, repeats, sum(costs.values()))
    whole["compile_seconds"] = max(0.0, first - whole["seconds"])
    networks = {}
    for number, (name, (function, *inputs)) in enumerate(_functions(model, batch, settings).items(), start=1):
        progress.say(f"{name} ({number} of {len(costs)}): compiling, then {repeats} timings")
        began = time.monotonic()
        program = compiled(jax.jit(function), model.params, *inputs)
        compile_seconds = time.monotonic() - began
        run = functools.partial(program, model.params, *inputs)
        _seconds(run)
        networks[name] = _timing(run, rate, repeats, costs[name]) | {"compile_seconds": compile_seconds}
    rates = [row.pop("matrix_flops") for row in (whole, *networks.values())]
    return {
        "version": flashsr_jax.__version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "origins": dict(model.origins),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        "batch": batch,
        "steps": settings.steps,
        "dtype": settings.dtype,
        "window_seconds": WINDOW_SAMPLES / SAMPLE_RATE,
        "networks": networks,
        "window": whole,
        "matrix_gflops": statistics.median(rates) / 1e9,
        "peak_memory_bytes": memory,
    }


def _costs(model: Model, batch: int, steps: int) -> dict[str, float]:
    """FLOP of each network on a batch of windows."""
    costs = {name: cost.flops * WINDOW_SAMPLES / SAMPLE_RATE for name, cost in preset_costs(model.config).items()}
    return {name: batch * flops * (steps if name.startswith("U-Net") else 1) for name, flops in costs.items()}


def _functions(model: Model, batch: int, settings: Settings) -> dict[str, tuple]:
    """(function of all parameters and inputs, inputs) of each network."""
    config, scale, dtype = model.config, model.params["scale_factor"], jnp.dtype(settings.dtype)
    rng = np.random.default_rng(0)

    def noise(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal((batch, *shape), np.float32))

    latent = noise(*latent_shape(config, WINDOW_SAMPLES))
    mel = noise(latent.shape[1] * config.vae.stride, config.vae.mel_bins)
    waveform = 0.1 * noise(WINDOW_SAMPLES)
    phase_noise = drawn_phase_noise(config, jax.random.key(0), waveform.shape)
    functions = (
        (lambda p, mel, eps: encode(p["vae"], config, mel, eps, scale, dtype), mel, latent),
        (lambda p, z: restored_mel(p["vae"], config, z, scale, dtype), latent),
        (lambda p, cond, z: sample_latent(p["unet"], config, cond, z, settings.steps, 1.0, dtype), latent, latent),
        (lambda p, mel, lr: vocode(p["vocoder"], config, mel, lr, dtype, phase_noise), mel, waveform),
    )
    return dict(zip(_costs(model, batch, settings.steps), functions, strict=True))


def _timing(run: Callable, matrix_rate: MatrixRate, repeats: int, flops: float) -> dict:
    """Medians of a program that has run before."""
    rates, times = zip(*((matrix_rate(), _seconds(run)) for _ in range(repeats)), strict=True)
    return {
        "gflop": flops / 1e9,
        "seconds": statistics.median(times),
        "gflops": flops / statistics.median(times) / 1e9,
        "share_of_matrix_rate": statistics.median(
            flops / seconds / rate for seconds, rate in zip(times, rates, strict=True)
        ),
        "matrix_flops": statistics.median(rates),
    }


def _seconds(run: Callable) -> float:
    began = time.monotonic()
    jax.block_until_ready(run())
    return time.monotonic() - began


def table(report: dict, name: str) -> str:
    """Markdown of what `benchmark` found about the model of that name."""
    title = f"{name} ({stage_of(report['origins']['unet'])})"
    lines = [
        f"{title}: {report['parameters'] / 1e6:.1f} M parameters, {report['dtype']}, {report['device']}, "
        f"{report['cores']} cores, jax {report['jax']}",
        f"{report['batch']} window(s) of {report['window_seconds']} s, {report['steps']} step(s) of the U-Net",
        "",
        "| part | GFLOP | time (s) | GFLOP/s | of the matrix rate | compile (s) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for part, row in {**report["networks"], "a window, as upscaled": report["window"]}.items():
        lines.append(
            f"| {part} | {row['gflop']:.1f} | {row['seconds']:.3g} | {row['gflops']:.1f} "
            f"| {row['share_of_matrix_rate']:.2f} | {row['compile_seconds']:.1f} |"
        )
    real_time = report["batch"] * report["window_seconds"] / report["window"]["seconds"]
    return "\n".join(
        [
            *lines,
            "",
            f"matrix product {MATRIX}^3, float32: {report['matrix_gflops']:.1f} GFLOP/s",
            f"speed: {real_time:.2f} x real time; peak memory to load, compile and upscale: "
            f"{report['peak_memory_bytes'] / 2**30:.2f} GiB",
        ]
    )


def as_json(report: dict, name: str) -> str:
    """The same as one line of JSON."""
    return json.dumps({"model": name, **report})
