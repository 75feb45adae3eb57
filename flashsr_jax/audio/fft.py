"""Fourier transforms that stay where their batch is: XLA gathers the operand of a sharded FFT on every device.

Letters: B batch, N samples, K = N / 2 + 1 bins.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


def rfft(x: jax.Array, samples: int) -> jax.Array:
    """`jnp.fft.rfft(x, samples)`: (B, ..., N) to (B, ..., K), the batch split over all axes of the mesh in context."""
    return _on_own_batch(lambda x: jnp.fft.rfft(x, samples), x)


def irfft(x: jax.Array, samples: int) -> jax.Array:
    """`jnp.fft.irfft(x, samples)`: (B, ..., K) to (B, ..., N), the batch split as in `rfft`."""
    return _on_own_batch(lambda x: jnp.fft.irfft(x, samples), x)


def _on_own_batch(transform: Callable, x: jax.Array) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return transform(x)
    spec = PartitionSpec(mesh.axis_names)
    return jax.shard_map(transform, in_specs=spec, out_specs=spec)(x)
