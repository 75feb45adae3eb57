"""Fixed windows for evaluation.

Letters: N samples of a window.
"""

import itertools
import logging
from collections import defaultdict
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.data.dataset import CorruptRecord, Recordings, Windows, windows_by_class
from flashsr_jax.errors import UserError

LOGGER = logging.getLogger(__name__)


class Clip(NamedTuple):
    """A fixed window of evaluation: high and low resolution, (N,) float32 each, and the bandwidth of the former."""

    name: str
    class_name: str
    group: str
    bandwidth_hz: float
    hr: np.ndarray
    lr: np.ndarray


def fixed_clips(
    data: ConfigDict, split: str, *, count_per_class: int, window_samples: int, cutoff_hz: float, order: int = 8
) -> list[Clip]:
    """The same clips at every call: up to `count_per_class` windows of each weighted class, from as many groups as
    there are, with the exact low resolution of a Chebyshev filter. Where a record cannot be read, the next window takes
    its place. Raises UserError as `make_iterator` does.
    """
    lowpass = LowpassFilter("cheby1", order, cutoff_hz)
    clips = []
    for class_name, windows in windows_by_class(data, Recordings(data.dir, split), window_samples).items():
        by_group = defaultdict(list)
        for index in range(len(windows)):
            by_group[windows.group(index)].append(index)
        turns = itertools.chain.from_iterable(itertools.zip_longest(*by_group.values()))
        number, corrupt = 0, set()
        for index in (index for index in turns if index is not None):
            if number == count_per_class:
                break
            try:
                hr, bandwidth_hz = _loudest_cut(windows, index)
            except CorruptRecord as error:
                if error.index not in corrupt:
                    LOGGER.warning("%s; another clip takes its place", error)
                corrupt.add(error.index)
                continue
            lr = simulate_low_resolution(hr, lowpass)
            clips.append(Clip(f"{class_name}-{number}", class_name, windows.group(index), bandwidth_hz, hr, lr))
            number += 1
        if not number:
            raise UserError(f"data.dir={data.dir}: no {split} recording of {class_name} can be read: build it again")
    return clips


def _loudest_cut(windows: Windows, index: int, candidates: int = 8) -> tuple[np.ndarray, float]:
    """The loudest of a few cuts, so that no clip is a pause."""
    rng = np.random.default_rng(index)
    return max((windows.cut(index, rng) for _ in range(candidates)), key=lambda cut: float(np.mean(cut[0] ** 2)))
