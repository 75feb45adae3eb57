"""The pages of an Ogg file: where its links begin, and whether its end is there. Source: RFC 3533."""

import itertools
import struct
from mmap import mmap
from typing import NamedTuple


class Links(NamedTuple):
    """Byte ranges of the recordings of a chained file, and the bytes that its last page lacks (0: whole)."""

    ranges: list[tuple[int, int]]
    missing: int


def links(data: bytes | mmap, size: int) -> Links:
    """Walk the pages of `data` (anything that slices to bytes). A link begins with pages that begin a stream."""
    starts, position, missing, in_headers = [], 0, 0, False
    while position < size:
        if data[position : position + 4] != b"OggS":
            position = data.find(b"OggS", position + 1, size)
            if position < 0:
                break
            continue
        if position + 27 > size:
            missing = position + 27 - size
            break
        begins_stream = bool(data[position + 5] & 2)
        if begins_stream and not in_headers:
            starts.append(position)
        in_headers = begins_stream
        segments = data[position + 26]
        length = 27 + segments + sum(data[position + 27 : position + 27 + segments])
        if position + length > size:
            missing = position + length - size
            break
        position += length
    return Links(list(itertools.pairwise([*starts, size])), missing)


def samples(data: bytes | mmap, start: int, stop: int) -> int:
    """Samples that the last page of a link says there are (its granule position; of Opus at 48 kHz)."""
    page = data.rfind(b"OggS", start, stop)
    return struct.unpack("<q", data[page + 6 : page + 14])[0] if page >= 0 else 0
