"""`flashsr weights export --to onnx`: three graphs and what has to be known beside them, compared with JAX."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx

import flashsr_jax
from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import lsd
from flashsr_jax.exchange.graphs import contract, networks
from flashsr_jax.exchange.graphs.builder import DTYPES, OPSET, Graph
from flashsr_jax.exchange.graphs.run import Graphs
from flashsr_jax.exchange.source import read
from flashsr_jax.files import replacing
from flashsr_jax.models.vocoder import fold_weight_norm
from flashsr_jax.upscale.model import Model
from flashsr_jax.upscale.stream import upscale
from flashsr_jax.weights.store import NETWORKS, Weights

LARGEST = 2**31 - 1  # bytes of a protocol buffer


class Difference(NamedTuple):
    """Of the graphs' output to that of JAX in float32: LSD, and the largest sample relative to full scale."""

    lsd: float
    largest: float


def export_onnx(
    source: str, out: str | os.PathLike, dtype: str = "float32", ema: bool = True, with_stft: bool = False
) -> tuple[list[Path], Difference]:
    """Write encoder.onnx (with the U-Net), decoder.onnx, vocoder.onnx and model.json into the folder `out`; returns the
    files, and the difference that running them makes (`difference`).

    `source` is as in `source.read`; `dtype` as in `builder.Graph`; `with_stft` puts the log-mel into the encoder.
    Raises UserError where there is nothing to read, a network is missing, or one is too large for a file of ONNX.
    """
    if dtype not in DTYPES:
        raise UserError(f"{dtype}: graphs of ONNX are {', '.join(DTYPES)}: choose one", "dtype")
    weights, folder = read(source, ema, NETWORKS), Path(out)
    params = jax.tree.map(np.asarray, weights.params | {"vocoder": fold_weight_norm(weights.params["vocoder"])})
    graphs = {
        "encoder": networks.encoder(weights.config, params, dtype, with_stft),
        "decoder": networks.decoder(weights.config, params, dtype),
        "vocoder": networks.vocoder(weights.config, params, dtype),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files, described = [], {}
    for name, graph in graphs.items():
        path = folder / f"{name}.onnx"
        described[name] = _save(graph, path)
        files.append(path)
    details = {"opset": OPSET, "dtype": dtype}
    files.append(contract.write(folder, weights.config, weights.metadata, described, **details))
    return files, difference(weights, folder)


def difference(weights: Weights, folder: str | os.PathLike) -> Difference:
    """Upscale 1.28 s of a gliding tone in noise by the graphs of a folder, and by JAX."""
    time_N = np.arange(int(1.28 * SAMPLE_RATE)) / SAMPLE_RATE
    x_N = 0.2 * np.sin(2 * np.pi * (200 + 1000 * time_N) * time_N)
    noise_K = np.fft.rfft(np.random.default_rng(0).normal(scale=0.05, size=len(x_N)))
    noise_K[len(noise_K) // 6 :] = 0  # over 4 kHz
    x_N = (x_N + np.fft.irfft(noise_K, len(x_N))).astype(np.float32)
    params = jax.tree.map(jnp.asarray, weights.params)
    model = Model(weights.config, params)
    ours = Graphs(folder).upscale(x_N[None], window_frames=128)[0]
    theirs = upscale(model, x_N, SAMPLE_RATE, window_frames=128)
    return Difference(lsd(theirs, ours), float(np.abs(ours - theirs).max()))


def _save(graph: Graph, path: Path) -> dict[str, Any]:
    """Write a graph; its file, inputs and outputs as model.json names them."""
    model = graph.model(flashsr_jax.__version__)
    if model.ByteSize() > LARGEST:
        raise UserError(f"{path}: the network has over 2 GiB, which a file of ONNX cannot hold: take float16")
    with replacing(path) as partial:
        onnx.save(model, partial)

    def shapes(values: Any) -> dict[str, list[int | str]]:
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    return {"file": path.name, "inputs": shapes(model.graph.input), "outputs": shapes(model.graph.output)}
