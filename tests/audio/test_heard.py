"""Where the band of a stream ends, as far as it has been heard."""

import numpy as np
import pytest
import soxr

from flashsr_jax.audio.bands import Bands, BandsByStretch
from flashsr_jax.audio.heard import LOWER, NETWORKS_ALONE, BandsAsHeard

from helpers.sounds import RATE


def heard(*channels: np.ndarray, rate: int = RATE, size: int = 9999, highest_hz: float = RATE / 2) -> BandsByStretch:
    x_CxN = np.stack(channels).astype(np.float32)
    found = BandsAsHeard(rate, len(channels), highest_hz)
    blocks = [x_CxN[:, start : start + size] for start in range(0, x_CxN.shape[1], size)]
    for given, block in zip(found.listening(iter(blocks)), blocks, strict=True):
        assert given is block
    return found.bands(0)


def at(bands: BandsByStretch, seconds: float, channel: int = 0) -> Bands | None:
    """What is done at a time."""
    return [what for first, what in bands.parts[channel] if first <= seconds * RATE][-1]


def test_a_stream_is_treated_by_its_first_quarter_of_a_second(dull):
    bands = heard(dull[: 10 * RATE])
    assert at(bands, 0.2) == NETWORKS_ALONE
    assert all(at(bands, time).cutoff_hz == pytest.approx(3900, rel=0.1) for time in (0.4, 5, 9.9))
    assert at(bands, 1).lowpass and at(bands, 1).keep_low_band


def test_the_networks_have_what_comes_before_the_first_sound(speech):
    x_N = np.concatenate([np.zeros(3 * 16_000), soxr.resample(speech[: 6 * RATE], RATE, 16_000, "VHQ")])
    bands = heard(x_N, rate=16_000, highest_hz=6880)
    assert at(bands, 3.9) == NETWORKS_ALONE
    assert at(bands, 4.1).cutoff_hz == at(bands, 9).cutoff_hz == 6880


def test_full_band_passes_through(music, speech):
    for channel in heard(music[: 12 * RATE], speech[: 12 * RATE]).parts:
        assert channel[0][1] == NETWORKS_ALONE and channel[1][0] < 0.3 * RATE
        assert all(what is None for _, what in channel[1:])


def test_more_of_the_band_counts_at_once_and_less_after_some_seconds(dull, music):
    x_N = np.concatenate([dull[: 8 * RATE], music[: 8 * RATE], dull[: 20 * RATE]])
    bands = heard(x_N)
    assert at(bands, 8).cutoff_hz == pytest.approx(3900, rel=0.1)
    assert at(bands, 9.1) is None and at(bands, 16 + LOWER - 0.1) is None
    assert at(bands, 16 + 5 + LOWER + 1).cutoff_hz == pytest.approx(3900, rel=0.1)


def test_a_dull_or_quiet_passage_changes_nothing(speech, dull):
    quiet = np.concatenate([dull[: 6 * RATE], 1e-3 * speech[: 8 * RATE], np.zeros(6 * RATE), dull[: 6 * RATE]])
    assert {round(what.cutoff_hz, -3) for _, what in heard(quiet).parts[0][1:]} == {4000}
    pause = np.concatenate([speech[: 6 * RATE], dull[: 2 * RATE], speech[: 6 * RATE]])
    assert {what for _, what in heard(pause).parts[0][1:]} == {None}


def test_channels_are_heard_apart_and_blocks_of_any_length_alike(speech, dull):
    x_CxN = np.stack([dull[: 9 * RATE], np.roll(speech, RATE)[: 9 * RATE]])
    once = heard(*x_CxN, size=9 * RATE)
    assert at(once, 5, 0).cutoff_hz == pytest.approx(3900, rel=0.1) and at(once, 5, 1) is None
    assert heard(*x_CxN, size=777) == once


def test_what_is_over_is_forgotten(dull, music):
    x_N = np.concatenate([dull[: 4 * RATE], music[: 4 * RATE], dull[: 20 * RATE]]).astype(np.float32)
    found = BandsAsHeard(RATE, 1, RATE / 2)
    list(found.listening([x_N[None]]))
    whole, later = found.bands(0), found.bands(27 * RATE)
    assert len(later.parts[0]) == 1 < len(whole.parts[0])
    window_CxN = x_N[None, -RATE:]
    np.testing.assert_array_equal(later.before(window_CxN, 27 * RATE), whole.before(window_CxN, 27 * RATE))


def test_samples_that_are_none_are_left_to_the_resampler(dull):
    x_N = dull[: 3 * RATE].astype(np.float32)
    x_N[100] = np.nan
    assert at(heard(x_N, size=RATE), 2).cutoff_hz == pytest.approx(3900, rel=0.1)
