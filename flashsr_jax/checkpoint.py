"""Checkpoints of a training run: the only file that imports Orbax.

Each checkpoint holds `weights` (what inference and later stages need: EMA parameters and measured constants), `state`
(everything else that training continues from) and, as its metadata, the position in the data.
"""

from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from flashsr_jax.errors import UserError

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints of one run: saved asynchronously; the last `keep_last` and the best one are kept.

    The best is the one with the lowest `best_metric` among those saved together with an evaluation.
    """

    def __init__(self, workdir, keep_last: int, best_metric: str):
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[best_metric],
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._best_metric = best_metric
        self._checkpointer = ocp.training.Checkpointer(
            Path(workdir).absolute() / FOLDER,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep_last), best]),
            cleanup_tmp_directories=True,
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, None if there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, weights, state, data_position: dict, metrics: dict[str, float] | None = None) -> None:
        """Start saving; returns once the arrays are copied off the devices. Waits for a save still under way.

        `metrics` are the evaluation's at this step, None where there was none.
        """
        self._checkpointer.save_checkpointables_async(
            step,
            {"weights": weights, "state": state},
            force=True,
            metrics=metrics and {self._best_metric: float(metrics[self._best_metric])},
            custom_metadata={"data_position": data_position},
        )

    def restore(self, abstract_weights, abstract_state) -> tuple:
        """(weights, state, data position) of the newest checkpoint, placed as the abstract trees' shardings say."""
        loaded = self._checkpointer.load_checkpointables(None, {"weights": abstract_weights, "state": abstract_state})
        metadata = self._checkpointer.checkpointables_metadata(None)
        return loaded["weights"], loaded["state"], metadata.custom_metadata["data_position"]

    def close(self) -> None:
        """Wait for saves under way."""
        self._checkpointer.close()


def load_weights(workdir, name: str) -> tuple[dict, int]:
    """(`weights` as numpy arrays, step) of a run's best checkpoint, or of its last where none was evaluated.

    `name` says in the error what was looked for. Raises UserError where the run has no complete checkpoint.
    """
    return _load_part(workdir, name, "weights")


def load_parameters(workdir, name: str) -> tuple[dict, int]:
    """As `load_weights`, the parameters as the optimizer left them instead of their averages."""
    state, step = _load_part(workdir, name, "state")
    return state["params"], step


def _load_part(workdir, name: str, part: str) -> tuple[dict, int]:
    folder = Path(workdir).absolute() / FOLDER
    if not folder.is_dir():
        raise UserError(f"{name}={workdir}: no checkpoints there; train that stage first or give another run's folder")
    with ocp.training.Checkpointer(folder) as checkpointer:
        checkpoints = checkpointer.checkpoints
        if not checkpoints:
            raise UserError(f"{name}={workdir}: its checkpoints folder is empty; train that stage to its first save")
        ranked = [c for c in checkpoints if c.metrics]
        chosen = min(ranked, key=lambda c: next(iter(c.metrics.values()))) if ranked else checkpoints[-1]
        tree = checkpointer.checkpointables_metadata(chosen.step).metadata[part]
        abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
        return checkpointer.load_checkpointables(chosen.step, {part: abstract})[part], chosen.step


def save_tree(folder, tree) -> None:
    """Write a tree of arrays as a checkpoint by itself, complete or not there."""
    ocp.save_pytree(Path(folder).absolute(), tree)


def load_tree(folder) -> dict:
    """A tree of `save_tree`, as numpy arrays."""
    metadata = ocp.pytree_metadata(Path(folder).absolute()).metadata
    abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), metadata)
    return ocp.load_pytree(Path(folder).absolute(), abstract)
