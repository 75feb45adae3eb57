"""What the headers of uncompressed files say of their length, beside what is there: wav (RIFF, RIFX, RF64), Wave64,
AIFF, AU, CAF. libsndfile takes what is there and says nothing.

Programs that write to a pipe cannot know the length beforehand: they leave 0, or a number that no file has.
Sources: the formats' specifications, and what ffmpeg, sox and recorders write.
"""

import struct
from collections.abc import Iterator, Mapping
from mmap import mmap
from types import MappingProxyType
from typing import NamedTuple, Protocol

from flashsr_jax.errors import UserError

UNKNOWN = 0x7FFFF000  # lengths from here on are of programs that wrote before they knew: sox has this one
SKIPPED = 1 << 24  # sox takes from it what it passed over
PLACEHOLDERS = (UNKNOWN, 1 << 31, (1 << 32) - 1)
UNKNOWN_64 = 1 << 62
FEW_BYTES = 128  # a length too long by so much counted the headers, too
LOOSE_BYTES = 4096  # more than this behind the audio, in no chunk, may be audio
MPEG = 0x55  # WAVE_FORMAT_MPEGLAYER3
EXTENSIBLE = 0xFFFE
NEEDED = (b"fmt ", b"fact", b"data", b"ds64", b"COMM", b"FVER", b"SSND", b"JUNK")  # to read the audio
CODINGS = {0x14: "G.723", 0x45: "G.726", 0x64: "G.726", 0x160: "WMA", 0x161: "WMA", 0x2000: "AC-3", 0xFF: "AAC"}


class Sliced(Protocol):
    """What slices to bytes: bytes themselves, a mapped file, one that is read piece by piece."""

    def __getitem__(self, bounds: slice, /) -> bytes: ...


class Chunk(NamedTuple):
    """A chunk of a file: where its contents begin, how long it says they are, and where and how it says so."""

    name: bytes
    start: int
    length: int
    field: int
    kind: str  # of the length, as `struct` names it
    more: int = 0  # bytes that the field counts beside the contents


class Header(NamedTuple):
    """What is to be known before the audio is read. `changes`: bytes by position that make the header right; `remark`:
    what to tell the user; `audio`: start and stop; `wave_format`: the format tag of a wav; `mask`: of its channels."""

    audio: tuple[int, int] | None = None
    changes: Mapping[int, bytes] = MappingProxyType({})
    remark: str | None = None
    wave_format: int | None = None
    mask: int | None = None


def header(data: bytes | mmap, size: int) -> Header:
    """Look through the chunks of `data` (anything that slices to bytes), of `size` bytes. Raises UserError where the
    file is cut short, or holds more audio than can be found."""
    wave_format = mask = wide = None
    for chunk in chunks(data, size):
        content = data[chunk.start : chunk.start + min(chunk.length, 64)]
        if chunk.name == b"fmt " and len(content) >= 16:
            order = chunk.kind[0]
            (wave_format,) = struct.unpack_from(f"{order}H", content)
            if wave_format == EXTENSIBLE and len(content) >= 40:
                (mask,) = struct.unpack_from(f"{order}I", content, 20)
                (wave_format,) = struct.unpack_from(f"{order}H", content, 24)
        elif chunk.name == b"ds64" and len(content) >= 16:
            wide = Chunk(b"data", 0, struct.unpack_from("<Q", content, 8)[0], chunk.start + 8, "<Q")
        elif chunk.name in (b"data", b"SSND"):
            if wide and chunk.length == 0xFFFF_FFFF:
                chunk = wide._replace(start=chunk.start)
            return Header(*_audio(data, size, chunk), wave_format, mask)
    return Header(None, {}, None, wave_format, mask)


def only_audio(data: bytes | mmap, size: int) -> dict[int, bytes]:
    """Bytes by position that hide from a reader of wav or aiff all chunks that do not say how the audio is read."""
    if data[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        return {}
    names = {chunk.field - 4: chunk.name for chunk in chunks(data, size)}
    return {position: b"JUNK" for position, name in names.items() if name not in NEEDED}


def chunks(data: Sliced, size: int) -> Iterator[Chunk]:
    """The chunks of a file up to its end, as far as they can be followed; none for other formats."""
    magic = bytes(data[:4])
    if magic == b".snd" and size >= 24:
        start, length = struct.unpack(">II", data[4:12])
        yield Chunk(b"data", start, length, 8, ">I")
    elif magic == b"riff":
        position = 40
        while position + 24 <= size:
            (length,) = struct.unpack("<Q", data[position + 16 : position + 24])
            yield Chunk(bytes(data[position : position + 4]), position + 24, length - 24, position + 16, "<Q", 24)
            position += max(24, length + -length % 8)
    elif magic == b"caff":
        position = 8
        while position + 12 <= size:
            name, length = struct.unpack(">4sQ", data[position : position + 12])
            skip = 4 if name == b"data" else 0  # a count of edits
            yield Chunk(name, position + 12 + skip, length - skip, position + 4, ">Q", skip)
            position += 12 + length
    elif magic in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
        order, position = "<" if magic in (b"RIFF", b"RF64", b"BW64") else ">", 12
        wide = None  # of the audio, in an RF64
        while position + 8 <= size:
            name, length = struct.unpack(f"{order}4sI", data[position : position + 8])
            yield Chunk(name, position + 8, length, position + 4, f"{order}I")
            if name == b"ds64" and length >= 16 and position + 24 <= size:
                (wide,) = struct.unpack("<Q", data[position + 16 : position + 24])
            elif name == b"data" and length == 0xFFFF_FFFF and wide is not None:
                length = wide
            position += 8 + length + length % 2


def _audio(data: bytes | mmap, size: int, chunk: Chunk) -> tuple[tuple[int, int], dict[int, bytes], str | None]:
    """(Start and stop, changes, remark) of the chunk with the audio."""
    there, claimed = size - chunk.start, chunk.length
    if claimed > there:
        if chunk.kind.endswith("Q"):
            unknown = claimed >= UNKNOWN_64
            known = True
        else:
            unknown = claimed >= UNKNOWN - SKIPPED
            known = any(-(1 << 16) <= claimed - placeholder <= 1 << 16 for placeholder in PLACEHOLDERS)
        if unknown and known:
            if data[:4] == b"caff":  # libsndfile knows no unknown length there
                return (chunk.start, size), {chunk.field: struct.pack(chunk.kind, there + chunk.more)}, None
            return (chunk.start, size), {}, None
        if unknown:
            says = f"its header says {claimed} bytes of audio, {there} are there: taken as a stream of unknown length"
            return (chunk.start, size), {}, says
        if claimed - there <= FEW_BYTES:
            return (
                (chunk.start, size),
                {},
                f"its header says {claimed - there} bytes more than there are: taken as it is",
            )
        raise UserError(f"is cut short: {there} of {claimed} bytes of audio are there")
    loose = there - claimed
    if not chunk.kind.endswith("Q"):
        loose = _loose(data, size, chunk)
    if claimed == 0 and loose > 0:  # of a recorder that was switched off, or a pipe
        whole = {chunk.field: struct.pack(chunk.kind, min(there + chunk.more, 0xFFFF_FFFF))}
        return (chunk.start, size), whole, None
    if chunk.kind.endswith("Q") or not loose:
        return (chunk.start, chunk.start + claimed), {}, None
    if loose > LOOSE_BYTES:
        raise UserError(
            f"its header says {claimed} bytes of audio, and {loose} bytes that belong to nothing follow: "
            "if they are audio, sox --ignore-length IN OUT.wav reads them; if not, cut them off"
        )
    says = f"{loose} bytes behind the audio belong to nothing and were left out"
    return (chunk.start, chunk.start + claimed), {}, says


def _loose(data: bytes | mmap, size: int, chunk: Chunk) -> int:
    """Bytes behind the audio that are in no chunk, and no tag; a second chunk of audio counts, too."""
    position = chunk.start + chunk.length
    order = chunk.kind[0]
    while size - position >= 8:
        padded = position % 2 == 1 and not _is_name(data[position : position + 4])
        name, length = struct.unpack(f"{order}4sI", data[position + padded : position + padded + 8].ljust(8, b"\0"))
        if not _is_name(name) or name == chunk.name or position + padded + 8 + length > size + 1:
            break
        position += padded + 8 + length
    rest = size - position
    if rest < 8 or (rest == 128 and data[position : position + 3] == b"TAG"):
        return 0
    return rest if any(data[position : position + (1 << 20)]) or rest > 1 << 20 else 0


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)
