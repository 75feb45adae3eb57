"""What the device at hand can do, and what a process has used of it: the yardsticks of the benchmarks."""

import math
import resource
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

MATRIX = 2048  # rows and columns of the yardstick


def peak_memory() -> int:
    """Bytes that have been in use at most: of the accelerator where there is one, else of this process."""
    of_device = jax.local_devices()[0].memory_stats() or {}
    in_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return of_device.get("peak_bytes_in_use", in_process)


PRODUCTS = 3  # at least, that are timed, after as many that are not


class MatrixRate:
    """FLOP/s of a matrix product, `MATRIX` cubed, of each of `devices` (default: the first) while all compute theirs:
    those that are simulated share a processor. Every call measures it once more.

    The first products after another program take up to twice as long, with its pages and threads in the way: left out,
    since they would make that program look faster than it is.
    """

    def __init__(self, dtype: str = "float32", devices: Sequence[jax.Device] = ()):
        matrix = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), np.float32).astype(jnp.dtype(dtype))
        self._matrices = [jax.device_put(matrix, device) for device in devices or jax.local_devices()[:1]]
        self._each = math.ceil(PRODUCTS / len(self._matrices))
        self._product = jax.jit(jnp.matmul)
        self._multiply()

    def __call__(self) -> float:
        self._multiply()
        began = time.monotonic()
        self._multiply()
        return self._each * 2 * MATRIX**3 / (time.monotonic() - began)

    def _multiply(self) -> None:
        jax.block_until_ready([self._product(matrix, matrix) for _ in range(self._each) for matrix in self._matrices])
