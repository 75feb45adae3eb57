"""launch/speed.py: this package beside systems that are made up, with PyTorch and without."""

import re

import pytest

from flashsr_jax.weights.store import save_weights

import speed
from helpers.micro_model import MICRO, micro_params

PLAIN = """
import time
import numpy as np

class Held:
    def __call__(self, waveform, sample_rate):
        assert waveform.dtype == np.float32 and waveform.shape == (8000,) and sample_rate == 8000
        time.sleep(0.2)
        return np.repeat(waveform, 48000 // sample_rate)[None]

class Part(Held):
    def __call__(self, waveform, sample_rate):
        return waveform

class Endless(Held):
    def __call__(self, waveform, sample_rate):
        return np.repeat(waveform / 0, 6)

class Broken:
    def __init__(self):
        raise RuntimeError("no checkpoint")
"""
TORCH = """
import torch

class Upsampler(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.ConvTranspose1d(1, 1, 12, stride=6, padding=3)

    def forward(self, waveform, sample_rate):
        assert not self.training and not torch.is_grad_enabled()
        return self.convolution(waveform[None, None])
"""
ROW = re.compile(r"\| (.*) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) to (\S+) \|")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "network.py").write_text(TORCH)
    return str(tmp_path)


def row(printed: str) -> tuple[str, list[float]]:
    name, *figures = ROW.fullmatch(printed.splitlines()[-1]).groups()
    return name, [float(figure) for figure in figures]


@pytest.mark.training
@pytest.mark.parametrize("reference", ["plain:Held", "network:Upsampler"])
def test_ratios_are_of_timings_in_turn(reference, folder, tmp_path, capfd):
    if reference.startswith("network"):
        pytest.importorskip("torch", reason="needs PyTorch, which this package does without")
    weights = str(tmp_path / "micro.safetensors")
    save_weights(weights, MICRO, micro_params())
    assert speed.main([folder, reference, "--ours", weights, "--rounds", "3", "--seconds", "1"]) == 0
    printed = capfd.readouterr().out
    assert re.match(
        r".+, \d+ threads, jax \d+\.\d+\S+(, torch \d+\S+)?\n1 s of speech at 8000 Hz, 3 rounds in turn", printed
    )
    assert ("torch" in printed.splitlines()[0]) == reference.startswith("network")
    name, (seconds, real_time, other, ratio, least, most) = row(printed)
    assert name == weights and least <= ratio <= most
    assert real_time == pytest.approx(1 / seconds, rel=0.05)
    if reference == "plain:Held":
        assert other >= 0.2


def test_the_ratio_is_the_median_of_the_rounds():
    times = {"small": [(1.0, 2.0), (4.0, 4.0), (2.0, 8.0)]}
    assert row(speed.table(times, "plain:Held", 5.12)) == ("small", [2.0, 2.56, 4.0, 2.0, 1.0, 4.0])


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere:Held", "nowhere:Held cannot be had (No module named 'nowhere'); write MODULE:CLASS"),
        ("plain:Nobody", "plain:Nobody cannot be had (module 'plain' has no attribute 'Nobody')"),
        ("plain:Part", "plain:Part returns 8000 samples for 1 s, or not finite ones"),
        ("plain:Endless", "plain:Endless returns 48000 samples for 1 s, or not finite ones"),
        ("plain:Broken", "plain:Broken has failed; what it said stands above"),
    ],
)
def test_a_reference_that_does_not_do_its_work_is_named(reference, message, folder, capfd):
    assert speed.main([folder, reference, "--seconds", "1"]) == 1
    stderr = capfd.readouterr().err
    assert stderr.splitlines()[-1].startswith("launch/speed.sh: ") and message in stderr
    assert ("RuntimeError: no checkpoint" in stderr) == (reference == "plain:Broken")


def test_the_table_has_medians_of_each_rounds_ratio():
    times = {"small": [(1.0, 2.0), (2.0, 8.0), (4.0, 12.0)]}
    assert row(speed.table(times, "network:Upsampler", 5.0)) == ("small", [2.0, 2.5, 8.0, 3.0, 2.0, 4.0])
