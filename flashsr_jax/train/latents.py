"""What the U-Net's stages train on: latents of both waveforms and the mel, encoded in the step or once and for all.

On a CPU encoding takes as long as the U-Net's own update, so a run can read windows that `write_cache` encoded before:
config.data.latents names their folder, or several with commas between them. A window keeps the crop, mixture, gain and
low-pass that it was drawn with; the stages' own noise stays fresh.
Letters: B batch, N samples, T mel frames, F mel bins; latents are (B, T', F', C).
"""

import contextlib
import functools
import hashlib
import json
import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import IO, Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.data import CLASSES, MANIFEST
from flashsr_jax.data.batches import BatchIterator
from flashsr_jax.data.dataset import folders
from flashsr_jax.data.latents import ABOUT, CACHED, LatentCache
from flashsr_jax.devices.runtime import compiler_options
from flashsr_jax.errors import UserError
from flashsr_jax.files import local, writable_folder
from flashsr_jax.locks import locked
from flashsr_jax.models.pipeline import decode
from flashsr_jax.train.batch import prepare, waveform_batches
from flashsr_jax.train.frozen import dtype_of, encode_pair, fingerprint, load, model_of

LOGGER = logging.getLogger(__name__)


class Latents(NamedTuple):
    """Scaled latents of the high and the low resolution, log-mel (B, T, F) of the high one, weight (B,) of each."""

    hr: jax.Array
    lr: jax.Array
    mel: jax.Array
    weight: jax.Array


def latents(
    config: ConfigDict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> tuple[Latents, dict[str, jax.Array]]:
    """Latents of a batch of waveforms, or of cached windows, and the counts of `prepare` (none for cached ones)."""
    if "z_hr" in batch:
        return Latents(*(batch[name].astype(jnp.float32) for name in CACHED[:4])), {}
    windows, counts = prepare(batch)
    z_hr, z_lr = encode_pair(config, frozen, windows, key)
    return Latents(z_hr, z_lr, log_mel(windows.hr, config.model.vae.mel_bins), windows.weight), counts


def decoded_mel(config: ConfigDict, frozen: dict[str, Any], z: jax.Array) -> jax.Array:
    """The log-mel (B, T, F) that the frozen VAE decodes from scaled latents."""
    return decode(frozen["vae"], model_of(config), z, frozen["scale_factor"], dtype_of(config), config.remat)


def cached_batches(
    config: ConfigDict, frozen: dict[str, Any], batch_size: int, process_index: int = 0, process_count: int = 1
) -> BatchIterator:
    """Endless batches from config.data.latents, every window once an epoch; `batch_size` is of this process.

    Several folders, with commas between them, are read as one. Raises UserError where one does not belong to the run.
    """
    caches = [LatentCache(folder) for folder in config.data.latents.split(",")]
    for cache in caches:
        _check(cache, config, frozen)
    windows = grain.MapDataset.concatenate([grain.MapDataset.source(cache) for cache in caches])
    count = len(windows)
    if count < batch_size * process_count:
        raise UserError(f"data.latents={config.data.latents}: {count} windows are too few for a batch of {batch_size}")
    batches = windows.seed(config.seed).shuffle().repeat().batch(batch_size)[process_index::process_count]
    classes: dict[str, float] = {name: count for cache in caches for name in cache.about["classes"]}
    return BatchIterator(batches, config.data.workers, classes)


def _check(cache: LatentCache, config: ConfigDict, frozen: dict[str, Any]) -> None:
    """Raises UserError where the windows are of another length, or another VAE encoded them."""
    frames = config.data.window_frames
    if cache.about["window_frames"] != frames:
        raise UserError(
            f"data.latents={cache.folder} has windows of {cache.about['window_frames']} frames, the run of {frames}: "
            "write them again, or change config.data.window_frames"
        )
    if cache.about["vae"] != fingerprint(frozen["vae"]):
        raise UserError(f"data.latents={cache.folder}: another VAE than config.vae_from encoded it; write it again")


def write_cache(config: ConfigDict, folder: str | Path, windows: int) -> None:
    """Encode `windows` training windows of config.data into `folder`, in half precision; complete or not there.

    Raises UserError where something lies there already, or another process writes it.
    """
    folder = local(folder)
    writable_folder(folder.parent)
    with locked(folder.with_name(f".{folder.name}.lock"), folder):
        if folder.exists():
            raise UserError(f"{folder} exists: choose another folder, or remove it")
        _write_cache(config, folder, windows)


def _write_cache(config: ConfigDict, folder: Path, windows: int) -> None:
    frozen = load(config, {"vae": "vae"})
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as held:
            classes = _encoded(config, frozen, partial, windows, held)
        about = {
            "window_frames": config.data.window_frames,
            "vae": fingerprint(frozen["vae"]),
            "classes": classes,
            "manifests": {
                f: hashlib.sha256((Path(f) / MANIFEST).read_bytes()).hexdigest() for f in folders(config.data)
            },
            "seed": config.seed,
            "data": json.loads(config.data.to_json()),
        }
        (partial / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
        partial.rename(folder)
    except BaseException:  # also of Ctrl-C: nothing goes on from it, and it would keep the disk full
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _encoded(
    config: ConfigDict, frozen: dict[str, Any], folder: Path, windows: int, held: contextlib.ExitStack
) -> dict[str, int]:
    """Write the arrays to files, which are `held` open; returns how many windows there are of each class."""
    data = held.enter_context(contextlib.closing(waveform_batches(config, config.batch_size)))
    key = jax.random.key(config.seed)

    @functools.partial(jax.jit, compiler_options=compiler_options(jax.default_backend()))
    def encode(frozen: dict[str, Any], batch: dict[str, Any], step: int) -> Latents:
        return latents(config, frozen, batch, jax.random.fold_in(key, step))[0]

    files: dict[str, IO[bytes]] = {}
    classes: Counter[str] = Counter()
    done = 0
    for step, batch in enumerate(data):
        encoded = encode(frozen, batch, step)
        kept = dict(zip(CACHED[:4], jax.device_get(encoded), strict=True)) | {n: batch[n] for n in CACHED[4:]}
        count = min(config.batch_size, windows - done)
        for name, values in kept.items():
            stored = np.ascontiguousarray(values[:count], np.float16 if name in CACHED[:3] else values.dtype)
            if name not in files:
                files[name] = held.enter_context((folder / f"{name}.npy").open("wb"))
                about = np.lib.format.header_data_from_array_1_0(stored) | {"shape": (windows, *stored.shape[1:])}
                np.lib.format.write_array_header_1_0(files[name], about)
            files[name].write(stored.data)  # not by a map, which on a full disk ends the process without a word
        classes.update(CLASSES[i] for i in batch["class_id"][:count])
        done += count
        if step % 50 == 0 or done == windows:
            LOGGER.info("%d of %d windows", done, windows)
        if done == windows:
            break
    return dict(classes)
