"""How high what a resampler makes of a file reaches."""

import numpy as np
import pytest

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.resampling import BEST, PROMPT, passband_hz, reach_hz, resample_stream


@pytest.mark.parametrize(("quality", "within_db"), [(BEST, 1), (PROMPT, 2.5)])
@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 24_000, 32_000])
def test_the_filter_has_taken_10_db_where_a_rate_reaches(rate, quality, within_db):
    impulse = np.zeros((1, rate), np.float32)
    impulse[0, rate // 2] = 1
    y = np.concatenate(list(resample_stream([impulse], rate, 1, quality=quality)), axis=1)[0]
    level_db = 20 * np.log10(np.abs(np.fft.rfft(y, SAMPLE_RATE)))  # bins of 1 Hz
    assert level_db[round(reach_hz(rate, quality))] - level_db[100] == pytest.approx(-10, abs=within_db)


def test_what_is_not_resampled_reaches_the_top():
    for hz in (reach_hz, passband_hz):
        assert hz(SAMPLE_RATE) == hz(96_000) == SAMPLE_RATE / 2


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 24_000, 44_100])
def test_the_best_filter_takes_nothing_from_its_passband(rate):
    time_N = np.arange(2 * rate) / rate
    x = np.sin(2 * np.pi * passband_hz(rate) * time_N).astype(np.float32)
    y = np.concatenate(list(resample_stream([x[None]], rate, 1)), axis=1)[0]
    inside = slice(SAMPLE_RATE // 2, -SAMPLE_RATE // 2)
    assert np.std(y[inside]) == pytest.approx(np.std(x), rel=0.005)
