"""What a listener does with `flashsr upscale`: files of all kinds in, names, tags, formats, pictures, reports."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.audio.pictures import spectrogram_db, stream_spectrogram_db

COMMAND = str(Path(sys.executable).with_name("flashsr"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(path: str, samples: int = 8000, channels: int = 1, sample_rate: int = 8000, tags=None, **options) -> None:
    Path(path).parent.mkdir(exist_ok=True, parents=True)
    x = np.random.default_rng(len(path)).uniform(-0.1, 0.1, size=(samples, channels))
    with sf.SoundFile(path, "w", sample_rate, channels, **options) as file:
        for name, value in (tags or {}).items():
            setattr(file, name, value)
        file.write(x)


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


# ---- names


def test_outputs_lie_beside_their_inputs_and_are_not_taken_for_inputs(upscale):
    record("music/a.wav")
    record("music/deep/b.flac")
    record("music/.hidden/c.wav")
    Path("music/cover.jpg").write_bytes(b"picture")
    assert upscale("-r", "music")[0] == 0
    made = ["music/a-48k.wav", "music/deep/b-48k.wav"]
    assert files() == sorted([*made, "music/.hidden/c.wav", "music/a.wav", "music/cover.jpg", "music/deep/b.flac"])
    code, _, (over, *err) = upscale("-r", "music")
    assert over == "flashsr: music: passed over: 1 jpg, 2 made here before"
    assert code == 1 and [line.split(": ")[2] for line in err] == [f"the output {name} exists" for name in made]
    assert upscale("-r", "music", "--overwrite") == (0, [], [over])


def test_folders_keep_their_tree_under_the_output(upscale):
    record("music/a.wav")
    record("music/deep/a.wav")
    assert upscale("-r", "music", "-o", "out", "--format", "flac") == (0, [], [])
    assert [name for name in files() if name.startswith("out")] == ["out/a.flac", "out/deep/a.flac"]


def test_patterns(upscale):
    for name in ("a1.wav", "a2.wav", "b.wav", "deep/a3.wav"):
        record(name)
    assert upscale("a?.wav", "-o", "out/")[0] == 0
    assert upscale("**/a3*", "-o", "out2/")[0] == 0
    assert [name for name in files() if "out" in name] == ["out/a1.wav", "out/a2.wav", "out2/a3.wav"]
    record("c[1].wav")  # a file of that name is no pattern
    assert upscale("c[1].wav", "-o", "out3/")[0] == 0 and Path("out3/c[1].wav").is_file()


# ---- formats


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "PCM_U8"}),
        ("a.wav", {"subtype": "DOUBLE"}),
        ("a.flac", {"subtype": "PCM_16"}),
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {"sample_rate": 16_000}),
        ("a.aiff", {"subtype": "PCM_24"}),
        ("a.aifc", {"format": "AIFF", "subtype": "FLOAT"}),
    ],
)
def test_all_kinds_of_files_are_read(upscale, name, options):
    record(name, 16_000, 2, **options)
    assert upscale(name, "-o", "b.wav") == (0, [], [])
    info = sf.info("b.wav")
    rate = options.get("sample_rate", 8000)
    assert (info.samplerate, info.channels) == (48_000, 2) and info.frames == 16_000 * 48_000 // rate


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["-o", "b.wav"], ("WAV", "PCM_24")),
        (["-o", "b.wav", "--bit-depth", "16"], ("WAV", "PCM_16")),
        (["-o", "b.wav", "--bit-depth", "float"], ("WAV", "FLOAT")),
        (["-o", "b.flac"], ("FLAC", "PCM_24")),
        (["-o", "b.flac", "--bit-depth", "16"], ("FLAC", "PCM_16")),
    ],
)
def test_formats_and_depths(upscale, arguments, kind):
    record("a.wav", subtype="PCM_16")
    assert upscale("a.wav", *arguments) == (0, [], [])
    info = sf.info(arguments[1])
    assert (info.format, info.subtype) == kind
    x, y = sf.read("a.wav")[0], sf.read(arguments[1])[0]
    np.testing.assert_allclose(y[::6], x, atol=2**-15)


def test_a_file_of_floats_is_the_same_whenever_it_is_written(upscale):
    record("a.wav", subtype="FLOAT")
    assert upscale("a.wav", "-o", "b.wav") == (0, [], [])
    first = Path("b.wav").read_bytes()
    assert b"PEAK" in first[:100]
    time.sleep(1.1)  # libsndfile's clock has seconds
    assert upscale("a.wav", "-o", "b.wav", "--overwrite") == (0, [], [])
    assert Path("b.wav").read_bytes() == first


def test_floats_become_a_flac_of_24_bits(upscale):
    record("a.wav", subtype="FLOAT")
    assert upscale("a.wav", "-o", "b.flac") == (0, [], [])
    assert sf.info("b.flac").subtype == "PCM_24"


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("source", ["a.flac", "a.wav", "a.ogg"])
def test_tags_are_carried_over(upscale, source, suffix):
    tags = {"title": "Über dem Meer", "artist": "Nobody", "album": "None", "date": "2020", "genre": "noise"}
    record(source, tags=tags | {"software": "an encoder"})
    assert upscale(source, "-o", f"b.{suffix}") == (0, [], [])
    with sf.SoundFile(f"b.{suffix}") as file:
        got = file.copy_metadata()
    assert tags.items() <= got.items() and "an encoder" not in got.get("software", "")


@pytest.mark.training
def test_standard_input_to_standard_output(weights):
    record("a.wav", 12_000, 2)
    command = [COMMAND, "upscale", "-", "--weights", weights]
    done = subprocess.run(command, input=Path("a.wav").read_bytes(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    y, rate = sf.read(io.BytesIO(done.stdout))
    assert rate == 48_000 and y.shape == (72_000, 2) and np.abs(y).max() > 0
    assert subprocess.run([*command[:2], "a.wav", "-o", "b.wav", *command[3:]]).returncode == 0
    np.testing.assert_array_equal(sf.read("b.wav")[0], y)


# ---- what is upscaled


def test_full_band_files_and_silence_are_only_resampled_and_that_is_said(upscale):
    record("full.wav", 44_100, 2, 44_100)
    sf.write("silent.wav", np.zeros(8000), 8000)
    code, _, err = upscale("full.wav", "silent.wav", "-o", "out")
    assert code == 0
    assert err == [
        "flashsr: full.wav: full band already (22.1 kHz), only resampled; --cutoff HZ upscales it all the same",
        "flashsr: silent.wav: silent, only resampled; --cutoff HZ upscales it all the same",
    ]
    x, y = sf.read("full.wav")[0], sf.read("out/full.wav")[0]
    assert len(y) == 48_000 and 0.9 < np.std(y) / np.std(x) < 1.1
    assert not sf.read("out/silent.wav")[0].any() and sf.info("out/silent.wav").frames == 48_000


def test_a_given_cutoff_is_not_detected(upscale):
    record("full.wav", 48_000, 1, 48_000)
    assert upscale("full.wav", "-o", "b.wav", "--cutoff", "8000") == (0, [], [])
    np.testing.assert_array_equal(sf.read("b.wav")[0], sf.read("full.wav")[0])  # the stand-in repeats: factor 1


def test_the_report_in_json(upscale):
    record("low.wav", 16_000)
    Path("bad.wav").write_bytes(b"nothing")
    code, out, err = upscale("low.wav", "bad.wav", "-o", "out/", "--json")
    good, bad = map(json.loads, out)
    assert code == 1 and len(err) == 1
    assert bad == {"input": "bad.wav", "error": err[0].removeprefix("flashsr: bad.wav: ")}
    assert good.pop("elapsed") > 0 and -21 < good.pop("peak_db") <= -20
    assert good == {
        "input": "low.wav",
        "output": "out/low.wav",
        "model": {"vae": "micro.safetensors", "unet": "regression, step 7", "vocoder": "micro.safetensors"},
        "sample_rate": 8000,
        "channels": 1,
        "seconds": 2.0,
        "cutoff_hz": 4000,
        "passed_through": False,
        "high_band_db": None,  # of networks that are not there
        "added": True,
        "stretches": [{"channel": 1, "start": 0.0, "end": 2.0, "cutoff_hz": 4000, "passed_through": False}],
        "limited_db": 0.0,
        "turned_down_db": 0.0,
        "clipped": False,
        "remarks": [],
        "left_out": [],
    }


# ---- pictures


def test_a_picture_of_before_and_after(upscale):
    record("a.wav", 40_000, 2)
    assert upscale("a.wav", "-o", "b.wav", "--spectrogram") == (0, [], [])
    assert Path("b.png").read_bytes().startswith(b"\x89PNG") and files() == ["a.wav", "b.png", "b.wav"]


@pytest.mark.parametrize("samples", [0, 1, 5000, 48_000])
@pytest.mark.parametrize("hop", [256, 3001])
def test_a_spectrogram_of_blocks_is_that_of_the_whole(samples, hop):
    x = np.random.default_rng(0).normal(size=samples)
    whole = spectrogram_db(x, hop)
    padded = np.pad(x, 1024, mode="constant")
    padded = np.pad(padded, (0, 2048))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    expected = [
        np.abs(np.fft.rfft(padded[k : k + 2048] * window)) * 2 / window.sum() for k in range(0, max(1, samples), hop)
    ]
    np.testing.assert_allclose(whole, 20 * np.log10(np.maximum(np.array(expected).T, 1e-10)), atol=1e-6)
    blocks = (x[k : k + 700] for k in range(0, samples, 700))
    np.testing.assert_allclose(stream_spectrogram_db(blocks, hop), whole, atol=1e-6)


# ---- what cannot be done: one line, the others go on, nothing half-written


def _chunk(name: bytes, data: bytes, length: int | None = None) -> bytes:
    return name + (len(data) if length is None else length).to_bytes(4, "little") + data


def _wav(samples: bytes, length: int | None = None, channels: int = 1, rate: int = 8000, bits: int = 16) -> bytes:
    block = channels * bits // 8
    kind = b"\x01\x00" + channels.to_bytes(2, "little") + rate.to_bytes(4, "little")
    kind += (rate * block).to_bytes(4, "little") + block.to_bytes(2, "little") + bits.to_bytes(2, "little")
    body = b"WAVE" + _chunk(b"fmt ", kind) + _chunk(b"data", samples, length)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _cut(path: str, share: float) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])


def _bad_sample(value: float, subtype: str = "FLOAT"):
    def make(path):
        x = np.full((900, 2), 0.1)
        x[700, 1] = value
        sf.write(path, x, 8000, subtype=subtype)

    return make


def _of(name: str, **options):
    """A recording under a name, then called a.wav."""

    def make(path):
        record(name, **options)
        Path(name).replace(path)

    return make


def _truncated(name: str, share: float, **options):
    def make(path):
        _of(name, samples=80_000, **options)(path)
        _cut(path, share)

    return make


BAD = {
    "nothing there": (lambda path: None, "no such file"),
    "a folder": (os.mkdir, "is a folder: give -r"),
    "a dangling link": (lambda path: Path(path).symlink_to("nowhere"), "no such file"),
    "a link to itself": (lambda path: Path(path).symlink_to(path), "no such file"),
    "empty": (lambda path: Path(path).write_bytes(b""), "is empty"),
    "one byte": (lambda path: Path(path).write_bytes(b"R"), "cannot be read as audio"),
    "text": (lambda path: Path(path).write_text("not audio at all\n" * 99), "cannot be read as audio"),
    "a picture": (lambda path: Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(999)), "cannot be read as audio"),
    "zeros": (lambda path: Path(path).write_bytes(bytes(4000)), "cannot be read as audio"),
    "a zip": (lambda path: Path(path).write_bytes(b"PK\x03\x04" + bytes(999)), "cannot be read as audio"),
    "a header alone": (lambda path: Path(path).write_bytes(_wav(b"")[:30]), "cannot be read as audio"),
    "no samples": (lambda path: Path(path).write_bytes(_wav(b"")), "has no samples"),
    "no data chunk": (lambda path: Path(path).write_bytes(_wav(bytes(99))[:36]), "cannot be read as audio"),
    "no channels": (lambda path: Path(path).write_bytes(_wav(bytes(99), channels=0)), "cannot be read as audio"),
    "no rate": (lambda path: Path(path).write_bytes(_wav(bytes(99), rate=0)), "cannot be read as audio|sample rate"),
    "no bits": (lambda path: Path(path).write_bytes(_wav(bytes(99), bits=0)), "cannot be read as audio"),
    "flac without samples": (_of("b.flac", samples=0), "is empty|has no samples"),
    "wav cut in half": (_truncated("b.wav", 0.5), "is cut short: 79978 of 160000 bytes"),
    "wav cut by 200 bytes": (lambda path: Path(path).write_bytes(_wav(bytes(800), 1000)), "is cut short: 800 of 1000"),
    "flac cut in half": (_truncated("b.flac", 0.5), "is cut short|cannot be read"),
    "flac cut in its header": (_truncated("b.flac", 0.0002), "is a flac without a whole header"),
    "aiff cut in half": (_truncated("b.aiff", 0.5), "is cut short|cannot be read"),
    "ogg cut in its header": (_truncated("b.ogg", 0.001), "is cut short"),
    "mp3 cut in its first frame": (_truncated("b.mp3", 0.005), "cut short or damaged: not one frame of it can be read"),
    "mp3 of noise": (
        lambda path: Path(path).write_bytes(b"\xff\xfb\x90\x00" * 2),
        "cannot be read as audio|no samples",
    ),
    "nan": (_bad_sample(np.nan), "sample 700 of channel 2 is nan: repair the input"),
    "infinity": (_bad_sample(np.inf), "sample 700 of channel 2 is inf: repair the input"),
    "minus infinity in doubles": (_bad_sample(-np.inf, "DOUBLE"), "sample 700 of channel 2 is -inf"),
    "no level of sound": (_bad_sample(3e20), "sample 700 of channel 2 is 3"),
    "too large for a float": (_bad_sample(1e300, "DOUBLE"), "sample 700 of channel 2 is inf"),
    "3 kHz": (_of("b.wav", sample_rate=3000), "the sample rate is 3000 Hz; super-resolution needs 4000 Hz or more"),
    "2 GHz": (
        _of("b.wav", sample_rate=2**31 - 1),
        "the sample rate is 2147483647 Hz, over 768000 Hz: repair the header",
    ),
    "1 Hz": (_of("b.wav", sample_rate=1), "the sample rate is 1 Hz"),
    "200 channels": (_of("b.wav", channels=200), "has 200 channels; up to 64 can be upscaled"),
    "a device": (lambda path: Path(path).symlink_to("/dev/null"), "is neither a file nor a pipe"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_one_line_and_the_others_go_on(upscale, bad):
    make, reason = BAD[bad]
    make("a.wav")
    record("z.wav")
    before = files()
    code, out, err = upscale("a.wav", "z.wav", "-o", "out")
    assert (code, out, len(err)) == (1, [], 1), err
    assert err[0].startswith("flashsr: a.wav: ") and any(one in err[0] for one in reason.split("|")), err
    assert files() == sorted([*before, "out/z.wav"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.wav", "-o", "/dev/full"], "-o /dev/full: is no folder: end its name in .wav or .flac"),
        (["a.wav", "-o", "taken/b.wav"], "taken"),
        (["nine.wav", "-o", "b.flac"], "flac holds 8 channels, not 9: take wav"),
        (["a.wav", "-o", "b.flac", "--bit-depth", "float"], "flac holds no floats: take 24 bits, or wav"),
        (["a.wav", "-o", "folder.wav"], "folder.wav"),
        (["-r", "nothing"], "has no audio files in it"),
        (["*.nothing"], "no file has such a name"),
    ],
)
def test_bad_outputs_are_one_line_and_leave_nothing(upscale, arguments, reason):
    record("a.wav")
    record("nine.wav", 800, 9)
    Path("taken").write_text("a file")
    Path("nothing").mkdir()
    Path("folder.wav/a.wav").mkdir(parents=True)
    before = files()
    code, out, err = upscale(*arguments)
    assert (code, out, len(err)) == (1, [], 1) and reason in err[0], err
    assert files() == before


@pytest.mark.training
def test_a_full_device_is_said(weights):
    record("a.wav")
    with Path("/dev/full").open("wb") as full:
        command = [COMMAND, "upscale", "a.wav", "-o", "-", "--weights", weights]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.startswith("flashsr: a.wav: No space left on device"), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.training
def test_ctrl_c_leaves_nothing(weights):
    """The signal itself, in the middle of an output."""
    record("a.wav", 8000 * 600)
    record("b.wav")
    before = files()
    command = [COMMAND, "upscale", "a.wav", "b.wav", "-o", "out/", "--weights", weights]

    def hears_interrupts():  # what a shell starts in the background ignores them, tests too
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_interrupts)  # noqa: PLW1509
    began = time.monotonic()
    while not any(path.stat().st_size > 100_000 for path in Path("out").glob(".*.part.wav")):
        assert process.poll() is None and time.monotonic() - began < 300
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "flashsr: interrupted\n" and process.returncode == 130
    assert files() == before
