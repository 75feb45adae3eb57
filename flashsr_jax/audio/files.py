"""Audio files of any length, read and written block by block.

Letters: C channels, N samples.
"""

import contextlib
import dataclasses
import functools
import mmap
import os
import re
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE, chunks, flac, media, mp3, ogg
from flashsr_jax.audio import tags as audio_tags
from flashsr_jax.audio.bandwidth import BandwidthMeter
from flashsr_jax.audio.pieces import Pieces, patched, uninterrupted
from flashsr_jax.audio.resampling import MAX_SAMPLE_RATE, check_finite, check_rate
from flashsr_jax.audio.stretches import Stretch, stretches
from flashsr_jax.audio.tags import Tags
from flashsr_jax.errors import UserError, said_by_libsndfile, show_traceback

BLOCK = 1 << 17  # samples read at a time
WAV_LIMIT = 2**32 - 2**16  # bytes of audio that a plain wav can hold; longer ones are written as RF64
MOST_CHANNELS = {"wav": 64, "flac": 8}
FLAC_MASKS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}  # RFC 9639; Vorbis', too
VORBIS_ORDER = {  # of FLAC's channels in Vorbis and Opus
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
MASK_TAG = "WAVEFORMATEXTENSIBLE_CHANNEL_MASK"
INFO_TAGS = ("title", "artist", "album", "date", "genre", "comment", "copyright", "tracknumber")  # a plain wav has them
MPG123 = re.compile(r"\[src/libmpg123[^]]*\] (error: |warning: )?|Note: |Warning: (?=Xing)")  # begins its lines
RESYNC = re.compile("Trying to resync|during resync")  # after a line that says why
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}


class Survey(NamedTuple):
    """What one reading of a file found. `remarks`: what the user should know about how it was read."""

    sample_rate: int
    channels: int
    samples: int
    bandwidth_hz: float  # the highest of any channel; 0: silence
    floats: bool
    tags: Tags
    stretches: tuple[tuple[Stretch, ...], ...]  # of each channel: where the band ends, by stretch of time
    peak: float  # absolute, full scale 1
    mask: int | None  # of the channels' places, as WAVE_FORMAT_EXTENSIBLE has it; None: unknown
    remarks: tuple[str, ...]
    film_start: float | None  # seconds of a film at which its sound begins; None: no film


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
    has it (None: unknown); order: of the channels as read, where they are to be brought into the mask's; remarks: what
    the user should know about how it is read.
    """

    has_video, start = False, 0.0  # a film has a video, and its sound may begin later

    def __init__(
        self,
        parts: Sequence[Part],
        mask: int | None = None,
        remarks: Sequence[str] = (),
    ):
        self._parts, self._index, self._done, self._total = list(parts), 0, 0, 0
        self._file = _sound_file(self._parts[0])
        self._complaints: list[str] = []
        self.sample_rate, self.channels = self._file.samplerate, self._file.channels
        self.floats = self._file.subtype in ("FLOAT", "DOUBLE")
        self.mask, self.remarks = mask, list(remarks)
        self.order: tuple[int, ...] | None = None
        self._check_kind()

    def read(self, samples: int) -> np.ndarray:
        """The next samples (n, C), float32, n <= samples; n = 0 at the end.

        Raises UserError where less is there than the header says.
        """
        while True:
            try:
                with self._listening():
                    block_NxC = _read(self._file, samples)
            except sf.LibsndfileError as error:
                raise UserError(
                    f"is cut short or damaged: {self._total + self._done} of {self._total + self._file.frames} samples "
                    f"could be read (libsndfile: {said_by_libsndfile(error)})"
                ) from error
            if len(block_NxC):
                self._done += len(block_NxC)
                return block_NxC[:, self.order] if self.order else block_NxC
            self._check_end()
            if self._complaints:
                self.remarks.append(f"libmpg123 says of {len(self._complaints)} frames: {self._complaints[0]}")
                self._complaints.clear()
            if self._index + 1 == len(self._parts):
                return block_NxC
            self._file.close()
            self._index, self._total, self._done = self._index + 1, self._total + self._done, 0
            self._file = _sound_file(self._parts[self._index])

    def tags(self) -> dict[str, str]:
        """Those that libsndfile knows."""
        return self._file.copy_metadata()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _listening(self) -> contextlib.AbstractContextManager[None]:
        is_mpeg = self._file.subtype.startswith("MPEG")
        return _said_by_libmpg123(self._complaints) if is_mpeg else contextlib.nullcontext()

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
                while samples := len(_read(file, BLOCK)):
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
def opened(path: str | os.PathLike) -> Iterator[Audio | media.Media]:
    """Open an audio file. All of its samples are read, whatever its header says of their number.

    Raises UserError where the file is cut short, its kind is not read, or its rate is over 768 kHz.
    """
    path = Path(path)
    audio = _open(path)
    try:
        if audio.sample_rate > MAX_SAMPLE_RATE:
            check_rate(audio.sample_rate)
        yield audio
    finally:
        audio.close()


def _open(path: Path) -> Audio | media.Media:
    size = os.path.getsize(path)
    if not size:
        raise UserError("is empty")
    with open(path, "rb") as file:
        name = media.kind(file.read(128))
    if name:
        return media.Media(path, name)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = chunks.header(data, size)
        if data[:4] == b"OggS":
            audio = Audio(_ogg_parts(path, data, size))
            audio.mask, audio.order = FLAC_MASKS.get(audio.channels), VORBIS_ORDER.get(audio.channels)
            return audio
        if data[:4] == b"fLaC":
            audio = Audio(_flac_parts(path, data, size))
            audio.mask = _flac_mask(data) or FLAC_MASKS.get(audio.channels)
            return audio
        if found.audio and found.wave_format == chunks.MPEG:
            whole = Part(lambda: os.fsencode(path))
            return Audio(_mpeg_parts(path, data, *found.audio) or [whole], remarks=_remarks(found))
        if not found.audio and (parts := _mpeg_parts(path, data, 0, size)):
            return Audio(parts)
        try:
            return _chunked(path, size, found, {})
        except sf.LibsndfileError as error:
            if hidden := chunks.only_audio(data, size):  # long texts, say, which libsndfile fails at
                with contextlib.suppress(sf.LibsndfileError):
                    return _chunked(path, size, found, hidden)
            coding = chunks.CODINGS.get(found.wave_format or 0)
            container = {b"caff": "caf", b"FORM": "aiff"}.get(data[:4])
            if coding and found.audio:
                name = f"{coding} (format 0x{found.wave_format:04x} of wav)"
            elif container and "unsupported encoding" in error.error_string:
                name = f"{container} of this coding"  # Apple's AAC and lossless
            else:
                raise
            try:
                return media.Media(path, name)
            except UserError as missing:
                raise missing from error


def _chunked(path: Path, size: int, found: chunks.Header, more: Mapping[int, bytes]) -> Audio:
    """A file of chunks, or of another kind, with the changes that its header needs, and more."""
    changes = {**found.changes, **more}
    if not changes:
        return Audio([Part(lambda: os.fsencode(path))], found.mask, _remarks(found))
    pieces = patched(size, changes)
    return Audio([Part(lambda: Pieces(path, pieces))], found.mask, _remarks(found))


def _remarks(found: chunks.Header) -> list[str]:
    return [found.remark] if found.remark else []


def _mpeg_parts(path: Path, data: mmap.mmap, start: int, stop: int) -> list[Part]:
    found = []
    for part in mp3.parts(data, start, stop):
        pieces, size = part.playable(lambda a, b: data[a:b])
        claimed = None if part.header else part.claimed and part.claimed * part.first.samples
        source = functools.partial(Pieces, path, pieces, size)
        found.append(Part(source, claimed, bool(part.claimed), slack=2 * mp3.FRAME))
    return found


def _ogg_parts(path: Path, data: mmap.mmap, size: int) -> list[Part]:
    ranges, missing = ogg.links(data, size)
    if missing:
        raise UserError(f"is cut short: {missing} bytes of its last page are missing")
    if not ranges:
        raise UserError("is an ogg in which no stream begins: is cut short or damaged")
    if len(ranges) == 1:
        return [Part(lambda: os.fsencode(path))]
    return [Part(functools.partial(Pieces, path, [link])) for link in ranges]


def _flac_parts(path: Path, data: mmap.mmap, size: int) -> list[Part]:
    """Streams that do not know their length, or know it wrongly, are given the right one."""
    starts = flac.streams(data, 0, size)
    if not starts:
        raise UserError("is a flac without a whole header: is cut short or damaged")
    found = []
    for start, stop in zip(starts, [*starts[1:], size], strict=True):
        pieces: list = [(start, stop)]
        if more := flac.more_than_total(data, start, stop):
            position, total = flac.with_total(data, start, more)
            pieces = [(start, position), total, (position + len(total), stop)]
        elif not flac.total(data, start):
            raise UserError(
                "is a flac without a length and without a whole last frame: is cut short, or has no samples"
            )
        found.append(Part(functools.partial(Pieces, path, pieces)))
    return found


def _flac_mask(data: mmap.mmap) -> int | None:
    """Of a tag in a FLAC file's header."""
    found = re.search(rf"{MASK_TAG}=0x([0-9a-fA-F]+)".encode(), data[: 1 << 16], re.IGNORECASE)
    return int(found[1], 16) if found else None


@contextlib.contextmanager
def _said_by_libmpg123(lines: list[str]) -> Iterator[None]:
    """Add what libmpg123 writes to the process's standard error to `lines`; what others write goes there."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            written.seek(0)
            for line in written.read().decode(errors="replace").splitlines():
                if not MPG123.match(line):
                    print(line, file=sys.stderr)
                elif not RESYNC.search(line):
                    lines.append(MPG123.sub("", line))


def _sound_file(part: Part) -> sf.SoundFile:
    """Raises UserError where libmpg123 gives up: libsndfile says then that there is no such file."""
    source = part.source()
    try:
        with _said_by_libmpg123([]), uninterrupted():
            return sf.SoundFile(source)
    except sf.LibsndfileError as error:
        _check_disk(source, error)
        if "does not exist" not in error.error_string:
            raise
        raise UserError("is cut short or damaged: not one frame of it can be read") from error


def _read(file: sf.SoundFile, samples: int) -> np.ndarray:
    """The next samples (n, C), float32. Raises libsndfile's error, and OSError where the disk fails."""
    try:
        with uninterrupted():
            block_NxC = file.read(samples, dtype="float32", always_2d=True)
    except sf.LibsndfileError as error:
        _check_disk(file.name, error)
        raise
    _check_disk(file.name)
    return block_NxC


def _check_disk(source: bytes | Pieces, error: Exception | None = None) -> None:
    if isinstance(source, Pieces) and source.failure:
        raise source.failure from error


def survey(path: Path, mono: bool = False, out_rate: int = SAMPLE_RATE) -> Survey:
    """Read a file once, to its end; `mono`: its channels mixed to one; `out_rate`: of the output that gets its tags.

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
            audio_tags.read(path, audio.tags(), Fraction(out_rate, audio.sample_rate)),
            stretches(meters, audio.sample_rate, samples),
            peak,
            audio.mask,
            tuple(audio.remarks),
            audio.start if audio.has_video else None,
        )


def mixed(block_CxN: np.ndarray) -> np.ndarray:
    """All channels as one (1, N), their mean: it never clips."""
    return block_CxN.mean(axis=0, keepdims=True, dtype=np.float32)


def blocks(audio: Audio | media.Media, samples: int = BLOCK) -> Iterator[np.ndarray]:
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
    tags: Tags,
    mask: int | None,
    sample_rate: int = SAMPLE_RATE,
) -> Iterator[sf.SoundFile]:
    """An open file to write (n, C) blocks to; `samples` decides whether a wav has to be RF64.

    Of more than two channels, `mask` says where each is heard (None: unknown). What of the tags the file cannot hold
    is added to `tags.left_out`. Raises UserError where the format cannot hold it, or the disk not its end.
    """
    if suffix == "flac" and bit_depth == "float":
        raise UserError("flac holds no floats: take 24 bits, or wav")
    if channels > MOST_CHANNELS[suffix]:
        raise UserError(f"{suffix} holds {MOST_CHANNELS[suffix]} channels, not {channels}: take wav")
    size = samples * channels * {"16": 2, "24": 3, "float": 4}[bit_depth]
    kind = "FLAC" if suffix == "flac" else "RF64" if size >= WAV_LIMIT else "WAVEX" if channels > 2 else "WAV"
    with sf.SoundFile(os.fsencode(path), "w", sample_rate, channels, SUBTYPES[bit_depth], format=kind) as file:
        for name in INFO_TAGS:
            if name in tags.texts:
                setattr(file, name, tags.texts[name][0])
        yield file
        written = file.frames
    if suffix == "flac":
        _check_flac(path, written)
    texts = dict(tags.texts)
    if suffix == "wav":
        _finish_header(path, (mask or 0) if channels > 2 else None)
    elif channels > 2 and mask not in (None, FLAC_MASKS[channels]):
        texts[MASK_TAG.lower()] = [f"0x{mask:x}"]
    try:
        tags.left_out += audio_tags.write(path, dataclasses.replace(tags, texts=texts))
    except Exception as error:  # noqa: BLE001 the sound is what counts
        show_traceback()
        of_the_disk = [e for e in (error, *error.args) if isinstance(e, OSError)]  # mutagen's errors hold them
        why = f"they cannot be written: {of_the_disk[0].strerror}" if of_the_disk else "the output cannot hold them"
        tags.left_out.append(f"tags ({why})")


def _check_flac(path: Path, samples: int) -> None:
    """Raise UserError where the end of a flac is not there: its encoder writes that when the file is closed, and
    libsndfile does not say whether it could."""
    try:
        with sf.SoundFile(os.fsencode(path)) as file:
            last = file.frames == samples and file.seek(max(0, samples - 1)) + len(file.read(1))
    except sf.LibsndfileError:
        last = None
    if last != samples:
        raise UserError("the end of the output could not be written: is the disk full?")


def _finish_header(path: Path, mask: int | None) -> None:
    """Write the mask of the channels, if there is one, into the header of a wav that has the place for it. The time of
    writing, which libsndfile notes beside the peak of floats, goes: the same samples are the same file."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for chunk in chunks.chunks(data, len(data)):
            if chunk.name == b"fmt " and chunk.length >= 40 and mask is not None:
                struct.pack_into("<I", data, chunk.start + 20, mask)
            if chunk.name == b"PEAK" and chunk.length >= 8:
                struct.pack_into("<I", data, chunk.start + 4, 0)
            if chunk.name == b"data":
                return
