"""Zimtohrli's distance and ViSQOL's score of log-mels, with gradients: what an evaluation measures, as losses.

Both metrics hear waveforms. Of what a vocoder makes of a log-mel, the mel tells nearly all that they hear: how nearly,
tests/train/test_perceptual_losses.py says. Both are to see the low band as the listener gets it: the input's (`heard`).
Letters: B batch, T mel frames, F mel bins, C channels of a metric, P pairs of frames.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bands import SPLICE
from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.audio.mel import mel_frequencies
from flashsr_jax.evaluate.perceptual import zimtohrli_loudness
from flashsr_jax.train.losses import mel_centres


def heard(estimate_BxTxF: jax.Array, target_BxTxF: jax.Array, cutoff_B: jax.Array, bandwidth_B: jax.Array) -> jax.Array:
    """The estimate over each cutoff in Hz, from the listener's splice on, and the target under it and over the
    recording's own bandwidth in Hz."""
    centres_F = mel_centres(target_BxTxF.shape[-1])
    low, high = SPLICE
    share_BxF = jnp.clip((centres_F / cutoff_B[:, None] - low) / (high - low), 0, 1)
    share_BxF = jnp.where(centres_F < bandwidth_B[:, None], share_BxF, 0.0)
    return target_BxTxF + share_BxF[:, None] * (estimate_BxTxF - target_BxTxF)


LEVELS = 0.2, 2.0  # of what normalised windows are heard at: their low resolution's peak at -20 to 0 dBFS


def metric_losses(
    names: Iterable[str],
    estimate_BxTxF: jax.Array,
    target_BxTxF: jax.Array,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
) -> dict[str, jax.Array]:
    """{name: (B,)} of the metrics `zimtohrli` and `visqol` that are named, as the listener hears the band over each
    cutoff of the batch, at a random level."""
    low, high = np.log(LEVELS)
    gain_B = jnp.exp(jax.random.uniform(key, estimate_BxTxF.shape[:1], minval=low, maxval=high))
    estimate_BxTxF = heard(estimate_BxTxF, target_BxTxF, batch["cutoff_hz"], batch["bandwidth_hz"])
    of_metric = {"zimtohrli": zimtohrli_loss, "visqol": visqol_loss}
    return {name: of_metric[name](estimate_BxTxF, target_BxTxF, gain_B) for name in names}


# Zimtohrli 0.2.1's similarity (github.com/google/zimtohrli, cpp/zimt/zimtohrli.h; after Hines & Harte 2012).
CHANNELS, LOWEST_HZ, RATIO, BEND_HZ = 128, 24.349, 1.034984, 228.83
WINDOW = (9, 5)  # mel frames, for its 8 steps of 11.8 ms, and channels
INTENSITY, STRUCTURE, LEAST_STRUCTURE = 26.4264, 1.95227, 0.632513
INTENSITY_POWER, STRUCTURE_POWER = 1.05002, 0.258082
LEAK = 0.15  # slope under LEAST_STRUCTURE, where the metric has none to learn by
RESCALING = (0.582828, 0.631024)  # exponents of the peaks' ratio: of the louder one, and of the other
IN_STEP, DISTANCE_POWER = 0.903948, 0.322640  # of the warp: the cost of a diagonal move; of the squared distance


def zimtohrli_loss(estimate_BxTxF: jax.Array, target_BxTxF: jax.Array, gain_B: jax.Array) -> jax.Array:
    """Zimtohrli's distance (B,) of two log-mels of normalised audio, which `gain_B` brings to its level.

    As in the metric, both are brought to one peak and warped in time onto each other; gradients go through the peaks,
    not through the path. Needs the package (`pip install 'flashsr_jax[eval]'`), by which the channels are calibrated.
    """
    a, b = (_loudness(x, gain_B) for x in (target_BxTxF, estimate_BxTxF))
    peak_a, peak_b = a.max((1, 2)), b.max((1, 2))
    louder, other = RESCALING
    power_a = jnp.where(peak_a > peak_b, louder, other)
    power_b = jnp.where(peak_a > peak_b, other, louder)
    a = a * ((peak_b / peak_a) ** power_a)[:, None, None]
    b = b * ((peak_a / peak_b) ** power_b)[:, None, None]
    pairs = _warp(lax.stop_gradient(a), lax.stop_gradient(b))
    a, b = (jnp.take_along_axis(x, index[..., None], 1) for x, index in ((a, pairs.a), (b, pairs.b)))
    distance_BxP = 1.0 - jnp.mean(_similarity(a, b), axis=2)
    return jnp.sum(distance_BxP * pairs.used, axis=1) / jnp.sum(pairs.used, axis=1)


class _Channels(NamedTuple):
    """Of each channel (C,): the loudness of a nat of power, the power of its floor, and what it takes of mel bins."""

    slope: np.ndarray
    floor: np.ndarray
    of_mel_CxF: np.ndarray


@functools.cache
def _channels(bins: int) -> _Channels:
    """As the package hears silence, and noise at two levels."""
    centres_C = (LOWEST_HZ + BEND_HZ) * RATIO ** np.arange(CHANNELS) - BEND_HZ
    width_C = np.gradient(np.log(centres_C)) / 2
    of_mel = _gathering(bins, lambda hz_F: np.exp(-0.5 * (np.log(hz_F / centres_C[:, None]) / width_C[:, None]) ** 2))
    of_mel /= of_mel.sum(axis=1, keepdims=True)
    noise = np.random.default_rng(0).normal(size=4 * SAMPLE_RATE).astype(np.float32)
    silence, soft, loud = (zimtohrli_loudness(gain * noise)[5:-5] for gain in (0.0, 0.3, 3.0))
    slope = (loud - soft).mean(0) / (2 * np.log(10))
    floor = np.exp(silence.mean(0) / slope)
    power = (np.exp(loud / slope) - floor).mean(0)
    with jax.ensure_compile_time_eval():  # the first call comes from a program that is traced
        mel = np.asarray(log_mel(jnp.asarray(3.0 * noise[None]), bins))[0, 5:-5]
    per_power = power / (np.exp(2 * mel) @ of_mel.T).mean(0)
    return _Channels(*(x.astype(np.float32) for x in (slope, floor, of_mel * per_power[:, None])))


def _loudness(mel_BxTxF: jax.Array, gain_B: jax.Array) -> jax.Array:
    """(B, T, C)."""
    channels = _channels(mel_BxTxF.shape[-1])
    power = jnp.exp(2 * mel_BxTxF) @ channels.of_mel_CxF.T * jnp.square(gain_B)[:, None, None]
    return jnp.log(power + channels.floor) * channels.slope


def _similarity(a: jax.Array, b: jax.Array) -> jax.Array:
    """Of (B, P, C) in a window that ends at each place; silence comes before the first."""
    in_time, across = (_means(size, count) for size, count in zip(a.shape[1:], WINDOW, strict=True))

    def windowed(x: jax.Array) -> jax.Array:
        return jnp.einsum("pq,bqc,dc->bpd", in_time, x, across, optimize=True)

    mean_a, mean_b = windowed(a), windowed(b)
    a, b = a - mean_a, b - mean_b
    spread = jnp.sqrt(windowed(a * a) * windowed(b * b) + 1e-6)
    common = jnp.sqrt(jnp.maximum(mean_a * mean_b, 1e-6))
    intensity = ((2 * common + INTENSITY) / (mean_a + mean_b + INTENSITY)) ** INTENSITY_POWER
    structure = (windowed(a * b) + STRUCTURE) / (spread + STRUCTURE)
    leaking = LEAST_STRUCTURE + LEAK * (structure - LEAST_STRUCTURE)
    return intensity * jnp.where(structure < LEAST_STRUCTURE, leaking, structure) ** STRUCTURE_POWER


def _means(size: int, count: int) -> np.ndarray:
    """The matrix (size, size) of means over `count` places, of which the last is the row's; nothing is 0."""
    back = np.arange(size)[:, None] - np.arange(size)
    return ((back >= 0) & (back < count)).astype(np.float32) / count


class _Pairs(NamedTuple):
    """Frames (B, P) of a and b that belong together, and whether a pair is one of the path's."""

    a: jax.Array
    b: jax.Array
    used: jax.Array


def _warp(a: jax.Array, b: jax.Array) -> _Pairs:
    """The metric's dynamic time warp of (B, T, C): costs by diagonals, then the path from the start on, which goes
    wherever the cost so far is least."""
    batch, frames, _ = a.shape
    squared = jnp.sum(a * a, 2)[:, :, None] + jnp.sum(b * b, 2)[:, None] - 2 * jnp.einsum("btc,bsc->bts", a, b)
    cost = jnp.maximum(squared, 0.0) ** DISTANCE_POWER
    # Row i of `diagonals[k]` is frame i of a with frame k - i of b. The first frames have no pair but each other.
    never = jnp.inf
    cost = cost.at[:, 0].set(never).at[:, :, 0].set(never)
    rows = [jnp.pad(cost[:, i], ((0, 0), (i, frames - 1 - i)), constant_values=never) for i in range(frames)]
    diagonals = jnp.stack(rows, 2).transpose(1, 0, 2)

    def below(x_BxT: jax.Array) -> jax.Array:
        return jnp.pad(x_BxT[:, :-1], ((0, 0), (1, 0)), constant_values=never)

    def total(before: tuple[jax.Array, jax.Array], of_pair: jax.Array) -> tuple[tuple, jax.Array]:
        last, second_last = before
        alone = jnp.minimum(last, below(last)) + of_pair
        now = jnp.minimum(below(second_last) + IN_STEP * of_pair, alone)
        return (now, last), now

    start = jnp.full((batch, frames), never).at[:, 0].set(0.0)
    _, totals = lax.scan(total, (start, jnp.full((batch, frames), never)), diagonals[1:])
    totals = jnp.concatenate([start[None], totals])
    example = jnp.arange(batch)

    def move(at: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple, tuple]:
        i, j = at
        more = (i + 1 < frames) & (j + 1 < frames)
        steps = ((1, 1), (1, 0), (0, 1))
        ahead = jnp.stack([totals[i + j + p + q, example, i + p] for p, q in steps])  # of the path's end: no matter
        best = jnp.argmin(ahead, axis=0)
        i, j = i + (more & (best != 2)), j + (more & (best != 1))
        return (i, j), (i, j, more)

    first = jnp.zeros(batch, int)
    _, path = lax.scan(move, (first, first), None, length=2 * frames - 2)
    begins = (first, first, jnp.ones(batch, bool))
    return _Pairs(*(jnp.concatenate([x[None], y]).T for x, y in zip(begins, path, strict=True)))


# ViSQOL's audio mode (Chinen et al. 2020, arXiv:2004.09584): 32 gammatone bands in windows of 80 ms, every 20 ms.
BANDS, FIRST_HZ, LAST_HZ, EAR_Q, LEAST_ERB_HZ = 32, 50.0, SAMPLE_RATE / 2, 9.26449, 24.7
FRAMES, EVERY = 8, 2  # mel frames, under a Hann window
RANGE_DB = 45.0  # under full scale, and under a frame's loudest band; of these decibels, which are halved
NEIGHBOURS = ((0.0113033910, 0.0838251475), (0.0838251475, 0.6194857458))  # a corner of the 3 x 3 window
INTENSITY_SSIM, STRUCTURE_SSIM = 1e-4, 4.5e-4
SOFTER = 0.005  # more of the latter: in a steady band the metric's own has no slope worth following
OF_FULL_SCALE = 3.8e-5  # mean square of a hertz of white noise, by the square of its mel
# By how much the score rises with a band's similarity: the slope of the metric's support vector machine, nearly a plane
# since its kernel is wide. The other bands add next to nothing.
MOS = dict(zip(range(23, 32), (0.08, 0.30, 0.37, 0.45, 0.54, 0.55, 0.43, 0.36, 0.25), strict=True))


def visqol_loss(estimate_BxTxF: jax.Array, target_BxTxF: jax.Array, gain_B: jax.Array) -> jax.Array:
    """What ViSQOL's MOS-LQO (B,) loses, about, by two log-mels of normalised audio at the level that `gain_B` gives."""
    reference, degraded = (_band_levels(x, gain_B) for x in (target_BxTxF, estimate_BxTxF))
    reference, degraded = (jnp.maximum(x, -RANGE_DB) for x in (reference, degraded))
    floor = jnp.maximum(reference, lax.stop_gradient(degraded)).max(2, keepdims=True) - RANGE_DB
    reference, degraded = jnp.maximum(reference, floor), jnp.maximum(degraded, floor)
    lowest = jnp.minimum(reference, lax.stop_gradient(degraded)).min((1, 2), keepdims=True)
    reference, degraded = reference - lowest, degraded - lowest
    mean_r, mean_d = _neighbourhood(reference), _neighbourhood(degraded)
    variance_r = jnp.maximum(_neighbourhood(reference**2) - mean_r**2, 0.0)
    variance_d = jnp.maximum(_neighbourhood(degraded**2) - mean_d**2, 0.0)
    covariance = _neighbourhood(reference * degraded) - mean_r * mean_d
    intensity = (2 * mean_r * mean_d + INTENSITY_SSIM) / (mean_r**2 + mean_d**2 + INTENSITY_SSIM)
    least = STRUCTURE_SSIM + SOFTER
    structure = (covariance + least) / (jnp.sqrt(variance_r * variance_d + 1e-10) + least)
    return jnp.mean(1.0 - intensity * structure, axis=1)[:, list(MOS)] @ np.array(list(MOS.values()), np.float32)


def _band_levels(mel_BxTxF: jax.Array, gain_B: jax.Array) -> jax.Array:
    """Level (B, T', C) in the metric's decibels of full scale."""
    centre = _band_centres()[:, None]
    width = 1.019 * (centre / EAR_Q + LEAST_ERB_HZ)
    of_mel_CxF = _gathering(mel_BxTxF.shape[-1], lambda hz_F: (1 + ((hz_F - centre) / width) ** 2) ** -4)
    power = jnp.exp(2 * mel_BxTxF) @ of_mel_CxF.T * jnp.square(gain_B)[:, None, None] * OF_FULL_SCALE
    last = power.shape[1] - FRAMES + 1
    hann = np.sin(np.pi * (np.arange(FRAMES) + 0.5) / FRAMES) ** 2
    power = sum(weight * power[:, i : last + i : EVERY] for i, weight in enumerate(hann**2 / FRAMES))
    return 5 * jnp.log10(power + 1e-9)


def _band_centres() -> np.ndarray:
    """Of the bands (C,) in Hz, evenly spaced by their widths."""
    end = EAR_Q * LEAST_ERB_HZ
    step = np.log((FIRST_HZ + end) / (LAST_HZ + end)) / BANDS
    return np.exp(np.arange(BANDS, 0, -1) * step) * (LAST_HZ + end) - end


def _gathering(bins: int, shape: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(C, F) of mel bins: a channel's `shape` (C, F) at their centres in Hz, by their width in Hz."""
    edges_hz = mel_frequencies(bins + 2)
    between = np.sqrt(edges_hz[1:] * np.maximum(edges_hz[:-1], 1.0))
    return (shape(edges_hz[1:-1]) * np.diff(between)).astype(np.float32)


def _neighbourhood(x: jax.Array) -> jax.Array:
    """Mean of each place of (B, T, C) and its eight neighbours, by the metric's weights; edges are repeated."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    _, frames, bands = x.shape
    (corner, side), (_, centre) = NEIGHBOURS
    weights = ((corner, side, corner), (side, centre, side), (corner, side, corner))
    shifted = [w * padded[:, i : i + frames, j : j + bands] for i, row in enumerate(weights) for j, w in enumerate(row)]
    return functools.reduce(jnp.add, shifted)
