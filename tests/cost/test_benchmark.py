"""`python -m flashsr_jax.cost.training train` as a developer runs it, on a stage that compiles at once."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from flashsr_jax.cost.training import COLUMNS, main
from flashsr_jax.train.loop import STAGES
from flashsr_jax.train.state import apply_gradients, create, finish_step

CONFIG = """
from helpers import micro

def get_config(preset):
    return micro.get_config("vae")
"""


def train_step(config, state, frozen, batch, key):
    frames_BxTxH = batch["hr"].reshape(batch["hr"].shape[0], -1, 480)
    loss, gradients = jax.value_and_grad(lambda p: jnp.mean(jnp.square(frames_BxTxH @ p["w"])))(state.params["vae"])
    state, metrics = apply_gradients(config, state, "vae", gradients)
    return finish_step(config, state, "vae"), metrics | {"loss": loss}


LINEAR = SimpleNamespace(
    load_frozen=lambda config: {},
    init=lambda config, frozen, key: create(config, {"vae": {"w": jnp.ones((480, 480))}}, "vae"),
    train_step=train_step,
    eval_step=lambda config, weights, frozen, batch, key: {},
)


@pytest.fixture(autouse=True)
def restored():
    yield
    jax.config.update("jax_enable_compilation_cache", True)  # which the benchmark turns off


@pytest.mark.training
def test_figures_of_a_stage(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(STAGES, "vae", LINEAR)
    (tmp_path / "vae.py").write_text(CONFIG)
    options = ["--stage", "vae", "--preset", "tiny", "--batch", "16", "--steps", "2", "--remat", "products"]
    code = main(["train", *options, "--configs", str(tmp_path), "--json", str(tmp_path / "out.json")])
    out = capsys.readouterr().out
    assert code == 0 and out.startswith("| stage | preset | batch | windows/s |")
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert set(COLUMNS) <= row.keys() and row["batch"] == 16 and row["remat"] == "products"
    assert row["audio_seconds_per_second"] == pytest.approx(0.32 * row["windows_per_second"])
    # One product forward and one for the gradient of its weight; there is none for that of its input.
    flops_of_a_window = 2 * 2 * 32 * 480 * 480
    assert row["tflop_per_second"] == pytest.approx(flops_of_a_window * row["windows_per_second"] / 1e12)
    assert row["share_of_peak"] == pytest.approx(row["tflop_per_second"] / 8 / row["peak_tflop_per_second"])
    assert 0 < row["data_wait_share"] < 1 and row["compile_seconds"] > 0 and row["trace_seconds"] > 0
    assert row["peak_memory_gib"] > 0 and row["data"] == "random"
    assert f"| vae | tiny | 16 | {row['windows_per_second']:.3g} |" in out


def test_mistakes_are_one_line(tmp_path, capsys):
    assert main(["train", "--stage", "teacher", "--preset", "tiny", "--configs", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"flashsr_jax: --configs {tmp_path}: there is no teacher.py; run from the")
