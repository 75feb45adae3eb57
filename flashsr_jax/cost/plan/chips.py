"""Accelerators that are not here: their makers' figures, and the time of a step on them by a roofline.

Products take FLOPs / (peak x share), everything else bytes / (bandwidth x share), the longer of the two per operation;
collectives overlap with nothing. The shares are assumptions, not measurements: `cost.training` measures on the device
at hand.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

PRODUCT_SHARE = 0.7  # of the peak, for large products
BANDWIDTH_SHARE = 0.8  # of the memory's, and of the links'
USABLE_MEMORY = 0.92  # the rest: the runtime's own, and fragmentation
OPERATION_SECONDS = 2e-6  # of the smallest operation: its launch
POD_SIZES = (8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Chip:
    """One accelerator. Bytes are bytes, rates are per second; links count one direction of all of a chip's."""

    name: str
    peak: float  # FLOP/s of bfloat16 products
    peak_float32: float  # as XLA runs them by default: one bfloat16 pass on TPUs, TF32 on GPUs
    memory: float
    bandwidth: float
    contraction: int  # sums of products are padded to multiples of it
    domain: int  # chips that the fast links join
    link: float
    outside_link: float  # per chip, between domains
    kind: str  # regular expression on what JAX calls it

    def matches(self, device_kind: str) -> bool:
        """Whether JAX's name of a device is one of these."""
        return re.search(self.kind, device_kind) is not None


# cloud.google.com/tpu/docs/v5e, /v5p: 1600 and 4800 Gbit/s of links a chip, both directions together; 256 and 8960
# chips in a pod; hosts of 8 and 4 chips with 200 Gbit/s beyond it. nvidia.com/h100, /h200 (SXM): dense rates, NVLink of
# 900 GB/s both directions together within 8 GPUs, one 400 Gbit/s adapter a GPU beyond them.
CHIPS = (
    Chip("v5e", 197e12, 197e12, 16e9, 819e9, 128, 256, 100e9, 25e9 / 8, r"TPU v5( lite|e)"),
    Chip("v5p", 459e12, 459e12, 95e9, 2765e9, 128, 8960, 300e9, 25e9 / 4, r"TPU v5p?$"),
    Chip("H100", 989e12, 494e12, 80e9, 3350e9, 16, 8, 450e9, 50e9, "H100"),
    Chip("H200", 989e12, 494e12, 141e9, 4800e9, 16, 8, 450e9, 50e9, "H200"),
)


def operation_seconds(
    chip: Chip, flops: np.ndarray, contraction: np.ndarray, low_precision: np.ndarray, moved: np.ndarray
) -> np.ndarray:
    """Seconds of operations by the roofline; arrays of FLOPs, length of sums, 16-bit or not, and bytes moved."""
    padded = np.maximum(1, np.ceil(contraction / chip.contraction)) * chip.contraction / np.maximum(contraction, 1)
    peak = np.where(low_precision, chip.peak, chip.peak_float32) * PRODUCT_SHARE
    longer = np.maximum(flops * padded / peak, moved / (chip.bandwidth * BANDWIDTH_SHARE))
    return np.maximum(longer, OPERATION_SECONDS)


def gather_seconds(chip: Chip, size: float, devices: int) -> float:
    """Seconds of an all-gather (or a reduce-scatter) of `size` bytes in all, over rings in and between domains."""
    inside = min(devices, chip.domain)
    outside = math.ceil(devices / inside)
    rate = BANDWIDTH_SHARE * np.array([chip.link, chip.outside_link * inside])
    parts = np.array([(inside - 1) / inside, (outside - 1) / outside])
    return float(np.sum(size * parts / rate))
