"""Windows that were encoded once and for all: latents of both waveforms, and the mel, on disk."""

import json
from pathlib import Path

import numpy as np

from flashsr_jax.errors import UserError, reason
from flashsr_jax.files import local

ABOUT = "latents.json"
CACHED = ("z_hr", "z_lr", "mel", "weight", "cutoff_hz", "bandwidth_hz", "class_id")


class LatentCache:
    """Windows of `train.latents.write_cache`: random access to dicts of arrays, read from memory-mapped files."""

    def __init__(self, folder: str | Path):
        self.folder = local(folder)
        if not (self.folder / ABOUT).is_file():
            raise UserError(f"data.latents={folder}: no latents there: encode windows into it first")
        try:
            self.about = json.loads((self.folder / ABOUT).read_text())
            self._arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in CACHED}
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"data.latents={folder}: damaged ({reason(error)}): encode windows anew") from error
        counts = {name: len(array) for name, array in self._arrays.items()}
        if len(set(counts.values())) > 1:
            raise UserError(f"data.latents={folder}: damaged (windows in each file: {counts}): encode windows anew")

    def __reduce__(self) -> tuple:
        """To another process by name: its mapped files would be read into memory, and sent as a whole."""
        return LatentCache, (self.folder,)

    def __len__(self) -> int:
        return len(self._arrays["weight"])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: np.array(array[index]) for name, array in self._arrays.items()}
