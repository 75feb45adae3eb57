"""`from flashsr_jax import FlashSR`, as a program uses it."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax import FlashSR
from flashsr_jax.errors import UserError
from flashsr_jax.upscale.stream import upscale
from flashsr_jax.weights.store import save_weights

from helpers.tiny_model import TINY, tiny_params


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, TINY, tiny_params())
    return FlashSR.load(path)


def test_all_shapes_and_kinds_of_arrays(model):
    x = np.random.default_rng(0).normal(size=(2, 3, 8000)).astype(np.float32) * 0.1
    y = model(x, 8000)
    assert y.shape == (2, 3, 48_000) and y.dtype == np.float32 and isinstance(y, np.ndarray)
    np.testing.assert_array_equal(model(jnp.asarray(x[1]), 8000), y[1])
    np.testing.assert_array_equal(model(x[1], 8000), upscale(model.model, x[1], 8000))
    assert model(x[0, 0].astype(np.float64), 44_100).shape == (round(8000 * 48 / 44.1),)
    assert np.abs(model(x[1], 8000, seed=1) - y[1]).max() > 0
    for shape in ((), (0, 1, 8), (1, 1, 1, 8)):
        with pytest.raises(UserError, match="expected"):
            model(np.zeros(shape, np.float32), 8000)


@pytest.mark.parametrize("window_frames", [128, 512])
def test_the_stream_is_the_whole_and_lags_no_more_than_said(model, window_frames):
    rate, block = 16_000, 160  # 10 ms
    x = np.random.default_rng(0).normal(size=(2, 7 * rate)).astype(np.float32) * 0.1
    given = 0

    def blocks():
        nonlocal given
        for start in range(0, x.shape[1], block):
            given = start + block
            yield x[:, start : start + block]

    parts, got = [], 0
    latency = model.latency(rate, window_frames)
    for part in model.stream(blocks(), rate, channels=2, window_frames=window_frames):
        if given < x.shape[1]:
            assert (given - block) / rate - got / 48_000 <= latency
        parts.append(part)
        got += part.shape[1]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), model(x, rate, window_frames=window_frames))


def test_the_name_is_there_without_waiting_for_jax():
    code = "import sys, flashsr_jax; assert 'jax' not in sys.modules; flashsr_jax.FlashSR; assert 'jax' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(ImportError, match="Nothing"):
        pass
