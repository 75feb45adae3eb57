"""The configuration of a run as a configuration file, for `--config RUN/config.json`: the same run once more."""

import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config(path):
    """The ConfigDict that was written to `path`. Fields can be overridden as in any other configuration."""
    return ConfigDict(_as_written(json.loads(Path(path).read_text())))


def _as_written(value):
    """JSON has no tuples, and configurations no lists."""
    if isinstance(value, dict):
        return {name: _as_written(part) for name, part in value.items()}
    return tuple(map(_as_written, value)) if isinstance(value, list) else value
