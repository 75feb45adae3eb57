"""FlashSR as a function of tensors, for programs that have PyTorch: it comes with them, not with this package."""

import math
from typing import TYPE_CHECKING, Any

from flashsr_jax.api import FlashSR
from flashsr_jax.errors import UserError
from flashsr_jax.upscale.arguments import as_samples

if TYPE_CHECKING:
    import torch


def upscale_tensor(model: FlashSR, x: "torch.Tensor", sample_rate: int, **options: Any) -> "torch.Tensor":
    """Upscale a tensor (..., N) to 48 kHz (..., M), M = round(N x 48000 / sample_rate), on the same device.

        from flashsr_jax.interop import upscale_tensor
        y = upscale_tensor(FlashSR.load("small"), x, sample_rate)

    Shapes up to (B, C, N), values and options are as in `FlashSR.__call__`; further axes in front are examples, too.
    Floats come back in their own dtype, integers, which are scaled, as float32. The output's memory is handed over by
    dlpack; the input is read in place on a CPU and copied from other devices, since resampling and the measuring of
    bands are the host's work. No gradient flows through.
    Raises UserError for what is no tensor, and as `FlashSR.__call__` does.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(f"tensors need PyTorch, which cannot be imported ({error}): pip install torch") from error
    if not isinstance(x, torch.Tensor):
        raise UserError(f"expected a tensor of PyTorch, got {type(x).__name__}: FlashSR itself takes arrays")
    samples = as_samples(x)
    if samples.ndim > 3:
        samples = samples.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
    y = torch.from_dlpack(model(samples, sample_rate, **options))
    return y.reshape(*x.shape[:-1], y.shape[-1]).to(x.device, x.dtype if x.is_floating_point() else y.dtype)
