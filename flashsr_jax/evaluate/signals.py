"""What a signal has to be so that it can be measured, and the exception for one that cannot."""

import numpy as np

from flashsr_jax.audio.resampling import LOUDEST


class Unmeasurable(ValueError):
    """A recording, or what a system made of it, has no figures: it is too short, silent, not there. The text says why.

    An evaluation leaves it out of its means and names it. Any other exception, a plain ValueError too, ends the run.
    """


def checked(x: np.ndarray) -> np.ndarray:
    """A mono signal (N,) as an array. Raises Unmeasurable where it is empty or has samples that are not finite, or
    larger than `LOUDEST`, and ValueError where it has several axes."""
    x = np.asarray(x)
    if x.ndim != 1:
        raise ValueError(f"expected a mono signal, got shape {x.shape}")
    if not len(x):
        raise Unmeasurable("a signal is empty")
    if not np.isfinite(x).all():
        raise Unmeasurable("a signal has samples that are not finite")
    if (peak := np.abs(x).max()) > LOUDEST:
        raise Unmeasurable(f"a signal has a sample of {peak:g}")
    return x


def check_lengths(reference: np.ndarray, estimate: np.ndarray) -> None:
    """Raises Unmeasurable unless both signals (N,) have one length."""
    if len(reference) != len(estimate):
        raise Unmeasurable(f"expected signals of one length, got {len(reference)} and {len(estimate)} samples")
