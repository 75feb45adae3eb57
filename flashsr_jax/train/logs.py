"""What a run tells: lines on the terminal with the time left, metrics.jsonl and the writers of `config.writers`."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from flashsr_jax.files import replacing
from flashsr_jax.runs.folder import METRICS_FILE, read_metrics
from flashsr_jax.train.writers import Writer

LOGGER = logging.getLogger(__name__)
COUNTS = ("data/", "skipped_steps")  # metrics that are added up between two lines, not averaged


class Logs:
    """Collects the metrics of every step and writes their means; only process 0 writes. A context manager.

    A resumed run drops what was logged after the step it resumes from, so that no step stands there twice. Without a
    folder it only tells the terminal.
    """

    def __init__(self, workdir: Path | None, start_step: int, total_steps: int, writers: Sequence[Writer] = ()):
        self._total = total_steps
        self._collected: list[dict[str, float]] = []
        self._windows = self._seconds = self._flops = self._flops_per_solver_step = 0.0
        self._step_of_last_line, self._time_of_last_line = start_step, time.perf_counter()
        self._writers = writers
        self._path = workdir / METRICS_FILE if workdir is not None and jax.process_index() == 0 else None
        if workdir is not None and self._path:
            _drop_after(workdir, start_step)

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()

    def start(self, windows: int, seconds: float, flops: float, flops_per_solver_step: float) -> None:
        """Work of one training step over all processes: windows, seconds of audio, floating-point operations.

        A step that reports a metric `solver_steps` has done that many times `flops_per_solver_step` more.
        """
        self._windows, self._seconds = windows, seconds
        self._flops, self._flops_per_solver_step = flops, flops_per_solver_step
        self._time_of_last_line = time.perf_counter()

    def add(self, metrics: dict[str, float], waited: float) -> None:
        """Take the metrics of one step, and the seconds it waited for data."""
        self._collected.append(metrics | {"data_wait": waited})

    def write(self, step: int) -> None:
        """One line of what was collected since the last one."""
        now = time.perf_counter()
        elapsed, steps = now - self._time_of_last_line, step - self._step_of_last_line
        names = dict.fromkeys(name for of_step in self._collected for name in of_step)  # of a skipped step, only counts
        reduced = {}
        for name in names:
            values = [of_step[name] for of_step in self._collected if name in of_step]
            reduced[name] = float(np.sum(values) if name.startswith(COUNTS) else np.mean(values))
        wait = 100 * reduced.pop("data_wait") * steps / elapsed
        work = self._flops + reduced.get("solver_steps", 0.0) * self._flops_per_solver_step
        speed = {
            "windows_per_second": self._windows * steps / elapsed,
            "audio_seconds_per_second": self._seconds * steps / elapsed,
            "tflop_per_second": work * steps / elapsed / 1e12,
            "data_wait_percent": wait,
        }
        self._collected, self._step_of_last_line, self._time_of_last_line = [], step, now
        self._record(step, "train", reduced | speed)
        left = time.strftime("%H:%M:%S", time.gmtime((self._total - step) * elapsed / steps))
        terms = "  ".join(f"{name} {value:.4g}" for name, value in reduced.items())
        LOGGER.info(
            "step %d/%d (%d %%, %s left)  %s  %.1f s of audio/s, %.3g TFLOP/s, %.0f %% waiting for data",
            step,
            self._total,
            100 * step // self._total,
            left,
            terms,
            speed["audio_seconds_per_second"],
            speed["tflop_per_second"],
            wait,
        )

    def evaluation(self, step: int, scores: dict[str, float]) -> None:
        """The held-out clips' scores at this step."""
        self._record(step, "eval", scores)
        LOGGER.info("step %d  held-out clips: %s", step, "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        self._time_of_last_line = time.perf_counter()

    def gate(self, scores: dict[str, dict[str, float]]) -> None:
        """What was measured before the first step: scores by system."""
        self._record(0, "gate", {f"{system}/{name}": x for system, of in scores.items() for name, x in of.items()})
        self._time_of_last_line = time.perf_counter()

    def clip(self, step: int, name: str, picture: np.ndarray, audio: np.ndarray | None) -> None:
        """A picture (height, width, 3) uint8 and, where there is any, audio (N,) of one held-out clip."""
        for writer in self._writers:
            writer.picture(step, name, picture)
            if audio is not None:
                writer.audio(step, name, np.clip(audio, -1, 1))

    def _record(self, step: int, kind: str, values: dict[str, float]) -> None:
        if self._path is None:
            return
        values = {name: float(value) for name, value in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        for writer in self._writers:
            writer.scalars(step, {f"{kind}/{name}": value for name, value in values.items()})


def _drop_after(workdir: Path, step: int) -> None:
    """Remove lines of later steps, and a line that a killed process left unfinished."""
    kept = [line for line in read_metrics(workdir) if line["step"] <= step]
    with replacing(workdir / METRICS_FILE) as partial:
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
