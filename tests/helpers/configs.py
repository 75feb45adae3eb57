"""The configurations of configs/, as a program loads them."""

import runpy

from helpers import ROOT


def get_config(stage: str, preset: str):
    """What configs/STAGE.py gives for a preset."""
    return runpy.run_path(str(ROOT / "configs" / f"{stage}.py"))["get_config"](preset)
