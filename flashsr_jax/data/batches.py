"""Endless training batches over worker processes, from a position that can be saved.

Letters: B batch, N samples of a window. Everything random about an example follows from (seed, its position in the
stream), so batches do not depend on the number of worker processes, and a position alone resumes the stream. That goes
for examples that had to be drawn again because a record cannot be read, too.
"""

import logging
import numbers
import signal
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from grain.multiprocessing import MultiprocessingOptions
from ml_collections import ConfigDict

from flashsr_jax.data.brightness import more_of_the_bright
from flashsr_jax.data.dataset import Recordings, sources
from flashsr_jax.data.examples import LR_SIMULATIONS, Examples
from flashsr_jax.errors import UserError

LOGGER = logging.getLogger(__name__)
PREFETCHED_BATCHES = 2  # per worker process
MOST_WINDOWS = 2**52  # of a class; lengths of mixtures are computed in floats
LOST = "Worker process was terminated unexpectedly"  # Grain's words
BY_BRIGHTNESS = "speech"  # the class whose high band comes in moments


class WorkerLost(Exception):
    """A process that prepares batches was ended from outside: by the system, out of memory, say."""


class BatchIterator(Iterator[dict]):
    """Endless training batches. `get_state` is a small dict that JSON can hold; `set_state` takes it on any number of
    workers and, with the same total batch, of processes.

    Records that cannot be read are named once each, also over resumed runs, and counted; raises UserError at the one
    after `max_corrupt`. Each process counts those that it has met. Raises WorkerLost where a worker process is gone.
    """

    def __init__(
        self,
        batches: grain.MapDataset,
        workers: int,
        pass_examples: dict[str, float],
        recordings: Sequence[Recordings] = (),
        max_corrupt: int = 0,
    ):
        self.pass_examples = pass_examples  # of the whole stream, in which each class (of a dataset) is seen once
        self.new_corrupt = 0  # records first met in the batch that was taken last
        self._batches, self._workers = batches, workers
        self._recordings, self._max_corrupt = recordings, max_corrupt
        self._corrupt: set[int] = set()
        self._iterator: Any = None
        self._taken = 0
        self._close: Callable[[], Any] = lambda: None

    def __next__(self) -> dict:
        if self._iterator is None:
            self._iterator = iter(self._dataset())
            self._close = weakref.finalize(self, self._iterator.close)  # also when the program ends
        batch = self._next()
        self._count(batch.pop("corrupt", np.zeros(0, np.int32)))
        self._taken += 1
        if self._workers:  # out of the workers' shared memory, which would last as long as the arrays
            batch = jax.tree.map(np.array, batch)
        return batch

    def _next(self) -> dict:
        try:
            return next(self._iterator)
        except RuntimeError as error:
            if LOST not in str(error):
                raise
            code = str(error).partition("exit code ")[2].partition(".")[0]
            raise WorkerLost(f"a process that reads the data was ended from outside (exit code {code})") from error

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
        met = {int(number) for number in corrupt.flat if number >= 0} - self._corrupt
        self.new_corrupt = len(met)
        for number in sorted(met):
            self._corrupt.add(number)
            of = next(recordings for recordings in reversed(self._recordings) if recordings.first <= number)
            fault = of.fault(number - of.first)
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


def _repeated(windows: grain.MapDataset) -> grain.MapDataset:
    """As good as endless. `repeat()` alone makes it as long as a length can be, and a mixture of several longer."""
    return windows.repeat(MOST_WINDOWS // len(windows))


def make_iterator(
    data: ConfigDict,
    split: str,
    *,
    batch_size: int,
    window_samples: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
) -> BatchIterator:
    """Endless batches of `batch_size` examples (of this process) from one split of the dataset `data.dir`, or of those
    that `data.mixture` names, in the proportions of their weights (see `dataset.sources`).

    Classes come in the proportions `data.class_weights`; within a class every window of its duration once an epoch, in
    an order that the seed draws anew for each; speech that is brighter than each of `data.bright` dB (see `brightness`)
    once more. Every process gets its own part of each total batch. With probability `data.mix_probability` another
    class is mixed in; a gain is uniform in `data.gain_db`; the low-pass is drawn by `lowpass.draw_filter` within
    `data.cutoff_hz` and `data.order`, with `data.log_cutoff`. With probability `data.floor_probability` the low
    resolution is one as it is met (see `as_met.as_met`), and the high one stays clean. A batch holds `hr` (B, N)
    float32; `lr` (B, N) if `data.lr_simulation` is "exact", else `filter`: arrays for
    `lowpass_device.simulate_low_resolution`, and, where there are inputs as they are met, `lr_given` (B,) bool and the
    `lr` (B, N) of those examples; `cutoff_hz`, `bandwidth_hz` (B,) float32, `class_id` (B,) int32. `workers` processes
    prepare batches (0: this one). Up to `data.max_corrupt_records` records that cannot be read are left out.
    Raises UserError for a dataset without one of the weighted classes.
    """
    if data.lr_simulation not in LR_SIMULATIONS:
        raise UserError(f"data.lr_simulation={data.lr_simulation!r} is not one of {', '.join(LR_SIMULATIONS)}")
    if not 0 <= data.floor_probability <= 1:
        raise UserError(f"data.floor_probability={data.floor_probability}: give a share of the examples, from 0 to 1")
    if not all(isinstance(limit, numbers.Real) for limit in data.bright):
        raise UserError(f"data.bright={data.bright!r}: give limits in dB, -30,-20 say, or () for none")
    drawn = sources(data, split, window_samples)
    if data.bright:
        drawn = [
            source._replace(windows=more_of_the_bright(source.windows, data.bright))
            if source.windows.class_name == BY_BRIGHTNESS
            else source
            for source in drawn
        ]
    streams = [
        _repeated(grain.MapDataset.source([(n, i) for i in range(len(windows))]).seed(seed + n).shuffle())
        for n, (windows, _) in enumerate(drawn)
    ]
    mixed = grain.MapDataset.mix(streams, [weight for _, weight in drawn])
    examples = mixed.seed(seed).random_map(Examples(drawn, data))
    total = sum(weight for _, weight in drawn)
    pass_examples = {
        f"{windows.recordings.folder}: {windows.class_name}" if data.mixture else windows.class_name: (
            len(windows) * total / weight
        )
        for windows, weight in drawn
    }
    batches = examples.batch(batch_size)[process_index::process_count]
    recordings = list(dict.fromkeys(windows.recordings for windows, _ in drawn))
    return BatchIterator(batches, workers, pass_examples, recordings, data.max_corrupt_records)
