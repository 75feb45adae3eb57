"""The original recordings of an evaluation, from a folder of files or from a built data set.

Letters: N samples, C channels.
"""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio import files as audio_files
from flashsr_jax.audio.bandwidth import bandwidth
from flashsr_jax.audio.formats import SUFFIXES
from flashsr_jax.audio.resampling import check_finite
from flashsr_jax.data import CLASSES, INPUTS
from flashsr_jax.data.build import folder_class
from flashsr_jax.data.clips import fixed_clips
from flashsr_jax.data.dataset import Recordings
from flashsr_jax.data.recording import FULL_RATE, SILENCE, best_channel, high_band_energy
from flashsr_jax.errors import UserError, reason
from flashsr_jax.evaluate.metrics import NYQUIST
from flashsr_jax.evaluate.results import Problem
from flashsr_jax.evaluate.signals import Unmeasurable
from flashsr_jax.files import below

MIN_SECONDS = 1.0  # the perceptual metrics need a second
WALL_FREE = 0.97  # a bandwidth of so much of half the sample rate is all of it


class Reference(NamedTuple):
    """An original (N,) float32 at 48 kHz; `wall_hz` is where it ends itself, 0 where it has the full band."""

    name: str
    class_name: str  # "" where unknown
    group: str
    wall_hz: float
    audio: np.ndarray


def load_references(
    data: str | os.PathLike, *, split: str = "test", count: int | None = None, seconds: float = 5.12
) -> tuple[list[Reference], list[Problem]]:
    """Originals of a folder of recordings (all that is not hidden, or the first `count` of each class, spread over its
    folders) or of one split of a data set built by `flashsr data build` (`count` windows of each class, 40 unless
    given).

    Of a recording longer than `seconds`, its loudest part of that length is used; of several channels, the one with
    the most energy above 10 kHz. The class is the nearest folder named speech, music or effects, the group is the
    folder. Recordings that cannot be used, all of them perhaps, are returned as problems. Raises UserError where there
    are no recordings.
    """
    if not seconds >= MIN_SECONDS:
        raise UserError(f"{seconds:g}: recordings are compared over {MIN_SECONDS:g} s at least", "seconds")
    data = Path(data)
    if (data / INPUTS).is_file():
        return _of_dataset(data, split, count or 40, seconds), []
    if not data.is_dir():
        raise UserError(
            f"{data}: no such folder; give a folder of recordings, or a data set of `flashsr data build`", "data"
        )
    files = [path for path in below(data) if path.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f"{data}: no recordings in it (looked for {', '.join(SUFFIXES)})", "data")
    references, problems = [], []
    for path in _spread(files, count):
        name = as_text(path.relative_to(data).with_suffix("").as_posix())
        try:
            audio, wall_hz = _read(path, seconds)
            references.append(Reference(name, folder_class(path) or "", as_text(path.parent.name), wall_hz, audio))
        except Unmeasurable as error:
            problems.append(Problem(name, "", 0.0, str(error)))
    names = Counter(reference.name for reference in references)
    if twice := [name for name, uses in names.items() if uses > 1]:
        raise UserError(f"{data}: several files are named {twice[0]}: rename all but one", "data")
    return references, problems


def _of_dataset(folder: Path, split: str, count: int, seconds: float) -> list[Reference]:
    held = set(Recordings(folder, split).class_id.tolist())
    weights = {name: float(index in held) for index, name in enumerate(CLASSES)}
    clips = fixed_clips(
        DatasetOptions(str(folder), weights),
        split,
        count_per_class=count,
        window_samples=round(seconds * SAMPLE_RATE),
        cutoff_hz=4000.0,
    )
    return [Reference(clip.name, clip.class_name, clip.group, wall(clip.bandwidth_hz), clip.hr) for clip in clips]


def as_text(name: str) -> str:
    """The name of a file, which need not be text, as what can be written to tables."""
    return os.fsencode(name).decode(errors="replace")


class DatasetOptions(NamedTuple):
    """What `fixed_clips` takes of a run's configuration."""

    dir: str
    class_weights: dict[str, float]
    mixture: tuple = ()


def wall(bandwidth_hz: float) -> float:
    """`Reference.wall_hz` of a measured bandwidth."""
    return 0.0 if bandwidth_hz >= WALL_FREE * NYQUIST else float(bandwidth_hz)


def _spread(files: list[Path], count: int | None) -> list[Path]:
    """The first `count` files of each class, a folder after the other in turns."""
    if count is None:
        return files
    turns: Counter = Counter()
    order = []
    for path in files:
        order.append((turns[path.parent], path))
        turns[path.parent] += 1
    taken: Counter = Counter()
    chosen = []
    for _, path in sorted(order, key=lambda item: item[0]):
        class_name = folder_class(path)
        if taken[class_name] < count:
            taken[class_name] += 1
            chosen.append(path)
    return sorted(chosen)


def _read(path: Path, seconds: float) -> tuple[np.ndarray, float]:
    """(Audio at 48 kHz, wall in Hz). Raises Unmeasurable that says what is wrong with the recording."""
    try:
        x_CxN, sample_rate = audio_files.read(path)
        check_finite(x_CxN, 0)
    except Exception as error:
        raise Unmeasurable(reason(error)) from error
    x_NxC = x_CxN.T.astype(np.float64)
    if sample_rate < FULL_RATE:
        raise Unmeasurable(f"the sample rate is {sample_rate} Hz, under {FULL_RATE} Hz: no reference for 48 kHz")
    if len(x_NxC) < MIN_SECONDS * sample_rate:
        raise Unmeasurable(f"lasts {len(x_NxC) / sample_rate:.2f} s, under {MIN_SECONDS:g} s")
    if np.abs(x_NxC).max() < SILENCE:
        raise Unmeasurable("is silent: its peak is under -80 dBFS")
    channel = best_channel(np.abs(x_NxC).max(axis=0), high_band_energy(x_NxC, sample_rate))
    x_N = _loudest(x_NxC[:, channel], round(seconds * sample_rate))
    wall_hz = wall(bandwidth(x_N.astype(np.float32), sample_rate))
    audio = x_N if sample_rate == SAMPLE_RATE else soxr.resample(x_N, sample_rate, SAMPLE_RATE, "VHQ")
    return audio.astype(np.float32), wall_hz


def _loudest(x_N: np.ndarray, samples: int) -> np.ndarray:
    """The loudest stretch of so many samples, or all where there are no more."""
    if len(x_N) <= samples:
        return x_N
    energy = np.concatenate([[0.0], np.cumsum(x_N**2)])
    start = int(np.argmax(energy[samples:] - energy[:-samples]))
    return x_N[start : start + samples]
