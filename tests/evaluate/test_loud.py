"""Loud moments: gains that are known beforehand, band by band."""

import numpy as np
import pytest

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.evaluate.measuring import every_metric
from flashsr_jax.evaluate.metrics import ReferenceSpectra, loud_band_gains_db


def bursts(seed=0):
    """Three seconds of soft noise of the full band with half a second of loud noise in it."""
    x = 0.001 * np.random.default_rng(seed).standard_normal(3 * SAMPLE_RATE)
    x[SAMPLE_RATE : SAMPLE_RATE + SAMPLE_RATE // 2] *= 100
    return x


def test_a_gain_in_loud_moments_is_found_whatever_happens_in_soft_ones():
    x, y = bursts(), 10 * bursts()  # soft moments, which do not count
    loud = slice(SAMPLE_RATE - 2000, SAMPLE_RATE + SAMPLE_RATE // 2 + 2000)
    y[loud] = 0.5 * x[loud]
    gains = loud_band_gains_db(x, y, 4000.0)
    assert list(gains) == [4000.0 + 2000 * i for i in range(10)]
    assert all(gain == pytest.approx(-6.02, abs=0.1) for gain in gains.values())
    metrics, same = every_metric(ReferenceSpectra(x), y, 4000.0, perceptual=False)
    assert same == gains and metrics["loud_band_gain_db"] == pytest.approx(np.mean(list(gains.values())))
    assert all(abs(gain) < 1e-9 for gain in loud_band_gains_db(x, x, 4000.0).values())


def test_only_the_band_that_was_changed_differs():
    x = bursts()
    spectrum = np.fft.rfft(x)
    hz = np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE)
    spectrum[(hz >= 8000) & (hz < 10_000)] *= 2
    gains = loud_band_gains_db(x, np.fft.irfft(spectrum, len(x)), 4000.0)
    assert gains[8000.0] == pytest.approx(6.02, abs=0.2)
    assert all(abs(gain) < 0.3 for low, gain in gains.items() if low != 8000.0)


def test_bands_begin_over_the_cutoff_and_end_under_the_wall():
    assert min(loud_band_gains_db(bursts(), bursts(1), 5000.0)) == 6000.0
    assert max(loud_band_gains_db(ReferenceSpectra(bursts(), wall_hz=17_000.0), bursts(1), 4000.0)) == 14_000.0


def test_a_silent_estimate_is_far_too_soft_and_a_silent_band_of_the_original_is_absent():
    tone = np.hanning(SAMPLE_RATE) * np.sin(2 * np.pi * 5000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    gains = loud_band_gains_db(tone, 0 * tone, 4000.0)
    assert list(gains) == [4000.0] and gains[4000.0] < -100
    metrics, gains = every_metric(ReferenceSpectra(tone), tone, 8000.0, perceptual=False)
    assert gains == {} and "loud_band_gain_db" not in metrics
