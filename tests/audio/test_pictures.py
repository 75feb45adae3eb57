"""Spectrogram pictures: the right shapes, sounds in the right places, files whole or not there."""

import matplotlib.image
import numpy as np
import pytest

from flashsr_jax.audio.pictures import mel_image, spectrogram_db, spectrogram_figure, spectrogram_image


def tone(hz: float, seconds: float = 1.0, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(int(48_000 * seconds)) / 48_000)


def test_a_tone_is_at_its_frequency_and_level():
    spectrum = spectrogram_db(tone(6000))
    middle = spectrum[:, spectrum.shape[1] // 2]
    assert middle.argmax() == 256  # 6 kHz of bins 23.4 Hz apart
    assert middle.max() == pytest.approx(20 * np.log10(0.5), abs=0.01)


@pytest.mark.parametrize("seconds", [0.001, 0.5, 30])
def test_spectrogram_images_are_bounded_and_upright(seconds):
    image = spectrogram_image(tone(6000, seconds))
    assert image.dtype == np.uint8 and image.shape[0] == 512 and image.shape[2] == 3
    assert image.shape[1] <= 1500
    if seconds > 0.1:  # three quarters down: a quarter of 24 kHz
        assert image.sum(axis=(1, 2)).argmax() == pytest.approx(511 - 128, abs=1)


def test_silence_is_drawn():
    assert np.isfinite(spectrogram_db(np.zeros(48_000))).all()
    assert spectrogram_image(np.zeros(48_000)).shape == (512, 188, 3)


def test_mel_images_share_one_scale():
    mel = np.full((50, 256), np.log(1e-5))
    mel[:, 0] = np.log(1e2)
    image = mel_image(mel)
    assert image.shape == (256, 50, 3)
    assert (image[:-1] == image[0, 0]).all() and image[-1].sum() > 50 * 500  # bin 0 is the bottom row, and bright
    assert (mel_image(mel - 1)[-1] != image[-1]).any()


def test_figures_are_written_whole(tmp_path):
    path = tmp_path / "clip.png"
    signals = {"input": tone(1000), "output": tone(1000) + tone(9000, amplitude=0.01), "original": np.zeros(48_000)}
    spectrogram_figure(signals, path)
    picture = matplotlib.image.imread(path)
    assert picture.shape[1] > 3 * picture.shape[0] > 1000
    with pytest.raises(ValueError, match="nothing"):
        spectrogram_figure(signals, tmp_path / "clip.nothing")
    assert [file.name for file in tmp_path.iterdir()] == ["clip.png"]
