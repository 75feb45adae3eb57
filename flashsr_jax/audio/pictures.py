"""Spectrograms to look at: side-by-side figures for reports, plain images for TensorBoard.

Letters: N samples, T frames, K STFT bins, F mel bins, H and W pixels.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib
import numpy as np
import scipy.signal
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio import files as audio_files
from flashsr_jax.audio.resampling import resample_stream
from flashsr_jax.files import replacing

N_FFT = 2048
MOST_FRAMES = 1500  # longer signals get a longer hop: more columns than this cannot be seen
RANGE_DB = 100.0
COLOURS = "magma"


def spectrogram_db(x_N: np.ndarray, hop: int = 512) -> np.ndarray:
    """Power in dB of a mono signal, (K, T); 0 dB is a sine of amplitude 1. Hann windows of 2048, centred."""
    return stream_spectrogram_db([np.asarray(x_N)], hop)


def stream_spectrogram_db(blocks: Iterable[np.ndarray], hop: int) -> np.ndarray:
    """`spectrogram_db` of a signal that comes in blocks (n,); only the frames are kept."""
    window_W = scipy.signal.get_window("hann", N_FFT)
    columns, total = [], 0
    buffer, start = np.zeros(N_FFT // 2), 0  # the next frame begins at buffer[start], which may not have come yet

    def take(x_N: np.ndarray) -> None:
        nonlocal buffer, start
        buffer = np.concatenate([buffer, x_N])
        while start + N_FFT <= len(buffer):
            spectrum_K = np.abs(np.fft.rfft(buffer[start : start + N_FFT] * window_W))
            columns.append(20 * np.log10(np.maximum(spectrum_K * 2 / window_W.sum(), 1e-10)))
            start += hop
        done = min(start, len(buffer))
        buffer, start = buffer[done:], start - done

    for block in blocks:
        total += len(block)
        take(np.asarray(block, np.float64))
    expected = len(range(0, max(1, total), hop))
    take(np.zeros((expected - len(columns)) * hop + N_FFT))
    return np.stack(columns[:expected], axis=1)


def spectrogram_figure(
    signals: Mapping[str, np.ndarray], path: str | os.PathLike, sample_rate: int = SAMPLE_RATE
) -> None:
    """Write a picture (the suffix says the format) of mono signals side by side, each under its title.

    All share the axes (seconds, kHz) and one colour scale, 100 dB down from the loudest of all.
    """
    longest = max(len(x) for x in signals.values())
    hop = _hop(longest)
    spectra = {title: spectrogram_db(x, hop) for title, x in signals.items()}
    _figure(spectra, hop, longest / sample_rate, sample_rate, path)


def file_spectrograms(files: Mapping[str, Path], path: str | os.PathLike) -> None:
    """`spectrogram_figure` of files of any length, rate and channel count: the sums of their channels at 48 kHz."""
    spectra, seconds = {}, max(audio_files.seconds(name) for name in files.values())
    hop = _hop(round(seconds * SAMPLE_RATE))
    for title, name in files.items():
        with audio_files.opened(name) as audio:
            stream = resample_stream(audio_files.blocks(audio), audio.sample_rate, audio.channels)
            spectra[title] = stream_spectrogram_db((block_CxN.mean(axis=0) for block_CxN in stream), hop)
    _figure(spectra, hop, seconds, SAMPLE_RATE, path)


def _hop(samples: int) -> int:
    return max(256, -(-samples // MOST_FRAMES))


def _figure(
    spectra: Mapping[str, np.ndarray], hop: int, seconds: float, sample_rate: int, path: str | os.PathLike
) -> None:
    top = max(spectrum.max() for spectrum in spectra.values())
    figure = Figure(figsize=(1.2 + 3.9 * len(spectra), 3.9), layout=ConstrainedLayoutEngine(wspace=0.04), dpi=130)
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
    axes[0].set_xlim(0, seconds)
    axes[0].set_ylabel("kHz")
    axes[0].set_yticks(np.arange(0, sample_rate / 2000 + 1, 4))
    figure.colorbar(image, ax=list(axes), pad=0.01, aspect=30).set_label("dB")
    with replacing(path) as partial:
        figure.savefig(partial)


def spectrogram_image(x_N: np.ndarray) -> np.ndarray:
    """A mono signal's spectrogram as an image (H, W, 3) uint8: 512 rows up to half the sample rate, no axes."""
    spectrum_KxT = spectrogram_db(x_N, _hop(len(x_N)))[:-1].reshape(512, 2, -1).max(axis=1)
    return _image(spectrum_KxT, spectrum_KxT.max() - RANGE_DB, spectrum_KxT.max())


def mel_image(mel_TxF: np.ndarray) -> np.ndarray:
    """A natural-log mel spectrogram (T, F) as an image (F, T, 3) uint8, from the front end's floor (1e-5) to 1e2.

    The scale is fixed, so that images of one clip from different steps of a training compare.
    """
    return _image(np.asarray(mel_TxF, np.float64).T, np.log(1e-5), np.log(1e2))


def _image(values_HxW: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = np.clip((values_HxW[::-1] - low) / (high - low), 0, 1)
    return matplotlib.colormaps[COLOURS](scaled, bytes=True)[..., :3]
