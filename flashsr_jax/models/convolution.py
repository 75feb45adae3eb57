"""2-D convolution with a gradient of its kernel that is fast on a CPU.

XLA's own gradient of a 3x3 kernel is a convolution with a kernel as large as the image; on a CPU it reaches a quarter
of the rate of the convolution itself where images are large and channels few, and a tenth of it for a 1x1 kernel.
`python -m flashsr_jax.models.convolution` measures both.
Letters: B batch, T time, F frequency, C input and O output channels, K kernel size.
"""

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv2d(
    x_BxTxFxC: jax.Array, kernel_KxKxCxO: jax.Array, stride: int = 1, padding: str | Sequence[tuple[int, int]] = "SAME"
) -> jax.Array:
    """Convolution (B, T', F', O), as `lax.conv_general_dilated` does it; `padding` as there."""
    if stride == 1 and kernel_KxKxCxO.shape[:2] == (1, 1):
        return x_BxTxFxC @ kernel_KxKxCxO[0, 0]
    if stride == 1 and padding == "SAME" and kernel_KxKxCxO.shape[0] % 2:
        return _same(x_BxTxFxC, kernel_KxKxCxO)
    return lax.conv_general_dilated(x_BxTxFxC, kernel_KxKxCxO, (stride, stride), padding, dimension_numbers=LAYOUT)


def _xla(x_BxTxFxC: jax.Array, kernel_KxKxCxO: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x_BxTxFxC, kernel_KxKxCxO, (1, 1), "SAME", dimension_numbers=LAYOUT)


_same = jax.custom_vjp(_xla)


def _forward(x_BxTxFxC: jax.Array, kernel_KxKxCxO: jax.Array) -> tuple[jax.Array, tuple]:
    return _xla(x_BxTxFxC, kernel_KxKxCxO), (x_BxTxFxC, kernel_KxKxCxO)


def _backward(saved: tuple, g_BxTxFxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BxTxFxC, kernel_KxKxCxO = saved
    d_x = _xla(g_BxTxFxO, lax.rev(kernel_KxKxCxO, (0, 1)).swapaxes(2, 3))
    size = kernel_KxKxCxO.shape[0]
    d_kernel = lax.platform_dependent(
        x_BxTxFxC,
        g_BxTxFxO,
        cpu=lambda x, g: _kernel_gradient_by_rows(x, g, size),
        default=lambda x, g: _kernel_gradient_of_xla(x, g, size),
    )
    return d_x, d_kernel


_same.defvjp(_forward, _backward)


def _kernel_gradient_of_xla(x_BxTxFxC: jax.Array, g_BxTxFxO: jax.Array, size: int) -> jax.Array:
    kernel = jnp.zeros((size, size, x_BxTxFxC.shape[-1], g_BxTxFxO.shape[-1]), x_BxTxFxC.dtype)
    (d_kernel,) = jax.linear_transpose(lambda kernel: _xla(x_BxTxFxC, kernel), kernel)(g_BxTxFxO)
    return d_kernel


def _kernel_gradient_by_rows(x_BxTxFxC: jax.Array, g_BxTxFxO: jax.Array, size: int) -> jax.Array:
    """One matrix product a row of the image: its inputs with the outputs of all K x K shifts side by side. A row's
    shifts fit into the core's own cache, those of the whole image do not."""
    rows, columns, channels = x_BxTxFxC.shape[1:]
    half = size // 2
    g_TxBxFxO = jnp.pad(g_BxTxFxO.swapaxes(0, 1), ((half, half), (0, 0), (half, half), (0, 0)))

    def add_row(d_kernel: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        index, x_BxFxC = row
        near_KxBxFxO = lax.dynamic_slice_in_dim(g_TxBxFxO, index, size)
        shifts = [near_KxBxFxO[i, :, j : j + columns] for i in range(size)[::-1] for j in range(size)[::-1]]
        shifted_BxFxKKO = lax.optimization_barrier(jnp.concatenate(shifts, axis=-1))
        return d_kernel + lax.dot_general(
            x_BxFxC, shifted_BxFxKKO, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32
        ), None

    outputs = g_BxTxFxO.shape[-1]
    zeros = jnp.zeros((channels, size * size * outputs), jnp.float32)
    d_kernel, _ = lax.scan(add_row, zeros, (jnp.arange(rows), x_BxTxFxC.swapaxes(0, 1)))
    return d_kernel.reshape(channels, size, size, outputs).transpose(1, 2, 0, 3).astype(x_BxTxFxC.dtype)


def _measure() -> None:
    """Print the rates of convolution and kernel gradients on this machine, in processor time."""

    def rate(function: Callable, *arguments: jax.Array) -> float:
        compiled = jax.jit(function)
        jax.block_until_ready(compiled(*arguments))
        seconds = []
        for _ in range(5):
            start = time.process_time()
            jax.block_until_ready(compiled(*arguments))
            seconds.append(time.process_time() - start)
        return flops / min(seconds) / 1e9

    print(f"{jax.default_backend()}, jax {jax.__version__}; GFLOP/s per core of 12 images of T x F, kernel K x K")
    print("| K, T, F, C, O | convolution | XLA's kernel gradient | this one |\n| --- | ---: | ---: | ---: |")
    for size, rows, in_channels, out_channels in ((3, 32, 48, 48), (3, 32, 96, 96), (3, 16, 96, 96), (1, 32, 144, 48)):
        x = jax.random.normal(jax.random.key(0), (12, rows, rows, in_channels))
        kernel = jax.random.normal(jax.random.key(1), (size, size, in_channels, out_channels))
        g = _xla(x, kernel)
        flops = 2 * g.size * in_channels * size**2
        rates = [
            rate(conv2d, x, kernel),
            rate(lambda x, g, size=size: _kernel_gradient_of_xla(x, g, size), x, g),
            rate(lambda x, kernel, g: jax.vjp(lambda kernel: conv2d(x, kernel), kernel)[1](g), x, kernel, g),
        ]
        shape = f"{size}, {rows}, {rows}, {in_channels}, {out_channels}"
        print(f"| {shape} | " + " | ".join(f"{r:.0f}" for r in rates) + " |")


if __name__ == "__main__":
    _measure()
