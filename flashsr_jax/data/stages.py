"""The stages in which recordings become a dataset: one definition of each, whatever engine runs it (see `engines`).

Every recording is decoded by itself; copies are found among those of one fingerprint, splits filled up among those of
one class, shards laid out within a split; each shard is written by itself. What a stage makes depends on what it is
given alone, and the folder keeps it: a build that was ended goes on from there. All processes see the folder under one
name.
"""

import collections
import csv as csv_format
import dataclasses
import functools
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.data import CLASSES, LEFT_OUT, MANIFEST, SPLITS, catalogue
from flashsr_jax.data.recording import HELD_OUT, Decoded, Unusable, decode, last_stretches, segment_lengths
from flashsr_jax.errors import one_line
from flashsr_jax.files import csv_cell, replacing

SHARD_RECORDS = 256  # at most 500 MB
WORK = "decoded"  # the folder of samples on their way
COLUMNS = (
    *("path", "class", "group", "split", "seconds", "samples"),
    *("sample_rate", "channels", "channel", "bandwidth_hz", "fingerprint"),
)
HOW_TO_CLASSIFY = f"put it in a folder named {', '.join(CLASSES)}, or name its class in a CSV"
FEWEST_TO_A_SPLIT = len(SPLITS) - 1  # recordings that are kept back until it is known what their class lacks


@dataclass(frozen=True)
class Recording:
    """A recording to be built in: its file, its name in the manifest, and what is known about it beforehand."""

    number: int  # in the order of names
    path: Path
    name: str
    class_name: str | None
    group: str
    split: str
    movable: bool = False  # to another split, where its class would have nothing there
    entry: tuple[str, str, int] | None = None  # instead of a file: dataset, split and number in the TFDS catalogue

    def as_json(self) -> str:
        """On a line; a file's name need not be text."""
        return json.dumps(dataclasses.asdict(self) | {"path": str(self.path)})

    @classmethod
    def of_json(cls, line: str) -> "Recording":
        """What `as_json` gave."""
        fields = json.loads(line)
        entry = fields["entry"] and tuple(fields["entry"])
        return cls(**fields | {"path": Path(fields["path"]), "entry": entry})


@dataclass(frozen=True)
class Part:
    """A recording, or one of the stretches that it is divided into, with what became of it."""

    recording: Recording
    result: Decoded | Unusable
    start: int = 0  # of a stretch, in samples

    @property
    def order(self) -> tuple[int, int]:
        """Its place in the dataset."""
        return self.recording.number, self.start


@dataclass(frozen=True)
class Shard:
    """A file of records: segments `first` ... `last` of each part."""

    split: str
    number: int
    parts: tuple[tuple[Part, int, int], ...]


def hashed_split(group: str) -> str:
    """Split of a group: a function of its name alone, 5 % each in validation and test."""
    share = share_of(group)
    return "validation" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"


def share_of(group: str) -> float:
    """A number in [0, 1) that the name of a group stands for."""
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest()) / 2**64


def decoded(folder: Path, min_bandwidth_hz: float, recording: Recording) -> Part:
    """Stage 1, of each recording: its samples in the folder and what is known of them, or why it is left out."""
    file = folder / WORK / str(recording.number // 1000) / f"{recording.number}.i16"
    about = file.with_suffix(".json")
    if about.exists():
        return _known(recording, file, json.loads(about.read_text()))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        if recording.class_name is None:
            raise Unusable("no class", HOW_TO_CLASSIFY)
        with tempfile.TemporaryDirectory(dir=file.parent) as temporary, replacing(file) as partial:
            path = recording.path
            if recording.entry:
                path = Path(temporary) / "recording.wav"
                group = catalogue.fetched(recording.entry, path)
                recording = replace(recording, group=group, split=hashed_split(group))
            result: Decoded | Unusable = replace(decode(path, partial, min_bandwidth_hz), file=file)
    except Unusable as unusable:
        result = unusable
    known = list(result.args) if isinstance(result, Unusable) else dataclasses.asdict(result) | {"file": ""}
    with replacing(about) as partial:
        partial.write_text(json.dumps([recording.group, recording.split, known]))
    return Part(recording, result)


def _known(recording: Recording, file: Path, about: list) -> Part:
    """What an earlier build found out."""
    group, split, known = about
    recording = replace(recording, group=group, split=split)
    if isinstance(known, list):
        return Part(recording, Unusable(*known))
    gains, remarks = tuple(known["gains"]), tuple(known["remarks"])
    return Part(recording, Decoded(**known | {"file": file, "gains": gains, "remarks": remarks}))


def lost(recording: Recording) -> Part:
    """Stage 1, where decoding ends the process."""
    return Part(recording, Unusable("unreadable", "decoding it killed the process (out of memory?)"))


def by_fingerprint(part: Part) -> str:
    """The key of stage 2; one of its own for what is left out."""
    return part.result.fingerprint if isinstance(part.result, Decoded) else f"left out: {part.recording.number}"


def without_copies(parts: Iterable[Part]) -> list[Part]:
    """Stage 2, of those with the same audio: the first by name stays."""
    first, *copies = sorted(parts, key=lambda part: part.order)
    copy = Unusable("duplicate", f"same audio as {first.recording.name}")
    return [first, *(replace(part, result=copy) for part in copies)]


def by_class(part: Part) -> str:
    """The key of stage 3."""
    return str(part.recording.class_name) if isinstance(part.result, Decoded) else ""


def in_all_splits(parts: Iterable[Part]) -> list[Part]:
    """Stage 3, of a class: its last training recordings are moved to the splits that it lacks; where there are too few,
    the last one is divided. Only those that are `movable` are."""
    parts = sorted(parts, key=lambda part: part.order)
    training = [part for part in parts if part.recording.split == "train"]
    held = [part for part in training if part.recording.movable and isinstance(part.result, Decoded)]
    held = held[-FEWEST_TO_A_SPLIT:]
    there = {part.recording.split for part in parts}
    lacking = [split for split in SPLITS[1:] if split not in there]
    if not held or not lacking:
        return parts
    if len(training) > len(lacking):
        splits = dict(zip((part.order for part in held[-len(lacking) :]), lacking, strict=False))
        return [
            replace(part, recording=replace(part.recording, split=splits.get(part.order, part.recording.split)))
            for part in parts
        ]
    return [part for part in parts if part is not held[-1]] + list(_stretches(held[-1], lacking))


def _stretches(part: Part, splits: list[str]) -> Iterator[Part]:
    assert isinstance(part.result, Decoded)
    for start, split, stretch in last_stretches(part.result, splits):
        name = part.recording.name
        name = f"{name}, from {start / SAMPLE_RATE:.2f} s" if start else name
        yield Part(replace(part.recording, name=name, split=split), stretch, start)


def by_split(part: Part) -> str:
    """The key of stage 4."""
    return part.recording.split if isinstance(part.result, Decoded) else ""


def shards(parts: Iterable[Part]) -> list[Shard]:
    """Stage 4, of a split: which segments are in which file."""
    laid_out: list[Shard] = []
    taken: list[tuple[Part, int, int]] = []
    room = SHARD_RECORDS
    for part in sorted(parts, key=lambda part: part.order):
        if isinstance(part.result, Unusable):
            continue
        first, segments = 0, len(segment_lengths(part.result.samples))
        while first < segments:
            last = min(segments, first + room)
            taken.append((part, first, last))
            room -= last - first
            first = last
            if not room:
                laid_out.append(Shard(part.recording.split, len(laid_out), tuple(taken)))
                taken, room = [], SHARD_RECORDS
    if taken:
        laid_out.append(Shard(taken[0][0].recording.split, len(laid_out), tuple(taken)))
    return laid_out


def shard_lengths(segments: int) -> list[int]:
    """Records in each file of a split."""
    return [min(SHARD_RECORDS, segments - start) for start in range(0, segments, SHARD_RECORDS)]


def written(folder: Path, shard: Shard) -> str:
    """Stage 5, of each shard: its file, which is there once it is complete. Returns its name.

    Samples that no other shard needs are then removed.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    path = folder / shard_name(shard.split, shard.number)
    if path.exists():
        return path.name
    with replacing(path) as partial:
        writer = ArrayRecordWriter(str(partial), "group_size:1")
        for part, first, last in shard.parts:
            for record in _records(part, first, last):
                writer.write(record)
        writer.close()
    for part, first, last in shard.parts:
        result = part.result
        assert isinstance(result, Decoded)
        if (first, last) == (0, len(segment_lengths(result.samples))):
            result.file.unlink(missing_ok=True)
    return path.name


def shard_name(split: str, number: int) -> str:
    """The file of a shard, as TFDS has it."""
    return f"recordings-{split}.array_record-{number:05d}"


def features() -> Any:
    """What a record holds, in TFDS's terms."""
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    scalar = lambda dtype: tfds.features.Tensor(shape=(), dtype=dtype)  # noqa: E731
    return tfds.features.FeaturesDict(
        {
            "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES),
            "gain": scalar(np.float32),
            "class": tfds.features.ClassLabel(names=CLASSES),
            "group": tfds.features.Text(),
            "bandwidth_hz": scalar(np.float32),
            "source": tfds.features.Text(),
            "fingerprint": tfds.features.Text(),
            "segment": scalar(np.int32),
        }
    )


@functools.cache
def _serializer() -> tuple[Any, Any]:
    import tensorflow_datasets as tfds

    described = features()
    return described, tfds.core.example_serializer.ExampleSerializer(described.get_serialized_info())


def _records(part: Part, first: int, last: int) -> Iterator[bytes]:
    """Segments `first` ... `last` of a part, serialised."""
    described, serializer = _serializer()
    recording, result = part.recording, part.result
    assert isinstance(result, Decoded)
    lengths = segment_lengths(result.samples)
    with result.file.open("rb") as samples:
        samples.seek(2 * sum(lengths[:first]))
        for segment in range(first, last):
            record = {
                "audio": np.frombuffer(samples.read(2 * lengths[segment]), np.int16),
                "gain": result.gains[segment],
                "class": recording.class_name,
                "group": recording.group,
                "bandwidth_hz": result.bandwidth_hz,
                "source": recording.name,
                "fingerprint": result.fingerprint,
                "segment": segment,
            }
            example = serializer.get_tf_example(described.encode_example(record))
            yield example.SerializeToString(deterministic=True)  # the same bytes in every process


def all_of(part: Part) -> str:
    """The key of stage 6: one for all."""
    del part
    return ""


def listed(folder: Path, parts: Iterable[Part]) -> list[str]:
    """Stage 6, of all recordings: manifest.csv and left_out.csv, and a line on stderr for what was odd about a file."""
    parts = sorted(parts, key=lambda part: part.order)
    rows: list[dict] = []
    left_out = []
    remarks: dict[int, tuple[str, tuple[str, ...]]] = {}
    for part in parts:
        recording, result = part.recording, part.result
        if isinstance(result, Unusable):
            left_out.append({"path": recording.name, "reason": result.reason, "detail": result.detail})
        else:
            rows.append(_manifest_row(recording, result))
            remarks.setdefault(recording.number, (recording.name, result.remarks))
    for name, of_recording in remarks.values():
        for remark in of_recording:
            print(one_line(f"flashsr: {name}: {remark}"), file=sys.stderr)
    _write_csv(folder / MANIFEST, rows, COLUMNS)
    _write_csv(folder / LEFT_OUT, left_out, ("path", "reason", "detail"))
    return [MANIFEST, LEFT_OUT]


def _manifest_row(recording: Recording, decoded: Decoded) -> dict:
    return {
        "path": recording.name,
        "class": recording.class_name,
        "group": recording.group,
        "split": recording.split,
        "seconds": f"{decoded.samples / SAMPLE_RATE:.3f}",
        "samples": decoded.samples,
        "sample_rate": decoded.sample_rate,
        "channels": decoded.channels,
        "channel": decoded.channel,
        "bandwidth_hz": f"{decoded.bandwidth_hz:.0f}",
        "fingerprint": decoded.fingerprint,
    }


def _write_csv(path: Path, rows: list[dict], columns: Iterable[str]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as lines:
        writer = csv_format.DictWriter(lines, list(columns))
        writer.writeheader()
        writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)


def write_info(folder: Path, rows: list[dict]) -> None:
    """What TFDS reads of a dataset whose shards are there; `rows` are those of its manifest."""
    import tensorflow_datasets as tfds

    identity = tfds.core.dataset_info.DatasetIdentity(
        name="recordings", version="1.0.0", data_dir=str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=f"Full-band recordings at {SAMPLE_RATE} Hz, one channel each, in segments.",
        features=features(),
        disable_shuffling=True,
    )
    info.set_file_format("array_record")
    segments: collections.Counter[str] = collections.Counter()
    for row in rows:
        segments[row["split"]] += len(segment_lengths(int(row["samples"])))
    splits = []
    for split in SPLITS:
        if segments[split]:
            lengths = shard_lengths(segments[split])
            files = (folder / shard_name(split, number) for number in range(len(lengths)))
            template = tfds.core.ShardedFileTemplate(
                dataset_name="recordings",
                data_dir=str(folder),
                split=split,
                filetype_suffix="array_record",
                template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
            )
            size = sum(file.stat().st_size for file in files)
            splits.append(tfds.core.SplitInfo(split, lengths, size, template))
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(str(folder))
