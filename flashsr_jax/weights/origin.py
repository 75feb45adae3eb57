"""Where a network comes from, in words: "regression, step 2000". A weights file keeps them in its metadata."""

from collections.abc import Sequence

STAGES = ("vae", "regression", "teacher", "student", "vocoder", "tune")
MEAN = "mean of "


def origin(stage: str, details: str) -> str:
    """Of a network that `stage` trained; `details` says which: a step, a file."""
    return f"{stage}, {details}"


def mean_origin(origins: Sequence[str]) -> str:
    """Of the mean of several networks."""
    return MEAN + "; ".join(origins)


def stage_of(network: str) -> str:
    """The stage that trained a network, such as `regression`, from its origin; where that does not say, itself.

    Of a mean, the stages of all its networks, joined by "and".
    """
    stages = []
    for part in network.removeprefix(MEAN).split("; "):
        first = part.removeprefix(MEAN).split(", ")[0]
        stages.append(first if first in STAGES else part)
    return " and ".join(dict.fromkeys(stages))
