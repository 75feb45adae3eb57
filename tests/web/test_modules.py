"""The page's modules in Node beside the Python package: each computes what its counterpart does."""

import dataclasses
import functools
import json
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
import soxr

from flashsr_jax.audio.bands import Bands
from flashsr_jax.audio.bandwidth import BandwidthMeter
from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.audio.resampling import reach_hz
from flashsr_jax.exchange.graphs import contract
from flashsr_jax.models.pipeline import phase_noise_shape
from flashsr_jax.models.presets import preset
from flashsr_jax.upscale.stream import anchored_noise
from flashsr_jax.upscale.windows import framing, process_windows
from flashsr_jax.web.site import PAGE

from helpers import RECORDINGS

pytestmark = pytest.mark.slow
NODE = shutil.which("node")
MODULES = Path(__file__).parent / "modules.mjs"
SMALL = dataclasses.replace(preset("small"), dispersed=True)
WINDOW = framing(SMALL)
NOISES = [(0, 0, -6), (2**32 - 2, 1, 100_000), (1, 2, 0)]
RATES = (8000, 16000, 44100, 96000, 22254)
BANDS = {"hissy": (8000.0, 9000.0), "clean": (8000.0, 8000.0), "whole": (16000.0, 24000.0)}
CUTOFFS = (3400, 8000, 12000)
LENGTHS = (1, 1000, WINDOW.step, WINDOW.window + 30_000, 2 * WINDOW.step + 26_000)
SUBTYPES = {"PCM_U8": "WAV", "PCM_16": "WAV", "PCM_24": "WAVEX", "PCM_32": "RF64", "FLOAT": "WAV", "DOUBLE": "WAV"}
FILES = {"given.flac": 11025, "given.ogg": 22050, "given.mp3": 24000, "given.opus": 48000}


def decibels(error: np.ndarray, of: np.ndarray) -> float:
    return 20 * np.log10(np.abs(error).max() / np.abs(of).max() + 1e-12)


@functools.cache
def signals() -> dict[str, np.ndarray]:
    speech, rate = soundfile.read(RECORDINGS / "speech/kseniya-buraya/belarusian-1.ogg", dtype="float32")
    assert rate == 48000
    window, rng = speech[: WINDOW.window], np.random.default_rng(0)

    def cut(x: np.ndarray, hz: int) -> np.ndarray:
        return soxr.resample(soxr.resample(x, rate, 2 * hz), 2 * hz, rate)[: len(x)].astype(np.float32)

    pauses = np.sin(np.arange(len(window)) / 40_000) > 0
    hissy = pauses * cut(window, 8000) + 1e-3 * rng.normal(size=len(window))
    signals = {"speech": speech, "window": window, "frame": speech[48_000:49_680]}
    signals |= {"hissy": hissy, "clean": cut(window, 8000), "whole": window}
    signals |= {f"cut {hz}": cut(speech, hz) for hz in CUTOFFS}
    return {name: np.asarray(x, np.float32) for name, x in signals.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With what the modules made of the signals."""
    if not NODE:
        pytest.skip("needs node (Debian: nodejs)")
    folder = tmp_path_factory.mktemp("modules")
    for name, x in signals().items():
        x.astype("<f4").tofile(folder / name)
    for subtype, container in SUBTYPES.items():
        two_Nx2 = np.stack([signals()["frame"], -signals()["frame"]], 1)
        soundfile.write(folder / f"given {subtype}.wav", two_Nx2, 44100, subtype, format=container)
    for name, rate in FILES.items():
        options = {"format": "OGG", "subtype": "OPUS"} if name.endswith("opus") else {}
        soundfile.write(folder / name.replace(".", " ."), signals()["frame"], rate, **options)
    contract.write(folder, SMALL, {}, {name: {"inputs": {}} for name in ("encoder", "decoder")})
    about = json.loads((folder / "model.json").read_text())
    about["graphs"]["vocoder"] = {"inputs": {"mel": [], "waveform": [], "phase_noise": []}}
    about |= {"noises": [dict(zip(("seed", "index", "first"), noise, strict=True)) for noise in NOISES]}
    about |= {"bands": [{"name": n, "cutoff": cutoff, "end": end} for n, (cutoff, end) in BANDS.items()]}
    about |= {"rates": RATES, "cutoffs": CUTOFFS, "lengths": LENGTHS}
    (folder / "model.json").write_text(json.dumps(about))
    done = subprocess.run([NODE, MODULES, PAGE, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def output(folder: Path, name: str) -> np.ndarray:
    return np.fromfile(folder / f"{name}.out", "<f4")


def said(folder: Path) -> dict:
    return json.loads((folder / "said.json").read_text())


def test_fourier_transforms_there_and_back(folder):
    x = signals()["frame"]
    spectrum = np.fft.rfft(x)
    np.testing.assert_allclose(output(folder, "spectrum"), [*spectrum.real, *spectrum.imag], atol=1e-5)
    np.testing.assert_allclose(output(folder, "frame"), x, atol=1e-7)


@pytest.mark.parametrize(("seed", "index", "first"), NOISES)
def test_noise_is_that_of_jax(folder, seed, index, first):
    key = jax.random.split(jax.random.key(np.uint32(seed)), 3)[index]
    expected = anchored_noise(key, np.array([first]), (5, 3, 4)).ravel()
    np.testing.assert_allclose(output(folder, f"noise {seed} {index} {first}"), expected, rtol=1e-5, atol=1e-6)


def test_the_vocoder_gets_the_phases_of_its_window(folder):
    """The first window's, which begins with its context."""
    frames, values = phase_noise_shape(SMALL, WINDOW.window)
    first = -WINDOW.context // WINDOW.hop
    expected = anchored_noise(jax.random.split(jax.random.key(0), 3)[2], np.array([first]), (frames, values))
    assert said(folder)["phases"] == list(expected.shape)
    np.testing.assert_allclose(output(folder, "phases"), expected.ravel(), rtol=1e-5, atol=1e-6)


def test_the_log_mel_is_that_of_the_package(folder):
    expected = log_mel(signals()["window"][None], SMALL.vae.mel_bins).ravel()
    np.testing.assert_allclose(output(folder, "mel"), expected, atol=2e-3)


@pytest.mark.parametrize("rate", RATES)
def test_resampling_is_that_of_soxr(folder, rate):
    expected = soxr.resample(signals()["speech"], rate, 48000, "VHQ")
    got = output(folder, f"from {rate}")
    assert abs(len(got) - len(expected)) <= 1
    shared = slice(min(len(got), len(expected)))
    assert decibels(got[shared] - expected[shared], expected) < -60


def test_a_rate_reaches_as_high_as_in_the_package(folder):
    assert said(folder)["highest"] == pytest.approx([reach_hz(rate) for rate in RATES])


@pytest.mark.parametrize("name", BANDS)
def test_the_low_pass_the_floor_and_the_splice_are_those_of_the_package(folder, name):
    cutoff, end = BANDS[name]
    bands, x, y = Bands(cutoff, lowpass=True, keep_low_band=True, end_hz=end), signals()[name], signals()["window"]
    assert decibels(output(folder, f"before {name}") - bands.before(x), x) < -110
    assert decibels(output(folder, f"after {name}") - bands.after(x, y), y) < -110
    without = dataclasses.replace(bands, keep_low_band=False)
    assert np.array_equal(without.after(x, y), y) == (name != "hissy")


def test_the_bands_end_is_read_as_the_package_reads_it(folder):
    for cutoff, read in zip(CUTOFFS, said(folder)["bandwidth"], strict=True):
        meter = BandwidthMeter(48000)
        meter.update(signals()[f"cut {cutoff}"])
        assert read["cutoff"] == pytest.approx(meter.value(), rel=0.02)
        assert read["cutoff"] == pytest.approx(cutoff, rel=0.1)
        ends = [reading.end_hz for reading in meter.readings()]
        assert read["end"] == pytest.approx(np.quantile(ends, 0.8, method="higher"), rel=0.05)


@pytest.mark.parametrize("length", LENGTHS)
def test_windows_are_cut_and_joined_as_in_the_package(folder, length):
    x_CxN = np.stack([signals()["speech"][:length], np.full(length, 0.25, np.float32)])

    def turned_down(x_GxCxN: np.ndarray, _: np.ndarray) -> np.ndarray:
        mean = x_GxCxN.mean(-1, keepdims=True)
        return mean + 0.9 * (x_GxCxN - mean)

    expected = np.concatenate(list(process_windows(turned_down, [x_CxN], WINDOW, channels=2, group=1)), axis=1)
    np.testing.assert_allclose(output(folder, f"joined {length}"), expected.ravel(), atol=1e-5)


@pytest.mark.parametrize(("bits", "subtype"), [(16, "PCM_16"), (24, "PCM_24"), (32, "FLOAT")])
def test_wavs_that_are_written_are_read_by_libsndfile(folder, bits, subtype):
    info = soundfile.info(folder / f"wav {bits}.wav")
    assert (info.samplerate, info.channels, info.subtype) == (48000, 2, subtype)
    x_Nx2, _ = soundfile.read(folder / f"wav {bits}.wav")
    expected = signals()["frame"]
    np.testing.assert_allclose(x_Nx2, np.stack([expected, -expected], 1), atol=2.0**-bits if bits < 32 else 1e-9)


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_wavs_of_libsndfile_are_read(folder, subtype):
    name = f"given {subtype}.wav"
    assert said(folder)[name] == [44100, 2]
    expected, _ = soundfile.read(folder / name, dtype="float32")
    np.testing.assert_allclose(output(folder, name), expected.T.ravel(), atol=1e-7)


@pytest.mark.parametrize("name", FILES)
def test_other_files_rates_are_read_off_their_headers(folder, name):
    assert said(folder)[name.replace(".", " .")] == FILES[name]
