"""Files that are complete or not there, the folder of what can be made again, and cells of tables as text."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # begin a cell that spreadsheets run (OWASP: CSV injection)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a new name in the folder of `path` (same suffix) to write to; rename it to `path` when the block succeeds.

    When the block raises, what was written is removed and `path` stays as it was. The file gets the permissions that
    the user's umask gives a new one, whatever the block's writer does (safetensors': 600). Raises FileNotFoundError
    where the folder does not exist, IsADirectoryError where `path` is one.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    partial = path.parent / f".{secrets.token_hex(6)}.part{path.suffix}"
    try:
        partial.touch()
        permissions = partial.stat().st_mode
        yield partial
        partial.chmod(permissions)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def cache_folder() -> Path:
    """The folder of what can be made or fetched again: `$FLASHSR_CACHE`, or `~/.cache/flashsr_jax`."""
    return Path(os.environ.get("FLASHSR_CACHE") or Path.home() / ".cache" / "flashsr_jax").expanduser()


def csv_cell(value: Any) -> Any:
    """A cell of a CSV; a text that a spreadsheet would run as a formula gets the apostrophe that marks it as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
