"""What happens between the networks, on numbers that can be followed by hand."""

import numpy as np

from flashsr_jax.audio.mel import mel_frequencies
from flashsr_jax.models.pipeline import EXPANSION_LIMIT, expanded

BINS = 256
HZ = mel_frequencies(BINS + 2)[1:-1]


def test_expansion_makes_loud_moments_louder_and_pauses_no_quieter():
    level_F = np.linspace(-8, -2, BINS)
    mel = (np.array([-3.0, -1.0, 1.0, 3.0])[:, None] + level_F).astype(np.float32)
    moved = np.asarray(expanded(mel[None], 0.1))[0] - mel
    np.testing.assert_allclose(moved[:2], 0, atol=1e-6)
    np.testing.assert_allclose(
        moved[2:, HZ < 6000], np.broadcast_to([[0.1], [0.3]], moved[2:, HZ < 6000].shape), atol=2e-6
    )
    np.testing.assert_array_equal(moved[:, HZ > 8000], 0)
    between = moved[3, (HZ > 6000) & (HZ < 8000)]
    assert between.size > 5 and np.all(np.diff(between) < 0) and between.min() > 0 and between.max() < 0.3
    assert expanded(mel, 0.0) is mel


def test_expansion_ends_at_its_limit():
    """A click in a second of silence is no louder than by 4.3 dB, however far it is over the mean."""
    mel = np.full((1, 100, BINS), -11.5, np.float32)
    mel[0, 50] = 2.0
    moved = np.asarray(expanded(mel, 1.0)) - mel
    assert moved[0, 50].max() == np.float32(EXPANSION_LIMIT) and not np.delete(moved, 50, axis=1).any()
