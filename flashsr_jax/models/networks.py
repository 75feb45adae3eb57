"""The three networks of a model by name: what they take, and their parameters, fresh or as shapes alone.

Letters: F mel bins; latents are (B, T / s, F / s, C), s the VAE's stride.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from flashsr_jax.audio import HOP
from flashsr_jax.models.pipeline import latent_shape
from flashsr_jax.models.presets import ModelConfig
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vae import VAE
from flashsr_jax.models.vocoder import SRVocoder

NETWORKS = ("vae", "unet", "vocoder")


def module(config: ModelConfig, network: str) -> nn.Module:
    """The Flax module of a network, in float32."""
    return {"vae": VAE, "unet": UNet, "vocoder": SRVocoder}[network](getattr(config, network))


def example_inputs(config: ModelConfig, network: str) -> tuple[jax.Array, ...]:
    """Zeros that a network takes, for the shortest window that suits the model; parameters do not depend on length."""
    samples = config.frame_multiple * HOP
    mel_1xTxF = jnp.zeros((1, config.frame_multiple, config.vae.mel_bins))
    if network == "vae":
        return (mel_1xTxF,)
    if network == "vocoder":
        return mel_1xTxF, jnp.zeros((1, samples))
    z = jnp.zeros((1, *latent_shape(config, samples)))
    return z, z, jnp.zeros(1, jnp.int32)


def initial_parameters(config: ModelConfig, network: str, key: jax.Array) -> dict:
    """Fresh parameters of a network, float32."""
    return module(config, network).init(key, *example_inputs(config, network))["params"]


def parameter_shapes(config: ModelConfig, network: str) -> dict:
    """Shapes and dtypes (jax.ShapeDtypeStruct) of one network's parameters; nothing is computed. The tree is the
    caller's own."""
    return jax.tree.map(lambda leaf: leaf, _parameter_shapes(config, network))


@functools.lru_cache(maxsize=32)  # tracing takes half a second, and every file of weights asks
def _parameter_shapes(config: ModelConfig, network: str) -> dict:
    return jax.eval_shape(lambda: initial_parameters(config, network, jax.random.key(0)))
