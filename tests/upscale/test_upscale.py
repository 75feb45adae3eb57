"""Any length, rate and channel count through micro networks: noise, levels, channels, streams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soxr

from flashsr_jax.audio import HOP
from flashsr_jax.audio.bands import Bands, BandsByStretch
from flashsr_jax.audio.front_end import denormalise, normalisation, normalise
from flashsr_jax.errors import UserError
from flashsr_jax.models.pipeline import latent_shape, phase_noise_shape, sample_latent, super_resolve
from flashsr_jax.upscale import programs, stream
from flashsr_jax.upscale.model import Model, load_model
from flashsr_jax.upscale.stream import Settings, anchored_noise, upscale, upscale_stream
from flashsr_jax.upscale.windows import framing

from helpers.micro_model import MICRO, SPECTRAL, micro_params

FRAMES = framing(MICRO)


def sound(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, samples)).astype(np.float32) * 0.1


def blocks_of(x_CxN: np.ndarray, size: int):
    return (x_CxN[:, start : start + size] for start in range(0, x_CxN.shape[1], size))


def test_noise_is_anchored_to_absolute_time():
    key, shape = jax.random.key(3), (64, 32, 16)
    drawn = jax.jit(anchored_noise, static_argnums=2)
    noise = np.asarray(drawn(key, np.array([-6, 45, 45, 1000]), shape))
    np.testing.assert_array_equal(noise[0, 51:], noise[1, :13])
    np.testing.assert_array_equal(noise[1], noise[2])
    assert np.corrcoef(noise[0, :51].ravel(), noise[1, :51].ravel())[0, 1] == pytest.approx(0, abs=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)
    other = np.asarray(drawn(jax.random.key(4), np.array([-6, 45, 45, 1000]), shape))
    assert np.corrcoef(noise[0].ravel(), other[0].ravel())[0, 1] == pytest.approx(0, abs=0.02)


# ---- micro networks


@pytest.fixture(scope="module")
def model(weights) -> Model:
    return load_model(weights)  # from a file, whose programs other tests have, too


@pytest.fixture(scope="module")
def spoken(model):
    """Two seconds at 8 kHz, alone in one window, and its super-resolution."""
    x = sound(1, 16_000)[0]
    return x, upscale(model, x, 8000)


@pytest.mark.training
def test_one_window_is_the_pipeline_on_the_normalised_input(model, spoken):
    x, y = spoken
    lr = soxr.resample(x, 8000, 48_000, quality="VHQ")
    lr = np.pad(lr, (FRAMES.context, FRAMES.window - FRAMES.context - len(lr)), mode="reflect")[None]
    shape = latent_shape(MICRO, FRAMES.window)
    keys = jax.random.split(jax.random.key(0))
    posterior, initial = (anchored_noise(key, jnp.array([-6]), shape) for key in keys)
    stats = normalisation(lr)
    pipeline = jax.jit(super_resolve, static_argnums=1)
    hr = denormalise(pipeline(model.params, MICRO, normalise(lr, stats), posterior, initial), stats)
    expected = np.asarray(hr)[0, FRAMES.context : FRAMES.context + len(y)]
    np.testing.assert_allclose(y, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.training
def test_random_phases_are_those_of_absolute_time():
    """Two windows, of which the second begins at latent frame 3: each is the pipeline on its own, with its noises."""
    model = Model(SPECTRAL, jax.tree.map(jnp.asarray, micro_params(config=SPECTRAL)))
    samples = 128 * HOP
    x_2xN = sound(1, 2 * samples)[0].reshape(2, samples)
    frame_2 = np.array([-6, 3], np.int32)
    stats, seed = normalisation(x_2xN), np.uint32(7)
    keys = jax.random.split(jax.random.key(seed), 3)
    shape = latent_shape(SPECTRAL, samples)
    shapes = (shape, shape, phase_noise_shape(SPECTRAL, samples))
    posterior, initial, phases = (anchored_noise(k, frame_2, s) for k, s in zip(keys, shapes, strict=True))
    pipeline = jax.jit(super_resolve, static_argnums=1)
    expected = pipeline(model.params, SPECTRAL, normalise(x_2xN, stats), posterior, initial, phase_noise=phases)
    networks = (model.params, SPECTRAL, stream.Sampling(1, 1.0, "float32"))
    found = stream._super_resolve_batch(programs.run, *networks, x_2xN, stats, frame_2, seed)
    expected = np.asarray(denormalise(expected, stats))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    still = pipeline(model.params, SPECTRAL, normalise(x_2xN, stats), posterior, initial)
    assert np.abs(denormalise(still, stats) - found).max() > 0.01 * np.abs(expected).max()


def test_seeds(model, spoken):
    x, y = spoken
    np.testing.assert_array_equal(upscale(model, x, 8000, seed=0), y)
    assert np.abs(upscale(model, x, 8000, seed=1) - y).max() > 0.1 * np.abs(y).max()


@pytest.mark.training
def test_guidance_pushes_away_from_the_unconditional(model):
    """v_u + s (v_c - v_u): linear in s at one step, and 1 is the plain network."""
    shape = (1, *latent_shape(model.config, 128 * HOP))
    z_lr, noise = (jax.random.normal(jax.random.key(i), shape) for i in range(2))
    sample = jax.jit(sample_latent, static_argnums=(1, 4, 5))
    plain, guided, doubled = (sample(model.params["unet"], model.config, z_lr, noise, 1, s) for s in (1.0, 1.5, 2.0))
    np.testing.assert_allclose(guided - plain, (doubled - plain) / 2, atol=1e-4)
    unconditional = jnp.full_like(z_lr, -11.4981 * 0.3342)
    alone = sample(model.params["unet"], model.config, unconditional, noise, 1, 1.0)
    np.testing.assert_allclose(doubled, 2 * plain - alone, atol=1e-3)
    assert np.abs(guided - plain).max() > 0.01


def test_channels_with_the_same_sound_stay_the_same(model, spoken):
    x, y = spoken
    np.testing.assert_array_equal(upscale(model, np.stack([x, x, x]), 8000), np.stack([y, y, y]))


def test_channels_are_normalised_by_their_joint_peak(model, spoken):
    x, y = spoken
    quiet = upscale(model, np.stack([x, x / 8]), 8000)
    np.testing.assert_array_equal(quiet[0], y)
    alone = upscale(model, x / 8, 8000)
    assert np.abs(quiet[1] - alone).max() > 0.1 * np.abs(alone).max()


def test_the_level_of_the_input_is_the_level_of_the_output(model, spoken):
    x, y = spoken
    np.testing.assert_allclose(upscale(model, x / 4, 8000), y / 4, atol=0.01 * np.abs(y / 4).max())


def test_silent_channels_stay_silent(model, spoken):
    x, y = spoken
    silence = np.zeros_like(x)
    assert (upscale(model, silence, 8000) == 0).all()
    both = upscale(model, np.stack([silence, x]), 8000)
    assert (both[0] == 0).all()
    np.testing.assert_array_equal(both[1], y)


@pytest.mark.parametrize(("samples", "sample_rate"), [(0, 8000), (1, 44_100), (257, 22_050), (12_345, 16_000)])
def test_short_inputs(model, samples, sample_rate):
    y = upscale(model, sound(1, samples)[0], sample_rate)
    assert y.shape == (int(samples * 48_000 / sample_rate + 0.5),)
    assert np.isfinite(y).all() and y.dtype == np.float32


@pytest.mark.training
def test_a_stream_is_the_whole_and_the_same_programs_serve_all(model):
    x = sound(2, 8000 * 6)  # two windows
    programs._BEGUN.clear()  # of other tests' models
    whole = upscale(model, x, 8000)
    stream = list(upscale_stream(model, blocks_of(x, 700), 8000, channels=2))
    np.testing.assert_array_equal(np.concatenate(stream, axis=1), whole)
    assert len(programs._BEGUN) == 3


@pytest.mark.training
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_programs_are_begun_before_the_first_window_and_no_others_are_needed(model, dtype):
    programs._BEGUN.clear()
    begun = []

    def blocks():
        begun.extend(programs._BEGUN)
        yield np.zeros((1, 100))
        yield sound(1, 8000)

    settings = Settings(dtype=dtype)
    list(upscale_stream(model, blocks(), 8000, channels=1, settings=settings))
    assert len(begun) == 3 and list(programs._BEGUN) == begun


def test_what_passes_through_waits_for_no_program(model):
    programs._BEGUN.clear()
    x = sound(1, 48_000)
    through = BandsByStretch((((0, None),),))
    np.testing.assert_array_equal(upscale(model, x, 48_000, bands=through), x)
    assert not programs._BEGUN
    assert BandsByStretch((((0, None), (24_000, Bands(4000.0))),)).anything_restored


@pytest.mark.training
def test_batches_change_rounding_only(model):
    x = sound(3, 8000 * 2)
    a, b = upscale(model, x, 8000), upscale(model, x, 8000, batch=2)
    np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(a).max())


def test_bad_input(model):
    with pytest.raises(UserError, match="3000 Hz.*4000 Hz or more"):
        upscale(model, np.zeros(100), 3000)
    with pytest.raises(UserError, match=r"got \(1, 2, 100\)"):
        upscale(model, np.zeros((1, 2, 100)), 8000)
    x = sound(2, 300_000)
    x[1, 270_001] = np.nan
    with pytest.raises(UserError, match="sample 270001 of channel 2 is nan"):
        upscale(model, x, 48_000)
