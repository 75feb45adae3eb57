"""Training examples: a window of a class, mixed, at some gain, and what simulates its low resolution.

Letters: N samples of a window.
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from flashsr_jax.audio.as_met import as_met, low_resolution
from flashsr_jax.audio.lowpass import draw_filter, filter_arrays, simulate_low_resolution
from flashsr_jax.data import CLASSES
from flashsr_jax.data.dataset import CorruptRecord, Source
from flashsr_jax.errors import UserError

MIXUP_BETA = 5.0
LR_SIMULATIONS = ("device", "exact")
DRAWS = 8  # of one example, until every record it is made of can be read


class Examples:
    """Turns (source, window of it) into a training example; `data` as for `make_iterator`.

    Where a record cannot be read, a window of the source is drawn instead. `corrupt` (DRAWS,) of an example holds the
    segments that failed, and else -1.
    """

    def __init__(self, sources: list[Source], data: ConfigDict):
        self._sources = sources
        self._gain_db = tuple(data.gain_db)
        classes = {source.windows.class_name for source in sources}
        self._mix_probability = float(data.mix_probability) if len(classes) > 1 else 0.0
        self._filters: dict[str, Any] = {
            "cutoff_hz": tuple(data.cutoff_hz),
            "order": tuple(data.order),
            "log_cutoff": bool(data.log_cutoff),
        }
        self._floor_probability = float(data.floor_probability)
        self._exact = data.lr_simulation == "exact"

    def __call__(self, position: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        source, index = position
        corrupt = np.full(DRAWS, -1, np.int32)
        for draw in range(DRAWS):
            try:
                return self._example(source, index, rng) | {"corrupt": corrupt}
            except CorruptRecord as error:
                corrupt[draw], last = error.number, error
                index = int(rng.integers(len(self._sources[source].windows)))
        raise UserError(f"{DRAWS} records in a row cannot be read, the last: {last}")

    def _example(self, source: int, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        windows = self._sources[source].windows
        class_name = windows.class_name
        hr, bandwidth_hz = windows.cut(index, rng)
        if rng.random() < self._mix_probability:
            other, other_bandwidth_hz = self._other_class(class_name, rng)
            hr, bandwidth_hz = _mixed(hr, other, rng), min(bandwidth_hz, other_bandwidth_hz)
        hr = hr * np.float32(10 ** (rng.uniform(*self._gain_db) / 20))
        lowpass = draw_filter(rng, bandwidth_hz, **self._filters)
        cutoff_hz, lr = lowpass.cutoff_hz, None
        if self._floor_probability and rng.random() < self._floor_probability:
            lr, cutoff_hz = as_met(low_resolution(hr, lowpass, rng), cutoff_hz, rng)
        example: dict[str, Any] = {
            "hr": hr,
            "cutoff_hz": np.float32(cutoff_hz),
            "bandwidth_hz": np.float32(bandwidth_hz),
            "class_id": np.int32(CLASSES.index(class_name)),
        }
        if self._exact:
            return example | {"lr": simulate_low_resolution(hr, lowpass) if lr is None else lr}
        example["filter"] = filter_arrays(lowpass)
        if self._floor_probability:
            example |= {"lr": np.zeros_like(hr) if lr is None else lr, "lr_given": np.bool_(lr is not None)}
        return example

    def _other_class(self, class_name: str, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        others = [source for source in self._sources if source.windows.class_name != class_name]
        weights = np.array([source.weight for source in others])
        windows = others[rng.choice(len(others), p=weights / weights.sum())].windows
        return windows.cut(int(rng.integers(len(windows))), rng)


def _mixed(x_N: np.ndarray, y_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """AudioSR's mixup (arXiv:2309.07314): y at the level of x, then a convex combination with Beta(5, 5) weights."""
    level = np.sqrt(np.mean(x_N**2) / max(np.mean(y_N**2), 1e-12))
    share = np.float32(rng.beta(MIXUP_BETA, MIXUP_BETA))
    return share * x_N + (1 - share) * np.float32(min(level, 100.0)) * y_N
