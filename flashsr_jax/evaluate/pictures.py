"""Spectrograms to look at: side-by-side figures for reports, plain images for TensorBoard.

Letters: N samples, T frames, K STFT bins, F mel bins, H and W pixels.
"""

import os
from collections.abc import Mapping

import matplotlib
import numpy as np
import scipy.signal
from matplotlib.figure import Figure

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.files import replacing

N_FFT = 2048
MOST_FRAMES = 1500  # longer signals get a longer hop: more columns than this cannot be seen
RANGE_DB = 100.0
COLOURS = "magma"


def spectrogram_db(x_N: np.ndarray, hop: int = 512) -> np.ndarray:
    """Power in dB of a mono signal, (K, T); 0 dB is a sine of amplitude 1. Hann windows of 2048, centred."""
    x_N = np.asarray(x_N, np.float64)
    window_W = scipy.signal.get_window("hann", N_FFT)
    centres = range(0, max(1, len(x_N)), hop)
    padded = np.pad(x_N, N_FFT // 2)
    frames_TxW = np.stack([padded[start : start + N_FFT] for start in centres])
    magnitude_TxK = np.abs(np.fft.rfft(frames_TxW * window_W)) * 2 / window_W.sum()
    return 20 * np.log10(np.maximum(magnitude_TxK.T, 1e-10))


def spectrogram_figure(
    signals: Mapping[str, np.ndarray], path: str | os.PathLike, sample_rate: int = SAMPLE_RATE
) -> None:
    """Write a picture (the suffix says the format) of mono signals side by side, each under its title.

    All share the axes (seconds, kHz) and one colour scale, 100 dB down from the loudest of all.
    """
    longest = max(len(x) for x in signals.values())
    hop = max(256, -(-longest // MOST_FRAMES))
    spectra = {title: spectrogram_db(x, hop) for title, x in signals.items()}
    top = max(spectrum.max() for spectrum in spectra.values())
    figure = Figure(figsize=(1.2 + 3.9 * len(spectra), 3.9), layout="constrained", dpi=130)
    figure.get_layout_engine().set(wspace=0.04)
    axes = figure.subplots(1, len(spectra), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (title, spectrum) in zip(axes, spectra.items(), strict=True):
        image = ax.imshow(
            spectrum - top,
            origin="lower",
            aspect="auto",
            cmap=COLOURS,
            vmin=-RANGE_DB,
            vmax=0,
            interpolation="antialiased",
            extent=(0, spectrum.shape[1] * hop / sample_rate, 0, sample_rate / 2000),
        )
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("seconds")
        ax.set_facecolor(matplotlib.colormaps[COLOURS](0.0))
    axes[0].set_xlim(0, longest / sample_rate)
    axes[0].set_ylabel("kHz")
    axes[0].set_yticks(np.arange(0, sample_rate / 2000 + 1, 4))
    figure.colorbar(image, ax=list(axes), pad=0.01, aspect=30).set_label("dB")
    with replacing(path) as partial:
        figure.savefig(partial)


def spectrogram_image(x_N: np.ndarray) -> np.ndarray:
    """A mono signal's spectrogram as an image (H, W, 3) uint8: 512 rows up to half the sample rate, no axes."""
    spectrum_KxT = spectrogram_db(x_N, max(256, -(-len(x_N) // MOST_FRAMES)))[:-1].reshape(512, 2, -1).max(axis=1)
    return _image(spectrum_KxT, spectrum_KxT.max() - RANGE_DB, spectrum_KxT.max())


def mel_image(mel_TxF: np.ndarray) -> np.ndarray:
    """A natural-log mel spectrogram (T, F) as an image (F, T, 3) uint8, from the front end's floor (1e-5) to 1e2.

    The scale is fixed, so that images of one clip from different steps of a training compare.
    """
    return _image(np.asarray(mel_TxF, np.float64).T, np.log(1e-5), np.log(1e2))


def _image(values_HxW: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = np.clip((values_HxW[::-1] - low) / (high - low), 0, 1)
    return matplotlib.colormaps[COLOURS](scaled, bytes=True)[..., :3]
