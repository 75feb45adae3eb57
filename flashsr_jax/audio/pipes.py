"""Sound that comes and goes through pipes while it happens: wav whose length nobody knows yet, or bare samples.

Letters: C channels, n samples of a block.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from flashsr_jax.audio import chunks
from flashsr_jax.audio.files import MOST_CHANNELS
from flashsr_jax.errors import UserError

BYTES = {"s16": 2, "s24": 3, "s32": 4, "f32": 4}  # of a sample, little-endian
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # of a wav's format tag
UNKNOWN = 0xFFFF_FFFF  # a length, as ffmpeg and sox write and read it
PIECE = 1 << 16  # bytes that are read at once at most
LARGEST_CHUNK = 1 << 24  # bytes before the samples that are passed over


class Format(NamedTuple):
    """Of samples in a pipe; `length`: how many bytes of them there are, if that is known."""

    sample_rate: int
    channels: int
    encoding: str
    length: int | None = None


class NotWavError(UserError):
    """What was to be a wav is none."""


def read_wav_header(file: BinaryIO) -> Format:
    """Read a wav up to its first sample.

    Raises NotWavError where it is none, and UserError where it is cut, or of an encoding that is not read here.
    """
    riff = _exactly(file, 12)
    if riff[:4] not in (b"RIFF", b"RF64") or riff[8:] != b"WAVE":
        raise NotWavError("standard input is no wav")
    found = wide = None
    while True:
        name, length = struct.unpack("<4sI", _exactly(file, 8))
        if name == b"data":
            break
        if length > LARGEST_CHUNK:
            raise UserError(f"standard input's wav has a part {ascii(name)[1:]} of {length} bytes before its samples")
        content = _exactly(file, length + length % 2)
        if name == b"fmt ":
            found = _format(content)
        elif name == b"ds64" and len(content) >= 16:
            (wide,) = struct.unpack_from("<Q", content, 8)
    if found is None:
        raise UserError("standard input's wav has samples and no format before them")
    if length == UNKNOWN and wide:
        return found._replace(length=wide if wide < chunks.UNKNOWN_64 else None)
    return found._replace(length=length if 0 < length < chunks.UNKNOWN - chunks.SKIPPED else None)


def wav_header(form: Format) -> bytes:
    """The beginning of a wav without a length."""
    frame = form.channels * BYTES[form.encoding]
    tag = FLOAT if form.encoding == "f32" else PCM
    bits = 8 * BYTES[form.encoding]
    fmt = struct.pack("<HHIIHH", tag, form.channels, form.sample_rate, form.sample_rate * frame, frame, bits)
    riff = struct.pack("<4sI4s", b"RIFF", UNKNOWN, b"WAVE")
    return riff + struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + struct.pack("<4sI", b"data", UNKNOWN)


def read_blocks(file: BinaryIO, form: Format) -> Iterator[np.ndarray]:
    """Blocks (C, n) of float32 in [-1, 1] as they come, to the end. Half a sample at the end is left out, and what
    follows the samples, tags, is read and thrown away: whoever writes it need not find the pipe broken."""
    frame, rest, left = form.channels * BYTES[form.encoding], b"", form.length
    while piece := file.read1(PIECE if left is None else min(PIECE, left)):  # type: ignore[attr-defined]
        left = None if left is None else left - len(piece)
        piece = rest + piece
        whole = len(piece) // frame * frame
        piece, rest = piece[:whole], piece[whole:]
        if piece:
            yield _decoded(piece, form.encoding).reshape(-1, form.channels).T
    while file.read1(PIECE):  # type: ignore[attr-defined]
        pass


def encoded(y_CxN: np.ndarray, encoding: str) -> bytes:
    """Samples interleaved; integers are clipped at full scale."""
    y = np.ascontiguousarray(y_CxN.T)
    if encoding == "f32":
        return y.astype("<f4").tobytes()
    full_scale = 2.0 ** (8 * BYTES[encoding] - 1)
    integers = np.clip(np.round(y.astype(np.float64) * full_scale), -full_scale, full_scale - 1).astype("<i4")
    return integers.view(np.uint8).reshape(-1, 4)[:, : BYTES[encoding]].tobytes()


def _decoded(data: bytes, encoding: str) -> np.ndarray:
    if encoding == "f32":
        return np.frombuffer(data, "<f4")
    size = BYTES[encoding]
    wide = np.zeros((len(data) // size, 4), np.uint8)
    wide[:, 4 - size :] = np.frombuffer(data, np.uint8).reshape(-1, size)
    return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise UserError("standard input ends before its first sample")
    return data


def _format(content: bytes) -> Format:
    if len(content) < 16:
        raise UserError("standard input's wav says too little of its format")
    tag, channels, sample_rate, _, _, bits = struct.unpack_from("<HHIIHH", content)
    if tag == EXTENSIBLE and len(content) >= 26:
        (tag,) = struct.unpack_from("<H", content, 24)
    encoding = {(PCM, 16): "s16", (PCM, 24): "s24", (PCM, 32): "s32", (FLOAT, 32): "f32"}.get((tag, bits))
    if encoding is None:
        raise UserError(f"standard input's wav has format {tag} of {bits} bits; 16, 24 and 32 bits and floats are read")
    if not 1 <= channels <= MOST_CHANNELS["wav"]:
        raise UserError(f"standard input's wav has {channels} channels; 1 to {MOST_CHANNELS['wav']} are read")
    return Format(sample_rate, channels, encoding)
