"""Sizes of the networks: frozen dataclasses and the three presets `tiny`, `small` and `base`."""

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """AutoencoderKL on log-mel spectrograms. Time and frequency are halved between consecutive levels."""

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 8)
    blocks: int = 2  # residual blocks a level in the encoder; the decoder has one more
    mel_bins: int = 256
    latent_channels: int = 16
    mel_mean: float = 0.0  # the network sees (mel - mel_mean) / mel_std; the published one sees the log-mel itself
    mel_std: float = 1.0

    @property
    def stride(self) -> int:
        """Mel frames (and mel bins) per latent position."""
        return 2 ** (len(self.multipliers) - 1)


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Latent diffusion U-Net of the LDM / AudioLDM family, conditioned on the low-resolution latent."""

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 5)
    blocks: int = 2  # residual blocks a level on the way down; one more on the way up
    attention_downsamplings: tuple[int, ...] = (2, 4, 8)
    head_channels: int = 32
    latent_channels: int = 16

    @property
    def stride(self) -> int:
        """Latent positions that the coarsest level merges, along time and along frequency."""
        return 2 ** (len(self.multipliers) - 1)


@dataclasses.dataclass(frozen=True)
class VocoderConfig:
    """BigVGAN generator conditioned on the low-resolution waveform. The product of `rates` is the hop, 480."""

    mel_bins: int = 256
    channels: int = 1536  # halved by each upsampling stage
    rates: tuple[int, ...] = (10, 6, 2, 2, 2)
    kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    mel_mean: float = 0.0  # as in VAEConfig
    mel_std: float = 1.0

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.rates)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The three networks of one model. Raises ValueError where their sizes do not fit each other."""

    vae: VAEConfig
    unet: UNetConfig
    vocoder: VocoderConfig

    def __post_init__(self):
        if self.vae.mel_bins != self.vocoder.mel_bins:
            raise ValueError(f"VAE has {self.vae.mel_bins} mel bins, vocoder {self.vocoder.mel_bins}: make them equal")
        if self.vae.latent_channels != self.unet.latent_channels:
            raise ValueError(
                f"VAE has {self.vae.latent_channels} latent channels, U-Net {self.unet.latent_channels}: "
                "make them equal"
            )

    @property
    def frame_multiple(self) -> int:
        """Window lengths are multiples of this many mel frames, so that every halving comes out even."""
        return self.vae.stride * self.unet.stride


MEL = {"mel_mean": -5.0, "mel_std": 3.0}

PRESETS = {
    "tiny": ModelConfig(
        VAEConfig(channels=8, multipliers=(1, 2, 4, 4), blocks=1, **MEL),
        UNetConfig(channels=32, multipliers=(1, 2), blocks=1, attention_downsamplings=(2,)),
        VocoderConfig(channels=64, rates=(10, 6, 8), kernels=(3, 7), **MEL),
    ),
    "small": ModelConfig(
        VAEConfig(channels=16, **MEL),
        UNetConfig(channels=32, head_channels=16),
        VocoderConfig(channels=192, **MEL),
    ),
    "base": ModelConfig(VAEConfig(), UNetConfig(), VocoderConfig()),
}


def preset(name: str) -> ModelConfig:
    """The preset `name`; ValueError naming the choices where there is none."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def model_config(fields: Mapping[str, Mapping]) -> ModelConfig:
    """The ModelConfig of `dataclasses.asdict`'s nested mappings, as kept in run configurations and weights files.

    Lists (JSON has no tuples) become tuples. Raises TypeError or KeyError for fields that do not exist or are missing.
    """
    vae, unet, vocoder = (
        {key: tuple(value) if isinstance(value, list) else value for key, value in fields[network].items()}
        for network in ("vae", "unet", "vocoder")
    )
    return ModelConfig(VAEConfig(**vae), UNetConfig(**unet), VocoderConfig(**vocoder))
