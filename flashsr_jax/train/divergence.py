"""Steps whose losses or gradients are not finite: on the device they change nothing, on the host they are counted."""

import logging
import math

import jax
import jax.numpy as jnp

from flashsr_jax.train.logs import COUNTS
from flashsr_jax.train.state import TrainState

LOGGER = logging.getLogger(__name__)


def if_finite(before: TrainState, after: TrainState, metrics: dict[str, jax.Array]) -> TrainState:
    """`after`, or where any of the metrics, gradient norms among them, is not finite, `before` one step on."""
    finite = jnp.all(jnp.isfinite(jnp.stack([jnp.asarray(value, jnp.float32) for value in metrics.values()])))
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
    return kept.replace(step=after.step)


class Divergence:
    """How many steps were skipped, of at most `max_skipped` (0: none may be), `skipped` of them before this start."""

    def __init__(self, max_skipped: int, skipped: int = 0):
        self._max_skipped, self.skipped = max_skipped, skipped

    def check(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """What of a step's metrics says something: all, or only the counts of a step that was skipped.

        Such a step is named. Raises FloatingPointError where it is one too many.
        """
        bad = [f"{name} = {value}" for name, value in metrics.items() if not math.isfinite(value)]
        if bad:
            self.skipped += 1
            if self.skipped > self._max_skipped:
                before = f"{self._max_skipped} steps were skipped before, config.max_skipped_steps; "
                raise FloatingPointError(
                    f"step {step}: {', '.join(bad)}; {before if self._max_skipped else ''}"
                    "stopped, the last checkpoint is as it was"
                )
            LOGGER.warning("step %d: %s; skipped (%d, limit %d)", step, ", ".join(bad), self.skipped, self._max_skipped)
            metrics = {name: value for name, value in metrics.items() if name.startswith(COUNTS)}
        return metrics | ({"skipped_steps": float(bool(bad))} if self._max_skipped else {})
