"""What a run's step must be for an accelerator to stay busy: one program, donated buffers, no wait for its metrics."""

import itertools

import jax
import pytest

from flashsr_jax.data.batches import make_iterator
from flashsr_jax.devices import sharding
from flashsr_jax.train import loop
from flashsr_jax.train.logs import Logs

from helpers import micro
from helpers.steps import programs_of
from helpers.toy import toy_config, toy_stage

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def compilations():
    """Names of the programs that were compiled, or read from the cache, since."""
    names = []

    def listen(event, duration, **kwargs):
        if event == COMPILED:
            names.append(kwargs.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.training
def test_one_program_serves_every_phase_and_its_state_is_donated(dataset, compilations):
    """The student's weights, start steps and solver steps change over the phases; the program does not."""
    programs, frozen, mesh = programs_of("student", dataset, 1, 1)
    config = micro.get_config("student")
    config.data.dir = str(dataset)
    batches = make_iterator(config.data, "train", batch_size=8, window_samples=32 * 480, seed=0)
    state = programs.init(frozen, jax.random.key(0))
    solver_steps = []
    for step in range(config.steps):
        batch = sharding.to_global(next(batches), mesh)
        before = state
        state, metrics = programs.step(state, frozen, batch, jax.random.key(1))
        solver_steps.append(int(metrics["solver_steps"]))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before)), "the old state's memory is used again"
        if step == 0:
            compilations.clear()
    assert int(state.step) == config.steps > config.phases[-1]
    assert len(set(solver_steps)) > 1
    assert programs.step._cache_size() == 1
    assert "step" not in str(compilations)


@pytest.mark.training
def test_the_next_step_is_dispatched_before_the_last_ones_metrics_are_fetched(dataset, tmp_path, monkeypatch):
    events = []
    make_programs, add = loop.make_programs, Logs.add

    def recording_programs(*args):
        programs = make_programs(*args)

        def step(state, *rest):
            events.append("dispatch")
            return programs.step(state, *rest)

        return programs._replace(step=step)

    fetched = itertools.count(1)

    def recording_add(*args):
        events.append(f"fetch {next(fetched)}")
        return add(*args)

    monkeypatch.setattr(loop, "make_programs", recording_programs)
    monkeypatch.setattr(loop.flops, "count", lambda *args, **kwargs: 1.0)
    monkeypatch.setattr(Logs, "add", recording_add)
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    config = toy_config(dataset, steps=4, log_every=4)
    config.checkpoint.every = config.eval.every = 4
    loop.train(config, str(tmp_path))
    assert ", ".join(events) == "dispatch, dispatch, fetch 1, dispatch, fetch 2, dispatch, fetch 3, fetch 4"
