"""Recordings as people have them, made small: headers that claim too much or too little, pipes, joins, cuts.

python -m helpers.odd_recordings FOLDER [RATE]
"""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

Make = Callable[[Path, int], object]  # writes a recording to a path, at a rate
Change = Callable[[bytearray], bytes | bytearray]


class Kind(NamedTuple):
    """An odd recording. make(path, rate) writes it; it has `parts` times the samples of `signal`, and up to `more`;
    without parts it is refused, with `said`; else `said` is what is remarked."""

    name: str
    what: str
    make: Make
    parts: int = 1
    said: str = ""
    more: int = 0


def signal(rate: int) -> np.ndarray:
    """1.5 s of noise in bursts."""
    x_N = np.random.default_rng(0).uniform(-0.5, 0.5, int(1.5 * rate))
    return x_N * (1 + np.sin(np.arange(len(x_N)) * 20 / rate)) / 2


def coded(path: Path, rate: int, **options: str) -> bytes:
    """The signal as a file of the format that the name or the options say; its bytes."""
    sf.write(path, signal(rate), rate, **options)
    return path.read_bytes()


def mp3_frames(data: bytes | bytearray) -> tuple[int, int]:
    """(Position of the count in a Xing header, the count)."""
    position = max(data.find(b"Xing"), data.find(b"Info")) + 8
    return position, struct.unpack(">I", data[position : position + 4])[0]


def _mp3(change: Change) -> Make:
    def make(path: Path, rate: int) -> None:
        path.write_bytes(change(bytearray(coded(path, rate, format="MP3", bitrate_mode="VARIABLE"))))

    return make


def _count(share: float, more: int = 0) -> Change:
    def change(data: bytearray) -> bytearray:
        position, count = mp3_frames(data)
        data[position : position + 4] = struct.pack(">I", int(count * share) + more)
        return data

    return change


def without_xing(data: bytearray) -> bytearray:
    """An mp3 without its first frame, which is the header."""
    start = data.index(b"\xff", 1)
    while data[start : start + 2] != data[:2] or (data[start + 2] & 0x0C) != (data[2] & 0x0C):
        start = data.index(b"\xff", start + 1)
    return data[start:]


def wav(rate: int, length: int | None = None, after: bytes = b"", kind: int = 1) -> bytes:
    """The signal as a wav of 16 bits, with a length of its audio that need not be true, and bytes behind it."""
    samples = np.round(signal(rate) * 32767).astype("<i2").tobytes()
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, kind, 1, rate, 2 * rate, 2, 16)
    body += b"data" + struct.pack("<I", len(samples) if length is None else length) + samples + after
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _wav(length: Callable[[int], int], after: bytes = b"") -> Make:
    def make(path: Path, rate: int) -> None:
        path.write_bytes(wav(rate, length(2 * len(signal(rate))), after))

    return make


def _flac_total(share: float) -> Make:
    def make(path: Path, rate: int) -> None:
        data = bytearray(coded(path, rate))
        total = int(len(signal(rate)) * share)
        data[21:26] = (int.from_bytes(data[21:26]) >> 36 << 36 | total).to_bytes(5)
        path.write_bytes(data)

    return make


def _twice(**options: str) -> Make:
    def make(path: Path, rate: int) -> None:
        data = coded(path, rate, **options)
        path.write_bytes(data + data)

    return make


def _of_two_rates(path: Path, rate: int) -> None:
    path.write_bytes(coded(path, rate, format="OGG") + coded(path, rate * 2, format="OGG"))


def _cut(**options: str) -> Make:
    def make(path: Path, rate: int) -> None:
        data = coded(path, rate, **options)
        path.write_bytes(data[: int(len(data) * 0.6)])

    return make


def _gsm(path: Path, rate: int) -> None:
    sf.write(path, signal(rate), rate, format="WAV", subtype="GSM610")


KINDS = (
    Kind("whole.mp3", "mp3 as it should be", _mp3(bytes)),
    Kind("no_xing.mp3", "mp3, variable bit rate, no Xing header", _mp3(without_xing), more=3000),
    Kind("xing_half.mp3", "mp3 whose header claims half of its frames", _mp3(_count(0.5))),
    Kind("xing_more.mp3", "mp3 whose header claims 9 frames too many", _mp3(_count(1, 9)), 0, "is cut short"),
    Kind("partial.mp3", "mp3, partly downloaded", _mp3(lambda data: data[: len(data) // 2]), 0, "is cut short"),
    Kind("joined.mp3", "two mp3 joined by cat", _mp3(lambda data: data + data), 2),
    Kind("junk.mp3", "mp3 behind 3000 bytes of something else", _mp3(lambda data: b"\xff\xfb\x01" * 1000 + data)),
    Kind("chained.ogg", "two Ogg Vorbis joined by cat", _twice(format="OGG", subtype="VORBIS"), 2),
    Kind("chained.opus", "two Opus joined by cat", _twice(format="OGG", subtype="OPUS"), 2),
    Kind("two_rates.ogg", "two Ogg Vorbis of different rates joined", _of_two_rates, 0, "samples could be read as one"),
    Kind("length_0.wav", "wav, length 0: a recorder that was switched off", _wav(lambda n: 0)),
    Kind("sox_pipe.wav", "wav of a pipe, length 0x7ffff000 (sox)", _wav(lambda n: 0x7FFFF000)),
    Kind("sox_trim.wav", "the same, less what was skipped", _wav(lambda n: 0x7FFFF000 - 40_000)),
    Kind("stream.wav", "wav of a pipe, length 0x80000000", _wav(lambda n: 0x80000000)),
    Kind("ffmpeg_pipe.wav", "wav of a pipe, length 0xffffffff (ffmpeg)", _wav(lambda n: 0xFFFFFFFF)),
    Kind("few_bytes.wav", "wav whose header says 16 bytes too many", _wav(lambda n: n + 16), 1, "16 bytes more than"),
    Kind("cut.wav", "wav, cut short", _cut(format="WAV"), 0, "is cut short"),
    Kind("cut.aiff", "aiff, cut short", _cut(format="AIFF"), 0, "is cut short"),
    Kind("cut.au", "au, cut short", _cut(format="AU", subtype="PCM_16"), 0, "is cut short"),
    Kind("cut.w64", "w64, cut short", _cut(format="W64", subtype="PCM_16"), 0, "is cut short"),
    Kind("cut.rf64", "rf64, cut short", _cut(format="RF64", subtype="PCM_16"), 0, "is cut short"),
    Kind("cut.caf", "caf, cut short", _cut(format="CAF", subtype="PCM_16"), 0, "is cut short"),
    Kind("cut.opus", "opus, cut short", _cut(format="OGG", subtype="OPUS"), 0, "is cut short"),
    Kind("cut.flac", "flac, cut short", _cut(format="FLAC"), 0, "is cut short"),
    Kind("more.wav", "wav with more audio than its header says", _wav(lambda n: n // 2), 0, "belong to nothing follow"),
    Kind("pipe.flac", "flac of a pipe: no length", _flac_total(0)),
    Kind("half.flac", "flac whose header says half", _flac_total(0.5)),
    Kind("joined.flac", "two flac joined by cat", _twice(format="FLAC"), 2),
    Kind("voicemail.wav", "GSM in wav", _gsm, more=320),
    Kind("empty.wav", "no bytes at all", lambda path, rate: path.write_bytes(b""), 0, "is empty"),
)


def main(folder: str, rate: str = "8000") -> None:
    """Write all of them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        kind.make(Path(folder) / kind.name, int(rate))


if __name__ == "__main__":
    main(*sys.argv[1:])
