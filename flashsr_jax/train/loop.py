"""The training loop: the only one. A stage gives it `load_frozen`, `init`, `train_step` and `eval_step`.

One program runs on one CPU, on several devices or on many hosts: state and frozen networks are created sharded over
the mesh, each process reads its part of every batch, and process 0 writes logs.
"""

import functools
import json
import logging
import time
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jax

from flashsr_jax.audio import HOP, SAMPLE_RATE
from flashsr_jax.data.batches import BatchIterator, make_iterator
from flashsr_jax.devices import sharding
from flashsr_jax.devices.processes import Preempted, Preemption
from flashsr_jax.errors import UserError
from flashsr_jax.files import replacing
from flashsr_jax.models import flops
from flashsr_jax.models.presets import model_config
from flashsr_jax.runs import provenance
from flashsr_jax.runs.checkpoint import Checkpoints
from flashsr_jax.runs.folder import CONFIG_FILE
from flashsr_jax.train.evaluation import ClipSet, evaluate
from flashsr_jax.train.frozen import fingerprint
from flashsr_jax.train.latents import cached_batches
from flashsr_jax.train.logs import Logs
from flashsr_jax.train.stages import regression, student, teacher, vae, vocoder
from flashsr_jax.train.state import TrainState, if_finite

LOGGER = logging.getLogger(__name__)
STAGES = {"vae": vae, "regression": regression, "teacher": teacher, "student": student, "vocoder": vocoder}


class Programs(NamedTuple):
    """The compiled functions of a run and where their arrays live."""

    step: jax.stages.Wrapped
    evaluate: jax.stages.Wrapped
    state_shardings: TrainState
    abstract_state: TrainState  # with shardings
    init: jax.stages.Wrapped


def train(config, workdir: str) -> dict[str, float]:
    """Run (or resume) the stage that `config` describes in `workdir`; returns the last evaluation's metrics.

    The work directory gets config.json, provenance.jsonl, checkpoints/, metrics.jsonl and tensorboard/. Raises
    UserError for a mistake in the configuration or the data, FloatingPointError when a loss or gradient is not finite,
    Preempted when the run was told to stop before its end.
    """
    workdir = Path(workdir)
    stage = STAGES[config.stage]
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_batch_size(config.batch_size, mesh)
    frozen = stage.load_frozen(config)
    networks = {role: fingerprint(params) for role, params in frozen.items()}
    frozen = sharding.place(frozen, sharding.tree_shardings(frozen, mesh, *_rules(config), name="frozen"))
    programs = make_programs(config, stage, mesh, frozen)
    data = _training_data(config, frozen)
    clips = ClipSet.load(config, mesh)
    workdir.mkdir(parents=True, exist_ok=True)
    _check_same_model(config, workdir)
    LOGGER.info(_plan(config, data))

    checkpoints = Checkpoints(workdir, config.checkpoint.keep_last, config.best_metric)
    key = jax.random.key(config.seed)
    if checkpoints.latest_step is None:
        state, skipped = programs.init(frozen, key), 0
    else:
        state, skipped = _restore(checkpoints, programs, data)
        LOGGER.info("resuming from step %d", checkpoints.latest_step)
    start = int(state.step)
    provenance.record(config, workdir, start, networks)
    _write_config(config, workdir)
    with (
        Logs(workdir, start, config.steps, config.max_skipped_steps, skipped) as logs,
        Preemption() as preemption,
    ):
        run = functools.partial(_run, config, programs, mesh, frozen, key, data, clips, checkpoints, logs, preemption)
        try:
            return run(state, start)
        finally:
            checkpoints.close()
            data.close()


def make_programs(config, stage: ModuleType, mesh, frozen) -> Programs:
    """Jitted init, step and evaluation, with the state sharded as the configuration's rules say.

    The state is created sharded (eval_shape, rules, jit with out_shardings): no device ever holds all of it.
    """
    init = functools.partial(stage.init, config)
    abstract = jax.eval_shape(init, frozen, jax.random.key(0))
    shardings = sharding.tree_shardings(abstract, mesh, *_rules(config))

    def step(state, frozen, batch, key):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `audio.fft`
            after, metrics = stage.train_step(config, state, frozen, batch, jax.random.fold_in(key, state.step))
        return if_finite(state, after, metrics) if config.max_skipped_steps else after, metrics

    return Programs(
        jax.jit(step, out_shardings=(shardings, None), donate_argnums=0),
        jax.jit(functools.partial(stage.eval_step, config)),
        shardings,
        jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings),
        jax.jit(init, out_shardings=shardings),
    )


def _run(
    config, programs, mesh, frozen, key, data, clips, checkpoints, logs, preemption, state, start
) -> dict[str, float]:
    """The loop itself, from step `start` on."""
    pending = None  # metrics of the step before: fetched while the device works on the next
    scores = {}
    for step in range(start + 1, config.steps + 1):
        waiting = time.perf_counter()
        batch = next(data)
        waited = time.perf_counter() - waiting
        batch = sharding.to_global(batch, mesh)
        if step == start + 1:
            fixed, with_one = (flops.count(programs.step, state, frozen, batch, key, while_trips=n) for n in (0, 1))
            logs.start(config.batch_size, config.batch_size * _seconds_per_window(config), fixed, with_one - fixed)
        state, metrics = programs.step(state, frozen, batch, key)
        if pending is not None:
            logs.add(*pending)
        pending = (step, metrics | {"data/corrupt": data.new_corrupt}, waited)

        evaluates = step % config.eval.every == 0 or step == config.steps
        stops = preemption.reached(step)
        saves = step % config.checkpoint.every == 0 or evaluates or stops
        if step % config.log_every == 0 or saves:
            logs.add(*pending)  # waits for the device, and raises before a bad state could be saved
            pending = None
            logs.write(step)
            checkpoints.check()
        if evaluates:
            scores = evaluate(config, programs.evaluate, state.weights, frozen, clips, key, logs, step)
        if saves:
            position = data.get_state() | {"skipped_steps": logs.skipped}
            checkpoints.save(step, state.weights, _rest(state), position, scores if evaluates else None)
        if stops and step < config.steps:
            raise Preempted(f"told to stop; step {step} is saved, and the same command goes on from there")
    return scores


def _plan(config, data: BatchIterator) -> str:
    """How much the run will see, before it starts."""
    examples = config.steps * config.batch_size
    hours = examples * _seconds_per_window(config) / 3600
    passes = ", ".join(f"{name} {examples / once:.2g}" for name, once in data.pass_examples.items())
    return f"{config.steps} steps of {config.batch_size} windows: {hours:.1f} hours of audio; passes: {passes}"


def _seconds_per_window(config) -> float:
    """Of audio; the vocoder trains on crops of the windows it reads."""
    return config.get("crop_frames", config.data.window_frames) * HOP / SAMPLE_RATE


def _rules(config) -> tuple:
    return config.sharding.rules, config.sharding.min_size


def _training_data(config, frozen: dict) -> BatchIterator:
    if config.batch_size % jax.process_count():
        raise UserError(f"config.batch_size={config.batch_size} does not divide over {jax.process_count()} processes")
    if config.data.get("latents"):
        local = config.batch_size // jax.process_count()
        return cached_batches(config, frozen, local, jax.process_index(), jax.process_count())
    return make_iterator(
        config.data,
        "train",
        batch_size=config.batch_size // jax.process_count(),
        window_samples=config.data.window_frames * HOP,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=config.data.workers,
    )


def _restore(checkpoints: Checkpoints, programs: Programs, data) -> tuple[TrainState, int]:
    """The newest checkpoint's state, placed as the mesh of this run asks, and how many steps were skipped; the data
    goes on where it stopped."""
    abstract = programs.abstract_state
    weights, rest, position = checkpoints.restore(abstract.weights, _rest(abstract))
    data.set_state(position)
    return TrainState(weights=weights, **rest), position.get("skipped_steps", 0)


def _rest(state: TrainState) -> dict:
    """What a run continues from beside its weights."""
    return {"step": state.step, "params": state.params, "opt_state": state.opt_state}


def _check_same_model(config, workdir: Path) -> None:
    """Raises UserError where a run of another stage or model lies in the folder."""
    if not (workdir / CONFIG_FILE).exists():
        return
    before, current = json.loads((workdir / CONFIG_FILE).read_text()), json.loads(config.to_json())
    same = {
        "stage": before["stage"] == current["stage"],
        "model": model_config(before["model"]) == model_config(current["model"]),
    }
    for field, agrees in same.items():
        if not agrees:
            raise UserError(f"{workdir} holds a run with another config.{field}: choose another --workdir")


def _write_config(config, workdir: Path) -> None:
    """Keep the run's configuration beside its checkpoints."""
    if jax.process_index() == 0:
        with replacing(workdir / CONFIG_FILE) as partial:
            partial.write_text(json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True) + "\n")
