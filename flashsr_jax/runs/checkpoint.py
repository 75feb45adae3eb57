"""Checkpoints of a training run: the only file that imports Orbax.

Each checkpoint holds `weights` (what inference and later stages need: EMA parameters and measured constants), `state`
(everything else that training continues from) and, as its metadata, the position in the data. A save that is cut off
leaves nothing that looks like a checkpoint; a checkpoint that is damaged later, which its checksums tell, is set aside
by the run that resumes.
"""

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from flashsr_jax.errors import UserError
from flashsr_jax.runs.checksums import ChecksumError, verify, write_checksums

LOGGER = logging.getLogger(__name__)
FOLDER = "checkpoints"
DAMAGED = "damaged_checkpoints"
PARTS = ("weights", "state")  # folders of a checkpoint, and METRICS
MOST_SAID = 300  # characters of what a library says
METRICS = "metrics"  # the score that the best one is chosen by; Orbax's name


class Checkpoints:
    """The checkpoints of one run: saved asynchronously; the last `keep_last` and the best one are kept.

    The best is the one with the lowest `best_metric` among those saved together with an evaluation.
    """

    def __init__(self, workdir: str | os.PathLike, keep_last: int, best_metric: str):
        policies = ocp.training.preservation_policies
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics.get(best_metric, math.inf),  # chosen by another before
            reverse=True,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._best_metric = best_metric
        self._workdir = Path(workdir).absolute()
        self._saving: int | None = None  # the step of the last save, which may still be under way
        self._failed = False
        self._checksums: Future | None = None  # of that save
        self._background = ThreadPoolExecutor(1, "checksums")
        self._drop_unreadable_metrics()
        self._checkpointer = ocp.training.Checkpointer(
            self._workdir / FOLDER,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep_last), best]),
            cleanup_tmp_directories=True,
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, None if there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(
        self, step: int, weights: dict, state: dict, data_position: dict, metrics: dict[str, float] | None = None
    ) -> None:
        """Start saving; returns once the arrays are copied off the devices. Waits for a save still under way.

        `metrics` are the evaluation's at this step, None where there was none; without the best one among them (no clip
        could be measured by it), which is warned of, this is never the best. Raises UserError where this save or the
        one before cannot be written: the disk is full, say.
        """
        score = (metrics or {}).get(self._best_metric)
        if metrics and score is None:
            LOGGER.warning("step %d cannot be the best: no clip could be measured by %s", step, self._best_metric)
        with self._writing():
            self._wait()
            self._saving = step
            saving = self._checkpointer.save_checkpointables_async(
                step,
                {"weights": weights, "state": state},
                force=True,
                metrics=None if score is None else {self._best_metric: float(score)},
                custom_metadata={"data_position": data_position},
            )
            if jax.process_index() == 0:
                self._checksums = self._background.submit(self._sum_up, saving, step)

    def check(self) -> None:
        """Raises UserError, as `save` does, where a save under way has failed by now."""
        if not self._checkpointer.is_saving_in_progress() and (self._checksums is None or self._checksums.done()):
            with self._writing():
                self._wait()

    def wait(self) -> None:
        """Until the last save is complete. Raises UserError, as `save` does, where it has failed."""
        with self._writing():
            self._wait()

    def _wait(self) -> None:
        """Until the last save is complete, with its checksums. Raises what has kept it from that."""
        self._checkpointer.wait()
        if self._checksums is not None:
            self._checksums.result()

    def _sum_up(self, saving: ocp.AsyncResponse, step: int) -> None:
        """Process 0 adds the checksums of all processes' files once all are there."""
        saving.result()
        write_checksums(self._workdir / FOLDER / str(step))

    def restore(self, abstract_weights: dict, abstract_state: dict) -> tuple[dict, dict, dict]:
        """(weights, state, data position) of the newest checkpoint, placed as the abstract trees' shardings say.

        Where it cannot be read, the one before is tried, and so on; those that failed are then moved to `DAMAGED`, with
        a warning. Raises UserError, and moves nothing, where none can be read.
        """
        abstract = {"weights": abstract_weights, "state": abstract_state}
        failures: dict[int, str] = {}
        for step in reversed([checkpoint.step for checkpoint in self._checkpointer.checkpoints]):
            loaded = self._load(step, abstract)
            if not isinstance(loaded, str):
                self._set_aside(failures, step)
                return loaded
            failures[step] = loaded
        newest = max(failures)
        raise UserError(
            f"{self._workdir / FOLDER}: no checkpoint can be read, not even step {newest} ({failures[newest]}): is "
            "this run's configuration another? Else choose another folder"
        )

    def _drop_unreadable_metrics(self) -> None:
        """Orbax reads the metrics of all checkpoints at its start; one without them is only never the best."""
        if jax.process_index() == 0:
            for path in (self._workdir / FOLDER).glob(f"*/{METRICS}/metrics"):
                try:
                    json.loads(path.read_bytes())
                    verify(path.parents[1], (METRICS,))
                except (ValueError, ChecksumError):
                    LOGGER.warning("%s cannot be read: that checkpoint no longer counts as the best", path)
                    shutil.rmtree(path.parent)
        multihost_utils.sync_global_devices("unreadable metrics are dropped")

    def _load(self, step: int, abstract: dict) -> tuple[dict, dict, dict] | str:
        """What `restore` returns of one checkpoint, or why some process cannot read it."""
        alone = ocp.Context()  # a process that fails must not leave the others waiting in the middle of theirs
        alone.multiprocessing_options.primary_host = jax.process_index()
        alone.multiprocessing_options.active_processes = {jax.process_index()}
        try:
            with alone:
                folder = self._workdir / FOLDER / str(step)
                verify(folder, PARTS, jax.process_index(), jax.process_count())
                trees = ocp.load_checkpointables(folder, abstract)
                position = ocp.checkpointables_metadata(folder).custom_metadata["data_position"]
                loaded: tuple[dict, dict, dict] | str = (trees["weights"], trees["state"], position)
        except Exception as error:  # noqa: BLE001 whatever a damaged file makes of Orbax, TensorStore and JSON
            loaded = _cause(error)
        failed = multihost_utils.process_allgather(np.asarray(isinstance(loaded, str))).reshape(-1)
        if failed.any() and not isinstance(loaded, str):
            return f"process {failed.argmax()} cannot read it"
        return loaded

    def _set_aside(self, failures: dict[int, str], used: int) -> None:
        """Move what could not be read out of the way of later saves."""
        for step, reason in failures.items():
            LOGGER.warning("checkpoint %d cannot be read (%s): set aside, going on from %d", step, reason, used)
            if jax.process_index() == 0:
                target = self._workdir / DAMAGED / str(step)
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(exist_ok=True)
                (self._workdir / FOLDER / str(step)).rename(target)
        if failures:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
            self._checkpointer.reload()

    def close(self) -> None:
        """Wait for a save under way. Raises UserError as `save` does."""
        try:
            with self._writing():
                try:
                    self._wait()
                finally:
                    self._background.shutdown()
                    self._checkpointer.close()
        finally:
            if self._failed and jax.process_index() == 0:  # what it left would keep the disk full
                for partial in (self._workdir / FOLDER).glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(partial, ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Say in one line what kept a checkpoint from being written."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: TensorStore's
            self._failed = True
            complete = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
            complete = [step for step in complete if step != self._saving]
            raise UserError(
                f"the checkpoint of step {self._saving} could not be written ({_cause(error)}); "
                + (f"step {max(complete)} is the last complete one" if complete else "no other is complete")
                + f". The same command goes on from there once {self._workdir} can be written"
            ) from error


def load_weights(workdir: str | os.PathLike, name: str | None) -> tuple[dict, int]:
    """(`weights` as numpy arrays, step) of a run's best checkpoint, or of its last where none was evaluated.

    `name`: what the caller calls the folder, for the error. Raises UserError where the run has no complete checkpoint.
    """
    return _load_part(workdir, name, "weights")


def load_parameters(workdir: str | os.PathLike, name: str | None) -> tuple[dict, int]:
    """As `load_weights`, the parameters as the optimizer left them instead of their averages."""
    state, step = _load_part(workdir, name, "state")
    return state["params"], step


def _load_part(workdir: str | os.PathLike, name: str | None, part: str) -> tuple[dict, int]:
    folder = Path(workdir).absolute() / FOLDER
    if not folder.is_dir():
        raise UserError(f"{workdir}: no checkpoints there; train that stage first or give another run's folder", name)
    chosen = None
    try:
        with ocp.training.Checkpointer(folder) as checkpointer:
            checkpoints = checkpointer.checkpoints
            if not checkpoints:
                raise UserError(f"{workdir}: its checkpoints folder is empty; train that stage to its first save", name)
            ranked = [c for c in checkpoints if c.metrics]
            for chosen in ranked:
                verify(folder / str(chosen.step), (METRICS,))
            if ranked:  # by the last one's metric: before the run went on with it, another may have been best_metric
                metric = next(iter(ranked[-1].metrics))
                chosen = min((c for c in ranked if metric in c.metrics), key=lambda c: c.metrics[metric])
            else:
                chosen = checkpoints[-1]
            verify(folder / str(chosen.step), (part,))
            tree = checkpointer.checkpointables_metadata(chosen.step).metadata[part]
            abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
            return checkpointer.load_checkpointables(chosen.step, {part: abstract})[part], chosen.step
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes of Orbax, TensorStore and JSON
        damaged = folder / str(chosen.step) if chosen else folder
        raise UserError(
            f"{workdir}: {damaged} cannot be read ({_cause(error)}); move it away to use another checkpoint", name
        ) from error


def _cause(error: BaseException) -> str:
    """What is at the bottom of an error, in a line: Orbax's own text is its registry of handlers, and the end of
    TensorStore's says how the store was opened."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = f"{type(error).__name__}: {error}".partition(" [tensorstore_spec=")[0].splitlines()[0]
    half = MOST_SAID // 2  # what the system says stands at the end
    return text if len(text) <= MOST_SAID else f"{text[:half]} ... {text[-half:]}"


def save_tree(folder: str | os.PathLike, tree: dict) -> None:
    """Write a tree of arrays as a checkpoint by itself, complete or not there."""
    ocp.save_pytree(Path(folder).absolute(), jax.tree.map(np.asarray, tree))  # Orbax takes no scalars of NumPy


def load_tree(folder: str | os.PathLike) -> dict:
    """A tree of `save_tree`, as numpy arrays."""
    metadata = ocp.pytree_metadata(Path(folder).absolute()).metadata
    abstract = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), metadata)
    return ocp.load_pytree(Path(folder).absolute(), abstract)
