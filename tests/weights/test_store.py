"""The weights file: what is written comes back, and what does not fit is refused by name."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import safe_open
from safetensors.numpy import save_file

from flashsr_jax.errors import UserError
from flashsr_jax.files import replacing
from flashsr_jax.weights.store import NETWORKS, load_weights, save_weights

from helpers.micro_model import MICRO, micro_params


@pytest.fixture(scope="module")
def params() -> dict:
    return micro_params()


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_round_trip_is_exact(params, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, MICRO, params, {"stage": "student", "step": "1200"})
    weights = load_weights(path, required=NETWORKS)
    assert weights.config == MICRO
    assert weights.metadata == {"stage": "student", "step": "1200"}
    assert_trees_equal(weights.params, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(weights.params)} == {np.dtype(np.float32)}
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stores_the_nearest_values(params, tmp_path, dtype):
    path = tmp_path / "model.safetensors"
    save_weights(path, MICRO, params, dtype=dtype)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert path.stat().st_size < 2 * count + 200_000
    loaded = load_weights(path).params
    assert loaded.pop("scale_factor") == np.float32(0.33419999)
    expected = jax.tree.map(lambda x: x.astype(np.dtype(dtype)).astype(np.float32), {n: params[n] for n in NETWORKS})
    assert_trees_equal(loaded, expected)


def test_jax_arrays_and_half_precision_trees_are_stored(params, tmp_path):
    vae = jax.tree.map(lambda x: jax.numpy.asarray(x.astype(ml_dtypes.bfloat16)), params["vae"])
    save_weights(tmp_path / "vae.safetensors", MICRO, {"vae": vae})
    assert_trees_equal(
        load_weights(tmp_path / "vae.safetensors").params["vae"], jax.tree.map(lambda x: np.asarray(x, np.float32), vae)
    )


def test_one_network_alone(params, tmp_path):
    path = tmp_path / "unet.safetensors"
    save_weights(path, MICRO, {"unet": params["unet"]})
    assert set(load_weights(path).params) == {"unet"}
    with pytest.raises(UserError, match=r"has no vae, vocoder, scale_factor \(it has unet\)"):
        load_weights(path, required=NETWORKS)


def test_names_in_the_file_are_parameter_paths(params, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, MICRO, params)
    with safe_open(path, "np") as file:
        names = set(file.keys())
        assert json.loads(file.metadata()["config"])["vae"]["channels"] == MICRO.vae.channels
    assert "scale_factor" in names
    assert {name.split("/")[0] for name in names} == {*NETWORKS, "scale_factor"}
    assert not any("params" in name for name in names)


def test_what_does_not_fit_the_configuration_is_listed_by_path(params, tmp_path):
    flat = flatten_dict(params, sep="/")
    misshaped = next(name for name in flat if name.startswith("unet/"))
    missing = next(name for name in flat if name.startswith("vae/"))
    flat[misshaped] = np.zeros((3, 3), np.float32)
    flat["vocoder/surplus"] = np.zeros(1, np.float32)
    del flat[missing]
    with pytest.raises(UserError) as error:
        save_weights(tmp_path / "model.safetensors", MICRO, unflatten_dict(flat, sep="/"))
    text = str(error.value)
    assert f"{misshaped}: (3, 3), expected (" in text
    assert f"{missing}: missing, expected (" in text
    assert "vocoder/surplus: (1,), expected no such parameter" in text
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_size_is_refused_on_loading(params, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, MICRO, params)
    with safe_open(path, "np") as file:
        tensors, metadata = file.get_tensors(), file.metadata()
    config = dataclasses.asdict(MICRO)
    config["unet"]["channels"] *= 2
    save_file(tensors, path, metadata | {"config": json.dumps(config)})
    with pytest.raises(UserError, match=r"(?s)model.safetensors: parameters do not fit.*unet/.*\.\.\. and \d+ more"):
        load_weights(path)
    config["unet"]["wings"] = 2
    save_file(tensors, path, metadata | {"config": json.dumps(config)})
    with pytest.raises(UserError, match="model.safetensors: its model configuration.*wings"):
        load_weights(path)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(UserError, match="model.safetensors is a safetensors file, but not of flashsr_jax"):
        load_weights(path)


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE" * 50, b"\xff" * 4096, b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="model.safetensors is"):
        load_weights(path)


def test_a_truncated_file_is_refused(params, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, MICRO, {"vae": params["vae"]})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="model.safetensors is not a safetensors file, or is cut short"):
        load_weights(path)


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(UserError, match="no weights file at"):
        load_weights(tmp_path / name)


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (np.inf, "bfloat16"), (1e5, "float16")])
def test_values_that_would_not_survive_are_refused_and_the_old_file_stays(params, tmp_path, value, dtype):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old")
    bad = jax.tree.map(np.copy, {"unet": params["unet"]})
    jax.tree.leaves(bad)[0].flat[0] = value
    with pytest.raises(UserError, match=f"model.safetensors: unet/.* not finite in {dtype}"):
        save_weights(path, MICRO, bad, dtype=dtype)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_unknown_dtype_and_reserved_metadata(params, tmp_path):
    with pytest.raises(UserError, match="float32, bfloat16, float16; got 'int8'"):
        save_weights(tmp_path / "x", MICRO, params, dtype="int8")
    with pytest.raises(UserError, match="config"):
        save_weights(tmp_path / "x", MICRO, params, {"config": "mine"})


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:  # noqa: PT012 interrupted inside
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with replacing(path) as partial:
        assert partial.suffix == ".txt"
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["out.txt"]
    with pytest.raises(FileNotFoundError, match="nowhere"), replacing(tmp_path / "nowhere" / "out.txt"):
        pass
