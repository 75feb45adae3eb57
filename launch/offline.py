"""Recordings and wheels in parts small enough to carry to a host without a network; see launch/offline.sh.

python launch/offline.py pack DATASET WHEELS PARTS HOURS
python launch/offline.py table FOLDER
"""

import csv
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.data import CLASSES
from flashsr_jax.data.dataset import Recordings
from flashsr_jax.errors import UserError
from flashsr_jax.files import replacing

PART_BYTES = 45_000_000
VALIDATION_HOURS = 0.1  # a class
VORBIS = 0.1  # of 1: the least compression keeps the band up to 20 kHz and more; 64 MB an hour
COLUMNS = ("path", "class", "group", "split")


def pack(dataset: str, wheels: Path, parts: Path, hours: float) -> int:
    """Write PARTS/1, PARTS/2 ...: wheels first, then `hours` of each class of the training split (all, where there are
    fewer) and some validation recordings in the first part with audio; returns how many parts there are.

    A part with audio has a table recordings.csv for `flashsr data build --csv`.
    """
    if parts.exists() and any(parts.iterdir()):
        raise UserError(f"{parts} is not empty: choose another folder, or empty it")
    number = 0
    for number, files in enumerate(_grouped(sorted(wheels.glob("*.whl"))), start=1):
        folder = parts / str(number)
        folder.mkdir(parents=True)
        for wheel in files:
            shutil.copy(wheel, folder)
    part = _AudioPart(parts / str(number + 1))
    chosen = [*_chosen(dataset, "validation", VALIDATION_HOURS), *_chosen(dataset, "train", hours)]
    for recordings, index in chosen:
        if part.bytes > PART_BYTES:
            part.close()
            part = _AudioPart(part.folder.with_name(str(int(part.folder.name) + 1)))
        part.add(recordings, index)
    part.close()
    return int(part.folder.name)


class _AudioPart:
    """One part with recordings and their table."""

    def __init__(self, folder: Path):
        self.folder, self.bytes = folder, 0
        self._rows: list[list[str]] = []
        folder.mkdir(parents=True)

    def add(self, recordings: Recordings, index: int) -> None:
        class_name = CLASSES[recordings.class_id[index]]
        path = self.folder / f"{class_name}-{recordings.fingerprint[index][0]}-{recordings.fingerprint[index][1]}.ogg"
        x_N = np.clip(recordings.read(index), -1, 1)
        soundfile.write(path, x_N, SAMPLE_RATE, format="OGG", subtype="VORBIS", compression_level=VORBIS)
        self.bytes += path.stat().st_size
        self._rows.append([path.name, class_name, recordings.group[index], recordings.split])

    def close(self) -> None:
        with (self.folder / "recordings.csv").open("w", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows([COLUMNS, *self._rows])


def _chosen(dataset: str, split: str, hours: float) -> Iterator[tuple[Recordings, int]]:
    """The classes in turn by duration, so that each part has its share of every class; random order within a class."""
    recordings = Recordings(dataset, split)
    rng = np.random.default_rng(0)
    turns = []
    for class_id in range(len(CLASSES)):
        order = rng.permutation(np.flatnonzero(recordings.class_id == class_id))
        until = np.cumsum(recordings.length[order]) / SAMPLE_RATE / 3600
        turns += [(ends, int(index)) for ends, index in zip(until, order, strict=True) if ends <= hours]
    yield from ((recordings, index) for _, index in sorted(turns))


def _grouped(files: list[Path]) -> Iterator[list[Path]]:
    """Files in groups of at most PART_BYTES; a larger file is alone."""
    group: list[Path] = []
    total = 0
    for path in files:
        if group and total + path.stat().st_size > PART_BYTES:
            yield group
            group, total = [], 0
        group.append(path)
        total += path.stat().st_size
    if group:
        yield group


def join_tables(folder: Path) -> None:
    """FOLDER/recordings.csv of the parts with audio in FOLDER."""
    rows = []
    for table in sorted(folder.glob("*/recordings.csv")):
        with table.open(newline="", encoding="utf-8") as lines:
            rows += [row | {"path": f"{table.parent.name}/{row['path']}"} for row in csv.DictReader(lines)]
    if not rows:
        raise UserError(f"{folder}: no part with recordings in it: add some")
    with replacing(folder / "recordings.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    try:
        if command == "pack":
            dataset, wheels, parts, hours = arguments
            print(f"{pack(dataset, Path(wheels), Path(parts), float(hours))} parts in {parts}")
        else:
            join_tables(Path(*arguments))
    except UserError as error:
        sys.exit(f"offline.py: {error}")
