"""Zimtohrli and ViSQOL through their packages: order, properties, and clear refusals instead of nonsense."""

import sys

import numpy as np
import pytest
import soundfile
import soxr

from flashsr_jax.audio.lowpass import LowpassFilter, apply_filter
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate import perceptual
from flashsr_jax.evaluate.perceptual import perceptual_metrics, visqol, zimtohrli

from helpers import ROOT

RATE = 48_000


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """Two seconds of drums, full band."""
    x, rate = soundfile.read(ROOT / "tests" / "recordings" / "effects" / "bja-pacific-kit" / "test.flac")
    assert rate == RATE
    return x[: 2 * RATE]


def low_passed(x: np.ndarray, cutoff_hz: float) -> np.ndarray:
    return apply_filter(x, LowpassFilter("cheby1", 8, cutoff_hz))


def noisy(x: np.ndarray, level: float) -> np.ndarray:
    return x + level * np.random.default_rng(0).normal(size=len(x))


def test_zimtohrli_is_zero_for_equal_signals_and_symmetric(clip):
    assert zimtohrli(clip, clip) == 0
    worse = low_passed(clip, 4000)
    assert zimtohrli(clip, worse) == pytest.approx(zimtohrli(worse, clip), rel=1e-6)
    assert zimtohrli(clip, worse) > 0.005


def test_zimtohrli_grows_with_the_damage(clip):
    by_cutoff = [zimtohrli(clip, low_passed(clip, hz)) for hz in (16_000, 8000, 4000, 2000)]
    by_noise = [zimtohrli(clip, noisy(clip, level)) for level in (0.0003, 0.003, 0.03)]
    for distances in (by_cutoff, by_noise):
        assert distances == sorted(distances)
        assert 0 < distances[0] < 0.5 * distances[-1] < 0.5


@pytest.mark.training
def test_visqol_is_best_for_equal_signals_and_falls_with_the_damage(clip):
    equal = visqol(clip, clip)
    assert equal == pytest.approx(4.73, abs=0.01)  # the top of its audio model
    by_cutoff = [visqol(clip, low_passed(clip, hz)) for hz in (12_000, 6000, 2000)]
    by_noise = [visqol(clip, noisy(clip, level)) for level in (0.001, 0.03)]
    for scores in (by_cutoff, by_noise):
        assert [equal, *scores] == sorted([equal, *scores], reverse=True)
        assert equal - 0.2 > scores[-1] >= 1


@pytest.mark.training
def test_visqol_hears_neither_level_nor_a_short_delay(clip):
    assert visqol(clip, 0.25 * clip) == pytest.approx(visqol(clip, clip), abs=0.01)
    assert visqol(clip, np.roll(clip, 480)) > visqol(clip, low_passed(clip, 8000))


@pytest.mark.training
def test_other_rates_are_resampled(clip):
    at_16k = [soxr.resample(x, RATE, 16_000, "VHQ") for x in (clip, low_passed(clip, 4000))]
    at_48k = [soxr.resample(x, 16_000, RATE, "VHQ") for x in at_16k]
    assert zimtohrli(*at_16k, sample_rate=16_000) == pytest.approx(zimtohrli(*at_48k), rel=1e-3)
    assert visqol(*at_16k, sample_rate=16_000) == pytest.approx(visqol(*at_48k), abs=1e-3)
    assert zimtohrli(*at_16k, sample_rate=16_000) != pytest.approx(zimtohrli(*at_16k), rel=0.1)


@pytest.mark.training
def test_precision_of_the_input_does_not_matter(clip):
    worse = low_passed(clip, 4000)
    assert worse.dtype == np.float32
    both = perceptual_metrics(clip.astype(np.float32), worse)
    assert both == pytest.approx(perceptual_metrics(clip, worse.astype(np.float64)), rel=1e-4)
    assert both == {"zimtohrli": zimtohrli(clip, worse), "visqol": pytest.approx(visqol(clip, worse))}
    assert all(type(value) is float for value in both.values())


@pytest.mark.training
def test_what_is_not_defined_is_absent(clip):
    silent, short, very_short = np.zeros(len(clip)), clip[:46_079], clip[:4799]
    for pair in [(silent, clip), (clip, silent), (silent, silent), (short, short)]:
        assert set(perceptual_metrics(*pair)) == {"zimtohrli"}
        with pytest.raises(ValueError, match="ViSQOL"):
            visqol(*pair)
    assert perceptual_metrics(very_short, very_short) == {}
    with pytest.raises(ValueError, match="0.1 s"):
        zimtohrli(very_short, very_short)
    loud = np.flatnonzero(np.abs(clip) > 0.05)[0]
    shortest = clip[loud : loud + 46_080]
    assert set(perceptual_metrics(shortest, noisy(shortest, 0.01))) == {"zimtohrli", "visqol"}
    assert zimtohrli(shortest[:4800], noisy(shortest, 0.1)[:4800]) > 0


@pytest.mark.parametrize("measure", [zimtohrli, visqol, perceptual_metrics])
def test_bad_signals_are_refused(measure, clip):
    bad = clip.copy()
    bad[7] = np.nan
    for pair, message in [
        ((clip, clip[:-1]), "one length"),
        ((clip[None], clip[None]), "mono"),
        ((clip, bad), "not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            measure(*pair)


@pytest.mark.parametrize(
    ("measure", "module", "cache"),
    [(zimtohrli, "zimtohrli", "_pyohrli"), (visqol, "visqol", "_visqol_api"), (visqol, "numba", "_visqol_api")],
)
def test_a_missing_package_is_named_with_what_to_install(measure, module, cache, clip, monkeypatch):
    getattr(perceptual, cache).cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'flashsr_jax\[eval\]'"):
        measure(clip, clip)
    with pytest.raises(UserError, match=r"pip install 'flashsr_jax\[eval\]'"):
        perceptual.check_installed()
