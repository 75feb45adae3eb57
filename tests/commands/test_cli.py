"""The `flashsr` command on real files, in folders of its own."""

import dataclasses
import re
import resource
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile as sf

import flashsr_jax.upscale.files
from flashsr_jax import FlashSR
from flashsr_jax.audio.bands import Bands
from flashsr_jax.cli import main
from flashsr_jax.upscale.stream import Settings
from flashsr_jax.weights.store import NETWORKS, load_weights, save_weights

from helpers.micro_model import MICRO, micro_params

COMMAND = str(Path(sys.executable).with_name("flashsr"))


@pytest.fixture(scope="module")
def params() -> dict:
    return micro_params()


@pytest.fixture(scope="module")
def weights(params, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_weights(path, MICRO, params)
    return str(path)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_networks(monkeypatch):
    """Repeat samples instead of running the networks: for tests of what happens around them."""

    def repeat(model, blocks, sample_rate, **options):
        return (np.repeat(block, 48_000 // sample_rate, axis=1) for block in blocks)

    monkeypatch.setattr(flashsr_jax.upscale.files, "upscale_stream", repeat)


def record(path: str, samples: int = 4000, channels: int = 1, sample_rate: int = 8000, level: float = 0.1, **options):
    x = np.random.default_rng(len(path)).uniform(-level, level, size=(samples, channels))
    Path(path).parent.mkdir(exist_ok=True, parents=True)
    sf.write(path, x, sample_rate, **options)
    return sf.read(path, dtype="float32", always_2d=True)[0].T


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def error_lines(capsys) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


# ---- the command itself


def test_help_imports_nothing_heavy_and_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([COMMAND, "upscale", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "--weights" in result.stdout
    assert after.ru_utime - before.ru_utime < 0.5  # of processor time: other tests run beside this one
    probe = "import sys, flashsr_jax.cli; print({'jax', 'numpy', 'soundfile'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout == "set()\n"


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert re.fullmatch(r"flashsr \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["upscale"],
        ["upscale", "in.wav", "--cutoff", "20"],
        ["upscale", "in.wav", "--cutoff", "high"],
        ["upscale", "in.wav", "--high-band-gain", "nan"],
        ["upscale", "in.wav", "--format", "mp3"],
        ["upscale", "in.wav", "--bit-depth", "8"],
        ["upscale", "in.wav", "--batch", "0"],
        ["upscale", "in.wav", "-o", "o.wav", "--weights", "w", "--steps", "0"],
        ["upscale", "in.wav", "-o", "o.wav", "--weights", "w", "--seed", "-1"],
        ["upscale", "in.wav", "-o", "o.wav", "--weights", "w", "--seed", "x"],
        ["data"],
        ["weights", "pack", "--vae", "a"],
        ["evaluate", "--data", "a", "-o", "b", "--seconds", "nan"],
        ["evaluate", "--data", "a", "-o", "b", "--seconds", "0"],
        ["evaluate", "--data", "a", "-o", "b", "--seconds", "0.5"],
        ["evaluate", "--data", "a", "-o", "b", "--teacher-guidance", "-1"],
        ["evaluate", "--data", "a", "-o", "b", "--teacher-guidance", "speech=1,music=2"],
        ["evaluate", "--data", "a", "-o", "b", "--teacher-steps", "50,"],
        ["evaluate", "--data", "a", "-o", "b", "--model", "model.safetensors"],
        ["data", "build", "a", "--out", "b", "--min-bandwidth", "inf"],
        ["plan", "--devices", "8"],
        ["data", "encode", "--config", "vae:tiny", "--out", "latents", "--windows", "0"],
        ["benchmark", "train"],
        ["runs", "folder", "--config.seed=1"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: flashsr" in capsys.readouterr().err


# ---- upscale, with micro networks


def test_a_file_becomes_what_upscale_makes_of_it(weights, capfd):
    x = record("talk.wav", 4001, subtype="PCM_16")
    assert main(["upscale", "talk.wav", "-o", "wide.wav", "--weights", weights, "--seed", "5"]) == 0
    assert capfd.readouterr() == ("", "")
    info = sf.info("wide.wav")
    assert (info.samplerate, info.frames, info.channels, info.subtype) == (48_000, 24_006, 1, "PCM_24")
    y = sf.read("wide.wav", dtype="float32")[0]
    expected = FlashSR.load(weights)(x[0], 8000, seed=5)
    np.testing.assert_allclose(y, expected, atol=1e-3 * np.abs(expected).max())
    assert files() == ["talk.wav", "wide.wav"]


def test_many_files_and_a_bad_one(weights, capsys):
    record("in/stereo.flac", 22_051, 2, 44_100)
    record("in/mono.ogg", 16_000, 1, 16_000)
    record("in/six.wav", 3_000, 6, 11_025, subtype="FLOAT")
    Path("in/notes.txt").write_text("not audio at all")
    sources = ["in/stereo.flac", "in/notes.txt", "in/mono.ogg", "in/six.wav"]
    assert main(["upscale", *sources, "-o", "out", "--weights", weights]) == 1
    full_band, unreadable = error_lines(capsys)
    assert full_band.startswith("flashsr: in/stereo.flac: full band already (22.1 kHz), only resampled")
    assert unreadable.startswith("flashsr: in/notes.txt: cannot be read as audio")
    got = {name: sf.info(name) for name in files() if name.startswith("out/")}
    assert {name: (i.samplerate, i.frames, i.channels, i.subtype) for name, i in got.items()} == {
        "out/stereo.wav": (48_000, 24_001, 2, "PCM_24"),
        "out/mono.wav": (48_000, 48_000, 1, "PCM_24"),
        "out/six.wav": (48_000, 13_061, 6, "FLOAT"),
    }


# ---- what happens around the networks


def test_options_reach_the_networks(weights, monkeypatch):
    seen = {}

    def look(model, blocks, sample_rate, **options):
        seen.update(options, sample_rate=sample_rate)
        return iter([np.zeros((3, 6), np.float32)])

    monkeypatch.setattr(flashsr_jax.upscale.files, "upscale_stream", look)
    record("a.wav", 4000, 3)
    options = ["--steps", "4", "--seed", "9", "--batch", "2", "--dtype", "bfloat16"]
    assert main(["upscale", "a.wav", "-o", "b.wav", "--weights", weights, *options]) == 0
    settings = Settings(seed=9, steps=4, batch=2, dtype="bfloat16")
    assert (seen["channels"], seen["sample_rate"]) == (3, 8000) and 0.9 < seen["settings"].ceiling < 1
    assert all(bands.lowpass for channel in seen["settings"].bands.parts for _, bands in channel)
    assert dataclasses.replace(seen["settings"], bands=None, ceiling=None) == settings
    assert all(bands.keep_low_band for channel in seen["settings"].bands.parts for _, bands in channel)
    options = ["--cutoff", "3000", "--lowpass", "--no-keep-low-band", "--high-band-gain", "-3"]
    assert main(["upscale", "a.wav", "-o", "c.wav", "--weights", weights, *options]) == 0
    bands = Bands(3000.0, lowpass=True, high_band_gain_db=-3.0)
    assert dataclasses.replace(seen["settings"], ceiling=None) == Settings(bands=bands)
    assert main(["upscale", "a.wav", "-o", "d.wav", "--weights", weights, "--no-lowpass", "--peak", "keep"]) == 0
    assert seen["settings"].ceiling is None
    assert not any(bands.lowpass for channel in seen["settings"].bands.parts for _, bands in channel)


def test_folders_are_made_and_a_slash_means_a_folder(weights, no_networks):
    record("a.wav")
    assert main(["upscale", "a.wav", "-o", "deep/er/", "--weights", weights]) == 0
    assert main(["upscale", "a.wav", "-o", "deep", "--weights", weights]) == 0
    assert main(["upscale", "a.wav", "-o", "deep/b.wav", "--weights", weights]) == 0
    assert main(["upscale", "a.wav", "-o", "v1.2", "--weights", weights]) == 0
    assert files() == ["a.wav", "deep/a.wav", "deep/b.wav", "deep/er/a.wav", "v1.2/a.wav"]


def test_outputs_are_never_silently_replaced(weights, no_networks, capsys):
    record("a.wav")
    record("old.wav", 7)
    before = Path("old.wav").read_bytes()
    command = ["upscale", "a.wav", "-o", "old.wav", "--weights", weights]
    assert main(command) == 1
    assert error_lines(capsys) == [
        "flashsr: a.wav: the output old.wav exists: choose another -o, or give --overwrite or --skip-existing"
    ]
    assert Path("old.wav").read_bytes() == before
    assert main([*command, "--overwrite"]) == 0
    assert sf.info("old.wav").frames == 24_000


def test_an_input_is_never_replaced(weights, no_networks, capsys):
    record("a.wav")
    before = Path("a.wav").read_bytes()
    assert main(["upscale", "a.wav", "-o", ".", "--weights", weights, "--overwrite"]) == 1
    assert error_lines(capsys) == ["flashsr: a.wav: the output a.wav is the input itself: choose another -o"]
    assert Path("a.wav").read_bytes() == before


def test_two_inputs_of_one_name(weights, no_networks, capsys):
    record("x/a.wav")
    record("y/a.flac")
    assert main(["upscale", "x/a.wav", "y/a.flac", "-o", "out", "--weights", weights, "--overwrite"]) == 1
    (line,) = error_lines(capsys)
    assert line == "flashsr: y/a.flac: out/a.wav is the output of x/a.wav: give the two different folders"
    assert files() == ["out/a.wav", "x/a.wav", "y/a.flac"]


def no_such_file():
    return "a.wav: no such file"


def a_folder():
    Path("a.wav").mkdir()
    return "a.wav: is a folder: give -r"


def nothing_in_it():
    Path("a.wav").write_bytes(b"")
    return "a.wav: is empty"


def no_samples():
    record("a.wav", 0)
    return "a.wav: has no samples"


def cut_short():
    record("a.flac", 100_000)
    Path("a.wav").write_bytes(Path("a.flac").read_bytes()[:60_000])
    Path("a.flac").unlink()
    return "a.wav: is cut short|a.wav: cannot be read"


def not_a_number():
    sf.write("a.wav", np.array([0.0, np.nan, 0.0] * 100), 8000, subtype="FLOAT")
    return "a.wav: sample 1 of channel 1 is nan"


def three_kilohertz():
    record("a.wav", sample_rate=3000)
    return "a.wav: the sample rate is 3000 Hz"


def output_in_a_file():
    record("a.wav")
    record("out", format="WAV")
    return "a.wav: out: File exists|a.wav: out: Not a directory"


@pytest.mark.parametrize(
    "bad",
    [no_such_file, a_folder, nothing_in_it, no_samples, cut_short, not_a_number, three_kilohertz, output_in_a_file],
)
def test_bad_input_is_one_line_and_leaves_nothing(bad, weights, capsys):
    reason = bad()
    before = files()
    assert main(["upscale", "a.wav", "-o", "out/b.wav", "--weights", weights]) == 1
    (line,) = error_lines(capsys)
    assert re.match("|".join(f"flashsr: {one}" for one in reason.split("|")), line)
    assert files() == before


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["a.wav"], "b.mp3", "flashsr: -o b.mp3: end its name in .wav or .flac, or give a folder"),
        (["a.wav"], "b.m4a", "flashsr: -o b.m4a: end its name in .wav or .flac, or give a folder"),
        (["a.wav", "--format", "flac"], "b.wav", "flashsr: -o b.wav: end its name in .flac, or give a folder"),
        (["a.wav", "a.wav"], "-", "flashsr: -o -: takes one output, but there are 2 inputs: give a folder"),
        (["a.wav", "--json"], "-", "flashsr: standard output holds the audio: --json, --spectrogram and --skip-"),
        (["a.wav", "--skip-existing"], "-", "flashsr: standard output holds the audio: --json"),
        (["-", "--shard", "1/2"], "b.wav", "flashsr: standard input is one input and has no shards"),
        (["-", "a.wav"], None, "flashsr: standard input goes to standard output and is upscaled alone"),
        (["a.wav", "--device", "tpu"], "b.wav", "flashsr: --device tpu: there is none here; there is cpu"),
        (["a.wav", "a.wav"], "a.wav", "flashsr: -o a.wav: is a file, but there are 2 inputs: give a folder"),
    ],
)
def test_impossible_outputs(inputs, output, message, weights, capsys):
    record("a.wav")
    assert main(["upscale", *inputs, *(["-o", output] if output else []), "--weights", weights]) == 1
    (line,) = error_lines(capsys)
    assert line.startswith(message)
    assert files() == ["a.wav"]


def test_bad_weights(params, capsys):
    record("a.wav")
    save_weights("unet.safetensors", MICRO, {"unet": params["unet"]})
    for path, message in (("none", "no weights file at none"), ("a.wav", "a.wav is not a safetensors file")):
        assert main(["upscale", "a.wav", "-o", "b.wav", "--weights", path]) == 1
        assert error_lines(capsys)[0].startswith(f"flashsr: {message}")
    assert main(["upscale", "a.wav", "-o", "b.wav", "--weights", "unet.safetensors"]) == 1
    assert "unet.safetensors has no vae, vocoder, scale_factor" in error_lines(capsys)[0]


def test_clipping_is_said_and_floats_are_kept(weights, monkeypatch, capsys):
    monkeypatch.setattr(
        flashsr_jax.upscale.files, "upscale_stream", lambda model, blocks, *_, **__: (2 * block for block in blocks)
    )
    x = record("a.wav", level=0.9)
    record("b.wav", level=0.9, subtype="FLOAT")
    assert main(["upscale", "a.wav", "b.wav", "-o", "out", "--weights", weights, "--peak", "keep"]) == 0
    excess = 20 * np.log10(2 * np.abs(x).max())
    lost, over = error_lines(capsys)
    assert lost == f"flashsr: a.wav: output exceeded full scale by {excess:.2f} dB and was clipped"
    assert over.startswith("flashsr: b.wav: output exceeds full scale by ") and over.endswith("a file of floats keeps")
    clipped, kept = sf.read("out/a.wav")[0][: x.shape[1]], sf.read("out/b.wav")[0]
    np.testing.assert_allclose(clipped, np.clip(2 * x[0], -1, 1), atol=1e-6)
    assert np.abs(kept).max() > 1.5


def test_a_full_disk_is_said_and_leaves_nothing(weights, no_networks, capsys):
    record("a.wav", 100_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        assert main(["upscale", "a.wav", "-o", "b.wav", "--weights", weights]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = error_lines(capsys)
    assert line.startswith("flashsr: a.wav: the output b.wav cannot be written (is the disk full?)")
    assert files() == ["a.wav"]


def test_progress_on_a_terminal_only(weights, no_networks, monkeypatch, capsys):
    record("a.wav", 300_000)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["upscale", "a.wav", "-o", "b.wav", "--weights", weights]) == 0
    err = capsys.readouterr().err
    assert "flashsr: running on cpu" in err
    assert re.search(r"\[1/1\] a\.wav   44 %  \d+:\d\d left", err)
    assert err.endswith("[1/1] a.wav  -> b.wav\n")


def test_an_interrupt_leaves_nothing(weights, monkeypatch, capsys):
    def interrupted(model, blocks, *_, **__):
        yield next(blocks)
        raise KeyboardInterrupt

    monkeypatch.setattr(flashsr_jax.upscale.files, "upscale_stream", interrupted)
    record("a.wav")
    assert main(["upscale", "a.wav", "-o", "b.wav", "--weights", weights]) == 130
    assert error_lines(capsys) == ["flashsr: interrupted"]
    assert files() == ["a.wav"]


# ---- data and weights


def test_data_build_reports_its_errors_in_one_line(capsys):
    assert main(["data", "build", "nowhere", "--out", "set"]) == 1
    (line,) = error_lines(capsys)
    assert line.startswith("flashsr: ") and "nowhere" in line
    assert main(["data", "build", "--tfds", "vctk=birds", "--out", "set"]) == 1
    assert "vctk=birds" in error_lines(capsys)[0]
    assert files() == []


def test_weights_pack_joins_networks(params):
    save_weights("vae.safetensors", MICRO, {"vae": params["vae"], "scale_factor": params["scale_factor"]})
    for name in ("unet", "vocoder"):
        save_weights(f"{name}.safetensors", MICRO, {name: params[name]})
    sources = [f"--{name}={name}.safetensors" for name in NETWORKS]
    assert main(["weights", "pack", *sources, "-o", "model.safetensors", "--dtype", "bfloat16"]) == 0
    assert load_weights("model.safetensors", required=NETWORKS).config == MICRO
    assert Path("model.safetensors").stat().st_size < 0.6 * sum(
        Path(f"{n}.safetensors").stat().st_size for n in NETWORKS
    )


def test_weights_pack_of_one_network_for_another_machine(params, capsys):
    save_weights("model.safetensors", MICRO, params)
    assert main(["weights", "pack", "--unet=model.safetensors", "-o", "unet.safetensors"]) == 0
    packed = load_weights("unet.safetensors", required=("unet",))
    assert set(packed.params) == {"unet"} and packed.config == MICRO
    assert main(["upscale", "in.wav", "-o", "out.wav", "--weights", "unet.safetensors"]) == 1
    assert "has no vae" in error_lines(capsys)[0]
    assert main(["weights", "pack", "-o", "none.safetensors"]) == 1
    assert "give a vae, unet or vocoder" in error_lines(capsys)[0]
    assert files() == ["model.safetensors", "unet.safetensors"]


def test_weights_pack_of_the_mean_of_several(params, capsys):
    save_weights("one.safetensors", MICRO, {"unet": params["unet"]})
    save_weights("other.safetensors", MICRO, {"unet": jax.tree.map(lambda x: x + 2.0, params["unet"])})
    assert main(["weights", "pack", "--unet", "one.safetensors", "other.safetensors", "-o", "mean.safetensors"]) == 0
    mean = load_weights("mean.safetensors", required=("unet",)).params["unet"]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y + 1.0, atol=1e-6), mean, params["unet"])
    assert main(["weights", "pack", "--unet", "one.safetensors", "small", "-o", "none.safetensors"]) == 1
    assert "they have no mean" in error_lines(capsys)[0]
