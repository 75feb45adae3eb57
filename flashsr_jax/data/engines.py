"""What runs the stages of a build: processes of this machine, or a runner of Apache Beam."""

import collections
import contextlib
import functools
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

from flashsr_jax.data import stages
from flashsr_jax.data.stages import Recording
from flashsr_jax.errors import UserError
from flashsr_jax.extras import needing

FEW = 3  # items that are done before a process has imported what they need
RECORDINGS = "recordings.jsonl"  # in the folder that is built in: what a runner's first worker reads


class Failed(UserError):
    """An engine has ended early; what is done is kept."""


class Engine(Protocol):
    """Collections that stages are applied to; what one is depends on the engine."""

    def start(self, recordings: Sequence[Recording], folder: Path) -> Any:
        """The recordings as a collection."""

    def each(self, name: str, stage: Callable, items: Any, lost: Callable | None = None) -> Any:
        """`stage` of each item; `lost` of one that ends its process."""

    def per_key(self, name: str, key: Callable, stage: Callable, items: Any) -> Any:
        """What `stage` makes of the items of each key, all in one collection."""

    def run(self) -> None:
        """Do what has been asked for, if it was not done at once."""

    def close(self) -> None:
        """End what is under way."""


def build(engine: Engine, recordings: Sequence[Recording], folder: Path, min_bandwidth_hz: float) -> None:
    """Shards and lists of a dataset in `folder`, or what of them is not there yet."""
    with contextlib.closing(engine):
        _asked(engine, recordings, folder, min_bandwidth_hz)
        engine.run()


def _asked(engine: Engine, recordings: Sequence[Recording], folder: Path, min_bandwidth_hz: float) -> None:
    started = engine.start(recordings, folder)
    decode = functools.partial(stages.decoded, folder, min_bandwidth_hz)
    decoded = engine.each("Decode", decode, started, stages.lost)
    kept = engine.per_key("LeaveOutCopies", stages.by_fingerprint, stages.without_copies, decoded)
    parts = engine.per_key("FillSplits", stages.by_class, stages.in_all_splits, kept)
    shards = engine.per_key("LayOutShards", stages.by_split, stages.shards, parts)
    engine.each("WriteShards", functools.partial(stages.written, folder), shards)
    engine.per_key("List", stages.all_of, functools.partial(stages.listed, folder), parts)


class Processes:
    """So many processes of this machine (0: this one), each stage after the other."""

    def __init__(self, workers: int | None = None):
        self._workers = os.cpu_count() or 1 if workers is None else workers
        self._pool: ProcessPoolExecutor | None = None

    def start(self, recordings: Sequence[Recording], folder: Path) -> list:
        del folder
        return list(recordings)

    def each(self, name: str, stage: Callable, items: list, lost: Callable | None = None) -> list:
        done = []
        for count, result in enumerate(self._results(stage, items, lost), 1):
            done.append(result)
            if sys.stderr.isatty():
                print(f"\r{name}: {count} of {len(items)}", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return done

    def per_key(self, name: str, key: Callable, stage: Callable, items: list) -> list:
        del name
        groups: dict = collections.defaultdict(list)
        for item in items:
            groups[key(item)].append(item)
        return [result for group in groups.values() for result in stage(group)]

    def run(self) -> None:
        pass

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None

    def _results(self, stage: Callable, items: list, lost: Callable | None) -> Iterator:
        """In the items' order; at most a few a worker are under way."""
        if self._workers == 0 or (lost is None and len(items) <= FEW):
            yield from map(stage, items)
            return
        waiting: collections.deque = collections.deque()

        def first() -> Any:
            item, future = waiting.popleft()
            try:
                return future.result()
            except BrokenProcessPool:  # by this one, or by another that was under way at the same time
                return _alone(stage, item, lost)

        for item in items:
            try:
                future = self._submitted(stage, item)
            except BrokenProcessPool:
                self.close()
                future = self._submitted(stage, item)
            waiting.append((item, future))
            if len(waiting) > 4 * self._workers:
                yield first()
        while waiting:
            yield first()

    def _submitted(self, stage: Callable, item: Any) -> Future:
        self._pool = self._pool or _pool(self._workers)
        return self._pool.submit(stage, item)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def _alone(stage: Callable, item: Any, lost: Callable | None) -> Any:
    """An item in a process of its own, after one was killed: if this one is, too, it was the item."""
    with _pool(1) as pool:
        try:
            return pool.submit(stage, item).result()
        except BrokenProcessPool as error:
            if lost:
                return lost(item)
            raise Failed("a process that writes records was killed (out of memory?)") from error


class Beam:
    """A runner of Apache Beam by its name, with Beam's own options (--direct_num_workers=4, say)."""

    def __init__(self, runner: str, options: Sequence[str] = ()):
        with needing("beam", runner):
            import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        self._beam, self._runner = beam, runner
        try:
            self._pipeline = beam.Pipeline(options=PipelineOptions([f"--runner={runner}", *options]))
        except (ValueError, ImportError, SystemExit) as error:
            raise UserError(f"{runner}: {_last_line(error)}", "runner") from error

    def start(self, recordings: Sequence[Recording], folder: Path) -> Any:
        file = folder / RECORDINGS  # a pipeline with a list of a million in it would be too long for some runners
        file.write_text("".join(recording.as_json() + "\n" for recording in recordings))
        paths = self._pipeline | "Start" >> self._beam.Create([str(file)])
        return paths | "Recordings" >> self._beam.FlatMap(_read)

    def each(self, name: str, stage: Callable, items: Any, lost: Callable | None = None) -> Any:
        del lost  # runners start another worker, and give up after some
        spread = self.per_key(f"Spread{name}", _any_key, list, items)  # Beam's Reshuffle, which not every runner has
        return spread | name >> self._beam.Map(stage)

    def per_key(self, name: str, key: Callable, stage: Callable, items: Any) -> Any:
        keyed = items | f"{name}Key" >> self._beam.Map(functools.partial(_keyed, key)).with_output_types(
            tuple[str, Any]
        )
        groups = keyed | f"{name}Group" >> self._beam.GroupByKey()
        return groups | name >> self._beam.FlatMap(functools.partial(_of_group, stage))

    def close(self) -> None:
        pass

    def run(self) -> None:
        try:
            self._pipeline.run().wait_until_finish()
        except Exception as error:  # runners raise what they like
            raise Failed(f"{self._runner}: {_last_line(error)}", "runner") from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _read(path: str) -> Iterator[Recording]:
    with Path(path).open() as lines:
        yield from map(Recording.of_json, lines)


def _any_key(item: Any) -> str:
    del item
    return str(random.randrange(1 << 20))


def _keyed(key: Callable, item: Any) -> tuple[str, Any]:
    return key(item), item


def _of_group(stage: Callable, group: tuple[str, Iterable]) -> Any:
    return stage(list(group[1]))
