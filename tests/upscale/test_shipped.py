"""The model that comes along: within its limits, and sound on signals whose right output is known."""

import csv
import dataclasses

import numpy as np
import pytest
import soundfile as sf
import soxr
from safetensors import safe_open

import flashsr_jax.upscale.files
from flashsr_jax import FlashSR
from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bands import Bands
from flashsr_jax.audio.bandwidth import bandwidth
from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.cli import main
from flashsr_jax.evaluate import metrics, perceptual
from flashsr_jax.evaluate.references import wall
from flashsr_jax.models.presets import ModelConfig, preset
from flashsr_jax.runs.networks import load_network
from flashsr_jax.upscale.model import load_model
from flashsr_jax.upscale.stream import upscale
from flashsr_jax.weights.shipped import SHIPPED

from helpers import RECORDINGS

CUTOFF_HZ = 4000.0


@pytest.fixture(scope="module")
def model():
    return load_model("small")


def held_out() -> list[str]:
    with (RECORDINGS / "recordings.csv").open(newline="", encoding="utf-8") as lines:
        return [row["path"] for row in csv.DictReader(lines) if row["split"] == "test"]


def level_db(x: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(x)) + 1e-20)


@pytest.mark.parametrize(
    "path",
    [
        "effects/colombo-kit/hits.ogg",
        "music/aleksi-aubry-carlson/main-theme.ogg",
        "speech/kseniya-buraya/belarusian-1.ogg",
    ],
)
def test_a_file_of_24_khz_ends_as_the_networks_have_learned_it(model, path):
    """A good resampler leaves nothing over the cutoff; shown that, they made a high band that was further off."""
    x, rate = sf.read(RECORDINGS / path, dtype="float32", always_2d=True)
    file = soxr.resample(x[: 5 * rate, 0], rate, 24_000, "VHQ")
    original = soxr.resample(x[: 5 * rate, 0], rate, SAMPLE_RATE, "VHQ")[: 2 * len(file)]
    spectra = metrics.ReferenceSpectra(original, 0.0)
    shown, as_it_is = (
        upscale(model, file, 24_000, bands=Bands(11_200.0, lowpass=lowpass, keep_low_band=True))[: len(original)]
        for lowpass in (True, False)
    )
    lsd = [metrics.all_metrics(spectra, y, 11_200.0)["lsd_hf"] for y in (shown, as_it_is)]
    assert lsd[0] < 0.92 * lsd[1]


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize(
    "path", ["effects/bja-pacific-kit/test.flac", "music/belofilms-guitar/test.flac", "speech/alsa-english/test.flac"]
)
def test_a_file_that_fills_its_rate_ends_where_its_resampler_does(model, path, rate):
    """As that of a voice made at 24 kHz, or of a codec whose noise goes to the top: nothing is just under half the rate
    then, and networks that took it for a band's end made worse of it than of any other file."""
    x, own_rate = sf.read(RECORDINGS / path, dtype="float32", always_2d=True)
    original = soxr.resample(x[: 5 * own_rate, 0], own_rate, SAMPLE_RATE, "VHQ")
    original = original[: len(original) // 6000 * 6000]
    samples = len(original) * rate // SAMPLE_RATE
    spectrum = np.fft.rfft(original)[: samples // 2 + 1]
    file = (np.fft.irfft(spectrum, samples) * samples / len(original)).astype(np.float32)

    listener = FlashSR(model)
    told, told_less = (listener(file, rate, cutoff_hz=share * rate / 2) for share in (1.0, 0.96))
    np.testing.assert_array_equal(told, told_less)
    at_half = Bands(rate / 2, lowpass=True, keep_low_band=True, end_hz=SAMPLE_RATE / 2)  # of what was resampled before
    taken_for_an_end = upscale(model, soxr.resample(file, rate, SAMPLE_RATE, "VHQ"), SAMPLE_RATE, bands=at_half)
    score, before = (perceptual.visqol(original, y[: len(original)]) for y in (listener(file, rate), taken_for_an_end))
    assert score > before + 0.04


def test_its_file_is_small():
    """Its parameters and FLOPs are those of the preset: `tests/models/test_presets.py`."""
    assert SHIPPED["small"].stat().st_size <= 24e6
    with safe_open(SHIPPED["small"], framework="np") as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys() if name != "scale_factor"}  # noqa: SIM118
    assert types == {"BF16"}


def of_preset(config: ModelConfig) -> bool:
    """Whether the networks are the preset's; the expansion is of what was trained, not of its sizes."""
    return dataclasses.replace(config, expansion=0.0, dispersed=False) == preset("small")


def test_its_networks_can_be_trained_on(model):
    assert of_preset(model.config)
    for name in ("vae", "unet", "vocoder"):
        assert of_preset(load_network("small", name, "--config.init_from").config)


def first_command(folder):
    time = np.arange(8000) / 8000
    sf.write(folder / "in.wav", 0.2 * np.sin(2 * np.pi * 440 * time), 8000)
    assert main(["upscale", str(folder / "in.wav"), "-o", str(folder / "out.wav")]) == 0
    y, sample_rate = sf.read(folder / "out.wav")
    assert (len(y), sample_rate) == (48_000, 48_000)


def test_the_first_command_takes_it(tmp_path, monkeypatch):
    """Without its networks' run, which takes longer to compile than all that is around it."""
    taken = []

    def repeat(model, blocks, sample_rate, **options):
        taken.append(model.config)
        return (np.repeat(block, 48_000 // sample_rate, axis=1) for block in blocks)

    monkeypatch.setattr(flashsr_jax.upscale.files, "upscale_stream", repeat)
    first_command(tmp_path)
    assert len(taken) == 1 and of_preset(taken[0]) and taken[0].expansion > 0


@pytest.mark.training
def test_the_first_command_needs_no_weights(tmp_path):
    first_command(tmp_path)


@pytest.mark.training
@pytest.mark.parametrize("path", held_out())
def test_held_out_recordings_come_nearer_to_the_original(model, path):
    x, sample_rate = sf.read(RECORDINGS / path, dtype="float32", always_2d=True)
    original = soxr.resample(x[:, 0], sample_rate, SAMPLE_RATE, "VHQ")[: 4 * SAMPLE_RATE]
    low = simulate_low_resolution(original, LowpassFilter("cheby1", 8, CUTOFF_HZ))
    output = upscale(model, low, SAMPLE_RATE, bands=Bands(CUTOFF_HZ, keep_low_band=True))  # as files are
    assert metrics.lsd(original, output) < 0.7 * metrics.lsd(original, low)
    assert metrics.lsd_lf(original, output, CUTOFF_HZ) < 0.4
    # Against the input: the low-pass has a ripple of its own.
    gains_db = [metrics.low_band_gain_db(original, x, CUTOFF_HZ) for x in (low, output)]
    assert abs(gains_db[1] - gains_db[0]) < 0.1
    assert metrics.time_offset(original, output, CUTOFF_HZ) == 0


@pytest.mark.training
def test_silence_stays_silence(model):
    """Digital silence, and the pauses of a recording at a usual level."""
    assert np.abs(upscale(model, np.zeros(16_000), 8000)).max() < 1e-4
    burst = np.random.default_rng(0).uniform(-0.3, 0.3, 48_000)
    paused = upscale(model, np.concatenate([burst, np.zeros(96_000), burst]), 24_000)
    pause = paused[int(2.2 * SAMPLE_RATE) : int(5.8 * SAMPLE_RATE)]
    assert np.abs(pause).max() < 1e-4


@pytest.mark.training
def test_a_tone_stays_a_tone(model):
    time = np.arange(6 * 8000) / 8000
    y = upscale(model, 0.3 * np.sin(2 * np.pi * 1000 * time), 8000)[SAMPLE_RATE:-SAMPLE_RATE]
    power = np.abs(np.fft.rfft(y * np.hanning(len(y)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(y), 1 / SAMPLE_RATE) - 1000) < 50
    assert 10 * np.log10(power[near].sum() / power[~near].sum()) > 40


@pytest.mark.training
def test_white_noise_is_stationary(model):
    x = 0.1 * np.random.default_rng(0).standard_normal(20 * 8000)
    y = upscale(model, x, 8000)[SAMPLE_RATE:-SAMPLE_RATE]
    high = np.fft.irfft(np.where(np.fft.rfftfreq(len(y), 1 / SAMPLE_RATE) > 5000, np.fft.rfft(y), 0), len(y))
    levels = [level_db(high[start : start + SAMPLE_RATE // 2]) for start in range(0, len(high), SAMPLE_RATE // 2)]
    assert np.ptp(levels) < 3


@pytest.mark.training
def test_full_band_input_is_not_made_worse(model):
    """Under the recording's own wall; over it the model may add what a codec took."""
    for path in held_out():
        x, sample_rate = sf.read(RECORDINGS / path, dtype="float32", always_2d=True)
        original = soxr.resample(x[:, 0], sample_rate, SAMPLE_RATE, "VHQ")[: 4 * SAMPLE_RATE]
        output = upscale(model, original, SAMPLE_RATE)
        wall_hz = wall(bandwidth(original, SAMPLE_RATE))
        assert metrics.all_metrics(original, output, CUTOFF_HZ, wall_hz)["lsd"] < 0.6, path
