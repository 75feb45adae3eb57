"""The corpus of the shipped model: full-band recordings from the sources that `corpus.csv` lists.

    python launch/small/corpus.py [OUT] [--packages NAME ...] [--recordings DIR] [--workers N]

A source is a package of Debian 12, or where its name has a slash a repository on GitHub at a commit (the version).
Needs apt-get and dpkg-deb with Debian 12 (bookworm) sources, git, and ffmpeg for Opus in WebM; nothing is installed.
Where there is no way to GitHub, the repositories' recordings come from DIR, whose recordings.csv has for each `file`
its `source` (github:OWNER/NAME@COMMIT) and `source_path`. Of a clone those files are kept that `repositories.txt.gz`
lists, so that both ways give the same corpus: the ones with sound, not hiss, over 16 kHz.
Writes under OUT, each source and the dataset once:

unpacked/       the sources
recordings.csv  every recording that a row of the table takes: path, class, group, split
dataset/        the dataset of `flashsr data build`
dataset_lower/  those for training that have too low a rate or bandwidth for it, as far as they are of use to a U-Net;
                recordings_lower.csv lists them
test/, validation/  48 kHz FLAC clips of 5.12 s by class, and clips.csv: what each is made of
test_read/, validation_read/  the same of the repositories' held-out speakers, apart, so that the former never change
manifest.csv.gz, left_out.csv.gz, licences.md, copyright/  what went in, what did not and why, and under which terms

The first row of a source whose pattern (shell style, `*` crosses folders) matches a recording's path decides about
it; a row without a class leaves it out, for the reason in its note. A group (speaker, composer, kit) is in one split,
and that never changes, so that a model trained on any version of the corpus has not heard the test clips. Nor do the
clips: `held_out.csv.gz` has what was measured of the held-out recordings when clips were first made of them, and that
decides what they are made of. Whoever holds out a new group of a source in it appends the group's rows of
dataset/manifest.csv.
"""

import argparse
import csv
import functools
import gzip
import io
import itertools
import shutil
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bandwidth import bandwidth
from flashsr_jax.data import CLASSES, LEFT_OUT, MANIFEST, SPLITS
from flashsr_jax.data.build import build_dataset
from flashsr_jax.data.recording import MIN_SECONDS
from flashsr_jax.errors import UserError

TABLE = Path(__file__).resolve().parent / "corpus.csv"
LISTED = TABLE.with_name("repositories.txt.gz")  # lines OWNER/NAME PATH
AUDIO = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")  # kept of a package: the shipped model's
HELD_OUT = TABLE.with_name("held_out.csv.gz")
GITHUB = "https://github.com"
ARCHIVES = (".pk3", ".zip")
NOTICES = ("copyright", "copying", "licen", "credits")  # how a file of terms begins
# The pipeline draws cutoffs up to the recording's own bandwidth and the losses stop there, so a codec's wall at 16 kHz
# costs the top of the band only. Under it a recording is none for a VAE or a vocoder, which would learn its end.
MIN_BANDWIDTH_HZ = 16_000.0
LOWER_BANDWIDTH_HZ = 6000.0  # of the second dataset: over a cutoff of 4 kHz it has the octave's half that matters most

CLIP_SAMPLES = 245_760  # 5.12 s
CLIPS = {"test": 48, "validation": 24}  # of each class, at most
CLIP_BANDWIDTH_HZ = 18_000.0  # of every part of a clip
FRAME = SAMPLE_RATE // 50
ACTIVE_DB = {"speech": 30.0, "music": 40.0, "effects": 40.0}  # a frame this far under the loudest one is a pause
ACTIVE_SHARE = 0.7  # of a clip's frames
MIN_LEVEL_DB = -45.0  # RMS of a clip, full scale 0 dB
MARGIN_S = 0.03  # of the recording's own background, kept on either side of what is joined
FADE_S = 0.005
PEAK = 0.95  # louder clips are turned down: lossy codecs and resampling overshoot


@dataclass(frozen=True)
class Rule:
    """A row of the table; the package may be a repository, the version its commit."""

    package: str
    version: str
    pattern: str
    class_name: str
    group: str
    split: str
    license: str
    author: str
    note: str


@dataclass(frozen=True)
class Part:
    """A recording that clips may be made of."""

    path: str
    group: str
    rate: int
    channel: int
    bandwidth_hz: float

    @property
    def wall_free(self) -> bool:
        return self.bandwidth_hz >= self.rate / 2


@dataclass(frozen=True)
class HeldOut:
    """A clip of the test or validation set."""

    class_name: str
    group: str
    parts: tuple[Part, ...]
    start: int  # sample in the first part, at 48 kHz
    audio: np.ndarray

    @property
    def wall_hz(self) -> float:
        """Lowest wall among the parts; 0 where none has one."""
        return min((part.bandwidth_hz for part in self.parts if not part.wall_free), default=0.0)


def read_table(path: Path = TABLE) -> dict[str, list[Rule]]:
    """Rules by package, in the order of the table."""
    rules = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            row["class_name"], row["license"] = row.pop("class"), row.pop("license")
            rules[row["package"]].append(Rule(**row))
    return dict(rules)


def is_repository(package: str) -> bool:
    """Whether a source is a repository, OWNER/NAME: no Debian package has a slash."""
    return "/" in package


def folder_name(package: str) -> str:
    """Of a source, under `unpacked`."""
    return package.replace("/", "--")


def fetch(package: str, version: str, unpacked: Path, recordings: Path | None = None) -> None:
    """Get a source into its folder of `unpacked`, once; a repository's from the folder `recordings` if one is given.

    Raises UserError where it cannot be had.
    """
    folder = unpacked / folder_name(package)
    if folder.exists():
        return
    partial = unpacked / f".{folder.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if not is_repository(package):
        download(package, version, partial)
    elif recordings:
        copy_recordings(package, version, recordings, partial)
    else:
        clone(package, version, partial)
    unpack_archives(partial)
    keep_recordings(partial)
    partial.rename(folder)


def download(package: str, version: str, folder: Path) -> None:
    """Unpack a Debian package into `folder`."""
    downloads = folder / "download"
    downloads.mkdir()
    way_out = f"{package} {version} comes with the sources of Debian 12 (bookworm), after `apt-get update`"
    run(["apt-get", "download", "-q", f"{package}={version}"], way_out, cwd=downloads)
    (deb,) = downloads.glob("*.deb")
    run(["dpkg-deb", "-x", deb, folder], way_out)
    shutil.rmtree(downloads)


def clone(repository: str, commit: str, folder: Path) -> None:
    """The files of one commit, without the history."""
    way_out = f"where there is no way to {GITHUB}, --recordings DIR takes {repository} from a folder"
    run(["git", "init", "-q", folder], way_out)
    run(["git", "-C", folder, "fetch", "-q", "--depth=1", f"{GITHUB}/{repository}", commit], way_out)
    run(["git", "-C", folder, "checkout", "-q", "FETCH_HEAD"], way_out)
    shutil.rmtree(folder / ".git")
    names = listed(repository)
    for path in list(folder.rglob("*")) if names else ():
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in names and not path.name.lower().startswith(NOTICES):
            path.unlink()
    for path in list(folder.rglob("*.webm")):  # which libsndfile does not read; the Opus in it stays as it is
        copy: list[str | Path] = ["ffmpeg", "-v", "error", "-i", path, "-c", "copy", path.with_suffix(".opus")]
        run(copy, f"{repository}'s recordings are Opus in WebM")


def listed(repository: str) -> set[str]:
    """Paths of the recordings that are taken of a repository; none for one that is not in the list: all are."""
    with gzip.open(LISTED, "rt", encoding="utf-8") as lines:
        pairs = (line.rstrip("\n").split(" ", 1) for line in lines)
        return {path for name, path in pairs if name == repository}


def run(command: Sequence[str | Path], way_out: str, cwd: Path | None = None) -> None:
    """Run a command. Raises UserError with the way out where it is not installed or fails; it has said why itself."""
    try:
        ended = subprocess.run(command, cwd=cwd, check=False).returncode
    except FileNotFoundError as error:
        raise UserError(f"{command[0]} is not installed: {way_out}") from error
    if ended:
        raise UserError(f"`{' '.join(map(str, command))}` ended with {ended}: {way_out}")


def copy_recordings(repository: str, commit: str, recordings: Path, folder: Path) -> None:
    """The files of a repository that lie in `recordings`, at their paths there; lossless ones may be FLAC instead.

    Raises UserError where there are none of this commit, and where a file is missing.
    """
    source, listed = f"github:{repository}@{commit}", recordings / "recordings.csv"
    if not listed.is_file():
        raise UserError(f"--recordings {recordings}: no recordings.csv in it, which says what each file is")
    rows = [row for row in read_csv(listed) if row["source"] == source]
    if not rows:
        raise UserError(f"--recordings {recordings}: nothing of {source} in its recordings.csv")
    for row in rows:
        path = (folder / row["source_path"]).with_suffix(Path(row["file"]).suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(recordings / row["file"], path)
        except FileNotFoundError as error:
            raise UserError(f"--recordings {recordings}: no {row['file']}, which its recordings.csv names") from error


def unpack_archives(folder: Path) -> None:
    """Recordings inside a game's archives, each beside its archive in a folder NAME.x."""
    for archive in [path for path in folder.rglob("*") if path.suffix in ARCHIVES and path.is_file()]:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as content:
                names = [name for name in content.namelist() if Path(name).suffix.lower() in AUDIO]
                content.extractall(archive.with_name(f"{archive.name}.x"), names)


def keep_recordings(folder: Path) -> None:
    """Remove what is neither a recording nor a notice of its terms: nine tenths of a game are pictures."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix.lower() not in AUDIO and not path.name.lower().startswith(NOTICES):
            path.unlink()


def recordings(rules: list[Rule], folder: Path) -> Iterator[tuple[Path, Rule | None]]:
    """Every recording of an unpacked package, and the rule that decides about it."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in AUDIO and path.is_file() and not path.is_symlink():
            name = path.relative_to(folder).as_posix()
            yield path, next((rule for rule in rules if fnmatchcase(name, rule.pattern)), None)


def select(table: dict[str, list[Rule]], out: Path) -> tuple[dict[str, Rule], list[dict]]:
    """(rule by path relative to `out`, what the rules leave out); writes recordings.csv.

    Raises UserError where the rules take nothing.
    """
    taken, left_out = {}, []
    for package, rules in table.items():
        for path, rule in recordings(rules, out / "unpacked" / folder_name(package)):
            name = path.relative_to(out).as_posix()
            if rule and rule.class_name:
                taken[name] = rule
            else:
                detail = rule.note if rule else "no row of the table"
                left_out.append({"path": name, "reason": "by the table", "detail": detail})
    if not taken:
        raise UserError(f"{out / 'unpacked'}: no recording in it that {TABLE.name} takes of {', '.join(table)}")
    write_csv(
        out / "recordings.csv",
        [
            {"path": name, "class": rule.class_name, "group": rule.group, "split": rule.split}
            for name, rule in taken.items()
        ],
    )
    return taken, left_out


def select_lower(out: Path) -> list[dict]:
    """Rows of recordings.csv for training that the dataset left out since their rate or bandwidth is too low."""
    reasons = ("sample rate too low", "bandwidth too low")
    lower = {row["path"] for row in read_csv(out / "dataset" / LEFT_OUT) if row["reason"] in reasons}
    return [row for row in read_csv(out / "recordings.csv") if row["path"] in lower and row["split"] == "train"]


def load(path: Path, channel: int) -> np.ndarray:
    """One channel at 48 kHz, float32."""
    x_NxC, rate = sf.read(path, dtype="float32", always_2d=True)
    x_N = np.ascontiguousarray(x_NxC[:, channel])
    return x_N if rate == SAMPLE_RATE else soxr.resample(x_N, rate, SAMPLE_RATE, quality="VHQ")


def frame_levels(x_N: np.ndarray) -> np.ndarray:
    """RMS of each 20 ms in dB, full scale 0 dB."""
    frames_TxF = x_N[: len(x_N) // FRAME * FRAME].reshape(-1, FRAME)
    return 10 * np.log10(np.square(frames_TxF, dtype=np.float64).mean(axis=1) + 1e-12)


def active_share(x_N: np.ndarray, active_db: float) -> float:
    """Share of the 20 ms frames that are within `active_db` of the loudest one."""
    level_T = frame_levels(x_N)
    return float((level_T > level_T.max() - active_db).mean()) if len(level_T) else 0.0


def trimmed(x_N: np.ndarray, active_db: float) -> np.ndarray:
    """Without the pauses at both ends, but for a margin, and with short fades."""
    level_T = frame_levels(x_N)
    if len(level_T) == 0:
        return np.zeros(0, np.float32)
    loud = np.flatnonzero(level_T > level_T.max() - active_db)
    margin, fade = int(MARGIN_S * SAMPLE_RATE), int(FADE_S * SAMPLE_RATE)
    y_N = x_N[max(0, loud[0] * FRAME - margin) : (loud[-1] + 1) * FRAME + margin].copy()
    ramp = np.linspace(0, 1, min(fade, len(y_N) // 2), dtype=np.float32)
    y_N[: len(ramp)] *= ramp
    y_N[len(y_N) - len(ramp) :] *= ramp[::-1]
    return y_N


def good(x_N: np.ndarray, class_name: str) -> bool:
    """Whether a cut is loud enough, and sounding most of the time."""
    level = 10 * np.log10(np.square(x_N, dtype=np.float64).mean() + 1e-12)
    return level >= MIN_LEVEL_DB and active_share(x_N, ACTIVE_DB[class_name]) >= ACTIVE_SHARE


def joined_clips(parts: Iterable[Part], class_name: str, folder: Path) -> Iterator[HeldOut]:
    """Clips of consecutive short recordings of one group, joined end to end."""
    used, pieces, length = [], [], 0
    for part in parts:
        piece_N = trimmed(load(folder / part.path, part.channel), ACTIVE_DB[class_name])
        if len(piece_N) < MIN_SECONDS * SAMPLE_RATE:
            continue
        used.append(part)
        pieces.append(piece_N)
        length += len(piece_N)
        if length >= CLIP_SAMPLES:
            x_N = np.concatenate(pieces)[:CLIP_SAMPLES]
            if good(x_N, class_name):
                yield HeldOut(class_name, part.group, tuple(used), 0, x_N)
            used, pieces, length = [], [], 0


def cut_clips(part: Part, class_name: str, folder: Path) -> Iterator[HeldOut]:
    """Clips of one long recording: from its middle first, then from the middles of what is left on either side."""
    x_N = load(folder / part.path, part.channel)
    places = len(x_N) // CLIP_SAMPLES
    offset = (len(x_N) - places * CLIP_SAMPLES) // 2
    queue = [(0, places)]
    while queue:
        low, high = queue.pop(0)
        if low >= high:
            continue
        middle = (low + high) // 2
        queue += [(low, middle), (middle + 1, high)]
        start = offset + middle * CLIP_SAMPLES
        cut_N = x_N[start : start + CLIP_SAMPLES]
        if good(cut_N, class_name):
            yield HeldOut(class_name, part.group, (part,), start, cut_N)


def group_clips(group: list[tuple[Part, float]], class_name: str, folder: Path) -> Iterator[HeldOut]:
    """Clips of a group of (part, seconds): those of wall-free recordings first, one of each long recording in turn."""
    for wall_free in (True, False):
        of_kind = [(part, seconds) for part, seconds in group if part.wall_free == wall_free]
        long = [part for part, seconds in of_kind if seconds * SAMPLE_RATE >= CLIP_SAMPLES]
        short = [part for part, seconds in of_kind if seconds * SAMPLE_RATE < CLIP_SAMPLES]
        sources = [joined_clips(short, class_name, folder)]
        sources += [cut_clips(part, class_name, folder) for part in long]
        yield from in_turn(sources)


def in_turn(sources: list[Iterator]) -> Iterator:
    """One of each source, then the second of each, until all are used up."""
    sources = list(sources)
    while sources:
        left = []
        for source in sources:
            for item in itertools.islice(source, 1):
                left.append(source)
                yield item
        sources = left


def held_out_recordings(table: dict[str, list[Rule]], built: list[dict]) -> list[dict]:
    """What clips may be made of, with the columns path, class, group, split, seconds, sample_rate, channel and
    bandwidth_hz: as HELD_OUT has it, and as `built`, the dataset's manifest, of the sources that it lacks."""
    listed = read_csv(HELD_OUT)
    sources = {source_of(row) for row in listed}
    present = {folder_name(package) for package in table}
    return [row for row in listed if source_of(row) in present] + [
        row for row in built if source_of(row) not in sources
    ]


def source_of(row: dict) -> str:
    """The folder of a recording's source, of a row with its path."""
    return row["path"].split("/")[1]


def held_out_clips(manifest: list[dict], split: str, class_name: str, count: int, folder: Path) -> list[HeldOut]:
    """At most `count` clips of a class, from all its groups in turn; `manifest` as of `held_out_recordings`."""
    groups = defaultdict(list)
    for row in manifest:
        if row["split"] != split or row["class"] != class_name or float(row["bandwidth_hz"]) < CLIP_BANDWIDTH_HZ:
            continue
        part = Part(row["path"], row["group"], int(row["sample_rate"]), int(row["channel"]), float(row["bandwidth_hz"]))
        groups[row["group"]].append((part, float(row["seconds"])))
    sources = [group_clips(groups[name], class_name, folder) for name in sorted(groups)]
    return list(itertools.islice(in_turn(sources), count))


def write_clips(manifest: list[dict], split: str, count: int, folder: Path, out: Path) -> None:
    """The clips of all classes as `out`/class/name.flac, and `out`/clips.csv; paths in the manifest are of `folder`."""
    partial = out.with_name(f".{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    rows = []
    present = {row["class"] for row in manifest if row["split"] == split}
    for class_name in (name for name in CLASSES if name in present):
        (partial / class_name).mkdir(parents=True)
        numbers: Counter[str] = Counter()
        for clip in held_out_clips(manifest, split, class_name, count, folder):
            numbers[clip.group] += 1
            name = f"{class_name}/{clip.group}-{numbers[clip.group]:02d}.flac"
            x_N = clip.audio * min(1.0, PEAK / max(float(np.abs(clip.audio).max()), 1e-9))
            sf.write(partial / name, x_N, SAMPLE_RATE, subtype="PCM_24")
            rows.append(
                {
                    "clip": name,
                    "class": class_name,
                    "group": clip.group,
                    "wall_hz": f"{clip.wall_hz:.0f}",
                    "bandwidth_hz": f"{bandwidth(x_N, SAMPLE_RATE):.0f}",
                    "active": f"{active_share(x_N, ACTIVE_DB[class_name]):.2f}",
                    "package": clip.parts[0].path.split("/")[1],
                    "start_s": f"{clip.start / SAMPLE_RATE:.3f}",
                    "sources": "; ".join(part.path for part in clip.parts),
                }
            )
    if not rows:
        shutil.rmtree(partial, ignore_errors=True)
        return
    write_csv(partial / "clips.csv", rows)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def write_csv(path: Path, rows: list[dict], columns: Sequence[str] = ()) -> None:
    """Compressed where the name ends so; the same rows give the same bytes. `columns`: where there may be no rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def read_csv(path: Path) -> list[dict]:
    with (gzip.open if path.suffix == ".gz" else Path.open)(path, "rt", newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write_manifest(taken: dict[str, Rule], left_out: list[dict], out: Path) -> list[dict]:
    """manifest.csv.gz and left_out.csv.gz of both datasets; returns the manifest."""
    datasets = [folder for folder in (out / "dataset", out / "dataset_lower") if folder.exists()]
    rows = []
    for row in itertools.chain(*(read_csv(folder / MANIFEST) for folder in datasets)):
        rule = taken[row["path"]]
        rows.append(
            {
                "package": rule.package,
                "version": rule.version,
                "license": rule.license,
                "file": row["path"].split("/", 2)[2],
                "class": row["class"],
                "group": row["group"],
                "split": row["split"],
                "seconds": row["seconds"],
                "bandwidth_hz": row["bandwidth_hz"],
                "wall_free": int(float(row["bandwidth_hz"]) >= int(row["sample_rate"]) / 2),
            }
        )
    write_csv(out / "manifest.csv.gz", rows)
    went_in = {f"unpacked/{folder_name(row['package'])}/{row['file']}" for row in rows}
    last = {row["path"]: row for folder in datasets for row in read_csv(folder / LEFT_OUT)}
    left_out = left_out + [row for path, row in last.items() if path not in went_in]
    write_csv(out / "left_out.csv.gz", left_out, ("path", "reason", "detail"))
    return rows


def write_licences(table: dict[str, list[Rule]], manifest: list[dict], out: Path) -> None:
    """licences.md: what went in from each source, under which licence, by whom; copyright/: the sources' notices."""
    notices = out / "copyright"
    notices.mkdir(exist_ok=True)
    hours: defaultdict[tuple[str, str], float] = defaultdict(float)
    files: Counter[str] = Counter()
    for row in manifest:
        hours[row["package"], row["class"]] += float(row["seconds"]) / 3600
        hours[row["class"], row["split"]] += float(row["seconds"]) / 3600
        files[row["package"]] += 1
    lines = ["# The recordings and their licences", ""]
    lines += ["| hours | " + " | ".join(SPLITS) + " |", "| --- |" + " --- |" * len(SPLITS)]
    lines += [f"| {name} | " + " | ".join(f"{hours[name, split]:.2f}" for split in SPLITS) + " |" for name in CLASSES]
    lines += ["", "Each recording's row is in manifest.csv.gz; each source's own notice is in copyright/.", ""]
    lines += ["| source | version | minutes | splits | licence | authors |", "| --- | --- | --- | --- | --- | --- |"]
    for package in sorted(files):
        groups = {row["group"] for row in manifest if row["package"] == package}
        rules = [rule for rule in table[package] if rule.group in groups]
        minutes = ", ".join(f"{c} {60 * hours[package, c]:.1f}" for c in CLASSES if hours[package, c])
        columns = [
            f"{package} | {rules[0].version} | {minutes}",
            ", ".join(split for split in SPLITS if any(rule.split == split for rule in rules)),
            "; ".join(dict.fromkeys(name for rule in rules for name in rule.license.split("; "))),
            "; ".join(dict.fromkeys(rule.author for rule in rules)),
        ]
        lines.append("| " + " | ".join(columns) + " |")
        folder = out / "unpacked" / folder_name(package)
        terms = sorted(folder.glob("usr/share/doc/*/copyright")) or sorted(
            path for path in folder.iterdir() if path.is_file() and path.name.lower().startswith(NOTICES)
        )
        if terms:  # which a folder of a repository's recordings lacks
            (notices / f"{folder.name}.txt").write_bytes(terms[0].read_bytes())
    (out / "licences.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Raises UserError for mistakes in the arguments, and where a source cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, nargs="?", default=Path("corpus"), help="default: %(default)s")
    parser.add_argument("--packages", nargs="+", metavar="NAME", help="only these sources of the table")
    parser.add_argument("--recordings", type=Path, metavar="DIR", help="instead of cloning the repositories")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode (default: this one)")
    arguments = parser.parse_args(argv)
    out, table = arguments.out, read_table(TABLE)
    if arguments.packages:
        if unknown := [name for name in arguments.packages if name not in table]:
            raise UserError(f"--packages {' '.join(unknown)}: no source by that name in {TABLE}")
        table = {package: table[package] for package in arguments.packages}
    unpacked = out / "unpacked"
    unpacked.mkdir(parents=True, exist_ok=True)
    for package, rules in table.items():
        fetch(package, rules[0].version, unpacked, arguments.recordings)
    taken, left_out = select(table, out)
    build = functools.partial(build_dataset, [], workers=arguments.workers, overwrite=True)
    build(out / "dataset", csv=out / "recordings.csv", min_bandwidth_hz=MIN_BANDWIDTH_HZ)
    if lower := select_lower(out):
        write_csv(out / "recordings_lower.csv", lower)
        build(out / "dataset_lower", csv=out / "recordings_lower.csv", min_bandwidth_hz=LOWER_BANDWIDTH_HZ)
    else:
        shutil.rmtree(out / "dataset_lower", ignore_errors=True)  # of other sources
    write_licences(table, write_manifest(taken, left_out, out), out)
    held_out = held_out_recordings(table, read_csv(out / "dataset" / MANIFEST))
    repositories = {folder_name(package) for package in table if is_repository(package)}
    for split, count in CLIPS.items():
        for suffix, read in (("", False), ("_read", True)):
            rows = [row for row in held_out if (source_of(row) in repositories) == read]
            write_clips(rows, split, count, out, out / f"{split}{suffix}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"corpus: {error}")
