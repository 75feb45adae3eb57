"""Build a TFDS dataset (ArrayRecord, no TensorFlow) of full-band recordings at 48 kHz from folders of sound files.

A record is a segment of at most 20.48 s: `audio` int16 (N,), `gain` (sample value = audio x gain), `class`, `group`
(speaker, kit, album: what may be joined, and is never divided over splits), `bandwidth_hz`, `source`, `fingerprint`
and `segment`. Beside the records: `manifest.csv` (every recording, in the order of the records of its split),
`left_out.csv` (path, reason, detail) and `build.json` (the inputs that the dataset was made of).
"""

import collections
import csv as csv_format
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flashsr_jax import errors
from flashsr_jax.audio.formats import readable
from flashsr_jax.data import CLASSES, INPUTS, LEFT_OUT, MANIFEST, SPLITS, catalogue, engines, stages
from flashsr_jax.data.engines import Beam, Engine, Processes
from flashsr_jax.data.stages import HOW_TO_CLASSIFY, Recording, hashed_split, share_of
from flashsr_jax.errors import UserError
from flashsr_jax.files import below, local, writable_folder
from flashsr_jax.locks import locked

FOLDER_NAMES = {"voice": "speech", "sfx": "effects", "fx": "effects"} | {name: name for name in CLASSES}
FORMAT = 1


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
            lines.append(f"  {count:5} {reason}" + (f": {HOW_TO_CLASSIFY} (`csv`)" if reason == "no class" else ""))
        present = {row["class"] for row in self.recordings}
        missing = [name for name in CLASSES if name in present and not self.hours(name, "validation")]
        if missing:
            lines.append(
                f"no validation recordings of {', '.join(missing)}: too little to divide; add recordings, or give a "
                "CSV with a split column (`csv`)"
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
    runner: Sequence[str] = (),
    overwrite: bool = False,
    worded: Callable[[str], str] = str,
) -> BuildSummary:
    """Build the dataset `out` from the recordings in `sources` (files, or folders with all below that is not hidden).

    The class comes from the CSV (columns path, class and optionally group, split; paths relative to the CSV, which may
    also name further recordings), else from the nearest folder named speech, music or effects. The group comes from
    the CSV, else it is the folder; the split from the CSV, else from a hash of the group, but so that each class has
    all three: of less than three groups the last recordings are validation and test, and of a single recording its
    last stretches. `tfds` names catalogue datasets as NAME=CLASS. Recordings that cannot be used are listed in
    left_out.csv and do not stop the build. So are those with less bandwidth than `min_bandwidth_hz`; of a rate under
    44.1 kHz it ends where resampling to 48 kHz begins to take something, and the losses end there, too.
    `workers` processes do the work (default: one a core; 0: this process), or `runner`: one of Apache Beam's by name,
    and Beam's options. The records are the same. The dataset appears under its name once it is complete; until then
    what is done lies beside it, and the same call goes on from there. Called again, it finds the dataset and returns.
    What it prints is `worded`, where it names a parameter.
    Raises UserError where nothing can be built, where another process builds there, and where a runner fails.
    """
    out = local(out)
    engine = Beam(runner[0], runner[1:]) if runner else Processes(workers)
    recordings = _find(sources, csv)
    from_catalogue = [catalogue.parsed(text) for text in tfds]
    if not recordings and not from_catalogue:
        where = ", ".join(map(str, sources)) or "the call"
        raise UserError(f"no recordings in {where} (looked for {', '.join(readable())})")
    min_bandwidth_hz = float(min_bandwidth_hz)  # NumPy's numbers are none of JSON's
    inputs = _inputs(recordings, from_catalogue, min_bandwidth_hz)
    summary = _existing(out, inputs, overwrite)
    if summary is None:
        recordings += _of_catalogue(from_catalogue, len(recordings))
        writable_folder(out.parent)
        with locked(out.with_name(f".{out.name}.lock"), out):
            summary = _existing(out, inputs, overwrite)  # another build's, by now
            if summary is None:
                if _holds_dataset(out) and (fault := _fault(out)):
                    print(errors.one_line(f"flashsr: {fault}: the dataset is built again"), file=sys.stderr)
                summary = _replace(recordings, out, inputs, min_bandwidth_hz, engine)
    print(worded(str(summary)))
    return summary


def _replace(
    recordings: list[Recording], out: Path, inputs: dict, min_bandwidth_hz: float, engine: Engine
) -> BuildSummary:
    """Build in a folder beside `out`, which takes its place when it is complete. One that was begun is finished."""
    import tensorflow_datasets as tfds  # noqa: F401  needed at the end: where it is missing, that is said at the start

    partial = out.absolute().with_name(f".{out.name}.partial")
    described = json.dumps(inputs) + "\n"
    if not (partial / INPUTS).is_file() or (partial / INPUTS).read_text() != described:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / stages.WORK).mkdir(parents=True)
        (partial / INPUTS).write_text(described)
    try:
        engines.build(engine, recordings, partial, min_bandwidth_hz)
        summary = _finish(partial, out)
    except engines.Failed as error:
        raise UserError(f"{error.args[0]}; the same command goes on from {partial}", error.argument) from error
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        raise UserError(f"{errors.reason(error)}; the same command goes on from {partial}") from error
    _take_its_place(partial, out)
    return summary


def _take_its_place(partial: Path, out: Path) -> None:
    """The dataset that was there goes only once the new one has its name: emptied first, and ended on the way, it would
    be left as a folder that is no dataset."""
    before = partial.with_suffix(".before")
    shutil.rmtree(before, ignore_errors=True)  # of a build that was ended here
    if out.exists():
        out.rename(before)
    partial.rename(out)
    shutil.rmtree(before, ignore_errors=True)


def _finish(partial: Path, out: Path) -> BuildSummary:
    """What the engine left, as a dataset."""
    summary = BuildSummary(out, False, *_rows(partial))
    if not summary.recordings:
        reasons = collections.Counter(row["reason"] for row in summary.left_out)
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        example = summary.left_out[0]
        raise UserError(
            f"nothing to build {out} from: all recordings are left out ({counts}); "
            f"{example['path']}: {example['reason']}: {example['detail']}"
        )
    stages.write_info(partial, summary.recordings)
    shutil.rmtree(partial / stages.WORK)
    (partial / engines.RECORDINGS).unlink(missing_ok=True)
    for file in partial.glob(".*.part*"):  # of processes that were killed
        file.unlink()
    return summary


def _find(sources: Sequence[str | Path], csv: str | Path | None) -> list[Recording]:
    """All recordings of the sources and of the CSV, in the order of their names."""
    listed = _read_csv(Path(csv)) if csv else {}
    files = dict.fromkeys(listed)
    roots = []
    for source in map(local, sources):
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        roots.append(_absolute(source) if source.is_dir() else _absolute(source).parent)
        found = below(source) if source.is_dir() else [source]
        seen = [path for path in found if path == source or path.is_file()]
        taken = [path for path in seen if path == source or path.suffix.lower() in readable()]
        files |= {_absolute(path): None for path in taken}
        known = {*files, _absolute(Path(csv))} if csv else files
        _say_passed_over(source, [path for path in seen if _absolute(path) not in known], found)
    if not files:
        return []
    # Names are relative to what all have in common, so that a moved or re-cloned tree gives the same groups and splits.
    base = Path(os.path.commonpath(map(str, roots or [_absolute(Path(csv or ".")).parent])))
    recordings = []
    for path in files:
        row = listed.get(path, {})
        name = os.fsencode(os.path.relpath(path, base)).decode(errors="replace")
        group = row.get("group") or Path(name).parent.as_posix()
        recordings.append(
            Recording(
                number=0,  # until they are in order
                path=path,
                name=name,
                class_name=row.get("class") or folder_class(path),
                group=group,
                split=row.get("split") or hashed_split(group),
            )
        )
    fixed = {r.class_name for r in recordings if listed.get(r.path, {}).get("split")}
    recordings = [r if r.class_name in fixed else replace(r, movable=True) for r in recordings]
    ordered = sorted(_groups_in_all_splits(recordings), key=lambda recording: recording.name)
    return [replace(recording, number=number) for number, recording in enumerate(ordered)]


def _of_catalogue(names: Sequence[tuple[str, str]], first: int) -> list[Recording]:
    """All recordings of catalogue datasets, numbered from `first` on."""
    entries = [(entry, class_name) for name, class_name in names for entry in catalogue.entries(name)]
    return [
        Recording(number, Path(), "/".join(map(str, entry)), class_name, entry[0], "train", movable=True, entry=entry)
        for number, (entry, class_name) in enumerate(entries, first)
    ]


def _groups_in_all_splits(recordings: list[Recording]) -> list[Recording]:
    """With whole groups moved where a class of three or more would lack a split; all in training where it has less."""
    groups: dict[str | None, set[str]] = {}
    for r in recordings:
        if r.movable:
            groups.setdefault(r.class_name, set()).add(r.group)
    splits = {}
    for class_name, names in groups.items():
        ordered = sorted(names, key=share_of)
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
        how = "a CSV takes files whatever their suffix"
        print(errors.one_line(f"flashsr: {source}: passed over: {', '.join(passed_over)}; {how}"), file=sys.stderr)


def folder_class(path: Path) -> str | None:
    """Class by the nearest folder with a class's name."""
    names = (FOLDER_NAMES.get(part.lower()) for part in reversed(path.parent.parts))
    return next((name for name in names if name), None)


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
        if not row["path"]:
            raise UserError(f"{path}, line {number}: no path: name a recording there, or remove the line")
        for column, choices in (("class", CLASSES), ("split", SPLITS)):
            if row.get(column) and row[column] not in choices:
                raise UserError(f"{path}, line {number}: {column} {row[column]!r} is not one of {', '.join(choices)}")
    listed: dict[Path, dict] = {}
    for number, row in enumerate(rows, 2):
        file = _absolute(path.parent / row["path"])
        before = listed.setdefault(file, row)
        if any(before.get(column) != row.get(column) for column in ("class", "group", "split")):
            raise UserError(f"{path}, line {number}: {row['path']} is listed before, as something else: leave one row")
    return listed


def _absolute(path: Path) -> Path:
    """Without `..`, so that a file has one name however it was given; with them where they follow a link elsewhere."""
    if ".." not in path.parts:
        return path.absolute()
    plain = Path(os.path.abspath(path))  # noqa: PTH100 links stay what they are called
    return plain if plain.exists() and plain.samefile(path) else path.absolute()


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
        raise UserError(f"{out} exists and is no dataset of this program: choose another `out`")
    return False


def _existing(out: Path, inputs: dict, overwrite: bool) -> BuildSummary | None:
    """Summary of the dataset there, where nothing is to be built. Raises UserError where another is in the way."""
    if not _holds_dataset(out):
        return None
    try:
        same = json.loads((out / INPUTS).read_text()) == inputs
    except ValueError as error:
        if not overwrite:
            raise UserError(f"{out / INPUTS} is damaged ({error}): choose another `out` or `overwrite`") from error
        same = False
    if not same and not overwrite:
        raise UserError(f"{out} holds a dataset of other recordings or options: choose another `out` or `overwrite`")
    return BuildSummary(out, True, *_rows(out)) if same and not _fault(out) else None


def _fault(out: Path) -> str | None:
    """What the dataset lacks, or why it cannot be read."""
    import tensorflow_datasets as tfds  # slow to import

    try:
        splits = tfds.builder_from_directory(out).info.splits.values()
        files = (Path(path) for split in splits for path in split.filepaths)
        missing = next((file for file in files if not file.is_file()), None)
        str(BuildSummary(out, True, *_rows(out)))  # needs what is read of the lists
    except Exception as error:  # noqa: BLE001 of TFDS, protocol buffers or the lists, which have no class in common
        return f"{out} cannot be read ({errors.reason(error)})"
    return f"{missing} is missing" if missing else None


def _rows(folder: Path) -> Iterator[list[dict]]:
    """Of the manifest, and of the list of what was left out."""
    for name in (MANIFEST, LEFT_OUT):
        with (folder / name).open(newline="", encoding="utf-8") as lines:
            yield list(csv_format.DictReader(lines))
