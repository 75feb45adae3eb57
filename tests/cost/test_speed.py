"""`flashsr benchmark`, on networks that take no time."""

import contextlib
import json

import jax
import numpy as np
import pytest

from flashsr_jax.cli import main
from flashsr_jax.cost import machine, upscaling
from flashsr_jax.models.flops import preset_costs
from flashsr_jax.models.presets import PRESETS, model_config
from flashsr_jax.weights.store import parameter_shapes, save_weights

from helpers.micro import get_config
from helpers.micro_model import MICRO
from helpers.terminal import Terminal

ORIGINS = {"vae": "vae, step 3", "unet": "mean of regression, step 2; regression, step 4", "vocoder": "vocoder, step 5"}


@pytest.fixture(scope="module")
def config():
    return model_config(get_config("vae").model.to_dict())


@pytest.fixture(scope="module")
def report(config, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    params = upscaling.random_model(config).params
    params["vocoder"] = jax.tree.map(lambda leaf: np.ones(leaf.shape), parameter_shapes(config, "vocoder"))
    save_weights(path, config, params, ORIGINS)
    from flashsr_jax.upscale.model import load_model
    from flashsr_jax.upscale.stream import Settings

    cache = jax.config.jax_enable_compilation_cache
    with contextlib.redirect_stderr(Terminal()) as terminal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "MATRIX", 512)  # the yardstick is measured before every timing
        found = upscaling.benchmark(lambda: load_model(path), Settings(batch=2, steps=3), repeats=2)
    assert jax.config.jax_enable_compilation_cache == cache
    # A terminal was told what took its time, and its line is free again.
    assert terminal.lines() == [
        "loading the model",
        "a window: compiling, then 2 timings",
        *(f"{name} ({number} of 4): compiling, then 2 timings" for number, name in enumerate(found["networks"], 1)),
        "",
    ]
    return found


@pytest.mark.training
def test_flops_are_those_of_the_table_for_the_batch_and_the_steps(config, report):
    costs = preset_costs(config)
    expected = {name: 2 * 5.12 * cost.flops / 1e9 for name, cost in costs.items()}
    expected["U-Net, one evaluation"] *= 3
    got = {name: row["gflop"] for name, row in report["networks"].items()}
    assert got == pytest.approx(expected)
    assert report["window"]["gflop"] == pytest.approx(sum(expected.values()))


@pytest.mark.training
def test_rates_are_flops_by_time(report):
    assert report["matrix_gflops"] > 0.1
    for row in (report["window"], *report["networks"].values()):
        assert row["gflops"] == pytest.approx(row["gflop"] / row["seconds"])
        assert 0 < row["share_of_matrix_rate"] < 3
        assert row["seconds"] > 0 and row["compile_seconds"] >= 0
    assert report["window"]["seconds"] > 0.5 * sum(row["seconds"] for row in report["networks"].values())
    assert 1e8 < report["peak_memory_bytes"] < 1e11


@pytest.mark.training
def test_the_table_and_the_line_of_json(report):
    lines = upscaling.table(report, "micro").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 7 and {row.count("|") for row in rows} == {7}
    assert lines[0].startswith("micro (regression): ") and "GiB" in lines[-1]
    assert report["origins"] == ORIGINS
    assert json.loads(upscaling.as_json(report, "micro")) == {"model": "micro", **report}


@pytest.mark.training
def test_random_weights_have_every_parameter(config):
    params = upscaling.random_model(config).params
    for network in ("vae", "unet"):
        shapes = jax.tree.map(lambda leaf: leaf.shape, parameter_shapes(config, network))
        assert jax.tree.map(lambda leaf: leaf.shape, params[network]) == shapes


def test_the_command_takes_a_size_or_a_file_and_says_what_it_cannot(monkeypatch, capsys):
    asked = []
    monkeypatch.setitem(PRESETS, "tiny", MICRO)  # whose shapes are known soon

    def look(load, settings, repeats):
        asked.append((settings.steps, settings.batch, settings.dtype, repeats))
        model = load()
        return {"repeats": repeats, "config": model.config == MICRO, "made_by": model.name}

    monkeypatch.setattr(upscaling, "benchmark", look)
    options = ["--steps", "4", "--batch", "2", "--dtype", "bfloat16", "--repeats", "5", "--json"]
    assert main(["benchmark", "--preset", "tiny", *options]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "model": "tiny",
        "repeats": 5,
        "config": True,
        "made_by": "random weights",
    }
    assert main(["benchmark", "--json"]) == 0
    shipped = json.loads(capsys.readouterr().out)
    assert (shipped["model"], shipped["made_by"]) == ("small", "regression")
    assert asked == [(4, 2, "bfloat16", 5), (1, None, "float32", 3)]
    assert main(["benchmark", "--preset", "huge"]) == 1
    assert capsys.readouterr().err == "flashsr: no preset 'huge': choose one of tiny, small, base\n"
    assert main(["benchmark", "--weights", "none.safetensors"]) == 1
    assert capsys.readouterr().err == "flashsr: no weights file at none.safetensors\n"
