"""Log-mel spectrogram and normalisation against the published front end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from flashsr_jax.audio.front_end import denormalise, istft, log_mel, normalisation, normalise, only_band, stft
from flashsr_jax.devices import sharding

from helpers.parity import golden


def test_log_mel_parity():
    arrays = golden("audio_frontend")
    ours, expected = np.asarray(jax.jit(log_mel)(arrays["mel_input"])), arrays["log_mel"]
    assert ours.shape == expected.shape == (1, 128, 256)
    magnitude = np.exp(expected)
    assert np.abs(np.exp(ours) - magnitude).max() <= 1e-5 * magnitude.max()
    difference = np.abs(ours - expected)
    assert difference[expected > -9].max() <= 5e-4
    assert difference.max() <= 5e-3


@pytest.mark.parametrize("samples", [0, 480, 4801])
def test_log_mel_refuses_parts_of_frames_and_less_than_the_padding(samples):
    with pytest.raises(ValueError, match=f"multiple of 480 samples, more than 784; got {samples}"):
        log_mel(jnp.zeros((1, samples)))


def test_normalisation_uses_the_low_resolution_statistics():
    @jax.jit
    def there_and_back(lr, hr):
        stats = normalisation(lr)
        normal = normalise(hr, stats)
        return normalise(lr, stats), normal, denormalise(normal, stats)

    hr = np.array([[0.0, 1.0, 3.0, 1.0]])
    lr_normal, hr_normal, back = there_and_back(np.array([[0.0, 1.0, 2.0, 1.0]]), hr)
    np.testing.assert_allclose(lr_normal, [[-0.5, 0, 0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(hr_normal, [[-0.5, 0, 1.0, 0]], atol=1e-6)
    np.testing.assert_allclose(back, hr, atol=1e-6)


def test_only_a_band_is_kept_of_each_waveform():
    n = np.arange(4800) / 48_000
    low, middle, high = (np.sin(2 * np.pi * hz * n) for hz in (1000.0, 6000.0, 20_000.0))
    x = np.stack([low + middle + high] * 3).astype(np.float32)
    keep = jax.jit(only_band)
    kept = keep(x, np.array([2000.0, 6000.0, 0.0]), np.array([20_000.0, 24_000.0, 6000.0]))
    np.testing.assert_allclose(kept, [middle, middle + high, low], atol=1e-5)
    alternating = np.stack([(-1.0) ** np.arange(480)])  # 24 kHz itself
    np.testing.assert_allclose(keep(alternating, np.zeros(1), np.array([24_000.0])), alternating, atol=1e-6)


def test_a_program_of_the_stft_holds_no_index_of_each_sample():
    """512 frames of 2048 samples: 4 MB, were they counted."""
    signal = jax.ShapeDtypeStruct((1, 511 * 480 + 2048), jnp.float32)
    program = export.export(jax.jit(lambda x: jnp.abs(stft(x, 2048, 480))))(signal)
    assert program.out_avals[0].shape == (1, 512, 1025)
    assert len(program.serialize()) < 100_000


def test_istft_inverts_the_stft_of_any_signal():
    x = np.random.default_rng(0).standard_normal((2, 40 * 24)).astype(np.float32)
    spectrum = jax.jit(stft, static_argnums=(1, 2))(np.pad(x, ((0, 0), (36, 36))), 96, 24)
    assert spectrum.shape == (2, 40, 49)
    np.testing.assert_allclose(jax.jit(istft)(spectrum), x, atol=2e-5)


def test_istft_of_a_changed_spectrum_is_the_least_squares_estimate():
    """Griffin & Lim 1984, eq. 6, frame by frame: sum of windowed frames over sum of squared windows."""
    rng = np.random.default_rng(1)
    spectrum = (rng.standard_normal((1, 6, 9)) + 1j * rng.standard_normal((1, 6, 9))).astype(np.complex64)
    window, hop = np.sin(np.pi * np.arange(16) / 16) ** 2, 4
    total, weight = np.zeros(6 * hop + 12), np.zeros(6 * hop + 12)
    for frame, values in enumerate(spectrum[0]):
        total[frame * hop : frame * hop + 16] += window * np.fft.irfft(values)
        weight[frame * hop : frame * hop + 16] += window**2
    np.testing.assert_allclose(jax.jit(istft)(spectrum)[0], (total / np.maximum(weight, 1e-9))[6:-6], atol=1e-5)


def test_the_transforms_of_a_sharded_batch_stay_where_they_are():
    """Forward and backward, as in a training step: without the mesh in context XLA gathered every frame."""
    mesh = sharding.make_mesh(8, 1)
    x = np.random.default_rng(0).standard_normal((8, 4800)).astype(np.float32)
    sharded = sharding.to_global(x, mesh)

    def loss(x):
        return jnp.sum(jnp.square(log_mel(x, 32)))

    def loss_in_mesh(x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return loss(x)

    plain, own = (jax.jit(jax.grad(f)).lower(sharded).compile() for f in (loss, loss_in_mesh))
    assert " all-gather(" not in own.as_text()
    np.testing.assert_allclose(own(sharded), plain(sharded), rtol=1e-4, atol=1e-5)
