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
from flashsr_jax.data.dataset import CorruptRecord, Windows, sources
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
    there are, of all datasets in turn, with the exact low resolution of a Chebyshev filter. Where a record cannot be
    read, the next window takes its place. Raises UserError as `make_iterator` does.
    """
    lowpass = LowpassFilter("cheby1", order, cutoff_hz)
    clips = []
    of_classes = defaultdict(list)
    for windows, _ in sources(data, split, window_samples):
        of_classes[windows.class_name].append(windows)
    for class_name, of_class in of_classes.items():
        number, corrupt = 0, set()
        for windows, index in _in_turn([_by_groups(windows) for windows in of_class]):
            if number == count_per_class:
                break
            try:
                hr, bandwidth_hz = _loudest_cut(windows, index)
            except CorruptRecord as error:
                if error.number not in corrupt:
                    LOGGER.warning("%s; another clip takes its place", error)
                corrupt.add(error.number)
                continue
            lr = simulate_low_resolution(hr, lowpass)
            clips.append(Clip(f"{class_name}-{number}", class_name, windows.group(index), bandwidth_hz, hr, lr))
            number += 1
        if not number:
            where = ", ".join(str(windows.recordings.folder) for windows in of_class)
            raise UserError(f"{where}: no {split} recording of {class_name} can be read: build it again")
    return clips


def _by_groups(windows: Windows) -> list[tuple[Windows, int]]:
    """All windows, those of each group in turn."""
    groups = defaultdict(list)
    for index in range(len(windows)):
        groups[windows.group(index)].append((windows, index))
    return _in_turn(list(groups.values()))


def _in_turn(lists: list[list]) -> list:
    """The first of each list, then the second of each that has one, and so on."""
    turns = itertools.chain.from_iterable(itertools.zip_longest(*lists))
    return [item for item in turns if item is not None]


def _loudest_cut(windows: Windows, index: int, candidates: int = 8) -> tuple[np.ndarray, float]:
    """The loudest of a few cuts, so that no clip is a pause."""
    rng = np.random.default_rng(index)
    return max((windows.cut(index, rng) for _ in range(candidates)), key=lambda cut: float(np.mean(cut[0] ** 2)))
