"""`flashsr upscale` of recordings as people have them: odd names, pipes, errors, tags, films."""

import errno
import io
import itertools
import json
import os
import resource
import signal as signals
import struct
import subprocess
import sys
import threading
from collections import Counter
from fractions import Fraction
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile as sf
from matplotlib.figure import Figure
from mutagen import flac, id3, mp4

import flashsr_jax.upscale.files
from flashsr_jax.audio import files
from flashsr_jax.audio.chunks import chunks
from flashsr_jax.audio.pieces import Pieces
from flashsr_jax.errors import DEBUG

from helpers.odd_recordings import KINDS, signal, wav


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_odd_recordings(upscale):
    Path("in").mkdir()
    for kind in KINDS:
        kind.make(Path("in") / kind.name, 8000)
    names = [f"in/{kind.name}" for kind in KINDS]
    code, out, err = upscale(*names, "-o", "out/", "--json", "--format", "flac", "--overwrite", "--cutoff", "3000")
    reports = {report["input"]: report for report in map(json.loads, out)}
    assert code == 1 and len(reports) == len(KINDS)
    for kind in KINDS:
        report = reports[f"in/{kind.name}"]
        if kind.parts and "was just made" not in report.get("error", ""):
            assert len(signal(8000)) * kind.parts <= report["seconds"] * report["sample_rate"]
            assert any(kind.said in remark for remark in report["remarks"] or [""])
            assert report["left_out"] == []  # they have no tags, whatever their headers look like
        else:
            assert kind.said in report["error"] or "was just made" in report["error"]
    assert all(line.startswith(("flashsr: in/", "flashsr: ")) for line in err)


def test_an_unforeseen_error_is_one_line_and_debug_shows_where(upscale, monkeypatch):
    for name in "abc":
        Path(f"{name}.wav").write_bytes(wav(8000))
    before = flashsr_jax.upscale.files.survey

    def survey(path, *options):
        if path.name == "b.wav":
            raise IndexError("index 7 is out of bounds\nand more")
        return before(path, *options)

    monkeypatch.setattr(flashsr_jax.upscale.files, "survey", survey)
    code, _, err = upscale("a.wav", "b.wav", "c.wav", "-o", "out/")
    assert (code, err) == (1, ["flashsr: b.wav: IndexError: index 7 is out of bounds (--debug shows where)"])
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.wav", "c.wav"]
    monkeypatch.setenv(DEBUG, "1")  # what --debug sets
    _, _, err = upscale("b.wav", "-o", "out/", "--debug")
    assert err[0] == "Traceback (most recent call last):" and err[-1].startswith("flashsr: b.wav: IndexError")


def _while_libsndfile_reads(monkeypatch, happens, number: int = 5) -> None:
    """Let something happen in the Python code that libsndfile calls, where its own code has taken time."""
    before, calls = Pieces.readinto, itertools.count()

    def readinto(self, buffer):
        if next(calls) == number:
            happens()
        return before(self, buffer)

    monkeypatch.setattr(Pieces, "readinto", readinto)


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_ctrl_c_is_heard_while_libsndfile_reads(upscale, monkeypatch, name):
    sf.write(name, np.random.default_rng(0).uniform(-0.1, 0.1, 80_000), 8000)
    _while_libsndfile_reads(monkeypatch, lambda: signals.raise_signal(signals.SIGINT))
    assert upscale(name, "-o", "b.wav") == (130, [], ["flashsr: interrupted"])
    assert not list(Path().glob("*b.wav"))
    _while_libsndfile_reads(monkeypatch, lambda: signals.raise_signal(signals.SIGTERM))
    with pytest.raises(SystemExit) as told:
        upscale(name, "-o", "b.wav")
    assert told.value.code == 128 + signals.SIGTERM


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_a_disk_that_fails_is_said(upscale, monkeypatch, name):
    sf.write(name, np.random.default_rng(0).uniform(-0.1, 0.1, 80_000), 8000)

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before, calls = os.pread, itertools.count()
    monkeypatch.setattr(os, "pread", lambda *of: fails() if next(calls) >= 5 else before(*of))
    assert upscale(name, "-o", "b.wav") == (1, [], [f"flashsr: {name}: Input/output error"])


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_disk_that_is_full_before_the_end_leaves_no_broken_output(upscale, suffix):
    """The last frame of a flac is written when the file is closed; tags come after that."""
    sf.write("a.flac", np.random.default_rng(0).uniform(-0.1, 0.1, 1000), 8000)
    file = flac.FLAC("a.flac")
    file["comment"] = ["c" * 6000]
    file.save()
    output = Path(f"b.{suffix}")
    assert upscale("a.flac", "-o", str(output)) == (0, [], [])
    x_CxN, _ = files.read(output)
    size, codes = output.stat().st_size, Counter()
    for limit in range(max(4000, size - 20_000), size, 800):
        output.write_bytes(b"as it was")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            code, _, (line,) = upscale("a.flac", "-o", str(output), "--overwrite")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        codes[code] += 1
        if code:
            assert "is the disk full?" in line
            assert output.read_bytes() == b"as it was"
        else:
            np.testing.assert_array_equal(files.read(output)[0], x_CxN)
            assert line == "flashsr: a.flac: not carried over: tags (they cannot be written: File too large)"
    assert codes[0] and codes[1] and not list(Path().glob(".*"))


def test_names_that_are_not_utf8(upscale):
    name = os.fsdecode(b"caf\xe9.wav")
    Path(name).write_bytes(wav(8000))
    Path("z.wav").write_bytes(wav(8000))
    code, out, err = upscale(name, "z.wav", "-o", "out/", "--json")
    assert (code, err) == (0, []) and sf.info(os.fsencode(f"out/{name}")).frames == 6 * len(signal(8000))
    assert json.loads(out[0])["output"] == f"out/{name}"


def test_names_that_a_terminal_would_obey_are_one_line(upscale):
    name, missing = "a\n\x1b[2J\u3000b.wav", "c\nflashsr: d.wav"
    Path(name).write_bytes(wav(8000)[:100])
    said = r"flashsr: a\n\x1b[2J" + "\u3000b.wav: is cut short: 56 of "
    code, out, err = upscale(name, missing, "-o", "out/", "--json")
    assert (
        code == 1
        and len(err) == 2
        and err[0].startswith(said)
        and err[1] == r"flashsr: c\nflashsr: d.wav: no such file"
    )
    assert [json.loads(line)["input"] for line in out] == [name, missing]
    assert upscale(name, "-o", "x\n.ogg")[2] == [
        r"flashsr: -o x\n.ogg: end its name in .wav or .flac, or give a folder"
    ]


def test_pipes_with_names(upscale):
    os.mkfifo("pipe")
    feeder = threading.Thread(target=lambda: Path("pipe").write_bytes(wav(8000)))
    feeder.start()
    assert upscale("pipe", "-o", "out.wav") == (0, [], [])
    feeder.join()
    assert sf.info("out.wav").frames == 6 * len(signal(8000))
    assert upscale("/dev/null", "-o", "no.wav")[2] == ["flashsr: /dev/null: is neither a file nor a pipe"]


@pytest.mark.training
def test_what_comes_from_pipes_and_goes_to_them(weights):
    """Process substitution's /dev/fd, /dev/stdin, an empty input, and a reader that leaves."""
    command = [str(Path(sys.executable).with_name("flashsr")), "upscale", "--weights", weights]
    silent = wav(8000)[:44] + bytes(2 * len(signal(8000)))  # which is only resampled
    done = subprocess.run([*command, "/dev/stdin", "-o", "a.wav"], input=silent, capture_output=True)
    assert (done.returncode, done.stderr[:28]) == (0, b"flashsr: /dev/stdin: silent,") and sf.info(
        "a.wav"
    ).frames == 6 * len(signal(8000))
    done = subprocess.run([*command, "-"], input=b"", capture_output=True, text=False)
    assert (done.returncode, done.stderr) == (1, b"flashsr: standard input: is empty\n")
    process = subprocess.Popen([*command, "-"], stdin=-1, stdout=-1, stderr=-1)
    process.stdout.close()
    process.stdin.write(silent)
    process.stdin.close()
    assert process.stderr.read() == b"flashsr: standard input: Broken pipe\n" and process.wait() == 1


TEXTS = {
    "title": ["Abc \u2713"],
    "artist": ["A", "B second artist"],
    "albumartist": ["AA"],
    "composer": ["CC"],
    "comment": ["side one"],
    "tracknumber": ["3/12"],
    "discnumber": ["2"],
    "date": ["1987-05"],
    "replaygain_track_gain": ["-3.1 dB"],
    "musicbrainz_trackid": ["00000000-0000-0000-0000-000000000000"],
    "musicbrainz_albumid": ["00000000-0000-0000-0000-000000000001"],
}
COVER = b"\x89PNG\r\n\x1a\n" + bytes(99)


def _tag_flac(path: str) -> None:
    file = flac.FLAC(path)
    for name, values in TEXTS.items():
        file[name] = values
    picture = flac.Picture()
    picture.type, picture.mime, picture.data = 3, "image/png", COVER
    file.add_picture(picture)
    file.save()


def _tag_mp3(path: str) -> None:
    tags = id3.ID3()
    for name, frame in (("title", "TIT2"), ("artist", "TPE1"), ("albumartist", "TPE2"), ("composer", "TCOM")):
        tags.add(getattr(id3, frame)(encoding=3, text=TEXTS[name]))
    for name, frame in (("tracknumber", "TRCK"), ("discnumber", "TPOS"), ("date", "TDRC")):
        tags.add(getattr(id3, frame)(encoding=3, text=TEXTS[name]))
    tags.add(id3.COMM(encoding=3, lang="eng", desc="", text=TEXTS["comment"]))
    tags.add(id3.TXXX(encoding=3, desc="REPLAYGAIN_TRACK_GAIN", text=TEXTS["replaygain_track_gain"]))
    tags.add(id3.TXXX(encoding=3, desc="MusicBrainz Album Id", text=TEXTS["musicbrainz_albumid"]))
    tags.add(id3.UFID(owner="http://musicbrainz.org", data=TEXTS["musicbrainz_trackid"][0].encode()))
    tags.add(id3.APIC(encoding=3, mime="image/png", type=3, desc="", data=COVER))
    tags.add(id3.PCNT(count=7))
    tags.save(path)


@pytest.mark.parametrize(("source", "tag", "lost"), [("a.flac", _tag_flac, []), ("a.mp3", _tag_mp3, ["PCNT"])])
def test_tags_go_from_one_container_to_the_other(upscale, source, tag, lost):
    sf.write(source, signal(8000), 8000)
    tag(source)
    for target in ("b.flac", "b.wav"):
        code, out, err = upscale(source, "-o", target, "--json")
        assert code == 0 and json.loads(out[0])["left_out"] == lost
        assert err == [f"flashsr: {source}: not carried over: {name}" for name in lost]
    got = flac.FLAC("b.flac")
    assert {name: got[name] for name in TEXTS} == TEXTS and got.pictures[0].data == COVER
    assert upscale("b.wav", "-o", "c.flac", "--cutoff", "3000")[0] == 0  # and back from the wav
    got = flac.FLAC("c.flac")
    assert {name: got[name] for name in TEXTS} == TEXTS and got.pictures[0].data == COVER


def _id3() -> bytes:
    tags = id3.ID3()
    tags.add(id3.TIT2(encoding=3, text="Grandma's tape"))
    content = io.BytesIO()
    tags.save(content)
    return content.getvalue()


def _comment(path: str, **texts: str) -> None:
    file = flac.FLAC(path)
    file.update(texts)
    file.save()


def _chunk(path: str, content: bytes, order: str = "<") -> None:
    with open(path, "ab") as file:
        file.write(struct.pack(f"{order}4sI", b"id3 ", len(content)) + content)


def test_tags_are_read_by_what_a_file_is_not_by_its_name(upscale):
    sf.write("mp3.wav", signal(8000), 8000, format="MP3")
    Path("mp3.wav").write_bytes(_id3() + Path("mp3.wav").read_bytes())
    sf.write("flac.mp3", signal(8000), 8000, format="FLAC")
    _comment("flac.mp3", title="Grandma's tape")
    for name, kind in (("rifx.wav", "WAV"), ("rf64.wav", "RF64"), ("aiff.wav", "AIFF")):
        sf.write(name, signal(8000), 8000, "PCM_16", format=kind, endian="BIG" if name == "rifx.wav" else None)
        _chunk(name, _id3(), "<" if kind == "RF64" else ">")
    names = ["mp3.wav", "flac.mp3", "rifx.wav", "rf64.wav", "aiff.wav"]
    assert upscale(*names, "-o", "out/", "--format", "flac", "--cutoff", "3000") == (0, [], [])
    for name in names:
        assert flac.FLAC(Path("out", name).with_suffix(".flac"))["title"] == ["Grandma's tape"], name


def _with_chunks(path: str, order: str, *added: tuple[bytes, bytes]) -> None:
    """Chunks behind the audio, inside the file's whole."""
    data = Path(path).read_bytes()
    data += b"".join(
        struct.pack(f"{order}4sI", name, len(content)) + content + bytes(len(content) % 2) for name, content in added
    )
    Path(path).write_bytes(data[:4] + struct.pack(f"{order}I", len(data) - 8) + data[8:])


LONG = "side one " * 2000


def test_texts_of_wav_and_aiff_without_id3_are_read_whatever_their_letters_and_length(upscale):
    """libsndfile knows ten of INFO's names, texts under 2 KB and the letters of UTF-8, and opens no aiff with longer
    ones than 8 KB."""
    texts = (
        *((b"INAM", "Café".encode("cp1252")), (b"IART", "Björk".encode()), (b"ICMT", LONG.encode())),
        *(
            (b"IENG", b"E"),
            (b"IKEY", b"a; b"),
            (b"ITRK", b"3"),
            (b"ISFT", b"Lavf"),
            (b"IARL", b"shelf 7"),
            (b"IGNR", b""),
        ),
    )
    info = b"INFO" + b"".join(
        struct.pack("<4sI", name, len(text) + 1) + text + bytes(1 + (len(text) + 1) % 2) for name, text in texts
    )
    sf.write("a.wav", signal(8000), 8000)
    _with_chunks("a.wav", "<", (b"LIST", info))
    sf.write("b.aiff", signal(8000), 8000)
    title = "Café".encode("mac-roman")
    more = (b"ANNO", LONG.encode()), (b"ANNO", b"and more")
    _with_chunks("b.aiff", ">", (b"NAME", title), (b"AUTH", "Björk".encode()), *more)
    code, _, err = upscale("a.wav", "b.aiff", "-o", "out/", "--format", "flac", "--cutoff", "3000")
    assert (code, err) == (0, ["flashsr: a.wav: not carried over: IARL"])
    common = {"title": ["Café"], "artist": ["Björk"]}
    of_the_wav = {"comment": [LONG.strip()], "engineer": ["E"], "keywords": ["a; b"], "tracknumber": ["3"]}
    assert dict(flac.FLAC("out/a.flac").tags.as_dict()) == common | of_the_wav
    assert dict(flac.FLAC("out/b.flac").tags.as_dict()) == common | {"comment": [LONG.strip(), "and more"]}


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_id3_comes_before_the_same_in_fewer_letters(upscale, name):
    sf.write(name, signal(8000), 8000)
    order, short = ("<", (b"LIST", b"INFOINAM\x08\0\0\0Grandma\0")) if name == "a.wav" else (">", (b"NAME", b"Grandma"))
    _with_chunks(name, order, short, (b"id3 " if name == "a.wav" else b"ID3 ", _id3()))
    assert upscale(name, "-o", "b.flac", "--cutoff", "3000") == (0, [], [])
    assert flac.FLAC("b.flac")["title"] == ["Grandma's tape"]


@pytest.mark.parametrize(
    ("name", "chunk"),
    [("a.wav", (b"smpl", bytes(70_000))), ("a.wav", (b"PEAK", b"")), ("a.aiff", (b"COMT", b"x" * 10))],
)
def test_chunks_that_libsndfile_fails_at_cost_no_sound(upscale, name, chunk):
    sf.write(name, signal(8000), 8000)
    _with_chunks(name, "<" if name == "a.wav" else ">", chunk)
    data = Path(name).read_bytes()
    if chunk[0] == b"smpl":  # fails where it comes before the audio
        added = len(chunk[1]) + 8
        Path(name).write_bytes(data[:36] + data[-added:] + data[36:-added])
    with pytest.raises(sf.LibsndfileError):
        sf.SoundFile(name)
    code, _, err = upscale(name, "-o", "b.wav", "--cutoff", "3000")
    assert code == 0 and sf.info("b.wav").frames == 6 * len(signal(8000)), err


def test_tags_that_cannot_be_carried_are_said_in_plain_words(upscale):
    sf.write("a.wav", signal(8000), 8000)
    _chunk("a.wav", b"no tags at all")
    sf.write("b.mp3", signal(8000), 8000)
    Path("b.mp3").write_bytes(b"ID3\x09" + _id3()[4:] + Path("b.mp3").read_bytes())  # a version that there is not
    sf.write("c.flac", signal(8000), 8000)
    _comment("c.flac", title="C", metadata_block_picture="AAAA")
    sf.write("d.mp3", signal(8000), 8000)
    tags = id3.ID3(io.BytesIO(_id3()))
    tags.add(id3.TXXX(encoding=3, desc="a=b", text="c"))
    tags.save("d.mp3")
    names = ["a.wav", "b.mp3", "c.flac", "d.mp3"]
    code, _, err = upscale(*names, "-o", "out/", "--format", "flac", "--cutoff", "3000")
    damaged = "tags (damaged, or of an unknown kind)"
    lost = [damaged, damaged, "cover (damaged)", "a=b"]
    said = [f"flashsr: {name}: not carried over: {what}" for name, what in zip(names, lost, strict=True)]
    assert (code, err) == (0, said)
    assert flac.FLAC("out/c.flac")["title"] == ["C"]
    assert flac.FLAC("out/d.flac")["title"] == ["Grandma's tape"]


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_bext_and_cue_points_move_with_the_rate(upscale, rate):
    bext = bytes(338) + struct.pack("<QH", 8000 * 3600, 1) + bytes(254)
    cue = struct.pack("<III4sIII", 1, 1, 8000, b"data", 0, 0, 8000)
    label = b"adtl" + b"labl" + struct.pack("<II", 12, 1) + b"Verse 1\0"
    region = struct.pack("<4sII", b"ltxt", 20, 1)
    of_the_region = struct.pack("<4sHHHH", b"rgn ", 0, 0, 0, 0)
    after = b"".join(
        name + struct.pack("<I", len(content)) + content
        for name, content in (
            (b"bext", bext),
            (b"cue ", cue),
            (b"LIST", label + region + struct.pack("<I", 8000) + of_the_region),
            (b"iXML", b"<a/>"),
        )
    )
    Path("a.wav").write_bytes(wav(8000, after=after))
    code, out, err = upscale("a.wav", "-o", "b.wav", "--json", "--out-rate", str(rate))
    assert code == 0 and err == ["flashsr: a.wav: not carried over: iXML"]
    data = Path("b.wav").read_bytes()
    found = {chunk.name: data[chunk.start : chunk.start + chunk.length] for chunk in chunks(data, len(data))}
    assert struct.unpack_from("<Q", found[b"bext"], 338) == (rate * 3600,)
    assert struct.unpack("<III4sIII", found[b"cue "]) == (1, 1, rate, b"data", 0, 0, rate)
    assert found[b"LIST"] == label + region + struct.pack("<I", rate) + of_the_region
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    code, out, _ = upscale("a.wav", "-o", "b.flac", "--json")
    assert code == 0 and json.loads(out[0])["left_out"] == ["iXML", "bext", "cue", "LIST"]


@pytest.mark.parametrize("samples", [1, 2, 5, 10])
def test_a_handful_of_samples(upscale, samples):
    sf.write("a.wav", signal(8000)[:samples], 8000)
    code, _, err = upscale("a.wav", "-o", "b.wav")
    assert code == 0 and sf.info("b.wav").frames == 6 * samples
    assert not any("--debug" in line for line in err)


def test_masks_of_channels_are_kept(upscale):
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (8000, 6))
    sf.write("a.wav", x, 8000, format="WAVEX")
    data = bytearray(Path("a.wav").read_bytes())
    data[40:44] = struct.pack("<I", 0x60F)  # 5.1 with side speakers
    Path("a.wav").write_bytes(data)
    assert upscale("a.wav", "-o", "b.wav") == (0, [], [])
    assert Path("b.wav").read_bytes()[40:44] == struct.pack("<I", 0x60F)
    assert upscale("a.wav", "-o", "b.flac")[0] == 0
    assert mutagen.File("b.flac")["WAVEFORMATEXTENSIBLE_CHANNEL_MASK"] == ["0x60f"]


def film(path: str, seconds: float = 2.0, start: float = 0.5, title: str = "bars", codec: str = "mpeg4") -> None:
    """A film of moving bars whose sound, 16 kHz, begins `start` seconds after the pictures with a click."""
    av = pytest.importorskip("av")
    with av.open(path, "w") as out:
        out.metadata["title"] = title
        video = out.add_stream(codec, rate=25)
        video.pix_fmt = {"png": "rgb24"}.get(codec, "yuv420p")
        video.width = video.height = 64
        sound = out.add_stream("flac", rate=16_000, layout="mono")
        for number in range(int(seconds * 25)):
            picture = np.full((64, 64, 3), number, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture)))
        out.mux(video.encode())
        x = np.zeros(int(seconds * 16_000), np.int16)
        x[:800] = 8000 * np.sin(np.arange(800))
        frame = av.AudioFrame.from_ndarray(x[None], format="s16", layout="mono")
        frame.rate, frame.pts = 16_000, int(start * 16_000)
        out.mux(sound.encode(frame))
        out.mux(sound.encode())


def test_the_sound_of_a_film(upscale):
    av = pytest.importorskip("av")
    film("a.mkv")
    assert upscale("a.mkv", "-o", "b.wav", "--cutoff", "7000") == (0, [], [])
    assert sf.info("b.wav").frames == 96_000
    code, _out, err = upscale("a.mkv", "-o", "b.mkv", "--cutoff", "7000", "--json")
    assert (code, err) == (0, []), err
    with av.open("a.mkv") as before, av.open("b.mkv") as after:
        pictures = [
            [(float(p.pts * p.time_base), bytes(p)) for p in file.demux(video=0) if p.size] for file in (before, after)
        ]
        assert pictures[0] == pictures[1] and len(pictures[0]) == 50
    with av.open("b.mkv") as after:
        frame = next(after.decode(audio=0))
        assert frame.sample_rate == 48_000 and frame.time == pytest.approx(0.5, abs=0.01)
        assert np.abs(frame.to_ndarray()).max() > 0
    sf.write("c.wav", signal(8000), 8000)
    code, _, (line,) = upscale("c.wav", "-o", "c.mkv")
    assert (
        code == 1
        and line == "flashsr: c.wav: there is no video in it to put into c.mkv: end the output's name in .wav or .flac"
    )


def _remuxed(path: str, target: str, second: str, cover: bytes = b"") -> None:
    """A film with a second sound, which is coded so, languages, chapters, and a font and a cover attached."""
    av = pytest.importorskip("av", "16")
    with av.open(path) as source, av.open(target, "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        copies[1].metadata.update(language="eng", title="Original")
        other = out.add_stream(second, rate=16_000, layout="mono")
        other.metadata.update(language="fra", title="Version fran\xe7aise")
        other.disposition = av.stream.Disposition.dub
        if cover:
            chapter = {"start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "First"}}
            out.set_chapters([{"id": 1, **chapter}])
            out.add_attachment("a.ttf", "font/ttf", b"letters")
            out.add_attachment("cover.png", "image/png", cover)
        x = (8000 * np.sin(np.arange(32_000) / 9)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(x[None], format="s16", layout="mono")
        frame.rate, frame.pts = 16_000, 0
        packets = [*other.encode(frame), *other.encode()]
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
        out.mux(packets)


def _around(path: str) -> dict:
    """What a film has beside its pictures and its first sound."""
    av = pytest.importorskip("av", "16")
    with av.open(path) as film:
        other = film.streams.audio[1]
        packets = [(packet.pts * packet.time_base, bytes(packet)) for packet in film.demux(other) if packet.size]
        return {
            "tags": [{name: s.metadata.get(name) for name in ("language", "title")} for s in film.streams.audio],
            "roles": [stream.disposition for stream in film.streams],
            "chapters": [(c["start"] * c["time_base"], c["metadata"]) for c in film.chapters()],
            "files": [(s.name, s.mimetype, s.data) for s in film.streams if s.type == "attachment"],
            "other": packets,
        }


def test_a_film_keeps_all_but_its_first_sound(upscale):
    film("a.mkv")
    picture = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(picture, format="png")
    _remuxed("a.mkv", "b.mkv", "flac", picture.getvalue())
    code, _, err = upscale("b.mkv", "-o", "c.mkv", "--cutoff", "7000")
    assert (code, err) == (0, ["flashsr: b.mkv: the first of 2 audio streams was taken"])
    before, after = _around("b.mkv"), _around("c.mkv")
    assert after == before
    assert len(before["other"]) > 3 and len(before["files"]) == len(before["chapters"]) == 1
    assert picture.getvalue() in Path("c.mkv").read_bytes()


def test_what_matroska_does_not_hold_is_said(upscale):
    film("a.mkv", start=0.0)
    _remuxed("a.mkv", "b.avi", "pcm_alaw")
    code, _, err = upscale("b.avi", "-o", "c.mkv", "--cutoff", "7000")
    said = ["the first of 2 audio streams was taken", "not carried over: audio (pcm_alaw)"]
    assert code == 0 and set(err) == {f"flashsr: b.avi: {line}" for line in said}
    film("d.avi", codec="png")
    code, _, err = upscale("d.avi", "-o", "e.mkv", "--cutoff", "7000")
    line = "flashsr: d.avi: matroska holds no video (png): end the output's name in .wav or .flac"
    assert (code, err) == (1, [line]) and not Path("e.mkv").exists()


def test_the_tempo_of_an_m4a(upscale):
    av = pytest.importorskip("av")
    with av.open("a.m4a", "w", format="ipod") as out:
        stream = out.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 8000), 0.1, np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    file = mp4.MP4("a.m4a")
    file["tmpo"] = [128]
    file.save()
    assert upscale("a.m4a", "-o", "b.flac", "--cutoff", "3000") == (0, [], [])
    assert flac.FLAC("b.flac")["bpm"] == ["128"]


def test_a_film_whose_title_is_not_utf_8(upscale):
    film("a.mkv", title="un cafe")
    Path("a.mkv").write_bytes(Path("a.mkv").read_bytes().replace(b"un cafe", b"un caf\xe9"))
    assert upscale("a.mkv", "-o", "b.flac", "--cutoff", "7000") == (0, [], [])
    assert mutagen.File("b.flac")["title"] == ["un caf\N{REPLACEMENT CHARACTER}"]
    assert upscale("a.mkv", "-o", "b.mkv", "--cutoff", "7000")[0] == 0
    assert b"un caf\xe9" in Path("b.mkv").read_bytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_nothing_that_is_not_finite_is_written(upscale, monkeypatch, value, suffix):
    """A whole number at full scale would be written in its place."""

    def broken(model, blocks, sample_rate, **options):
        for block in blocks:
            wide = np.repeat(block, 48_000 // sample_rate, axis=1)
            wide[:, -1] = value
            yield wide

    monkeypatch.setattr(flashsr_jax.upscale.files, "upscale_stream", broken)
    Path("a.wav").write_bytes(wav(8000))
    code, _, err = upscale("a.wav", "-o", f"out.{suffix}", "--cutoff", "3000")
    assert code == 1 and f"the output out.{suffix} would hold samples that are not finite" in err[0]
    assert not Path(f"out.{suffix}").exists()
