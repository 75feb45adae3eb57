"""The front end every network shares: normalisation, STFT and log-mel spectrogram, in JAX.

Letters: B batch, N samples, T mel frames (N / 480), F mel bins, K = N_FFT / 2 + 1 STFT bins.
Source: FlashSR (Im & Nam, ICASSP 2025, arXiv:2501.10807), section III, and its published inference code's constants.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flashsr_jax.audio import HOP, SAMPLE_RATE, fft
from flashsr_jax.audio.mel import mel_filterbank

N_FFT = 2048
MEL_FLOOR = 1e-5


class Normalisation(NamedTuple):
    """Mean and peak of a low-resolution waveform, each (B, 1)."""

    mean: jax.Array | np.ndarray
    peak: jax.Array | np.ndarray


def normalisation(lr_BxN: jax.Array) -> Normalisation:
    """Statistics m = mean(lr), p = max|lr - m| of each low-resolution waveform (B, N)."""
    mean = jnp.mean(lr_BxN, axis=-1, keepdims=True)
    return Normalisation(mean, jnp.max(jnp.abs(lr_BxN - mean), axis=-1, keepdims=True))


def normalise(x_BxN: jax.Array, stats: Normalisation) -> jax.Array:
    """0.5 (x - m) / (p + 1e-8): low- and high-resolution waveforms alike use the low-resolution statistics."""
    return 0.5 * (x_BxN - stats.mean) / (stats.peak + 1e-8)


def denormalise(x_BxN: jax.Array, stats: Normalisation) -> jax.Array:
    """Inverse of `normalise`: 2 (p + 1e-8) x + m."""
    return x_BxN * (2.0 * (stats.peak + 1e-8)) + stats.mean


def stft(x_BxN: jax.Array, n_fft: int, hop: int) -> jax.Array:
    """Complex STFT (B, frames, n_fft // 2 + 1), periodic Hann window of length n_fft, no centring, no padding."""
    frames = 1 + (x_BxN.shape[-1] - n_fft) // hop
    # Where each frame begins, not the index of each of its samples: a program holds its constants, here megabytes.
    start_T = np.arange(frames, dtype=np.int32) * hop
    frame = jax.vmap(lambda start: lax.dynamic_slice_in_dim(x_BxN, start, n_fft, axis=1), out_axes=1)
    return fft.rfft(frame(start_T) * _hann(n_fft), n_fft)


def istft(spectrum_BxMxK: jax.Array) -> jax.Array:
    """Waveform (B, M n_fft / 4) whose frames have these spectra, (B, M, n_fft // 2 + 1), n_fft a multiple of 8.

    Hann analysis and synthesis windows, hop n_fft / 4, frame m centred on sample (m + 1/2) hop, as `log_mel` places its
    frames. The least-squares inverse of a modified STFT (Griffin & Lim 1984, eq. 6).
    """
    _, frames, bins = spectrum_BxMxK.shape
    n_fft = 2 * (bins - 1)
    window_W, hop = _hann(n_fft), n_fft // 4

    def overlap_add(x_BxMxW: jax.Array) -> jax.Array:
        quarters = jnp.split(x_BxMxW, 4, axis=-1)
        padded = (jnp.pad(q, ((0, 0), (i, 3 - i), (0, 0))) for i, q in enumerate(quarters))
        return functools.reduce(jnp.add, padded).reshape(x_BxMxW.shape[0], -1)[:, 3 * hop // 2 : -3 * hop // 2]

    weight = overlap_add(jnp.broadcast_to(window_W**2, (1, frames, n_fft)))
    return overlap_add(fft.irfft(spectrum_BxMxK, n_fft) * window_W) / weight


def only_band(x_BxN: jax.Array, low_B: jax.Array, high_B: jax.Array) -> jax.Array:
    """Waveforms (B, N) with nothing but the bins of their Fourier transform from `low_B` to under `high_B`, in Hz.

    24 kHz and more, as `high_B`, keeps all that is over `low_B`.
    """
    samples = x_BxN.shape[-1]
    hz_K = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE).astype(np.float32)
    ends_Bx1 = jnp.where(high_B >= SAMPLE_RATE / 2, jnp.inf, high_B)[:, None]
    inside_BxK = (hz_K >= low_B[:, None]) & (hz_K < ends_Bx1)
    return fft.irfft(fft.rfft(x_BxN.astype(jnp.float32), samples) * inside_BxK, samples)


def _hann(size: int) -> np.ndarray:
    """Periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def magnitude(spectrum: jax.Array) -> jax.Array:
    """|spectrum| with a finite gradient where the spectrum is 0, as in digital silence (|.|'s own is NaN there)."""
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    silent = power == 0.0
    return jnp.where(silent, 0.0, jnp.sqrt(jnp.where(silent, 1.0, power)))


def log_mel(x_BxN: jax.Array, mel_bins: int = 256) -> jax.Array:
    """Natural-log mel magnitude spectrogram (B, N / 480, mel_bins) of waveforms (B, N) at 48 kHz.

    Reflect-pads 784 samples each side, so that there are exactly N / 480 frames. Raises ValueError unless N is a
    positive multiple of 480 and longer than the padding.
    """
    samples = x_BxN.shape[-1]
    pad = (N_FFT - HOP) // 2
    if samples % HOP or samples <= pad:
        raise ValueError(f"log_mel needs a multiple of {HOP} samples, more than {pad}; got {samples}")
    padded = jnp.pad(x_BxN.astype(jnp.float32), ((0, 0), (pad, pad)), mode="reflect")
    magnitude_BxTxK = magnitude(stft(padded, N_FFT, HOP))
    mel_BxTxF = jnp.matmul(magnitude_BxTxK, mel_filterbank(mel_bins, N_FFT).T, precision=jax.lax.Precision.HIGHEST)
    return jnp.log(jnp.maximum(mel_BxTxF, MEL_FLOOR))
