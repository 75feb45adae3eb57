"""The configuration of a run as a configuration file, for `--config RUN/config.json`: the same run once more."""

import json
from pathlib import Path

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from flashsr_jax.errors import UserError
from flashsr_jax.runs.folder import PROVENANCE_FILE
from flashsr_jax.train.defaults import common


def get_config(path):
    """The ConfigDict that was written to `path`. Fields can be overridden as in any other configuration.

    Raises UserError where it is none, or another version of this package wrote it, with fewer fields.
    """
    try:
        fields = json.loads(Path(path).read_text())
        needed = flatten_dict(common(fields["stage"], "tiny").to_dict(), sep=".")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not the configuration of a run: {error}") from error
    if missing := sorted(needed.keys() - flatten_dict(fields, sep=".").keys()):
        raise UserError(
            f"{path} has no {', '.join(missing)}: another version wrote it; check out the commit that "
            f"{PROVENANCE_FILE} beside it names, or start from the stage's file in configs/"
        )
    return ConfigDict(_as_written(fields))


def _as_written(value):
    """JSON has no tuples, and configurations no lists."""
    if isinstance(value, dict):
        return {name: _as_written(part) for name, part in value.items()}
    return tuple(map(_as_written, value)) if isinstance(value, list) else value
