"""Audio files of any length, read and written block by block.

Letters: C channels, N samples.
"""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bandwidth import BandwidthMeter
from flashsr_jax.audio.resampling import check_finite, check_rate
from flashsr_jax.errors import UserError

BLOCK = 1 << 17  # samples read at a time
WAV_LIMIT = 2**32 - 2**16  # bytes of audio that a plain wav can hold; longer ones are written as RF64
MOST_CHANNELS = {"wav": 64, "flac": 8}
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
READ_TO_THE_END = 0x7FFFFFFF  # data chunks of this length and more are of programs that wrote before they knew


class Survey(NamedTuple):
    """What one reading of a file found."""

    sample_rate: int
    channels: int
    samples: int
    bandwidth_hz: float  # the highest of any channel; 0: silence
    floats: bool
    tags: dict[str, str]


def survey(path: Path) -> Survey:
    """Read a file once, to its end. Raises UserError or soundfile's errors where it cannot be upscaled as it is."""
    with sf.SoundFile(path) as audio:
        if audio.channels > MOST_CHANNELS["wav"]:
            raise UserError(f"has {audio.channels} channels; up to {MOST_CHANNELS['wav']} can be upscaled")
        check_rate(audio.samplerate)
        meters = [BandwidthMeter(audio.samplerate) for _ in range(audio.channels)]
        samples = 0
        for block_CxN in blocks(audio):
            check_finite(block_CxN, samples)
            samples += block_CxN.shape[1]
            for meter, x_N in zip(meters, block_CxN, strict=True):
                meter.update(x_N)
        if not samples:
            raise UserError("has no samples")
        _check_length(path, audio)
        return Survey(
            audio.samplerate,
            audio.channels,
            samples,
            max(meter.value() for meter in meters),
            audio.subtype in ("FLOAT", "DOUBLE"),
            audio.copy_metadata(),
        )


def blocks(audio: sf.SoundFile) -> Iterator[np.ndarray]:
    """All of an open file as blocks (C, n), float32. Raises UserError where less is there than its header says."""
    read = 0
    for block_NxC in audio.blocks(BLOCK, dtype="float32", always_2d=True):
        read += len(block_NxC)
        yield block_NxC.T
    if read < audio.frames:
        raise UserError(f"is cut short: {read} of {audio.frames} samples could be read")


def _check_length(path: Path, audio: sf.SoundFile) -> None:
    """Raise UserError for a wav or aiff file that ends before its header says: libsndfile takes what is there."""
    chunk, order = {"WAV": (b"data", "<"), "WAVEX": (b"data", "<"), "AIFF": (b"SSND", ">")}.get(audio.format, (b"", ""))
    position, size = 12, path.stat().st_size
    with path.open("rb") as file:
        while chunk and position + 8 <= size:
            file.seek(position)
            name, length = struct.unpack(f"{order}4sI", file.read(8))
            if name == chunk:
                there = size - position - 8
                if there < length < READ_TO_THE_END:
                    raise UserError(f"is cut short: {there} of {length} bytes of audio are there")
                return
            position += 8 + length + length % 2


@contextlib.contextmanager
def writer(path: Path, suffix: str, bit_depth: str, channels: int, samples: int, tags: dict[str, str]):
    """An open 48 kHz file to write (n, C) blocks to; `samples` decides whether a wav has to be RF64.

    Raises UserError where the format cannot hold it.
    """
    if suffix == "flac" and bit_depth == "float":
        raise UserError("flac holds no floats: take --bit-depth 24, or --format wav")
    if channels > MOST_CHANNELS[suffix]:
        raise UserError(f"{suffix} holds {MOST_CHANNELS[suffix]} channels, not {channels}: take --format wav")
    size = samples * channels * {"16": 2, "24": 3, "float": 4}[bit_depth]
    kind = "FLAC" if suffix == "flac" else "WAV" if size < WAV_LIMIT else "RF64"
    with sf.SoundFile(path, "w", SAMPLE_RATE, channels, SUBTYPES[bit_depth], format=kind) as file:
        for name, value in tags.items():
            if name != "software":  # the encoder of the input
                setattr(file, name, value)
        yield file
