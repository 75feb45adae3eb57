"""Fourier transforms that stay where their batch is: XLA gathers the operand of a sharded FFT on every device.

Letters: N samples, K = N / 2 + 1 bins, after any leading axes.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


def _batch_partitioned(transform):
    """`transform` along the last axis, run by each device on its own part of the leading axes."""
    partitioned = custom_partitioning(transform)

    def leading_axes_only(mesh, arg_shapes, result_shape):
        (operand,) = arg_shapes
        spec = [*operand.sharding.spec, *[None] * operand.ndim][: operand.ndim - 1]
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return mesh, transform, sharding, (sharding,)

    partitioned.def_partition(
        partition=leading_axes_only,
        infer_sharding_from_operands=lambda mesh, arg_shapes, result_shape: leading_axes_only(
            mesh, arg_shapes, result_shape
        )[2],
        sharding_rule="... n -> ... k",
        need_replication_factors=("n", "k"),
    )
    return partitioned


@functools.cache
def _rfft(samples: int):
    return _batch_partitioned(lambda x: jnp.fft.rfft(x, samples))


@functools.cache
def _irfft(samples: int):
    return _batch_partitioned(lambda x: jnp.fft.irfft(x, samples))


def rfft(x: jax.Array, samples: int) -> jax.Array:
    """`jnp.fft.rfft(x, samples)` without gradient: (..., N) to (..., K)."""
    return _rfft(samples)(x)


def irfft(x: jax.Array, samples: int) -> jax.Array:
    """`jnp.fft.irfft(x, samples)` without gradient: (..., K) to (..., N)."""
    return _irfft(samples)(x)
