"""`flashsr weights export --to onnx` and `--to stablehlo`: the graphs compute what JAX does, without the package."""

import contextlib
import dataclasses
import functools
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import export

from flashsr_jax import FlashSR
from flashsr_jax.audio import HOP, SAMPLE_RATE
from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.cli import main
from flashsr_jax.errors import UserError
from flashsr_jax.exchange.graphs.run import Graphs, anchored_noise
from flashsr_jax.models import pipeline
from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.upscale import stream
from flashsr_jax.weights.shipped import SHIPPED
from flashsr_jax.weights.store import load_weights, save_weights

from helpers.micro_model import MICRO, SPECTRAL, micro_params

TOLERANCE = 1e-3  # of full scale
OF_THE_MEL = dataclasses.replace(MICRO, vocoder=dataclasses.replace(MICRO.vocoder, lr_conditioned=False))
OUTPUTS = {"encoder": "latent", "decoder": "mel", "vocoder": "restored"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(config: ModelConfig = SPECTRAL) -> str:
    save_weights("model.safetensors", config, micro_params(config=config), {"unet": "student, step 4"})
    return "model.safetensors"


def exported(source: str, *options: str, to: str = "onnx") -> Path:
    out = Path("-".join(["graphs", to, *(option.strip("-") for option in options)]))
    assert main(["weights", "export", source, "--to", to, *options, "-o", str(out)]) == 0
    return out


class Exported(NamedTuple):
    """A model's file, its graphs' folder, and the lines of the command that wrote them."""

    model: Path
    graphs: Path
    said: list[str]


def exported_to(folder: Path, config: ModelConfig) -> Exported:
    model, graphs = folder / "model.safetensors", folder / "graphs"
    save_weights(model, config, micro_params(config=config), {"unet": "student, step 4"})
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["weights", "export", str(model), "--to", "onnx", "-o", str(graphs)]) == 0
    return Exported(model, graphs, said.getvalue().splitlines())


@pytest.fixture(scope="module")
def spectral(tmp_path_factory) -> Exported:
    """Made once: compiling and comparing takes seconds. Tests change nothing of it."""
    return exported_to(tmp_path_factory.mktemp("spectral"), SPECTRAL)


def inputs(config: ModelConfig, batch: int, frames: int) -> dict[str, np.ndarray]:
    """Of all graphs: noise, and the log-mel of a tone in noise."""
    rng = np.random.default_rng(batch)
    time_N = np.arange(frames * HOP) / SAMPLE_RATE
    waveform = 0.2 * np.sin(2 * np.pi * 440 * time_N) + 0.02 * rng.normal(size=(batch, len(time_N)))
    latent = (batch, *pipeline.latent_shape(config, frames * HOP))
    arrays = {
        "waveform": waveform,
        "mel": np.asarray(jax.jit(log_mel, static_argnums=1)(waveform, config.vae.mel_bins)),
        **{name: rng.normal(size=latent) for name in ("posterior_noise", "initial_noise", "latent")},
    }
    if phases := pipeline.phase_noise_shape(config, frames * HOP):
        arrays["phase_noise"] = rng.normal(size=(batch, *phases))
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@functools.partial(jax.jit, static_argnums=0)
def networks(config: ModelConfig, params: dict, given: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    scale = params["scale_factor"]
    condition = pipeline.encode(params["vae"], config, given["mel"], given["posterior_noise"], scale)
    return {
        "encoder": pipeline.sample_latent(params["unet"], config, condition, given["initial_noise"]),
        "decoder": pipeline.restored_mel(params["vae"], config, given["latent"], scale),
        "vocoder": pipeline.vocode(
            params["vocoder"], config, given["mel"], given["waveform"], phase_noise=given.get("phase_noise")
        ),
    }


def errors(file: str | Path, given: dict[str, np.ndarray], got: dict[str, np.ndarray]) -> dict[str, float]:
    """By graph the largest error of an output, relative to full scale; of the vocoder, to what it adds."""
    config, params, _ = load_weights(file)
    expected = jax.tree.map(np.asarray, networks(config, jax.tree.map(jnp.asarray, params), given))
    found = {}
    for name, output in expected.items():
        assert got[name].shape == output.shape and got[name].dtype == np.float32
        added = output - given["waveform"] if name == "vocoder" and config.vocoder.lr_conditioned else output
        found[name] = float(np.abs(got[name] - output).max() / np.abs(added).max())
    return found


def outputs(folder: Path, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the graphs of a folder make of inputs."""
    found = {}
    for name, about in described(folder)["graphs"].items():
        session = onnxruntime.InferenceSession(folder / about["file"], providers=["CPUExecutionProvider"])
        (found[name],) = session.run(list(about["outputs"]), {each: given[each] for each in about["inputs"]})
    return found


def described(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text())


@pytest.mark.training
@pytest.mark.parametrize("config", [SPECTRAL, OF_THE_MEL], ids=["spectral", "of the mel"])
def test_each_graph_computes_what_jax_does_for_any_batch_and_length(config, spectral, folder):
    """Two windows of 0.32 s here, and in the command's own comparison one of 1.28 s."""
    model, graphs, said = spectral if config == SPECTRAL else exported_to(folder, config)
    *files, difference = said
    assert files == [f"{graphs}/{file}" for file in ("encoder.onnx", "decoder.onnx", "vocoder.onnx", "model.json")]
    beginning = "float32 in ONNX Runtime differs from float32 in JAX by 0.00"
    assert difference.startswith(beginning) and float(difference.split(" of full")[0].split()[-1]) < TOLERANCE
    given = inputs(config, 2, 32)
    assert max(errors(model, given, outputs(graphs, given)).values()) < TOLERANCE


@pytest.mark.training
def test_the_graphs_are_plain_onnx_of_the_stated_opset(spectral):
    graphs = spectral.graphs
    about = described(graphs)
    for name, output in OUTPUTS.items():
        model = onnx.load(graphs / f"{name}.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)] and about["opset"] == 20
        assert not {node.op_type for node in model.graph.node} & {"Shape", "Loop", "If", "Expand"}
        shapes = {
            value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        of_file = about["graphs"][name]
        assert shapes == of_file["inputs"] | of_file["outputs"] and list(of_file["outputs"]) == [output]
        assert all(axes[0] == "batch" for axes in shapes.values())
    assert about["origins"] == {"unet": "student, step 4"}


@pytest.mark.training
def test_a_program_upscales_by_the_graphs_alone_as_python_does(spectral):
    """Windows, noise, level and front end of model.json, in NumPy: two channels, two windows, within -60 dB."""
    graphs = Graphs(spectral.graphs)
    rng = np.random.default_rng(3)
    time_N = np.arange(int(4.5 * SAMPLE_RATE)) / SAMPLE_RATE
    x_CxN = np.stack([0.3 * np.sin(2 * np.pi * 700 * time_N), 0.1 * rng.normal(size=len(time_N))]).astype(np.float32)
    expected = FlashSR.load(spectral.model)(x_CxN, SAMPLE_RATE, cutoff_hz=None, seed=7)
    got = graphs.upscale(x_CxN, seed=7)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    assert np.abs(graphs.upscale(x_CxN, seed=8) - expected).max() > 1e-2 * np.abs(expected).max()
    constant = np.full((1, 16 * HOP), 0.25, np.float32)
    np.testing.assert_array_equal(graphs.window(constant), constant)


def test_noise_is_that_of_jax():
    shape, seed = (5, 3, 4), 2**32 - 2

    @jax.jit
    def of_jax(frame):
        return [stream.anchored_noise(key, frame[None], shape)[0] for key in jax.random.split(jax.random.key(seed))]

    for frame in (0, -12, 100_000):
        for index, expected in enumerate(of_jax(frame)):
            np.testing.assert_allclose(anchored_noise(seed, index, frame, shape), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.training
def test_the_log_mel_is_in_the_graph_where_asked():
    graphs = exported(saved(), "--with-stft")
    assert list(described(graphs)["graphs"]["encoder"]["inputs"]) == ["waveform", "posterior_noise", "initial_noise"]
    given = inputs(SPECTRAL, 2, 32)
    assert errors("model.safetensors", given, outputs(graphs, given))["encoder"] < TOLERANCE


@pytest.mark.training
@pytest.mark.parametrize(("dtype", "size", "change"), [("float16", 0.6, 0.02), ("int8", 0.4, 0.3)])
def test_smaller_types_are_smaller_and_say_what_they_change(dtype, size, change, spectral, capsys):
    whole, small = spectral.graphs, exported(str(spectral.model), "--dtype", dtype)
    (said,) = re.findall(rf"^{dtype} in ONNX Runtime .* by (\S+) in LSD", capsys.readouterr().out, re.MULTILINE)
    assert 0 < float(said) < 1 and described(small)["dtype"] == dtype
    bytes_of = [
        sum(map(len, (t.raw_data for t in onnx.load(g / "vocoder.onnx").graph.initializer))) for g in (whole, small)
    ]
    assert bytes_of[1] < size * bytes_of[0]
    given = inputs(SPECTRAL, 2, 32)
    of_whole, of_small = (errors(spectral.model, given, outputs(g, given)) for g in (whole, small))
    for name in OUTPUTS:
        assert of_whole[name] < of_small[name] < change, name


READER = """
import sys
import numpy as np
from jax import export

given = np.load("inputs.npz")
inputs = {
    "encoder": ("mel", "posterior_noise", "initial_noise"),
    "decoder": ("latent",),
    "vocoder": ("mel", "waveform", "phase_noise"),
}
outputs = {}
for name in inputs:
    program = export.deserialize(bytearray(open(f"{sys.argv[1]}/{name}.stablehlo", "rb").read()))
    outputs[name] = program.call(*(given[each] for each in inputs[name]))
np.savez("outputs.npz", **outputs)
assert not [name for name in sys.modules if name.startswith(("flashsr_jax", "flax"))]
"""


@pytest.mark.training
def test_stablehlo_runs_in_a_process_without_the_package():
    programs = exported(saved(), to="stablehlo")
    about = described(programs)
    given = inputs(SPECTRAL, 2, about["window"]["frames"])
    np.savez("inputs.npz", **given)
    done = subprocess.run([sys.executable, "-c", READER, str(programs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(errors("model.safetensors", given, np.load("outputs.npz")).values()) < TOLERANCE


@pytest.mark.training
def test_stablehlo_takes_the_waveform_where_asked():
    programs = exported(saved(), "--with-stft", "--dtype", "bfloat16", to="stablehlo")
    program = export.deserialize(bytearray((programs / "encoder.stablehlo").read_bytes()))
    axes = [[str(axis) for axis in aval.shape] for aval in program.in_avals]
    of_file = described(programs)["graphs"]["encoder"]["inputs"]
    assert axes == [[str(axis) for axis in shape] for shape in of_file.values()] and "waveform" in of_file
    assert {aval.dtype for aval in (*program.in_avals, *program.out_avals)} == {np.dtype(np.float32)}


MISTAKES = {
    (
        "model.safetensors",
        "--to",
        "onnx",
        "--dtype",
        "bfloat16",
    ): "--dtype bfloat16: --to onnx takes float32, float16, int8",
    (
        "model.safetensors",
        "--to",
        "torch",
        "--dtype",
        "int8",
    ): "--dtype int8: --to torch takes float32, bfloat16, float16",
    (
        "model.safetensors",
        "--to",
        "stablehlo",
        "--dtype",
        "int8",
    ): "--dtype int8: --to stablehlo takes float32, bfloat16",
    (
        "model.safetensors",
        "--to",
        "torch",
        "--with-stft",
    ): "--with-stft is for --to onnx and stablehlo; torch has weights",
    ("unet.safetensors", "--to", "onnx"): "unet.safetensors has no vae, vocoder, scale_factor",
    ("nowhere", "--to", "onnx"): "no weights file at nowhere",
    (".", "--to", "stablehlo"): ". is not the folder of a training run",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(arguments, capsys):
    saved()
    save_weights("unet.safetensors", MICRO, {"unet": micro_params()["unet"]})
    assert main(["weights", "export", *arguments, "-o", "out"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: {MISTAKES[arguments]}"), line
    assert not Path("out").exists()


@pytest.mark.training
def test_what_is_no_graph_or_does_not_suit_one_is_named(spectral):
    good = shutil.copytree(spectral.graphs, Path("graphs"))
    graphs = Graphs(good)
    for shape, frames, message in (
        ((4800,), None, r"expected audio of shape \(channels, samples\), got \(4800,\)"),
        ((1, 0), None, r"expected audio .* got \(1, 0\)"),
        ((1, 4800), 100, "a window of 100 frames does not suit this model: take a multiple of 16, 112 or more"),
        ((1, 4800), 96, "a window of 96 frames"),
    ):
        with pytest.raises(UserError, match=message):
            graphs.upscale(np.zeros(shape, np.float32), window_frames=frames)
    (good / "decoder.onnx").write_bytes((good / "decoder.onnx").read_bytes()[:-100])
    with pytest.raises(UserError, match="decoder.onnx cannot be read, export it again"):
        Graphs(good)
    (good / "encoder.onnx").unlink()
    with pytest.raises(UserError, match="encoder.onnx cannot be read, export it again"):
        Graphs(good)
    for text in ("{}", "[]", "{", '{"format": "flashsr_jax/graphs/1"}'):
        Path("model.json").write_text(text)
        with pytest.raises(UserError, match="model.json does not describe graphs of ONNX as this version does"):
            Graphs(".")
    Path("model.json").unlink()
    with pytest.raises(UserError, match="has no model.json"):
        Graphs(".")


@pytest.mark.full
@pytest.mark.parametrize(
    ("dtype", "lsd", "largest"), [("float32", 1e-3, 1e-4), ("float16", 5e-3, 1e-3), ("int8", 0.1, 0.05)]
)
def test_the_shipped_model(dtype, lsd, largest, capsys):
    graphs = exported("small", "--dtype", dtype)
    (said,) = re.findall(r"by (\S+) in LSD, no sample by more than (\S+) of full", capsys.readouterr().out)
    assert float(said[0]) < lsd and float(said[1]) < largest
    if dtype == "float32":
        given = inputs(load_weights(SHIPPED["small"]).config, 2, 128)
        assert max(errors(SHIPPED["small"], given, outputs(graphs, given)).values()) < TOLERANCE
