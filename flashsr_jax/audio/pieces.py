"""A file as it should have been: stretches of a file on the disk and bytes between them, read as one.

libsndfile calls `Pieces` to read. An exception in what it calls goes nowhere: cffi prints it, libsndfile sees an end.
"""

import contextlib
import io
import os
import signal
import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

ID3V1 = 128  # bytes of such a tag
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals whose handlers may raise, Ctrl-C say, are handled when the block has ended."""
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other handles any
        for number in SIGNALS:
            if callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


class Pieces(io.RawIOBase):
    """A file to be read, of pieces: bytes, or (start, stop) of the file at `path`.

    Whoever reads it on comes to its end where the pieces end. `size` makes it say that it has so many bytes; where a
    reader looks for an ID3v1 tag in the last of them, there are zeros. failure: the error of the disk that
    ended it before, if there was one.
    """

    def __init__(self, path: Path, pieces: Sequence[bytes | tuple[int, int]], size: int | None = None):
        super().__init__()
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        self._pieces = list(pieces)
        lengths = [len(p) if isinstance(p, bytes) else p[1] - p[0] for p in self._pieces]
        self._ends = list(accumulate(lengths))
        self._end = self._ends[-1] if self._ends else 0
        self._size = size or self._end
        self._position = 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        if self._end < self._size - ID3V1 <= self._position:
            done = min(len(view), self._size - self._position)
            view[:done] = bytes(done)
            self._position += done
            return done
        while done < len(view) and self._position < self._end:
            index = bisect_right(self._ends, self._position)
            piece, left = self._pieces[index], min(self._ends[index] - self._position, len(view) - done)
            if isinstance(piece, bytes):
                start = len(piece) - (self._ends[index] - self._position)
                data = piece[start : start + left]
            else:
                try:
                    data = os.pread(self._file.fileno(), left, piece[1] - (self._ends[index] - self._position))
                except OSError as error:
                    self.failure = error
                    break
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
            self._position += len(data)
        return done

    def close(self) -> None:
        self._file.close()
        super().close()


def patched(size: int, changes: Mapping[int, bytes]) -> list[bytes | tuple[int, int]]:
    """Pieces of a file of `size` bytes with other bytes at some positions."""
    pieces: list[bytes | tuple[int, int]] = []
    position = 0
    for start, data in sorted(changes.items()):
        pieces += [(position, start), data]
        position = start + len(data)
    return [*pieces, (position, size)]
