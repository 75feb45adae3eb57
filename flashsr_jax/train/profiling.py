"""A trace of some steps of a run, for XProf in TensorBoard, or Perfetto."""

import logging
from pathlib import Path
from typing import Any

import jax

LOGGER = logging.getLogger(__name__)


class Profile:
    """Traces the steps from the first to the last of `steps`, both counted, into a folder; None: nothing. A context
    manager, which also ends the trace of a run that ends before."""

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        self._folder, self._steps = folder, steps
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before(self, step: int, state: Any) -> None:
        """To be called before each step, with the state of the one before."""
        if self._steps and not self._running and self._steps[0] <= step <= self._steps[1]:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, state: Any) -> None:
        """To be called after each step, with its state."""
        if self._running and self._steps and step == self._steps[1]:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            LOGGER.info("profiled: tensorboard --logdir %s shows it", self._folder)
