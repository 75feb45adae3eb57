"""Datasets of `flashsr data build`, read: their segments, and windows of a class that are cut from them.

Letters: N samples of a window.
"""

import copy
import csv
import itertools
import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from flashsr_jax.data import CLASSES, MANIFEST
from flashsr_jax.data.recording import segment_lengths
from flashsr_jax.errors import UserError, one_line, reason
from flashsr_jax.files import local

LOGGER = logging.getLogger(__name__)
CROSSFADE = 480  # 10 ms between joined recordings


class CorruptRecord(UserError):
    """A record that cannot be read: names it and says why. `number` is its segment's, counted over all datasets."""

    def __init__(self, number: int, text: str):
        super().__init__(text)
        self.number = number

    def __reduce__(self) -> tuple:  # from a worker process
        return CorruptRecord, (self.number, str(self))


class NoRecordings(UserError):
    """A dataset has nothing in a split."""


class Recordings:
    """One split of a dataset: random access to its segments as float32 waveforms, and what is known about each.

    `field` is what of the configuration names the folder. Of several datasets, `first` segments come before this one's.
    """

    def __init__(self, folder: str | Path, split: str, field: str = "data.dir=", first: int = 0):
        folder = local(folder)
        if not (folder / MANIFEST).is_file():
            raise UserError(f"{field}{folder}: no dataset there; build one with `flashsr data build`")
        try:
            self._open(folder, split, field, first)
        except UserError:
            raise
        except Exception as error:  # of TFDS, protocol buffers or the manifest, which have no class in common
            if isinstance(error, PermissionError):
                raise
            raise UserError(f"{field}{folder}: cannot be read ({reason(error)}): build the dataset again") from error

    def _open(self, folder: Path, split: str, field: str, first: int) -> None:
        import tensorflow_datasets as tfds  # slow to import

        with (folder / MANIFEST).open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if row["split"] == split]
        if not rows:
            raise NoRecordings(
                f"{field}{folder}: no {split} recordings; build with more groups or a CSV with a split column"
            )
        segments = [(row, i, length) for row in rows for i, length in enumerate(segment_lengths(int(row["samples"])))]
        self.folder, self.split, self.first = folder, split, first
        self.fingerprint = [(row["fingerprint"], i) for row, i, _ in segments]
        self.length = np.array([length for _, _, length in segments], np.int64)
        self.class_id = np.array([CLASSES.index(row["class"]) for row, _, _ in segments], np.int32)
        self.bandwidth_hz = np.array([float(row["bandwidth_hz"]) for row, _, _ in segments], np.float32)
        self.group = [row["group"] for row, _, _ in segments]
        self._name = [one_line(f"{row['path']}, segment {i}") for row, i, _ in segments]
        builder = tfds.builder_from_directory(folder)
        if missing := [path for path in map(Path, builder.info.splits[split].filepaths) if not path.is_file()]:
            raise UserError(f"{field}{folder}: {missing[0]} is missing: build the dataset again")
        self._source = builder.as_data_source(split)
        if len(self._source) != len(segments):
            raise UserError(f"{folder}: {MANIFEST} does not belong to the records of {split}; build the dataset again")

    def read(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Samples start ... stop of a segment. Raises CorruptRecord where they cannot be read."""
        where = f"{self.folder}, {self.split} record {index} ({self._name[index]})"
        try:
            record = self._source[int(index)]
            fingerprint = record["fingerprint"].decode(), record["segment"]
            audio_N, gain = record["audio"], float(record["gain"])
        except Exception as error:  # of ArrayRecord, TFDS or protocol buffers, which have no class in common
            raise CorruptRecord(self.first + index, f"{where}: {' '.join(str(error).split())}") from error
        if fingerprint != self.fingerprint[index]:
            raise UserError(f"{self.folder}: {MANIFEST} does not belong to the records; build the dataset again")
        if len(audio_N) != self.length[index] or not math.isfinite(gain):
            held = f"{len(audio_N)} samples of gain {gain}, {MANIFEST} says {self.length[index]} samples"
            raise CorruptRecord(self.first + index, f"{where}: {held}")
        return audio_N[start:stop] * np.float32(gain)

    def fault(self, index: int) -> str:
        """What is wrong with a segment that could not be read."""
        try:
            self.read(index)
        except CorruptRecord as error:
            return str(error)
        return f"{self.folder}, {self.split} record {index} ({self._name[index]}): could not be read, but can be now"


class Windows:
    """Windows of one class, about as many as its duration holds: random crops of segments that are long enough,
    joined segments of one group (a speaker, a kit) where they are shorter."""

    def __init__(self, recordings: Recordings, class_name: str, samples: int):
        self.recordings, self.class_name, self.samples = recordings, class_name, samples
        of_class = np.flatnonzero(recordings.class_id == CLASSES.index(class_name))
        self._mates: dict[str, list[int]] = defaultdict(list)  # the short segments of each group
        self._starts: list[list[int]] = []  # segments that each window begins with
        for index in map(int, of_class):
            if recordings.length[index] >= samples:
                self._starts += [[index]] * max(1, round(recordings.length[index] / samples))
            else:
                self._mates[recordings.group[index]].append(index)
        for mates in self._mates.values():
            count = max(1, round(recordings.length[mates].sum() / samples))
            self._starts += [mates[i::count] for i in range(count)]

    def __len__(self) -> int:
        return len(self._starts)

    def repeated(self, times: np.ndarray) -> "Windows":
        """The same with each window so many times (one or more); `times` is (windows,) int."""
        windows = copy.copy(self)
        windows._starts = [start for start, count in zip(self._starts, times, strict=True) for _ in range(count)]
        return windows

    def group(self, index: int) -> str:
        """Group of a window."""
        return self.recordings.group[self._starts[index][0]]

    def cut(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """(waveform (N,), bandwidth in Hz) of a window; a joined one has the least bandwidth of its parts."""
        used = starts = self._starts[index]
        if (length := self.recordings.length[starts[0]]) >= self.samples:
            offset = int(rng.integers(length - self.samples + 1))
            x = self.recordings.read(starts[0], offset, offset + self.samples)
        else:
            used, x = self._join(starts, rng)
            offset = int(rng.integers(len(x) - self.samples + 1))
            x = x[offset : offset + self.samples]
        return x, float(self.recordings.bandwidth_hz[used].min())

    def _join(self, starts: list[int], rng: np.random.Generator) -> tuple[list[int], np.ndarray]:
        """At least a window of a group's segments, those in `starts` first, again from the first when all are used."""
        mates = self._mates[self.recordings.group[starts[0]]]
        others = rng.permutation([index for index in mates if index not in starts])
        order = itertools.cycle([*rng.permutation(starts), *others])
        used, x = [], np.zeros(0, np.float32)
        while len(x) < self.samples:
            used.append(int(next(order)))
            x = _crossfaded(x, self.recordings.read(used[-1]))
        return used, x


def _crossfaded(x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    overlap = min(CROSSFADE, len(x_N) // 2, len(y_N) // 2)
    fade = np.linspace(0, 1, overlap + 2, dtype=np.float32)[1:-1]
    middle = x_N[len(x_N) - overlap :] * (1 - fade) + y_N[:overlap] * fade
    return np.concatenate([x_N[: len(x_N) - overlap], middle, y_N[overlap:]])


class Source(NamedTuple):
    """Windows of a class of a dataset, and how often examples begin with one of them, beside the other sources."""

    windows: Windows
    weight: float


def folders(data: ConfigDict) -> dict[str, float]:
    """The datasets that a configuration's `data` names, with their weights."""
    return dict(data.mixture) or {data.dir: 1.0}


def sources(data: ConfigDict, split: str, samples: int) -> list[Source]:
    """Windows of each class that has a weight, of the dataset `data.dir` or of those in `data.mixture`.

    A dataset is drawn from by its weight in `data.mixture`; its classes share that by `data.class_weights`, and one
    that lacks some gives more of the others. Without `split` it is passed over unless that is "train". Raises UserError
    where a folder is no dataset, where none has a class that has a weight, or one has nothing of them to train on.
    """
    weights = {name: data.class_weights[name] for name in CLASSES if data.class_weights.get(name, 0)}
    if not weights:
        raise UserError(f"data.class_weights: all are 0; give one of {', '.join(CLASSES)} a weight")
    field = "data.mixture: " if data.mixture else "data.dir="
    found: list[Source] = []
    first, lacking = 0, []
    for folder, share in folders(data).items():
        try:
            recordings = Recordings(folder, split, field, first)
        except NoRecordings:
            if split == "train" or not data.mixture:
                raise
            lacking.append(folder)
            continue
        first += len(recordings.length)
        held = [of_class for name in weights if len(of_class := Windows(recordings, name, samples))]
        if not held and split == "train":
            raise UserError(f"{field}{folder}: no recordings of {', '.join(weights)}, the classes that have a weight")
        more = sum(weights.values()) / sum(weights[windows.class_name] for windows in held) if held else 0.0
        found += [Source(windows, share * weights[windows.class_name] * more) for windows in held]
    for name in weights:
        if not any(windows.class_name == name for windows, _ in found):
            where = ", ".join(folders(data))
            raise UserError(
                f"{field}{where}: no {split} recordings of {name}: add some, or set data.class_weights.{name}=0"
            )
    if lacking:
        LOGGER.info("data.mixture: no %s recordings in %s", split, ", ".join(lacking))
    return found
