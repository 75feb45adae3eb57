"""Speech is drawn by how bright it is, as measured once for a dataset."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile as sf

from flashsr_jax.audio import HOP
from flashsr_jax.data import brightness
from flashsr_jax.data.batches import make_iterator
from flashsr_jax.data.brightness import brightness_db
from flashsr_jax.data.build import build_dataset

from helpers import micro
from helpers.read_only import read_only

RATE = 48_000
# A tone tells the recording; noise of 8-16 kHz so many dB under it makes it bright.
SPEECH = {1000: -15.0, 1500: -25.0, 2000: -40.0, 2500: -60.0}


def tone(hz: float, samples: int, level: float = 0.2) -> np.ndarray:
    return level * np.sqrt(2) * np.sin(2 * np.pi * hz * np.arange(samples) / RATE)


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """A dataset of four recordings of speech, each of one window, and others."""
    folder = tmp_path_factory.mktemp("bright")
    samples = micro.get_config("vae").data.window_frames * HOP
    noise = np.random.default_rng(0).standard_normal(samples)
    band = scipy.signal.butter(8, (8500, 15_500), "bandpass", fs=RATE, output="sos")
    noise = scipy.signal.sosfiltfilt(band, noise)
    for hz, level_db in SPEECH.items():
        x = tone(hz, samples) + 0.2 * 10 ** (level_db / 20) * noise / np.sqrt(np.mean(noise**2))
        sf.write(folder / f"speech-{hz}.wav", x, RATE, subtype="FLOAT")
    for name in ("music", "effects"):
        sf.write(folder / f"{name}.wav", tone(3000, samples) + 1e-2 * noise, RATE, subtype="FLOAT")
    rows = [f"{p.name},{p.stem.partition('-')[0]},{p.stem},train" for p in sorted(folder.glob("*.wav"))]
    (folder / "table.csv").write_text("\n".join(["path,class,group,split", *rows]))
    build_dataset([folder], folder / "out", csv=folder / "table.csv", min_bandwidth_hz=0, workers=0)
    return folder / "out"


def drawn(dataset: Path, bright: tuple[float, ...], batches: int = 1) -> Counter:
    """How often each recording of speech comes in batches of 8."""
    data = micro.get_config("vae").data
    data.update(dir=str(dataset), bright=bright, mix_probability=0.0)
    data.class_weights.update(music=0.0, effects=0.0)
    windows = make_iterator(data, "train", batch_size=8, window_samples=data.window_frames * HOP, seed=0)
    hr = np.concatenate([next(windows)["hr"] for _ in range(batches)])
    spectra = np.abs(np.fft.rfft(hr * np.hanning(hr.shape[1])))[:, : 4000 * hr.shape[1] // RATE]
    return Counter((500 * np.round(spectra.argmax(axis=1) * RATE / hr.shape[1] / 500)).astype(int).tolist())


def test_bright_speech_comes_more_often(speech, caplog):
    """An epoch has each window once, and once more for every limit that it exceeds."""
    assert drawn(speech, ()) == dict.fromkeys(SPEECH, 2)
    assert not list(speech.glob("brightness-*"))
    with caplog.at_level(logging.INFO, "flashsr_jax"):
        assert drawn(speech, (-30.0, -20.0), batches=7) == {1000: 24, 1500: 16, 2000: 8, 2500: 8}
    assert "speech: 50 % of 4 windows are bright (8-16 kHz within 30 dB of under 4 kHz); as they are drawn, 71 %" in (
        caplog.text
    )


def test_a_dataset_is_measured_once(speech, monkeypatch, caplog):
    """Also one that nobody may write to is drawn from, with a line that says so."""
    first = drawn(speech, (-30.0,), batches=3)
    (file,) = speech.glob("brightness-train-speech-*.npy")
    np.testing.assert_allclose(np.load(file), [SPEECH[hz] for hz in sorted(SPEECH)], atol=2)
    with monkeypatch.context() as patched:
        patched.setattr(brightness, "brightness_db", lambda x: pytest.fail("measured again"))
        assert drawn(speech, (-30.0,), batches=3) == first
    file.unlink()
    with read_only(speech):
        assert drawn(speech, (-30.0,), batches=3) == first
    said = f"{file.name} cannot be kept, and the next run measures again: {speech}: nothing can be written there"
    assert said in caplog.text and not file.exists()


def test_brightness_is_the_loudest_tenth_of_either_band():
    """Tones of known levels, also where the high one comes for a moment; silence is as dull as can be."""
    low, high = tone(1000, RATE), tone(12_000, RATE, 0.02)
    assert brightness_db(low + high) == pytest.approx(-20, abs=0.1)
    burst = np.where(np.arange(RATE) < 0.2 * RATE, high, 0)
    assert brightness_db(low + burst) == pytest.approx(-20, abs=0.2)
    assert brightness_db(low + tone(6000, RATE)) < -60
    assert brightness_db(np.zeros(RATE)) == -100
    assert brightness_db(1e-6 * (low + high)) == pytest.approx(-20, abs=0.1)
