"""Which files `flashsr upscale` is asked for, and what its outputs are called."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flashsr_jax.errors import UserError

STANDARD = "-"  # standard input, or output
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc")
FORMATS = ("wav", "flac")
FILM = "mkv"  # of -o: the film that the sound comes from, with the new sound
MARK = "-48k"  # at the end of the name of an output that lies beside its input


class Source(NamedTuple):
    """An input: its name as messages say it, the file (None: standard input), the folder under -o that its output goes
    to, and why it cannot be read, if that is known."""

    name: str
    path: Path | None
    folder: Path = Path()
    problem: str | None = None


def find(inputs: Sequence[str], recursive: bool) -> list[Source]:
    """All files that the inputs mean: files, folders (with `recursive`), patterns (`*`, `?`, `[..]`, `**`), `-`.

    What cannot be found is there with its problem. In folders, files that are no audio by their suffix, hidden ones and
    earlier outputs beside their inputs are passed over.
    """
    return [source for text in inputs for source in _of_input(text, recursive)]


def _of_input(text: str, recursive: bool) -> Iterator[Source]:
    path = Path(text)
    if text == STANDARD:
        yield Source("standard input", None)
    elif path.is_dir():
        yield from _of_folder(path, recursive)
    elif path.exists():
        yield Source(text, path)
    elif glob.has_magic(text):
        found = [Path(name) for name in sorted(glob.glob(text, recursive=True)) if Path(name).is_file()]
        yield from (Source(str(file), file) for file in found)
        if not found:
            yield Source(text, path, problem="no file has such a name")
    else:
        yield Source(text, path, problem="no such file")


def _of_folder(folder: Path, recursive: bool) -> Iterator[Source]:
    if not recursive:
        yield Source(str(folder), folder, problem="is a folder: give -r to upscale the files in it")
        return
    found = False
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix.lower() in SUFFIXES and file.is_file() and not hidden and not file.stem.endswith(MARK):
            yield Source(str(file), file, file.parent.relative_to(folder))
            found = True
    if not found:
        yield Source(str(folder), folder, problem="has no audio files in it")


class Naming:
    """Where each output goes: beside its input, into a folder, to one file or to standard output.

    Raises UserError where `output` cannot be what the inputs make it.
    """

    def __init__(self, sources: Sequence[Source], output: str | None, suffix: str | None):
        self._folder = self._file = None
        self.suffix = suffix or "wav"
        if output is None:
            self.standard = any(source.path is None for source in sources)
            if self.standard and len(sources) > 1:
                raise UserError("standard input goes to standard output and is upscaled alone: give -o FOLDER")
            return
        self.standard = output == STANDARD
        several = len(sources) > 1 or any(source.folder != Path() for source in sources)
        if self.standard:
            if several:
                raise UserError(f"-o - takes one output, but there are {len(sources)} inputs: give a folder")
        elif several or output.endswith(("/", os.sep)) or Path(output).is_dir():
            self._folder = Path(output)
            if self._folder.exists() and not self._folder.is_dir():
                raise UserError(f"-o {output} is a file, but there are {len(sources)} inputs: give a folder")
        else:
            self._file = Path(output)
            ending = self._file.suffix.lower().removeprefix(".")
            if ending not in (*FORMATS, FILM) or ending != (suffix or ending):
                wanted = f".{suffix}" if suffix else " or ".join(f".{name}" for name in FORMATS)
                raise UserError(f"-o {output}: end its name in {wanted}, or in / for a folder")
            self.suffix = ending

    def target(self, source: Source) -> Path | None:
        """The output's file; None: standard output."""
        if self.standard:
            return None
        if self._file:
            return self._file
        stem = source.path.stem if source.path else "stdin"
        if self._folder:
            return self._folder / source.folder / f"{stem}.{self.suffix}"
        return source.path.with_name(f"{stem}{MARK}.{self.suffix}")
