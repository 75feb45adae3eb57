"""Where a network comes from, in words: "regression, step 2000". A weights file keeps them in its metadata."""

import re
from collections.abc import Sequence

STAGES = ("vae", "regression", "teacher", "student", "vocoder", "tune")
MEAN = "mean of "


def origin(stage: str, details: str) -> str:
    """Of a network that `stage` trained; `details` says which: a step, a file."""
    return f"{stage}, {details}"


def mean_origin(origins: Sequence[str], shares: Sequence[float] | None = None) -> str:
    """Of the mean of several networks, of which one may be among them more than once: as "3 x" it weighs more. With
    `shares`, each has its own, such as "0.25 x"."""
    times: dict[str, float] = dict.fromkeys(origins, 0)
    for name, share in zip(origins, shares or [1] * len(origins), strict=True):
        times[name] += share
    return MEAN + "; ".join(name if count == 1 else f"{count:g} x {name}" for name, count in times.items())


def stage_of(network: str) -> str:
    """The stage that trained a network, such as `regression`, from its origin; where that does not say, itself.

    Of a mean, the stages of all its networks, joined by "and".
    """
    stages = []
    for part in network.split("; "):
        name = re.sub(rf"^({MEAN}|-?[\d.]+ x )*", "", part)
        first = name.split(", ")[0]
        stages.append(first if first in STAGES else name)
    return " and ".join(dict.fromkeys(stages))
