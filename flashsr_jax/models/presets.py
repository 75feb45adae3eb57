"""Sizes of the networks: frozen dataclasses and the three presets `tiny`, `small` and `base`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from flashsr_jax.audio import HOP
from flashsr_jax.errors import UserError

MOST_EXPANSION = 1.0
MOST_LEVELS = 8  # entries of a field that has several
RANGES = {  # of each field: several times what any model here has, and what is traced in seconds
    "patch": (1, 64),
    "channels": (1, 1 << 14),
    "multipliers": (1, 64),
    "blocks": (1, 8),
    "mel_bins": (1, 4096),
    "latent_channels": (1, 1024),
    "attention_downsamplings": (1, 1 << MOST_LEVELS),
    "head_channels": (1, 1 << 14),
    "rates": (1, HOP),
    "kernels": (1, 64),
    "dilations": (1, 1024),
    "istft_size": (0, 4 * HOP),
    "mel_mean": (-1e6, 1e6),
    "mel_std": (1e-6, 1e6),
}
SHOWN = 60  # characters of a value in an error


def _check_fields(config: Any, network: str) -> None:
    """Raise UserError for a field of another type than it is declared with, or out of range.

    Fields come from files and command lines; what is built of them takes time and memory by their size.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{network}: {field.name}"
        if field.type is bool:
            if type(value) is not bool:
                raise UserError(f"{name}={_shown(value)}: give True or False")
            continue
        several = field.type not in (int, float)
        if several and not isinstance(value, tuple):
            raise UserError(f"{name}={_shown(value)}: give a sequence of integers")
        if several and len(value) not in range(field.name != "attention_downsamplings", MOST_LEVELS + 1):
            raise UserError(f"{name} has {len(value)} entries: give 1 to {MOST_LEVELS}")
        (low, high), types = RANGES[field.name], (int, float) if field.type is float else (int,)
        if not all(type(number) in types and low <= number <= high for number in (value if several else (value,))):
            kind = "numbers" if field.type is float else "integers"
            raise UserError(f"{name}={_shown(value)}: {kind} from {low:g} to {high:g} are possible")


def _shown(value: Any) -> str:
    """A value from a file, in one short line."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """AutoencoderKL on log-mel spectrograms. Time and frequency are halved between consecutive levels."""

    patch: int = 1  # frames, and bins, that become one position before the first convolution; published: 1
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 2  # residual blocks a level in the encoder; the decoder has one more
    mel_bins: int = 256
    latent_channels: int = 16
    mel_mean: float = 0.0  # the network sees (mel - mel_mean) / mel_std; the published one sees the log-mel itself
    mel_std: float = 1.0

    def __post_init__(self) -> None:
        _check_fields(self, "VAE")

    @property
    def stride(self) -> int:
        """Mel frames (and mel bins) per latent position."""
        return self.patch * 2 ** (len(self.multipliers) - 1)


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Latent diffusion U-Net of the LDM / AudioLDM family, conditioned on the low-resolution latent."""

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 5)
    blocks: int = 2  # residual blocks a level on the way down; one more on the way up
    attention_downsamplings: tuple[int, ...] = (2, 4, 8)
    head_channels: int = 32
    latent_channels: int = 16

    def __post_init__(self) -> None:
        _check_fields(self, "U-Net")
        levels = [len(self.multipliers) - 1]  # the middle always attends
        levels += [level for level in range(len(self.multipliers)) if 2**level in self.attention_downsamplings]
        for channels in (self.channels * self.multipliers[level] for level in levels):
            if channels % self.head_channels:
                raise UserError(
                    f"U-Net: {channels} channels do not divide into attention heads of {self.head_channels}: "
                    "change head_channels, channels or multipliers"
                )

    @property
    def stride(self) -> int:
        """Latent positions that the coarsest level merges, along time and along frequency."""
        return 2 ** (len(self.multipliers) - 1)


@dataclasses.dataclass(frozen=True)
class VocoderConfig:
    """BigVGAN generator conditioned on the low-resolution waveform; it makes 480 samples of each mel frame.

    Its last stage has the rate of the samples, as published, or that of the frames of an inverse STFT.
    """

    mel_bins: int = 256
    channels: int = 1536  # halved by each upsampling stage
    rates: tuple[int, ...] = (10, 6, 2, 2, 2)
    kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    istft_size: int = 0  # of the inverse STFT, with a hop of a quarter of it; 0: none
    lr_conditioned: bool = True  # False: of the mel alone, which the paper compares with
    mel_mean: float = 0.0  # as in VAEConfig
    mel_std: float = 1.0

    def __post_init__(self) -> None:
        _check_fields(self, "vocoder")
        if self.channels % 2 ** len(self.rates) or any(rate % 2 for rate in self.rates):
            raise UserError(
                f"vocoder: {self.channels} channels and rates {self.rates}: the rates must be even, and the channels "
                f"a multiple of {2 ** len(self.rates)}, as each stage halves them"
            )
        if self.istft_size % 8:
            raise UserError(f"vocoder: istft_size={self.istft_size}: it must be a multiple of 8, as its hop is even")

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.rates) * self.stage_hop

    @property
    def stage_hop(self) -> int:
        """Samples per position of the last stage."""
        return self.istft_size // 4 or 1


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The three networks of one model. Raises UserError where their sizes do not fit each other.

    expansion: of the U-Net's log-mel, see `pipeline.expanded`: for a regression, whose loud moments are too soft.
    dispersed: random phases in the vocoder's inverse STFT, see `vocoder.dispersed`: for one that buzzes on smooth mels.
    """

    vae: VAEConfig
    unet: UNetConfig
    vocoder: VocoderConfig
    expansion: float = 0.0
    dispersed: bool = False

    def __post_init__(self) -> None:
        if type(self.dispersed) is not bool or (self.dispersed and not self.vocoder.istft_size):
            raise UserError(f"dispersed={_shown(self.dispersed)}: false, or true for a vocoder with an inverse STFT")
        if type(self.expansion) not in (int, float) or not 0 <= self.expansion <= MOST_EXPANSION:
            raise UserError(f"expansion={_shown(self.expansion)}: numbers from 0 to {MOST_EXPANSION:g} are possible")
        if self.vae.mel_bins != self.vocoder.mel_bins:
            raise UserError(f"VAE has {self.vae.mel_bins} mel bins, vocoder {self.vocoder.mel_bins}: make them equal")
        if self.vae.latent_channels != self.unet.latent_channels:
            raise UserError(
                f"VAE has {self.vae.latent_channels} latent channels, U-Net {self.unet.latent_channels}: "
                "make them equal"
            )
        if self.vocoder.hop != HOP:
            raise UserError(
                f"vocoder: rates {self.vocoder.rates} and istft_size {self.vocoder.istft_size} make {self.vocoder.hop} "
                f"samples of a mel frame, which has {HOP}: change one of them"
            )

    @property
    def frame_multiple(self) -> int:
        """Window lengths are multiples of this many mel frames, so that every halving comes out even."""
        return self.vae.stride * self.unet.stride


MEL: dict[str, Any] = {"mel_mean": -5.0, "mel_std": 3.0}  # about those of normalised recordings

TINY = ModelConfig(
    VAEConfig(channels=8, multipliers=(1, 2, 4, 4), blocks=1, **MEL),
    UNetConfig(channels=32, multipliers=(1, 2), blocks=1, attention_downsamplings=(2,)),
    VocoderConfig(channels=64, rates=(10, 6, 8), kernels=(3, 7), **MEL),
)
"""Every structural element, trained by the demo in minutes of two CPU cores."""

SMALL = ModelConfig(
    VAEConfig(patch=4, channels=48, multipliers=(1, 2), blocks=1, **MEL),
    UNetConfig(channels=48, multipliers=(1, 2, 2), blocks=1, attention_downsamplings=(4,), head_channels=24),
    VocoderConfig(channels=384, rates=(2,), kernels=(3, 7), istft_size=960, **MEL),
)
"""At most 12 M parameters and 20 GFLOP per second of audio; the latent is 64 x 32 x 16 for 5.12 s, as published.

Made for a CPU, to train on as well as to run: few wide layers at low rates, where convolutions reach the machine's
matrix rate (narrow ones at high rates reach a fifth of it). Hence the VAE's patches instead of its two finest levels,
and an inverse STFT instead of the vocoder's last stages. `flashsr plan --presets` says where the FLOPs go.
"""

PRESETS = {"tiny": TINY, "small": SMALL, "base": ModelConfig(VAEConfig(), UNetConfig(), VocoderConfig())}


def preset(name: str) -> ModelConfig:
    """The preset `name`. Raises UserError, which names the choices, where there is none."""
    if name not in PRESETS:
        raise UserError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def model_config(fields: Mapping[str, Any]) -> ModelConfig:
    """The ModelConfig of `dataclasses.asdict`'s nested mappings, as kept in run configurations and weights files.

    Lists (JSON has no tuples) become tuples; a field that is missing has its default. Raises UserError for anything
    else than the three networks with fields that there are, `expansion` and `dispersed`, and for fields out of range
    or of other types.
    """
    classes: dict[str, Any] = {"vae": VAEConfig, "unet": UNetConfig, "vocoder": VocoderConfig}
    if not isinstance(fields, Mapping) or fields.keys() - {"expansion", "dispersed"} != classes.keys():
        raise UserError(f"a model configuration has {', '.join(classes)}, not {_shown(fields)}")
    networks = {}
    for network, kind in classes.items():
        of_network = fields[network]
        known = [field.name for field in dataclasses.fields(kind)]
        if not isinstance(of_network, Mapping):
            raise UserError(f"{network}={_shown(of_network)}: it has to name the fields {', '.join(known)}")
        if unknown := [name for name in of_network if name not in known]:
            raise UserError(f"{network} has no field {_shown(unknown[0])}: it has {', '.join(known)}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in of_network.items()}
        networks[network] = kind(**values)
    return ModelConfig(**networks, **{name: fields[name] for name in ("expansion", "dispersed") if name in fields})
