"""Super-resolution of audio of any length, rate and channel count, in memory that does not grow with the length.

The signal is resampled to 48 kHz and cut into windows of one shape (see `windows`), so that one compiled program serves
everything. The noise of a latent frame depends on the seed and its absolute time alone: the network meets the same
noise wherever a window begins, and in every channel.

Letters: G windows, C channels, B = items of a batch (windows x channels), N samples; latents (T, F, Z).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flashsr_jax.audio import HOP
from flashsr_jax.audio.bands import Bands, BandsByStretch
from flashsr_jax.audio.front_end import Normalisation, denormalise, normalise
from flashsr_jax.audio.heard import BandsAsHeard
from flashsr_jax.audio.limiter import Limiter
from flashsr_jax.audio.resampling import BEST, PROMPT, check_rate, held_back, reach_hz, resample_stream
from flashsr_jax.errors import UserError
from flashsr_jax.models.pipeline import latent_shape, phase_noise_shape, predict_latent, restored_mel, vocode
from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.upscale import programs
from flashsr_jax.upscale.arguments import (
    CHANNELS,
    as_blocks,
    as_samples,
    check_channels,
    check_choice,
    check_integer,
    check_names,
    check_number,
)
from flashsr_jax.upscale.model import Model
from flashsr_jax.upscale.windows import WINDOW_FRAMES, Framing, framing, live_framing, process_windows

BLOCK = 1 << 18  # samples handed on at a time by `upscale`
LONGEST_WINDOW = 1 << 16  # mel frames: eleven minutes
CLEARLY_OVER = (1.1, 1.2)  # of a cutoff: where what is over it begins that no filter's skirt left


class NotFiniteError(UserError):
    """The networks' output has samples that are not finite."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to upscale.

    seed: same seed, same output. steps: evaluations of the U-Net (1: the student's way). guidance: scale of a teacher's
    classifier-free guidance (1: none). dtype: of the networks' computation. batch: windows (of one channel) computed at
    once; None: 1 on a CPU, 4 on an accelerator. window_frames: a window in mel frames of 10 ms. latency_ms: windows of
    0.64 s instead, whose block of 0.32 s is final so many milliseconds after its last sample; None: as windows come.
    bands: what to do to the bands on either side of the input's cutoff, if anything; "auto": where the band ends is
    measured as the stream comes (`audio.heard`), and a full band passes through. ceiling: where the output's true
    peak would exceed it, the band over the cutoff, which `bands` gives, is turned down; None: nowhere.
    """

    seed: int = 0
    steps: int = 1
    guidance: float = 1.0
    dtype: str = "float32"
    batch: int | None = None
    window_frames: int = WINDOW_FRAMES
    latency_ms: float | None = None
    bands: Bands | BandsByStretch | Literal["auto"] | None = None
    ceiling: float | None = None

    def __post_init__(self) -> None:
        """Raises UserError for values that no upscaling can have."""
        highest = {"seed": 2**32 - 1, "steps": 1000, "batch": 1024, "window_frames": LONGEST_WINDOW}
        for name, most in highest.items():
            if name != "batch" or self.batch is not None:
                whole = check_integer(name, getattr(self, name), 0 if name == "seed" else 1, most)
                object.__setattr__(self, name, whole)
        check_number("guidance", self.guidance)
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        for name in ("latency_ms", "ceiling"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        if self.latency_ms is not None and self.ceiling is not None:
            raise UserError("a ceiling looks further ahead than latency_ms lets it: leave one of them out")
        auto = isinstance(self.bands, str) and self.bands == "auto"  # an array would compare element by element
        if not auto and not isinstance(self.bands, Bands | BandsByStretch | None):
            raise UserError(f'bands={self.bands!r}: take flashsr_jax.audio.bands.Bands, "auto" or None')

    def framing(self, config: ModelConfig, sample_rate: int) -> Framing:
        """How an input of this rate is cut into windows. Raises UserError where the model or the rate does not allow
        it."""
        if self.latency_ms is None:
            return framing(config, self.window_frames)
        held = held_back(sample_rate, PROMPT)
        try:
            return live_framing(config, self.latency_ms / 1000 - held)
        except UserError as error:
            raise UserError(
                f"latency_ms={self.latency_ms:g}, of which resampling from {sample_rate} Hz takes {1000 * held:.0f}: "
                f"{error}"
            ) from error

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Settings":
        """Settings from options by name. Raises UserError for names and values that there are not."""
        check_names(options, [field.name for field in dataclasses.fields(cls)])
        return cls(**options)


class Tally:
    """What was done to a stream, as far as it has come: with `Settings.bands`.

    over, kept, under: energies of the output clearly over the cutoff, of what of that is the input's own, and of the
    output's rest, of all that was not passed through. least_gain: the smallest of the added band by
    `Settings.ceiling`.
    """

    def __init__(self) -> None:
        self.over = self.under = 0.0
        self._given = self._common = 0.0
        self._limiter = Limiter()

    @property
    def kept(self) -> float:
        """Energy of what of `over` is the input's own: of its projection on it."""
        return self._common**2 / self._given if self._given else 0.0

    @property
    def least_gain(self) -> float:
        """Smallest gain of the added band; 1 where nothing was turned down."""
        return self._limiter.least

    def add(self, bands: Bands | BandsByStretch, x_CxN: np.ndarray, y_CxN: np.ndarray, start: int, kept: slice) -> None:
        """Counts a window's input and output."""
        both = (bands.over(z, start, CLEARLY_OVER)[:, kept] for z in (x_CxN, y_CxN))
        given, over = (z.astype(np.float64) for z in both)
        restored_C = bands.restored(len(x_CxN), start, x_CxN.shape[-1])
        self._given += float(np.square(given).sum())
        self._common += float((given * over).sum())
        self.over += float(np.square(over).sum())
        self.under += float(np.square(y_CxN[restored_C][:, kept] - over[restored_C], dtype=np.float64).sum())

    def limited(self, blocks: Iterable[np.ndarray], ceiling: float) -> Iterator[np.ndarray]:
        """Blocks (2 C, n) of an output and what was added to it, to blocks (C, n) under a ceiling."""
        return self._limiter.added((block.reshape(2, -1, block.shape[-1]) for block in blocks), ceiling)


class Sampling(NamedTuple):
    """The part of the settings that a compiled program is of."""

    steps: int
    guidance: float
    dtype: str

    @classmethod
    def of(cls, settings: Settings) -> "Sampling":
        """That of `settings`."""
        return cls(settings.steps, settings.guidance, settings.dtype)


def upscale(model: Model, x: np.ndarray, sample_rate: int, **options: Any) -> np.ndarray:
    """Super-resolve a signal (N,) or (C, N) in memory to 48 kHz: float32, the last axis round(N x 48000 / sample_rate).

    `options` are fields of `Settings`; samples are taken as `arguments.as_samples` says, the rest is as in
    `upscale_stream`. Raises UserError for other shapes and for more than 64 channels, too.
    """
    sample_rate = check_rate(sample_rate)
    x = as_samples(x)
    if x.ndim not in (1, 2):
        raise UserError(f"expected audio of shape (samples,) or (channels, samples), got {x.shape}")
    x_CxN = np.atleast_2d(x)
    check_channels(x_CxN)
    blocks = (x_CxN[:, start : start + BLOCK] for start in range(0, x_CxN.shape[1], BLOCK))
    output = list(upscale_stream(model, blocks, sample_rate, channels=len(x_CxN), settings=Settings.of(options)))
    y_CxN = np.concatenate([np.zeros((len(x_CxN), 0), np.float32), *output], axis=1)
    return y_CxN.reshape(*x.shape[:-1], -1)


def upscale_stream(
    model: Model,
    blocks: Iterable[np.ndarray],
    sample_rate: int,
    *,
    channels: int,
    settings: Settings = Settings(),
    tally: Tally | None = None,
) -> Iterator[np.ndarray]:
    """Super-resolve a stream of blocks (C, n), around [-1, 1], into a stream of blocks (C, m) at 48 kHz.

    The output has round(n x 48000 / sample_rate) samples of all n, without offset, and does not depend on how the
    input is cut into blocks.

    Each window is normalised as in training, by its channels' means and their joint peak, which the output undoes: a
    level shared between windows would show the networks quiet passages as they never saw them. `tally` is told what was
    done.
    Raises UserError for rates under 4 kHz, more than 64 channels, windows that do not suit the model, and, once it
    comes to them, blocks of another shape and samples that are not finite.
    """
    sample_rate = check_rate(sample_rate)
    channels = check_integer("channels", channels, 1, CHANNELS)
    blocks = as_blocks(blocks, channels)
    frames = settings.framing(model.config, sample_rate)
    (device,) = jax.tree.leaves(model.params)[0].devices()
    batch = settings.batch or (1 if device.platform == "cpu" else 4)
    quality = BEST if settings.latency_ms is None else PROMPT
    highest_hz, heard, told = reach_hz(sample_rate, quality), None, None
    if settings.bands == "auto":
        heard = BandsAsHeard(sample_rate, channels, highest_hz)
        blocks = heard.listening(blocks)
    elif settings.bands:
        told = settings.bands.within(highest_hz)
    if not told or told.anything_restored:
        _prepare(model, settings, batch, frames.window)
    resampled = resample_stream(blocks, sample_rate, channels, quality=quality)
    tally = tally or Tally()

    def process(x_GxCxN: np.ndarray, start_G: np.ndarray) -> np.ndarray:
        bands = heard.bands(int(start_G[0])) if heard else told
        y_GxCxN = _super_resolve_windows(model, settings, bands, batch, frames.hop, x_GxCxN, start_G)
        if not bands:
            return y_GxCxN
        for x_CxN, y_CxN, start in zip(x_GxCxN, y_GxCxN, start_G.tolist(), strict=True):
            tally.add(bands, x_CxN, y_CxN, start, slice(frames.context, frames.context + frames.step))
        if settings.ceiling is None:
            return y_GxCxN
        windows = zip(x_GxCxN, y_GxCxN, start_G.tolist(), strict=True)
        added = [bands.added(x_CxN, y_CxN, start) for x_CxN, y_CxN, start in windows]
        return np.concatenate([y_GxCxN, np.stack(added)], axis=1)

    outputs = process_windows(process, resampled, frames, channels=channels, group=max(1, batch // channels))
    return tally.limited(outputs, settings.ceiling) if settings.bands and settings.ceiling is not None else outputs


def _super_resolve_windows(
    model: Model,
    settings: Settings,
    bands: Bands | BandsByStretch | None,
    batch: int,
    hop: int,
    input_GxCxN: np.ndarray,
    start_G: np.ndarray,
) -> np.ndarray:
    """(G, C, N): the networks on every channel of every window, `batch` items at a time."""
    x_GxCxN, restored_GxC = input_GxCxN, np.ones(input_GxCxN.shape[:2], bool)
    if bands:
        windows = list(zip(input_GxCxN, start_G.tolist(), strict=True))
        x_GxCxN = np.stack([bands.before(x_CxN, start) for x_CxN, start in windows])
        restored_GxC = np.stack([bands.restored(len(x_CxN), start, x_CxN.shape[1]) for x_CxN, start in windows])
    networks = (model.params, model.config, Sampling.of(settings))
    seed = np.asarray(settings.seed, np.uint32)
    groups, channels, _ = x_GxCxN.shape
    mean_GxCx1 = x_GxCxN.mean(axis=-1, keepdims=True)
    level_GxCx1 = np.abs(x_GxCxN - mean_GxCx1).max(axis=-1, keepdims=True)
    peak_GxCx1 = np.broadcast_to(level_GxCx1.max(axis=1, keepdims=True), level_GxCx1.shape)
    frame_GxC = np.broadcast_to(start_G[:, None] // hop, (groups, channels))

    items = int(restored_GxC.sum())
    fill = -items % batch  # the program has one shape: the last batch is filled up with silence
    lr_BxN, *of_item_Bx1, frame_B = (
        np.concatenate([a[restored_GxC], np.zeros((fill, *a.shape[2:]), a.dtype)])
        for a in (x_GxCxN, mean_GxCx1, peak_GxCx1, frame_GxC.astype(np.int32))
    )
    output = [
        _super_resolve_batch(
            programs.run, *networks, lr_BxN[b], Normalisation(*(a[b] for a in of_item_Bx1)), frame_B[b], seed
        )
        for b in (slice(first, first + batch) for first in range(0, items, batch))
    ]
    y_GxCxN = np.array(x_GxCxN)
    if items:
        y_GxCxN[restored_GxC] = np.concatenate(output)[:items]
        if not np.isfinite(y_GxCxN).all():
            raise NotFiniteError(
                f"the networks make samples that are not finite ({settings.dtype}, {settings.steps} steps, guidance "
                f"{settings.guidance:g}): the weights are damaged, or the options out of their range"
            )
    if bands:
        outputs = zip(windows, y_GxCxN, strict=True)
        y_GxCxN = np.stack([bands.after(x_CxN, y_CxN, start) for (x_CxN, start), y_CxN in outputs])
    return np.where(level_GxCx1 > 0, y_GxCxN, mean_GxCx1)  # a silent channel stays silent


def _prepare(model: Model, settings: Settings, batch: int, samples: int) -> None:
    """Begin to compile the programs of a batch, while its first window is read."""
    shapes = {
        _predict_latent: latent_shape(model.config, samples),
        _decode: (samples // HOP, model.config.vae.mel_bins),
        _vocode: (samples,),
    }

    def prepare(function: Callable, static: tuple, *arrays: Any) -> jax.ShapeDtypeStruct:
        programs.prepare(function, static, *arrays)
        return jax.ShapeDtypeStruct((batch, *shapes[function]), jnp.float32)

    def shape(dtype: Any, *axes: int) -> Any:
        return jax.ShapeDtypeStruct(axes, dtype)

    stats = Normalisation(shape(jnp.float32, batch, 1), shape(jnp.float32, batch, 1))
    networks = (model.params, model.config, Sampling.of(settings))
    lr_BxN, frame_B, seed = shape(jnp.float32, batch, samples), shape(jnp.int32, batch), shape(jnp.uint32)
    _super_resolve_batch(prepare, *networks, lr_BxN, stats, frame_B, seed)


def _super_resolve_batch(
    run: Callable,
    params: dict,
    config: ModelConfig,
    sampling: Sampling,
    lr_BxN: np.ndarray,
    stats: Normalisation,
    frame_B: np.ndarray,
    seed: np.ndarray,
) -> jax.Array:
    """Waveforms (B, N) at the level of the input windows; `frame_B` is the absolute latent frame each begins at.

    `pipeline.super_resolve` in three programs: the memory that one needs beside the parameters is free for the next.
    `run` calls them, as `programs.run` does.
    """
    scale, dtype = params["scale_factor"], sampling.dtype
    first = {"vae": params["vae"], "unet": params["unet"], "scale_factor": scale}
    z0 = run(_predict_latent, (config, sampling), first, lr_BxN, stats, frame_B, seed)
    mel = run(_decode, (config, dtype), params["vae"], z0, scale)
    return run(_vocode, (config, dtype), params["vocoder"], mel, lr_BxN, stats, frame_B, seed)


def _predict_latent(
    config: ModelConfig,
    sampling: Sampling,
    params: dict,
    lr_BxN: jax.Array,
    stats: Normalisation,
    frame_B: jax.Array,
    seed: jax.Array,
) -> jax.Array:
    shape = latent_shape(config, lr_BxN.shape[-1])
    posterior, initial = (anchored_noise(key, frame_B, shape) for key in _keys(seed)[:2])
    x_BxN, dtype = normalise(lr_BxN, stats), jnp.dtype(sampling.dtype)
    return predict_latent(params, config, x_BxN, posterior, initial, sampling.steps, sampling.guidance, dtype)


def _decode(config: ModelConfig, dtype: str, params: dict, z0: jax.Array, scale: jax.Array) -> jax.Array:
    return restored_mel(params, config, z0, scale, jnp.dtype(dtype))


def _vocode(
    config: ModelConfig,
    dtype: str,
    params: dict,
    mel_BxTxF: jax.Array,
    lr_BxN: jax.Array,
    stats: Normalisation,
    frame_B: jax.Array,
    seed: jax.Array,
) -> jax.Array:
    shape = phase_noise_shape(config, lr_BxN.shape[-1])
    phase_noise = anchored_noise(_keys(seed)[2], frame_B, shape) if shape else None
    output_BxN = vocode(params, config, mel_BxTxF, normalise(lr_BxN, stats), jnp.dtype(dtype), phase_noise)
    return denormalise(output_BxN, stats)


def _keys(seed: jax.Array) -> jax.Array:
    """Of the noises of a window: the VAE's posterior, the start of the diffusion, the phases."""
    return jax.random.split(jax.random.key(seed), 3)


def anchored_noise(key: jax.Array, frame_B: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise (B, T, ...) in which latent frame j of absolute time is the same in every window."""
    frames, *features = shape
    index_BxT = (frame_B[:, None] + jnp.arange(frames)).astype(jnp.uint32)
    draw = jax.vmap(jax.vmap(lambda j: jax.random.normal(jax.random.fold_in(key, j), features)))
    return draw(index_BxT)
