"""Training as a researcher runs it, at micro size: the command line, in this process or in one of its own, and what it
left.

`run` is for what training does: it saves the imports of a process. `run_alone`, and helpers/processes.py, are for what
a process does: how it ends, what it is sent, how several meet.
"""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import jax

from helpers import ROOT

# Programs this small run for milliseconds and compile for a minute: no optimization halves the whole.
ENVIRONMENT = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
AT_THE_END = ["--config.eval.every=12", "--config.checkpoint.every=12"]  # of 12 steps: one evaluation and one save


def options_of(stage: str, workdir, dataset, *options: str) -> list[str]:
    """The options of a micro-sized stage, as they stand behind the command."""
    config = ["--config", f"{ROOT}/tests/helpers/micro.py:{stage}", "--workdir", str(workdir)]
    return [*config, f"--config.data.dir={dataset}", *options]


def command(stage: str, workdir, dataset, *options: str) -> list[str]:
    """The command line of a micro-sized stage, for a process of its own."""
    return [sys.executable, "-m", "flashsr_jax.main", *options_of(stage, workdir, dataset, *options)]


def run(stage: str, workdir, dataset, *options: str) -> tuple[int, str]:
    """Run to the end in this process, on one device; (exit code, stderr)."""
    return run_here(options_of(stage, workdir, dataset, *options))


def run_alone(stage: str, workdir, dataset, *options: str) -> tuple[int, str]:
    """Run to the end in a process of its own; (exit code, stderr)."""
    return finish(command(stage, workdir, dataset, *options))


def run_here(options: list[str]) -> tuple[int, str]:
    """Run `python -m flashsr_jax.main` in this process, as ENVIRONMENT has it; (exit code, stderr)."""
    from flashsr_jax.main import main

    return _run(main, options)


def run_word(words: list[str]) -> tuple[int, str]:
    """Run `flashsr WORDS` in this process, as ENVIRONMENT has it; (exit code, stderr)."""
    from flashsr_jax.cli import main

    return _run(main, words)


def _run(main: Callable[[list[str]], int], arguments: list[str]) -> tuple[int, str]:
    with _as_in_a_new_process() as stderr:
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code
        except Exception:  # noqa: BLE001 as a process ends with one that nobody expected
            code = 1
            stderr.write(traceback.format_exc())
    return code, stderr.getvalue()


@contextlib.contextmanager
def _as_in_a_new_process() -> Iterator[io.StringIO]:
    """With one device, and a log on the standard error that is yielded."""
    stderr = io.StringIO()
    root, project = logging.getLogger(), logging.getLogger("flashsr_jax")
    handlers, levels = list(root.handlers), (root.level, project.level)
    unoptimized = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with mock.patch.object(jax, "device_count", return_value=1), contextlib.redirect_stderr(stderr):
            yield stderr
    finally:
        jax.config.update("jax_disable_most_optimizations", unoptimized)
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        project.setLevel(levels[1])


def finish(arguments: list[str]) -> tuple[int, str]:
    """Run a command line to its end; (exit code, stderr)."""
    done = subprocess.run(arguments, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    return done.returncode, done.stderr


def sources(runs: dict[str, Path], stage: str) -> list[str]:
    """The options that train a stage on the runs before it."""
    vae, teacher, vocoder = (f"--config.{name}_from={runs[name]}" for name in ("vae", "teacher", "vocoder"))
    return {
        "vocoder": [],
        "vae": [vocoder],
        "regression": [vae, vocoder],
        "teacher": [vae, vocoder, f"--config.init_from={runs['regression']}"],
        "student": [vae, teacher, vocoder],
    }[stage]


def train_all(folder: Path, dataset) -> None:
    """All stages in a row, each on the ones before it, as folders of `folder`; the first is evaluated on its way."""
    runs = {stage: folder / stage for stage in ("vocoder", "vae", "regression", "teacher", "student")}
    for stage, workdir in runs.items():
        options = ["--config.checkpoint.every=6"] if stage == "vocoder" else AT_THE_END
        code, stderr = run(stage, workdir, dataset, *sources(runs, stage), *options)
        assert code == 0, stderr


def logged(workdir: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_speed(lines: list[dict]) -> list[dict]:
    """Lines without what differs between two runs of the same steps."""
    timed = ("_per_second", "_percent")
    return [{name: value for name, value in line.items() if not name.endswith(timed)} for line in lines]


def checkpoint(workdir: Path, step: int) -> tuple[dict, dict]:
    """(the whole state as numpy arrays, the position in the data) of a run's checkpoint."""
    import numpy as np
    from orbax.checkpoint import v1 as ocp

    with ocp.training.Checkpointer(workdir / "checkpoints") as checkpointer:
        metadata = checkpointer.checkpointables_metadata(step)
        trees = {part: metadata.metadata[part] for part in ("weights", "state")}
        abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), trees)
        return checkpointer.load_checkpointables(step, abstract), metadata.custom_metadata


def assert_same_checkpoint(one: Path, other: Path, step: int, least: int = 50, atol: float = 0.0) -> None:
    """Two runs have the same state at a step, bit for bit or within `atol`, and the same position in the data."""
    import numpy as np

    (tree, position), (other_tree, other_position) = checkpoint(one, step), checkpoint(other, step)
    assert position == other_position
    leaves, other_leaves = jax.tree.leaves_with_path(tree), jax.tree.leaves_with_path(other_tree)
    assert len(leaves) > least
    for (path, a), (_, b) in zip(leaves, other_leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=str(path))
