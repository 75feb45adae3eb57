"""Networks to upscale with, ten times as fast as the preset `tiny` and framed as it is; random weights of a size that
keeps activations alive, so that every input matters."""

import copy
import dataclasses
import functools

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flashsr_jax.models.presets import ModelConfig, UNetConfig, VAEConfig, VocoderConfig
from flashsr_jax.weights.store import NETWORKS, parameter_shapes

STANDARDISED = {"mel_bins": 32, "mel_mean": -5.0, "mel_std": 3.0}
MICRO = ModelConfig(
    vae=VAEConfig(channels=4, multipliers=(1, 2, 2, 2), blocks=1, latent_channels=4, **STANDARDISED),
    unet=UNetConfig(
        channels=8, multipliers=(1, 2), blocks=1, attention_downsamplings=(2,), head_channels=8, latent_channels=4
    ),
    vocoder=VocoderConfig(channels=16, rates=(24, 20), kernels=(3,), dilations=(1,), **STANDARDISED),
)
# What `small` has: patches, an inverse STFT with random phases, the waveform beside the mel.
SPECTRAL = dataclasses.replace(
    MICRO,
    vae=dataclasses.replace(MICRO.vae, patch=4, multipliers=(1, 2)),
    vocoder=dataclasses.replace(MICRO.vocoder, rates=(2, 2), istft_size=480, kernels=(3, 5), dilations=(1, 2)),
    expansion=0.2,
    dispersed=True,
)


def micro_params(seed: int = 0, config: ModelConfig = MICRO) -> dict:
    """Parameters of all three networks, numpy float32, and `scale_factor`; the caller's own."""
    return copy.deepcopy(_params(seed, config))


@functools.cache
def _params(seed: int, config: ModelConfig) -> dict:
    """Made once for all tests: that takes tracing all three networks."""
    rng = np.random.default_rng(seed)

    def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            return rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        if name.endswith(("scale", "/g")):  # gains of normalisation layers and of weight norm
            return np.ones(shape)
        return 0.02 * rng.normal(size=shape)

    params = {"scale_factor": np.float32(0.33419999)}
    for network in NETWORKS:
        shapes = flatten_dict(parameter_shapes(config, network), sep="/")
        values = {name: value(name, leaf.shape).astype(np.float32) for name, leaf in shapes.items()}
        params[network] = unflatten_dict(values, sep="/")
    return params
