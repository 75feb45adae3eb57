"""Windows that were encoded before: the same latents as those of the step, every one once an epoch."""

import errno
import functools
import os
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.audio import HOP
from flashsr_jax.data.batches import make_iterator
from flashsr_jax.data.latents import ABOUT, CACHED, LatentCache
from flashsr_jax.errors import UserError
from flashsr_jax.models.vae import VAE
from flashsr_jax.train import latents as cache_module
from flashsr_jax.train.frozen import model_of
from flashsr_jax.train.latents import cached_batches, latents, write_cache

from helpers import micro


@pytest.fixture
def config(dataset, tmp_path, monkeypatch):
    """A micro-sized run whose VAE has random weights."""
    config = micro.get_config("regression")
    config.data.dir, config.data.latents = str(dataset), str(tmp_path / "latents")
    config.data.floor_probability = 0.5
    model = model_of(config)
    mel = jnp.zeros((1, config.data.window_frames, model.vae.mel_bins))
    params = jax.jit(VAE(model.vae).init)(jax.random.key(1), mel)["params"]
    frozen = {"vae": params, "scale_factor": jnp.float32(0.5)}
    monkeypatch.setattr(cache_module, "load", lambda *_: frozen)
    return config, frozen


@pytest.mark.training
def test_cached_latents_are_those_of_the_step(config):
    config, frozen = config
    write_cache(config, config.data.latents, 2 * config.batch_size)
    cache = LatentCache(config.data.latents)
    waveforms = next(make_iterator(config.data, "train", batch_size=8, window_samples=32 * HOP, seed=config.seed))
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    direct, _ = jax.jit(functools.partial(latents, config))(frozen, waveforms, key)
    cached, _ = latents(config, frozen, jax.tree.map(lambda *x: np.stack(x), *(cache[i] for i in range(8))), key)
    for name, one, other in zip(direct._fields, direct, cached, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3, err_msg=name)
    assert sorted(b["cutoff_hz"] for b in (cache[i] for i in range(8))) == sorted(waveforms["cutoff_hz"])

    one_epoch = cached_batches(config, frozen, config.batch_size)
    seen = np.concatenate([next(one_epoch)["z_lr"] for _ in range(2)])
    assert len({z.tobytes() for z in seen}) == len(cache)

    first, second = Path(config.data.latents), Path(config.data.latents).with_name("more")
    config.seed = 1
    write_cache(config, second, config.batch_size)
    config.data.latents = f"{first},{second}"
    both = cached_batches(config, frozen, config.batch_size)
    seen = np.concatenate([next(both)["z_lr"] for _ in range(3)])
    assert len({z.tobytes() for z in seen}) == 3 * config.batch_size

    frozen["vae"] = jax.tree.map(lambda x: x + 1e-3, frozen["vae"])
    with pytest.raises(UserError, match="another VAE"):
        cached_batches(config, frozen, config.batch_size)


@pytest.fixture
def cache(tmp_path):
    """The folder of 64 windows of noise."""
    for name in CACHED:
        shape = (64, 1000) if name in CACHED[:3] else (64,)
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).standard_normal(shape).astype(np.float16))
    (tmp_path / ABOUT).write_text("{}")
    return tmp_path


def test_a_worker_gets_the_name_of_a_cache_and_not_its_arrays(cache):
    windows = LatentCache(cache)
    sent = pickle.dumps(windows)
    assert len(sent) < 1000
    jax.tree.map(np.testing.assert_array_equal, pickle.loads(sent)[5], windows[5])


def test_a_damaged_cache_is_one_line(cache):
    for damage in (
        lambda: np.save(cache / "mel.npy", np.zeros((10, 1000), np.float16)),
        lambda: os.truncate(cache / "mel.npy", 1000),
        (cache / "mel.npy").unlink,
        lambda: (cache / ABOUT).write_text("{"),
    ):
        damage()
        with pytest.raises(UserError, match=r"^data.latents=.*: damaged \(.*\): encode windows anew$"):
            LatentCache(cache)


def test_encoding_that_fails_leaves_nothing_behind(config, monkeypatch):
    config, _ = config

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module, "latents", full)
    with pytest.raises(OSError, match="No space left"):
        write_cache(config, config.data.latents, config.batch_size)
    assert not any(Path(config.data.latents).parent.iterdir())
