"""Sizes: what each preset promises, and sizes that do not fit."""

import dataclasses

import pytest

from flashsr_jax.audio import HOP, WINDOW_SAMPLES
from flashsr_jax.models.flops import preset_costs
from flashsr_jax.models.presets import PRESETS, ModelConfig, UNetConfig, VAEConfig, VocoderConfig, preset


def totals(name):
    costs = preset_costs(preset(name)).values()
    return sum(cost.parameters for cost in costs), sum(cost.flops for cost in costs)


def test_base_is_the_published_size():
    assert preset("base") == ModelConfig(VAEConfig(), UNetConfig(), VocoderConfig())


def test_small_keeps_its_budget():
    parameters, flops = totals("small")
    assert parameters <= 12e6 and flops <= 20e9


@pytest.mark.training  # tracing its networks takes seconds
def test_tiny_keeps_its_budget():
    parameters, flops = totals("tiny")
    assert parameters <= 2e6 and flops <= 4e9


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_every_structural_element(name):
    config = preset(name)
    assert config.vocoder.hop == HOP and config.vae.stride == 8 and config.vae.mel_bins == 256
    assert config.frame_multiple <= 64 and WINDOW_SAMPLES % (HOP * config.frame_multiple) == 0
    assert config.unet.stride > 1 and config.unet.attention_downsamplings
    assert len(config.vocoder.kernels) > 1 and len(config.vocoder.dilations) > 1


@pytest.mark.parametrize("name", ["small", "base"])
def test_latent_of_the_published_window(name):
    vae = preset(name).vae
    assert (WINDOW_SAMPLES // HOP // vae.stride, vae.mel_bins // vae.stride, vae.latent_channels) == (64, 32, 16)


def test_unknown_preset_names_the_choices():
    with pytest.raises(ValueError, match="'huge': choose one of tiny, small, base"):
        preset("huge")


def test_sizes_that_do_not_fit():
    base = preset("base")
    with pytest.raises(ValueError, match="heads of 48"):
        UNetConfig(head_channels=48)
    with pytest.raises(ValueError, match="rates must be even"):
        VocoderConfig(rates=(10, 16, 3))
    with pytest.raises(ValueError, match="multiple of 32"):
        VocoderConfig(channels=48)
    with pytest.raises(ValueError, match="256 mel bins, vocoder 80"):
        dataclasses.replace(base, vocoder=VocoderConfig(mel_bins=80))
    with pytest.raises(ValueError, match="16 latent channels, U-Net 8"):
        dataclasses.replace(base, unet=UNetConfig(latent_channels=8))
