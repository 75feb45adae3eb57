"""Low-resolution simulation (golden values, device against host) and bandwidth measurement, on real recordings."""

import csv
import functools
import itertools

import jax
import numpy as np
import pytest
import scipy.signal
import soundfile as sf
import soxr

from flashsr_jax.audio import lowpass_device
from flashsr_jax.audio.bandwidth import BandwidthMeter, bandwidth, published_cutoff
from flashsr_jax.audio.lowpass import (
    FILTER_TYPES,
    LowpassFilter,
    apply_filter,
    draw_filter,
    filter_arrays,
    simulate_low_resolution,
)
from flashsr_jax.evaluate.metrics import lsd

from helpers import TESTS

GOLDEN = np.load(TESTS / "golden" / "audio_frontend.npz")
SCIPY_NAMES = {"cheby": "cheby1"}
LOWPASS_NAMES = [name for name in GOLDEN if name.startswith("lowpass_")]


def named_filter(name: str) -> LowpassFilter:
    type_, order, cutoff = name.removeprefix("lowpass_").split("_")[:3]
    return LowpassFilter(SCIPY_NAMES.get(type_, type_), int(order), float(cutoff))


@functools.cache
def recordings(split: str) -> list[np.ndarray]:
    """First channels of the committed recordings of a split, 48 kHz."""
    rows = csv.DictReader((TESTS / "recordings" / "recordings.csv").read_text().splitlines())
    found = []
    for row in rows:
        if row["split"] == split:
            x, rate = sf.read(TESTS / "recordings" / row["path"], dtype="float32", always_2d=True)
            found.append(soxr.resample(x[:, 0], rate, 48_000, "VHQ") if rate != 48_000 else x[:, 0])
    return found


@functools.cache
def held_out() -> list[tuple[np.ndarray, float]]:
    """The recordings that are held out, and their bandwidths."""
    return [(x, bandwidth(x, 48_000)) for x in recordings("test") + recordings("validation")]


@pytest.mark.parametrize("name", LOWPASS_NAMES)
def test_simulation_is_the_published_one(name):
    audio = GOLDEN["audio"][:48_001] if name.endswith("of_48001") else GOLDEN["audio"]
    low = simulate_low_resolution(audio, named_filter(name))
    assert low.shape == audio.shape and low.dtype == np.float32
    np.testing.assert_allclose(low[: len(GOLDEN[name])], GOLDEN[name], rtol=0, atol=1e-6)


def test_published_cutoff():
    for name, hz in zip(GOLDEN["cutoff_names"], GOLDEN["cutoff_hz"], strict=True):
        audio = GOLDEN["audio"]
        low = audio if name == "full_band" else simulate_low_resolution(audio, named_filter(name))
        assert published_cutoff(low) == hz, name


def test_lowpass_is_zero_phase_and_keeps_the_passband():
    time = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    high = np.sin(2 * np.pi * 9000 * time).astype(np.float32)
    for type_ in FILTER_TYPES:
        low = apply_filter(tone + high, LowpassFilter(type_, 8, 4000.0))
        assert low.dtype == np.float32
        inner = slice(2000, -2000)
        gain = (low @ tone) / (tone @ tone)
        assert 0.7 < gain <= 1.01, type_  # Bessel filters droop, and ripple counts twice
        assert np.abs(low - gain * tone)[inner].max() < 2e-3, type_


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fir", 8, 4000.0), "'fir'"),
        (("butter", 0, 4000.0), "order 0"),
        (("butter", 11, 4000.0), "order 11"),
        (("butter", 8, 24_000.0), "24000"),
    ],
)
def test_impossible_filters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LowpassFilter(*arguments)


def test_drawn_filters_cover_their_ranges_and_stay_below_the_bandwidth():
    rng = np.random.default_rng(0)
    drawn = [draw_filter(rng, bandwidth_hz=12_000.0) for _ in range(2000)]
    assert {f.type for f in drawn} == set(FILTER_TYPES)
    assert {f.order for f in drawn} == set(range(2, 11))
    cutoffs = np.array([f.cutoff_hz for f in drawn])
    assert 2000 <= cutoffs.min() < 2100 and 11_180 < cutoffs.max() <= 0.94 * 12_000
    assert max(draw_filter(rng, 24_000.0).cutoff_hz for _ in range(500)) <= 16_000
    assert draw_filter(rng, 1000.0).cutoff_hz == pytest.approx(940.0)


def test_a_logarithmic_draw_gives_every_octave_of_cutoffs_the_same_share():
    rng = np.random.default_rng(0)
    cutoffs = np.array([draw_filter(rng, 24_000.0, log_cutoff=True).cutoff_hz for _ in range(3000)])
    counts, _ = np.histogram(cutoffs, [2000, 4000, 8000, 16_000])
    assert counts.sum() == 3000 and np.abs(counts / 1000 - 1).max() < 0.1
    assert draw_filter(rng, 1000.0, log_cutoff=True).cutoff_hz == pytest.approx(940.0)


CUTOFFS = (2000.7, 4000.0, 5555.3, 9000.0, 12_000.0, 15_999.9)


@pytest.mark.training
def test_device_simulation_equals_the_exact_one():
    """Errors relative to the low-resolution signal: -70 dB inside, and at the edges, where the exact path lets go of
    samples before the beginning, -40 dB over the window. LSD 0.07 (a hundredth of what the high band's loss makes)."""
    samples, edge = 61_440, 2400
    hr_BxN = np.stack([x[24_000 : 24_000 + samples] for x in recordings("test")[::3]])
    simulate = jax.jit(lowpass_device.simulate_low_resolution)
    for type_, order, cutoff in itertools.product(FILTER_TYPES, (2, 5, 10), CUTOFFS):
        lowpass = LowpassFilter(type_, order, cutoff)
        arrays = {name: np.stack([a] * len(hr_BxN)) for name, a in filter_arrays(lowpass).items()}
        for hr, device in zip(hr_BxN, np.asarray(simulate(hr_BxN, arrays)), strict=True):
            exact = simulate_low_resolution(hr, lowpass)
            error, power = (device - exact) ** 2, np.mean(exact**2)
            assert np.mean(error[edge:-edge]) < 1e-7 * power, lowpass
            assert np.mean(error) < 1e-4 * power, lowpass
            assert lsd(exact, device) < 0.1, lowpass
            assert np.mean((hr - exact) ** 2) > 1e-6 * power  # the low-pass did take something away


def test_device_simulation_of_a_batch_uses_each_examples_own_filter():
    rng = np.random.default_rng(1)
    hr_BxN = rng.standard_normal((5, 30_720)).astype(np.float32)
    filters = [draw_filter(rng, 24_000.0) for _ in hr_BxN]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *map(filter_arrays, filters))
    device = np.asarray(jax.jit(lowpass_device.simulate_low_resolution)(hr_BxN, stacked))
    for hr, low, lowpass in zip(hr_BxN, device, filters, strict=True):
        exact = simulate_low_resolution(hr, lowpass)
        assert np.mean((low - exact)[2400:-2400] ** 2) < 1e-6 * np.mean(exact**2), lowpass
    with pytest.raises(ValueError, match="63"):
        lowpass_device.simulate_low_resolution(hr_BxN[:, :63], stacked)


def test_device_simulation_at_the_edges():
    """A signal that begins far from zero: the device extends it as sosfiltfilt does."""
    hr = (0.5 + 0.1 * np.random.default_rng(0).standard_normal(30_720)).astype(np.float32)
    simulate = jax.jit(lowpass_device.simulate_low_resolution)
    for lowpass in (LowpassFilter("cheby1", 10, 4000.0), LowpassFilter("ellip", 10, 4000.0)):
        filters = {name: array[None] for name, array in filter_arrays(lowpass).items()}
        exact = simulate_low_resolution(hr, lowpass)
        error = (np.asarray(simulate(hr[None], filters))[0] - exact) ** 2
        assert np.mean(error[:100]) < 1e-4 * np.mean(exact**2), lowpass
        assert np.mean(error[100:1000]) < 2e-9 * np.mean(exact**2), lowpass


def test_device_simulation_moves_no_data_between_devices():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    if jax.device_count() > 1:
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    arrays = filter_arrays(LowpassFilter("ellip", 7, 4000.0))
    batch = {name: np.stack([a] * mesh.size) for name, a in arrays.items()}
    hr_BxN, filters = jax.device_put((np.ones((mesh.size, 30_720), np.float32), batch), sharding)

    def simulate(hr_BxN, filters):  # as a training step does
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return lowpass_device.simulate_low_resolution(hr_BxN, filters)

    compiled = jax.jit(simulate).lower(hr_BxN, filters).compile()
    assert "all-gather" not in compiled.as_text() and "all-to-all" not in compiled.as_text()
    assert compiled(hr_BxN, filters).sharding.is_equivalent_to(sharding, 2)


@pytest.mark.training
@pytest.mark.parametrize("cutoff", [2000.0, 3000.0, 4000.0, 6000.0, 8000.0, 12_000.0, 16_000.0])
@pytest.mark.parametrize("type_", ["cheby1", "ellip"])
def test_bandwidth_of_low_passed_recordings(cutoff, type_):
    """Within 10 %, as floating point and as dithered 16 bit."""
    rng = np.random.default_rng(0)
    for x, _ in held_out():
        low = simulate_low_resolution(x[: 3 * 48_000], LowpassFilter(type_, 8, cutoff))
        dither = rng.uniform(-0.5, 0.5, (2, len(low))).sum(axis=0)
        for form, y in {"float": low, "16 bit": np.rint(low * 32_767 + dither) / 32_768}.items():
            assert bandwidth(y.astype(np.float32), 48_000) == pytest.approx(cutoff, rel=0.1), form


@pytest.mark.training
@pytest.mark.parametrize(
    ("type_", "order", "resampled", "share"),
    [
        ("butter", 4, True, 0.95),
        ("butter", 8, True, 0.95),
        ("bessel", 4, True, 0.95),
        ("bessel", 8, True, 0.95),
        ("butter", 4, False, 0.85),
        ("butter", 8, False, 0.95),
        ("bessel", 4, False, 0.65),
        ("bessel", 8, False, 0.85),
    ],
)
def test_bandwidth_of_recordings_through_gentle_filters(type_, order, resampled, share):
    """Within 20 % of where the filter, which runs forward and backward, has taken 20 dB: a share of readings."""
    within = []
    for cutoff in (2000.0, 4000.0, 8000.0, 12_000.0):
        lowpass = LowpassFilter(type_, order, cutoff)
        frequencies, response = scipy.signal.sosfreqz(lowpass.sos(), worN=1 << 14, fs=48_000)
        end = frequencies[np.flatnonzero(np.abs(response) ** 2 > 0.1)[-1]]
        for x, bandwidth_hz in held_out():
            expected = min(end, cutoff) if resampled else end
            if expected < 0.9 * bandwidth_hz:
                low = simulate_low_resolution(x, lowpass) if resampled else apply_filter(x, lowpass)
                within.append(bandwidth(low, 48_000) == pytest.approx(expected, rel=0.2))
    assert np.mean(within) >= share


@pytest.mark.training
def test_bandwidth_of_full_band_recordings():
    for x in recordings("train") + recordings("test"):
        assert bandwidth(x, 48_000) >= 16_000


def test_a_click_does_not_hide_the_bandwidth():
    x = recordings("test")[0]
    low = simulate_low_resolution(x, LowpassFilter("cheby1", 8, 4000.0))
    low[len(low) // 2] += 0.5
    assert bandwidth(low, 48_000) == pytest.approx(4000, rel=0.1)


def test_bandwidth_is_that_of_the_bright_parts():
    rng = np.random.default_rng(0)
    bright = rng.standard_normal(48_000 * 10).astype(np.float32) * 0.1
    dull = simulate_low_resolution(np.tile(bright, 3), LowpassFilter("cheby1", 8, 3000.0))
    assert bandwidth(np.concatenate([dull, bright]), 48_000) == 24_000
    assert bandwidth(np.concatenate([dull, np.zeros_like(bright)]), 48_000) == pytest.approx(3000, rel=0.1)
    meter = BandwidthMeter(48_000)
    for piece in np.array_split(dull, 77):
        meter.update(piece)
    assert meter.value() == bandwidth(dull, 48_000)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sample_rate", [8000, 44_100, 48_000, 96_000])
def test_bandwidth_never_raises(sample_rate):
    rng = np.random.default_rng(0)
    seconds = np.zeros(2 * sample_rate, np.float32)
    noise = rng.standard_normal(len(seconds)).astype(np.float32)
    click = seconds.copy()
    click[sample_rate // 2] = 0.5
    for nothing in (seconds[:0], seconds[:1], seconds, seconds + 0.5, 1e-6 * noise):
        assert bandwidth(nothing, sample_rate) == 0
    for full in (0.1 * noise, 1e-3 * noise, np.sign(noise), noise[:100], click):
        assert bandwidth(full, sample_rate) == sample_rate / 2
