"""Containers that libsndfile does not know (m4a, mp4, webm, mkv, wma, ac3), by PyAV, which is an extra.

Letters: C channels, N samples.
"""

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


def kind(head: bytes) -> str | None:
    """The usual suffix of a container that PyAV reads, by the first bytes of the file; None: another kind of file."""
    return next((name for magic, name in _MAGICS if re.match(magic, head, re.DOTALL)), None)


class Media:
    """The first audio stream of a container, as `files.Audio` is.

    floats is False, since such files are coded; has_video: whether it is a film; start: seconds at which the sound
    begins in the container. Raises UserError without PyAV, and where there is no sound.
    """

    floats = False

    def __init__(self, path: Path, name: str):
        try:
            import av
        except ImportError as error:
            raise UserError(f"{name} is not read without PyAV: {INSTALL}") from error
        av.logging.set_level(av.logging.PANIC)
        self._container = av.open(str(path))
        if not self._container.streams.audio:
            self.close()
            raise UserError("has no sound in it")
        stream = self._container.streams.audio[0]
        self.sample_rate, self.channels = stream.rate, stream.channels
        places = [channel.name for channel in stream.layout.channels]
        self.mask = sum(1 << _PLACES.index(place) for place in places) if set(places) <= set(_PLACES) else None
        streams = self._container.streams
        self.remarks = [f"the first of {len(streams.audio)} audio streams was taken"] if streams.audio[1:] else []
        self.has_video = any(not stream.disposition & av.stream.Disposition.attached_pic for stream in streams.video)
        self.start = 0.0
        self._frames = self._decoded(stream)
        self._waiting = next(self._frames, np.zeros((0, self.channels), np.float32))

    def _decoded(self, stream: Any) -> Iterator[np.ndarray]:
        """Frames (n, C), silence where the stream's clock leaves some out."""
        import av

        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        end = None
        for frame in self._container.decode(stream):
            time = frame.time
            for converted in resampler.resample(frame):
                block_NxC = converted.to_ndarray().T
                if end is None:
                    self.start = end = time or 0.0
                if time is not None and time - end > _GAP:
                    gap = round((time - end) * stream.rate)
                    self.remarks.append(f"{gap} samples that the stream leaves out at {end:.1f} s are silence")
                    yield np.zeros((gap, block_NxC.shape[1]), np.float32)
                    end = time
                end += len(block_NxC) / stream.rate
                yield block_NxC

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
        return {names.get(name, name): value for name, value in lower.items() if not name.startswith(left)}

    def close(self) -> None:
        self._container.close()


def put_back(film: Path, sound: Path, target: Path, start: float) -> None:
    """Write the video (and subtitles) of `film`, untouched, and the flac `sound`, which begins at `start` seconds, to
    the Matroska file `target`."""
    import av

    with av.open(str(film)) as source, av.open(str(sound)) as audio, av.open(str(target), "w", "matroska") as out:
        kept = [stream for stream in source.streams if stream.type in ("video", "subtitle")]
        copies = {stream.index: out.add_stream_from_template(stream) for stream in kept}
        voice = out.add_stream_from_template(audio.streams.audio[0])
        out.metadata.update(source.metadata)
        offset = round(start / (audio.streams.audio[0].time_base or 1))
        for packet in _by_time(source.demux(kept), audio.demux(audio.streams.audio[0]), offset, audio.streams.audio[0]):
            if packet.stream.container is audio:
                packet.stream = voice
            else:
                packet.stream = copies[packet.stream.index]
            out.mux(packet)


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
