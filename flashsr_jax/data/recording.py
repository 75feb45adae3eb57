"""One recording: from a file of any supported format to mono segments at 48 kHz. Runs in worker processes, without JAX.

Letters: N samples, C channels.
"""

import errno
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio import files as audio_files
from flashsr_jax.audio.bandwidth import BandwidthMeter
from flashsr_jax.audio.resampling import check_finite, passband_hz
from flashsr_jax.errors import UserError, reason

FULL_RATE = 44_100  # from this rate on a recording may be of full band
MIN_SECONDS = 0.1
SILENCE = 10 ** (-80 / 20)  # peak of a silent recording, and of a dead channel below the loudest one
HIGH_BAND_HZ = 10_000.0
SEGMENT_SAMPLES = 983_040  # 20.48 s: a record is small enough to be read for one random crop of it
BLOCK_SECONDS = 10
HELD_OUT = 0.05  # share of the groups in each of validation and test, and of a recording that gives stretches to them
CLIP_SECONDS, LEAST_STRETCH_SECONDS = 5.12, 2.56  # that such a stretch has, where the recording is long enough


class Unusable(Exception):
    """A recording that the dataset leaves out: the reason (few distinct ones, to be counted) and the detail."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Decoded:
    """What `decode` found out; the int16 samples of all segments, one after the other, lie in `file`."""

    file: Path
    sample_rate: int
    channels: int
    channel: int
    bandwidth_hz: float
    fingerprint: str
    samples: int
    gains: tuple[float, ...]  # sample value = int16 x gain, one a segment
    remarks: tuple[str, ...]  # what was odd about the file, and how it was taken


def segment_lengths(samples: int) -> list[int]:
    """Lengths of the equal parts (the last may be a little shorter) of at most `SEGMENT_SAMPLES` that a recording is
    cut into."""
    count = -(-samples // SEGMENT_SAMPLES)
    length = -(-samples // count)
    return [min(length, samples - start) for start in range(0, samples, length)]


def decode(path: Path, file: Path, min_bandwidth_hz: float) -> Decoded:
    """Read a recording, pick its channel, measure it, and write its segments at 48 kHz to `file`.

    Each segment is scaled to full scale before rounding to int16, so that its rounding noise stays under the log-mel's
    floor however quiet the recording is. Memory does not grow with the recording's length. Raises Unusable.
    """
    try:
        sample_rate, channels, channel, fingerprint, remarks = _survey(path, 2 * min_bandwidth_hz)
        meter = BandwidthMeter(sample_rate)
        unscaled = file.with_suffix(".f32")
        try:
            with unscaled.open("wb") as out:
                for piece_N in _resampled(path, sample_rate, channel, meter):
                    out.write(piece_N.tobytes())
            bandwidth_hz = meter.value()
            if sample_rate < FULL_RATE:
                bandwidth_hz = min(bandwidth_hz, passband_hz(sample_rate))
            if bandwidth_hz < min_bandwidth_hz:
                raise Unusable("bandwidth too low", f"{bandwidth_hz:.0f} Hz, under {min_bandwidth_hz:.0f} Hz")
            samples = unscaled.stat().st_size // 4
            with unscaled.open("rb") as source:
                gains = _write_segments(source, file, samples)
        finally:
            unscaled.unlink(missing_ok=True)
    except Unusable:
        raise
    except UserError as error:
        raise Unusable("cut short" if "cut short" in str(error) else "unreadable", str(error)) from error
    except Exception as error:  # one odd file ends no build
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unusable("unreadable", reason(error)) from error
    return Decoded(file, sample_rate, channels, channel, bandwidth_hz, fingerprint, samples, gains, remarks)


def last_stretches(decoded: Decoded, splits: Sequence[str]) -> Iterator[tuple[int, str, Decoded]]:
    """(start in samples, split, stretch) of a recording: its beginning for training, and at its end one for each of
    `splits`, of 5 % or, where that is less than 5.12 s, of up to a quarter. One that is too short stays whole."""
    held = max(HELD_OUT * decoded.samples, min(CLIP_SECONDS * SAMPLE_RATE, decoded.samples / 4))
    if held < LEAST_STRETCH_SECONDS * SAMPLE_RATE:
        yield 0, "train", decoded
        return
    unscaled = decoded.file.with_suffix(".f32")
    with decoded.file.open("rb") as source, unscaled.open("wb") as out:
        for length, gain in zip(segment_lengths(decoded.samples), decoded.gains, strict=True):
            x_N = np.frombuffer(source.read(2 * length), np.int16)
            out.write((x_N * np.float32(gain)).tobytes())
    with unscaled.open("rb") as whole:
        start = 0
        for number, split in enumerate(("train", *splits)):
            samples = int(held) if number else decoded.samples - len(splits) * int(held)
            file = decoded.file.with_suffix(f".{split}.i16")
            yield (
                start,
                split,
                replace(decoded, file=file, samples=samples, gains=_write_segments(whole, file, samples)),
            )
            start += samples
    unscaled.unlink()


def _survey(path: Path, min_rate: float) -> tuple[int, int, int, str, tuple[str, ...]]:
    """(sample rate, channels, the channel to use, fingerprint of the decoded audio, remarks) of a usable recording.

    The channel is the one with most energy in the high band among those that are not dead: a downmix would cancel it
    where the channels are not in phase.
    """
    with audio_files.opened(path) as audio:
        sample_rate, channels, remarks = audio.sample_rate, audio.channels, tuple(audio.remarks)
        if sample_rate < min_rate:
            raise Unusable("sample rate too low", f"{sample_rate} Hz, under {min_rate:.0f} Hz")
        fingerprint = hashlib.blake2b(f"{sample_rate} {channels}".encode(), digest_size=16)
        frames, peak_C, high_C = 0, np.zeros(channels), np.zeros(channels)
        for block_CxN in audio_files.blocks(audio, BLOCK_SECONDS * sample_rate):
            try:
                check_finite(block_CxN, frames)
            except UserError as error:
                raise Unusable("not finite", str(error)) from error
            block_NxC = np.ascontiguousarray(block_CxN.T)
            fingerprint.update(block_NxC.tobytes())
            frames += len(block_NxC)
            peak_C = np.maximum(peak_C, np.abs(np.ascontiguousarray(block_CxN)).max(axis=1))
            if channels > 1:  # else there is nothing to choose from
                high_C += high_band_energy(block_NxC, sample_rate)
    if frames == 0:
        raise Unusable("empty", "holds no samples")
    if frames < MIN_SECONDS * sample_rate:
        raise Unusable("too short", f"{frames / sample_rate:.3f} s, under {MIN_SECONDS} s")
    if peak_C.max() < SILENCE:
        raise Unusable("silent", "peak under -80 dBFS")
    return sample_rate, channels, best_channel(peak_C, high_C), fingerprint.hexdigest(), remarks


def high_band_energy(x_NxC: np.ndarray, sample_rate: int) -> np.ndarray:
    """Energy (C,) of each channel above 10 kHz, of low rates in the upper half of their band."""
    power_CxK = np.abs(np.fft.rfft(np.ascontiguousarray(x_NxC.T))) ** 2
    first_hz = min(HIGH_BAND_HZ, sample_rate / 4)
    return power_CxK[:, int(power_CxK.shape[1] * first_hz * 2 / sample_rate) :].sum(axis=1)


def best_channel(peak_C: np.ndarray, high_C: np.ndarray) -> int:
    """The channel with the most energy in the high band among those that are not dead, from peaks and such energies."""
    return int(np.where(peak_C >= peak_C.max() * SILENCE, high_C, -1).argmax())


def _resampled(path: Path, sample_rate: int, channel: int, meter: BandwidthMeter) -> Iterator[np.ndarray]:
    """The channel at 48 kHz, piece by piece; the meter is shown the original on the way."""
    resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
    with audio_files.opened(path) as audio:
        for block_CxN in audio_files.blocks(audio, BLOCK_SECONDS * sample_rate):
            x_N = np.ascontiguousarray(block_CxN[channel])
            meter.update(x_N)
            yield x_N if sample_rate == SAMPLE_RATE else resampler.resample_chunk(x_N)
    if sample_rate != SAMPLE_RATE:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _write_segments(source: IO[bytes], file: Path, samples: int) -> tuple[float, ...]:
    """The next `samples` of float32 as the segments of a recording; their gains."""
    gains = []
    with file.open("wb") as out:
        for length in segment_lengths(samples):
            x_N = np.frombuffer(source.read(4 * length), np.float32)
            gain = max(float(np.abs(x_N).max()), 1e-9) / 32_767
            out.write(np.rint(x_N / gain).astype(np.int16).tobytes())
            gains.append(gain)
    return tuple(gains)
