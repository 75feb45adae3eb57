"""The high band's discriminators see what was added over the cutoff, and nothing else of a waveform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.models.discriminators import Band, HighBandDiscriminator

SAMPLES = 2880  # 60 ms: bins of 16.7 Hz
CUTOFF, BANDWIDTH = 6000.0, 16_000.0


@pytest.fixture(scope="module")
def judge():
    module = HighBandDiscriminator(((256, 64), (512, 128)), channels=4, periods=(2, 3), period_channels=2)
    band = Band(jnp.full(2, CUTOFF), jnp.full(2, BANDWIDTH))
    low = 0.1 * np.random.default_rng(0).standard_normal((2, SAMPLES)).astype(np.float32)
    params = jax.jit(module.init)(jax.random.key(0), low, low, band)
    return jax.jit(lambda x: module.apply(params, x, low, band)), low


def tone(hz):
    return 0.1 * np.sin(2 * np.pi * hz * np.arange(SAMPLES) / SAMPLE_RATE).astype(np.float32)


def differences(judge, hz):
    """Largest difference that a tone makes in the logits of each discriminator."""
    of, low = judge
    high = low + tone(9000.0)
    return [float(np.abs(a - b).max()) for a, b in zip(of(high)[0], of(high + tone(hz))[0], strict=True)]


@pytest.mark.parametrize("hz", [100.0, 3000.0, 5900.0, 16_100.0, 22_000.0])
def test_a_change_under_the_cutoff_or_over_the_bandwidth_changes_nothing(judge, hz):
    assert max(differences(judge, hz)) < 1e-4


@pytest.mark.parametrize("hz", [6100.0, 12_000.0, 15_900.0])
def test_a_change_between_them_changes_what_each_says(judge, hz):
    assert min(differences(judge, hz)) > 1e-3


def test_logits_count_by_the_share_of_their_bins_that_is_judged(judge):
    of, low = judge
    logits, features, weights = of(low)
    assert [w.shape for w in weights[:2]] == [(2, 1, 4), (2, 1, 8)] and [w.shape for w in weights[2:]] == [(), ()]
    np.testing.assert_allclose(weights[0][0, 0], [0, 1, 2 / 3, 0], atol=0.05)  # of 6 kHz each
    assert all(logit.shape[2] == w.shape[2] for logit, w in zip(logits[:2], weights[:2], strict=True))
    assert len(features) == 4
