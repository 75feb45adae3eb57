"""Sound that is upscaled while it comes: the delay that was promised, the same output as a whole, pipes as they are."""

import io
import struct
import subprocess
import sys
import wave
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.api import FlashSR
from flashsr_jax.audio import HOP
from flashsr_jax.audio.bands import Bands
from flashsr_jax.audio.pipes import BYTES, Format, encoded, read_blocks, read_wav_header, wav_header
from flashsr_jax.audio.resampling import PROMPT, reach_hz
from flashsr_jax.cli import main as flashsr
from flashsr_jax.commands.live import RAW
from flashsr_jax.errors import UserError
from flashsr_jax.upscale import stream
from flashsr_jax.upscale.model import load_model
from flashsr_jax.upscale.windows import live_framing, process_windows
from flashsr_jax.weights.store import save_weights

from helpers.micro_model import MICRO, micro_params
from helpers.sounds import low_passed

RATE = 16_000
X_CxN = 0.1 * np.random.default_rng(0).normal(size=(2, 3 * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("live") / "micro.safetensors"
    save_weights(path, MICRO, micro_params())
    return path


@pytest.fixture(scope="module")
def model(weights):
    return FlashSR(load_model(weights))


def blocks_of(x_CxN, size):
    return (x_CxN[:, start : start + size] for start in range(0, x_CxN.shape[1], size))


@pytest.mark.parametrize("delay", [0.02, 0.1, 0.2, 0.32])
def test_live_windows_give_back_what_they_get(delay):
    frames = live_framing(MICRO, delay)
    assert frames.window == 64 * HOP
    assert frames.step == 32 * HOP and frames.step % frames.hop == 0
    for samples in (1, frames.context + 1, frames.window, 100_001):
        x_CxN = np.random.default_rng(1).normal(size=(1, samples)).astype(np.float32)
        output = list(process_windows(lambda x, _: x, blocks_of(x_CxN, 999), frames, channels=1, group=1))
        np.testing.assert_allclose(np.concatenate(output, axis=1), x_CxN, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
def test_the_output_lags_by_what_was_promised(model, rate, monkeypatch):
    """Whatever the networks make of a window: here they hand it on."""
    monkeypatch.setattr(stream, "_super_resolve_batch", lambda run, params, config, sampling, x_BxN, *_: x_BxN)
    latency = model.latency(rate, latency_ms=200)
    assert latency == pytest.approx(0.32 + 0.2, abs=0.002)
    given = taken = 0

    def sound():
        nonlocal given
        for block_CxN in blocks_of(X_CxN[:1], rate // 50):
            assert (
                taken / 48_000 >= given / rate - latency - 1e-3
            )  # all that is due came before the next block is asked
            given += block_CxN.shape[1]
            yield block_CxN

    for y_CxN in model.stream(sound(), rate, channels=1, latency_ms=200):
        taken += y_CxN.shape[1]
    assert taken == round(X_CxN.shape[1] * 48_000 / rate)


@pytest.mark.training
def test_blocks_level_offset_and_channels_are_as_in_a_file(model):
    def live(x_CxN, size=777):
        return np.concatenate(
            list(model.stream(blocks_of(x_CxN, size), RATE, channels=len(x_CxN), latency_ms=150)), axis=1
        )

    y_CxN = live(X_CxN)
    np.testing.assert_array_equal(live(X_CxN, 5000), y_CxN)
    inside = slice(40_000, -40_000)  # without the resampler's ringing where the offset begins and ends
    moved_CxN = live(0.25 * X_CxN + 0.05)
    np.testing.assert_allclose(moved_CxN[:, inside], 0.25 * y_CxN[:, inside] + 0.05, atol=0.01 * np.abs(y_CxN).max())
    np.testing.assert_allclose(live(X_CxN[::-1])[::-1], y_CxN, atol=1e-6)
    assert y_CxN.shape == (2, 3 * X_CxN.shape[1])


def test_a_told_cutoff_is_taken_no_higher_than_the_short_resampler_reaches(model):
    x = np.random.default_rng(0).normal(0, 0.1, (1, 16_000)).astype(np.float32)

    def upscaled(cutoff_hz: float) -> np.ndarray:
        bands = Bands(cutoff_hz, lowpass=True, keep_low_band=True)
        blocks = model.stream([x], 16_000, channels=1, latency_ms=200, bands=bands)
        return np.concatenate(list(blocks), axis=1)

    np.testing.assert_array_equal(upscaled(8000.0), upscaled(reach_hz(16_000, PROMPT)))
    assert np.abs(upscaled(8000.0) - upscaled(6000.0)).max() > 1e-3


def test_a_full_band_passes_through_and_a_lower_one_is_kept_under_its_end(model):
    """What `flashsr live` does with what it hears, whatever the blocks' lengths."""
    x_CxN = 0.1 * np.random.default_rng(3).normal(size=(1, 3 * 48_000)).astype(np.float32)
    narrow_CxN = low_passed(x_CxN, 4000).astype(np.float32)

    def live(x_CxN: np.ndarray, size: int = 7777) -> np.ndarray:
        blocks = model.stream(blocks_of(x_CxN, size), 48_000, channels=1, latency_ms=200)
        return np.concatenate(list(blocks), axis=1)

    heard = slice(int(0.4 * 48_000), None)
    np.testing.assert_allclose(live(x_CxN)[:, heard], x_CxN[:, heard], atol=1e-6)
    y_CxN = live(narrow_CxN)
    np.testing.assert_array_equal(live(narrow_CxN, 10**6), y_CxN)
    added_CxN = (y_CxN - narrow_CxN)[:, heard]
    assert np.abs(added_CxN).max() > 1e-3
    inside = slice(9600, -9600)  # of the filter that looks
    assert np.abs(low_passed(added_CxN, 3000)[:, inside]).max() < 1e-3 * np.abs(narrow_CxN).max()


def test_a_delay_that_cannot_be_kept_is_refused(model):
    with pytest.raises(UserError, match="latency_ms=50, of which resampling from 8000 Hz takes .*: from 20 to 320 ms"):
        model.latency(8000, latency_ms=50)
    with pytest.raises(UserError, match="latency_ms=900"):
        model.stream([X_CxN], RATE, channels=2, latency_ms=900)
    with pytest.raises(UserError, match="a ceiling looks further ahead"):
        model.stream([X_CxN], RATE, channels=2, latency_ms=200, ceiling=1.0)


@pytest.mark.training
def test_the_command_writes_while_it_reads(weights):
    samples = (X_CxN * 32_768).astype("<i2").T
    words = [sys.executable, "-m", "flashsr_jax", "live", "--weights", str(weights)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(wav_header(Format(RATE, 2, "s16")) + samples[: 2 * RATE].tobytes())
        process.stdin.flush()
        promised = int((2 - 0.52) * 48_000) * 4
        first = process.stdout.read(promised)  # while the input is open
        assert len(first) == promised
        process.stdin.write(samples[2 * RATE :].tobytes())
        process.stdin.close()
        whole = first + process.stdout.read()
        assert process.wait() == 0, process.stderr.read()
    file = io.BytesIO(whole)
    assert read_wav_header(file) == Format(48_000, 2, "s16")
    y_CxN = np.concatenate(list(read_blocks(io.BufferedReader(file), Format(48_000, 2, "s16"))), axis=1)
    model = FlashSR(load_model(weights))
    expected = list(model.stream([samples.T], RATE, channels=2, latency_ms=200))
    np.testing.assert_allclose(y_CxN, np.clip(np.concatenate(expected, axis=1), -1, 1), atol=1.01 / 32_768)


# ---- pipes


def test_bare_samples_are_of_every_encoding_that_a_wav_may_have():
    assert set(RAW) == set(BYTES)


@pytest.mark.parametrize(
    ("encoding", "subtype"), [("s16", "PCM_16"), ("s24", "PCM_24"), ("s32", "PCM_32"), ("f32", "FLOAT")]
)
def test_every_encoding_is_read_and_written_as_others_do(encoding, subtype, tmp_path):
    sf.write(tmp_path / "a.wav", X_CxN.T, RATE, subtype)
    with open(tmp_path / "a.wav", "rb") as file:
        form = read_wav_header(file)
        assert form == Format(RATE, 2, encoding, X_CxN.size * BYTES[encoding])
        x_CxN = np.concatenate(list(read_blocks(file, form)), axis=1)
    expected = sf.read(tmp_path / "a.wav", dtype="float32")[0].T
    np.testing.assert_array_equal(x_CxN, expected)
    whole = wav_header(form) + encoded(x_CxN, encoding)
    np.testing.assert_array_equal(sf.read(io.BytesIO(whole), dtype="float32")[0].T, expected)
    assert encoded(np.array([[2.0, -2.0]]), "s16") == struct.pack("<hh", 32_767, -32_768)


class Slow(io.RawIOBase):
    """A pipe that gives seven bytes at a time."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self.data.read(min(7, len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


def test_a_sample_that_comes_in_two_pieces_is_one():
    file = io.BufferedReader(Slow(wav_header(Format(RATE, 2, "s24")) + encoded(X_CxN[:, :100], "s24") + b"\x01"))
    blocks = list(read_blocks(file, read_wav_header(file)))
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), X_CxN[:, :100], atol=2.0**-23)


def test_a_wav_with_other_parts_before_its_samples_is_read():
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE, 0, "NONE", ""))
        writer.writeframes(b"\1\0\2\0")
    data = file.getvalue()
    data = data[:12] + struct.pack("<4sI", b"LIST", 3) + b"abc\0" + data[12:]
    assert read_wav_header(io.BytesIO(data)) == Format(RATE, 1, "s16", 4)


@pytest.mark.parametrize(
    ("kind", "length", "samples"),
    [
        ("WAV", None, 100),
        ("RF64", None, 100),
        ("WAV", 0, 108),  # of programs that did not know it: all that comes is sound
        ("WAV", 0x7FFF_F000, 108),
        ("WAV", 0xFFFF_FFFF, 108),
    ],
)
def test_what_follows_the_samples_of_a_wav_is_not_heard(kind, length, samples):
    written = io.BytesIO()
    sf.write(written, X_CxN[:1, :100].T, RATE, "PCM_16", format=kind)
    data = written.getvalue() + struct.pack("<4sI", b"LIST", 8) + bytes(8)
    if length is not None:
        start = data.index(b"data") + 4
        data = data[:start] + struct.pack("<I", length) + data[start + 4 :]
    file = io.BytesIO(data)
    assert sum(block.shape[1] for block in read_blocks(file, read_wav_header(file))) == samples
    assert not file.read()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends before its first sample"),
        (b"fLaC" + bytes(40), "standard input is no wav"),
        (wav_header(Format(RATE, 2, "s16"))[:30], "ends before its first sample"),
        (
            wav_header(Format(RATE, 2, "s16")).replace(b"fmt \x10\0\0\0\1\0", b"fmt \x10\0\0\0\6\0"),
            "format 6 of 16 bits",
        ),
        (wav_header(Format(RATE, 200, "s16")), "200 channels"),
    ],
)
def test_what_is_no_such_wav_is_refused(data, said):
    with pytest.raises(UserError, match=said):
        read_wav_header(io.BytesIO(data))


def test_what_is_no_wav_may_be_bare_samples(weights, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"fLaC" + bytes(40))))
    assert flashsr(["live", "--weights", str(weights)]) == 1
    said = capsys.readouterr().err
    assert said == "flashsr: standard input is no wav: for bare samples give --raw, --rate and --channels\n"


def test_bare_samples_need_a_rate_and_a_wav_does_not(capsys):
    assert flashsr(["live", "--raw", "s16"]) == 1
    assert "--raw s16: bare samples do not say their rate" in capsys.readouterr().err
    assert flashsr(["live", "--rate", "16000"]) == 1
    assert "a wav says its rate" in capsys.readouterr().err
