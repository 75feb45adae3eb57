"""Containers that libsndfile does not know (m4a, mp4, webm, mkv, wma, ac3), by PyAV, which is an extra.

Letters: C channels, N samples.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flashsr_jax.errors import UserError

INSTALL = "pip install 'flashsr_jax[av]'"
_MAGICS = (  # expression at the beginning of a file, its usual name
    (rb".{4}ftyp(M4A|M4B|m4a)", "m4a"),
    (rb".{4}ftyp", "mp4"),
    (rb"\x1aE\xdf\xa3.{0,60}webm", "webm"),
    (rb"\x1aE\xdf\xa3", "mkv"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma"),
    (rb"\x0b\x77", "ac3"),
    (rb"\xff[\xf0-\xf1\xf8-\xf9][\x40-\x7f\x00-\xbf]", "aac"),
    (rb"#!AMR", "amr"),
    (rb"RIFF....AVI ", "avi"),
    (rb"FLV\x01", "flv"),
    (rb"MAC ", "ape"),
    (rb"wvpk", "wv"),
    (rb"\x7fFE\x80", "dts"),
)
_PLACES = tuple(re.findall(r"\w+", "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR"))  # bits of a mask
_GAP = 0.05  # seconds without sound that are put in where a stream goes on later
_PIECE = 1 << 16  # samples of such silence at a time
_SLACK = 0.3  # seconds less than the container says that are no loss: what coders put before and behind


def kind(head: bytes) -> str | None:
    """The usual suffix of a container that PyAV reads, by the first bytes of the file; None: another kind of file."""
    return next((name for magic, name in _MAGICS if re.match(magic, head, re.DOTALL)), None)


class Media:
    """The first audio stream of a container, as `files.Audio` is.

    floats is False, since such files are coded; has_video: whether it is a film; start: seconds at which the sound
    begins in the container. Raises UserError without PyAV, where there is no sound, and where the container cannot be
    read, or ends before it says.
    """

    floats = False

    def __init__(self, path: Path, name: str):
        try:
            import av
        except ImportError as error:
            raise UserError(f"{name} is not read without PyAV: {INSTALL}") from error
        av.logging.set_level(av.logging.PANIC)
        try:
            self._container = _opened(path)
        except av.FFmpegError as error:
            raise UserError(f"is cut short or damaged: FFmpeg cannot read it as {name} ({_said(error)})") from error
        if not self._container.streams.audio:
            self.close()
            raise UserError("has no sound in it")
        stream = self._container.streams.audio[0]
        self.sample_rate, self.channels = stream.rate, stream.channels
        places = [channel.name for channel in stream.layout.channels]
        self.mask = sum(1 << _PLACES.index(place) for place in places) if set(places) <= set(_PLACES) else None
        streams = self._container.streams
        self.remarks = [f"the first of {len(streams.audio)} audio streams was taken"] if streams.audio[1:] else []
        self.has_video = not all(map(_is_cover, streams.video))
        self.start = 0.0
        self._frames = self._decoded(stream)
        self._waiting = next(self._frames, np.zeros((0, self.channels), np.float32))

    def _decoded(self, stream: Any) -> Iterator[np.ndarray]:
        """Frames (n, C), silence where the stream's clock leaves some out."""
        import av

        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        end = None
        for frame in self._whole_frames(stream):
            time = frame.time
            for converted in resampler.resample(frame):
                block_NxC = converted.to_ndarray().T
                if end is None:
                    self.start = end = time or 0.0
                if time is not None and time - end > _GAP:
                    gap = round((time - end) * stream.rate)
                    self.remarks.append(f"{gap} samples that the stream leaves out at {end:.1f} s are silence")
                    for left in range(gap, 0, -_PIECE):  # hours, in a recording that was broken off and went on
                        yield np.zeros((min(left, _PIECE), block_NxC.shape[1]), np.float32)
                    end = time
                end += len(block_NxC) / stream.rate
                yield block_NxC
        claimed = self._claimed_end(stream)
        if claimed and end is not None and end < claimed - _SLACK:
            read, whole = (round((time - self.start) * stream.rate) for time in (end, claimed))
            raise UserError(f"is cut short: {read} of {whole} samples could be read")

    def _whole_frames(self, stream: Any) -> Iterator[Any]:
        """Decoded frames. Raises UserError where one cannot be decoded."""
        import av

        samples = 0
        try:
            for frame in self._container.decode(stream):
                samples += frame.samples
                yield frame
        except av.FFmpegError as error:
            said = f"{samples} samples could be read, then FFmpeg said: {_said(error)}"
            raise UserError(f"is cut short or damaged: {said}") from error

    def _claimed_end(self, stream: Any) -> float | None:
        """Seconds at which the container says that the sound ends; None where it is not sure of it."""
        container = self._container
        if container.format.name.startswith("mov") and stream.duration:
            return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        if not container.format.name.startswith("matroska"):
            return None  # guessed from the bit rate
        of_the_stream = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
        if of_the_stream:
            hours, minutes, seconds = map(float, of_the_stream.groups())
            return 3600 * hours + 60 * minutes + seconds
        alone = len(container.streams) == len(container.streams.audio)
        return container.duration / 1e6 if alone and container.duration else None

    def read(self, samples: int) -> np.ndarray:
        """The next samples (n, C), float32; n = 0 at the end."""
        while len(self._waiting) < samples:
            block_NxC = next(self._frames, None)
            if block_NxC is None:
                break
            self._waiting = np.concatenate([self._waiting, block_NxC])
        block_NxC, self._waiting = self._waiting[:samples], self._waiting[samples:]
        return block_NxC

    def tags(self) -> dict[str, str]:
        """Of the container; those of its coding begin as brands and handlers do."""
        stream = self._container.streams.audio[0]
        found = {**stream.metadata, **self._container.metadata}
        of_the_container = ("major_brand", "minor_version", "compatible_brands", "creation_time", "handler_name")
        left = (*of_the_container, "vendor_id", "duration", "encoder", "language", "bps", "number_of_")
        names = {"album_artist": "albumartist", "track": "tracknumber", "disc": "discnumber"}
        lower = {name.lower(): value for name, value in found.items()}
        return {names.get(name, name): _text(value) for name, value in lower.items() if not name.startswith(left)}

    def close(self) -> None:
        """Close the file."""
        self._container.close()


def _opened(path: Path, mode: str = "r", form: str | None = None) -> Any:
    """PyAV's container. Bytes of tags that are not UTF-8 become lone surrogates, as in the names of files, and are
    written as they were: PyAV's own way from version 19 on, where there is no word for it any more."""
    import av

    words: dict[str, Any] = {"mode": mode, "format": form}
    if int(av.__version__.partition(".")[0]) < 19:
        words["metadata_errors"] = "surrogateescape"
    return av.open(str(path), **words)


def _text(tag: str) -> str:
    """A tag that every file can take."""
    return tag.encode(errors="surrogateescape").decode(errors="replace")


def _said(error: Any) -> str:
    """FFmpeg's own words for an error."""
    return error.log[2].strip() if error.log else error.strerror


def put_back(film: Path, sound: Path, target: Path, start: float) -> list[str]:
    """Write `film` to the Matroska file `target`, all of it untouched but its first sound, in whose place is the flac
    `sound`, which begins at `start` seconds. Returns what Matroska cannot hold; raises UserError where that is the
    pictures."""
    with _opened(film) as source, _opened(sound) as audio, _opened(target, "w", "matroska") as out:
        old, new = source.streams.audio[0], audio.streams.audio[0]
        copies, left_out = {}, []
        for stream in source.streams:
            if stream.type not in ("video", "audio", "subtitle") or _is_cover(stream):
                continue
            try:
                copy = out.add_stream_from_template(new if stream.index == old.index else stream)
            except ValueError as error:
                kind = f"{stream.type} ({stream.codec_context.name})"
                if stream.type == "video":
                    raise UserError(f"matroska holds no {kind}: end the output's name in .wav or .flac") from error
                left_out.append(kind)
                continue
            names = ("language", "title") if stream.index == old.index else stream.metadata
            copy.metadata.update({name: stream.metadata[name] for name in names if name in stream.metadata})
            with contextlib.suppress(AttributeError):  # it cannot be set before PyAV 15
                copy.disposition = stream.disposition
            copies[stream.index] = copy
        out.metadata.update(source.metadata)
        if hasattr(out, "add_attachment"):  # from PyAV 16 on
            out.set_chapters(source.chapters())
            for name, kind, data in _attachments(film):
                out.add_attachment(name, kind, data)
        voice = copies.pop(old.index)
        kept = [source.streams[index] for index in copies]
        offset = round(start / (new.time_base or 1))
        for packet in _by_time(source.demux(kept), audio.demux(new), offset, new):
            packet.stream = voice if packet.stream.container is audio else copies[packet.stream.index]
            out.mux(packet)
    return left_out


def _is_cover(stream: Any) -> bool:
    import av

    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _attachments(film: Path) -> Iterator[tuple[str, str, bytes]]:
    """Name, MIME type and contents of each file that is attached to a film: fonts, and covers, which FFmpeg takes for
    pictures."""
    with _opened(film) as source:
        for stream in source.streams:
            if stream.type == "attachment" and stream.data:
                yield stream.name or "attachment", stream.mimetype or "application/octet-stream", stream.data
        for stream in filter(_is_cover, source.streams.video):
            source.seek(0)
            data = next((bytes(packet) for packet in source.demux(stream) if packet.size), b"")
            kind = {"mjpeg": "jpeg"}.get(stream.codec_context.name, stream.codec_context.name)
            yield stream.metadata.get("filename", f"cover.{kind}"), f"image/{kind}", data


def _by_time(pictures: Iterator[Any], sounds: Iterator[Any], offset: int, voice: Any) -> Iterator[Any]:
    """Packets of both in the order of their times; the sound's are moved by `offset`."""
    sounds = (packet for packet in sounds if packet.dts is not None)
    waiting = next(sounds, None)

    def moved(packet: Any) -> Any:
        packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
        return packet

    for picture in pictures:
        if picture.dts is None:
            continue
        while waiting is not None and (waiting.dts + offset) * voice.time_base <= picture.dts * picture.time_base:
            yield moved(waiting)
            waiting = next(sounds, None)
        yield picture
    while waiting is not None:
        yield moved(waiting)
        waiting = next(sounds, None)
