"""What a listener would notice, measured on real recordings with the model that comes along."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile as sf
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bands import Bands
from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.cli import main
from flashsr_jax.evaluate import metrics
from flashsr_jax.upscale.model import load_model
from flashsr_jax.upscale.stream import upscale
from flashsr_jax.upscale.windows import framing

from helpers import RECORDINGS

pytestmark = pytest.mark.training
CUTOFF_HZ = 4000.0
SPEECH, GUITAR, TABLA, HITS, PRINTER = (
    "speech/alsa-english/test.flac",
    "music/belofilms-guitar/test.flac",
    "music/lezaarth-tabla/test.flac",
    "effects/colombo-kit/hits.ogg",
    "effects/hullum-3d-printer/test.flac",
)


def recording(path: str, seconds: float = 30.0) -> np.ndarray:
    """First channel at 48 kHz."""
    x, rate = sf.read(RECORDINGS / path, dtype="float32", always_2d=True)
    return soxr.resample(x[:, 0], rate, SAMPLE_RATE, "VHQ")[: int(seconds * SAMPLE_RATE)]


def dull(x_N: np.ndarray, cutoff_hz: float = CUTOFF_HZ) -> np.ndarray:
    return simulate_low_resolution(x_N, LowpassFilter("cheby1", 8, cutoff_hz))


def band_levels_db(x_N: np.ndarray, low_hz: float, high_hz: float, block: int = 4800) -> np.ndarray:
    """Of each 100 ms, in a band."""
    edges = [low_hz, high_hz]
    band = scipy.signal.sosfiltfilt(scipy.signal.butter(6, edges, "bandpass", fs=SAMPLE_RATE, output="sos"), x_N)
    return 10 * np.log10(np.square(band[: len(band) // block * block].reshape(-1, block)).mean(axis=1) + 1e-12)


@pytest.fixture(scope="module")
def model():
    return load_model("small")


@pytest.fixture(scope="module")
def long(model):
    """Half a minute of speech, guitar, hits and a machine, joined: (input, output)."""
    x = dull(np.concatenate([recording(path) for path in (SPEECH, GUITAR, HITS, PRINTER, TABLA)]))
    return x, upscale(model, x, SAMPLE_RATE)


@pytest.mark.parametrize("rate", [4000, 8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000])
def test_length_time_and_low_band_are_the_inputs_at_every_rate(model, rate):
    cutoff_hz = min(CUTOFF_HZ, 0.45 * rate)
    x_48k = dull(recording(SPEECH, 3.001), cutoff_hz)
    x = soxr.resample(x_48k, SAMPLE_RATE, rate, "VHQ")
    for samples in (len(x), len(x) - 1):
        y = upscale(model, x[:samples], rate)
        assert len(y) == int(samples * SAMPLE_RATE / rate + 0.5)
    y, x_48k = (np.pad(z, (0, 48))[: len(x_48k)] for z in (y, x_48k))
    assert metrics.time_offset(x_48k, y, cutoff_hz) == 0
    assert abs(metrics.low_band_gain_db(x_48k, y, cutoff_hz)) < 0.1


@pytest.mark.parametrize("path", [SPEECH, GUITAR, HITS, PRINTER])
def test_the_low_band_keeps_its_gain_on_all_kinds_of_sound(model, path):
    x = dull(recording(path, 4.0))
    y = upscale(model, x, SAMPLE_RATE)
    assert abs(metrics.low_band_gain_db(x, y, CUTOFF_HZ)) < 0.1
    assert metrics.time_offset(x, y, CUTOFF_HZ) == 0
    assert band_levels_db(y, 5000, 12_000).mean() > band_levels_db(x, 5000, 12_000).mean() + 10  # there is a high band


def test_the_stereo_image_stays(model):
    """Two sounds panned to the sides and the middle: side to mid of the low band within 0.2 dB, as wide as it was."""
    a, b = (dull(recording(path, 4.0)) for path in (GUITAR, SPEECH))
    x = np.stack([0.8 * a + 0.3 * b, 0.2 * a + 0.3 * b])
    y = upscale(model, x, SAMPLE_RATE)
    ratios = []
    for left, right in (x, y):
        mid, side = (np.mean(10 ** (band_levels_db(z, 100, 3500) / 10)) for z in (left + right, left - right))
        ratios.append(10 * np.log10(side / mid))
    assert abs(ratios[1] - ratios[0]) < 0.2


def test_mono_in_two_channels_stays_mono(model):
    x = dull(recording(SPEECH, 6.0))
    left, right = upscale(model, np.stack([x, x]), SAMPLE_RATE)
    np.testing.assert_array_equal(left, right)


def flux_ranks_at(borders: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """For each border (a sample), the share of frames whose high band changes less than there. Spectral flux: from
    frame to frame of 10 ms, the mean change of the log power of bands of 1 kHz over 5 kHz."""
    frames_TxW = np.lib.stride_tricks.sliding_window_view(np.pad(y_N, 512), 1024)[::480]
    power_TxK = np.square(np.abs(np.fft.rfft(frames_TxW * np.hanning(1024))))[:, 107:506]
    band_TxF = np.log(power_TxK.reshape(len(power_TxK), 19, 21).mean(axis=2) + 1e-7)
    flux_T = np.abs(np.diff(band_TxF, axis=0)).mean(axis=1)
    near = [flux_T[border // 480 - 3 : border // 480 + 3].max() for border in borders]
    elsewhere = np.lib.stride_tricks.sliding_window_view(flux_T, 6).max(axis=1)
    return np.array([np.mean(elsewhere <= flux) for flux in near])


def test_window_borders_cannot_be_found(model, long):
    """Not in the output, but where there is one: a step of 6 dB in the high band at each border shows at once."""
    _, y = long
    frames = framing(model.config)
    borders = np.arange(frames.step + frames.crossfade // 2, len(y) - SAMPLE_RATE, frames.step)
    assert len(borders) >= 6
    ranks = flux_ranks_at(borders, y)
    assert ranks.max() < 0.999 and np.median(ranks) < 0.82, ranks
    high = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 5000, "high", fs=SAMPLE_RATE, output="sos"), y)
    louder = np.searchsorted(borders, np.arange(len(y))) % 2 == 1
    assert np.median(flux_ranks_at(borders, y + high * louder)) > 0.85


@pytest.mark.parametrize("path", [SPEECH, GUITAR, HITS])
def test_where_windows_begin_changes_little(model, path):
    """LSD between two framings of the same file; another file is far away."""
    x = dull(np.tile(recording(path), 3)[: 12 * SAMPLE_RATE])
    one, other = (upscale(model, x, SAMPLE_RATE, window_frames=frames) for frames in (512, 352))
    assert metrics.lsd(one, other) < 0.5
    assert metrics.lsd(one, x) > 1


def test_the_level_does_not_pump_between_windows(model):
    """A loud hit in one of several windows leaves the level of a quiet sound around it as it was."""
    quiet = np.tile(dull(recording(PRINTER)), 4)[: 16 * SAMPLE_RATE]
    quiet *= 0.05 / np.abs(quiet).max()
    hit = dull(recording(HITS, 2.0))[: SAMPLE_RATE // 2]
    x = quiet.copy()
    x[8 * SAMPLE_RATE : 8 * SAMPLE_RATE + len(hit)] += 0.9 * hit / np.abs(hit).max()
    given, got = (band_levels_db(z, 100, 3500) for z in (x, upscale(model, x, SAMPLE_RATE)))
    sounding = given > -80
    assert sounding.sum() > 100
    assert np.abs(got - given)[sounding].max() < 0.2


@pytest.mark.parametrize("path", [SPEECH, GUITAR, HITS, PRINTER])
def test_keep_low_band_puts_back_the_inputs_own(model, path):
    x = dull(recording(path, 4.0))
    y, kept = (upscale(model, x, SAMPLE_RATE, bands=b) for b in (None, Bands(CUTOFF_HZ, keep_low_band=True)))
    before, after = (metrics.low_band_si_sdr(x, z, 0.8 * CUTOFF_HZ) for z in (y, kept))
    assert after > max(50, before)
    highs = [band_levels_db(z, 5000, 12_000).mean() for z in (y, kept)]
    assert abs(highs[1] - highs[0]) < 0.5


@pytest.mark.parametrize("peak", ["limit", "keep"])
def test_full_scale_is_never_exceeded_in_silence(tmp_path, capfd, peak):
    """Recordings at full scale stay under it, or, if that is asked for, a line says by how much they were clipped."""
    for name, path in (("speech", SPEECH), ("hits", HITS)):
        x = dull(recording(path, 4.0))[::6]
        sf.write(tmp_path / f"{name}.wav", x / np.abs(x).max(), 8000, subtype="FLOAT")
    command = ["upscale", str(tmp_path / "*.wav"), "-o", f"{tmp_path}/out/", "--bit-depth", "24", "--json"]
    assert main([*command, "--peak", peak]) == 0
    out, err = capfd.readouterr()
    reports = list(map(json.loads, out.splitlines()))
    for report in reports:
        y, _ = sf.read(report["output"])
        said = f"{report['input']}: output exceeded full scale by {report['peak_db']:.2f} dB and was clipped" in err
        assert said == report["clipped"] == (report["peak_db"] > 0)
        assert (np.abs(y).max() > 0.999) == report["clipped"] or report["peak_db"] > -0.01
    assert any(report["clipped"] for report in reports) == (peak == "keep")


# ---- the command: how long, how much


def command(*arguments) -> tuple[float, int]:
    """Seconds and peak bytes of a successful `flashsr ARGUMENTS`; see test_published_size for the process between."""
    measured = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
    measured += "print(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    flashsr = [sys.executable, "-c", measured, sys.executable, "-m", "flashsr_jax", *map(str, arguments)]
    began = time.monotonic()
    done = subprocess.run(flashsr, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began, int(done.stdout.splitlines()[-1])


def write_stereo(path: Path, seconds: float) -> None:
    """8 kHz, from recordings said again and again."""
    a, b = (np.resize(dull(recording(name))[::6], int(seconds * 8000)) for name in (SPEECH, GUITAR))
    sf.write(path, np.stack([a + 0.3 * b, 0.3 * a + b], axis=1) * 0.5, 8000)


@pytest.fixture(scope="module")
def ten_seconds(tmp_path_factory) -> Path:
    """A clip, upscaled once, so that the compilation cache is warm."""
    folder = tmp_path_factory.mktemp("clip")
    sf.write(folder / "in.wav", np.resize(dull(recording(SPEECH))[::6], 80_000), 8000)
    _, peak = command("upscale", folder / "in.wav", "-o", folder / "first.wav")
    assert peak <= 2e9
    return folder


def test_ten_seconds_take_under_20_with_a_warm_cache(ten_seconds):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, _ = command("upscale", ten_seconds / "in.wav", "-o", ten_seconds / "second.wav")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{seconds:.1f} s, {processor:.1f} s of a processor")
    assert min(seconds, processor) < 20  # of a machine that others use, the processor's time
    first, second = ((ten_seconds / f"{name}.wav").read_bytes() for name in ("first", "second"))
    assert first == second


def assert_memory_does_not_grow(folder: Path, minutes: tuple[float, float], *options: str) -> None:
    peaks = []
    for length in minutes:
        write_stereo(folder / "in.wav", 60 * length)
        seconds, peak = command("upscale", folder / "in.wav", "-o", folder / "out.wav", "--overwrite", *options)
        print(f"{length} minutes of stereo: {seconds:.0f} s, {peak / 1e9:.3f} GB")
        assert sf.info(folder / "out.wav").frames == 60 * length * SAMPLE_RATE
        peaks.append(peak)
    assert max(peaks) <= 2e9
    assert max(peaks) / min(peaks) < 1.07  # of micro networks 29 MB; a copy of the output is 35 MB


def test_memory_does_not_grow_with_the_length(tmp_path, weights):
    """Of networks that take no time: what grows is what holds the audio. Compiled before, which takes memory, too."""
    write_stereo(tmp_path / "in.wav", 30)
    command("upscale", tmp_path / "in.wav", "-o", tmp_path / "out.wav", "--weights", weights)
    assert_memory_does_not_grow(tmp_path, (0.5, 2), "--weights", weights)


@pytest.mark.slow
def test_memory_of_5_and_20_minutes(tmp_path, ten_seconds):
    assert_memory_does_not_grow(tmp_path, (5, 20))
