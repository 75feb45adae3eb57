"""What random crops out of long recordings cost to read, from records of several lengths.

    python launch/read_crops.py [MINUTES [CROPS]]

Builds a dataset of music of MINUTES (10) for each length, reads CROPS (300) crops of 5.12 s, and prints a table: crops
a second of CPU, and bytes that were asked of the file for each. A crop may begin anywhere; one that lies in two records
reads both. The last lines are whole training examples, as `small` and `base` have them, for comparison.
"""

import contextlib
import functools
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.commands.configuration import load_configuration
from flashsr_jax.data import recording
from flashsr_jax.data.build import build_dataset
from flashsr_jax.data.dataset import Recordings
from flashsr_jax.train.batch import waveform_batches

MUSIC = Path(__file__).resolve().parents[1] / "tests" / "recordings" / "music"
CROP = 245_760  # 5.12 s
SECONDS = (81.92, 20.48, 10.24, 5.12, 2.56)  # a record; 20.48 s are the datasets'
BATCH = 8


def built(source: Path, out: Path, seconds: float) -> Recordings:
    """The recording as a dataset with records of so many seconds."""
    with mock.patch.object(recording, "SEGMENT_SAMPLES", round(seconds * SAMPLE_RATE)):
        with contextlib.redirect_stdout(io.StringIO()):
            build_dataset([source], out, csv=source / "table.csv", min_bandwidth_hz=0, workers=0)
        return Recordings(out, "train")


def crop(recordings: Recordings, start: int) -> np.ndarray:
    """Samples `start` ... `start` + CROP of the recording, out of as many records as they lie in."""
    ends = np.cumsum(recordings.length)
    parts: list[np.ndarray] = []
    index, missing = int(np.searchsorted(ends, start, side="right")), CROP
    offset = start - int(ends[index] - recordings.length[index])
    while missing > 0:
        parts.append(recordings.read(index, offset, offset + missing))
        missing -= len(parts[-1])
        index, offset = index + 1, 0
    return np.concatenate(parts)


def next_crop(recordings: Recordings, starts: Iterator[int]) -> np.ndarray:
    """`crop` at the next of `starts`."""
    return crop(recordings, int(next(starts)))


def cost(work: Callable[[], object], times: int) -> tuple[float, float]:
    """(calls a second of CPU, bytes read a call)."""
    work()  # what is opened once
    before, began = bytes_read(), time.process_time()
    for _ in range(times):
        work()
    return times / (time.process_time() - began), (bytes_read() - before) / times


def bytes_read() -> int:
    """By this process so far, from files or their cache."""
    return int(Path("/proc/self/io").read_text().split()[1])


def main() -> None:
    """Prints the table."""
    minutes, crops = (int(text) for text in (*sys.argv[1:3], *("10", "300")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        x_N = np.concatenate([sf.read(path, always_2d=True)[0][:, 0] for path in sorted(MUSIC.rglob("*.flac"))])
        sf.write(source / "music.flac", np.resize(x_N, minutes * 60 * SAMPLE_RATE), SAMPLE_RATE)
        (source / "table.csv").write_text("path,class,group,split\nmusic.flac,music,album,train\n")
        print("| seconds a record | crops a second of CPU | MB read a crop |\n| ---: | ---: | ---: |")
        for seconds in SECONDS:
            recordings = built(source, Path(folder, str(seconds)), seconds)
            starts = iter(np.random.default_rng(0).integers(recordings.length.sum() - CROP, size=crops + 1))
            rate, size = cost(functools.partial(next_crop, recordings, starts), crops)
            print(f"| {seconds} | {rate:.0f} | {size / 1e6:.2f} |", flush=True)
        for preset in ("small", "base"):
            data = {"dir": f"{folder}/20.48", "window_frames": 512, "workers": 0}
            data |= {"class_weights.speech": 0, "class_weights.effects": 0}
            options = [f"--config.data.{name}={value}" for name, value in data.items()]
            batches = waveform_batches(load_configuration(f"regression:{preset}", options), BATCH)
            rate, size = cost(functools.partial(next, batches), max(1, crops // 5 // BATCH))
            print(f"| 20.48, an example of `{preset}` | {rate * BATCH:.0f} | {size / BATCH / 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    main()
