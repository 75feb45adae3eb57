"""The frames of an MPEG audio file, counted: what is there, whatever its header says.

libmpg123 believes a Xing header, and guesses a length from the first frame's bit rate where there is none. Both are
wrong in files that were cut, joined, recorded from a stream or written with a variable bit rate by old programs.
Source of the tables: ISO 11172-3, 13818-3; of the headers: the LAME and the Fraunhofer (VBRI) encoders.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import mmap
from typing import NamedTuple

_BIT_RATES = {  # kbit/s by (MPEG 1, layer) and index - 1
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SYNC_FRAMES = 3  # frames in a row that are no coincidence
_JUNK = 1 << 18  # bytes before the first frame, beside tags
FRAME = 1152  # samples, at most
LARGEST_FRAME = 2881  # bytes


class Frame(NamedTuple):
    """A frame's header: bytes of the frame, and what may not change within a recording."""

    length: int
    version: int
    layer: int
    sample_rate: int
    channels: int
    samples: int

    def alike(self, other: "Frame") -> bool:
        """Whether the two are of one stream: all but their positions agree."""
        return self[1:] == other[1:]

    @property
    def side_info(self) -> int:
        """Bytes between the frame's header and a Xing header in it."""
        return {(True, 2): 32, (True, 1): 17, (False, 2): 17, (False, 1): 9}[self.version == 3, self.channels]


@dataclass
class Part:
    """One recording of the file: the byte ranges of its frames, and a header's claim where it has one."""

    first: Frame
    pieces: list = field(default_factory=list)  # (start, stop); the header's frame is not among them
    frames: int = 0
    claimed: int | None = None
    header: tuple[int, int, int] | None = None  # of a Xing header with a count: start and stop of its frame, offset

    def playable(self, read: Callable[[int, int], bytes]) -> tuple[list[bytes | tuple[int, int]], int | None]:
        """Pieces of a file that libmpg123 reads to its end, and the size in bytes to say it has (None: its own).

        A Xing header is given the right counts; one that claims too much keeps its claim, so that the reader sees that
        the file is cut short. Without one, the length is guessed from the size: a size that is far too large makes the
        guess one, too, and the reader goes on to the end. `read(start, stop)` gives the file's bytes.
        """
        if not self.header:
            return self.pieces, 2 * LARGEST_FRAME * (self.frames + 2)
        start, stop, offset = self.header
        frame = bytearray(read(start, stop))
        struct.pack_into(">I", frame, offset + 8, max(self.frames, self.claimed or 0))
        if frame[offset + 7] & 2:
            struct.pack_into(">I", frame, offset + 12, stop - start + sum(b - a for a, b in self.pieces))
        return [bytes(frame), *self.pieces], None


def parts(data: bytes | mmap, start: int, stop: int) -> list[Part]:
    """The recordings in `data[start:stop]` (anything that slices to bytes), one after the other; [] where it is no
    MPEG audio. What is no frame (tags, pictures, bits of frames) is left out."""
    found: list[Part] = []
    position = start
    while (next_row := _sync(data, position, stop, bool(found))) is not None:
        position = next_row
        frame = _frame(data, position)
        while frame and position + frame.length <= stop:
            part = found[-1] if found else None
            header = _header(data, position, frame)
            if part is None or not frame.alike(part.first) or header:
                part = Part(frame)
                found.append(part)
            if header:
                offset, part.claimed = header
                if data[position + offset : position + offset + 4] != b"VBRI" and part.claimed is not None:
                    part.header = (position, position + frame.length, offset)
            else:
                part.frames += 1
                if part.pieces and part.pieces[-1][1] == position:
                    part.pieces[-1] = (part.pieces[-1][0], position + frame.length)
                else:
                    part.pieces.append((position, position + frame.length))
            position += frame.length
            frame = _frame(data, position)
            if frame and not frame.alike(part.first) and not _in_row(data, position, stop):
                frame = None
    return [part for part in found if part.frames]


def _frame(data: bytes | mmap, position: int) -> Frame | None:
    """The header at a position, if there is one."""
    head = data[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_index, bit_rate_index = head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer == 4 or rate_index == 3 or not 0 < bit_rate_index < 15:
        return None
    sample_rate = (44_100, 48_000, 32_000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    bit_rate = 1000 * _BIT_RATES[version == 3, layer][bit_rate_index - 1]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    padding = head[2] >> 1 & 1
    length = (12 * bit_rate // sample_rate + padding) * 4 if layer == 1 else samples // 8 * bit_rate // sample_rate
    length += padding if layer != 1 else 0
    return Frame(length, version, layer, sample_rate, 1 if head[3] >> 6 == 3 else 2, samples)


def _in_row(data: bytes | mmap, position: int, stop: int) -> bool:
    """Whether frames follow each other from here, as they do not by chance."""
    first = frame = _frame(data, position)
    for _ in range(_SYNC_FRAMES):
        if frame is None or first is None or not frame.alike(first):
            return False
        position += frame.length
        if position + 4 > stop:
            return True
        frame = _frame(data, position)
    return True


def _sync(data: bytes | mmap, position: int, stop: int, again: bool) -> int | None:
    """Where the next frames begin: at once, after an ID3v2 tag, or after anything else (the first ones soon, or it is
    no MPEG audio). One frame is enough at the end of a file, but not for a beginning."""
    last = stop if again else position + _JUNK
    while position + 4 <= stop and position < last:
        if data[position : position + 3] == b"ID3" and position + 10 <= stop:
            size = data[position + 6 : position + 10]
            if max(size) < 0x80:
                length = 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
                position, last = position + length, last + length
                continue
        if data[position] == 0xFF and (frame := _frame(data, position)):
            whole = position + frame.length <= stop
            if whole and _in_row(data, position, stop) and (again or position + 2 * frame.length <= stop):
                return position
        following = data.find(b"\xff", position + 1, stop)
        tag = data.find(b"ID3", position + 1, following if following >= 0 else stop)
        if tag >= 0:
            position = tag
        elif following < 0:
            return None
        else:
            position = following
    return None


def _header(data: bytes | mmap, position: int, frame: Frame) -> tuple[int, int | None] | None:
    """(Offset in the frame, number of frames if it says so) of a frame that holds a header in the place of audio."""
    if frame.layer != 3:
        return None
    for offset in (4 + frame.side_info, 6 + frame.side_info):
        if data[position + offset : position + offset + 4] in (b"Xing", b"Info"):
            flags, count = struct.unpack(">II", data[position + offset + 4 : position + offset + 12])
            return offset, count if flags & 1 else None
    if data[position + 36 : position + 40] == b"VBRI":
        return 36, struct.unpack(">I", data[position + 50 : position + 54])[0]
    return None
