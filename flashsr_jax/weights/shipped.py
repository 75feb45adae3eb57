"""Models that come with the package, by name."""

import os
from pathlib import Path

SHIPPED = {"small": Path(__file__).parent / "small.safetensors"}


def weights_path(model: str | os.PathLike) -> Path:
    """The weights file of a shipped model's name; any other string is a path itself."""
    return SHIPPED.get(str(model), Path(model))
