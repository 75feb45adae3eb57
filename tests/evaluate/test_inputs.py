"""What systems get of an original: how high it reaches, and that nothing moves."""

import numpy as np
import pytest

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.evaluate.inputs import INPUTS
from flashsr_jax.evaluate.references import Reference

ORIGINAL = Reference("noise", "", "", 0.0, np.random.default_rng(0).normal(0, 0.1, 61_441).astype(np.float32))


def level_db(x_N: np.ndarray, rate: int, low: float, high: float) -> float:
    """Mean level of a band, given in shares of half the rate."""
    power_K = np.square(np.abs(np.fft.rfft(x_N * np.hanning(len(x_N))))) / len(x_N)
    hertz = np.fft.rfftfreq(len(x_N), 1 / rate) / (rate / 2)
    return float(10 * np.log10(power_K[(hertz > low) & (hertz < high)].mean()))


@pytest.mark.parametrize("cutoff_hz", [4000.0, 5512.5, 8000.0, 12_000.0])
@pytest.mark.parametrize(("kind", "fills"), [("file", False), ("full-file", True)])
def test_a_file_holds_what_its_kind_says(kind, fills, cutoff_hz):
    given = INPUTS[kind](ORIGINAL, cutoff_hz)
    rate = round(2 * cutoff_hz)
    assert given.sample_rate == rate and abs(len(given.file_M) - len(ORIGINAL.audio) * rate / SAMPLE_RATE) <= 1
    top_db, band_db = (level_db(given.file_M, rate, *edges) for edges in ((0.985, 0.999), (0.3, 0.9)))
    assert (top_db > band_db - 2) if fills else (top_db < band_db - 40)
    assert 0.9 * cutoff_hz < given.end_hz < 0.98 * cutoff_hz
    # What comes back to 48 kHz is the original's band, in its place.
    spectra = [np.fft.rfft(x_N * np.hanning(len(x_N))) for x_N in (ORIGINAL.audio, given.low_N)]
    original_K, low_K = (
        spectrum_K[: int(0.9 * cutoff_hz * len(ORIGINAL.audio) / SAMPLE_RATE)] for spectrum_K in spectra
    )
    assert len(given.low_N) == len(ORIGINAL.audio)
    assert np.square(np.abs(low_K - original_K)).sum() < 1e-3 * np.square(np.abs(original_K)).sum()
