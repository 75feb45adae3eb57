"""How long a FLAC file is, by its last frame: its header says 0 where it was written to a pipe. Source: RFC 9639."""

import functools
import struct
from mmap import mmap

_BLOCK_SIZES = {1: 192, **{c: 576 << (c - 2) for c in range(2, 6)}, **{c: 256 << (c - 8) for c in range(8, 16)}}
_LARGEST_FRAME = 1 << 17  # bytes looked through for the last frame where the header does not say how large they are
_ID3V1 = 128
_HEADER = 42  # bytes of the mark and of the block that says what the stream is
_TOTAL = 18  # bytes from the stream's beginning to the 5 bytes whose last 36 bits are the total


def total(data: bytes | mmap, start: int) -> int:
    """Samples (of one channel) that the header of the stream at `start` says there are; 0: it does not know."""
    return int.from_bytes(data[start + _TOTAL + 3 : start + _TOTAL + 8]) & (1 << 36) - 1


def with_total(data: bytes | mmap, start: int, samples: int) -> tuple[int, bytes]:
    """Position and bytes of the field of the header of the stream at `start` that holds the total, with another."""
    position = start + _TOTAL + 3
    return position, (int.from_bytes(data[position : position + 5]) >> 36 << 36 | samples).to_bytes(5)


def streams(data: bytes | mmap, start: int, stop: int) -> list[int]:
    """Where the FLAC streams in `data[start:stop]` begin: several where files were joined."""
    found, position = [], start
    while (position := data.find(b"fLaC", position, stop)) >= 0:
        whole = position + _HEADER <= stop
        if whole and data[position + 4] & 0x7F == 0 and data[position + 5 : position + 8] == b"\0\0\x22":
            found.append(position)
        position += 4
    return found


def more_than_total(data: bytes | mmap, start: int, stop: int) -> int | None:
    """Samples to the end of the last whole frame of the stream `data[start:stop]`, if the header says fewer, or 0."""
    said, fixed_size = total(data, start), struct.unpack(">H", data[start + 8 : start + 10])[0]
    largest = int.from_bytes(data[start + 15 : start + 18]) or _LARGEST_FRAME
    position = stop
    while True:
        position = max(data.rfind(b"\xff\xf8", start, position), data.rfind(b"\xff\xf9", start, position))
        if position < max(start, stop - largest - _ID3V1):
            return None
        end = _frame(data[position : position + 16], fixed_size)
        if end is not None and end <= said:
            return None
        if end is not None and _whole(data, position, stop):
            return end


def _frame(head: bytes, fixed_size: int) -> int | None:
    """Samples to the end of the frame with this header, if it is one."""
    if len(head) < 16 or head[3] & 1:
        return None
    size_code, variable = head[2] >> 4, head[1] & 1
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # of the number's first byte, coded as UTF-8 is
    if ones in (1, 8) or size_code == 0:
        return None
    extra = max(0, ones - 1)
    number = head[4] & (0xFF >> (ones + 1) if ones else 0x7F)
    for byte in head[5 : 5 + extra]:
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 0x3F
    position = 5 + extra
    if size_code in (6, 7):
        width = size_code - 5
        size = int.from_bytes(head[position : position + width]) + 1
        position += width
    else:
        size = _BLOCK_SIZES[size_code]
    position += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if position >= len(head) or _crc(head[:position], 8, 0x07) != head[position]:
        return None
    return number + size if variable else number * fixed_size + size


def _whole(data: bytes | mmap, start: int, stop: int) -> bool:
    """Whether a frame that begins at `start` ends at `stop`, or before tags that stand behind it."""
    tag = data.rfind(b"TAG", start, stop)
    ends = [stop, tag] if stop - tag == _ID3V1 else [stop]
    return any(_crc(data[start:end], 16, 0x8005) == 0 for end in ends)


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value, mask, table = 0, (1 << bits) - 1, _table(bits, polynomial)
    for byte in data:
        value = value << 8 & mask ^ table[value >> (bits - 8) ^ byte]
    return value


@functools.cache
def _table(bits: int, polynomial: int) -> list[int]:
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> (bits - 1) else 0)) & (1 << bits) - 1
        table.append(value)
    return table
