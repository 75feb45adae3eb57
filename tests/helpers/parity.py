"""Golden arrays, stand-in parameters and tolerances for the tests of parity with the published PyTorch modules."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np

from flashsr_jax.exchange.names import to_params
from flashsr_jax.models.presets import UNetConfig, VAEConfig, VocoderConfig

from helpers import GOLDEN
from helpers.synthetic_weights import fill

# The small configurations that golden outputs exist for.
VAE_TINY = VAEConfig(channels=32, multipliers=(1, 2), blocks=1, mel_bins=32, latent_channels=4)
UNET_TINY = UNetConfig(channels=32, multipliers=(1, 2, 2), blocks=1, attention_downsamplings=(2, 4))
VOCODER_TINY = VocoderConfig(mel_bins=32, channels=64, rates=(4, 4, 2), kernels=(3, 7))


def golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of golden/NAME.npz, those with a channel axis moved from torch's place (1) to ours (last)."""
    arrays = dict(np.load(GOLDEN / f"{name}.npz"))
    return {key: np.moveaxis(array, 1, -1) if array.ndim > 2 else array for key, array in arrays.items()}


def golden_shapes() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of every tensor of the checkpoints: published (`vae`) and of the golden ones (`vae_tiny`)."""
    return json.loads(gzip.decompress((GOLDEN / "shapes.json.gz").read_bytes()))


def synthetic_params(names) -> dict:
    """Parameters filled by the rule of the golden outputs; tensors that no network uses are zero."""
    parameter = "parameter"
    tensors = {
        name.torch: fill(name.torch, name.shape) if name.kind == parameter else np.zeros(name.shape, np.float32)
        for name in names
    }
    return jax.tree.map(jnp.asarray, to_params(tensors, names)[0])


def assert_parity(ours, golden, tolerance=1e-5):
    """Largest difference, relative to the golden array's own largest magnitude, at most `tolerance`."""
    assert ours.shape == golden.shape
    error = np.max(np.abs(np.asarray(ours) - golden)) / np.max(np.abs(golden))
    assert error <= tolerance, f"relative error {error:.2e}, tolerance {tolerance:.0e}"
