"""Mel frequencies and filterbanks against librosa, bit for bit."""

import warnings

import librosa
import numpy as np
import pytest

from flashsr_jax.audio.front_end import N_FFT
from flashsr_jax.audio.mel import MEL_FMAX, MEL_FMIN, mel_filterbank, mel_frequencies
from flashsr_jax.train.losses import POWER_BANDS

MEL_BINS = (32, 64, 128, 256)  # of the presets, and of the tests' micro size
SCALES = [(window * 5 // 32, window) for window in (32, 64, 128, 256, 512, 1024, 2048)]  # of the multi-scale mel loss
BANKS = [(bins, N_FFT, MEL_FMIN) for bins in MEL_BINS]
BANKS += [(bins, window, 0.0) for bins, window in SCALES]
BANKS += [(bands, window, 0.0) for window, bands in POWER_BANDS.items()]


@pytest.mark.parametrize("bins", MEL_BINS)
def test_frequencies_are_librosas(bins):
    expected = librosa.mel_frequencies(bins + 2, fmin=MEL_FMIN, fmax=MEL_FMAX)
    np.testing.assert_array_equal(mel_frequencies(bins + 2), expected)


@pytest.mark.parametrize(("bins", "n_fft", "fmin"), BANKS)
def test_filterbanks_are_librosas(bins, n_fft, fmin):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of filters without a bin
        expected = librosa.filters.mel(sr=48_000, n_fft=n_fft, n_mels=bins, fmin=fmin, fmax=MEL_FMAX)
    ours = mel_filterbank(bins, n_fft, fmin)
    assert ours.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(ours, expected)
