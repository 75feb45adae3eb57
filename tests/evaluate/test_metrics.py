"""Metrics against independent computations (librosa, scipy, float64), closed forms and their own properties."""

import librosa
import numpy as np
import pytest
import scipy.signal

from flashsr_jax.evaluate import metrics
from flashsr_jax.evaluate.metrics import (
    BETTER,
    ReferenceSpectra,
    all_metrics,
    cutoff_step_db,
    frame_lines_db,
    low_band_gain_db,
    low_band_si_sdr,
    lowpass_at_wall,
    lsd,
    lsd_hf,
    lsd_lf,
    lsd_ssr_eval,
    lsd_ssr_eval_hf,
    lsd_ssr_eval_lf,
    lsd_universr,
    lsd_universr_hf,
    lsd_universr_lf,
    time_offset,
)
from flashsr_jax.evaluate.signals import Unmeasurable

RATE = 48_000
VARIANTS = [lsd, lsd_ssr_eval, lsd_universr]


def noise(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=int(RATE * seconds)) * 0.1


def sine(hz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE)


def low_noise(seed: int, below_hz: float = 2500) -> np.ndarray:
    """Noise with nothing near or above 3 kHz."""
    sos = scipy.signal.cheby2(12, 100, 1.1 * below_hz, output="sos", fs=RATE)
    return scipy.signal.sosfiltfilt(sos, noise(seed=seed))


def librosa_lsd(x, y, low=0, high=None, n_fft=2048, hop=512, clamp=1e-8):
    power = [
        np.abs(librosa.stft(s, n_fft=n_fft, hop_length=hop, pad_mode="reflect", dtype=np.complex128)) for s in (x, y)
    ]
    log_power = [np.log10(np.clip(p[low:high] ** 2, clamp, None)) for p in power]
    return np.sqrt(((log_power[0] - log_power[1]) ** 2).mean(axis=0)).mean()


def librosa_lsd_ssr_eval(x, y, low=0, high=None):
    target, estimate = (
        np.abs(librosa.stft(s, n_fft=2229, hop_length=480, pad_mode="reflect", dtype=np.complex128))[low:high]
        for s in (x, y)
    )
    return np.sqrt((np.log10(target**2 / (estimate + 1e-12) ** 2 + 1e-12) ** 2).mean(axis=0)).mean()


def first_bin(cutoff, n_fft):
    return int(np.ceil(cutoff / (RATE / n_fft)))


@pytest.mark.training  # librosa.stft compiles for half a minute once a machine
@pytest.mark.parametrize("length", [1025, 2048, 48_000, 50_001])
def test_lsd_agrees_with_librosa(length):
    x, y = noise(2, 1)[:length], 3e-4 * noise(2, 2)[:length]  # y reaches the clamp in part of the bins
    assert lsd(x, y) == pytest.approx(librosa_lsd(x, y), rel=1e-9)
    cut = first_bin(4000, 2048)
    assert lsd_hf(x, y, 4000) == pytest.approx(librosa_lsd(x, y, low=cut), rel=1e-9)
    assert lsd_lf(x, y, 4000) == pytest.approx(librosa_lsd(x, y, high=cut), rel=1e-9)


@pytest.mark.training  # librosa.stft compiles for half a minute once a machine
@pytest.mark.parametrize("length", [1115, 48_000, 50_001])
def test_lsd_ssr_eval_agrees_with_librosa(length):
    x, y = noise(2, 1)[:length], 3e-4 * noise(2, 2)[:length]
    assert lsd_ssr_eval(x, y) == pytest.approx(librosa_lsd_ssr_eval(x, y), rel=1e-9)
    cut = first_bin(4000, 2229)
    assert lsd_ssr_eval_hf(x, y, 4000) == pytest.approx(librosa_lsd_ssr_eval(x, y, low=cut), rel=1e-9)
    assert lsd_ssr_eval_lf(x, y, 4000) == pytest.approx(librosa_lsd_ssr_eval(x, y, high=cut), rel=1e-9)


@pytest.mark.training  # librosa.stft compiles for half a minute once a machine
@pytest.mark.parametrize("length", [513, 48_000, 50_001])
def test_lsd_universr_agrees_with_librosa(length):
    x, y = noise(2, 1)[:length], 3e-3 * noise(2, 2)[:length]  # y reaches the clamp in part of the bins
    form = {"n_fft": 1024, "hop": 256, "clamp": 1e-6}
    assert lsd_universr(x, y) == pytest.approx(librosa_lsd(x, y, **form), rel=1e-9)
    cut = first_bin(4000, 1024)
    assert lsd_universr_hf(x, y, 4000) == pytest.approx(librosa_lsd(x, y, low=cut, **form), rel=1e-9)
    assert lsd_universr_lf(x, y, 4000) == pytest.approx(librosa_lsd(x, y, high=cut, **form), rel=1e-9)


@pytest.mark.parametrize("distance", VARIANTS)
@pytest.mark.parametrize("gain_db", [-12.0, -0.5, 6.0])
def test_a_gain_of_g_db_is_a_tenth_of_it(distance, gain_db):
    x = 100 * noise()  # no bin near a clamp
    for measured in (distance(x, x * 10 ** (gain_db / 20)), distance(x * 10 ** (gain_db / 20), x)):
        assert measured == pytest.approx(abs(gain_db) / 10, rel=1e-6)


def test_identity_is_zero_and_the_clamped_variants_are_symmetric():
    x, y = noise(seed=3), 1e-3 * noise(seed=4)
    for distance in (lsd, lsd_universr):
        assert distance(x, x) == 0
        assert distance(x, y) == distance(y, x) > 0.5
    assert lsd_ssr_eval(x, x) == pytest.approx(0, abs=1e-9)


def test_ssr_eval_by_hand():
    """An impulse has a flat spectrum, its size the window's value: (X, Y) is known in every frame."""
    x, y = np.zeros(2229 + 480), np.zeros(2229 + 480)
    x[960], y[960] = 1.0, 0.1  # the window's centre passes at 0, 480, 960 ... and weighs it by cosine squares
    window = [np.cos(np.pi * (960 - centre) / 2229) ** 2 for centre in (0, 480, 960, 1440, 1920, 2400)]
    seen = [abs(960 - centre) <= 1114 for centre in (0, 480, 960, 1440, 1920, 2400)]
    assert seen == [True] * 5 + [False]
    assert min(window[:5]) > 1e-3
    # where the impulse is seen X / Y is 10: log10(100) = 2; elsewhere both are silent: log10(0 / e^2 + e) = -12
    assert lsd_ssr_eval(x, y) == pytest.approx((5 * 2 + 12) / 6, rel=1e-6)
    assert lsd_ssr_eval(np.zeros(4096), np.zeros(4096)) == pytest.approx(12)
    assert lsd_ssr_eval(np.zeros(4096), noise()[:4096]) == pytest.approx(12)
    # and a silent estimate: log10(X^2 / e^2) = 24 + 2 log10 X
    levels = [24 + 2 * np.log10(w) for w in window[:5]]
    assert lsd_ssr_eval(x, np.zeros(2709)) == pytest.approx((sum(levels) + 12) / 6, rel=1e-3)


def test_one_impulse_against_silence_follows_window_and_clamp():
    impulse = np.zeros(2048)
    impulse[1024] = 1.0  # the five centred frames weigh it by the window: 0, 0.5, 1, 0.5, 0
    expected = (0 + (8 + np.log10(0.25)) + 8 + (8 + np.log10(0.25)) + 0) / 5
    assert lsd(impulse, np.zeros(2048)) == pytest.approx(expected, rel=1e-9)
    # hop 256: nine frames of width 1024, of which the three in the middle see it
    assert lsd_universr(impulse, np.zeros(2048)) == pytest.approx((6 + 2 * (6 + np.log10(0.25))) / 9, rel=1e-9)
    assert lsd(np.zeros(2048), np.zeros(2048)) == 0


def test_bands_split_at_the_cutoff():
    x = noise()
    y = x + sine(9000)
    assert lsd_lf(x, y, 4000) < 0.1 * lsd_hf(x, y, 4000)
    bin_hz = RATE / 2048
    z = x + sine(384 * bin_hz)  # a tone on bin 384, seen in bins 383 to 385
    assert lsd_hf(x, z, 385 * bin_hz) > 2 * lsd_hf(x, z, 387 * bin_hz)  # a bin on the cutoff is in the high band
    assert lsd_lf(x, z, 384 * bin_hz) > 2 * lsd_lf(x, z, 383 * bin_hz)


def test_si_sdr_and_gain_agree_with_the_time_domain():
    window = np.hanning(RATE)
    x, error = low_noise(1) * window, low_noise(2) * window
    y = 0.7 * x + 0.05 * error
    scale = y @ x / (x @ x)
    expected = 10 * np.log10(np.sum((scale * x) ** 2) / np.sum((y - scale * x) ** 2))
    assert low_band_si_sdr(x, y, 4000) == pytest.approx(expected, abs=1e-3)
    assert low_band_gain_db(x, y, 4000) == pytest.approx(10 * np.log10((y @ y) / (x @ x)), abs=1e-3)


def test_si_sdr_ignores_gain_and_gain_ignores_sign():
    x, y = noise(seed=1), noise(seed=1) + 0.1 * noise(seed=2)
    assert low_band_si_sdr(x, -3 * y, 4000) == pytest.approx(low_band_si_sdr(x, y, 4000), abs=1e-6)
    assert low_band_si_sdr(x, y, 4000) == pytest.approx(20, abs=0.5)
    assert low_band_gain_db(x, -2 * x, 4000) == pytest.approx(20 * np.log10(2), abs=1e-9)
    assert low_band_si_sdr(x, x, 4000) == low_band_si_sdr(x, -2 * x, 4000) == 150
    in_quadrature = low_band_si_sdr(sine(1000), np.roll(sine(1000), 12), 4000)  # orthogonal: only edges are left
    assert -150 <= in_quadrature < -40


def test_low_band_measures_neither_see_what_is_added_nor_the_slope_of_the_simulated_input():
    from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution

    x = noise(2, seed=5)
    lr = simulate_low_resolution(x.astype(np.float32), LowpassFilter("cheby1", 8, 4000))
    assert low_band_si_sdr(x, lr, 4000) > 35  # its ripple of 0.2 dB; with its slope it would be 17
    assert abs(low_band_gain_db(x, lr, 4000)) < 0.15
    with_highs = lr + sine(4000, 2) + 0.3 * sine(9000, 2)
    assert low_band_si_sdr(x, with_highs, 4000) == pytest.approx(low_band_si_sdr(x, lr, 4000), abs=0.01)
    assert low_band_gain_db(x, with_highs, 4000) == pytest.approx(low_band_gain_db(x, lr, 4000), abs=0.01)
    assert time_offset(x, with_highs, 4000) == 0


def test_a_step_at_the_cutoff_is_that_of_the_level_over_it():
    """Against the original's own: of a band that is turned up, of a gap over the cutoff, and of neither."""
    x = noise(2, seed=5)
    spectrum_K = np.fft.rfft(x)
    low = np.fft.irfft(spectrum_K * (np.fft.rfftfreq(len(x), 1 / RATE) < 4000), len(x))
    step = cutoff_step_db(x, low + 2 * (x - low), 4000)
    assert step == pytest.approx(20 * np.log10(2), abs=0.5)  # but for the window's leakage
    assert cutoff_step_db(x, low + 0.5 * (x - low), 4000) == pytest.approx(-20 * np.log10(2), abs=0.7)
    assert abs(cutoff_step_db(x, -3 * x, 4000)) < 1e-9
    assert cutoff_step_db(low + 2 * (x - low), x, 4000) == pytest.approx(-step, abs=1e-9)
    assert abs(cutoff_step_db(x, noise(2, seed=6), 4000)) < 0.5, "another noise of one spectrum"
    assert "cutoff_step_db" not in all_metrics(x, x, 7000, wall_hz=7500)
    with pytest.raises(Unmeasurable, match="the original has nothing on one side of 4000 Hz"):
        cutoff_step_db(np.zeros(RATE), noise(), 4000)


def test_a_buzz_of_the_mels_frame_rate_has_lines_and_a_noise_has_none():
    x = noise(3, seed=5)
    frame = noise(1, seed=6)[:480]
    buzz = np.tile(frame, len(x) // 480)
    assert frame_lines_db(x, buzz, 4000) > 40
    assert abs(frame_lines_db(x, noise(3, seed=7), 4000)) < 1
    assert frame_lines_db(buzz, x, 4000) == pytest.approx(-frame_lines_db(x, buzz, 4000), abs=1e-9)
    assert abs(frame_lines_db(buzz, 0.1 * buzz, 4000)) < 1e-6
    half = x + buzz * x.std() / buzz.std()  # as much power in 4 % of the band: 14 dB
    assert frame_lines_db(x, half, 4000) == pytest.approx(14, abs=1.5)
    other = np.tile(noise(1, seed=6)[:500], -(-len(x) // 500))[: len(x)]  # 96 Hz: no line of 100 Hz but each 25th
    assert frame_lines_db(x, other, 4000) < 5
    assert "frame_lines_db" not in all_metrics(x, x, 7000, wall_hz=7500)
    for short, silent in ((noise(1)[:-1], noise(1)[:-1]), (x, np.zeros(len(x))), (np.zeros(len(x)), x)):
        with pytest.raises(Unmeasurable, match="under a second, or nothing over 4400 Hz"):
            frame_lines_db(short, silent, 4000)


@pytest.mark.parametrize("late", [0, 1, 37, 12_000, -1, -480, -20_000])
def test_time_offset_is_the_delay_of_the_estimate(late):
    x = noise(2, seed=6)
    delayed = np.concatenate([np.zeros(max(late, 0)), x, np.zeros(max(-late, 0))])
    delayed = delayed[: len(x)] if late >= 0 else delayed[-len(x) :]
    assert time_offset(x, 0.5 * delayed + 0.02 * noise(2, seed=7), 4000) == late


def test_all_metrics_are_the_single_ones():
    x, y = noise(seed=8), noise(seed=8) + 0.05 * noise(seed=9)
    cutoff = 6000.0
    expected = {f"{d.__name__}": d(x, y) for d in VARIANTS}
    banded = [lsd_hf, lsd_lf, lsd_ssr_eval_hf, lsd_ssr_eval_lf, lsd_universr_hf, lsd_universr_lf]
    of_cutoff = [low_band_si_sdr, low_band_gain_db, time_offset, cutoff_step_db, frame_lines_db]
    expected |= {d.__name__: d(x, y, cutoff) for d in [*banded, *of_cutoff]}
    assert all_metrics(x, y, cutoff) == pytest.approx(expected)
    assert set(expected) == set(BETTER) - {"zimtohrli", "visqol", "loud_band_gain_db"}
    spectra = ReferenceSpectra(x)
    assert all_metrics(spectra, noise(seed=1), cutoff) != expected
    assert all_metrics(spectra, y, cutoff) == pytest.approx(expected)
    assert all(type(value) is float for value in all_metrics(spectra, y.astype(np.float32), cutoff).values())


def test_what_is_not_defined_is_absent_and_the_rest_is_finite():
    silent, high = np.zeros(RATE), sine(9000)
    low_band = {"low_band_si_sdr", "low_band_gain_db", "time_offset"}
    for x, y in [(silent, noise()), (noise(), silent), (silent, silent), (high, noise()), (noise(), high)]:
        measured = all_metrics(x, y, 4000)
        of_ours = {"zimtohrli", "visqol", "loud_band_gain_db"} | {"cutoff_step_db", "frame_lines_db"}
        assert set(measured) - of_ours == set(BETTER) - of_ours - low_band
        assert np.isfinite(list(measured.values())).all()
        for measure in (low_band_si_sdr, low_band_gain_db, time_offset):
            with pytest.raises(ValueError, match="silent under 4000 Hz"):
                measure(x, y, 4000)
    assert low_band <= set(all_metrics(noise(), noise(), 4000))
    assert np.isfinite(list(all_metrics(noise(), noise(), 4000).values())).all()
    assert np.isfinite(list(all_metrics(1e4 * noise(), 1e-5 * noise(seed=1), 24_000).values())).all()


@pytest.mark.parametrize("wall", [4000.0, 11_000.0, 16_000.0, 20_000.0, 23_000.0, 23_900.0])
def test_lowpass_at_wall_is_flat_below_steep_above_and_without_delay(wall):
    impulse = np.zeros(1 << 15)
    impulse[1 << 14] = 1.0
    response = lowpass_at_wall(impulse, wall)
    spectrum = np.fft.rfft(np.roll(response, -(1 << 14)))
    hz = np.fft.rfftfreq(1 << 15, 1 / RATE)
    level = 20 * np.log10(np.abs(spectrum) + 1e-30)
    assert np.abs(level[hz <= 0.95 * wall]).max() < 0.1
    assert level[hz >= 1.03 * wall].max(initial=-np.inf) < -80
    assert np.abs(spectrum.imag).max() < 1e-9  # zero phase
    assert lowpass_at_wall(noise()[:100], wall).shape == (100,)


def test_what_is_above_the_wall_of_a_reference_does_not_count():
    wall = 16_000.0
    reference = lowpass_at_wall(noise(seed=1), 15_000.0)
    estimate = reference + 0.01 * (noise(seed=2) - lowpass_at_wall(noise(seed=2), 17_000.0))
    assert lsd(reference, estimate) > 1
    walled = all_metrics(reference, estimate, 4000, wall_hz=wall)
    assert walled["lsd"] < 0.02 and walled["lsd_universr"] < 0.02
    assert walled["lsd_hf"] == lsd_hf(lowpass_at_wall(reference, wall), lowpass_at_wall(estimate, wall), 4000)
    assert all_metrics(ReferenceSpectra(reference, wall), estimate, 4000) == walled
    assert not any("ssr_eval" in name for name in walled)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(4096), np.zeros(4097), "one length"),
        (np.zeros((2, 4096)), np.zeros((2, 4096)), "mono"),
        (np.zeros(1024), np.zeros(1024), "more than 1024"),
        (np.zeros(0), np.zeros(0), "empty"),
        (np.full(4096, np.nan), np.zeros(4096), "not finite"),
        (np.zeros(4096), np.full(4096, np.inf), "not finite"),
    ],
)
def test_bad_signals_are_refused(x, y, message):
    for measure in (lambda *pair: all_metrics(*pair, 4000), lsd):
        with pytest.raises(ValueError, match=message):
            measure(x, y)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, 24_001.0])
def test_bad_cutoffs_are_refused(cutoff):
    for measure in (
        all_metrics,
        lsd_hf,
        lsd_ssr_eval_lf,
        lsd_universr_hf,
        low_band_si_sdr,
        low_band_gain_db,
        time_offset,
        cutoff_step_db,
        frame_lines_db,
    ):
        with pytest.raises(ValueError, match="cutoff"):
            measure(noise(), noise(), cutoff)


@pytest.mark.parametrize("wall", [-1.0, 24_000.0])
def test_bad_walls_are_refused(wall):
    with pytest.raises(ValueError, match="wall"):
        lowpass_at_wall(noise(), wall)


def test_reference_is_transformed_once(monkeypatch):
    calls = []
    power = metrics._power
    monkeypatch.setattr(metrics, "_power", lambda *args: calls.append(1) or power(*args))
    spectra = ReferenceSpectra(noise())
    for seed in range(3):
        all_metrics(spectra, noise(seed=seed), 4000)
    assert len(calls) == 3 + 3 * 4
