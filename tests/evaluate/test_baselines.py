"""The baselines against closed forms: tones folded to where they belong, noise at the level its profile names."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.signal

from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.evaluate.baselines import NoiseProfile, measure_profile, mirror, noise

RATE = 48_000
HZ = np.fft.rfftfreq(2048, 1 / RATE)


def white(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=int(RATE * seconds)) * 0.1


def sine(hz: float, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.cos(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE + 0.3)


def below(x: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """Zero-phase low-pass that leaves nothing (-100 dB) above the cutoff."""
    return scipy.signal.sosfiltfilt(scipy.signal.cheby2(16, 60, cutoff_hz, output="sos", fs=RATE), x)


def low_resolution(x: np.ndarray, cutoff_hz: float) -> np.ndarray:
    return simulate_low_resolution(x.astype(np.float32), LowpassFilter("cheby1", 8, cutoff_hz))


def log_power(x: np.ndarray) -> np.ndarray:
    """Independent of the module's transform: scipy's, frames inside the signal, scaled as plain sums."""
    _, _, spectrum = scipy.signal.stft(x, RATE, "hann", 2048, 1536, boundary=None, padded=False)
    return np.log10(np.maximum(np.abs(spectrum * 1024) ** 2, 1e-8)).T


def flat_profile(cutoff: float, level: float) -> NoiseProfile:
    return NoiseProfile(cutoff, [level] * 1025)


@pytest.mark.parametrize(
    ("tone", "cutoff", "images"),
    [
        (3000, 4000, [5000, 11_000, 13_000, 19_000, 21_000]),  # 4 - 1 kHz, then 8 + 3, 16 - 3, 16 + 3, 24 - 3
        (500, 6000, [11_500, 12_500, 23_500]),
        (3900, 16_000, []),  # its image would be at 28.1 kHz
        (9000, 16_000, [23_000]),
    ],
)
def test_mirror_folds_a_tone_about_the_cutoff_with_its_decay(tone, cutoff, images):
    spectrum = np.abs(np.fft.rfft(mirror(sine(tone), cutoff)))  # bins of 1 Hz
    expected = np.zeros_like(spectrum)
    expected[tone] = 12_000  # half of the samples' number times the amplitude
    for image in images:
        expected[image] = 12_000 * 10 ** (-2 * (image - cutoff) / 1000 / 20)
    np.testing.assert_allclose(spectrum, expected, atol=1e-5)


def test_mirror_of_a_click_stays_where_it_is():
    click = np.zeros(RATE)
    click[20_000] = 1.0
    added = mirror(below(click, 4000), 4000) - below(click, 4000)
    assert np.sum(added[19_900:20_101] ** 2) > 0.95 * np.sum(added**2)


@pytest.mark.parametrize("length", [1, 7, 1000, 4801, 50_021])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_baselines_keep_length_and_precision_and_leave_silence_alone(length, dtype):
    x = white()[:length].astype(dtype)
    profile = flat_profile(4000, -2)
    for fill in (lambda x: mirror(x, 4000), lambda x: noise(x, 4000, profile, np.random.default_rng(0))):
        assert fill(x).shape == (length,) and fill(x).dtype == dtype
        assert np.isfinite(fill(x)).all()
        assert not fill(np.zeros(length, dtype)).any()


@pytest.mark.parametrize("cutoff", [2000.0, 4000.0, 12_000.0])
def test_baselines_add_above_the_cutoff_only(cutoff):
    lr = low_resolution(white(), cutoff)
    profile = flat_profile(cutoff, 0)
    for filled in (mirror(lr, cutoff), noise(lr, cutoff, profile, np.random.default_rng(0))):
        added = (filled - lr).astype(np.float64)
        assert np.std(added) > 0.1 * np.std(lr)
        inner = slice(4096, -4096)  # the test's filter clicks at the edges
        assert np.std(below(added, 0.98 * cutoff)[inner]) < 1e-3 * np.std(below(lr, 0.98 * cutoff)[inner])  # -60 dB


def test_noise_has_the_level_of_its_profile_relative_to_each_frame():
    cutoff = 4000.0
    slope = np.where(HZ < 12_000, -1.0, -2.5)
    lr = low_resolution(white(4) * np.repeat([1, 0.1], 2 * RATE), cutoff)
    filled = noise(lr, cutoff, NoiseProfile(cutoff, slope.tolist()), np.random.default_rng(1))
    measured = log_power(filled)
    level = log_power(lr)[:, (HZ >= 2100) & (HZ <= 3600)].mean(axis=1)
    relative = measured - level[:, None]
    # noise of 1.3 times the amplitude: its mean log10 power is 2 log10 1.3 - 0.5772 log10 e over that of the profile
    offset = 2 * np.log10(1.3) - np.euler_gamma / np.log(10)
    for half in (slice(2, 180), slice(-180, -2)):  # loud, then 20 dB quieter
        for low, high, expected in [(5000, 11_500, -1.0), (12_500, 23_500, -2.5)]:
            band = relative[half, (low < HZ) & (high > HZ)]
            assert band.mean() == pytest.approx(expected + offset, abs=0.02)


def test_noise_is_silent_where_the_input_is():
    lr = low_resolution(np.concatenate([white(1), np.zeros(RATE)]), 4000)
    lr[RATE + 200 :] = 0
    filled = noise(lr, 4000, flat_profile(4000, -1), np.random.default_rng(0))
    assert np.std(filled[RATE + 8192 : -8192]) < 1e-4 * np.std(filled[:RATE])


def test_noise_follows_its_seed():
    lr = low_resolution(white(), 4000)
    first, again, other = (noise(lr, 4000, flat_profile(4000, -1), np.random.default_rng(s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.std(first - other) > 0.1 * np.std(first - lr)


def test_profile_of_coloured_noise_is_its_colour():
    """Filtered white noise: every frame has the same expected spectrum, the level's bins included."""
    sos = scipy.signal.butter(2, 3000, output="sos", fs=RATE)
    signals = [(g * scipy.signal.sosfilt(sos, white(4, seed)), RATE / 2) for seed, g in enumerate((1.0, 0.3, 3.0))]
    profiles = {4000.0: measure_profile(signals, 4000.0), 8000.0: measure_profile(signals, 4000.0).at(8000.0)}
    _, response = scipy.signal.sosfreqz(sos, HZ, fs=RATE)
    colour = np.log10(np.abs(response) ** 2 + 1e-12)
    for cutoff, profile in profiles.items():
        band = (0.525 * cutoff <= HZ) & (0.9 * cutoff >= HZ)
        expected = colour - colour[band].mean()
        seen = (HZ > 100) & (HZ < 16_000)
        error = np.array(profile.log10_power)[seen] - expected[seen]
        assert np.abs(error).max() < 0.1 and abs(error.mean()) < 0.01


def test_profile_of_another_cutoff_is_as_if_measured_there():
    signals = [(white(seed=1), RATE / 2), (white(seed=2), RATE / 2)]
    moved, measured = measure_profile(signals, 4000.0).at(2000.0), measure_profile(signals, 2000.0)
    assert moved.cutoff_hz == measured.cutoff_hz == 2000.0
    np.testing.assert_allclose(moved.log10_power, measured.log10_power, atol=1e-3)


def test_profile_ignores_silence():
    signals = [(white(seed=1), RATE / 2), (white(seed=2), RATE / 2)]
    expected = measure_profile(iter(signals), 4000.0)
    assert measure_profile([*signals, (np.zeros(RATE), RATE / 2)], 4000.0) == expected
    with pytest.raises(ValueError, match="no sound to measure"):
        measure_profile([(np.zeros(RATE), RATE / 2)], 4000.0)


def test_profile_leaves_out_what_a_codec_took_away():
    full, walled = white(seed=1), low_resolution(white(seed=2), 10_000)
    alone = np.array(measure_profile([(full, RATE / 2)], 4000.0).log10_power)
    both = np.array(measure_profile([(full, RATE / 2), (walled, 9000.0)], 4000.0).log10_power)
    np.testing.assert_array_equal(both[HZ > 9000], alone[HZ > 9000])
    assert not np.array_equal(both[HZ < 9000], alone[HZ < 9000])
    walls_only = np.array(measure_profile([(walled, 9000.0)], 4000.0).log10_power)
    assert (walls_only[HZ > 9000] == walls_only[HZ <= 9000][-1]).all()


def test_noise_restores_the_spectrum_it_was_measured_on():
    sos = scipy.signal.butter(1, 2000, output="sos", fs=RATE)
    train, test = (scipy.signal.sosfilt(sos, white(4, seed)) for seed in (1, 2))
    profile = measure_profile([(train, RATE / 2)], 4000.0)
    filled = noise(low_resolution(test, 4000), 4000.0, profile, np.random.default_rng(0))
    high = HZ > 4500
    difference = log_power(filled)[:, high].mean(axis=0) - log_power(test)[:, high].mean(axis=0)
    assert abs(difference.mean()) < 0.05 and np.abs(difference).max() < 0.3


def test_profile_survives_json():
    profile = measure_profile([(white(), RATE / 2)], 4000.0)
    text = json.dumps(dataclasses.asdict(profile))
    assert NoiseProfile(**json.loads(text)) == profile
    assert len(text) < 16_000


@pytest.mark.parametrize("cutoff", [0.0, 99.0, 24_000.0])
def test_bad_cutoffs_are_refused(cutoff):
    profile = flat_profile(cutoff, -1)
    for fill in (
        lambda: mirror(white(), cutoff),
        lambda: noise(white(), cutoff, profile, np.random.default_rng(0)),
        lambda: measure_profile([(white(), RATE / 2)], cutoff),
    ):
        with pytest.raises(ValueError, match="cutoff"):
            fill()


def test_bad_signals_and_profiles_are_refused():
    for bad, message in [(np.zeros((2, 100)), "mono"), (np.zeros(0), "empty"), (np.full(100, np.nan), "not finite")]:
        with pytest.raises(ValueError, match=message):
            mirror(bad, 4000)
        with pytest.raises(ValueError, match=message):
            noise(bad, 4000, flat_profile(4000, -1), np.random.default_rng(0))
    with pytest.raises(ValueError, match="profile is of 8000 Hz"):
        noise(white(), 4000, flat_profile(8000, -1), np.random.default_rng(0))
