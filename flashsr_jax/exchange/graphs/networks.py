"""The three networks in ONNX's operators, layer by layer as `flashsr_jax.models` has them; nodes are named as in it.

Written by hand, since a tracer (jax2onnx 0.17) refuses two of the three networks and makes 1600 nodes of the third,
most of them arithmetic on shapes. What does not depend on the input is computed here: at t = 999 the time embedding is
part of biases. Batch and time are dynamic: a `Reshape` copies the batch (0) and infers the time (-1).
Letters: B batch, T time, F frequency, C channels, D = T F positions, M samples at a stage's rate, N samples, K bins.
Images are (B, C, T, F) inside, as ONNX's convolutions take them, and (B, T, F, C) outside, as everywhere else.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy import signal, special

from flashsr_jax.audio import HOP
from flashsr_jax.audio.front_end import MEL_FLOOR, N_FFT
from flashsr_jax.audio.mel import mel_filterbank
from flashsr_jax.exchange.graphs.builder import Graph
from flashsr_jax.exchange.graphs.contract import PHASE_NOISE
from flashsr_jax.models import antialias, unet, vae
from flashsr_jax.models import vocoder as sr_vocoder
from flashsr_jax.models.diffusion import STEPS, schedule
from flashsr_jax.models.layers import group_count
from flashsr_jax.models.pipeline import EXPANSION_LIMIT, expansion_weights, phase_noise_shape
from flashsr_jax.models.presets import ModelConfig, UNetConfig, VAEConfig, VocoderConfig
from flashsr_jax.upscale.windows import WINDOW_FRAMES

Params = Mapping[str, Any]  # trees of numpy arrays


def encoder(config: ModelConfig, params: Params, dtype: str, with_stft: bool) -> Graph:
    """Low-resolution log-mel (or normalised waveform) and two noises to clean latents: VAE encoder and U-Net."""
    graph, bins = Graph("encoder", dtype), config.vae.mel_bins
    latent = latent_axes(config)
    if with_stft:
        mel = _log_mel(graph, graph.input("waveform", ("batch", "samples")), bins)
    else:
        mel = graph.input("mel", ("batch", "frames", bins))
    noises = [graph.input(name, latent) for name in ("posterior_noise", "initial_noise")]
    posterior_noise, z = (graph.node("Transpose", noise, perm=[0, 3, 1, 2]) for noise in noises)
    condition = _vae_encoder(graph, config.vae, params["vae"], mel, posterior_noise)
    condition = graph.scaled(condition, params["scale_factor"])
    v = _unet(graph, config, params["unet"], graph.node("Concat", z, condition, axis=1))
    alpha, sigma = schedule().alpha[STEPS - 1], schedule().sigma[STEPS - 1]
    z0 = graph.node("Sub", graph.scaled(z, alpha), graph.scaled(v, sigma))
    graph.output("latent", latent, graph.node("Transpose", z0, perm=[0, 2, 3, 1]))
    return graph


def decoder(config: ModelConfig, params: Params, dtype: str) -> Graph:
    """Clean latents to the log-mel: the VAE's decoder, and `pipeline.expanded`."""
    graph, bins = Graph("decoder", dtype), config.vae.mel_bins
    z = graph.node("Transpose", graph.input("latent", latent_axes(config)), perm=[0, 3, 1, 2])
    mel = _vae_decoder(graph, config.vae, params["vae"], graph.scaled(z, 1 / params["scale_factor"]))
    graph.output("mel", ("batch", "frames", bins), _expanded(graph, mel, bins, config.expansion))
    return graph


def _expanded(graph: Graph, mel: str, bins: int, expansion: float) -> str:
    if not expansion:
        return mel
    mean = graph.node("ReduceMean", mel, graph.constant([1]), keepdims=1)
    over = graph.node("Relu", graph.node("Sub", mel, mean))
    louder = graph.node("Min", graph.scaled(over, expansion), graph.constant(EXPANSION_LIMIT))
    return graph.node("Add", mel, graph.scaled(louder, expansion_weights(bins)))


def vocoder(config: ModelConfig, params: Params, dtype: str) -> Graph:
    """Log-mel, normalised low-resolution waveform and, where the model is dispersed, noise to the normalised waveform.
    `params` are the vocoder's with its weight norm folded (`fold_weight_norm`)."""
    graph, of_phases = Graph("vocoder", dtype), phase_noise_shape(config, WINDOW_FRAMES * HOP)
    mel = graph.input("mel", ("batch", "frames", config.vocoder.mel_bins))
    waveform = graph.input("waveform", ("batch", "samples"))
    phases = graph.input(PHASE_NOISE, ("batch", "latent_frames", of_phases[1])) if of_phases else None
    restored = _vocoder(graph, config.vocoder, params["vocoder"], mel, waveform, phases)
    graph.output("restored", ("batch", "samples"), restored)
    return graph


def latent_axes(config: ModelConfig) -> tuple[int | str, ...]:
    """Axes of the latents, (B, T / s, F / s, C)."""
    return "batch", "latent_frames", config.vae.mel_bins // config.vae.stride, config.vae.latent_channels


# Layers of images


def _silu(graph: Graph, x: str, path: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x, path=path), path=path)


def _group_norm(graph: Graph, params: Params, x: str, bins: int, epsilon: float, path: str) -> str:
    """Of an image with so many bins: each group's image is an instance of its own."""
    channels = len(params["scale"])
    groups = group_count(channels)
    h = graph.node("Reshape", x, graph.constant([0, groups, -1]), path=path)
    ones, zeros = graph.constant(np.ones(groups, np.float32)), graph.constant(np.zeros(groups, np.float32))
    h = graph.node("InstanceNormalization", h, ones, zeros, path=path, epsilon=epsilon)
    h = graph.node("Reshape", h, graph.constant([0, channels, -1, bins]), path=path)
    h = graph.scaled(h, params["scale"].reshape(-1, 1, 1), path)
    return graph.shifted(h, params["bias"].reshape(-1, 1, 1), path)


def _conv(
    graph: Graph, params: Params, x: str, path: str, stride: int = 1, pads: list[int] | None = None, offset: Any = 0.0
) -> str:
    """2-D convolution; `pads` are (T before, F before, T after, F after), `offset` is added to the bias."""
    kernel = params["kernel"].transpose(3, 2, 0, 1)
    pads = pads or [kernel.shape[-1] // 2] * 4
    bias = (params["bias"] + offset).astype(np.float32)
    return graph.product("Conv", x, kernel, 0, path, bias, strides=[stride, stride], pads=pads)


def _upsample(graph: Graph, x: str, path: str) -> str:
    scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return graph.node("Resize", x, "", scales, path=path, **nearest)


def _residual(
    graph: Graph, params: Params, x: str, bins: int, epsilon: float, path: str, embedding_E: np.ndarray | None = None
) -> str:
    offset: Any = 0.0
    if embedding_E is not None:
        offset = _dense(params["embedding"], _silu_of(embedding_E))
    h = _silu(graph, _group_norm(graph, params["norm1"], x, bins, epsilon, f"{path}/norm1"), path)
    h = _conv(graph, params["conv1"], h, f"{path}/conv1", offset=offset)
    h = _silu(graph, _group_norm(graph, params["norm2"], h, bins, epsilon, f"{path}/norm2"), path)
    h = _conv(graph, params["conv2"], h, f"{path}/conv2")
    if "shortcut" in params:
        x = _conv(graph, params["shortcut"], x, f"{path}/shortcut")
    return graph.node("Add", x, h, path=path)


# The VAE


def _vae_middle(graph: Graph, params: Params, x: str, bins: int, path: str) -> str:
    x = _residual(graph, params["block_1"], x, bins, vae.EPSILON, f"{path}/block_1")
    x = _vae_attention(graph, params["attention"], x, bins, f"{path}/attention")
    return _residual(graph, params["block_2"], x, bins, vae.EPSILON, f"{path}/block_2")


def _vae_attention(graph: Graph, params: Params, x: str, bins: int, path: str) -> str:
    """One head over all positions: y (C, D) = v (C, D) softmax(q^T k / sqrt(C))^T."""
    channels = params["q"]["kernel"].shape[-1]
    h = _group_norm(graph, params["norm"], x, bins, vae.EPSILON, f"{path}/norm")
    flat = graph.constant([0, channels, -1])
    q, k, v = (
        graph.node("Reshape", _conv(graph, params[name], h, f"{path}/{name}"), flat, path=path)
        for name in ("q", "k", "v")
    )
    q = graph.scaled(graph.node("Transpose", q, path=path, perm=[0, 2, 1]), channels**-0.5, path)
    weights = graph.node("Softmax", graph.node("MatMul", q, k, path=path), path=path, axis=-1)
    v = graph.node("Transpose", v, path=path, perm=[0, 2, 1])
    h = graph.node("Transpose", graph.node("MatMul", weights, v, path=path), path=path, perm=[0, 2, 1])
    h = graph.node("Reshape", h, graph.constant([0, channels, -1, bins]), path=path)
    return graph.node("Add", x, _conv(graph, params["out"], h, f"{path}/out"), path=path)


def _vae_encoder(graph: Graph, config: VAEConfig, params: Params, mel: str, noise: str) -> str:
    """A sample (B, C, T/s, F/s) of the posterior of a log-mel (B, T, F)."""
    path, part, bins = "vae/encoder", params["encoder"], config.mel_bins // config.patch
    h = graph.scaled(graph.shifted(mel, -config.mel_mean), 1 / config.mel_std)
    h = graph.node("Unsqueeze", h, graph.constant([1]))
    h = _conv_of_patches(graph, part["conv_in"], h, config.patch, f"{path}/conv_in")
    for level in range(len(config.multipliers)):
        for block in range(config.blocks):
            name = f"down_{level}_block_{block}"
            h = _residual(graph, part[name], h, bins, vae.EPSILON, f"{path}/{name}")
        if level < len(config.multipliers) - 1:
            name = f"down_{level}_downsample"
            h = _conv(graph, part[name], h, f"{path}/{name}", stride=2, pads=[0, 0, 1, 1])
            bins //= 2
    h = _vae_middle(graph, part["middle"], h, bins, f"{path}/middle")
    h = _silu(graph, _group_norm(graph, part["norm_out"], h, bins, vae.EPSILON, f"{path}/norm_out"), path)
    moments = _conv(graph, part["conv_out"], h, f"{path}/conv_out")
    moments = _conv(graph, params["quant_conv"], moments, "vae/quant_conv")
    mean, logvar = graph.nodes("Split", 2, moments, axis=1, num_outputs=2)
    logvar = graph.node("Clip", logvar, *(graph.constant(edge) for edge in vae.LOGVAR_RANGE))
    std = graph.node("Exp", graph.scaled(logvar, 0.5))
    return graph.node("Add", mean, graph.node("Mul", std, noise))


def _conv_of_patches(graph: Graph, params: Params, x: str, size: int, path: str) -> str:
    """A 3x3 convolution over patches of an image (B, 1, T, F), as one over its pixels with a stride of a patch."""
    kernel = params["kernel"]
    taps, channels = len(kernel), kernel.shape[-1]
    kernel = kernel.reshape(taps, taps, size, size, channels).transpose(4, 0, 2, 1, 3)
    kernel = kernel.reshape(channels, 1, taps * size, taps * size)
    pads = [taps // 2 * size] * 4
    return graph.product("Conv", x, kernel, 0, path, params["bias"], strides=[size, size], pads=pads)


def _vae_decoder(graph: Graph, config: VAEConfig, params: Params, z: str) -> str:
    """Log-mel (B, T, F) of unscaled latents (B, C, T/s, F/s)."""
    path, part, bins = "vae/decoder", params["decoder"], config.mel_bins // config.stride
    h = _conv(graph, params["post_quant_conv"], z, "vae/post_quant_conv")
    h = _conv(graph, part["conv_in"], h, f"{path}/conv_in")
    h = _vae_middle(graph, part["middle"], h, bins, f"{path}/middle")
    for level in reversed(range(len(config.multipliers))):
        for block in range(config.blocks + 1):
            name = f"up_{level}_block_{block}"
            h = _residual(graph, part[name], h, bins, vae.EPSILON, f"{path}/{name}")
        if level > 0:
            name = f"up_{level}_upsample"
            h = _conv(graph, part[name], _upsample(graph, h, f"{path}/{name}"), f"{path}/{name}")
            bins *= 2
    h = _silu(graph, _group_norm(graph, part["norm_out"], h, bins, vae.EPSILON, f"{path}/norm_out"), path)
    h = _conv(graph, part["conv_out"], h, f"{path}/conv_out")
    if config.patch > 1:
        h = graph.node("DepthToSpace", h, path=path, blocksize=config.patch, mode="DCR")
    mel = graph.node("Squeeze", h, graph.constant([1]))
    return graph.shifted(graph.scaled(mel, config.mel_std), config.mel_mean)


# The U-Net


def _unet(graph: Graph, config: ModelConfig, params: Params, x: str) -> str:
    """v (B, C, T, F) at t = 999 of noise and condition side by side, (B, 2C, T, F)."""
    sizes, bins = config.unet, config.vae.mel_bins // config.vae.stride
    part, path = params["encoder"], "unet/encoder"
    embedding_E = np.asarray(unet.timestep_embedding(jnp.array([STEPS - 1]), sizes.channels))[0]
    embedding_E = _dense(part["time_2"], _silu_of(_dense(part["time_1"], embedding_E)))

    def block(h: str, params: Params, bins: int, attends: bool, path: str) -> str:
        h = _residual(graph, params["residual"], h, bins, unet.BLOCK_EPSILON, f"{path}/residual", embedding_E)
        for index in range(unet.TRANSFORMERS if attends else 0):
            name = f"transformer_{index}"
            h = _transformer(graph, sizes, params[name], h, bins, f"{path}/{name}")
        return h

    h = _conv(graph, part["conv_in"], x, f"{path}/conv_in")
    skips = [h]
    for level in range(len(sizes.multipliers)):
        for index in range(sizes.blocks):
            name = f"down_{level}_block_{index}"
            h = block(h, part[name], bins, 2**level in sizes.attention_downsamplings, f"{path}/{name}")
            skips.append(h)
        if level < len(sizes.multipliers) - 1:
            name = f"down_{level}_downsample"
            h = _conv(graph, part[name], h, f"{path}/{name}", stride=2)
            bins //= 2
            skips.append(h)
    for name, attends in (("middle_1", True), ("middle_2", False)):
        h = block(h, part[name], bins, attends, f"{path}/{name}")
    part, path = params["decoder"], "unet/decoder"
    for level in reversed(range(len(sizes.multipliers))):
        for index in range(sizes.blocks + 1):
            name = f"up_{level}_block_{index}"
            h = graph.node("Concat", h, skips.pop(), path=f"{path}/{name}", axis=1)
            h = block(h, part[name], bins, 2**level in sizes.attention_downsamplings, f"{path}/{name}")
        if level > 0:
            name = f"up_{level}_upsample"
            h = _conv(graph, part[name], _upsample(graph, h, f"{path}/{name}"), f"{path}/{name}")
            bins *= 2
    h = _silu(graph, _group_norm(graph, part["norm_out"], h, bins, unet.BLOCK_EPSILON, f"{path}/norm_out"), path)
    return _conv(graph, part["conv_out"], h, f"{path}/conv_out")


def _transformer(graph: Graph, config: UNetConfig, params: Params, x: str, bins: int, path: str) -> str:
    channels = len(params["norm"]["scale"])
    h = _group_norm(graph, params["norm"], x, bins, unet.TRANSFORMER_EPSILON, f"{path}/norm")
    h = _conv(graph, params["conv_in"], h, f"{path}/conv_in")
    h = graph.node("Reshape", h, graph.constant([0, channels, -1]), path=path)
    h = graph.node("Transpose", h, path=path, perm=[0, 2, 1])
    for index in (1, 2):
        normed = _layer_norm(graph, params[f"norm{index}"], h, f"{path}/norm{index}")
        attended = _attention(graph, config, params[f"attention{index}"], normed, f"{path}/attention{index}")
        h = graph.node("Add", h, attended, path=path)
    normed = _layer_norm(graph, params["norm3"], h, f"{path}/norm3")
    both = _linear(graph, params["feed_forward_in"], normed, f"{path}/feed_forward_in")
    value, gate = graph.nodes("Split", 2, both, path=path, axis=-1, num_outputs=2)
    gated = graph.node("Mul", value, graph.node("Gelu", gate, path=path), path=path)
    h = graph.node("Add", h, _linear(graph, params["feed_forward_out"], gated, f"{path}/feed_forward_out"), path=path)
    h = graph.node("Transpose", h, path=path, perm=[0, 2, 1])
    h = graph.node("Reshape", h, graph.constant([0, channels, -1, bins]), path=path)
    return graph.node("Add", x, _conv(graph, params["conv_out"], h, f"{path}/conv_out"), path=path)


def _attention(graph: Graph, config: UNetConfig, params: Params, x: str, path: str) -> str:
    """Several heads over (B, D, C)."""
    channels, size = params["q"]["kernel"].shape[-1], config.head_channels
    heads = graph.constant([0, 0, channels // size, size])
    q, k, v = (
        graph.node("Reshape", _linear(graph, params[name], x, f"{path}/{name}"), heads, path=path)
        for name in ("q", "k", "v")
    )
    q = graph.scaled(graph.node("Transpose", q, path=path, perm=[0, 2, 1, 3]), size**-0.5, path)
    k = graph.node("Transpose", k, path=path, perm=[0, 2, 3, 1])
    v = graph.node("Transpose", v, path=path, perm=[0, 2, 1, 3])
    weights = graph.node("Softmax", graph.node("MatMul", q, k, path=path), path=path, axis=-1)
    h = graph.node("Transpose", graph.node("MatMul", weights, v, path=path), path=path, perm=[0, 2, 1, 3])
    h = graph.node("Reshape", h, graph.constant([0, 0, channels]), path=path)
    return _linear(graph, params["out"], h, f"{path}/out")


def _linear(graph: Graph, params: Params, x: str, path: str) -> str:
    y = graph.product("MatMul", x, params["kernel"], 1, path)
    return graph.shifted(y, params["bias"], path) if "bias" in params else y


def _layer_norm(graph: Graph, params: Params, x: str, path: str) -> str:
    scale, bias = graph.constant(params["scale"], f"{path}/scale"), graph.constant(params["bias"], f"{path}/bias")
    return graph.node("LayerNormalization", x, scale, bias, path=path, axis=-1, epsilon=unet.LAYER_EPSILON)


def _dense(params: Params, x_C: np.ndarray) -> np.ndarray:
    return x_C @ params["kernel"] + params["bias"]


def _silu_of(x: np.ndarray) -> np.ndarray:
    return x * special.expit(x)


# The vocoder


def _vocoder(graph: Graph, config: VocoderConfig, params: Params, mel: str, waveform: str, phases: str | None) -> str:
    path = "vocoder"
    lr = graph.node("Unsqueeze", waveform, graph.constant([1]))
    features = _lr_branch(graph, config, params["lr_branch"], lr) if config.lr_conditioned else []
    h = graph.scaled(graph.shifted(mel, -config.mel_mean), 1 / config.mel_std)
    h = _conv_1d(graph, params["conv_pre"], graph.node("Transpose", h, perm=[0, 2, 1]), f"{path}/conv_pre")
    for stage, rate in enumerate(config.rates):
        name = f"upsample_{stage}"
        kernel, pads = params[name]["kernel"].transpose(1, 2, 0), [rate // 2, rate // 2]
        bias = params[name]["bias"]
        h = graph.product("ConvTranspose", h, kernel, 1, f"{path}/{name}", bias, strides=[rate], pads=pads)
        if features:
            h = graph.node("Add", h, features[stage], path=f"{path}/{name}")
        blocks = [f"stage_{stage}_block_{index}" for index in range(len(config.kernels))]
        outputs = [_amp_block(graph, config, params[name], h, f"{path}/{name}") for name in blocks]
        total = functools.reduce(lambda one, other: graph.node("Add", one, other, path=path), outputs)
        h = graph.scaled(total, 1 / len(outputs), path)
    h = _snake(graph, params["activation_post"], h, f"{path}/activation_post")
    h = _conv_1d(graph, params["conv_post"], h, f"{path}/conv_post")
    if not config.istft_size:
        return graph.node("Squeeze", graph.node("Tanh", h, path=path), graph.constant([1]))
    return _from_spectrum(graph, config, h, lr, phases)


def _lr_branch(graph: Graph, config: VocoderConfig, params: Params, lr: str) -> list[str]:
    """Features of the waveform (B, 1, N) at each stage's rate, the coarsest first."""

    def conv(h: str, name: str, stride: int, pad: int) -> str:
        kernel, bias = params[name]["kernel"].transpose(2, 1, 0), params[name]["bias"]
        path = f"vocoder/lr_branch/{name}"
        return graph.product("Conv", h, kernel, 0, path, bias, strides=[stride], pads=[pad, pad])

    hop = config.stage_hop
    h = conv(lr, "conv_in", hop, (len(params["conv_in"]["kernel"]) - hop) // 2)
    features = [h]
    for index, rate in enumerate(reversed(config.rates[1:])):
        h = conv(h, f"downsample_{index}", rate, rate - 1)
        h = graph.node("LeakyRelu", h, path="vocoder/lr_branch", alpha=sr_vocoder.LEAK)
        features.append(h)
    return features[::-1]


def _amp_block(graph: Graph, config: VocoderConfig, params: Params, x: str, path: str) -> str:
    for index, dilation in enumerate(config.dilations):
        h = _snake(graph, params[f"activation1_{index}"], x, f"{path}/activation1_{index}")
        h = _conv_1d(graph, params[f"conv1_{index}"], h, f"{path}/conv1_{index}", dilation)
        h = _snake(graph, params[f"activation2_{index}"], h, f"{path}/activation2_{index}")
        h = _conv_1d(graph, params[f"conv2_{index}"], h, f"{path}/conv2_{index}")
        x = graph.node("Add", x, h, path=path)
    return x


def _conv_1d(graph: Graph, params: Params, x: str, path: str, dilation: int = 1) -> str:
    kernel = params["kernel"].transpose(2, 1, 0)
    pad = dilation * (kernel.shape[-1] - 1) // 2
    return graph.product("Conv", x, kernel, 0, path, params["bias"], dilations=[dilation], pads=[pad, pad])


def _snake(graph: Graph, params: Params, x: str, path: str) -> str:
    """`antialiased_snake_beta` of (B, C, M). The signals of all channels are rows of one image (B, 1, C, M), which one
    filter goes over; a convolution in as many groups as channels is slow in most runtimes."""
    half = antialias.TAPS // 2
    taps = antialias.lowpass_filter().reshape(1, 1, 1, -1)
    frequency = np.exp(params["alpha"].astype(np.float64)).reshape(-1, 1)
    gain = 1 / (np.exp(params["beta"].astype(np.float64)).reshape(-1, 1) + antialias.EPSILON)
    h = graph.node("Unsqueeze", x, graph.constant([1]), path=path)
    h = _pad_edges(graph, h, half // 2, half // 2, path)
    pads = [0, antialias.TAPS - 1, 0, antialias.TAPS - 1]
    h = graph.node("ConvTranspose", h, graph.constant(2 * taps), path=path, strides=[1, 2], pads=pads)
    sine = graph.node("Sin", graph.scaled(h, frequency, path), path=path)
    squared = graph.node("Mul", sine, sine, path=path)
    h = graph.node("Add", h, graph.scaled(squared, gain, path), path=path)
    h = _pad_edges(graph, h, half - 1, half, path)
    h = graph.node("Conv", h, graph.constant(taps), path=path, strides=[1, 2])
    return graph.node("Squeeze", h, graph.constant([1]), path=path)


def _pad_edges(graph: Graph, x: str, before: int, after: int, path: str) -> str:
    """An image (B, 1, C, M), its first and last column replicated."""
    return graph.node("Pad", x, graph.constant([0, 0, 0, before, 0, 0, 0, after]), path=path, mode="edge")


# Short-time transforms


def _from_spectrum(graph: Graph, config: VocoderConfig, h: str, lr: str, phases: str | None) -> str:
    """Waveform (B, N) of the last layer's log-magnitudes and phases (B, 2K, M), turned by the noise `phases`, if any,
    added to the given one (B, 1, N)."""
    path, size = "vocoder/istft", config.istft_size
    hop, edge = size // 4, 3 * size // 8
    basis = _fourier_basis(graph, size)
    log_magnitude, phase = graph.nodes("Split", 2, h, path=path, axis=1, num_outputs=2)
    log_magnitude = graph.shifted(log_magnitude, sr_vocoder.LOG_MAGNITUDE_MEAN, path)
    log_magnitude = graph.node("Clip", log_magnitude, "", graph.constant(sr_vocoder.LOG_MAGNITUDE_MAX), path=path)
    magnitude = graph.node("Exp", log_magnitude, path=path)
    if phases:
        phase = graph.node("Add", phase, _turns(graph, config, phases, path), path=path)
        magnitude = graph.scaled(magnitude, sr_vocoder.DISPERSED_GAIN, path)
    if config.lr_conditioned:
        magnitude = graph.node("Mul", magnitude, _missing(graph, basis, log_magnitude, lr, size), path=path)
    # Four windows, squared, add up to 3/2 everywhere but at the ends, which fewer cover.
    twice_K = np.where(np.arange(size // 2 + 1) % (size // 2), 2.0, 1.0)
    magnitude = graph.scaled(magnitude, (twice_K / size / 1.5).reshape(-1, 1), path)
    parts = [graph.node("Mul", magnitude, graph.node(op, phase, path=path), path=path) for op in ("Cos", "Sin")]
    spectrum = graph.node("Concat", *parts, path=path, axis=1)
    y = graph.node("ConvTranspose", spectrum, basis, path=path, strides=[hop], pads=[edge, edge])
    ends = [graph.constant([0]), graph.constant([edge]), graph.constant([-edge]), graph.constant([1 << 62])]
    first, middle, last = (
        graph.node("Slice", y, start, end, graph.constant([2]), path=path)
        for start, end in zip(ends[:-1], ends[1:], strict=True)
    )
    first, last = (graph.scaled(y, gain, path) for y, gain in zip((first, last), _end_gains(size), strict=True))
    y = graph.node("Concat", first, middle, last, path=path, axis=2)
    if config.lr_conditioned:
        y = graph.node("Add", lr, y, path=path)
    return graph.node("Squeeze", y, graph.constant([1]), path=path)


def _turns(graph: Graph, config: VocoderConfig, phases: str, path: str) -> str:
    """By how much `models.vocoder.dispersed` turns the phases (B, K, M)."""
    bins = (graph.constant(value) for value in (0, config.istft_size // 2 + 1, 1))
    group_K = graph.node("Div", graph.node("Range", *bins, path=path), graph.constant(sr_vocoder.PHASE_BINS), path=path)
    noise = graph.node("Reshape", phases, graph.constant([0, -1, sr_vocoder.phase_groups(config)]), path=path)
    turns = graph.scaled(graph.node("Gather", noise, group_K, path=path, axis=2), np.pi, path)
    return graph.node("Transpose", turns, path=path, perm=[0, 2, 1])


def _end_gains(size: int) -> tuple[np.ndarray, np.ndarray]:
    """3/2 over the sum of squared windows on the first and on the last 3/8 `size` samples of an inverse transform."""
    hop, edge, frames = size // 4, 3 * size // 8, 8
    weight_N = np.zeros((frames - 1) * hop + size)
    for start in range(0, frames * hop, hop):
        weight_N[start : start + size] += _hann(size) ** 2
    weight_N = weight_N[edge:-edge]
    return 1.5 / weight_N[:edge], 1.5 / weight_N[-edge:]


def _missing(graph: Graph, basis: str, log_magnitude: str, lr: str, size: int) -> str:
    """`models.vocoder.missing`, (B, K, M)."""
    path, edge = "vocoder/missing", 3 * size // 8
    power = graph.node("Unsqueeze", _power(graph, basis, lr, size // 4, edge, path), graph.constant([1]), path=path)
    frames, bins = sr_vocoder.NEIGHBOURS
    around = [0, 0, bins // 2, frames // 2]
    power = graph.node("Pad", power, graph.constant([*around, *around]), path=path, mode="edge")
    power = graph.node("AveragePool", power, path=path, kernel_shape=[bins, frames])
    power = graph.node("Squeeze", power, graph.constant([1]), path=path)
    power = graph.shifted(graph.scaled(power, sr_vocoder.COVERED, path), sr_vocoder.POWER_FLOOR, path)
    ratio = graph.node("Sub", graph.scaled(log_magnitude, 2.0, path), graph.node("Log", power, path=path), path=path)
    return graph.node("Sigmoid", graph.scaled(ratio, 2.0, path), path=path)


def _log_mel(graph: Graph, waveform: str, bins: int) -> str:
    """`front_end.log_mel`, (B, T, F), of waveforms (B, N)."""
    path, pad = "log_mel", (N_FFT - HOP) // 2
    x = graph.node("Pad", waveform, graph.constant([0, pad, 0, pad]), path=path, mode="reflect")
    x = graph.node("Unsqueeze", x, graph.constant([1]), path=path)
    power = _power(graph, _fourier_basis(graph, N_FFT), x, HOP, 0, path)
    magnitude = graph.node("Transpose", graph.node("Sqrt", power, path=path), path=path, perm=[0, 2, 1])
    mel = graph.node("MatMul", magnitude, graph.constant(mel_filterbank(bins, N_FFT).T), path=path)
    return graph.node("Log", graph.node("Clip", mel, graph.constant(MEL_FLOOR), path=path), path=path)


def _power(graph: Graph, basis: str, x: str, hop: int, pad: int, path: str) -> str:
    """Squared magnitudes (B, K, M) of the windowed transform of (B, 1, N)."""
    spectrum = graph.node("Conv", x, basis, path=path, strides=[hop], pads=[pad, pad])
    real, imaginary = graph.nodes("Split", 2, spectrum, path=path, axis=1, num_outputs=2)
    return graph.node(
        "Add",
        graph.node("Mul", real, real, path=path),
        graph.node("Mul", imaginary, imaginary, path=path),
        path=path,
    )


def _fourier_basis(graph: Graph, size: int) -> str:
    """Windowed cosines, then negative sines, (2K, 1, size): kernels of a transform and, transposed, of its inverse.

    Looked up in a table, which a runtime does once, when it loads the graph: as a tensor it would be a third of the
    smallest model.
    """
    path = f"fourier_{size}"
    k_Kx1, n_W = np.arange(size // 2 + 1).reshape(-1, 1), np.arange(size)
    turns = graph.node("Mul", graph.constant(k_Kx1), graph.constant(n_W), path=path)
    turns = graph.node("Mod", turns, graph.constant(size), path=path)
    angle_W = 2 * np.pi * n_W / size
    tables = [graph.constant(table) for table in (np.cos(angle_W), -np.sin(angle_W))]
    waves = graph.node("Concat", *(graph.node("Gather", t, turns, path=path) for t in tables), path=path, axis=0)
    waves = graph.scaled(waves, _hann(size), path)
    return graph.node("Unsqueeze", waves, graph.constant([1]), path=path)


def _hann(size: int) -> np.ndarray:
    return signal.get_window("hann", size)
