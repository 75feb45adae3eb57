"""`flashsr weights export --to stablehlo`: three programs that `jax.export` reads without this package."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from flashsr_jax.audio import HOP
from flashsr_jax.audio.front_end import log_mel
from flashsr_jax.exchange.graphs import contract
from flashsr_jax.exchange.source import read
from flashsr_jax.files import replacing
from flashsr_jax.models.pipeline import encode, latent_shape, phase_noise_shape, restored_mel, sample_latent, vocode
from flashsr_jax.models.vocoder import fold_weight_norm
from flashsr_jax.upscale.windows import WINDOW_FRAMES
from flashsr_jax.weights.store import NETWORKS

PLATFORMS = ("cpu", "cuda", "tpu")


def export_stablehlo(
    source: str, out: str | os.PathLike, dtype: str = "float32", ema: bool = True, with_stft: bool = False
) -> list[Path]:
    """Write encoder.stablehlo (with the U-Net), decoder.stablehlo, vocoder.stablehlo and model.json into the folder
    `out`; returns the files.

    Each is a program of a window of 5.12 s for any batch, with the weights inside, as `jax.export.deserialize` reads
    it; inputs and outputs are float32, `dtype` is of the computation. Otherwise as `export_onnx`.
    """
    weights, folder = read(source, ema, NETWORKS), Path(out)
    config, compute = weights.config, jnp.dtype(dtype)
    params = jax.tree.map(jnp.asarray, weights.params | {"vocoder": fold_weight_norm(weights.params["vocoder"])})
    scale = params["scale_factor"]
    front = "waveform" if with_stft else "mel"

    def encoder(front: jax.Array, posterior_noise: jax.Array, initial_noise: jax.Array) -> jax.Array:
        mel = log_mel(front, config.vae.mel_bins) if with_stft else front
        condition = encode(params["vae"], config, mel, posterior_noise, scale, compute)
        return sample_latent(params["unet"], config, condition, initial_noise, dtype=compute)

    def decoder(latent: jax.Array) -> jax.Array:
        return restored_mel(params["vae"], config, latent, scale, compute)

    def vocoder(mel: jax.Array, waveform: jax.Array, *phases: jax.Array) -> jax.Array:
        return vocode(params["vocoder"], config, mel, waveform, compute, *phases)

    samples = WINDOW_FRAMES * HOP
    latent = latent_shape(config, samples)
    shapes: dict[str, tuple[int, ...]] = {
        "mel": (WINDOW_FRAMES, config.vae.mel_bins),
        "waveform": (samples,),
        "restored": (samples,),
        **dict.fromkeys(("latent", "posterior_noise", "initial_noise"), latent),
    }
    of_phases = phase_noise_shape(config, samples)
    phases = {contract.PHASE_NOISE: of_phases} if of_phases else {}
    shapes |= phases
    programs: dict[str, tuple[Callable, tuple[str, ...], str]] = {
        "encoder": (encoder, (front, "posterior_noise", "initial_noise"), "latent"),
        "decoder": (decoder, ("latent",), "mel"),
        "vocoder": (vocoder, ("mel", "waveform", *phases), "restored"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (batch,) = export.symbolic_shape("batch")
    files: list[Path] = []
    described: dict[str, Any] = {}
    for name, (function, inputs, output) in programs.items():
        path = folder / f"{name}.stablehlo"
        arguments = [jax.ShapeDtypeStruct((batch, *shapes[each]), jnp.float32) for each in inputs]
        program = export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
        with replacing(path) as partial:
            partial.write_bytes(program.serialize())
        axes = {each: ["batch", *shapes[each]] for each in (*inputs, output)}
        described[name] = {
            "file": path.name,
            "inputs": {each: axes[each] for each in inputs},
            "outputs": {output: axes[output]},
        }
        files.append(path)
    details = {"jax": jax.__version__, "platforms": PLATFORMS, "dtype": dtype}
    files.append(contract.write(folder, config, weights.metadata, described, **details))
    return files
