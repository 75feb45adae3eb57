"""The found end of a band in sounds that hold little else than lows, and in those that a poor resampler mirrored."""

import csv
import warnings

import numpy as np
import pytest
import soundfile as sf
import soxr

from flashsr_jax.audio.bandwidth import read_block
from flashsr_jax.audio.lowpass import LowpassFilter, apply_filter

from helpers import RECORDINGS

with (RECORDINGS / "recordings.csv").open(newline="") as table:
    ROWS = [row for row in csv.DictReader(table) if row["split"] == "test"]


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


def recording(row: dict[str, str], rate: int) -> np.ndarray:
    """Five seconds."""
    x_NxC, own_rate = sf.read(RECORDINGS / row["path"], dtype="float32", always_2d=True)
    return soxr.resample(x_NxC[: 5 * own_rate, 0], own_rate, rate, "VHQ")


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["path"])
def test_the_mirror_image_of_a_poor_resampler_does_not_count(row, rate):
    """Of lines between the samples, to rates most of which are no multiple of theirs."""
    for low_rate in (8000, 11_025, 12_000, 16_000):
        x = recording(row, low_rate)
        time = np.arange(int((len(x) - 1) / low_rate * rate)) / rate * low_rate
        joined = np.interp(time, np.arange(len(x)), x).astype(np.float32)
        assert 0.85 * low_rate / 2 <= read_block(joined, rate).cutoff_hz <= 1.03 * low_rate / 2, low_rate


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["path"])
def test_full_band_sound_has_no_mirror(row, rate):
    """Nor has a carrier with sidebands, at half a usual rate, of one level on both sides."""
    x = recording(row, rate)
    assert read_block(x, rate).cutoff_hz > 15_000
    time = np.arange(len(x)) / rate
    ringing = (x / np.abs(x).max() * np.sin(2 * np.pi * 8000 * time) + 1e-3 * x).astype(np.float32)
    assert read_block(ringing, rate).cutoff_hz > 8500


LEAKING = (
    "music/lezaarth-tabla/test.flac",
    "music/mauricio-duarte/ubports.ogg",
    "effects/bja-pacific-kit/test.flac",
    "effects/rumpf-kit/beats_01-32.flac",
)


@pytest.mark.parametrize("path", LEAKING)
def test_what_a_codec_leaks_over_its_band_is_no_sound(path, tmp_path):
    """Vorbis at its lowest quality ends at 15.8 kHz, and its short blocks leak at least 2 kHz further."""
    sf.write(tmp_path / "x.ogg", recording({"path": path}, 48_000), 48_000, subtype="VORBIS", compression_level=1.0)
    reading = read_block(sf.read(tmp_path / "x.ogg", dtype="float32")[0], 48_000)
    assert 14_500 < reading.cutoff_hz < 15_900
    assert reading.end_hz == reading.cutoff_hz


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["path"])
def test_the_skirt_of_a_butterworth_filter_is_kept(row):
    """Of order 8, forward and backward: what it leaves over the cutoff is sound."""
    reading = read_block(apply_filter(recording(row, 48_000), LowpassFilter("butter", 8, 7000.0)), 48_000)
    assert 6500 < reading.cutoff_hz < 8500
    assert reading.end_hz > 1.1 * reading.cutoff_hz
