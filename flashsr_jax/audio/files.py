"""Audio files of any length, read and written block by block.

Letters: C channels, N samples.
"""

import contextlib
import functools
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE, chunks, flac, mp3, ogg
from flashsr_jax.audio.bandwidth import BandwidthMeter
from flashsr_jax.audio.pieces import Pieces, patched
from flashsr_jax.audio.resampling import check_finite, check_rate
from flashsr_jax.audio.stretches import Stretch, stretches
from flashsr_jax.errors import UserError

BLOCK = 1 << 17  # samples read at a time
WAV_LIMIT = 2**32 - 2**16  # bytes of audio that a plain wav can hold; longer ones are written as RF64
MOST_CHANNELS = {"wav": 64, "flac": 8}
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}


class Survey(NamedTuple):
    """What one reading of a file found. `remarks`: what the user should know about how it was read."""

    sample_rate: int
    channels: int
    samples: int
    bandwidth_hz: float  # the highest of any channel; 0: silence
    floats: bool
    tags: dict[str, str]
    stretches: tuple[tuple[Stretch, ...], ...]  # of each channel: where the band ends, by stretch of time
    peak: float  # absolute, full scale 1
    remarks: tuple[str, ...]


class Part(NamedTuple):
    """A stretch of a file that libsndfile reads as a file of its own: one for most, several where files were joined.

    source: a name as bytes, or a file object. claimed: the samples that its header says there are (None: as libsndfile
    reads it). known: whether there is such a claim at all. slack: samples less than claimed that are no loss.
    """

    source: Callable[[], bytes | Pieces]
    claimed: int | None = None
    known: bool = True
    slack: int = 0


class Audio:
    """An open audio file, to be read once from its beginning to its end: `read`, `blocks`.

    sample_rate, channels; floats: whether its samples are; mask: of its channels' places, as WAVE_FORMAT_EXTENSIBLE
    has it (None: unknown); remarks: what the user should know about how it is read.
    """

    def __init__(self, parts: Sequence[Part], mask: int | None = None, remarks: Sequence[str] = ()):
        self._parts, self._index, self._done, self._total = list(parts), 0, 0, 0
        self._file = _sound_file(self._parts[0])
        self.sample_rate, self.channels = self._file.samplerate, self._file.channels
        self.floats = self._file.subtype in ("FLOAT", "DOUBLE")
        self.mask, self.remarks = mask, list(remarks)
        self._check_kind()

    def read(self, samples: int) -> np.ndarray:
        """The next samples (n, C), float32, n <= samples; n = 0 at the end.

        Raises UserError where less is there than the header says.
        """
        while True:
            block_NxC = self._file.read(samples, dtype="float32", always_2d=True)
            if len(block_NxC):
                self._done += len(block_NxC)
                return block_NxC
            self._check_end()
            if self._index + 1 == len(self._parts):
                return block_NxC
            self._file.close()
            self._index, self._total, self._done = self._index + 1, self._total + self._done, 0
            self._file = _sound_file(self._parts[self._index])

    def tags(self) -> dict[str, str]:
        """Those that libsndfile knows."""
        return self._file.copy_metadata()

    def close(self) -> None:
        self._file.close()

    def _check_kind(self) -> None:
        """Raise UserError where files of different rates or channel counts were joined."""
        if len(self._parts) == 1:
            return
        kinds, lengths = [], []
        for part in self._parts:
            with _sound_file(part) as file:
                kinds.append(f"{file.samplerate} Hz x {file.channels}")
        if len(set(kinds)) == 1:
            return
        for part in self._parts:
            with _sound_file(part) as file:
                length = 0
                while samples := len(file.read(BLOCK, always_2d=True)):
                    length += samples
                lengths.append(length)
        raise UserError(
            f"is {len(kinds)} recordings joined, of {' and '.join(dict.fromkeys(kinds))} channels: "
            f"only {lengths[0]} of {sum(lengths)} samples could be read as one; split it"
        )

    def _check_end(self) -> None:
        part = self._parts[self._index]
        claimed = self._file.frames if part.claimed is None else part.claimed
        if part.known and self._done < claimed - part.slack:
            before = self._total
            raise UserError(f"is cut short: {before + self._done} of {before + claimed} samples could be read")


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Audio]:
    """Open an audio file. All of its samples are read, whatever its header says of their number.

    Raises UserError where the file is cut short, or its kind is not read.
    """
    path = Path(path)
    audio = _open(path)
    try:
        yield audio
    finally:
        audio.close()


def _open(path: Path) -> Audio:
    size = os.path.getsize(path)
    if not size:
        raise UserError("is empty")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = chunks.header(data, size)
        remarks = [found.remark] if found.remark else []
        whole = Part(lambda: os.fsencode(path))
        if data[:4] == b"OggS":
            return Audio(_ogg_parts(path, data, size))
        if data[:4] == b"fLaC":
            return Audio(_flac_parts(path, data, size))
        if found.audio and found.wave_format == chunks.MPEG:
            return Audio(_mpeg_parts(path, data, *found.audio) or [whole], remarks=remarks)
        if found.changes:
            pieces = patched(size, found.changes)
            return Audio([Part(lambda: Pieces(path, pieces))], found.mask, remarks)
        if not found.audio and (parts := _mpeg_parts(path, data, 0, size)):
            return Audio(parts)
        return Audio([whole], found.mask, remarks)


def _mpeg_parts(path: Path, data, start: int, stop: int) -> list[Part]:
    found = []
    for part in mp3.parts(data, start, stop):
        pieces, size = part.playable(lambda a, b: data[a:b])
        claimed = None if part.header else part.claimed and part.claimed * part.first.samples
        source = functools.partial(Pieces, path, pieces, size)
        found.append(Part(source, claimed, bool(part.claimed), slack=2 * mp3.FRAME))
    return found


def _ogg_parts(path: Path, data, size: int) -> list[Part]:
    ranges, missing = ogg.links(data, size)
    if missing:
        raise UserError(f"is cut short: {missing} bytes of its last page are missing")
    if len(ranges) < 2:
        return [Part(lambda: os.fsencode(path))]
    return [Part(functools.partial(Pieces, path, [link])) for link in ranges]


def _flac_parts(path: Path, data, size: int) -> list[Part]:
    """Streams that do not know their length, or know it wrongly, are given the right one."""
    starts = flac.streams(data, 0, size)
    found = []
    for start, stop in zip(starts, [*starts[1:], size], strict=True):
        pieces: list = [(start, stop)]
        if more := flac.more_than_total(data, start, stop):
            position, total = flac.with_total(data, start, more)
            pieces = [(start, position), total, (position + len(total), stop)]
        elif not flac.total(data, start):
            raise UserError("is cut short: a flac of unknown length (from a pipe) whose last frame is not whole")
        found.append(Part(functools.partial(Pieces, path, pieces)))
    return found


def _sound_file(part: Part) -> sf.SoundFile:
    return sf.SoundFile(part.source())


def survey(path: Path, mono: bool = False) -> Survey:
    """Read a file once, to its end; `mono`: its channels mixed to one.

    Raises UserError or soundfile's errors where it cannot be upscaled as it is.
    """
    with opened(path) as audio:
        if audio.channels > MOST_CHANNELS["wav"]:
            raise UserError(f"has {audio.channels} channels; up to {MOST_CHANNELS['wav']} can be upscaled")
        check_rate(audio.sample_rate)
        channels = 1 if mono else audio.channels
        meters = [BandwidthMeter(audio.sample_rate) for _ in range(channels)]
        samples, peak = 0, 0.0
        for block_CxN in blocks(audio):
            check_finite(block_CxN, samples)
            block_CxN = mixed(block_CxN) if mono else block_CxN
            peak = max(peak, float(np.abs(block_CxN).max(initial=0)))
            samples += block_CxN.shape[1]
            for meter, x_N in zip(meters, block_CxN, strict=True):
                meter.update(x_N)
        if not samples:
            raise UserError("has no samples")
        return Survey(
            audio.sample_rate,
            channels,
            samples,
            max(meter.value() for meter in meters),
            audio.floats,
            audio.tags(),
            stretches(meters, audio.sample_rate, samples),
            peak,
            tuple(audio.remarks),
        )


def mixed(block_CxN: np.ndarray) -> np.ndarray:
    """All channels as one (1, N), their mean: it never clips."""
    return block_CxN.mean(axis=0, keepdims=True, dtype=np.float32)


def blocks(audio: Audio, samples: int = BLOCK) -> Iterator[np.ndarray]:
    """All of an open file as blocks (C, n), float32. Raises UserError where less is there than its header says."""
    while len(block_NxC := audio.read(samples)):
        yield block_NxC.T


def read(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """(All of a file (C, N), float32; its sample rate). Raises as `opened` does."""
    with opened(path) as audio:
        return np.concatenate([np.zeros((audio.channels, 0), np.float32), *blocks(audio)], axis=1), audio.sample_rate


def seconds(path: str | os.PathLike) -> float:
    """Duration of a file, by reading it. Raises as `opened` does."""
    with opened(path) as audio:
        return sum(block_CxN.shape[1] for block_CxN in blocks(audio)) / audio.sample_rate


@contextlib.contextmanager
def writer(
    path: Path,
    suffix: str,
    bit_depth: str,
    channels: int,
    samples: int,
    tags: dict[str, str],
    sample_rate: int = SAMPLE_RATE,
):
    """An open file to write (n, C) blocks to; `samples` decides whether a wav has to be RF64.

    Raises UserError where the format cannot hold it.
    """
    if suffix == "flac" and bit_depth == "float":
        raise UserError("flac holds no floats: take --bit-depth 24, or --format wav")
    if channels > MOST_CHANNELS[suffix]:
        raise UserError(f"{suffix} holds {MOST_CHANNELS[suffix]} channels, not {channels}: take --format wav")
    size = samples * channels * {"16": 2, "24": 3, "float": 4}[bit_depth]
    kind = "FLAC" if suffix == "flac" else "WAV" if size < WAV_LIMIT else "RF64"
    with sf.SoundFile(path, "w", sample_rate, channels, SUBTYPES[bit_depth], format=kind) as file:
        for name, value in tags.items():
            if name != "software":  # the encoder of the input
                setattr(file, name, value)
        yield file
