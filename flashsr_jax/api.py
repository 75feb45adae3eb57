"""The Python door: a loaded model as an object that upscales arrays and streams.

Letters: B batch, C channels, N samples.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.bands import Bands, BandsByStretch
from flashsr_jax.audio.resampling import BEST, PROMPT, check_finite, check_rate, held_back
from flashsr_jax.audio.stretches import stretches_of
from flashsr_jax.devices.runtime import enable_compilation_cache
from flashsr_jax.errors import UserError
from flashsr_jax.upscale.arguments import as_samples, check_channels, check_number
from flashsr_jax.upscale.model import Model, load_model
from flashsr_jax.upscale.stream import Settings, upscale, upscale_stream

LOWEST_CUTOFF_HZ = 500.0


class FlashSR:
    """A model that is ready to upscale.

        from flashsr_jax import FlashSR
        model = FlashSR.load("small")
        y = model(x, sample_rate)

    Options of the methods are fields of `flashsr_jax.upscale.stream.Settings`: seed, steps, batch, dtype ...
    Beneath lie pure functions of parameters and windows of one shape, `flashsr_jax.models.pipeline`: this runs them as
    three programs, `super_resolve` is all of them in one, for programs that jit, map or differentiate it themselves.
    """

    sample_rate = SAMPLE_RATE  # of the output

    def __init__(self, model: Model):
        self.model = model

    @classmethod
    def load(cls, weights: str | os.PathLike = "small") -> "FlashSR":
        """From a weights file, or the model that comes along. Raises UserError where it cannot be read."""
        if not isinstance(weights, (str, os.PathLike)):
            raise UserError(f"weights of type {type(weights).__name__}: give a file's name, or 'small'")
        enable_compilation_cache()
        return cls(load_model(weights))

    def __call__(
        self, x: np.ndarray | jax.Array, sample_rate: int, *, cutoff_hz: float | str | None = "auto", **options: Any
    ) -> np.ndarray:
        """Upscale (N,), (C, N) or (B, C, N) to 48 kHz: float32, the last axis round(N x 48000 / sample_rate).

        x is anything that NumPy takes, or a tensor of PyTorch: floats in [-1, 1], or int16, int32, int8 or uint8, which
        are scaled. The channels, up to 64, of an example share level and noise; the examples of a batch are as if
        upscaled one by one.
        cutoff_hz: where the band ends, in Hz; what lies over it is taken away before the networks see it, and what lies
        under it comes out as it went in. "auto": detected by channel and stretch of time, and what is full band already
        passes through, as in `flashsr upscale`. None, or `bands` among the options: nothing of this.
        Raises UserError for other shapes and types, rates under 4 kHz, samples that are not finite and options that
        there are not.
        """
        sample_rate = check_rate(sample_rate)
        x = as_samples(x)
        if x.ndim != 3:
            options.setdefault("bands", _bands(x, sample_rate, cutoff_hz))
            return upscale(self.model, x, sample_rate, **options)
        if not len(x):
            raise UserError(f"expected at least one example, got shape {x.shape}")
        check_channels(x)
        return np.stack([self(example_CxN, sample_rate, cutoff_hz=cutoff_hz, **options) for example_CxN in x])

    def stream(
        self, blocks: Iterable[np.ndarray], sample_rate: int, *, channels: int, **options: Any
    ) -> Iterator[np.ndarray]:
        """Upscale blocks (C, n) of any lengths as they come; yields blocks (C, m) at 48 kHz as soon as they are final.

        What comes out is what `__call__` returns of the whole with the same `bands` among the options (None: with
        cutoff_hz=None). Without them, where the band ends is measured as it comes (`audio.heard`). An output lags its
        input by at most `latency` seconds and the time to compute a window. For what is heard as it comes, `latency_ms`
        (200, say) among the options takes short windows that look back. Raises UserError as `__call__` does.
        """
        settings = Settings.of({"bands": "auto"} | options)
        return upscale_stream(self.model, blocks, sample_rate, channels=channels, settings=settings)

    def latency(self, sample_rate: int, **options: Any) -> float:
        """Seconds of input after a sample that have to be there at most before its output is final, with `options` as
        in `stream`: the rest of its window, and what the resampler holds back. Shorter windows lag less, and show the
        networks less of what is around. Raises UserError as `stream` does."""
        sample_rate = check_rate(sample_rate)
        settings = Settings.of(options)
        frames = settings.framing(self.model.config, sample_rate)
        if sample_rate == SAMPLE_RATE:
            return frames.wait / SAMPLE_RATE
        quality = BEST if settings.latency_ms is None else PROMPT
        return frames.wait / SAMPLE_RATE + held_back(sample_rate, quality)


def _bands(x: np.ndarray, sample_rate: int, cutoff_hz: float | str | None) -> Bands | BandsByStretch | None:
    """What to do to the bands of a signal (N,) or (C, N); None for what `upscale` refuses."""
    if cutoff_hz is None or x.ndim not in (1, 2) or not x.size:
        return None
    if cutoff_hz == "auto":
        x_CxN = np.atleast_2d(x)
        check_finite(x_CxN, 0)
        return BandsByStretch.of(stretches_of(x_CxN, sample_rate), lowpass=True, keep_low_band=True)
    check_number("cutoff_hz", cutoff_hz)
    if not LOWEST_CUTOFF_HZ <= float(cutoff_hz) < SAMPLE_RATE / 2:
        raise UserError(f'cutoff_hz={cutoff_hz}: give a frequency from 500 to 24000 Hz, "auto" or None')
    return Bands(float(cutoff_hz), lowpass=True, keep_low_band=True)
