"""What a process has traced and checked, the next one reads; what is damaged or of other code is found out again."""

import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from flashsr_jax import kept
from flashsr_jax.errors import UserError
from flashsr_jax.upscale import programs, stream
from flashsr_jax.upscale.model import load_model
from flashsr_jax.weights import store
from flashsr_jax.weights.shipped import weights_path
from flashsr_jax.weights.store import load_weights, save_weights

from helpers import RECORDINGS
from helpers.micro_model import MICRO, micro_params

X_N = np.random.default_rng(0).normal(size=8000).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """An empty folder for what is kept. Compiled programs stay where they are: JAX opens their folder once."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "kept"))
    programs._BEGUN.clear()
    yield tmp_path / "kept"
    jax.config.update("jax_compilation_cache_dir", before)
    programs._BEGUN.clear()


def never(*_):
    raise AssertionError("found out again")


@pytest.fixture
def weights(tmp_path):
    save_weights(tmp_path / "micro.safetensors", MICRO, micro_params())
    return tmp_path / "micro.safetensors"


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_no_program_has_products_that_each_process_plans_anew(folder):
    """By YNNPACK each takes half a millisecond more when it is first run: `devices.runtime.compiler_options`."""

    def product(x, w):
        return jax.nn.relu(x @ w)

    for _ in range(2):  # traced, and read
        programs._BEGUN.clear()
        begun = programs.prepare(product, (), np.ones((512, 64), np.float32), np.ones((64, 64), np.float32))
        assert "ynn" not in begun.result().as_text()


def test_a_program_is_traced_once_and_again_where_what_was_kept_is_damaged(folder):
    traced, x = [], np.arange(3, dtype=np.float32)

    def scaled(by, x):
        traced.append(by)
        return by * x

    def run():
        programs._BEGUN.clear()  # as another process begins
        np.testing.assert_array_equal(programs.run(scaled, (3.0,), x), 3 * x)
        return len(traced)

    assert [run(), run()] == [1, 1]
    (path,) = folder.glob("flashsr_jax-program-*")
    damage(path)
    assert [run(), run()] == [2, 2]


def test_what_is_interrupted_compiles_no_more_than_it_has_begun(folder, monkeypatch):
    begun, let_go, compiled = [], threading.Event(), programs._compiled

    def slowly(function, *of):
        begun.append(function)
        assert let_go.wait(60)
        return compiled(function, *of)

    monkeypatch.setattr(programs, "_compiled", slowly)
    x = np.arange(3, dtype=np.float32)

    def first(x):
        return x + 1

    def second(x):
        return x + 2

    @programs.dropped_at_interrupts()
    def interrupted():
        programs.prepare(first, (), x)
        programs.prepare(second, (), x)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    let_go.set()
    np.testing.assert_array_equal(programs.run(first, (), x), x + 1)
    programs._THREADS.submit(int).result()  # what was told before is done
    assert begun == [first]
    np.testing.assert_array_equal(programs.run(second, (), x), x + 2)


def test_a_file_of_weights_is_checked_once(folder, weights, monkeypatch):
    load_weights(weights)
    assert len(list(folder.glob("flashsr_jax-fits-*"))) == 1
    monkeypatch.setattr(store, "_check_shapes", never)
    load_weights(weights)


@pytest.mark.training
def test_what_comes_along_is_checked_here_and_by_no_listener(folder, tmp_path, monkeypatch):
    file = weights_path("small")
    load_weights(shutil.copy(file, tmp_path))
    assert len(list(folder.glob("flashsr_jax-fits-*"))) == 1
    shutil.rmtree(folder)
    monkeypatch.setattr(store, "_check_shapes", never)
    load_weights(file)


@pytest.mark.training
def test_the_next_process_does_not_trace(folder, weights, monkeypatch):
    first = stream.upscale(load_model(weights), X_N, 8000)
    assert len(list(folder.glob("flashsr_jax-program-*"))) == 3
    assert len(list(folder.glob("flashsr_jax-fits-*"))) == 1
    programs._BEGUN.clear()  # as another process begins
    with monkeypatch.context() as patched:
        patched.setattr(stream, "predict_latent", never)
        patched.setattr(store, "_check_shapes", never)
        np.testing.assert_array_equal(stream.upscale(load_model(weights), X_N, 8000), first)

    # A damaged one is traced again; the vocoder's is the smallest, and soon traced.
    path = min(folder.glob("flashsr_jax-program-*"), key=lambda path: path.stat().st_size)
    damage(path)
    programs._BEGUN.clear()
    np.testing.assert_array_equal(stream.upscale(load_model(weights), X_N, 8000), first)


def test_another_header_is_checked_anew(folder, weights, monkeypatch):
    load_weights(weights)
    params = micro_params()
    params["vae"]["decoder"]["conv_in"]["bias"] = np.zeros(3, np.float32)
    with monkeypatch.context() as patched:
        patched.setattr(store, "_check_shapes", lambda *_: None)
        save_weights(weights, MICRO, params)
    with pytest.raises(UserError, match=r"vae/decoder/conv_in/bias: \(3,\), expected"):
        load_weights(weights)
    with pytest.raises(UserError, match="conv_in/bias"):  # what does not fit is not kept as what does
        load_weights(weights)


def test_what_was_kept_is_of_its_code(folder, monkeypatch):
    kept.save("thing", (1, "a"), b"data")
    assert kept.load("thing", (1, "a")) == b"data"
    assert kept.load("thing", (2, "a")) is None
    assert kept.load("other", (1, "a")) is None
    monkeypatch.setattr(kept, "_code", lambda: "changed")
    assert kept.load("thing", (1, "a")) is None


def test_nothing_is_kept_where_nobody_asked_for_it_or_nothing_can_be_written(folder):
    folder.write_text("a file in the folder's place")
    kept.save("thing", 1, b"data")
    assert kept.load("thing", 1) is None
    jax.config.update("jax_compilation_cache_dir", None)
    kept.save("thing", 1, b"data")
    assert kept.load("thing", 1) is None


def test_a_listener_does_not_wait_for_imports_that_upscaling_needs_not():
    file = next(RECORDINGS.rglob("*.flac"))
    code = "import sys; from flashsr_jax.upscale import files; from flashsr_jax.audio.bandwidth import bandwidth; "
    code += "import soundfile; bandwidth(*soundfile.read(sys.argv[1])); "
    code += "print([m for m in ('scipy.signal', 'scipy.stats', 'pandas', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
