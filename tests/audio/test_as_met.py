"""Inputs as they are met: what is added to a low resolution for training, and what the low-pass leaves of it."""

import numpy as np
import pytest
import scipy.signal
import soundfile as sf
import soxr

from flashsr_jax.audio import as_met, bands
from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution

from helpers import RECORDINGS

RATE = 48_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """1.3 seconds at 48 kHz."""
    x, rate = sf.read(RECORDINGS / "speech/klettres-german/letters.ogg", dtype="float32", always_2d=True)
    return soxr.resample(x[:, 0], rate, RATE, "VHQ")[6000 : 6000 + 61_440]


def only(monkeypatch, kind, **values) -> None:
    """Of the three kinds of input one alone, and other values of the module."""
    for name, value in {"KINDS": (kind,), **values}.items():
        monkeypatch.setattr(as_met, name, value)


@pytest.fixture
def without_image(monkeypatch) -> None:
    """A floor can be measured: the gain of what makes the image ripples by a thousandth of the sound."""
    monkeypatch.setattr(bands, "as_resampled", lambda x, cutoff_hz: x)


def band_power(x_N: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Mean square of what lies between two frequencies."""
    spectrum_K = np.fft.rfft(x_N)
    hz_K = np.fft.rfftfreq(len(x_N), 1 / RATE)
    return 2 * float(np.square(np.abs(spectrum_K[(hz_K >= low_hz) & (hz_K < high_hz)])).sum()) / len(x_N) ** 2


def test_rounding_to_sixteen_bits_is_as_loud_as_it_has_to_be(monkeypatch, without_image, speech):
    """Steps of 2^-15 make noise of step^2 / 12, triangular dither makes it three times that; at any level."""
    lr = simulate_low_resolution(speech, LowpassFilter("cheby1", 8, 4000.0))
    for peak_db in (-20.0, -50.0):
        only(monkeypatch, as_met.sixteen_bits, PEAK_DB=(peak_db, peak_db), RATES=(RATE,), USUAL_RATES=(RATE,))
        gain, found = 10 ** (peak_db / 20) / np.abs(lr).max(), set()
        for seed in range(8):
            y, cutoff_hz = as_met.as_met(lr, 4000.0, np.random.default_rng(seed))
            expected = 2.0**-30 / 12 * 2500 / (RATE / 2)  # its share from 500 to 3000 Hz
            noise_db = 10 * np.log10(band_power(gain * (y - lr), 500, 3000) / expected)
            found.add("dither" if noise_db > 2.4 else "rounding")
            assert noise_db == pytest.approx(4.77 if noise_db > 2.4 else 0, abs=0.7)
            assert band_power(y, 5000, 24_000) < 1e-4 * expected / gain**2 + 2 * band_power(lr, 5000, 24_000)
            assert 3600 < cutoff_hz <= 4000
        assert found == {"dither", "rounding"}


def test_hiss_has_its_level_under_the_cutoff_and_is_gone_over_it(monkeypatch, without_image, speech):
    lr = simulate_low_resolution(speech, LowpassFilter("ellip", 8, 6000.0))
    for peak_db, floor_db in ((0.0, -50.0), (-10.0, -70.0), (-60.0, -100.0)):
        levels = {"PEAK_DB": (peak_db,) * 2, "FLOOR_DB": (floor_db,) * 2, "TILT_DB": (0, 0)}
        only(monkeypatch, as_met.hiss, **levels, RATES=(RATE,), USUAL_RATES=(RATE,))
        y, _ = as_met.as_met(lr, 6000.0, np.random.default_rng(1))
        gain = 10 ** (peak_db / 20) / np.abs(lr).max()
        noise_db = 10 * np.log10(band_power(gain * (y - lr), 200, 5000) * 24_000 / 4800)
        assert noise_db == pytest.approx(floor_db, abs=0.5)
        over = 10 * np.log10(gain**2 * band_power(y, 8000, 24_000) + 1e-20)
        assert over < floor_db - 30


@pytest.mark.parametrize("codec", as_met.CODECS)
def test_a_codecs_round_trip_moves_nothing(codec, speech):
    """At every rate: the same length, no delay (Opus: 42 us), and the sound is still there."""
    names, rates, (mild, strong) = as_met.CODECS[codec]
    for rate in rates:
        x = 0.5 * soxr.resample(simulate_low_resolution(speech, LowpassFilter("cheby1", 8, 3500.0)), RATE, rate, "VHQ")
        for compression, least_db in ((mild, 12), (strong, 5)):
            y = as_met.round_trip(x, rate, names, compression)
            assert y.shape == x.shape and y.dtype == np.float32
            similarity = scipy.signal.correlate(y, x, method="fft")
            assert abs(similarity.argmax() - (len(x) - 1)) <= 5e-5 * rate
            assert np.sum(x**2) > 10 ** (least_db / 10) * np.sum((y - x) ** 2), (rate, compression)
            assert np.any(y != x)


@pytest.mark.parametrize("kind", as_met.KINDS)
def test_the_low_band_and_the_level_stay_whatever_is_drawn(monkeypatch, speech, kind):
    only(monkeypatch, kind)
    rng = np.random.default_rng(0)
    for cutoff_hz in (2000.0, 4000.0, 7000.0, 12_000.0, 16_000.0):
        lr = simulate_low_resolution(speech, LowpassFilter("cheby1", 8, cutoff_hz))
        y, end_hz = as_met.as_met(lr, cutoff_hz, rng)
        assert y.shape == lr.shape and y.dtype == np.float32 and np.isfinite(y).all()
        assert cutoff_hz / 2 <= end_hz <= cutoff_hz
        assert 10 * np.log10(band_power(y, 100, 1500) / band_power(lr, 100, 1500)) == pytest.approx(0, abs=1.5)
        assert band_power(y, 1.5 * cutoff_hz, 24_000) < 1e-5 * band_power(lr, 0, 24_000)
        assert np.abs(y - lr).max() > 0


def test_most_inputs_come_from_a_good_resampler_with_a_steep_end_and_no_image(speech):
    """The others from the filter: by what is left just over the cutoff, which only a filter's skirt or image is."""
    lowpass, rng, over = LowpassFilter("butter", 4, 6000.0), np.random.default_rng(0), []
    for _ in range(200):
        lr = as_met.low_resolution(speech, lowpass, rng)
        assert lr.shape == speech.shape and lr.dtype == np.float32
        assert band_power(lr, 500, 3000) == pytest.approx(band_power(speech, 500, 3000), rel=0.01)
        over.append(band_power(lr, 6100, 7000) / band_power(speech, 6100, 7000))
    steep = np.array(over) < 1e-4
    assert 0.65 < steep.mean() < 0.85
    assert np.array(over)[~steep].min() > 2e-3


def test_the_same_seed_gives_the_same_input_and_silence_stays(speech):
    lr = simulate_low_resolution(speech, LowpassFilter("butter", 6, 5000.0))
    draws = [as_met.as_met(lr, 5000.0, np.random.default_rng(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[0] - draws[2]).max() > 0
    quiet, cutoff_hz = as_met.as_met(1e-5 * lr, 5000.0, np.random.default_rng(0))
    np.testing.assert_array_equal(quiet, 1e-5 * lr)
    assert cutoff_hz == 5000
