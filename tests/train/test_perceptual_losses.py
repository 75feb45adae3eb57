"""Zimtohrli and ViSQOL as losses of log-mels, against what the packages hear of the waveforms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import visqol as visqol_package
from libsvm import svmutil
from visqol.analysis_window import AnalysisWindow
from visqol.audio_utils import AudioSignal
from visqol.gammatone import GammatoneSpectrogramBuilder

from flashsr_jax.audio import HOP, SAMPLE_RATE
from flashsr_jax.audio.bands import SPLICE
from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.audio.lowpass import LowpassFilter, apply_filter
from flashsr_jax.audio.mel import mel_frequencies
from flashsr_jax.evaluate.perceptual import visqol, zimtohrli
from flashsr_jax.train import perceptual

from helpers import ROOT

FRAMES, BINS, CUTOFF_HZ = 256, 256, 4000.0
mel_of = jax.jit(lambda x: log_mel(x, BINS))
zimtohrli_loss, visqol_loss = jax.jit(perceptual.zimtohrli_loss), jax.jit(perceptual.visqol_loss)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """2.56 s of a voice and of drums, full band, at 48 kHz."""
    recordings = ROOT / "tests" / "recordings"
    names = ("speech/ktuberling-french", "effects/bja-pacific-kit")
    return [soundfile.read(_one(recordings / name))[0][: FRAMES * HOP].astype(np.float32) for name in names]


def _one(folder: Path) -> Path:
    return min(folder.glob("*.flac"))


def estimates(x: np.ndarray) -> list[np.ndarray]:
    """The low band of x, and over it: x's at three levels, x's backwards in time, noise under x's envelope, steady
    noise, and nothing."""
    low = apply_filter(x, LowpassFilter("cheby1", 8, CUTOFF_HZ)).astype(np.float32)
    high = x - low
    envelope = np.sqrt(np.convolve(high**2, np.ones(960) / 960, "same"))
    noise = np.random.default_rng(0).normal(size=len(x))
    noise -= apply_filter(noise, LowpassFilter("cheby1", 8, CUTOFF_HZ))
    added = (0.3 * high, 0.7 * high, 2 * high, high[::-1], envelope * noise, envelope.mean() * noise, 0 * high)
    return [(low + y).astype(np.float32) for y in added]


def mels(x: np.ndarray, ys: list[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """Log-mels of the estimates and, as often, of x, normalised, and the gain that undoes that."""
    peak = np.float32(np.abs(x).max())
    return mel_of(np.stack(ys) / peak), mel_of(np.stack([x] * len(ys)) / peak), jnp.full(len(ys), peak)


def test_the_losses_are_what_the_packages_hear(clips):
    for x in clips:
        ys = estimates(x)
        heard = [np.array([metric(x, y) for y in ys]) for metric in (zimtohrli, lambda a, b: 4.73 - visqol(a, b))]
        for of_package, loss, much in zip(heard, (zimtohrli_loss, visqol_loss), (0.01, 1.0), strict=True):
            lost = np.asarray(loss(*mels(x, ys)))
            assert np.corrcoef(of_package, lost)[0, 1] > 0.97
            assert (of_package > much).sum() >= 3
            np.testing.assert_allclose(lost[of_package > much], of_package[of_package > much], rtol=0.3)


def test_equal_mels_lose_nothing_and_silence_has_a_gradient(clips):
    silence = np.zeros_like(clips[0])
    both, _, gain = mels(clips[0], [clips[0], silence])
    for loss in (perceptual.zimtohrli_loss, perceptual.visqol_loss):
        summed = jax.jit(jax.value_and_grad(lambda x, y, loss=loss: jnp.sum(loss(x, y, gain))))
        assert summed(both, both)[0] == pytest.approx(0, abs=0.01)
        for x in (both, both[::-1]):
            assert np.isfinite(summed(x, both[::-1])[1]).all()


def test_the_listener_hears_the_inputs_own_low_band():
    estimate, target = np.ones((2, 3, BINS), np.float32), np.zeros((2, 3, BINS), np.float32)
    cutoff_hz, bandwidth_hz = np.array([4000.0, 8000.0]), np.array([24_000.0, 16_000.0])
    share = np.asarray(perceptual.heard(estimate, target, cutoff_hz, bandwidth_hz))[:, 0]
    hz = mel_frequencies(BINS + 2)[1:-1]
    for of_example, cutoff, bandwidth in zip(share, cutoff_hz, bandwidth_hz, strict=True):
        assert (of_example[hz < SPLICE[0] * cutoff] == 0).all()
        assert (of_example[(hz > SPLICE[1] * cutoff) & (hz < bandwidth)] == 1).all()
        assert (of_example[hz >= bandwidth] == 0).all()
        assert (np.diff(of_example[hz < bandwidth]) >= 0).all()


def test_the_bands_weigh_as_in_visqols_own_model():
    """The slope of its score by each band's similarity, from perfect to half over 4 kHz."""
    model = svmutil.svm_load_model(str(Path(visqol_package.__file__).parent / "model" / "libsvm_nu_svr_model.txt"))

    def score(similarity: np.ndarray) -> float:
        return svmutil.svm_predict([0], [dict(enumerate(similarity, start=1))], model, "-q")[0][0]

    first = min(perceptual.MOS)
    for over in (0.9, 0.5):
        at = np.where(np.arange(perceptual.BANDS) < first, 0.995, over)
        slopes = [score(at + 0.05 * band) - score(at - 0.05 * band) for band in np.eye(perceptual.BANDS)]
        expected = np.zeros(perceptual.BANDS)
        expected[list(perceptual.MOS)] = list(perceptual.MOS.values())
        np.testing.assert_allclose(np.array(slopes) / 0.1, expected, atol=0.07)


def test_visqols_bands_hear_noise_and_tones_as_the_packages_do():
    """Levels of what is loud in a band, within 3 of its halved decibels, since a mel holds amplitudes; noise in 0.5."""
    of_package = GammatoneSpectrogramBuilder(perceptual.BANDS, perceptual.FIRST_HZ)
    seconds = np.arange(FRAMES * HOP) / SAMPLE_RATE
    noise = 0.1 * np.random.default_rng(0).normal(size=FRAMES * HOP)
    tones = [0.5 * np.sin(2 * np.pi * hz * seconds) for hz in (6500, 8000, 11_000, 14_000)]
    for x, tolerance in ((noise, 0.5), *((tone, 3.0) for tone in tones)):
        spectrogram = of_package.build(AudioSignal(x, SAMPLE_RATE), AnalysisWindow(SAMPLE_RATE))
        np.testing.assert_allclose(perceptual._band_centres(), spectrogram.center_freq_bands, rtol=1e-3)
        expected = 10 * np.log10(spectrogram.data.T)[10:-10].mean(0)
        level = np.asarray(perceptual._band_levels(mel_of(x[None].astype(np.float32)), jnp.ones(1)))[0, 10:-10].mean(0)
        loud = [band for band in perceptual.MOS if expected[band] > -22]
        assert loud
        np.testing.assert_allclose(level[loud], expected[loud], atol=tolerance)
