"""Weights in and out through the command line: the published form, Orbax, training runs."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flashsr_jax.cli import main
from flashsr_jax.errors import UserError
from flashsr_jax.exchange.names import SCHEDULE_BUFFERS, checkpoint_names, published_names, untrained
from flashsr_jax.exchange.published import FILES, import_published
from flashsr_jax.exchange.torch_files import load_torch, save_torch
from flashsr_jax.models.diffusion import schedule
from flashsr_jax.models.presets import ModelConfig, VAEConfig, VocoderConfig
from flashsr_jax.runs.checkpoint import Checkpoints, load_tree
from flashsr_jax.weights.store import load_weights

from helpers.parity import UNET_TINY

SMALL = ModelConfig(  # the published form
    VAEConfig(channels=32, multipliers=(1, 2), blocks=1, mel_bins=32),
    UNET_TINY,
    VocoderConfig(mel_bins=32, channels=32, rates=(10, 6, 8), kernels=(3,)),
)
NAMES = checkpoint_names(SMALL)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoints() -> dict[str, dict[str, np.ndarray]]:
    """Random tensors for every name of the three checkpoints."""
    rng = np.random.default_rng(0)
    return {
        network: {name.torch: rng.standard_normal(name.shape, np.float32) for name in names}
        for network, names in NAMES.items()
    }


def written(suffix: str = "pth") -> list[str]:
    for network, tensors in checkpoints().items():
        path = f"{FILES[network]}.{suffix}"
        save_torch(path, tensors) if suffix == "pth" else save_file(tensors, path)
    return [f"{name}.{suffix}" for name in ("student_ldm", "sr_vocoder", "vae")]


@pytest.mark.training
@pytest.mark.parametrize("there", ["pth", "safetensors"])
@pytest.mark.parametrize("back", ["pth", "safetensors"])
def test_import_and_export_give_back_every_tensor_bit_for_bit(there, back, capsys):
    import_published(written(there), "official.safetensors", config=SMALL)
    weights = load_weights("official.safetensors", required=("vae", "unet", "vocoder"))
    assert weights.params["scale_factor"] == np.float32(0.3342)
    stages = {"vae": "vae", "unet": "student", "vocoder": "vocoder"}
    assert weights.metadata == {network: f"{stages[network]}, {FILES[network]}.{there}" for network in FILES}
    assert main(["weights", "export", "official.safetensors", "--to", "torch", "-o", "out", "--format", back]) == 0
    assert capsys.readouterr().out.split() == [f"out/{FILES[network]}.{back}" for network in ("vae", "unet", "vocoder")]
    for network, tensors in checkpoints().items():
        path = f"out/{FILES[network]}.{back}"
        got = load_torch(path) if back == "pth" else load_file(path)
        assert sorted(got) == sorted(tensors)
        for name, tensor in tensors.items():
            assert got[name].dtype == np.float32 and np.array_equal(got[name], tensor), name


@pytest.mark.training
def test_without_what_an_import_kept_it_follows_from_its_definition():
    import_published(written(), "official.safetensors", config=SMALL)
    Path("official.others.safetensors").unlink()
    assert main(["weights", "export", "official.safetensors", "--to", "torch", "-o", "out"]) == 0
    unet, vocoder = load_torch("out/student_ldm.pth"), load_torch("out/sr_vocoder.pth")
    np.testing.assert_allclose(unet["alphas_cumprod"], schedule().alpha_bar, rtol=1e-6)
    np.testing.assert_allclose(unet["betas"], schedule().beta, rtol=1e-6)
    assert set(SCHEDULE_BUFFERS) <= unet.keys()
    assert vocoder["activation_post.upsample.filter"].shape == (1, 1, 12)
    assert not vocoder["audio_block.downsamples.2.0.weight"].any()
    for network, tensors in checkpoints().items():
        got = load_torch(f"out/{FILES[network]}.pth")
        for name in NAMES[network]:
            if name.kind == "parameter":
                np.testing.assert_array_equal(got[name.torch], tensors[name.torch])


def test_every_published_tensor_that_is_no_parameter_has_a_value():
    for names in published_names().values():
        for name in names:
            if name.kind != "parameter" and np.prod(name.shape) < 1e6:
                value = untrained(name)
                assert value.shape == name.shape and np.isfinite(value).all(), name


@pytest.mark.training
def test_half_precision_says_what_it_changes(capsys):
    import_published(written(), "official.safetensors", config=SMALL)
    assert main(["weights", "export", "official.safetensors", "--to", "torch", "-o", "half", "--dtype", "float16"]) == 0
    *files, change = capsys.readouterr().out.splitlines()
    assert len(files) == 3 and change.startswith("float16 changes the output by 0.")
    assert load_torch("half/vae.pth")["quant_conv.weight"].dtype == np.float16


@pytest.mark.training
def test_orbax(capsys):
    import_published(written(), "official.safetensors", config=SMALL)
    assert main(["weights", "export", "official.safetensors", "--to", "orbax", "-o", "tree"]) == 0
    tree, params = load_tree("tree"), load_weights("official.safetensors").params
    assert jax.tree.structure(tree) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, tree, params)
    assert main(["weights", "export", "official.safetensors", "--to", "orbax", "-o", "tree"]) == 1
    assert "-o tree exists" in capsys.readouterr().err


@pytest.mark.training
def test_an_expansion_cannot_be_said_in_the_published_form(capsys):
    import_published(written(), "official.safetensors", config=dataclasses.replace(SMALL, expansion=0.3))
    assert main(["weights", "export", "official.safetensors", "--to", "torch", "-o", "there"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flashsr: official.safetensors has an expansion of 0.3") and "--expansion 0" in line
    assert not Path("there").exists()


def test_a_run_gives_its_average_or_its_last_parameters(capsys):
    kernel = np.arange(3, dtype=np.float32)
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"stage": "vocoder", "model": dataclasses.asdict(SMALL)}))
    checkpoints = Checkpoints("run", 1, "lsd")
    state = {"params": {"vocoder": {"kernel": kernel + 1}, "head": {"bias": kernel}}, "opt_state": [kernel, ()]}
    checkpoints.save(7, {"vocoder": {"kernel": kernel}}, state, {"batches": 7})
    checkpoints.close()
    for option, expected in ((), kernel), (("--last",), kernel + 1):
        out = "tree" + "".join(option)
        assert main(["weights", "export", "run", "--to", "orbax", "-o", out, *option]) == 0, capsys.readouterr().err
        np.testing.assert_array_equal(load_tree(out)["vocoder"]["kernel"], expected)


def test_a_run_of_the_vae_gives_its_latents_scale(capsys):
    kernel = np.arange(3, dtype=np.float32)
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"stage": "vae", "model": dataclasses.asdict(SMALL)}))
    checkpoints = Checkpoints("run", 1, "mel_l1")
    moments = {"latent_mean": np.array(0.5, np.float32), "latent_square": np.array(4.25, np.float32)}
    checkpoints.save(7, {"vae": {"kernel": kernel}, **moments}, {"params": {"vae": {"kernel": kernel}}}, {"batches": 7})
    checkpoints.close()
    for options in ((), ("--last",), ("--dtype", "bfloat16")):
        out = "tree" + "".join(options)
        assert main(["weights", "export", "run", "--to", "orbax", "-o", out, *options]) == 0, capsys.readouterr().err
        tree = load_tree(out)
        assert tree.keys() == {"vae", "scale_factor"} and tree["scale_factor"] == np.float32(0.5)
        np.testing.assert_array_equal(np.asarray(tree["vae"]["kernel"], np.float32), kernel)


def test_a_run_of_tune_gives_all_three_networks(capsys):
    one = np.ones(3, np.float32)
    Path("run").mkdir()
    Path("run/config.json").write_text(json.dumps({"stage": "tune", "model": dataclasses.asdict(SMALL)}))
    checkpoints = Checkpoints("run", 1, "lsd")
    tuned, last = ({"vae": {"decoder": n * one}, "unet": {"a": n * one}, "vocoder": {"b": n * one}} for n in (1, 2))
    weights = {
        "tune": tuned,
        "encoder": {"encoder": 3 * one, "quant_conv": 4 * one},
        "scale_factor": np.array(0.5, np.float32),
    }
    checkpoints.save(7, weights, {"params": {"tune": last}, "opt_state": [one]}, {"batches": 7})
    checkpoints.close()
    for option, expected in ((), 1), (("--last",), 2):
        out = "tree" + "".join(option)
        assert main(["weights", "export", "run", "--to", "orbax", "-o", out, *option]) == 0, capsys.readouterr().err
        tree = load_tree(out)
        assert tree.keys() == {"vae", "unet", "vocoder", "scale_factor"} and tree["scale_factor"] == 0.5
        parts = {"decoder": expected, "encoder": 3, "quant_conv": 4}
        assert {name: part[0] for name, part in tree["vae"].items()} == parts
        assert tree["unet"]["a"][0] == tree["vocoder"]["b"][0] == expected


def test_what_does_not_fit_is_listed_by_name(capsys):
    tensors = checkpoints()["vae"]
    tensors["extra.weight"] = np.zeros(3, np.float32)
    tensors["quant_conv.bias"] = np.zeros(3, np.float32)
    del tensors["encoder.conv_in.weight"]
    files = written()
    save_torch("vae.pth", tensors)
    with pytest.raises(UserError) as error:
        import_published(files, "official.safetensors", config=SMALL)
    for line in ("vae.pth: ", "missing encoder.conv_in.weight", "extra extra.weight (3,)", "misshaped quant_conv.bias"):
        assert line in str(error.value) and "\n" not in str(error.value)
    assert not Path("official.safetensors").exists()


def test_mistakes_are_one_line(capsys):
    files = written()
    Path("text.pth").write_text("weights")
    save_torch("other.pth", {"w": np.zeros(1, np.float32)})
    for arguments, message in {
        (*files, "-o", "w.pth"): "-o w.pth: weights are .safetensors files",
        ("none.pth", "-o", "w.safetensors"): "no checkpoint at none.pth",
        ("none.safetensors", "-o", "w.safetensors"): "no checkpoint at none.safetensors",
        ("text.pth", "-o", "w.safetensors"): "text.pth is no checkpoint of PyTorch",
        ("other.pth", "-o", "w.safetensors"): "other.pth is none of vae, student_ldm, sr_vocoder",
    }.items():
        assert main(["weights", "import", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"flashsr: {message}"), line
    with pytest.raises(UserError, match="no checkpoint of sr_vocoder among the files"):
        import_published(["vae.pth", "student_ldm.pth"], "w.safetensors", config=SMALL)
    with pytest.raises(UserError, match="are both a vae"):
        import_published(["vae.pth", "vae.pth"], "w.safetensors", config=SMALL)
    assert main(["weights", "export", "small", "--to", "torch", "-o", "out"]) == 1
    assert "small has a VAE on patches" in capsys.readouterr().err and not Path("out").exists()


def test_the_command_needs_no_torch():
    code = "import sys, flashsr_jax.exchange.published; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_parameters_relabelled_as_integers_are_refused_by_name(suffix):
    files, name = written(suffix), next(name.torch for name in NAMES["vae"] if name.kind == "parameter")
    tensors = checkpoints()["vae"]
    tensors[name] = tensors[name].view(np.int32)
    save_torch("vae.pth", tensors) if suffix == "pth" else save_file(tensors, "vae.safetensors")
    with pytest.raises(UserError, match=f"vae.{suffix}: {name} is stored as int32"):
        import_published(files, "official.safetensors", config=SMALL)
    assert not Path("official.safetensors").exists()
