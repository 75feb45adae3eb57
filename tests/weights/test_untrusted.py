"""Weights files from anywhere: what is in them is checked, by name, before anything is built or written of it."""

import dataclasses
import json
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import soundfile as sf
from safetensors import safe_open
from safetensors.numpy import save_file

from flashsr_jax.cli import main
from flashsr_jax.weights.store import FORMAT, save_weights

from helpers.micro_model import MICRO, micro_params

KERNEL = "unet/encoder/conv_in/kernel"


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors and configuration of a good file."""
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save_weights(path, MICRO, micro_params())
    with safe_open(path, "np") as file:
        return file.get_tensors(), dataclasses.asdict(MICRO)


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """What `flashsr upscale` says, in one line, of a file of tensors and the text of a configuration; within 5 s."""
    monkeypatch.chdir(tmp_path)
    sf.write("in.wav", np.random.default_rng(0).normal(size=4000) / 10, 8000)

    def run(tensors: dict[str, np.ndarray], config: str) -> str:
        save_file(tensors, "bad.safetensors", {"format": FORMAT, "config": config})
        began = time.process_time()
        code = main(["upscale", "in.wav", "-o", "out.wav", "--weights", "bad.safetensors"])
        assert time.process_time() - began < 5
        err = capfd.readouterr().err
        assert code == 1 and "Traceback" not in err and "bad.safetensors" in err
        assert not Path("out.wav").exists()
        return err

    return run


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_values_that_are_not_finite_are_refused_by_name(refused, content, value, dtype):
    tensors, config = content
    bad = tensors[KERNEL].astype(dtype)
    bad.flat[-1] = value
    assert f"{KERNEL} has values that are not finite" in refused(tensors | {KERNEL: bad}, json.dumps(config))


@pytest.mark.parametrize("value", [0, -0.33, 1e-30, 1e30])
def test_a_scale_that_nothing_can_be_divided_by_is_refused(refused, content, value):
    tensors, config = content
    text = refused(tensors | {"scale_factor": np.array(value, np.float32)}, json.dumps(config))
    assert f"scale_factor is {np.float32(value):g}, not from 1e-06 to 1e+06" in text


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float64])
def test_tensors_of_other_types_are_refused_by_name(refused, content, dtype):
    tensors, config = content
    bad = np.zeros(tensors[KERNEL].shape, dtype)
    text = refused(tensors | {KERNEL: bad}, json.dumps(config))
    assert f"{KERNEL} is stored as {bad.dtype.kind.upper()}{8 * bad.itemsize}; weights are float32" in text


def test_weights_whose_sound_is_not_finite_write_no_file(content, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    sf.write("in.wav", np.random.default_rng(0).normal(size=4000) / 10, 8000)
    params = micro_params()
    params["vocoder"]["lr_branch"]["conv_in"]["kernel"][:] = 1e37  # finite, as a flipped bit of an exponent leaves it
    save_weights("bad.safetensors", MICRO, params)
    assert main(["upscale", "in.wav", "-o", "out.wav", "--weights", "bad.safetensors", "--cutoff", "3000"]) == 1
    assert "in.wav: the networks make samples that are not finite (float32, 1 steps" in capfd.readouterr().err
    assert not Path("out.wav").exists()


CONFIGS = {
    "a million blocks": ("unet", "blocks", 10**6, "U-Net: blocks=1000000: integers from 1 to 8"),
    "more blocks than are in the file": (
        "unet",
        "blocks",
        8,
        "unet/encoder/down_0_block_1/residual/conv1/kernel: missing",
    ),
    "no blocks": ("vae", "blocks", 0, "VAE: blocks=0: integers from 1 to 8"),
    "wide": ("vae", "channels", 2**60, "VAE: channels=1152921504606846976: integers from 1 to"),
    "a thousand levels": ("vae", "multipliers", [1] * 1000, "VAE: multipliers has 1000 entries: give 1 to 8"),
    "no level": ("unet", "multipliers", [], "U-Net: multipliers has 0 entries"),
    "a text": ("unet", "channels", "8", "U-Net: channels='8': integers from"),
    "a truth": ("unet", "blocks", True, "U-Net: blocks=True: integers from"),
    "a fraction": ("vae", "blocks", 1.5, "VAE: blocks=1.5: integers from"),
    "nothing": ("vae", "channels", None, "VAE: channels=None: integers from"),
    "a number of rates": ("vocoder", "rates", 480, "vocoder: rates=480: give a sequence"),
    "nested": ("vocoder", "rates", [[24], 20], "vocoder: rates=([24], 20): integers from"),
    "no heads": ("unet", "head_channels", 0, "U-Net: head_channels=0: integers from"),
    "not a number": ("vae", "mel_mean", float("nan"), "VAE: mel_mean=nan: numbers from"),
    "no deviation": ("vae", "mel_std", 0.0, "VAE: mel_std=0.0: numbers from"),
    "no truth": ("vocoder", "lr_conditioned", 1, "vocoder: lr_conditioned=1: give True or False"),
    "a field of a text that fills screens": ("vae", "x" * 9000, 1, "vae has no field 'xxx"),
    "a field with a line break": ("vae", "x\n\x1b[2Jy", 1, r"vae has no field 'x\n\x1b[2Jy'"),
    "an odd number of channels": ("vae", "channels", 5, "parameters do not fit the configuration"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configurations_are_bounded_and_typed(refused, content, case):
    tensors, config = content
    network, field, value, said = CONFIGS[case]
    text = refused(tensors, json.dumps(config | {network: config[network] | {field: value}}))
    assert said in text and len(text) < 3000


@pytest.mark.parametrize("expansion", [-0.1, 1.5, float("nan"), "0.1", True, None, [0.1]])
def test_the_expansion_is_bounded_and_typed(refused, content, expansion):
    tensors, config = content
    text = refused(tensors, json.dumps(config | {"expansion": expansion}))
    assert f"expansion={expansion!r}: numbers from 0 to 1 are possible" in text


@pytest.mark.parametrize("dispersed", [1, "true", None, [True], True])
def test_whether_phases_are_dispersed_is_typed_and_needs_phases(refused, content, dispersed):
    tensors, config = content
    text = refused(tensors, json.dumps(config | {"dispersed": dispersed}))
    assert f"dispersed={dispersed!r}: false, or true for a vocoder with an inverse STFT" in text


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "7", '{"vae": {}}', '{"vae": 1, "unet": 2, "vocoder": 3}', "[" * 50_000]
)
def test_what_is_no_configuration_is_refused(refused, content, text):
    assert "its model configuration does not suit this version" in refused(content[0], text)


def test_names_that_are_not_ours_are_shown_in_one_short_line(refused, content):
    tensors, config = content
    text = refused(tensors | {"\x1b[2J\n" + "x" * 5000: np.zeros(1, np.float32)}, json.dumps(config))
    assert r"\x1b[2J\nxxx" in text and "no such parameter" in text and len(text) < 1000
