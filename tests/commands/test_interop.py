"""`flashsr_jax.interop`: tensors of PyTorch in, tensors out."""

import sys

import numpy as np
import pytest

from flashsr_jax import FlashSR
from flashsr_jax.errors import UserError
from flashsr_jax.interop import upscale_tensor
from flashsr_jax.weights.store import save_weights

from helpers.micro_model import MICRO, micro_params

SHORT = {"window_frames": 128}  # fast
X = (np.random.default_rng(0).integers(-99, 99, size=(2, 2, 4000)) / 128).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_weights(path, MICRO, micro_params())
    return FlashSR.load(path)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch, which this package does without")


def test_a_tensor_is_upscaled_as_an_array_is(model, torch):
    for array, shape in ((X[0, 0], (4000,)), (X[0], (2, 4000)), (X, (1, 2, 1, 2, 4000))):
        x = torch.from_numpy(array).reshape(shape)
        y = upscale_tensor(model, x, 8000, **SHORT)
        assert y.shape == (*shape[:-1], 24_000) and y.dtype == torch.float32 and y.device == x.device
        np.testing.assert_array_equal(y.reshape(*array.shape[:-1], -1), model(array, 8000, **SHORT))
    y += 1  # its memory is the caller's own


def test_floats_keep_their_type_and_integers_become_floats(model, torch):
    y = model(X[0], 8000, **SHORT)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        got = upscale_tensor(model, torch.from_numpy(X[0]).to(dtype).requires_grad_(), 8000, **SHORT)
        assert got.dtype == dtype and not got.requires_grad
        np.testing.assert_array_equal(got.float(), torch.from_numpy(y).to(dtype).float())
    got = upscale_tensor(model, torch.from_numpy((X[0] * 2**15).astype(np.int16)), 8000, **SHORT)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got, y)


def test_mistakes_are_named(model, torch):
    x = torch.zeros(2, 4000)
    for bad, message in (
        (x.numpy(), "expected a tensor of PyTorch, got ndarray"),
        (x.T, r"shape \(4000, 2\): channels come first"),
        (x[:, :0].reshape(1, 0, 1, 1, 0), "expected at least one example"),
        (torch.tensor(0.0), "expected audio of shape"),
        (x > 0, "samples of type bool have no scale"),
        (x.to_sparse(), "expected an array of samples: .*Sparse"),
        (torch.zeros(8, device="meta"), "expected an array of samples: Cannot copy out of meta tensor"),
        (x / 0, "sample 0 of channel 1 is nan"),
    ):
        with pytest.raises(UserError, match=message):
            upscale_tensor(model, bad, 8000)
    with pytest.raises(UserError, match="3999"):
        upscale_tensor(model, x, 3999)


def test_without_pytorch_a_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"^tensors need PyTorch, .*: pip install torch$"):
        upscale_tensor(None, X, 8000)
