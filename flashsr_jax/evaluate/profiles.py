"""Noise profiles of the three classes, as the noise baseline takes them, on disk; the package has its own.

python -m flashsr_jax.evaluate.profiles DATASET OUT.json    measures them on a data set's training split
"""

import dataclasses
import json
import os
import sys
from importlib import resources
from pathlib import Path

import numpy as np

from flashsr_jax.audio import WINDOW_SAMPLES
from flashsr_jax.data import CLASSES
from flashsr_jax.data.dataset import Recordings, Windows
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.baselines import NoiseProfile, measure_profile
from flashsr_jax.files import replacing

CUTOFF_HZ = 4000.0
MOST_WINDOWS = 600  # of a class: 51 minutes


def load_profiles(path: str | os.PathLike | None = None) -> dict[str, NoiseProfile]:
    """Profiles by class of a file that this module wrote (default: the package's). Raises UserError for another."""
    source = Path(path) if path else resources.files("flashsr_jax.evaluate") / "noise_profiles.json"
    try:
        return {name: NoiseProfile(**profile) for name, profile in json.loads(source.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{source} is not a file of noise profiles: {error}") from error


def measure_dataset(folder: str | Path) -> dict[str, NoiseProfile]:
    """Profiles by class, of windows of training recordings drawn over the whole split."""
    recordings = Recordings(folder, "train")
    profiles = {}
    for name in CLASSES:
        windows = Windows(recordings, name, WINDOW_SAMPLES)
        order = np.random.default_rng(0).permutation(len(windows))[:MOST_WINDOWS]
        profiles[name] = measure_profile((windows.cut(int(i), np.random.default_rng(i)) for i in order), CUTOFF_HZ)
    return profiles


def main(folder: str, out: str) -> None:
    """Measure and write."""
    text = json.dumps({name: dataclasses.asdict(profile) for name, profile in measure_dataset(folder).items()})
    with replacing(out) as partial:
        Path(partial).write_text(text + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
