"""Which files `flashsr upscale` is asked for, and what its outputs are called."""

import dataclasses
import glob
import hashlib
import os
import stat
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flashsr_jax.audio.formats import MEDIA, SUFFIXES, readable
from flashsr_jax.errors import UserError

STANDARD = "-"  # standard input, or output
FORMATS = ("wav", "flac")
PICTURE = "png"
FILM = "mkv"  # of -o: the film that the sound comes from, with the new sound
OUT_RATES = (44_100, 48_000, 96_000)  # Hz, of outputs
ENDINGS = " or ".join(f".{name}" for name in FORMATS)
KINDS_SAID = 8  # of suffixes and of names that were passed over


class Source(NamedTuple):
    """An input: its name as messages say it, the file (None: standard input), the folder under -o that its output goes
    to, why it cannot be read, if that is known, and its place among the inputs, the same wherever they are mounted."""

    name: str
    path: Path | None
    folder: Path = Path()
    problem: str | None = None
    key: str = ""

    @property
    def file(self) -> Path:
        """`path`, of an input that is not standard input. Raises ValueError for that."""
        if self.path is None:
            raise ValueError(f"{self.name} has no path")
        return self.path


class Found(NamedTuple):
    """The inputs, and a line for each folder or pattern in which something was passed over."""

    sources: list[Source]
    passed_over: list[str]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of `count` parts of the inputs, from 1."""

    index: int
    count: int

    def of(self, sources: Sequence[Source]) -> list[Source]:
        """The sources of this part, by a hash of their places: all parts together have each source once, whichever
        machine asks. What cannot be found is in every part. Raises UserError for standard input, which has no place."""
        if any(source.path is None for source in sources):
            raise UserError("standard input is one input and has no shards")
        return [source for source in sources if source.problem or self._has(source.key)]

    def _has(self, key: str) -> bool:
        name = unicodedata.normalize("NFC", key)  # file systems differ in how they write an umlaut
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1


def find(inputs: Sequence[str], recursive: bool, output: str | None = None) -> Found:
    """All files that the inputs mean: files, folders (with `recursive`), patterns (`*`, `?`, `[..]`, `**`), `-`.

    What cannot be found is there with its problem. In folders, hidden files and the folder of the outputs (`output`)
    are left out; files that are no audio by their suffix, linked folders and earlier outputs that lie beside their
    inputs are passed over.
    """
    sources: list[Source] = []
    passed_over: list[str] = []
    kinds = {text: _kind(text) for text in inputs if text != STANDARD}
    named = [Path(text).absolute().parent for text in inputs if kinds.get(text) == "file"]
    root = os.path.commonpath(named) if named else ""
    for text in inputs:
        path = Path(text)
        if text == STANDARD:
            sources.append(Source("standard input", None))
        elif kinds[text] == "folder" and not recursive:
            sources.append(Source(text, path, problem="is a folder: give `recursive` to upscale the files in it"))
        elif kinds[text] == "folder":
            walk = _Walk(path, output)
            sources += walk.sources or [Source(text, path, problem="has no audio files in it")]
            passed_over += walk.line()
        elif kinds[text] == "file":
            sources.append(Source(text, path, key=path.absolute().relative_to(root).as_posix()))
        elif glob.has_magic(text):
            _match(text, sources, passed_over)
        else:
            sources.append(Source(text, path, problem="no such file"))
    return Found(sources, passed_over)


def _kind(text: str) -> str | None:
    """What an input is, if it is there at all: a folder, or a file of any kind."""
    try:
        return "folder" if stat.S_ISDIR(Path(text).stat().st_mode) else "file"
    except (OSError, ValueError):  # a name that is too long, say, which stops no other input
        return None


def _match(pattern: str, sources: list[Source], passed_over: list[str]) -> None:
    """Add the files that a pattern means, and say which folders it means that nobody looks into."""
    parts = Path(pattern).parts
    root = Path(*parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))])
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in found if path.is_file()]
    sources += [Source(str(file), file, key=file.relative_to(root).as_posix()) for file in files]
    folders = [f"{path} (a folder)" for path in found if path.is_dir()]
    if not files:
        problem = f"means no file, but {_few(folders)}" if folders else "no file has such a name"
        sources.append(Source(pattern, Path(pattern), problem=problem))
    elif folders and "**" not in pattern:  # which has looked into them
        passed_over.append(f"{pattern}: passed over: {_few(folders)}")


class _Walk:
    """The audio files of a folder and all below it, and what was passed over."""

    def __init__(self, top: Path, output: str | None):
        self.top = top
        self.sources: list[Source] = []
        self._suffixes: Counter[str] = Counter()
        self._made = 0
        self._names: list[str] = []
        self._output = os.path.realpath(output) if output is not None else None
        self._readable = readable()
        for folder, subfolders, files in os.walk(top, onerror=self._unreadable):
            subfolders[:] = sorted(name for name in subfolders if self._enters(Path(folder, name)))
            names = sorted(name for name in files if not name.startswith("."))
            audio = [name for name in names if Path(name).suffix.lower() in self._readable]
            beside = {*audio, *(Path(name).stem for name in audio)}
            for name in names:
                self._take(Path(folder, name), name in audio, beside)
        self.sources.sort(key=lambda source: source.file)

    def line(self) -> list[str]:
        """What was passed over, in one line; none where nothing was."""
        kinds = _few([f"{number} {kind or 'without a suffix'}" for kind, number in sorted(self._suffixes.items())])
        if any(f".{kind}" in MEDIA for kind in self._suffixes):
            kinds += " (pip install 'flashsr_jax[av]' reads films and their sound)"
        said = [kinds, _few(self._names), f"{self._made} made here before" if self._made else ""]
        said = [text for text in said if text]
        return [f"{self.top}: passed over: {', '.join(said)}"] if said else []

    def _enters(self, folder: Path) -> bool:
        if folder.name.startswith("."):
            return False
        if os.path.realpath(folder) == self._output:
            return False
        if folder.is_symlink():
            self._names.append(f"{folder.relative_to(self.top)} (a link)")
            return False
        return True

    def _take(self, file: Path, audio: bool, beside: set[str]) -> None:
        place = file.relative_to(self.top)
        if _made_here(file, beside):
            self._made += 1
        elif not audio:
            self._suffixes[file.suffix.lower().removeprefix(".")] += 1
        elif not file.is_file():
            self._names.append(f"{place} ({'a broken link' if file.is_symlink() else 'not a file'})")
        elif os.path.realpath(file) != self._output:
            self.sources.append(Source(str(file), file, place.parent, key=place.as_posix()))

    def _unreadable(self, error: OSError) -> None:
        self._names.append(f"{Path(error.filename).relative_to(self.top)} ({error.strerror})")


def _made_here(file: Path, beside: set[str]) -> bool:
    """Whether a file is an output, or its picture, of a source that lies beside it."""
    marks = map(_mark, OUT_RATES)
    sources = {file.stem.removesuffix(mark) for mark in marks if file.stem.endswith(mark)}
    return file.suffix.lower().removeprefix(".") in (*FORMATS, PICTURE) and not sources.isdisjoint(beside)


def _mark(rate: int) -> str:
    """What ends the name of an output that lies beside its input."""
    return f"-{rate / 1000:g}k"


def _few(texts: Sequence[str]) -> str:
    more = len(texts) - KINDS_SAID
    return ", ".join(texts[:KINDS_SAID]) + (f" and {more} more" if more > 0 else "")


class Naming:
    """Where each output goes: beside its input, into a folder, to one file or to standard output.

    Inputs of one folder whose names differ in their suffixes alone keep them: x.wav and x.flac become x.wav.wav and
    x.flac.wav. Raises UserError where `output` cannot be what the inputs, all shards together, make it.
    """

    def __init__(self, sources: Sequence[Source], output: str | None, suffix: str | None, rate: int):
        self._folder: Path | None = None
        self._file: Path | None = None
        self._mark = _mark(rate)
        self.suffix = suffix or "wav"
        self._names: dict[tuple[Path, str], set[str]] = defaultdict(set)  # of the inputs that share folder and stem
        for source in sources:
            if source.path:
                self._names[source.path.parent, source.path.stem].add(source.path.name)
        self._set_place(sources, output, suffix)
        self._owners: dict[Path | None, Source] = {}
        for source in sources:
            if not source.problem:
                self._owners.setdefault(self._target(source), source)

    def _set_place(self, sources: Sequence[Source], output: str | None, suffix: str | None) -> None:
        if output is None:
            self.standard = any(source.path is None for source in sources)
            if self.standard and len(sources) > 1:
                raise UserError(
                    "standard input goes to standard output and is upscaled alone: give a folder as `output`"
                )
            return
        self.standard = output == STANDARD
        several = len(sources) > 1 or any(source.folder != Path() for source in sources)
        ending = Path(output).suffix.lower()
        if self.standard:
            if several:
                raise UserError(
                    f"{output}: takes one output, but there are {len(sources)} inputs: give a folder", "output"
                )
        elif several or output.endswith(("/", os.sep)) or Path(output).is_dir() or ending not in (*SUFFIXES, *MEDIA):
            self._folder = Path(output)
            if self._folder.exists() and not self._folder.is_dir():
                if several:
                    raise UserError(
                        f"{output}: is a file, but there are {len(sources)} inputs: give a folder", "output"
                    )
                raise UserError(f"{output}: is no folder: end its name in {ENDINGS}, or give a folder", "output")
        else:
            self._file = Path(output)
            if ending[1:] not in (*FORMATS, FILM) or ending[1:] != (suffix or ending[1:]):
                endings = f".{suffix}" if suffix else ENDINGS
                raise UserError(f"{output}: end its name in {endings}, or give a folder", "output")
            self.suffix = ending[1:]

    def target(self, source: Source) -> Path | None:
        """The output's file; None: standard output. Raises UserError where an earlier input has the same."""
        target = self._target(source)
        owner = self._owners.get(target, source)
        if owner is not source:
            twice = "is given twice" if owner.name == source.name else None
            raise UserError(twice or f"{target} is the output of {owner.name}: give the two different folders")
        return target

    def _target(self, source: Source) -> Path | None:
        if self.standard:
            return None
        if self._file:
            return self._file
        if self._folder:
            return self._folder / source.folder / f"{self._stem(source)}.{self.suffix}"
        return source.file.with_name(f"{self._stem(source)}{self._mark}.{self.suffix}")

    def _stem(self, source: Source) -> str:
        if source.path is None:
            return "stdin"
        alone = len(self._names[source.path.parent, source.path.stem]) == 1
        return source.path.stem if alone else source.path.name
