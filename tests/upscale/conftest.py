"""Shared by the tests of `flashsr upscale`: micro weights, and the command with a stand-in for the networks."""

import numpy as np
import pytest

import flashsr_jax.upscale.files
from flashsr_jax.cli import main
from flashsr_jax.weights.store import save_weights

from helpers.micro_model import MICRO, micro_params


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_weights(path, MICRO, micro_params(), {"unet": "regression, step 7"})
    return str(path)


@pytest.fixture
def upscale(weights, monkeypatch, capfd):
    """The command with samples repeated in the place of the networks: (exit code, lines on stdout, on stderr)."""

    def repeat(model, blocks, sample_rate, **options):
        return (np.repeat(block, 48_000 // sample_rate, axis=1) for block in blocks)

    def run(*arguments):
        code = main(["upscale", *arguments, "--weights", weights])
        out, err = capfd.readouterr()
        return code, out.splitlines(), err.splitlines()

    monkeypatch.setattr(flashsr_jax.upscale.files, "upscale_stream", repeat)
    return run
