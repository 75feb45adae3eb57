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

from helpers.micro_model import MICRO, micro_params


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_weights(path, MICRO, micro_params())
    return FlashSR.load(path)


def test_all_shapes_and_kinds_of_arrays(model):
    x = np.random.default_rng(0).normal(size=(2, 2, 8000)).astype(np.float32) * 0.1
    y = model(x, 8000)
    assert y.shape == (2, 2, 48_000) and y.dtype == np.float32 and isinstance(y, np.ndarray)
    np.testing.assert_array_equal(model(jnp.asarray(x[1]), 8000), y[1])
    np.testing.assert_array_equal(upscale(model.model, x[1], 8000), model(x[1], 8000, cutoff_hz=None))
    assert model(x[0, 0].astype(np.float64), 44_100).shape == (round(8000 * 48 / 44.1),)
    assert np.abs(model(x[1, 0], 8000, seed=1) - y[1, 0]).max() > 0
    for shape in ((), (0, 1, 8), (1, 1, 1, 8)):
        with pytest.raises(UserError, match="expected"):
            model(np.zeros(shape, np.float32), 8000)


class Tensor:
    """Like a tensor of PyTorch that has a gradient and lies on a GPU."""

    def __init__(self, values, place="cuda", gradient=True, dtype="bfloat16"):
        self.values, self.place, self.gradient, self.dtype = values, place, gradient, dtype

    def detach(self):
        return Tensor(self.values, self.place, False, self.dtype)

    def cpu(self):
        return Tensor(self.values, "cpu", self.gradient, self.dtype)

    def is_floating_point(self):
        return self.dtype != "int16"

    def float(self):
        return Tensor(self.values, self.place, self.gradient, "float32")

    def __array__(self, dtype=None, copy=None):
        assert (self.place, self.gradient) == ("cpu", False), "torch raises RuntimeError or TypeError"
        assert self.dtype != "bfloat16", "torch raises TypeError"
        return np.asarray(self.values, self.dtype)


@pytest.mark.training
def test_tensors_lists_and_floats_of_every_width_are_taken(model):
    short = {"window_frames": 128}  # fast
    x = (np.random.default_rng(0).integers(-99, 99, size=(2, 4000)) / 128).astype(np.float32)
    y = model(x, 8000, **short)
    kinds = (Tensor(x), Tensor(x, dtype="float32"), jnp.asarray(x, jnp.bfloat16), x.astype(np.float16), x.tolist())
    for same in (*kinds, np.ma.asarray(x), x.astype(np.longdouble), np.repeat(x, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(model(same, 8000, **short), y)
    stream = model.stream([Tensor(x)], np.int64(8000), channels=np.int32(2), bands=None, **short)
    np.testing.assert_array_equal(np.concatenate(list(stream), axis=1), model(x, 8000, cutoff_hz=None, **short))


def test_integers_have_the_scale_of_their_type(model):
    x = np.random.default_rng(0).integers(-100, 100, size=(1, 4000)) / 128
    y, alone = model(x, 8000.0), model(x, 8000, cutoff_hz=None)
    for dtype, zero, full_scale in (("int8", 0, 2**7), ("uint8", 2**7, 2**7), ("int16", 0, 2**15), ("int32", 0, 2**31)):
        whole = (x * full_scale + zero).astype(dtype)
        np.testing.assert_array_equal(model(whole, 8000), y)
        stream = model.stream([whole], 8000, channels=1, bands=None)
        np.testing.assert_array_equal(np.concatenate(list(stream), axis=1), alone)
    np.testing.assert_array_equal(model(Tensor(x * 2**15, dtype="int16"), 8000), y)


class Meta(Tensor):
    """Like a tensor of PyTorch that has a shape and no values."""

    def detach(self):
        return self

    def cpu(self):
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")


X = np.zeros((2, 800), np.float32)
BAD_SAMPLES = [
    (np.zeros((8000, 2)), r"shape \(8000, 2\): channels come first, up to 64: pass x\.T"),
    (np.zeros((3, 8000, 2)), r"shape \(3, 8000, 2\): channels come first, up to 64: pass x\.swapaxes\(1, 2\)"),
    (np.zeros((65, 8000)), r"shape \(65, 8000\): channels come first, up to 64: pass mono examples .* x\[:, None\]"),
    (np.zeros((1, 65, 8000)), r"shape \(1, 65, 8000\): channels come first, up to 64: pass fewer"),
    (np.zeros((0, 100)), r"expected at least one channel, got shape \(0, 100\)"),
    (np.zeros((1, 0, 5)), r"expected at least one channel, got shape \(1, 0, 5\)"),
    (np.zeros((0, 1, 5)), r"expected at least one example, got shape \(0, 1, 5\)"),
    (np.zeros((1, 1, 1, 5)), r"expected audio of shape"),
    (0.5, "expected audio of shape"),
    (X > 0, "samples of type bool have no scale: pass floats in"),
    (X.astype(np.int64), "samples of type int64 have no scale"),
    (X.astype(np.uint16), "samples of type uint16 have no scale"),
    (X.astype(complex), "samples of type complex128"),
    ([1, 0, -1], "samples of type int64"),
    ([[0.1], [0.1, 0.2]], "expected an array of samples"),
    (None, "samples of type object"),
    (Meta(X), "expected an array of samples: Cannot copy out of meta tensor"),
    ("talk.wav", "expected an array of samples, got 'talk.wav': read a file"),
    ([0.1, 1e300], "sample 1 of channel 1 is inf"),
    ([0.1, 3e20], "sample 1 of channel 1 is 3.0"),
]
BAD_RATES = [
    float("nan"),
    float("inf"),
    8000.5,
    0,
    -8000,
    3999,
    768_001,
    2**31,
    True,
    None,
    "8000",
    X,
    [8000],
    8000 + 0j,
]
BAD_OPTIONS = [
    ({"seed": -1}, "seed=-1 is not an integer from 0 to 4294967295"),
    ({"seed": 2**33}, "seed=8589934592 is not an integer"),
    ({"seed": 1.0}, "seed=1.0 is not"),
    ({"seed": None}, "seed=None is not"),
    ({"seed": X}, r"seed=array\(\[\[.*\.\.\. is not"),
    ({"steps": 0}, "steps=0 is not an integer from 1 to 1000"),
    ({"steps": "4"}, "steps='4' is not"),
    ({"batch": 0}, "batch=0 is not an integer from 1 to 1024"),
    ({"batch": True}, "batch=True is not"),
    ({"dtype": "fp8"}, "dtype='fp8': take 'float32' or 'bfloat16'"),
    ({"dtype": np.float16}, "dtype=<class 'numpy.float16'>: take"),
    ({"guidance": float("nan")}, "guidance=nan is not a number"),
    ({"guidance": "2"}, "guidance='2' is not a number"),
    ({"window_frames": 5.12}, "window_frames=5.12 is not an integer"),
    ({"window_frames": 100}, "a window of 100 frames does not suit this model"),
    ({"window_frames": 10**9}, "window_frames=1000000000 is not"),
    ({"bands": 4000}, "bands=4000: take"),
    ({"bands": np.zeros(2)}, r"bands=array\(.*: take"),
    ({"sede": 1}, "there is no option sede: is it seed?"),
    ({"frequency": 1}, "there is no option frequency: take seed, steps"),
]


@pytest.mark.parametrize(("x", "reason"), BAD_SAMPLES)
def test_what_are_no_samples_is_said_with_the_way_out(model, x, reason):
    with pytest.raises(UserError, match=reason) as raised:
        model(x, 8000)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("rate", BAD_RATES)
def test_what_is_no_rate_is_said_at_once(model, rate):
    calls = (lambda: model(X, rate), lambda: model.stream([X], rate, channels=2), lambda: model.latency(rate))
    for call in (*calls, lambda: model(X[None], rate), lambda: upscale(model.model, X, rate)):
        with pytest.raises(UserError, match="the sample rate is ") as raised:
            call()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("rate", [16_000.0, np.float32(16_000), np.int16(16_000), np.uint16(16_000)])
def test_a_rate_is_the_same_whatever_its_type(model, rate):
    """Over 10 s, which are measured in blocks."""
    x = 0.1 * np.random.default_rng(0).normal(size=11 * 16_000).astype(np.float32)
    np.testing.assert_array_equal(model(x, rate), model(x, 16_000))
    assert model.latency(rate) == model.latency(16_000)
    once, again = (np.concatenate([*model.stream([x[None]], r, channels=1)], axis=1) for r in (rate, 16_000))
    np.testing.assert_array_equal(once, again)


def test_integers_of_numpy_are_those_of_python(model):
    options = {"seed": 3, "steps": 1, "batch": 3, "window_frames": 128}
    kinds = {"seed": np.uint8, "steps": np.int8, "batch": np.uint8, "window_frames": np.int16}
    others = {name: kinds[name](value) for name, value in options.items()}
    np.testing.assert_array_equal(model(X, 8000, **others), model(X, 8000, **options))


@pytest.mark.parametrize(("options", "reason"), BAD_OPTIONS)
def test_what_is_no_option_is_said_at_once(model, options, reason):
    for call in (lambda: model(X, 8000, **options), lambda: model.stream([X], 8000, channels=2, **options)):
        with pytest.raises(UserError, match=reason) as raised:
            call()
        assert "\n" not in str(raised.value)
    if "window_frames" in options:
        with pytest.raises(UserError, match=reason):
            model.latency(8000, **options)


@pytest.mark.parametrize(
    ("blocks", "channels", "reason"),
    [
        ([X.T], 2, r"block 0 has shape \(800, 2\), not \(2, n\): channels come first: pass block\.T"),
        ([X[:1], X], 1, r"block 1 has shape \(2, 800\), not \(1, n\)"),
        (X, 2, r"block 0 has shape \(800,\), not \(2, n\)"),
        ([X[0]], 1, r"block 0 has shape \(800,\), not \(1, n\): one channel is block\[None\]"),
        ([X > 0], 2, "samples of type bool"),
        ([X * np.nan], 2, "sample 0 of channel 1 is nan"),
        (None, 2, r"expected an iterable of blocks \(2, n\), got NoneType"),
        ("talk.wav", 2, r"expected an iterable of blocks \(2, n\), got str"),
        ([X], 0, "channels=0 is not an integer from 1 to 64"),
        ([X], 65, "channels=65 is not"),
        ([X], None, "channels=None is not"),
        ([X], 2.0, "channels=2.0 is not"),
    ],
)
def test_what_is_no_stream_is_said(model, blocks, channels, reason):
    with pytest.raises(UserError, match=reason):
        list(model.stream(blocks, 8000, channels=channels))


def test_nothing_in_is_nothing_out(model):
    for shape in ((0,), (2, 0), (3, 2, 0)):
        assert model(np.zeros(shape, np.float32), 8000).shape == shape


@pytest.mark.parametrize("weights", [None, 7, b"small"])
def test_what_are_no_weights_is_said(weights):
    with pytest.raises(UserError, match="weights of type .*: give a file's name, or 'small'"):
        FlashSR.load(weights)


@pytest.mark.training
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
    latency = model.latency(rate, window_frames=window_frames)
    for part in model.stream(blocks(), rate, channels=2, bands=None, window_frames=window_frames):
        if given < x.shape[1]:
            assert (given - block) / rate - got / 48_000 <= latency
        parts.append(part)
        got += part.shape[1]
    np.testing.assert_array_equal(
        np.concatenate(parts, axis=1), model(x, rate, cutoff_hz=None, window_frames=window_frames)
    )


def test_the_name_is_there_without_waiting_for_jax():
    code = "import sys, flashsr_jax; assert 'jax' not in sys.modules; flashsr_jax.FlashSR; assert 'jax' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(ImportError, match="Nothing"):
        from flashsr_jax import Nothing  # noqa: F401
