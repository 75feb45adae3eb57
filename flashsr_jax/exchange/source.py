"""What `flashsr weights export` reads: a weights file, a shipped model, the folder of a training run."""

from collections.abc import Iterable
from pathlib import Path

from flashsr_jax.errors import UserError
from flashsr_jax.extras import needing
from flashsr_jax.weights.shipped import weights_path
from flashsr_jax.weights.store import Weights, load_weights


def read(source: str, ema: bool = True, required: Iterable[str] = ()) -> Weights:
    """The networks of `source` as numpy arrays; of a run its averaged parameters (`ema`), or the last ones.

    Raises UserError where there is nothing to read, or one of the networks `required` is not there.
    """
    if not Path(source).is_dir():
        return load_weights(weights_path(source), required)
    with needing("train", "reading networks of runs"):
        from flashsr_jax.runs.networks import load_run
    weights = load_run(source, ema)
    if missing := [name for name in required if name not in weights.params]:
        raise UserError(f"{source} trains no {', '.join(missing)}: pack the networks of several runs together first")
    return weights
