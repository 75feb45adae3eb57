"""From a dataset of `flashsr data build` to training batches and to fixed evaluation clips.

Letters: B batch, N samples of a window. Everything random about an example follows from (seed, its position in the
stream), so batches do not depend on the number of worker processes, and a position alone resumes the stream. That goes
for examples that had to be drawn again because a record cannot be read, too.
"""

import csv
import itertools
import logging
import math
import signal
import weakref
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import numpy as np
from absl import flags
from grain.multiprocessing import MultiprocessingOptions

from flashsr_jax import degrade
from flashsr_jax.data.build import CLASSES, MANIFEST
from flashsr_jax.data.recording import segment_lengths
from flashsr_jax.errors import UserError

LOGGER = logging.getLogger(__name__)
CROSSFADE = 480  # 10 ms between joined recordings
MIXUP_BETA = 5.0
LR_SIMULATIONS = ("device", "exact")
PREFETCHED_BATCHES = 2  # per worker process
DRAWS = 8  # of one example, until every record it is made of can be read


class CorruptRecord(UserError):
    """A record of a dataset that cannot be read: names it and says why. `index` is its segment's."""

    def __init__(self, index: int, text: str):
        super().__init__(text)
        self.index = index

    def __reduce__(self):  # from a worker process
        return CorruptRecord, (self.index, str(self))


class Clip(NamedTuple):
    """A fixed window of evaluation: high and low resolution, (N,) float32 each, and the bandwidth of the former."""

    name: str
    class_name: str
    group: str
    bandwidth_hz: float
    hr: np.ndarray
    lr: np.ndarray


class Recordings:
    """One split of a dataset: random access to its segments as float32 waveforms, and what is known about each."""

    def __init__(self, folder: str | Path, split: str):
        import tensorflow_datasets as tfds  # slow to import

        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            raise UserError(f"data.dir={folder}: no dataset there; build one with `flashsr data build DIR... --out`")
        with (folder / MANIFEST).open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if row["split"] == split]
        if not rows:
            raise UserError(
                f"data.dir={folder}: no {split} recordings; build with more groups or a CSV with a split column"
            )
        segments = [(row, i, length) for row in rows for i, length in enumerate(segment_lengths(int(row["samples"])))]
        self.folder, self.split = folder, split
        self.fingerprint = [(row["fingerprint"], i) for row, i, _ in segments]
        self.length = np.array([length for _, _, length in segments], np.int64)
        self.class_id = np.array([CLASSES.index(row["class"]) for row, _, _ in segments], np.int32)
        self.bandwidth_hz = np.array([float(row["bandwidth_hz"]) for row, _, _ in segments], np.float32)
        self.group = [row["group"] for row, _, _ in segments]
        self._name = [f"{row['path']}, segment {i}" for row, i, _ in segments]
        self._source = tfds.builder_from_directory(folder).as_data_source(split)
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
            raise CorruptRecord(index, f"{where}: {' '.join(str(error).split())}") from error
        if fingerprint != self.fingerprint[index]:
            raise UserError(f"{self.folder}: {MANIFEST} does not belong to the records; build the dataset again")
        if len(audio_N) != self.length[index] or not math.isfinite(gain):
            raise CorruptRecord(
                index, f"{where}: {len(audio_N)} samples of gain {gain}, {MANIFEST} says {self.length[index]} samples"
            )
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
        self.recordings, self.samples = recordings, samples
        of_class = np.flatnonzero(recordings.class_id == CLASSES.index(class_name))
        self._mates = defaultdict(list)  # the short segments of each group
        self._starts = []  # segments that each window begins with
        for index in of_class:
            if recordings.length[index] >= samples:
                self._starts += [[index]] * max(1, round(recordings.length[index] / samples))
            else:
                self._mates[recordings.group[index]].append(index)
        for mates in self._mates.values():
            count = max(1, round(recordings.length[mates].sum() / samples))
            self._starts += [mates[i::count] for i in range(count)]

    def __len__(self) -> int:
        return len(self._starts)

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


class Examples:
    """Turns a position in a class into a training example; `data` as for `make_iterator`.

    Where a record cannot be read, a window of the class is drawn instead. `corrupt` (DRAWS,) of an example holds the
    segments that failed, and else -1.
    """

    def __init__(self, windows: dict[str, Windows], data):
        self._windows = windows
        self._weights = {name: float(data.class_weights[name]) for name in windows}
        self._gain_db = tuple(data.gain_db)
        self._mix_probability = float(data.mix_probability) if len(windows) > 1 else 0.0
        self._filters = {
            "cutoff_hz": tuple(data.cutoff_hz),
            "order": tuple(data.order),
            "log_cutoff": bool(data.log_cutoff),
        }
        self._exact = data.lr_simulation == "exact"

    def __call__(self, position: tuple[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        class_name, index = position
        corrupt = np.full(DRAWS, -1, np.int32)
        for draw in range(DRAWS):
            try:
                return self._example(class_name, index, rng) | {"corrupt": corrupt}
            except CorruptRecord as error:
                corrupt[draw], last = error.index, error
                index = int(rng.integers(len(self._windows[class_name])))
        raise UserError(f"{DRAWS} records in a row cannot be read, the last: {last}")

    def _example(self, class_name: str, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        hr, bandwidth_hz = self._windows[class_name].cut(index, rng)
        if rng.random() < self._mix_probability:
            other, other_bandwidth_hz = self._other_class(class_name, rng)
            hr, bandwidth_hz = _mixed(hr, other, rng), min(bandwidth_hz, other_bandwidth_hz)
        hr = hr * np.float32(10 ** (rng.uniform(*self._gain_db) / 20))
        lowpass = degrade.draw_filter(rng, bandwidth_hz, **self._filters)
        example = {
            "hr": hr,
            "cutoff_hz": np.float32(lowpass.cutoff_hz),
            "bandwidth_hz": np.float32(bandwidth_hz),
            "class_id": np.int32(CLASSES.index(class_name)),
        }
        if self._exact:
            return example | {"lr": degrade.simulate_low_resolution(hr, lowpass)}
        return example | {"filter": degrade.filter_arrays(lowpass)}

    def _other_class(self, class_name: str, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        names = [name for name in self._windows if name != class_name]
        weights = np.array([self._weights[name] for name in names])
        windows = self._windows[names[rng.choice(len(names), p=weights / weights.sum())]]
        return windows.cut(int(rng.integers(len(windows))), rng)


def _mixed(x_N: np.ndarray, y_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """AudioSR's mixup (arXiv:2309.07314): y at the level of x, then a convex combination with Beta(5, 5) weights."""
    level = np.sqrt(np.mean(x_N**2) / max(np.mean(y_N**2), 1e-12))
    share = np.float32(rng.beta(MIXUP_BETA, MIXUP_BETA))
    return share * x_N + (1 - share) * np.float32(min(level, 100.0)) * y_N


class BatchIterator(Iterator[dict]):
    """Endless training batches. `get_state` is a small dict that JSON can hold; `set_state` takes it on any number of
    workers and, with the same total batch, of processes.

    Records that cannot be read are named once each, also over resumed runs, and counted; raises UserError at the one
    after `max_corrupt`. Each process counts those that it has met.
    """

    def __init__(
        self,
        batches: grain.MapDataset,
        workers: int,
        pass_examples: dict[str, float],
        recordings: Recordings | None = None,
        max_corrupt: int = 0,
    ):
        self.pass_examples = pass_examples  # of the whole stream, in which each class is seen once
        self.new_corrupt = 0  # records first met in the batch that was taken last
        self._batches, self._workers = batches, workers
        self._recordings, self._max_corrupt, self._corrupt = recordings, max_corrupt, set()
        self._taken, self._iterator, self._close = 0, None, lambda: None

    def __next__(self) -> dict:
        if self._iterator is None:
            self._iterator = iter(self._dataset())
            self._close = weakref.finalize(self, self._iterator.close)  # also when the program ends
        batch = next(self._iterator)
        self._count(batch.pop("corrupt", np.zeros(0, np.int32)))
        self._taken += 1
        if self._workers:  # out of the workers' shared memory, which would last as long as the arrays
            batch = jax.tree.map(np.array, batch)
        return batch

    def get_state(self) -> dict:
        """Position in the stream: the number of batches taken; and the records that could not be read so far."""
        return {"batches": self._taken, "corrupt": sorted(self._corrupt)}

    def set_state(self, state: dict) -> None:
        """Go on after the batches that were taken when `state` was got."""
        self.close()
        self._taken = int(state["batches"])
        self._corrupt = set(state.get("corrupt", ()))

    def close(self) -> None:
        """Stop the worker processes and the prefetching; the next batch starts them again."""
        self._close()
        self._iterator = None

    def _count(self, corrupt: np.ndarray) -> None:
        met = {int(index) for index in corrupt.flat if index >= 0} - self._corrupt
        self.new_corrupt = len(met)
        for index in sorted(met):
            self._corrupt.add(index)
            fault = self._recordings.fault(index)
            if len(self._corrupt) > self._max_corrupt:
                raise UserError(
                    f"{fault}; records that cannot be read: {len(self._corrupt)}, "
                    f"config.data.max_corrupt_records={self._max_corrupt}: build the dataset again, or raise the limit"
                )
            LOGGER.warning("%s; left out (%d, limit %d)", fault, len(self._corrupt), self._max_corrupt)

    def _dataset(self) -> grain.IterDataset:
        rest = self._batches[self._taken :]
        dataset = rest.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCHED_BATCHES))
        if self._workers:
            if not flags.FLAGS.is_parsed():  # Grain reads its flags, also in programs that do not use absl's
                flags.FLAGS.mark_as_parsed()
            options = MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=PREFETCHED_BATCHES)
            dataset = dataset.mp_prefetch(options, worker_init_fn=_ignore_sigterm)
        return dataset


def _ignore_sigterm(worker: int, workers: int) -> None:
    """Schedulers signal all processes of a job; the one that trains still needs data until it has saved."""
    del worker, workers
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def make_iterator(
    data,
    split: str,
    *,
    batch_size: int,
    window_samples: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> BatchIterator:
    """Endless batches of `batch_size` examples (of this process) from one split of the dataset `data.dir`.

    Classes come in the proportions `data.class_weights`; within a class every window of its duration once an epoch, in
    an order that the seed draws anew for each; every process gets its own part of each total batch. With probability
    `data.mix_probability` another class is mixed in; a gain is uniform in `data.gain_db`; the low-pass is drawn by
    `degrade.draw_filter` within `data.cutoff_hz` and `data.order`, with `data.log_cutoff`. A batch holds `hr` (B, N)
    float32; `lr` (B, N) if `data.lr_simulation` is "exact", else `filter`: arrays for
    `degrade_jax.simulate_low_resolution`; `cutoff_hz`, `bandwidth_hz` (B,) float32, `class_id` (B,) int32. `workers`
    processes prepare batches (0: this one). Up to `data.max_corrupt_records` records that cannot be read are left out.
    Raises UserError for a dataset without one of the weighted classes.
    """
    if data.lr_simulation not in LR_SIMULATIONS:
        raise UserError(f"data.lr_simulation={data.lr_simulation!r} is not one of {', '.join(LR_SIMULATIONS)}")
    recordings = Recordings(data.dir, split)
    windows = _windows(data, recordings, window_samples)
    streams = [
        grain.MapDataset.source([(name, i) for i in range(len(of_class))]).seed(seed + n).shuffle().repeat()
        for n, (name, of_class) in enumerate(windows.items())
    ]
    mixed = grain.MapDataset.mix(streams, [data.class_weights[name] for name in windows])
    examples = mixed.seed(seed).random_map(Examples(windows, data))
    total_weight = sum(data.class_weights[name] for name in windows)
    pass_examples = {name: len(of) * total_weight / data.class_weights[name] for name, of in windows.items()}
    batches = examples.batch(batch_size)[process_index::process_count]
    return BatchIterator(batches, workers, pass_examples, recordings, data.max_corrupt_records)


def fixed_clips(
    data, split: str, *, count_per_class: int, window_samples: int, cutoff_hz: float, order: int = 8
) -> list[Clip]:
    """The same clips at every call: up to `count_per_class` windows of each weighted class, from as many groups as
    there are, with the exact low resolution of a Chebyshev filter. Where a record cannot be read, the next window takes
    its place. Raises UserError as `make_iterator` does.
    """
    lowpass = degrade.LowpassFilter("cheby1", order, cutoff_hz)
    clips = []
    for class_name, windows in _windows(data, Recordings(data.dir, split), window_samples).items():
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
            lr = degrade.simulate_low_resolution(hr, lowpass)
            clips.append(Clip(f"{class_name}-{number}", class_name, windows.group(index), bandwidth_hz, hr, lr))
            number += 1
        if not number:
            raise UserError(f"data.dir={data.dir}: no {split} recording of {class_name} can be read: build it again")
    return clips


def _loudest_cut(windows: Windows, index: int, candidates: int = 8) -> tuple[np.ndarray, float]:
    """The loudest of a few cuts, so that no clip is a pause."""
    rng = np.random.default_rng(index)
    return max((windows.cut(index, rng) for _ in range(candidates)), key=lambda cut: float(np.mean(cut[0] ** 2)))


def _windows(data, recordings: Recordings, samples: int) -> dict[str, Windows]:
    """Windows of each class that has a weight."""
    windows = {name: Windows(recordings, name, samples) for name in CLASSES if data.class_weights.get(name, 0)}
    for name, of_class in windows.items():
        if not len(of_class):
            raise UserError(
                f"data.dir={data.dir}: no {recordings.split} recordings of {name}: "
                f"add some, or set data.class_weights.{name}=0"
            )
    if not windows:
        raise UserError(f"data.class_weights: all are 0; give one of {', '.join(CLASSES)} a weight")
    return windows
