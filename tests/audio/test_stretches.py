"""Where each channel's band ends, by stretch of time, and inputs whose end is hidden: floors, crackle, held samples."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import soxr

from flashsr_jax.audio.bandwidth import BandwidthMeter, bandwidth, read_block
from flashsr_jax.audio.stretches import Stretch, stretches

from helpers.sounds import RATE, low_passed, recording


def found(*channels: np.ndarray, sample_rate: int = RATE) -> list[list[Stretch]]:
    meters = [BandwidthMeter(sample_rate) for _ in channels]
    for meter, x_N in zip(meters, channels, strict=True):
        for piece_N in np.array_split(x_N.astype(np.float32), 7):
            meter.update(piece_N)
    return [list(channel) for channel in stretches(meters, sample_rate, len(channels[0]))]


def noise(samples: int, level_db: float) -> np.ndarray:
    return 10 ** (level_db / 20) * np.random.default_rng(1).standard_normal(samples)


def test_a_full_band_jingle_in_dull_speech(music, dull):
    (channel,) = found(np.concatenate([music, dull]))
    assert [stretch.passes for stretch in channel] == [True, False]
    assert channel[0].start == 0 and channel[1].end == 60 and channel[0].end == channel[1].start
    assert channel[1].start == pytest.approx(18, abs=0.2) and channel[1].cutoff_hz == pytest.approx(3900, rel=0.1)
    (channel,) = found(np.concatenate([dull[: 13 * RATE], music[: 6 * RATE], dull[: 13 * RATE]]))
    assert [stretch.passes for stretch in channel] == [False, True, False]
    assert [channel[1].start, channel[1].end] == pytest.approx([13, 19], abs=0.2)


def test_each_channel_has_its_own(speech, dull):
    (left,), (right,), (silent,) = found(dull[: 20 * RATE], np.roll(speech[: 20 * RATE], RATE), np.zeros(20 * RATE))
    assert left.cutoff_hz == pytest.approx(3900, rel=0.1) and not left.passes
    assert right.passes and right.cutoff_hz > 17_600
    assert silent == Stretch(0.0, 20.0, 0.0, 0.0) and silent.passes


def test_one_bandwidth_is_one_stretch(music, dull):
    """Whatever the sound does: pauses, levels, dull passages."""
    quiet = np.concatenate([dull[: 10 * RATE], 1e-3 * dull[: 10 * RATE], np.zeros(5 * RATE), dull[: 10 * RATE]])
    dark = np.concatenate([music, scipy.signal.lfilter([0.03], [1, -0.97], music), music])
    for x_N, passes in ((quiet, False), (dark, True), (noise(20 * RATE, -20), True)):
        (channel,) = found(x_N)
        assert [stretch.passes for stretch in channel] == [passes]


def test_quiet_noise_before_does_not_hide_the_end(dull):
    x_N = np.concatenate([noise(30 * RATE, -75), 0.5 * dull[: 10 * RATE] + noise(10 * RATE, -75)])
    assert bandwidth(x_N, RATE) == pytest.approx(3900, rel=0.1)
    assert not any(stretch.passes for stretch in found(x_N)[0])


def test_crackle_does_not_hide_the_end(music):
    x_N = low_passed(music[: 5 * RATE], 7800) * 0.5
    rng = np.random.default_rng(2)
    x_N[rng.integers(0, len(x_N), 100)] += 0.4 * rng.choice([-1, 1], 100)
    assert bandwidth(x_N, RATE) == pytest.approx(7800, rel=0.1)


@pytest.mark.parametrize("rate", [8000, 16_000])
@pytest.mark.parametrize("kind", ["held", "lines"])
@pytest.mark.parametrize("bits", [16, 24])
def test_samples_held_or_joined_by_lines(speech, rate, kind, bits):
    low_N = soxr.resample(0.5 * speech[: 3 * RATE], RATE, rate)
    factor = RATE // rate
    time_N = np.arange(3 * RATE) / factor
    x_N = np.repeat(low_N, factor) if kind == "held" else np.interp(time_N, np.arange(len(low_N)), low_N)
    reading = read_block((np.round(x_N * 2 ** (bits - 1)) / 2 ** (bits - 1)).astype(np.float32), RATE)
    assert 0.4 * rate <= reading.cutoff_hz <= reading.end_hz <= 0.5 * rate


@pytest.mark.parametrize("rest_db", [-50, -55])
def test_a_telephone_voice_in_a_codec_of_8_khz(speech, rest_db):
    """300 to 3400 Hz; over that the codec leaves rests up to 8 kHz, as loud as the voice makes them."""
    band = scipy.signal.butter(6, (300, 3400), "band", fs=RATE, output="sos")
    voice_N = 0.5 * scipy.signal.sosfiltfilt(band, speech[: 5 * RATE])
    envelope_N = np.sqrt(scipy.ndimage.uniform_filter1d(voice_N**2, 960))
    rests_N = low_passed(np.random.default_rng(3).standard_normal(len(voice_N)) * envelope_N, 8000)
    x_N = (voice_N + 10 ** (rest_db / 20) * rests_N).astype(np.float32)
    reading = read_block(x_N, RATE)
    assert 3300 <= reading.cutoff_hz <= 4100 and reading.end_hz < 6000


@pytest.mark.parametrize(
    ("peak_db", "floor_db"), [(0, -50), (-10, -60), (-20, -70), (-40, -90), (-20, "16 bit"), (-40, "16 bit")]
)
def test_the_end_is_read_over_a_floor(speech, music, peak_db, floor_db):
    for x_N, hz in ((speech, 3900), (music, 7800)):
        x_N = 10 ** (peak_db / 20) * low_passed(x_N[: 5 * RATE], hz)
        x_N = np.round(x_N * 2**15) / 2**15 if floor_db == "16 bit" else x_N + noise(len(x_N), floor_db)
        reading = read_block(x_N.astype(np.float32), RATE)
        assert reading.cutoff_hz == pytest.approx(hz, rel=0.1)
        assert hz < reading.end_hz < 1.3 * hz  # the low-pass takes nothing real, and all that lies over it


@pytest.mark.parametrize("peak_db", [-66, -70, -74])
def test_the_end_of_a_faint_signal_is_read_over_its_rounding(speech, music, peak_db):
    """A few steps of 16 bits, without dither: the rounding follows the sound, and is louder under the middle."""
    for x_N, hz in ((speech[: 20 * RATE], 3900), (music[: 10 * RATE], 7800)):
        x_N = np.round(10 ** (peak_db / 20) * low_passed(x_N / np.abs(x_N).max(), hz) * 2**15) / 2**15
        (channel,) = found(x_N)
        assert [stretch.cutoff_hz for stretch in channel] == [pytest.approx(hz, rel=0.1)]


def test_the_end_of_a_band_with_nothing_over_it_is_no_lower_than_its_last_sound():
    """A low-pass there takes nothing: gentle skirts are left to the bottom."""
    x_N = recording("music/mauricio-duarte/ubports.ogg", 5)
    for order in (4, 8):
        low_N = scipy.signal.sosfiltfilt(scipy.signal.butter(order, 4000, fs=RATE, output="sos"), x_N)
        end_hz = read_block(low_N.astype(np.float32), RATE).end_hz
        power_K = np.square(np.abs(np.fft.rfft(low_N * np.hanning(len(low_N)))))
        over = np.fft.rfftfreq(len(low_N), 1 / RATE) > end_hz
        assert 10 * np.log10(power_K[over].sum() / power_K.sum()) < -80
