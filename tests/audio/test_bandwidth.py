"""The found end of a band in sounds that hold little else than lows."""

import warnings

import numpy as np
import pytest

from flashsr_jax.audio.bandwidth import read_block


def lows(rate: int, band_hz: float, rests_hz: float, rests_db: float = -60.0) -> np.ndarray:
    """Three seconds of noise up to `band_hz`, and faint rests from there to `rests_hz`, as a codec leaves them."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(3 * rate))
    hz = np.fft.rfftfreq(3 * rate, 1 / rate)
    gain = np.where(hz < band_hz, 1.0, np.where(hz < rests_hz, 10 ** (rests_db / 20), 1e-6))
    return (0.05 * np.fft.irfft(spectrum * gain, 3 * rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [2000, 4000, 8000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("rests_hz", [900, 1000, 1080, 1150])
def test_rests_near_the_lowest_wall_are_read(rate, rests_hz):
    """Where walls are looked for begins at 1 kHz: rests that end there left nothing to look at, and made an error.

    2 kHz, whose half is that, is what is read of a file whose samples were held.
    """
    for band_hz in (200, 400, 550):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cutoff_hz = read_block(lows(rate, band_hz, rests_hz), rate).cutoff_hz
        if rate == 2000:
            assert cutoff_hz == rate / 2
        else:  # the edge of a window of 43 ms, smoothed
            assert rests_hz <= cutoff_hz < rests_hz + 80
