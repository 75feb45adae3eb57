"""Streams of any length as overlapping windows of one shape, and back: context, crossfades.

Each window carries context on both sides that is thrown away, and neighbours are crossfaded. Windows begin on whole
latent frames. Live windows are short, mostly look back, and are done as soon as their last sample is there.

Letters: G windows, C channels, N samples.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from flashsr_jax.audio import HOP, SAMPLE_RATE
from flashsr_jax.errors import UserError
from flashsr_jax.models.presets import ModelConfig

WINDOW_FRAMES = 512  # mel frames of 10 ms: the published 5.12 s
CONTEXT_FRAMES = 48  # thrown away on each side of a window
CROSSFADE_FRAMES = 8
LIVE_WINDOW_FRAMES = 64
LIVE_STEP_FRAMES = 32  # a block of output: each half of a second is computed twice
LIVE_CROSSFADE_FRAMES = 2


@dataclasses.dataclass(frozen=True)
class Framing:
    """How a signal is cut into windows, in samples at 48 kHz: what is thrown away at their beginning (`context`) and
    end (`lookahead`), what it shares with its neighbour (`crossfade`), and a latent frame (`hop`)."""

    window: int
    context: int
    lookahead: int
    crossfade: int
    hop: int

    @property
    def step(self) -> int:
        """Distance between the starts of consecutive windows, whole latent frames."""
        return self.window - self.context - self.lookahead - self.crossfade

    @property
    def wait(self) -> int:
        """How much has to follow a sample at most before it is final."""
        return self.window - self.context


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
    return Framing(window_frames * HOP, context * HOP, context * HOP, crossfade * HOP, stride * HOP)


def live_framing(config: ModelConfig, delay: float) -> Framing:
    """The framing for windows of 0.64 s that give 0.32 s each, final `delay` seconds after the last of these samples.

    Raises UserError for a delay shorter than the crossfade, or so long that a window would not look back.
    """
    window, step, crossfade = (n * HOP for n in (LIVE_WINDOW_FRAMES, LIVE_STEP_FRAMES, LIVE_CROSSFADE_FRAMES))
    samples = int(delay * SAMPLE_RATE)
    if not crossfade <= samples <= window - step:
        least, most = (1000 * n / SAMPLE_RATE for n in (crossfade, window - step))
        raise UserError(
            f"a delay of {1000 * delay:.0f} ms does not suit live windows: from {least:.0f} to {most:.0f} ms do"
        )
    return Framing(window, window - step - samples, samples - crossfade, crossfade, config.vae.stride * HOP)


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
            y_CxN = y_CxN[:, frames.context : frames.window - frames.lookahead]
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
