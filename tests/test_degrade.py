"""Low-resolution simulation (golden values, device against host) and bandwidth measurement."""

from pathlib import Path

import numpy as np
import pytest

from flashsr_jax import degrade
from flashsr_jax.degrade import LowpassFilter

GOLDEN = np.load(Path(__file__).parent / "golden" / "audio_frontend.npz")
SCIPY_NAMES = {"cheby": "cheby1"}
LOWPASS_NAMES = [name for name in GOLDEN if name.startswith("lowpass_")]


def named_filter(name: str) -> LowpassFilter:
    type_, order, cutoff = name.removeprefix("lowpass_").split("_")[:3]
    return LowpassFilter(SCIPY_NAMES.get(type_, type_), int(order), float(cutoff))


@pytest.mark.parametrize("name", LOWPASS_NAMES)
def test_simulation_is_the_published_one(name):
    audio = GOLDEN["audio"][:48_001] if name.endswith("of_48001") else GOLDEN["audio"]
    low = degrade.simulate_low_resolution(audio, named_filter(name))
    assert low.shape == audio.shape and low.dtype == np.float32
    np.testing.assert_allclose(low[: len(GOLDEN[name])], GOLDEN[name], rtol=0, atol=1e-6)
