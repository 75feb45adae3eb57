"""Log-mel spectrogram and normalisation against the published front end."""

import jax.numpy as jnp
import numpy as np
import pytest
from parity import golden

from flashsr_jax.audio import denormalise, log_mel, normalisation, normalise


def test_log_mel_parity():
    arrays = golden("audio_frontend")
    ours, expected = np.asarray(log_mel(arrays["mel_input"])), arrays["log_mel"]
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
    lr = jnp.array([[0.0, 1.0, 2.0, 1.0]])
    hr = jnp.array([[0.0, 1.0, 3.0, 1.0]])
    stats = normalisation(lr)
    np.testing.assert_allclose(normalise(lr, stats), [[-0.5, 0, 0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(normalise(hr, stats), [[-0.5, 0, 1.0, 0]], atol=1e-6)
    np.testing.assert_allclose(denormalise(normalise(hr, stats), stats), hr, atol=1e-6)
