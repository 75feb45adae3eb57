"""`flashsr weights pack`: networks from runs and files in one file, which says where each comes from."""

from pathlib import Path

import jax
import numpy as np
import pytest

from flashsr_jax.cli import main
from flashsr_jax.weights.origin import stage_of
from flashsr_jax.weights.store import NETWORKS, load_weights, save_weights

from helpers.micro_model import MICRO, SPECTRAL, micro_params


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """model.safetensors with all networks, of which the U-Net and the VAE say what they are; unet.safetensors, another
    U-Net; and bare.safetensors, whose U-Net says nothing."""
    monkeypatch.chdir(tmp_path)

    def filled(network: str, value: float) -> dict:
        return jax.tree.map(lambda leaf: np.full_like(leaf, value), micro_params()[network])

    params = {network: filled(network, 1.0) for network in NETWORKS} | {"scale_factor": np.float32(0.5)}
    save_weights("model.safetensors", MICRO, params, {"vae": "vae, step 9", "unet": "regression, step 2"})
    save_weights("unet.safetensors", MICRO, {"unet": filled("unet", 2.0)}, {"unet": "student, step 4"})
    save_weights("bare.safetensors", MICRO, {"unet": filled("unet", 2.0)})


def test_networks_of_files_keep_their_origin():
    arguments = ["--vae", "model.safetensors", "--unet", "bare.safetensors", "--vocoder", "model.safetensors"]
    assert main(["weights", "pack", *arguments, "-o", "packed.safetensors"]) == 0
    packed = load_weights("packed.safetensors", NETWORKS)
    assert packed.metadata == {"vae": "vae, step 9", "unet": "bare.safetensors", "vocoder": "model.safetensors"}
    assert packed.params["scale_factor"] == np.float32(0.5)


def test_a_mean_says_of_what():
    assert main(["weights", "pack", "--unet", "model.safetensors", "unet.safetensors", "-o", "mean.safetensors"]) == 0
    mean = load_weights("mean.safetensors", ["unet"])
    assert mean.metadata == {"unet": "mean of regression, step 2; student, step 4"}
    assert all((leaf == 1.5).all() for leaf in jax.tree.leaves(mean.params["unet"]))


def test_shares_add_up_what_runs_have_learned(capsys):
    several = ["--unet", "model.safetensors", "unet.safetensors", "model.safetensors", "-o", "mean.safetensors"]
    assert main(["weights", "pack", *several, "--vae", "model.safetensors", "--shares", "-0.5", "1.25", "0.25"]) == 0
    mean = load_weights("mean.safetensors", ["unet"])
    assert mean.metadata["unet"] == "mean of -0.25 x regression, step 2; 1.25 x student, step 4"
    assert stage_of(mean.metadata["unet"]) == "regression and student"
    assert all((leaf == 2.25).all() for leaf in jax.tree.leaves(mean.params["unet"]))
    for shares, message in {
        ("0.5", "0.5"): "--shares 0.5 0.5 (together 1): give one to each of the 3 networks, together 1",
        ("0.5", "0.5", "0.5"): "--shares 0.5 0.5 0.5 (together 1.5): give one to each of the 3 networks, together 1",
    }.items():
        assert main(["weights", "pack", *several, "--shares", *shares]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"flashsr: {message}"
    assert main(["weights", "pack", "--unet", "model.safetensors", "-o", "one.safetensors", "--shares", "0.5"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "flashsr: --shares are of several networks of one kind: name them, or leave this out"
    assert not Path("one.safetensors").exists()


def test_the_expansion_is_the_u_nets_unless_another_is_given():
    def packed(*options: str) -> float:
        assert main(["weights", "pack", *options, "-o", "packed.safetensors"]) == 0
        return load_weights("packed.safetensors", ["unet"]).config.expansion

    assert packed("--unet", "model.safetensors") == 0
    assert packed("--unet", "model.safetensors", "--expansion", "0.25") == 0.25
    Path("packed.safetensors").rename("expanded.safetensors")
    assert packed("--vae", "model.safetensors", "--unet", "expanded.safetensors", "unet.safetensors") == 0.25
    assert packed("--unet", "unet.safetensors", "--vae", "model.safetensors") == 0
    assert packed("--unet", "expanded.safetensors", "--expansion", "0") == 0


def test_phases_are_dispersed_as_the_vocoders_file_says_unless_told():
    save_weights("spectral.safetensors", SPECTRAL, micro_params(config=SPECTRAL))

    def packed(*options: str) -> bool:
        assert main(["weights", "pack", *options, "-o", "packed.safetensors"]) == 0
        return load_weights("packed.safetensors").config.dispersed

    assert SPECTRAL.dispersed and packed("--vocoder", "spectral.safetensors")
    assert not packed("--vocoder", "spectral.safetensors", "--no-dispersed")
    Path("packed.safetensors").rename("plain.safetensors")
    assert not packed("--vocoder", "plain.safetensors") and packed("--vocoder", "plain.safetensors", "--dispersed")
    assert not packed("--vae", "spectral.safetensors")


def test_a_vocoder_of_samples_has_no_phases_to_disperse(capsys):
    assert main(["weights", "pack", "--vocoder", "model.safetensors", "--dispersed", "-o", "packed.safetensors"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "flashsr: --dispersed needs a vocoder with an inverse STFT (istft_size), whose phases it turns"
    assert not Path("packed.safetensors").exists()


def test_mistakes_name_the_option(capsys):
    for arguments, message in {
        ("--unet", "nowhere"): "--unet nowhere does not exist: give the folder of a finished run, or a .safetensors",
        ("--vae", "."): "--vae . is not the folder of a training run (it has no config.json)",
        (): "nothing to pack: give a vae, unet or vocoder",
    }.items():
        assert main(["weights", "pack", *arguments, "-o", "out.safetensors"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"flashsr: {message}"), line
