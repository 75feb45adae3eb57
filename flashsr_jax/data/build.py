"""Build a TFDS dataset (ArrayRecord, no TensorFlow) of full-band recordings at 48 kHz from folders of sound files.

A record is a segment of at most 20.48 s: `audio` int16 (N,), `gain` (sample value = audio x gain), `class`, `group`
(speaker, kit, album: what may be joined, and is never divided over splits), `bandwidth_hz`, `source`, `fingerprint`
and `segment`. Beside the records: `manifest.csv` (every recording, in the order of the records of its split),
`left_out.csv` (path, reason, detail) and `build.json` (the inputs that the dataset was made of).
"""

import collections
import csv as csv_format
import hashlib
import importlib.util
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.formats import readable
from flashsr_jax.data import CLASSES, INPUTS, LEFT_OUT, MANIFEST, SPLITS
from flashsr_jax.data.recording import HELD_OUT, Decoded, Unusable, decode, last_stretches, segment_lengths
from flashsr_jax.errors import UserError
from flashsr_jax.files import csv_cell, local, writable_folder
from flashsr_jax.locks import locked

FOLDER_NAMES = {"voice": "speech", "sfx": "effects", "fx": "effects"} | {name: name for name in CLASSES}
SHARD_RECORDS = 256  # at most 500 MB
FORMAT = 1
HOW_TO_CLASSIFY = f"put it in a folder named {', '.join(CLASSES)}, or name its class in a CSV (--csv)"


@dataclass(frozen=True)
class Recording:
    """A recording to be built in: its file, its name in the manifest, and what is known about it beforehand."""

    path: Path
    name: str
    class_name: str | None
    group: str
    split: str
    movable: bool = False  # to another split, where its class would have nothing there


@dataclass
class BuildSummary:
    """What a build did; `str` gives the text that it printed."""

    out: Path
    up_to_date: bool = False
    recordings: list[dict] = field(default_factory=list)  # the rows of manifest.csv
    left_out: list[dict] = field(default_factory=list)  # the rows of left_out.csv

    def hours(self, class_name: str, split: str) -> float:
        """Hours of a class in a split."""
        rows = (row for row in self.recordings if row["class"] == class_name and row["split"] == split)
        return sum(float(row["seconds"]) for row in rows) / 3600

    def __str__(self) -> str:
        lines = [f"{self.out}: {len(self.recordings)} recordings" + (", up to date" if self.up_to_date else "")]
        lines.append(f"{'hours':10}" + "".join(f"{split:>12}" for split in SPLITS))
        lines += [f"{name:10}" + "".join(f"{self.hours(name, split):12.3f}" for split in SPLITS) for name in CLASSES]
        if self.left_out:
            lines.append(f"left out ({self.out / LEFT_OUT}):")
        for reason, count in collections.Counter(row["reason"] for row in self.left_out).most_common():
            lines.append(f"  {count:5} {reason}" + (f": {HOW_TO_CLASSIFY}" if reason == "no class" else ""))
        present = {row["class"] for row in self.recordings}
        missing = [name for name in CLASSES if name in present and not self.hours(name, "validation")]
        if missing:
            lines.append(
                f"no validation recordings of {', '.join(missing)}: too little to divide; add recordings, or give a "
                "CSV with a split column (--csv)"
            )
        lines += [
            f"{name}: validation and test are of groups (folders, speakers) that are trained on, too: there are fewer "
            "than three"
            for name in CLASSES
            if self._divides_groups(name)
        ]
        return "\n".join(lines)

    def _divides_groups(self, class_name: str) -> bool:
        splits: dict[str, set[str]] = {}
        for row in self.recordings:
            if row["class"] == class_name:
                splits.setdefault(row["group"], set()).add(row["split"])
        return any(len(of_group) > 1 for of_group in splits.values())


def build_dataset(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    csv: str | Path | None = None,
    tfds: Sequence[str] = (),
    min_bandwidth_hz: float = 16_000.0,
    workers: int | None = None,
    overwrite: bool = False,
) -> BuildSummary:
    """Build the dataset `out` from the recordings in `sources` (files, or folders with all that is below them).

    The class comes from the CSV (columns path, class and optionally group, split; paths relative to the CSV, which may
    also name further recordings), else from the nearest folder named speech, music or effects. The group comes from
    the CSV, else it is the folder; the split from the CSV, else from a hash of the group, but so that each class has
    all three: of less than three groups the last recordings are validation and test, and of a single recording its
    last stretches. `tfds` names catalogue datasets as NAME=CLASS. Recordings that cannot be used are listed in
    left_out.csv and do not stop the build.
    `workers` processes decode (default: one a core; 0: this process). The dataset appears under its name once it is
    complete; the same call again finds it and returns. Raises UserError where nothing can be built, and
    where another process builds there.
    """
    out = local(out)
    recordings = _find(sources, csv)
    catalogue = [_catalogue_name(text) for text in tfds]
    if not recordings and not catalogue:
        where = ", ".join(map(str, sources)) or "the call"
        raise UserError(f"no recordings in {where} (looked for {', '.join(readable())})")
    inputs = _inputs(recordings, catalogue, min_bandwidth_hz)
    summary = _existing(out, inputs, overwrite)
    if summary is None:
        writable_folder(out.parent)
        with locked(out.with_name(f".{out.name}.lock"), out):
            summary = _existing(out, inputs, overwrite)  # another build's, by now
            if summary is None:
                if _holds_dataset(out) and (missing := _missing(out)):
                    print(f"flashsr: {missing} is missing: the dataset is built again", file=sys.stderr)
                summary = _replace(recordings, catalogue, out, inputs, min_bandwidth_hz, workers)
    print(summary)
    return summary


def _replace(
    recordings: list[Recording],
    catalogue: list[tuple[str, str]],
    out: Path,
    inputs: dict,
    min_bandwidth_hz: float,
    workers: int | None,
) -> BuildSummary:
    """Build in a folder beside `out`, which takes its place when it is complete."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
    partial.mkdir(parents=True)
    try:
        summary = _build(recordings, catalogue, partial, out, min_bandwidth_hz, workers)
        (partial / INPUTS).write_text(json.dumps(inputs) + "\n")
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def _build(
    recordings: list[Recording],
    catalogue: list[tuple[str, str]],
    partial: Path,
    out: Path,
    min_bandwidth_hz: float,
    workers: int | None,
) -> BuildSummary:
    """Everything but the inputs' description, in the folder `partial`."""
    summary = BuildSummary(out)
    fingerprints: dict[str, str] = {}
    last_ones = _LastOnes()
    with tempfile.TemporaryDirectory(prefix="decoded-", dir=partial) as spool:
        writer = _writer(partial)
        results = _decode_all(recordings, catalogue, Path(spool), min_bandwidth_hz, workers)
        for count, (recording, result) in enumerate(results, 1):
            if isinstance(result, Decoded):
                file = result.file
                first = fingerprints.setdefault(result.fingerprint, recording.name)
                if first == recording.name:
                    for remark in result.remarks:
                        print(f"flashsr: {recording.name}: {remark}", file=sys.stderr)
                    for ready in last_ones.passed(recording, result):
                        _write(writer, summary, *ready)
                else:
                    result = Unusable("duplicate", f"same audio as {first}")
                    file.unlink()
            if isinstance(result, Unusable):
                row = {"path": recording.name, "reason": result.reason, "detail": result.detail}
                summary.left_out.append(row)
            if sys.stderr.isatty():
                print(f"\r{count} of {len(recordings) or 'the'} recordings", end="", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        for ready in last_ones.spread(summary.recordings):
            _write(writer, summary, *ready)
        writer.close_all()
    if not summary.recordings:
        reasons = collections.Counter(row["reason"] for row in summary.left_out)
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        example = summary.left_out[0]
        raise UserError(
            f"nothing to build {out} from: all recordings are left out ({counts}); "
            f"{example['path']}: {example['reason']}: {example['detail']}"
        )
    _write_csv(partial / MANIFEST, summary.recordings, summary.recordings[0])
    _write_csv(partial / LEFT_OUT, summary.left_out, ("path", "reason", "detail"))
    return summary


def _write(writer: Any, summary: BuildSummary, recording: Recording, decoded: Decoded) -> None:
    """Records and the manifest's row of a recording, whose samples are then removed."""
    writer.initialize_splits([recording.split], fail_if_exists=False)
    writer.add_examples({recording.split: _records(recording, decoded)})
    summary.recordings.append(_manifest_row(recording, decoded))
    decoded.file.unlink()


class _LastOnes:
    """The last two training recordings of each class, held back until it is known whether it has the other splits."""

    def __init__(self) -> None:
        self._held: dict[str | None, list[tuple[Recording, Decoded]]] = {}

    def passed(self, recording: Recording, decoded: Decoded) -> list[tuple[Recording, Decoded]]:
        """What can be written now, of this recording and those before it."""
        if not recording.movable or recording.split != "train":
            return [(recording, decoded)]
        held = self._held.setdefault(recording.class_name, [])
        held.append((recording, decoded))
        return [held.pop(0)] if len(held) > len(SPLITS) - 1 else []

    def spread(self, written: list[dict]) -> Iterator[tuple[Recording, Decoded]]:
        """The rest, in the splits that their classes lack; the last recording in stretches where there are too few."""
        for class_name, held in self._held.items():
            there = collections.Counter(row["split"] for row in written if row["class"] == class_name)
            lacking = [split for split in SPLITS[1:] if not there[split]]
            if there["train"] + len(held) > len(lacking):
                splits = ["train"] * (len(held) - len(lacking)) + lacking
                yield from ((replace(r, split=split), d) for (r, d), split in zip(held, splits, strict=True))
                continue
            yield from held[:-1]
            recording, decoded = held[-1]
            for start, split, stretch in last_stretches(decoded, lacking):
                name = f"{recording.name}, from {start / SAMPLE_RATE:.2f} s" if start else recording.name
                yield replace(recording, name=name, split=split), stretch


def _find(sources: Sequence[str | Path], csv: str | Path | None) -> list[Recording]:
    """All recordings of the sources and of the CSV, in the order of their names."""
    listed = _read_csv(Path(csv)) if csv else {}
    files = dict.fromkeys(listed)
    roots = []
    for source in map(local, sources):
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        roots.append(source.absolute() if source.is_dir() else source.absolute().parent)
        found = sorted(source.rglob("*")) if source.is_dir() else [source]
        seen = [path for path in found if path == source or (path.is_file() and not path.name.startswith("."))]
        taken = [path for path in seen if path == source or path.suffix.lower() in readable()]
        files |= {path.absolute(): None for path in taken}
        known = {*files, Path(csv).absolute()} if csv else files
        _say_passed_over(source, [path for path in seen if path.absolute() not in known], found)
    if not files:
        return []
    # Names are relative to what all have in common, so that a moved or re-cloned tree gives the same groups and splits.
    base = Path(os.path.commonpath(map(str, roots or [Path(csv or ".").absolute().parent])))
    recordings = []
    for path in files:
        row = listed.get(path, {})
        name = os.fsencode(os.path.relpath(path, base)).decode(errors="replace")
        group = row.get("group") or Path(name).parent.as_posix()
        recordings.append(
            Recording(
                path=path,
                name=name,
                class_name=row.get("class") or folder_class(path),
                group=group,
                split=row.get("split") or hashed_split(group),
            )
        )
    fixed = {r.class_name for r in recordings if listed.get(r.path, {}).get("split")}
    recordings = [r if r.class_name in fixed else replace(r, movable=True) for r in recordings]
    return sorted(_in_all_splits(recordings), key=lambda recording: recording.name)


def _in_all_splits(recordings: list[Recording]) -> list[Recording]:
    """With whole groups moved where a class of three or more would lack a split; all in training where it has less."""
    groups: dict[str | None, set[str]] = {}
    for r in recordings:
        if r.movable:
            groups.setdefault(r.class_name, set()).add(r.group)
    splits = {}
    for class_name, names in groups.items():
        ordered = sorted(names, key=_share)
        drawn = collections.Counter(map(hashed_split, names))
        validation = min(max(drawn["validation"], 1), len(names) - 2)
        test = min(max(drawn["test"], 1), len(names) - 1 - validation)
        for rank, name in enumerate(ordered):
            split = "validation" if rank < validation else "test" if rank < validation + test else "train"
            splits[class_name, name] = split if len(names) > 2 else "train"
    return [replace(r, split=splits[r.class_name, r.group]) if r.movable else r for r in recordings]


def _say_passed_over(source: Path, files: Sequence[Path], found: Sequence[Path]) -> None:
    """A line on stderr for the files of a folder that are not taken, by their suffixes, and the linked folders."""
    suffixes = collections.Counter(path.suffix.lower().removeprefix(".") or "without a suffix" for path in files)
    links = [f"{path.relative_to(source)} (a link)" for path in found if path.is_symlink() and path.is_dir()]
    passed_over = [f"{number} {suffix}" for suffix, number in sorted(suffixes.items())] + links
    if passed_over:
        how = "a CSV (--csv) takes files whatever their suffix"
        print(f"flashsr: {source}: passed over: {', '.join(passed_over)}; {how}", file=sys.stderr)


def folder_class(path: Path) -> str | None:
    """Class by the nearest folder with a class's name."""
    names = (FOLDER_NAMES.get(part.lower()) for part in reversed(path.parent.parts))
    return next((name for name in names if name), None)


def hashed_split(group: str) -> str:
    """Split of a group: a function of its name alone, 5 % each in validation and test."""
    share = _share(group)
    return "validation" if share < HELD_OUT else "test" if share < 2 * HELD_OUT else "train"


def _share(group: str) -> float:
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest()) / 2**64


def _read_csv(path: Path) -> dict[Path, dict]:
    """Rows by absolute path of the recording."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv_format.DictReader(lines)
            missing = {"path", "class"} - set(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv_format.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error
    if missing:
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}; needed: path,class[,group][,split]")
    for number, row in enumerate(rows, 2):
        for column, choices in (("class", CLASSES), ("split", SPLITS)):
            if row.get(column) and row[column] not in choices:
                raise UserError(f"{path}, line {number}: {column} {row[column]!r} is not one of {', '.join(choices)}")
    return {(path.absolute().parent / row["path"]).absolute(): row for row in rows}


def _inputs(recordings: list[Recording], catalogue: list[tuple[str, str]], min_bandwidth_hz: float) -> dict:
    """What a dataset depends on, to recognise it again."""
    digest = hashlib.sha256()
    for r in recordings:
        stat = r.path.stat() if r.path.exists() else None
        state = (stat.st_size, stat.st_mtime_ns) if stat else None
        digest.update(repr((r.name, r.class_name, r.group, r.split, state)).encode())
    return {
        "format": FORMAT,
        "min_bandwidth_hz": min_bandwidth_hz,
        "recordings": len(recordings),
        "digest": digest.hexdigest(),
        "tfds": [f"{name}={class_name}" for name, class_name in catalogue],
    }


def _holds_dataset(out: Path) -> bool:
    """Whether `out` is a dataset of this program, as opposed to nothing; UserError for anything else."""
    if (out / INPUTS).is_file():
        return True
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is no dataset of this program: choose another --out")
    return False


def _existing(out: Path, inputs: dict, overwrite: bool) -> BuildSummary | None:
    """Summary of the dataset there, where nothing is to be built. Raises UserError where another is in the way."""
    if not _holds_dataset(out):
        return None
    summary = _up_to_date(out, inputs)
    if summary is None and not overwrite:
        raise UserError(f"{out} holds a dataset of other recordings or options: choose another --out or --overwrite")
    return None if _missing(out) else summary


def _missing(out: Path) -> Path | None:
    """A file of records that the dataset lacks."""
    import tensorflow_datasets as tfds  # slow to import

    splits = tfds.builder_from_directory(out).info.splits.values()
    files = (Path(path) for split in splits for path in split.filepaths)
    return next((file for file in files if not file.is_file()), None)


def _up_to_date(out: Path, inputs: dict) -> BuildSummary | None:
    """Summary of the dataset there if it is of the same inputs."""
    if json.loads((out / INPUTS).read_text()) != inputs:
        return None
    rows = []
    for name in (MANIFEST, LEFT_OUT):
        with (out / name).open(newline="", encoding="utf-8") as lines:
            rows.append(list(csv_format.DictReader(lines)))
    return BuildSummary(out, True, *rows)


def _decode_all(
    recordings: list[Recording],
    catalogue: list[tuple[str, str]],
    spool: Path,
    min_bandwidth_hz: float,
    workers: int | None,
) -> Iterator[tuple[Recording, Decoded | Unusable]]:
    """Results in the recordings' order; at most a few recordings per worker wait on the disk."""
    workers = os.cpu_count() or 1 if workers is None else workers

    def tasks() -> Iterator[Recording]:
        yield from recordings
        for name, class_name in catalogue:
            yield from _catalogue_recordings(_catalogue_builder(name), name, class_name, spool)

    arguments = (
        (recording, spool / f"{number}.i16", min_bandwidth_hz, spool) for number, recording in enumerate(tasks())
    )
    if workers == 0:
        yield from (_decode(*argument) for argument in arguments)
        return
    waiting: collections.deque = collections.deque()
    pool = _pool(workers)

    def first() -> tuple[Recording, Decoded | Unusable]:
        argument, future = waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool:  # by this one, or by another that was decoded at the same time
            return _decode_alone(argument)

    try:
        for argument in arguments:
            try:
                future = pool.submit(_decode, *argument)
            except BrokenProcessPool:
                pool.shutdown()
                pool = _pool(workers)
                future = pool.submit(_decode, *argument)
            waiting.append((argument, future))
            if len(waiting) > 4 * workers:
                yield first()
        while waiting:
            yield first()
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def _decode_alone(argument: tuple) -> tuple[Recording, Decoded | Unusable]:
    """Decode a recording in a process of its own, after one was killed: if this one is, too, it was the recording."""
    with _pool(1) as pool:
        try:
            return pool.submit(_decode, *argument).result()
        except BrokenProcessPool:
            return argument[0], Unusable("unreadable", "decoding it killed the process (out of memory?)")


def _decode(
    recording: Recording, file: Path, min_bandwidth_hz: float, spool: Path
) -> tuple[Recording, Decoded | Unusable]:
    """One task: the result, or why there is none; a catalogue's temporary file is removed."""
    try:
        if recording.class_name is None:
            raise Unusable("no class", HOW_TO_CLASSIFY)
        return recording, decode(recording.path, file, min_bandwidth_hz)
    except Unusable as unusable:
        return recording, unusable
    finally:
        if recording.path.parent == spool:
            recording.path.unlink()


def _writer(folder: Path) -> Any:
    """TFDS writer of the records into all splits, in the order in which they come."""
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    identity = tfds.core.dataset_info.DatasetIdentity(
        name="recordings", version="1.0.0", data_dir=str(folder), module_name=__name__
    )
    scalar = lambda dtype: tfds.features.Tensor(shape=(), dtype=dtype)  # noqa: E731
    audio = tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES)
    features = {
        "audio": audio,
        "gain": scalar(np.float32),
        "class": tfds.features.ClassLabel(names=CLASSES),
        "group": tfds.features.Text(),
        "bandwidth_hz": scalar(np.float32),
        "source": tfds.features.Text(),
        "fingerprint": tfds.features.Text(),
        "segment": scalar(np.int32),
    }
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=f"Full-band recordings at {SAMPLE_RATE} Hz, one channel each, in segments.",
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
    )
    return tfds.core.SequentialWriter(info, max_examples_per_shard=SHARD_RECORDS, file_format="array_record")


def _records(recording: Recording, decoded: Decoded) -> Iterator[dict]:
    with decoded.file.open("rb") as samples:
        for segment, length in enumerate(segment_lengths(decoded.samples)):
            yield {
                "audio": np.frombuffer(samples.read(2 * length), np.int16),
                "gain": decoded.gains[segment],
                "class": recording.class_name,
                "group": recording.group,
                "bandwidth_hz": decoded.bandwidth_hz,
                "source": recording.name,
                "fingerprint": decoded.fingerprint,
                "segment": segment,
            }


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
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv_format.DictWriter(lines, list(columns))
        writer.writeheader()
        writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)


def _catalogue_name(text: str) -> tuple[str, str]:
    name, _, class_name = text.partition("=")
    if not name or class_name not in CLASSES:
        raise UserError(f"--tfds {text}: write NAME=CLASS with a class of {', '.join(CLASSES)}, such as vctk=speech")
    return name, class_name


def _catalogue_builder(name: str) -> Any:
    """A dataset of the TFDS catalogue, downloaded and prepared."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(f"--tfds {name}: catalogue datasets need TensorFlow: pip install 'flashsr_jax[tf]'")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(f"--tfds {name}: no such dataset in the TFDS catalogue") from error
    builder.download_and_prepare()
    return builder


def _catalogue_recordings(builder: Any, name: str, class_name: str, spool: Path) -> Iterator[Recording]:
    """Recordings of a prepared catalogue dataset, as temporary files; the group is the speaker where there is one.

    Raises UserError for a dataset without an audio feature.
    """
    if "audio" not in builder.info.features:
        raise UserError(f"--tfds {name}: this dataset has no audio")
    sample_rate = builder.info.features["audio"].sample_rate
    for split in builder.info.splits:
        for number, example in enumerate(builder.as_data_source(split)):
            path = spool / f"{name.replace('/', '-')}-{split}-{number}.wav"
            audio_N = np.asarray(example["audio"])
            if np.issubdtype(audio_N.dtype, np.integer):
                audio_N = audio_N.astype(np.int16)
            sf.write(path, audio_N, sample_rate, subtype="PCM_16" if audio_N.dtype == np.int16 else "FLOAT")
            group = f"{name}/{example['speaker']}" if "speaker" in example else name
            yield Recording(path, f"{name}/{split}/{number}", class_name, group, hashed_split(group), movable=True)
