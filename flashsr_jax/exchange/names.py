"""The tensors of the published checkpoints and their places in our parameter trees: one explicit table a network.

A table lists every tensor of a checkpoint, generated from the network's size: parameters with their path and layout,
and the tensors that our networks do not use, each with its class. Paths are keys joined by "/".

Letters of layouts: O output channels, I input channels, K, H, W kernel taps.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from flashsr_jax.models import antialias, vocoder
from flashsr_jax.models.diffusion import schedule
from flashsr_jax.models.presets import PRESETS, ModelConfig, UNetConfig, VAEConfig, VocoderConfig
from flashsr_jax.models.unet import TRANSFORMERS

# Our axes as positions among torch's.
AXES = {
    "vector": (0,),
    "linear": (1, 0),  # OI -> IO
    "conv2d": (2, 3, 1, 0),  # OIHW -> HWIO
    "conv1d": (2, 1, 0),  # OIK -> KIO
    "transposed": (2, 0, 1),  # IOK -> KIO
    "gain": (0, 1, 2),  # O11 -> O
}
SCHEDULE_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)


@dataclasses.dataclass(frozen=True)
class Name:
    """A checkpoint tensor: its name and shape in torch; for parameters, their path and layout here.

    `path` and `layout` are "" for tensors that are no parameters. Kinds: `parameter`; `unused`, trained weights that no
    network here evaluates; `buffer`, constants that follow from a definition (noise schedule, filters). The last two
    are kept beside the parameters, for export.
    """

    torch: str
    shape: tuple[int, ...]
    path: str = ""
    layout: str = ""
    kind: Literal["parameter", "unused", "buffer"] = "parameter"

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """The parameter of a torch tensor, a view where possible."""
        ours = tensor.transpose(AXES[self.layout])
        return ours.reshape(-1) if self.layout == "gain" else ours

    def to_torch(self, parameter: np.ndarray) -> np.ndarray:
        """Inverse of `to_ours`, contiguous."""
        if self.layout == "gain":
            parameter = parameter.reshape(self.shape)
        return np.ascontiguousarray(parameter.transpose(np.argsort(AXES[self.layout])))

    @property
    def our_shape(self) -> tuple[int, ...]:
        """Of the parameter that `to_ours` gives."""
        return self.to_ours(np.broadcast_to(np.float32(0), self.shape)).shape


def _unused(names: Iterable[Name]) -> Iterator[Name]:
    for name in names:
        yield Name(name.torch, name.shape, kind="unused")


def _bias(torch: str, path: str, channels: int) -> Name:
    return Name(f"{torch}.bias", (channels,), f"{path}/bias", "vector")


def _norm(torch: str, path: str, channels: int) -> Iterator[Name]:
    yield Name(f"{torch}.weight", (channels,), f"{path}/scale", "vector")
    yield _bias(torch, path, channels)


def _linear(torch: str, path: str, inputs: int, outputs: int, bias: bool = True) -> Iterator[Name]:
    yield Name(f"{torch}.weight", (outputs, inputs), f"{path}/kernel", "linear")
    if bias:
        yield _bias(torch, path, outputs)


def _conv2d(torch: str, path: str, inputs: int, outputs: int, kernel: int) -> Iterator[Name]:
    yield Name(f"{torch}.weight", (outputs, inputs, kernel, kernel), f"{path}/kernel", "conv2d")
    yield _bias(torch, path, outputs)


def _conv1d(torch: str, path: str, inputs: int, outputs: int, kernel: int) -> Iterator[Name]:
    yield Name(f"{torch}.weight", (outputs, inputs, kernel), f"{path}/kernel", "conv1d")
    yield _bias(torch, path, outputs)


def _weight_norm(torch: str, path: str, inputs: int, outputs: int, kernel: int, rate: int = 1) -> Iterator[Name]:
    first, second, layout = (outputs, inputs, "conv1d") if rate == 1 else (inputs, outputs, "transposed")
    yield Name(f"{torch}.weight_v", (first, second, kernel), f"{path}/v", layout)
    yield Name(f"{torch}.weight_g", (first, 1, 1), f"{path}/g", "gain")
    yield _bias(torch, path, outputs)


def _vae_block(torch: str, path: str, inputs: int, outputs: int) -> Iterator[Name]:
    yield from _norm(f"{torch}.norm1", f"{path}/norm1", inputs)
    yield from _conv2d(f"{torch}.conv1", f"{path}/conv1", inputs, outputs, 3)
    yield from _norm(f"{torch}.norm2", f"{path}/norm2", outputs)
    yield from _conv2d(f"{torch}.conv2", f"{path}/conv2", outputs, outputs, 3)
    if inputs != outputs:
        yield from _conv2d(f"{torch}.nin_shortcut", f"{path}/shortcut", inputs, outputs, 1)


def _vae_middle(torch: str, path: str, channels: int) -> Iterator[Name]:
    yield from _vae_block(f"{torch}.block_1", f"{path}/block_1", channels, channels)
    yield from _norm(f"{torch}.attn_1.norm", f"{path}/attention/norm", channels)
    for theirs, ours in (("q", "q"), ("k", "k"), ("v", "v"), ("proj_out", "out")):
        yield from _conv2d(f"{torch}.attn_1.{theirs}", f"{path}/attention/{ours}", channels, channels, 1)
    yield from _vae_block(f"{torch}.block_2", f"{path}/block_2", channels, channels)


def vae_names(config: VAEConfig) -> list[Name]:
    """The autoencoder's tensors of `vae.pth`."""
    widths = [config.channels * multiplier for multiplier in config.multipliers]
    latent = config.latent_channels
    names: list[Name] = []

    channels = config.channels
    names += _conv2d("encoder.conv_in", "encoder/conv_in", config.patch**2, channels, 3)
    for level, width in enumerate(widths):
        for block in range(config.blocks):
            torch, path = f"encoder.down.{level}.block.{block}", f"encoder/down_{level}_block_{block}"
            names += _vae_block(torch, path, channels, width)
            channels = width
        if level < len(widths) - 1:
            torch, path = f"encoder.down.{level}.downsample.conv", f"encoder/down_{level}_downsample"
            names += _conv2d(torch, path, width, width, 3)
    names += _vae_middle("encoder.mid", "encoder/middle", channels)
    names += _norm("encoder.norm_out", "encoder/norm_out", channels)
    names += _conv2d("encoder.conv_out", "encoder/conv_out", channels, 2 * latent, 3)

    names += _conv2d("decoder.conv_in", "decoder/conv_in", latent, channels, 3)
    names += _vae_middle("decoder.mid", "decoder/middle", channels)
    for level, width in reversed(list(enumerate(widths))):
        for block in range(config.blocks + 1):
            torch, path = f"decoder.up.{level}.block.{block}", f"decoder/up_{level}_block_{block}"
            names += _vae_block(torch, path, channels, width)
            channels = width
        if level > 0:
            names += _conv2d(f"decoder.up.{level}.upsample.conv", f"decoder/up_{level}_upsample", width, width, 3)
    names += _norm("decoder.norm_out", "decoder/norm_out", channels)
    names += _conv2d("decoder.conv_out", "decoder/conv_out", channels, config.patch**2, 3)

    names += _conv2d("quant_conv", "quant_conv", 2 * latent, 2 * latent, 1)
    names += _conv2d("post_quant_conv", "post_quant_conv", latent, latent, 1)
    return names


def audiosr_vocoder_names() -> list[Name]:
    """AudioSR's mel vocoder, which travels in `vae.pth` under `vocoder.`: HiFi-GAN without weight norm."""
    channels, rates, kernels = 1536, (6, 5, 4, 2, 2), (3, 7, 11, 15)
    names = list(_conv1d("vocoder.conv_pre", "", 256, channels, 7))
    for stage, rate in enumerate(rates):
        # A transposed convolution's kernel is stored input channel first.
        names.append(Name(f"vocoder.ups.{stage}.weight", (channels, channels // 2, 2 * rate)))
        channels //= 2
        names.append(Name(f"vocoder.ups.{stage}.bias", (channels,)))
        for index, kernel in enumerate(kernels, stage * len(kernels)):
            for conv in ("convs1", "convs2"):
                for i in range(3):
                    names += _conv1d(f"vocoder.resblocks.{index}.{conv}.{i}", "", channels, channels, kernel)
    names += _conv1d("vocoder.conv_post", "", channels, 1, 7)
    return list(_unused(names))


def _unet_residual(torch: str, path: str, inputs: int, outputs: int, embedding: int) -> Iterator[Name]:
    yield from _norm(f"{torch}.in_layers.0", f"{path}/norm1", inputs)
    yield from _conv2d(f"{torch}.in_layers.2", f"{path}/conv1", inputs, outputs, 3)
    yield from _linear(f"{torch}.emb_layers.1", f"{path}/embedding", embedding, outputs)
    yield from _norm(f"{torch}.out_layers.0", f"{path}/norm2", outputs)
    yield from _conv2d(f"{torch}.out_layers.3", f"{path}/conv2", outputs, outputs, 3)
    if inputs != outputs:
        yield from _conv2d(f"{torch}.skip_connection", f"{path}/shortcut", inputs, outputs, 1)


def _unet_block(torch: str, path: str, inputs: int, outputs: int, embedding: int, transformers: int) -> Iterator[Name]:
    yield from _unet_residual(f"{torch}.0", f"{path}/residual", inputs, outputs, embedding)
    for index in range(transformers):
        yield from _transformer(f"{torch}.{index + 1}", f"{path}/transformer_{index}", outputs)


def _transformer(torch: str, path: str, channels: int) -> Iterator[Name]:
    yield from _norm(f"{torch}.norm", f"{path}/norm", channels)
    yield from _conv2d(f"{torch}.proj_in", f"{path}/conv_in", channels, channels, 1)
    block = f"{torch}.transformer_blocks.0"
    for index in (1, 2):
        for letter in "qkv":
            theirs, ours = f"{block}.attn{index}.to_{letter}", f"{path}/attention{index}/{letter}"
            yield from _linear(theirs, ours, channels, channels, bias=False)
        yield from _linear(f"{block}.attn{index}.to_out.0", f"{path}/attention{index}/out", channels, channels)
    yield from _linear(f"{block}.ff.net.0.proj", f"{path}/feed_forward_in", channels, 8 * channels)
    yield from _linear(f"{block}.ff.net.2", f"{path}/feed_forward_out", 4 * channels, channels)
    for index in (1, 2, 3):
        yield from _norm(f"{block}.norm{index}", f"{path}/norm{index}", channels)
    yield from _conv2d(f"{torch}.proj_out", f"{path}/conv_out", channels, channels, 1)


def unet_names(config: UNetConfig) -> list[Name]:
    """The network's tensors of `student_ldm.pth`, whose names start with `model.`."""
    widths = [config.channels * multiplier for multiplier in config.multipliers]
    transformers = [TRANSFORMERS * (2**level in config.attention_downsamplings) for level in range(len(widths))]
    latent, embedding = config.latent_channels, 4 * config.channels
    names: list[Name] = []

    names += _linear("model.time_embed.0", "encoder/time_1", config.channels, embedding)
    names += _linear("model.time_embed.2", "encoder/time_2", embedding, embedding)
    channels = config.channels
    names += _conv2d("model.input_blocks.0.0", "encoder/conv_in", 2 * latent, channels, 3)
    skips = [channels]
    for level, width in enumerate(widths):
        for block in range(config.blocks):
            torch, path = f"model.input_blocks.{len(skips)}", f"encoder/down_{level}_block_{block}"
            names += _unet_block(torch, path, channels, width, embedding, transformers[level])
            channels = width
            skips.append(channels)
        if level < len(widths) - 1:
            torch, path = f"model.input_blocks.{len(skips)}.0.op", f"encoder/down_{level}_downsample"
            names += _conv2d(torch, path, channels, channels, 3)
            skips.append(channels)
    names += _unet_block("model.middle_block", "encoder/middle_1", channels, channels, embedding, TRANSFORMERS)
    last = f"model.middle_block.{TRANSFORMERS + 1}"
    names += _unet_residual(last, "encoder/middle_2/residual", channels, channels, embedding)

    index = 0
    for level, width in reversed(list(enumerate(widths))):
        for block in range(config.blocks + 1):
            torch, path = f"model.output_blocks.{index}", f"decoder/up_{level}_block_{block}"
            names += _unet_block(torch, path, channels + skips.pop(), width, embedding, transformers[level])
            channels, index = width, index + 1
        if level > 0:
            upsample = f"{torch}.{transformers[level] + 1}.conv"
            names += _conv2d(upsample, f"decoder/up_{level}_upsample", width, width, 3)
    names += _norm("model.out.0", "decoder/norm_out", channels)
    names += _conv2d("model.out.2", "decoder/conv_out", channels, latent, 3)
    return names


def schedule_names() -> list[Name]:
    """The noise schedule's tables in `student_ldm.pth`: names without a dot, 1000 steps each."""
    return [Name(name, (1000,), kind="buffer") for name in SCHEDULE_BUFFERS]


def _snake(torch: str, path: str, channels: int) -> Iterator[Name]:
    yield Name(f"{torch}.act.alpha", (channels,), f"{path}/alpha", "vector")
    yield Name(f"{torch}.act.beta", (channels,), f"{path}/beta", "vector")
    for part in ("upsample", "downsample.lowpass"):
        yield Name(f"{torch}.{part}.filter", (1, 1, antialias.TAPS), kind="buffer")


def vocoder_names(config: VocoderConfig) -> list[Name]:
    """The tensors of `sr_vocoder.pth`; the last downsampling layer of its waveform branch feeds nothing."""
    kernel, stages = vocoder.KERNEL, len(config.rates)
    names: list[Name] = []

    width = config.channels >> stages
    names += _conv1d("audio_block.emb", "lr_branch/conv_in", 1, width, max(kernel, config.istft_size))
    for index, rate in enumerate(reversed(config.rates)):
        torch, path = f"audio_block.downsamples.{index}.0", f"lr_branch/downsample_{index}"
        layer = _conv1d(torch, path, width, 2 * width, 2 * rate)
        names += layer if index < stages - 1 else _unused(layer)
        width *= 2

    names += _weight_norm("conv_pre", "conv_pre", config.mel_bins, config.channels, kernel)
    for stage, rate in enumerate(config.rates):
        names += _weight_norm(f"ups.{stage}.0", f"upsample_{stage}", width, width // 2, 2 * rate, rate)
        width //= 2
        for index, block_kernel in enumerate(config.kernels):
            torch = f"resblocks.{stage * len(config.kernels) + index}"
            path = f"stage_{stage}_block_{index}"
            for i in range(len(config.dilations)):
                for part in (1, 2):
                    ours = f"{path}/conv{part}_{i}"
                    names += _weight_norm(f"{torch}.convs{part}.{i}", ours, width, width, block_kernel)
                    ours = f"{path}/activation{part}_{i}"
                    names += _snake(f"{torch}.activations.{2 * i + part - 1}", ours, width)
    names += _snake("activation_post", "activation_post", width)
    names += _weight_norm("conv_post", "conv_post", width, config.istft_size + 2 if config.istft_size else 1, kernel)
    return names


def checkpoint_names(config: ModelConfig) -> dict[str, list[Name]]:
    """Every tensor of the three checkpoints of a model in the published format, by network.

    AudioSR's vocoder is part of the published VAE's alone.
    """
    return {
        "vae": vae_names(config.vae) + (audiosr_vocoder_names() if config.vae == PRESETS["base"].vae else []),
        "unet": unet_names(config.unet) + schedule_names(),
        "vocoder": vocoder_names(config.vocoder),
    }


def published_names() -> dict[str, list[Name]]:
    """Those of the published checkpoints: vae.pth, student_ldm.pth, sr_vocoder.pth."""
    return checkpoint_names(PRESETS["base"])


def untrained(name: Name) -> np.ndarray:
    """The float32 value of a tensor that is no parameter, for a model that was not imported: buffers follow from their
    definitions, weights that no network evaluates are 0."""
    if name.kind == "unused":
        return np.zeros(name.shape, np.float32)
    if name.torch.endswith(".filter"):
        return np.asarray(antialias.lowpass_filter(), np.float32).reshape(name.shape)
    return _schedule_buffers()[name.torch].astype(np.float32)


def _schedule_buffers() -> dict[str, np.ndarray]:
    """The tables that latent diffusion keeps of its noise schedule (Ho et al. 2020, arXiv:2006.11239, eqs. 4 to 7)."""
    betas, alphas_cumprod = schedule().beta, schedule().alpha_bar
    previous = np.append(1.0, alphas_cumprod[:-1])
    posterior_variance = betas * (1 - previous) / (1 - alphas_cumprod)
    tables = (
        betas,
        alphas_cumprod,
        previous,
        np.sqrt(alphas_cumprod),
        np.sqrt(1 - alphas_cumprod),
        np.log(1 - alphas_cumprod),
        np.sqrt(1 / alphas_cumprod),
        np.sqrt(1 / alphas_cumprod - 1),
        posterior_variance,
        np.log(np.maximum(posterior_variance, 1e-20)),
        betas * np.sqrt(previous) / (1 - alphas_cumprod),
        (1 - previous) * np.sqrt(1 - betas) / (1 - alphas_cumprod),
    )
    return dict(zip(SCHEDULE_BUFFERS, tables, strict=True))


def _check(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    problems = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    problems += [f"extra {name} {shape}" for name, shape in found.items() if name not in expected]
    problems += [
        f"misshaped {name}: {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    if problems:
        raise ValueError(f"{what} do not fit the network:\n" + "\n".join(problems))


def to_params(tensors: Mapping[str, np.ndarray], names: list[Name]) -> tuple[dict, dict[str, np.ndarray]]:
    """A checkpoint's tensors as (parameter tree, {torch name: tensor} of those that are no parameters).

    Parameters are views of the tensors where possible. Raises ValueError that lists missing, extra and misshaped
    tensors by name, or names one that is stored as integers.
    """
    _check({name: tensors[name].shape for name in tensors}, {name.torch: name.shape for name in names}, "tensors")
    params: dict[str, Any] = {}
    others: dict[str, np.ndarray] = {}
    for name in names:
        if name.kind != "parameter":
            others[name.torch] = tensors[name.torch]
            continue
        if not jnp.issubdtype(tensors[name.torch].dtype, jnp.floating):
            raise ValueError(f"{name.torch} is stored as {tensors[name.torch].dtype}: parameters are floats")
        *parents, leaf = name.path.split("/")
        node = params
        for key in parents:
            node = node.setdefault(key, {})
        node[leaf] = name.to_ours(tensors[name.torch])
    return params, others


def to_torch(params: Mapping, others: Mapping[str, np.ndarray], names: list[Name]) -> dict[str, np.ndarray]:
    """Inverse of `to_params`, bit for bit. Raises ValueError that lists what is missing, extra or misshaped."""
    found = dict(_flatten(params)) | dict(others)
    expected = {name.path or name.torch: name.our_shape if name.path else name.shape for name in names}
    _check({key: value.shape for key, value in found.items()}, expected, "parameters")
    return {
        name.torch: name.to_torch(np.asarray(found[name.path])) if name.path else found[name.torch] for name in names
    }


def _flatten(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, node in tree.items():
        if isinstance(node, Mapping):
            yield from _flatten(node, f"{prefix}{key}/")
        else:
            yield prefix + key, node
