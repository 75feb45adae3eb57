"""Folders that one process at a time writes to."""

import contextlib
import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from flashsr_jax.errors import UserError
from flashsr_jax.files import naming

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOGGER = logging.getLogger(__name__)
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def locked(path: str | os.PathLike, folder: str | os.PathLike) -> Iterator[None]:
    """Hold the lock file `path`, which names this host and process, while the block writes to `folder`.

    The system gives a lock back when its process ends, however that ends, so that the next one takes it over. It is one
    of POSIX, which NFS knows between hosts and which the processes that this one starts do not inherit; a file system
    without any is used unlocked. Raises UserError, in terms of `folder`, where another process holds it.
    """
    path = Path(path)
    file = _acquired(path, folder)
    if file is None:
        yield
        return
    try:
        if before := _holder(file):
            LOGGER.warning("%s was left behind by %s, which is gone", path, before)
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid()}) + "\n")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)  # before another can hold it
        file.close()


def _acquired(path: Path, folder: str | os.PathLike) -> IO[str] | None:
    """The lock file, held; None where there are no locks."""
    while fcntl:
        with naming(path.parent):
            file = path.open("a+")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
            file.close()  # it was removed between the two calls, by the process that held it
        except OSError as error:
            holder = _holder(file)
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(
                    f"{folder} is in use by {holder or 'another process'}: wait for its end, or choose another folder"
                ) from error
            if error.errno not in UNSUPPORTED:
                raise
            LOGGER.warning("%s: this file system has no locks (%s): start nothing else there", folder, error.strerror)
            return None
    return None


def _holder(file: IO[str]) -> str:
    """Who wrote the lock file, in words; nothing where it does not say."""
    file.seek(0)
    try:
        written = json.loads(file.read())
        return f"process {written['process']} on {written['host']}"
    except (ValueError, KeyError, TypeError):
        return ""
