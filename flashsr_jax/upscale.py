"""Super-resolution of audio of any length, rate and channel count, in memory that does not grow with the length.

The signal is resampled to 48 kHz and cut into windows of one shape, so that one compiled program serves everything.
Each window carries context on both sides that is thrown away, and neighbours are crossfaded. Windows begin on whole
latent frames and the noise of a latent frame depends on the seed and its absolute time alone: the network meets the
same noise wherever a window begins, and in every channel.

Letters: G windows, C channels, B = items of a batch (windows x channels), N samples; latents (T, F, Z).
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import soxr

from flashsr_jax.audio import HOP, SAMPLE_RATE, Normalisation, denormalise, normalise
from flashsr_jax.errors import UserError
from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.pipeline import latent_shape, super_resolve
from flashsr_jax.weights.shipped import weights_path
from flashsr_jax.weights.store import NETWORKS, load_weights

WINDOW_FRAMES = 512  # mel frames of 10 ms: the published 5.12 s
CONTEXT_FRAMES = 48  # thrown away on each side of a window
CROSSFADE_FRAMES = 8
MIN_SAMPLE_RATE = 4_000
BLOCK = 1 << 18  # samples handed on at a time by `upscale`


class Model(NamedTuple):
    """What inference needs: sizes, and the parameters of all networks with `scale_factor`."""

    config: ModelConfig
    params: dict


class Sampling(NamedTuple):
    """How latents are drawn: evaluations of the U-Net, and the scale of classifier-free guidance."""

    steps: int
    guidance: float


def load_model(path: str | os.PathLike) -> Model:
    """Load all three networks onto the default device, from a weights file or by a shipped model's name ("small").

    Raises UserError as `load_weights` does.
    """
    weights = load_weights(weights_path(path), required=NETWORKS)
    return Model(weights.config, jax.device_put(weights.params))


@dataclasses.dataclass(frozen=True)
class Framing:
    """How a signal is cut into windows, in samples at 48 kHz; all four are whole latent frames (`hop`)."""

    window: int
    context: int
    crossfade: int
    hop: int

    @property
    def step(self) -> int:
        """Distance between the starts of consecutive windows."""
        return self.window - 2 * self.context - self.crossfade


def framing(config: ModelConfig, window_frames: int = WINDOW_FRAMES) -> Framing:
    """The framing for a model and a window in mel frames. Raises UserError where the window does not suit the model."""
    stride = config.vae.stride
    context, crossfade = (-(-frames // stride) * stride for frames in (CONTEXT_FRAMES, CROSSFADE_FRAMES))
    shortest = 2 * (context + crossfade)
    if window_frames % config.frame_multiple or window_frames < shortest:
        raise UserError(
            f"a window of {window_frames} frames does not suit this model: "
            f"take a multiple of {config.frame_multiple}, {shortest} or more"
        )
    return Framing(window_frames * HOP, context * HOP, crossfade * HOP, stride * HOP)


def upscale(
    model: Model,
    x: np.ndarray,
    sample_rate: int,
    *,
    seed: int = 0,
    steps: int = 1,
    guidance: float = 1.0,
    batch: int | None = None,
    window_frames: int = WINDOW_FRAMES,
) -> np.ndarray:
    """Super-resolve a signal (N,) or (C, N) in memory to 48 kHz: float32, the last axis round(N x 48000 / sample_rate).

    The rest is as in `upscale_stream`.
    """
    x = np.asarray(x, np.float32)
    if x.ndim not in (1, 2):
        raise UserError(f"expected audio of shape (samples,) or (channels, samples), got {x.shape}")
    x_CxN = np.atleast_2d(x)
    blocks = (x_CxN[:, start : start + BLOCK] for start in range(0, x_CxN.shape[1], BLOCK))
    options = {"seed": seed, "steps": steps, "guidance": guidance, "batch": batch, "window_frames": window_frames}
    output = list(upscale_stream(model, blocks, sample_rate, channels=len(x_CxN), **options))
    y_CxN = np.concatenate([np.zeros((len(x_CxN), 0), np.float32), *output], axis=1)
    return y_CxN.reshape(*x.shape[:-1], -1)


def upscale_stream(
    model: Model,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    *,
    channels: int,
    seed: int = 0,
    steps: int = 1,
    guidance: float = 1.0,
    batch: int | None = None,
    window_frames: int = WINDOW_FRAMES,
) -> Iterator[np.ndarray]:
    """Super-resolve a stream of blocks (C, n), float32 around [-1, 1], into a stream of blocks (C, m) at 48 kHz.

    The output has round(n x 48000 / sample_rate) samples of all n, without offset, and does not depend on how the
    input is cut into blocks. `steps` is the number of U-Net evaluations (1: the student's way), `guidance` the scale of
    a teacher's classifier-free guidance (1: none), `batch` the number of windows (of one channel) computed at once: 1
    on a CPU and 4 on an accelerator unless given.

    Each window is normalised as in training, by its channels' means and their joint peak, which the output undoes: a
    level shared between windows would show the networks quiet passages as they never saw them.
    Raises UserError for rates under 4 kHz, samples that are not finite, and windows that do not suit the model.
    """
    if sample_rate < MIN_SAMPLE_RATE:
        raise UserError(f"the sample rate is {sample_rate} Hz; super-resolution needs {MIN_SAMPLE_RATE} Hz or more")
    if batch is None:
        batch = 1 if jax.default_backend() == "cpu" else 4
    frames = framing(model.config, window_frames)
    sampling = Sampling(steps, guidance)
    process = functools.partial(_super_resolve_windows, model, jax.random.key(seed), sampling, batch, frames.hop)
    resampled = resample_stream(blocks, sample_rate, channels)
    return process_windows(process, resampled, frames, channels=channels, group=max(1, batch // channels))


def resample_stream(blocks: Iterable[np.ndarray], sample_rate: int, channels: int) -> Iterator[np.ndarray]:
    """Resample blocks (C, n) to 48 kHz with soxr's best quality: exact length, no offset, whatever the blocks."""
    resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, channels, dtype="float32", quality="VHQ")
    position = 0
    for block in blocks:
        if not np.isfinite(block).all():
            channel, sample = np.argwhere(~np.isfinite(block))[0]
            raise UserError(
                f"sample {position + sample} of channel {channel + 1} is {block[channel, sample]}: repair the input"
            )
        position += block.shape[1]
        yield resampler.resample_chunk(np.ascontiguousarray(block.T, np.float32)).T
    yield resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True).T


def process_windows(
    process: Callable[[np.ndarray, np.ndarray], np.ndarray],
    blocks: Iterable[np.ndarray],
    frames: Framing,
    *,
    channels: int,
    group: int,
) -> Iterator[np.ndarray]:
    """Run `process` over overlapping windows of a stream (C, n) and crossfade the results into a stream (C, m).

    `process(x_GxCxN, start_G)` returns (G, C, N); it gets up to `group` windows and their first samples' times.
    """
    fade_in = np.sin(np.pi / 2 * (np.arange(frames.crossfade) + 0.5) / frames.crossfade).astype(np.float32) ** 2
    tail = None
    windows = _windows(blocks, frames, channels)
    while several := list(itertools.islice(windows, group)):
        output_GxCxN = process(np.stack([w.samples for w in several]), np.array([w.start for w in several]))
        for window, y_CxN in zip(several, output_GxCxN, strict=True):
            y_CxN = y_CxN[:, frames.context : frames.window - frames.context]
            if tail is not None:
                head = y_CxN[:, : frames.crossfade]
                faded = fade_in * head + (1 - fade_in) * tail
                y_CxN = np.concatenate([faded, y_CxN[:, frames.crossfade :]], axis=1)
            tail = y_CxN[:, frames.step :]
            yield y_CxN[:, : window.output]


class _Window(NamedTuple):
    start: int  # time of the first sample; negative for the first window
    samples: np.ndarray  # (C, N)
    output: int  # samples of output that are final once this window is done


def _windows(blocks: Iterable[np.ndarray], frames: Framing, channels: int) -> Iterator[_Window]:
    """Cut a stream into windows. Both ends are extended by reflection, so that every kept sample has its context."""
    buffer_CxN = np.zeros((channels, 0), np.float32)
    start, total = -frames.context, 0  # `start` is the next window's; the buffer holds the stream from there on
    lead = frames.context  # the part of the first window before time 0, until it is filled in
    for block in blocks:
        total += block.shape[1]
        buffer_CxN = np.concatenate([buffer_CxN, block], axis=1)
        while lead + buffer_CxN.shape[1] >= frames.window:
            buffer_CxN, lead = np.pad(buffer_CxN, ((0, 0), (lead, 0)), mode="reflect"), 0
            yield _Window(start, buffer_CxN[:, : frames.window], frames.step)
            buffer_CxN, start = buffer_CxN[:, frames.step :], start + frames.step
    if not total:
        return
    remaining = total - start - frames.context  # output that no window so far covers
    more = max(1, -(-(remaining - frames.crossfade) // frames.step))
    beyond = (more - 1) * frames.step + frames.window - lead - buffer_CxN.shape[1]
    buffer_CxN = np.pad(buffer_CxN, ((0, 0), (lead, beyond)), mode="reflect")
    for k in range(more):
        output = remaining - k * frames.step if k == more - 1 else frames.step
        yield _Window(start + k * frames.step, buffer_CxN[:, k * frames.step :][:, : frames.window], output)


def _super_resolve_windows(
    model: Model, key: jax.Array, sampling: Sampling, batch: int, hop: int, x_GxCxN: np.ndarray, start_G: np.ndarray
) -> np.ndarray:
    """`process` of `process_windows`: the networks on every channel of every window, `batch` items at a time."""
    groups, channels, samples = x_GxCxN.shape
    mean_GxCx1 = x_GxCxN.mean(axis=-1, keepdims=True)
    level_GxCx1 = np.abs(x_GxCxN - mean_GxCx1).max(axis=-1, keepdims=True)
    peak_GxCx1 = np.broadcast_to(level_GxCx1.max(axis=1, keepdims=True), level_GxCx1.shape)
    frame_GxC = np.broadcast_to(start_G[:, None] // hop, (groups, channels))

    items = groups * channels
    fill = -items % batch  # the program has one shape: the last batch is filled up with silence
    lr_BxN, mean_Bx1, peak_Bx1, frame_B = (
        np.concatenate([a.reshape(items, *a.shape[2:]), np.zeros((fill, *a.shape[2:]), a.dtype)])
        for a in (x_GxCxN, mean_GxCx1, peak_GxCx1, frame_GxC.astype(np.int32))
    )
    output = [
        _super_resolve_batch(model.params, model.config, lr_BxN[b], mean_Bx1[b], peak_Bx1[b], frame_B[b], key, sampling)
        for b in (slice(first, first + batch) for first in range(0, items, batch))
    ]
    y_GxCxN = np.concatenate(output)[:items].reshape(groups, channels, samples)
    return np.where(level_GxCx1 > 0, y_GxCxN, mean_GxCx1)  # a silent channel stays silent


@functools.partial(jax.jit, static_argnames=("config", "sampling"))
def _super_resolve_batch(
    params: dict,
    config: ModelConfig,
    lr_BxN: jax.Array,
    mean_Bx1: jax.Array,
    peak_Bx1: jax.Array,
    frame_B: jax.Array,
    key: jax.Array,
    sampling: Sampling,
) -> jax.Array:
    """Waveforms (B, N) at the level of the input windows; `frame_B` is the absolute latent frame each begins at."""
    stats = Normalisation(mean_Bx1, peak_Bx1)
    shape = latent_shape(config, lr_BxN.shape[-1])
    posterior_noise, initial_noise = (anchored_noise(k, frame_B, shape) for k in jax.random.split(key))
    output = super_resolve(params, config, normalise(lr_BxN, stats), posterior_noise, initial_noise, *sampling)
    return denormalise(output, stats)


def anchored_noise(key: jax.Array, frame_B: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Standard normal noise (B, T, F, Z) in which latent frame j of absolute time is the same in every window."""
    frames, *features = shape
    index_BxT = (frame_B[:, None] + jnp.arange(frames)).astype(jnp.uint32)
    draw = jax.vmap(jax.vmap(lambda j: jax.random.normal(jax.random.fold_in(key, j), features)))
    return draw(index_BxT)
