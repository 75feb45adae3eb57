"""The limiter: under the ceiling between the samples too, the rest of the sound untouched, no click, any blocks."""

import numpy as np
import scipy.signal

from flashsr_jax.audio.limiter import FULL_SCALE, REACH, TRUE_PEAK_CEILING, Limiter

RATE = 48_000
TIME = np.arange(2 * RATE) / RATE


def limited(low: np.ndarray, added: np.ndarray, block: int = 7001) -> tuple[np.ndarray, float]:
    both = np.stack([low + added, added]).astype(np.float32)
    limiter = Limiter()
    blocks = (both[..., k : k + block] for k in range(0, both.shape[-1], block))
    return np.concatenate(list(limiter.added(blocks, TRUE_PEAK_CEILING)), axis=-1), limiter.least


def true_peak(x: np.ndarray) -> float:
    return float(np.abs(scipy.signal.resample(x, 16 * x.shape[-1], axis=-1)).max())


def sound(low_hz: float = 5000, high_hz: float = 16_000) -> tuple[np.ndarray, np.ndarray]:
    """A low band near full scale and bursts of a high one that exceed it together, in two channels (2, N)."""
    rng = np.random.default_rng(0)
    high = scipy.signal.sosfilt(
        scipy.signal.butter(6, (low_hz, high_hz), "band", fs=RATE, output="sos"), rng.standard_normal(len(TIME))
    )
    bursts = 0.35 * high * (np.sin(2 * np.pi * 2 * TIME) > 0.8)
    low = 0.9 * np.sin(2 * np.pi * 440 * TIME)
    return np.stack([low, 0.5 * low]), np.stack([bursts, bursts])


def test_the_added_band_alone_is_turned_down():
    low, added = sound()
    y, least = limited(low, added)
    assert true_peak(low + added) > 1.3 and true_peak(y) <= TRUE_PEAK_CEILING * 1.005 and least < 0.5
    tone = np.exp(-2j * np.pi * 440 * TIME)
    for channel, given in zip(y, low, strict=True):
        assert abs(20 * np.log10(np.abs(np.mean(channel * tone)) / np.abs(np.mean(given * tone)))) < 0.1
    # One gain for both channels: what was added to them stays the same.
    np.testing.assert_allclose((y - low)[0], (y - low)[1], atol=1e-6)


def test_the_peak_is_found_up_to_half_the_rate():
    """Where a wave has hardly more than two samples, its peaks lie far from them."""
    low, added = sound(16_000, 23_000)
    y, _ = limited(low, added)
    assert true_peak(low + added) > 1.2 and true_peak(y) <= TRUE_PEAK_CEILING * 1.005


def test_the_gain_makes_no_click():
    """Constants, so that the output is the gain: it goes down and up over 5 ms, not in a step."""
    added = np.full((1, RATE), 0.1)
    added[0, RATE // 2] = 0.9
    y, _ = limited(np.full((1, RATE), 0.5), added)
    gain = np.delete((y - 0.5)[0] / 0.1, RATE // 2)
    assert gain.min() < 0.6 and np.abs(np.diff(gain)).max() < 1.5 / REACH
    assert (np.abs(gain - 1) < 1e-5)[: RATE // 2 - 2 * REACH - 20].all()


def test_what_is_under_the_ceiling_stays_to_the_bit_and_blocks_do_not_matter():
    low, added = sound()
    y, least = limited(low / 2, added / 2)
    np.testing.assert_array_equal(y, ((low + added) / 2).astype(np.float32))
    assert least == 1
    whole, _ = limited(low, added, len(TIME))
    for block in (1000, 7001):
        np.testing.assert_array_equal(limited(low, added, block)[0], whole)


def test_a_whole_signal_is_kept_within_full_scale():
    low, added = sound()
    x = (1.2 * low + added).astype(np.float32)
    y = np.concatenate(
        list(Limiter().whole((x[:, k : k + 999] for k in range(0, x.shape[1], 999)), FULL_SCALE)), axis=1
    )
    assert y.shape == x.shape and np.abs(x).max() > 1.2 and np.abs(y).max() <= 1
    assert list(Limiter().whole([], FULL_SCALE)) == []
