"""Folders that cannot be written to, also where the tests run as root."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3 of linux/capability.h
OVERRIDES = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what lets root write whatever the permissions say


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be made, changed or removed directly in `folder`, by this thread and those that it starts."""
    before = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        with _without_overrides():
            yield
    finally:
        folder.chmod(before)


@contextlib.contextmanager
def _without_overrides() -> Iterator[None]:
    """As permissions are for every other user: root's capabilities are those of a thread."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION, 0)  # 0: this thread
    before = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, of the first 32 and of the rest
    assert libc.capget(header, before) == 0
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~OVERRIDES
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0
