"""LSD against an independent computation (librosa, float64) and against closed forms."""

import librosa
import numpy as np
import pytest

from flashsr_jax.evaluate.metrics import lsd, lsd_hf, lsd_lf


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=int(48_000 * seconds)) * 0.1


def librosa_lsd(x, y, low=0, high=1025):
    power = [
        np.abs(librosa.stft(s, n_fft=2048, hop_length=512, pad_mode="reflect", dtype=np.complex128)) for s in (x, y)
    ]
    log_power = [np.log10(np.clip(p[low:high] ** 2, 1e-8, None)) for p in power]
    return np.sqrt(((log_power[0] - log_power[1]) ** 2).mean(axis=0)).mean()


@pytest.mark.parametrize("length", [1025, 2048, 48_000, 50_001])
def test_agrees_with_librosa(length):
    x, y = noise(2, 1)[:length], 3e-4 * noise(2, 2)[:length]  # y reaches the clamp in part of the bins
    assert lsd(x, y) == pytest.approx(librosa_lsd(x, y), rel=1e-9)
    cut = int(np.ceil(4000 / (48_000 / 2048)))
    assert lsd_hf(x, y, 4000) == pytest.approx(librosa_lsd(x, y, low=cut), rel=1e-9)
    assert lsd_lf(x, y, 4000) == pytest.approx(librosa_lsd(x, y, high=cut), rel=1e-9)


@pytest.mark.parametrize("gain_db", [-12.0, -0.5, 6.0])
def test_a_gain_of_g_db_is_a_tenth_of_it(gain_db):
    x = noise()
    for distance in (lsd(x, x * 10 ** (gain_db / 20)), lsd(x * 10 ** (gain_db / 20), x)):
        assert distance == pytest.approx(abs(gain_db) / 10, rel=1e-9)


def test_identity_is_zero_and_symmetric():
    x, y = noise(seed=3), noise(seed=4)
    assert lsd(x, x) == 0
    assert lsd(x, y) == lsd(y, x) > 0.5


def test_one_impulse_against_silence_follows_window_and_clamp():
    impulse = np.zeros(2048)
    impulse[1024] = 1.0  # the five centred frames weigh it by the window: 0, 0.5, 1, 0.5, 0
    expected = (0 + (8 + np.log10(0.25)) + 8 + (8 + np.log10(0.25)) + 0) / 5
    assert lsd(impulse, np.zeros(2048)) == pytest.approx(expected, rel=1e-9)
    assert lsd(np.zeros(2048), np.zeros(2048)) == 0


def test_bands_split_at_the_cutoff():
    t = np.arange(48_000) / 48_000
    x = noise()
    y = x + np.sin(2 * np.pi * 9000 * t)
    assert lsd_lf(x, y, 4000) < 0.1 * lsd_hf(x, y, 4000)
    bin_hz = 48_000 / 2048
    z = x + np.sin(2 * np.pi * 384 * bin_hz * t)  # a tone on bin 384, seen in bins 383 to 385
    assert lsd_hf(x, z, 385 * bin_hz) > 2 * lsd_hf(x, z, 387 * bin_hz)  # a bin on the cutoff is in the high band
    assert lsd_lf(x, z, 384 * bin_hz) > 2 * lsd_lf(x, z, 383 * bin_hz)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(4096), np.zeros(4097), "one length"),
        (np.zeros((2, 4096)), np.zeros((2, 4096)), "mono"),
        (np.zeros(1024), np.zeros(1024), "more than 1024"),
        (np.full(4096, np.nan), np.zeros(4096), "not finite"),
    ],
)
def test_bad_signals_are_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        lsd(x, y)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, 24_001.0])
def test_bad_cutoffs_are_refused(cutoff):
    with pytest.raises(ValueError, match="cutoff"):
        lsd_hf(noise(), noise(), cutoff)
