"""Recordings as people have them are read to their end, or refused with both lengths: the one reader of all words."""

import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.audio import files
from flashsr_jax.cli import main
from flashsr_jax.data.recording import Unusable, decode
from flashsr_jax.errors import UserError

from helpers.odd_recordings import KINDS, Kind, coded, mp3_frames, signal, wav


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@pytest.mark.parametrize("rate", [8000, 48_000])
def test_every_sample_is_read_or_the_loss_is_said(kind: Kind, rate, tmp_path, capfd):
    path = tmp_path / kind.name
    kind.make(path, rate)
    expected = signal(rate)
    if not kind.parts:
        with pytest.raises((UserError, sf.SoundFileError), match=kind.said):
            files.read(path)
        return
    with files.opened(path) as audio:
        y_CxN = np.concatenate(list(files.blocks(audio, 1000)), axis=1)
    assert audio.sample_rate == rate and kind.said in " ".join(audio.remarks)
    samples = kind.parts * len(expected)
    assert samples <= y_CxN.shape[1] <= samples + kind.more
    np.testing.assert_array_equal(files.read(path)[0], files.read(path)[0])  # the same bytes twice
    np.testing.assert_allclose(y_CxN, files.read(path)[0], atol=1e-6)  # however it is cut into blocks
    if not kind.more:  # coding takes from noise, but it stays where it was
        for part_N in y_CxN[0].reshape(kind.parts, -1):
            assert np.corrcoef(part_N, expected)[0, 1] > 0.5
    assert capfd.readouterr() == ("", "")  # no library writes on its own


def test_a_caf_of_apples_coding_is_read_by_pyav(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    x_N = (8000 * np.sin(np.arange(8 * 4096) / 9)).astype(np.int16)
    with av.open(str(tmp_path / "a.caf"), "w") as out:
        stream = out.add_stream("alac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(x_N[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    y_CxN, rate = files.read(tmp_path / "a.caf")
    assert rate == 16_000
    np.testing.assert_array_equal(y_CxN[0], x_N / np.float32(32_768))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"^caf of this coding is not read without PyAV: pip install"):
        files.read(tmp_path / "a.caf")


def test_hours_that_a_stream_leaves_out_take_no_memory(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mka"), "w", format="matroska") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        for hour in (0, 10):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, 8000 * 3600 * hour, Fraction(1, 8000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    tracemalloc.start()
    try:
        assert files.seconds(tmp_path / "a.mka") == pytest.approx(36_001, abs=0.1)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_an_mp3_without_a_header_has_all_its_frames(tmp_path):
    (kind,) = (kind for kind in KINDS if kind.name == "no_xing.mp3")
    kind.make(tmp_path / "a.mp3", 44_100)
    _, count = mp3_frames(coded(tmp_path / "b.mp3", 44_100, format="MP3", bitrate_mode="VARIABLE"))
    assert files.read(tmp_path / "a.mp3")[0].shape == (1, count * 1152)


@pytest.mark.parametrize("name", ["xing_more.mp3", "partial.mp3", "cut.opus", "two_rates.ogg", "empty.wav"])
def test_a_dataset_leaves_out_what_is_not_whole(name, tmp_path):
    (kind,) = (kind for kind in KINDS if kind.name == name)
    kind.make(tmp_path / name, 48_000)
    with pytest.raises(Unusable) as caught:
        decode(tmp_path / name, tmp_path / "samples", 16_000)
    assert caught.value.reason in ("cut short", "unreadable") and kind.said in caught.value.detail


@pytest.mark.parametrize("name", ["chained.ogg", "joined.flac", "length_0.wav", "pipe.flac"])
def test_a_dataset_has_all_of_it(name, tmp_path):
    (kind,) = (kind for kind in KINDS if kind.name == name)
    kind.make(tmp_path / name, 48_000)
    assert decode(tmp_path / name, tmp_path / "samples", 8_000).samples == kind.parts * len(signal(48_000))


def test_chunks_behind_the_audio_are_not_audio(tmp_path):
    path = tmp_path / "a.wav"
    for after in (b"LIST\x04\0\0\0INFO", b"TAG" + bytes(125), b"id3 \x06\0\0\0abcdef"):
        path.write_bytes(wav(8000, after=after))
        with files.opened(path) as audio:
            assert audio.remarks == [] and sum(b.shape[1] for b in files.blocks(audio)) == len(signal(8000))


def test_codings_that_are_not_read_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.wav").write_bytes(wav(8000, kind=0x45))
    with pytest.raises(UserError, match=r"G.726 \(format 0x0045 of wav\) is not read without PyAV"):
        files.read(tmp_path / "a.wav")
    (tmp_path / "b.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(100))
    with pytest.raises(UserError, match=r"m4a is not read without PyAV: pip install 'flashsr_jax\[av\]'"):
        files.read(tmp_path / "b.m4a")


@pytest.mark.parametrize(("suffix", "codec"), [("mka", "flac"), ("mp4", "aac")])
def test_what_is_missing_of_a_container_is_said(suffix, codec, tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=16_000, layout="mono")
        x = np.random.default_rng(0).normal(0, 0.1, (1, 64_000)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(
            np.int16(32_767 * x) if codec == "flac" else x, "s16" if codec == "flac" else "fltp", "mono"
        )
        frame.rate, frame.pts = 16_000, 0
        for packet in [*stream.encode(frame), *stream.encode()]:
            out.mux(packet)
    whole = path.read_bytes()
    assert files.read(path)[0].shape[1] == pytest.approx(64_000, abs=2048)
    path.write_bytes(whole[: len(whole) * 6 // 10])
    said = {
        "mka": r"is cut short: \d+ of 64000 samples could be read",
        "mp4": r"FFmpeg cannot read it as mp4 \(moov atom not found\)",
    }
    with pytest.raises(UserError, match=said[suffix]):
        files.read(path)


@pytest.mark.parametrize(("channels", "mask"), [(3, 0x0B), (4, 0x33), (6, 0x60F), (6, None)])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_masks_are_written_and_read(channels, mask, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    with files.writer(path, suffix, "16", channels, 480, files.Tags(), mask) as file:
        file.write(np.zeros((480, channels)))
    with files.opened(path) as audio:
        assert (audio.mask or None) == (mask or files.FLAC_MASKS[channels] if suffix == "flac" else mask)
    if suffix == "wav":
        assert path.read_bytes()[20:22] == b"\xfe\xff"  # WAVE_FORMAT_EXTENSIBLE


def test_channels_of_vorbis_are_brought_into_order(tmp_path):
    """Vorbis has the centre second, and the low frequencies last."""
    hz_C = np.array([40, 50, 60, 70, 80, 90])
    sf.write(tmp_path / "a.ogg", 0.2 * np.sin(2 * np.pi * hz_C * np.arange(48_000)[:, None] / 48_000), 48_000)
    y_CxN, _ = files.read(tmp_path / "a.ogg")
    assert np.abs(np.fft.rfft(y_CxN)).argmax(axis=1).tolist() == hz_C[[0, 2, 1, 5, 3, 4]].tolist()


BEGUN = {
    b"fLaC": "is a flac without a whole header",
    b"fLaC\0\0\0\x22" + bytes(20): "is a flac without a whole header",
    b"fLaC\1\0\0\x22" + bytes(99): "is a flac without a whole header",
    b"OggS": "is cut short: 23 bytes of its last page",
    b"OggS\0\2\0\0\0": "is cut short: 18 bytes of its last page",
    b"OggS\0\0" + bytes(21): "is an ogg in which no stream begins",
}


@pytest.mark.parametrize("content", BEGUN, ids=ascii)
def test_what_is_hardly_begun_is_one_line(tmp_path, content, capsys):
    path = tmp_path / "a.audio"
    path.write_bytes(content)
    assert main(["compare", str(path), str(path), "--reference", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: {path} {BEGUN[content]}")
