"""A high band is added whatever faint floor lies over the cutoff, and a floor that is part of the sound goes on."""

import json

import numpy as np
import pytest
import scipy.signal
import soundfile as sf
import soxr

from flashsr_jax.cli import main

from helpers import RECORDINGS
from helpers.floors import loud_band_db, with_floor

RATE = 48_000
CUTOFF_HZ = 3900.0


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Three seconds that end at 3.9 kHz, at full scale, with a pause of one before them."""
    x, rate = sf.read(RECORDINGS / "speech/klettres-german/letters.ogg", dtype="float32", always_2d=True)
    low_pass = scipy.signal.cheby1(10, 0.05, CUTOFF_HZ, fs=RATE, output="sos")
    x_N = scipy.signal.sosfiltfilt(low_pass, soxr.resample(x[:, 0], rate, RATE, "VHQ")[: 3 * RATE])
    return np.concatenate([np.zeros(RATE), x_N / np.abs(x_N).max()])


def level_db(x_N: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Mean square per Hz of a band."""
    power_K = np.square(np.abs(np.fft.rfft(x_N * np.hanning(len(x_N)))))
    hz_K = np.fft.rfftfreq(len(x_N), 1 / RATE)
    return float(10 * np.log10(power_K[(hz_K >= low_hz) & (hz_K < high_hz)].mean() / len(x_N) + 1e-20))


def added_db(y_N: np.ndarray) -> float:
    """The added band beside the band under the cutoff."""
    return level_db(y_N, 1.15 * CUTOFF_HZ, 20_000) - level_db(y_N, 100, 0.8 * CUTOFF_HZ)


@pytest.mark.training
def test_the_added_band_is_that_of_the_clean_file(tmp_path, capfd, speech):
    """Within 3 dB at peaks of 0 to -60 dBFS and floors of -100 to -50 dBFS, where the sound is loud; a pause of hiss
    goes on without a step."""
    floors = ((0, -300), (0, -50), (0, -70), (-10, -60), (-10, -80), (-40, -100), (-20, "16 bit"), (-40, "16 bit"))
    for peak_db, floor in floors:
        x_N = with_floor(speech, peak_db, floor)
        sf.write(tmp_path / f"{peak_db}{floor}.wav", x_N, RATE, subtype="PCM_16" if floor == "16 bit" else "FLOAT")
    assert main(["upscale", f"{tmp_path}/*.wav", "-o", f"{tmp_path}/out/", "--json"]) == 0
    out, err = capfd.readouterr()
    assert all(json.loads(line)["added"] for line in out.splitlines()) and "nothing was added" not in err
    outputs = {kind: sf.read(tmp_path / "out" / "{}{}.wav".format(*kind))[0] for kind in floors}
    over = {kind: loud_band_db(y_N, speech, 1.15 * CUTOFF_HZ, 20_000) - kind[0] for kind, y_N in outputs.items()}
    for kind in floors:
        assert over[kind] == pytest.approx(over[0, -300], abs=3), kind
    pause = outputs[0, -50][RATE // 5 : 4 * RATE // 5]
    hiss_db = level_db(pause, 1000, 3000)
    for low_hz in (3000, 4000, 5000, 8000, 12_000, 18_000):
        assert level_db(pause, low_hz, 1.2 * low_hz) == pytest.approx(hiss_db, abs=2), low_hz


@pytest.mark.training
def test_where_nothing_was_added_that_is_said(tmp_path, capfd, speech):
    sf.write(tmp_path / "in.wav", 0.01 * speech, RATE, subtype="PCM_16")
    assert main(["upscale", f"{tmp_path}/in.wav", "-o", f"{tmp_path}/out.wav", "--no-lowpass", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["added"] is False
    assert "in.wav: nothing was added over 4.2 kHz: try --lowpass, or another --cutoff HZ" in err


@pytest.mark.training
def test_what_took_the_place_of_images_was_added(tmp_path, capfd, speech):
    """Samples that were held have images over the cutoff, louder than what the networks put there, 9 dB softer."""
    sf.write(tmp_path / "in.wav", np.repeat(soxr.resample(0.5 * speech[RATE:], RATE, 8000), 6), RATE)
    files = [f"{tmp_path}/in.wav", "-o", f"{tmp_path}/out.wav"]
    assert main(["upscale", *files, "--json", "--high-band-gain", "-9"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["added"] is True and "nothing was added" not in err
    assert added_db(sf.read(tmp_path / "out.wav")[0]) < added_db(sf.read(tmp_path / "in.wav")[0])


@pytest.mark.training
def test_a_jingle_is_passed_through_and_the_rest_upscaled_without_a_click(tmp_path, capfd, speech):
    """Also: mixed to one channel, and at 44.1 kHz with the input's exact length."""
    x, rate = sf.read(RECORDINGS / "music/mauricio-duarte/ubports.ogg", dtype="float32", always_2d=True)
    jingle = 0.5 * soxr.resample(x[:, 0], rate, RATE, "VHQ")[: 7 * RATE]
    x_N = np.concatenate([jingle, 0.5 * np.resize(speech[RATE:], 13 * RATE)])
    sf.write(tmp_path / "in.wav", np.stack([x_N, x_N], axis=1), RATE, subtype="PCM_24")
    command = ["upscale", f"{tmp_path}/in.wav", "--mono", "--json", "-o"]
    assert main([*command, f"{tmp_path}/out.wav"]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out)
    assert [stretch["passed_through"] for stretch in report["stretches"]] == [True, False]
    assert "% ends at 4.2 kHz, " in err and "% is full band already and stays" in err
    y_N, _ = sf.read(tmp_path / "out.wav")
    assert y_N.shape == x_N.shape
    border = round(report["stretches"][0]["end"] * RATE)
    assert border == pytest.approx(7 * RATE, abs=0.2 * RATE)
    np.testing.assert_allclose(y_N[: border - 4000], x_N[: border - 4000], atol=1e-4)
    assert added_db(y_N[border + 4000 :]) > added_db(x_N[border + 4000 :]) + 10
    # A click would stick out of the highest band, which is quieter on both sides than in the jingle's middle.
    high_N = scipy.signal.sosfiltfilt(scipy.signal.butter(6, 16_000, "high", fs=RATE, output="sos"), y_N)
    assert np.abs(high_N[border - 4000 : border + 4000]).max() < np.abs(high_N).max()
    assert main([*command, f"{tmp_path}/cd.wav", "--out-rate", "44100"]) == 0
    info = sf.info(tmp_path / "cd.wav")
    assert (info.samplerate, info.frames, info.channels) == (44_100, round(len(x_N) * 44.1 / 48), 1)
