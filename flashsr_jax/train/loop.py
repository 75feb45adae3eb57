"""The training loop: the only one. A stage gives it `needs`, `init`, `train_step` and `eval_step`.

One program runs on one CPU, on several devices or on many hosts: state and frozen networks are created sharded over
the mesh, each process reads its part of every batch, and process 0 writes logs.
"""

import contextlib
import functools
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from flashsr_jax.data.batches import BatchIterator
from flashsr_jax.devices import sharding
from flashsr_jax.devices.processes import Preempted, Preemption
from flashsr_jax.devices.runtime import compiler_options
from flashsr_jax.errors import UserError
from flashsr_jax.files import local, replacing, writable_folder
from flashsr_jax.locks import locked
from flashsr_jax.models import flops
from flashsr_jax.models.presets import model_config
from flashsr_jax.runs import provenance
from flashsr_jax.runs.checkpoint import Checkpoints, load_weights
from flashsr_jax.runs.folder import CONFIG_FILE, LOCK_FILE, NoConfiguration, read_config
from flashsr_jax.train import gate
from flashsr_jax.train.batch import seconds_per_window, waveform_batches
from flashsr_jax.train.divergence import Divergence, if_finite
from flashsr_jax.train.evaluation import ClipSet, check_best_metric, evaluate
from flashsr_jax.train.frozen import fingerprint, load, model_of
from flashsr_jax.train.latents import cached_batches
from flashsr_jax.train.logs import Logs
from flashsr_jax.train.optimisers import spent_rates
from flashsr_jax.train.profiling import Profile
from flashsr_jax.train.stages import STAGES
from flashsr_jax.train.state import TrainState
from flashsr_jax.train.writers import TENSORBOARD, writers

LOGGER = logging.getLogger(__name__)


class Programs(NamedTuple):
    """The compiled functions of a run and where their arrays live."""

    step: jax.stages.Wrapped
    evaluate: jax.stages.Wrapped
    state_shardings: TrainState
    abstract_state: TrainState  # with shardings
    init: jax.stages.Wrapped


class Pending(NamedTuple):
    """A step that the device may still be working on: what it will have measured, and seconds waited for its data."""

    step: int
    metrics: dict[str, jax.Array]
    waited: float


def train(config: ConfigDict, workdir: str | os.PathLike, profile: tuple[int, int] | None = None) -> dict[str, float]:
    """Run (or resume) the stage that `config` describes in `workdir`; returns the last evaluation's metrics.

    The work directory gets config.json, provenance.jsonl, checkpoints/, metrics.jsonl and what `config.writers` write
    there: tensorboard/. `profile` are the first and the last of steps to trace, into the same folder. Raises UserError
    for a mistake in the configuration or the data and where another run writes to the folder, FloatingPointError when a
    loss or gradient is not finite, Preempted when the run was told to stop before its end.
    """
    with contextlib.ExitStack() as held:
        return _train(config, local(workdir), held, profile)


def evaluate_run(config: ConfigDict, workdir: str | os.PathLike) -> dict[str, float]:
    """Scores of a run's best checkpoint, or else its last, on the held-out clips; nothing is written.

    Raises UserError as `train` does, and where there is no checkpoint.
    """
    workdir = local(workdir)
    stage, mesh = STAGES[config.stage], sharding.make_mesh(**config.mesh)
    frozen = load(config, stage.needs(config))
    frozen = sharding.place(frozen, sharding.tree_shardings(frozen, mesh, *_rules(config), name="frozen"))
    programs, clips = make_programs(config, stage, mesh, frozen), ClipSet.load(config, mesh)
    _check_same_model(config, workdir)
    weights, step = load_weights(workdir, None)
    weights = sharding.place(weights, programs.state_shardings.weights)
    with Logs(None, step, step) as logs, _compiling("the evaluation"):
        return evaluate(config, programs.evaluate, weights, frozen, clips, jax.random.key(config.seed), logs, step)


def _train(
    config: ConfigDict, workdir: Path, held: contextlib.ExitStack, profile: tuple[int, int] | None
) -> dict[str, float]:
    """As `train`, which lets go of what is `held` after it."""
    stage = STAGES[config.stage]
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_batch_size(config.batch_size, mesh, config.accumulate)
    frozen = load(config, stage.needs(config))
    networks = {role: fingerprint(params) for role, params in frozen.items()}
    frozen = sharding.place(frozen, sharding.tree_shardings(frozen, mesh, *_rules(config), name="frozen"))
    programs = make_programs(config, stage, mesh, frozen)
    data, clips = _training_data(config, frozen), ClipSet.load(config, mesh)
    key = jax.random.key(config.seed)
    check_best_metric(
        config, jax.eval_shape(programs.evaluate, programs.abstract_state.weights, frozen, clips.batch, key)
    )
    held.enter_context(_only_run(workdir))
    _check_same_model(config, workdir)
    LOGGER.info(_plan(config, data))
    for line in spent_rates(config.optimizer, config.steps):
        LOGGER.warning(line)

    checkpoints = Checkpoints(workdir, config.checkpoint.keep_last, config.best_metric)
    state, divergence = _initial_state(config, checkpoints, programs, frozen, data, key)
    start = int(state.step)
    provenance.record(config, workdir, start, networks)
    _write_config(config, workdir)
    told = [] if jax.process_index() else writers(config, workdir, start)
    with (
        Logs(workdir, start, config.steps, told) as logs,
        Preemption() as preemption,
        Profile(workdir / TENSORBOARD, profile) as profiler,
        contextlib.closing(data),
        contextlib.closing(checkpoints),
    ):
        if start == 0 and gate.applies(config):
            gate.check(config, programs.evaluate, frozen, networks, clips, key, logs, workdir)

        def finish(step: int, metrics: dict[str, jax.Array], waited: float) -> None:
            """Wait for a step and log it; raises before a state that has diverged could be saved."""
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            logs.add(divergence.check(step, values), waited)

        pending: Pending | None = None
        scores: dict[str, float] = {}
        for step in range(start + 1, config.steps + 1):
            waiting = time.perf_counter()
            batch = next(data)
            waited = time.perf_counter() - waiting
            batch = sharding.to_global(batch, mesh)
            if step == start + 1:
                work = step_flops(programs.step, state, frozen, batch, key)
                logs.start(config.batch_size, config.batch_size * seconds_per_window(config), *work)
                waited = 0.0  # the workers' start, before the clock of the steps
            profiler.before(step, state)
            with _compiling("the training step") if step == start + 1 else contextlib.nullcontext():
                state, metrics = programs.step(state, frozen, batch, key)
            profiler.after(step, state)
            if pending:  # fetched while the device works on the next
                finish(*pending)
            pending = Pending(step, metrics | {"data/corrupt": data.new_corrupt}, waited)

            evaluates = step % config.eval.every == 0 or step == config.steps
            stops = preemption.reached(step)
            saves = step % config.checkpoint.every == 0 or evaluates or stops
            if step % config.log_every == 0 or saves:
                finish(*pending)
                pending = None
                logs.write(step)
                checkpoints.check()
            if evaluates:
                with contextlib.nullcontext() if scores else _compiling("the evaluation"):
                    scores = evaluate(config, programs.evaluate, state.weights, frozen, clips, key, logs, step)
            if saves:
                position = data.get_state() | {"skipped_steps": divergence.skipped}
                checkpoints.save(step, state.weights, resumed_from(state), position, scores if evaluates else None)
            if stops and step < config.steps:
                raise Preempted(f"told to stop; step {step} is saved, and the same command goes on from there")
        return scores


@contextlib.contextmanager
def _compiling(what: str) -> Iterator[None]:
    """Say that the first call of a program compiles it, which takes minutes, and how long it took."""
    LOGGER.info("compiling %s", what)
    began = time.perf_counter()
    yield
    LOGGER.info("compiled %s and called it once in %.1f s", what, time.perf_counter() - began)


@contextlib.contextmanager
def _only_run(workdir: Path) -> Iterator[None]:
    """Hold the run's folder: process 0 does, for all. Raises, in every process, where it cannot."""
    with contextlib.ExitStack() as held:
        refused: Exception | None = None
        if jax.process_index() == 0:
            try:
                writable_folder(workdir)
                held.enter_context(locked(workdir / LOCK_FILE, workdir))
            except (UserError, OSError) as error:
                refused = error
        if multihost_utils.process_allgather(np.asarray(refused is not None)).any():
            raise refused or UserError(f"{workdir}: process 0 cannot write there, and says why")
        yield


def make_programs(config: ConfigDict, stage: ModuleType, mesh: Mesh, frozen: dict[str, Any]) -> Programs:
    """Jitted init, step and evaluation, with the state sharded as the configuration's rules say.

    The state is created sharded (eval_shape, rules, jit with out_shardings): no device ever holds all of it. `frozen`
    may be shapes.
    """
    init = functools.partial(stage.init, config)
    abstract = jax.eval_shape(init, frozen, jax.random.key(0))
    shardings = sharding.tree_shardings(abstract, mesh, *_rules(config))

    def step(
        state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `audio.fft`
            after, metrics = stage.train_step(config, state, frozen, batch, jax.random.fold_in(key, state.step))
        return if_finite(state, after, metrics) if config.max_skipped_steps else after, metrics

    options = compiler_options(mesh.devices.flat[0].platform)
    return Programs(
        jax.jit(step, out_shardings=(shardings, None), donate_argnums=0, compiler_options=options),
        jax.jit(functools.partial(stage.eval_step, config), compiler_options=options),
        shardings,
        jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings),
        jax.jit(init, out_shardings=shardings),
    )


def step_flops(step: jax.stages.Wrapped, *args: Any) -> tuple[float, float]:
    """FLOPs of a training step without the teacher's solve, its only loop of unknown length, and of a step of that."""
    without, with_one = (flops.count(step, *args, while_trips=trips) for trips in (0, 1))
    return without, with_one - without


def _plan(config: ConfigDict, data: BatchIterator) -> str:
    """How much the run will see, before it starts."""
    examples = config.steps * config.batch_size
    hours = examples * seconds_per_window(config) / 3600
    passes = ", ".join(f"{name} {examples / once:.2g}" for name, once in data.pass_examples.items())
    return f"{config.steps} steps of {config.batch_size} windows: {hours:.1f} hours of audio; passes: {passes}"


def _rules(config: ConfigDict) -> tuple[Sequence[tuple[str, tuple]], int]:
    return config.sharding.rules, config.sharding.min_size


def _training_data(config: ConfigDict, frozen: dict[str, Any]) -> BatchIterator:
    """This process's part of every batch."""
    count, index = jax.process_count(), jax.process_index()
    if config.batch_size % count:
        raise UserError(f"config.batch_size={config.batch_size} does not divide over {count} processes")
    if config.data.get("latents"):
        return cached_batches(config, frozen, config.batch_size // count, index, count)
    return waveform_batches(config, config.batch_size // count, index, count)


def _initial_state(
    config: ConfigDict,
    checkpoints: Checkpoints,
    programs: Programs,
    frozen: dict[str, Any],
    data: BatchIterator,
    key: jax.Array,
) -> tuple[TrainState, Divergence]:
    """A fresh state, or the newest checkpoint's, placed as this run's mesh asks, with the data where it stopped."""
    if checkpoints.latest_step is None:
        return programs.init(frozen, key), Divergence(config.max_skipped_steps)
    abstract = programs.abstract_state
    weights, rest, position = checkpoints.restore(abstract.weights, resumed_from(abstract))
    data.set_state(position)
    LOGGER.info("resuming from step %d", checkpoints.latest_step)
    skipped = position.get("skipped_steps", 0)
    return TrainState(weights=weights, **rest), Divergence(config.max_skipped_steps, skipped)


def resumed_from(state: TrainState) -> dict[str, Any]:
    """What a run continues from beside its weights."""
    return {"step": state.step, "params": state.params, "opt_state": state.opt_state}


def _check_same_model(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError where a run of another stage or model lies in the folder."""
    if not (workdir / CONFIG_FILE).exists():
        return
    try:
        before = read_config(workdir / CONFIG_FILE)
    except NoConfiguration as error:
        LOGGER.warning("%s; it is written anew", error)
        return
    try:
        same_model = model_config(before["model"]) == model_of(config)
    except UserError as error:
        raise UserError(f"{workdir / CONFIG_FILE}: {error}") from error
    same = {"stage": before["stage"] == config.stage, "model": same_model}
    for field, agrees in same.items():
        if not agrees:
            raise UserError(f"{workdir} holds a run with another config.{field}: choose another folder for this one")


def _write_config(config: ConfigDict, workdir: Path) -> None:
    """Keep the run's configuration beside its checkpoints."""
    if jax.process_index() == 0:
        with replacing(workdir / CONFIG_FILE) as partial:
            partial.write_text(json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True) + "\n")
