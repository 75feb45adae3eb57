"""Training as a researcher runs it, at micro size: the command line in a process of its own, and what it left."""

import json
import os
import subprocess
import sys
from pathlib import Path

from helpers import ROOT

# Programs this small run for milliseconds and compile for a minute: no optimization halves the whole.
ENVIRONMENT = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def command(stage: str, workdir, dataset, *options: str) -> list[str]:
    """The command line of a micro-sized stage."""
    config = ["--config", f"{ROOT}/tests/helpers/micro.py:{stage}", "--workdir", str(workdir)]
    return [sys.executable, "-m", "flashsr_jax.main", *config, f"--config.data.dir={dataset}", *options]


def run(stage: str, workdir, dataset, *options: str) -> tuple[int, str]:
    """Run to the end; (exit code, stderr)."""
    return finish(command(stage, workdir, dataset, *options))


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
    """All stages in a row, each on the ones before it, as folders of `folder`."""
    runs = {stage: folder / stage for stage in ("vocoder", "vae", "regression", "teacher", "student")}
    for stage, workdir in runs.items():
        code, stderr = run(stage, workdir, dataset, *sources(runs, stage))
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
    import jax
    import numpy as np
    from orbax.checkpoint import v1 as ocp

    with ocp.training.Checkpointer(workdir / "checkpoints") as checkpointer:
        metadata = checkpointer.checkpointables_metadata(step)
        trees = {part: metadata.metadata[part] for part in ("weights", "state")}
        abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), trees)
        return checkpointer.load_checkpointables(step, abstract), metadata.custom_metadata


def assert_same_checkpoint(one: Path, other: Path, step: int, least: int = 50, atol: float = 0.0) -> None:
    """Two runs have the same state at a step, bit for bit or within `atol`, and the same position in the data."""
    import jax
    import numpy as np

    (tree, position), (other_tree, other_position) = checkpoint(one, step), checkpoint(other, step)
    assert position == other_position
    leaves, other_leaves = jax.tree.leaves_with_path(tree), jax.tree.leaves_with_path(other_tree)
    assert len(leaves) > least
    for (path, a), (_, b) in zip(leaves, other_leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=str(path))
