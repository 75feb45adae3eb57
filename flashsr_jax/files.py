"""Files that are complete or not there, the folder of what can be made again, and cells of tables as text."""

import contextlib
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flashsr_jax.errors import UserError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # begin a cell that spreadsheets run (OWASP: CSV injection)
REMOTE = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # of a Path, too, which makes one slash of two
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def local(path: str | os.PathLike) -> Path:
    """A path here. Raises UserError for gs://, s3:// and the like, which would be taken for the name of a folder."""
    if REMOTE.match(os.fspath(path)):
        raise UserError(
            f"{os.fspath(path)}: storage is not read or written by its address: mount it (gcsfuse, mount-s3) and give "
            "the folder, or copy it"
        )
    return Path(path)


@contextlib.contextmanager
def naming(folder: str | os.PathLike) -> Iterator[None]:
    """Where the block may not make a file in `folder`, raise the OSError of that folder, with the way out, instead of
    one of a file that the user never named."""
    try:
        yield
    except OSError as error:
        if error.errno not in DENIED:
            raise
        how = f"nothing can be written there ({error.strerror}): choose another folder, or change its permissions"
        raise OSError(error.errno, how, os.fspath(folder)) from error


def writable_folder(path: str | os.PathLike) -> Path:
    """The folder `path`, made where it is missing, with those above it. Raises OSError where it cannot be made or
    written to, so that long work need not find that out at its end, UserError as `local` does."""
    path = local(path)
    with naming(path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    return path


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a new name in the folder of `path` (same suffix) to write to; rename it to `path` when the block succeeds.

    When the block raises, what was written is removed and `path` stays as it was. The file gets the permissions that
    the user's umask gives a new one, whatever the block's writer does (safetensors': 600). Raises FileNotFoundError
    where the folder does not exist, IsADirectoryError where `path` is one, PermissionError where the folder is
    read-only.
    """
    path = local(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    partial = path.parent / f".{secrets.token_hex(6)}.part{path.suffix}"
    try:
        with naming(path.parent):
            partial.touch()
        permissions = partial.stat().st_mode
        yield partial
        if partial.stat().st_mode != permissions:  # disks that have none, of cards and of some networks, refuse chmod
            partial.chmod(permissions)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def below(folder: Path) -> list[Path]:
    """Everything in a folder and below it, sorted, but what is hidden or lies in a hidden folder: a bin, a cache."""
    found = sorted(folder.rglob("*"))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def cache_folder() -> Path:
    """The folder of what can be made or fetched again: `$FLASHSR_CACHE`, or `~/.cache/flashsr_jax`."""
    return Path(os.environ.get("FLASHSR_CACHE") or Path.home() / ".cache" / "flashsr_jax").expanduser()


def csv_cell(value: Any) -> Any:
    """A cell of a CSV; a text that a spreadsheet would run as a formula gets the apostrophe that marks it as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
