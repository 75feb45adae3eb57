"""Batches of waveforms, and what every stage's step makes of one first.

Letters: B batch, N samples of a window, T its mel frames, F mel bins, S frames of a crop, H hop.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.audio import HOP, SAMPLE_RATE, lowpass_device
from flashsr_jax.audio.front_end import Normalisation, normalisation, normalise
from flashsr_jax.data.batches import BatchIterator, make_iterator
from flashsr_jax.errors import UserError
from flashsr_jax.train import losses

HEADROOM = 0.99  # of the vocoder's tanh
SILENCE_PEAK = 1e-4  # -80 dBFS: below it normalisation would amplify noise


def seconds_per_window(config: ConfigDict) -> float:
    """Of audio that a step learns from: `vocoder` trains on crops of the windows that it reads, `tune` on stretches."""
    field = {"vocoder": "crop_frames", "tune": "decoder_frames"}.get(config.stage)
    return (config[field] if field else config.data.window_frames) * HOP / SAMPLE_RATE


def waveform_batches(
    config: ConfigDict, batch_size: int, process_index: int = 0, process_count: int = 1
) -> BatchIterator:
    """Endless training batches of config.data, see `make_iterator`; `batch_size` is of this process."""
    return make_iterator(
        config.data,
        "train",
        batch_size=batch_size,
        window_samples=config.data.window_frames * HOP,
        seed=config.seed,
        process_index=process_index,
        process_count=process_count,
        workers=config.data.workers,
    )


class Windows(NamedTuple):
    """Normalised waveforms (B, N), the weight (B,) of each example in every loss (0: rejected), and the statistics
    that `denormalise` takes to bring a window back to its level."""

    hr: jax.Array
    lr: jax.Array
    weight: jax.Array
    stats: Normalisation


def prepare(batch: dict[str, Any]) -> tuple[Windows, dict[str, jax.Array]]:
    """Simulate the low resolution where the pipeline left that to the device, and normalise by its statistics.

    High resolution normalised by the low resolution's peak can exceed what the vocoder's tanh can reach: such windows
    are scaled down (both waveforms alike). Windows whose low resolution is near silence weigh nothing. Returns how
    many there were of each beside the windows.
    """
    hr = batch["hr"]
    lr = _low_resolution(batch)
    stats = normalisation(lr)
    silent_B = stats.peak[:, 0] < SILENCE_PEAK
    excess_Bx1 = jnp.max(jnp.abs(normalise(hr, stats)), axis=-1, keepdims=True) / HEADROOM
    stats = stats._replace(peak=stats.peak * jnp.maximum(excess_Bx1, 1.0))
    # A rejected window becomes silence: weight 0 alone would not do, since 0 x NaN is NaN.
    hr_norm, lr_norm = (jnp.where(silent_B[:, None], 0.0, normalise(x, stats)) for x in (hr, lr))
    counts = {"data/rescaled": jnp.sum((excess_Bx1[:, 0] > 1.0) & ~silent_B), "data/rejected": jnp.sum(silent_B)}
    return Windows(hr_norm, lr_norm, jnp.where(silent_B, 0.0, 1.0), stats), counts


def _low_resolution(batch: dict[str, Any]) -> jax.Array:
    """(B, N): what the pipeline made on the host, and for the other examples what the device makes."""
    if "filter" not in batch:
        return batch["lr"]
    simulated = lowpass_device.simulate_low_resolution(batch["hr"], batch["filter"])
    return jnp.where(batch["lr_given"][:, None], batch["lr"], simulated) if "lr" in batch else simulated


class Crops(NamedTuple):
    """A stretch of each example: log-mel (B, S, F) and waveforms (B, S H)."""

    mel: jax.Array
    hr: jax.Array
    lr: jax.Array


def random_crops(mel_BxTxF: jax.Array, windows: Windows, frames: int, key: jax.Array) -> Crops:
    """The same random stretch of `frames` mel frames of each example's mel and waveforms.

    Raises UserError where there are fewer.
    """
    batch, total, bins = mel_BxTxF.shape
    if frames > total:
        raise UserError(f"config.crop_frames={frames} does not fit into {total} frames: lower it")
    first_B = jax.random.randint(key, (batch,), 0, total - frames + 1)

    def crop(mel_TxF: jax.Array, hr_N: jax.Array, lr_N: jax.Array, first: jax.Array) -> Crops:
        return Crops(
            lax.dynamic_slice(mel_TxF, (first, 0), (frames, bins)),
            lax.dynamic_slice(hr_N, (first * HOP,), (frames * HOP,)),
            lax.dynamic_slice(lr_N, (first * HOP,), (frames * HOP,)),
        )

    return jax.vmap(crop)(mel_BxTxF, windows.hr, windows.lr, first_B)


def band_weights(config: ConfigDict, batch: dict[str, Any], latent_bins: int) -> tuple[jax.Array, jax.Array]:
    """Weights of the mel's bins (B, 1, F) and of the latent's positions (B, 1, F / s, 1) in a stage's losses."""
    bins = config.model.vae.mel_bins
    mel_Bx1xF = losses.band_weights(bins, batch["cutoff_hz"], batch["bandwidth_hz"], config.losses.high_band)
    return mel_Bx1xF, mel_Bx1xF.reshape(-1, 1, latent_bins, bins // latent_bins).mean(axis=-1)[..., None]
