"""What the device at hand can do, and what a process has used of it: the yardsticks of the benchmarks."""

import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

MATRIX = 2048  # rows and columns of the yardstick


def peak_memory() -> int:
    """Bytes that have been in use at most: of the accelerator where there is one, else of this process."""
    of_device = jax.devices()[0].memory_stats() or {}
    in_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return of_device.get("peak_bytes_in_use", in_process)


class MatrixRate:
    """FLOP/s of a matrix product, `MATRIX` cubed, of one device; every call measures it once more."""

    def __init__(self, dtype: str = "float32"):
        matrix = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), np.float32)
        self._matrix = jnp.asarray(matrix, jnp.dtype(dtype))
        self._product = jax.jit(jnp.matmul)
        self()

    def __call__(self) -> float:
        began = time.monotonic()
        jax.block_until_ready([self._product(self._matrix, self._matrix) for _ in range(3)])
        return 3 * 2 * MATRIX**3 / (time.monotonic() - began)
