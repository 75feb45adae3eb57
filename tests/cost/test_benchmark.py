"""`flashsr benchmark train` as a developer runs it, on a stage that compiles at once."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from flashsr_jax.cli import main
from flashsr_jax.cost import machine, training
from flashsr_jax.train.stages import STAGES
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
    needs=lambda config: {},
    init=lambda config, frozen, key: create(config, {"vae": {"w": jax.random.normal(key, (480, 480))}}, "vae"),
    train_step=train_step,
    eval_step=lambda config, weights, frozen, batch, key: {},
)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(machine, "MATRIX", 256)  # rows of the yardstick, which all eight devices multiply
    yield
    jax.config.update("jax_enable_compilation_cache", True)  # which the benchmark turns off


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "vae", LINEAR)
    (tmp_path / "linear.py").write_text(CONFIG)
    return f"{tmp_path}/linear.py:tiny"


def test_figures_of_a_stage_and_their_table(config, monkeypatch, capsys):
    options = ["--config.batch_size=16", "--config.remat=products", "--repeats", "2"]
    assert main(["benchmark", "train", "--config", config, *options, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert set(training.COLUMNS) <= row.keys() and row["batch"] == 16 and row["remat"] == "products"
    assert row["configuration"] == config and row["steps"] == 2
    assert row["audio_seconds_per_second"] == pytest.approx(0.32 * row["windows_per_second"])
    # One product forward and one for the gradient of its weight; there is none for that of its input.
    flops_of_a_window = 2 * 2 * 32 * 480 * 480
    assert row["tflop_per_second"] == pytest.approx(flops_of_a_window * row["windows_per_second"] / 1e12)
    assert row["share_of_peak"] == pytest.approx(row["tflop_per_second"] / 8 / row["peak_tflop_per_second"])
    assert 0 < row["data_wait_share"] < 1 and row["compile_seconds"] > 0 and row["trace_seconds"] > 0
    assert row["peak_memory_gib"] > 0 and row["data"] == "random"

    monkeypatch.setattr(training, "measure", lambda *_: row)
    assert main(["benchmark", "train", "--config", config]) == 0
    head, _, line, *about = capsys.readouterr().out.splitlines()
    assert head.startswith("| configuration | batch | windows/s |") and line.startswith(f"| {config} | 16 | ")
    assert "2 steps on random data" in about[1] and about[2].startswith("peak of a device: ")


def test_a_checkpoints_times_and_what_its_checksums_take_of_them(config, tmp_path, monkeypatch, capsys):
    words = ["benchmark", "train", "--config", config, "--checkpoint", str(tmp_path / "there")]
    assert main([*words, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert 0 < row["save_checksums_seconds"] < row["save_seconds"]
    assert 0 < row["restore_checksums_seconds"] < row["restore_seconds"]
    values = 4 * 480 * 480 * 4 / 2**30  # parameters, their average, two moments
    assert row["checkpoint_gib"] == pytest.approx(values, rel=0.3)  # compressed
    assert not list((tmp_path / "there").iterdir())

    monkeypatch.setattr(training, "measure", lambda *_: row)
    assert main(words) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"saved in {row['save_seconds']:.3g} s (checksums {row['save_checksums_seconds']:.3g})" in line
    assert f"restored in {row['restore_seconds']:.3g} s (checksums {row['restore_checksums_seconds']:.3g})" in line


def test_mistakes_are_one_line(config, tmp_path, capsys):
    assert main(["benchmark", "train", "--config", config, "--data", str(tmp_path / "none")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: data.dir={tmp_path}/none: no dataset there")
