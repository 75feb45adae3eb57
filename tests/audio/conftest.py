"""Sounds of full band and of a lower one, a few of which tests of bands join."""

import numpy as np
import pytest

from helpers.sounds import low_passed, recording


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    return recording("speech/klettres-german/letters.ogg", 42)


@pytest.fixture(scope="session")
def music() -> np.ndarray:
    return recording("music/mauricio-duarte/ubports.ogg", 18)


@pytest.fixture(scope="session")
def dull(speech) -> np.ndarray:
    """Speech that ends at 3.9 kHz."""
    return low_passed(speech, 3900)
