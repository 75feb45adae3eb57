"""The table of published tensor names: complete on both sides, exact both ways, errors that name the tensors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from flashsr_jax.exchange.names import published_names, to_params, to_torch, unet_names, vae_names, vocoder_names
from flashsr_jax.models.presets import preset
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vae import VAE
from flashsr_jax.models.vocoder import SRVocoder

from helpers.parity import UNET_TINY, VAE_TINY, VOCODER_TINY, golden_shapes

TABLES = published_names() | {
    "vae_tiny": vae_names(VAE_TINY),
    "unet_tiny": unet_names(UNET_TINY),
    "vocoder_tiny": vocoder_names(VOCODER_TINY),
}


def random_tensors(names):
    rng = np.random.default_rng(0)
    return {name.torch: rng.standard_normal(name.shape, np.float32) for name in names}


@pytest.mark.parametrize("checkpoint", TABLES)
def test_table_is_the_checkpoint(checkpoint):
    table = {name.torch: list(name.shape) for name in TABLES[checkpoint]}
    assert len(table) == len(TABLES[checkpoint])
    assert table == golden_shapes()[checkpoint]


def test_what_no_network_uses_is_classed():
    kinds = {
        kind: {name.torch for names in published_names().values() for name in names if name.kind == kind}
        for kind in ("unused", "buffer")
    }
    last_layer = {"audio_block.downsamples.4.0.weight", "audio_block.downsamples.4.0.bias"}
    assert {name for name in kinds["unused"] if not name.startswith("vocoder.")} == last_layer
    assert all(name.endswith(".filter") or "." not in name for name in kinds["buffer"])
    assert len(kinds["buffer"]) == 12 + 2 * (5 * 3 * 6 + 1)


@pytest.mark.training
@pytest.mark.parametrize("size", ["base", "small"])
@pytest.mark.parametrize("network", ["vae", "unet", "vocoder"])
def test_parameters_are_the_modules_own(network, size):
    """Paths and shapes of the table are exactly those that the network initialises."""
    config = preset(size)
    mel, waveform = jnp.zeros((1, 64, 256)), jnp.zeros((1, 64 * 480))
    latent = jnp.zeros((1, 8, 32, 16))
    module, inputs = {
        "vae": (VAE(config.vae), (mel,)),
        "unet": (UNet(config.unet), (latent, latent, jnp.zeros(1))),
        "vocoder": (SRVocoder(config.vocoder), (mel, waveform)),
    }[network]
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    ours = {path: leaf.shape for path, leaf in flatten_dict(shapes, sep="/").items()}
    table = {"vae": vae_names, "unet": unet_names, "vocoder": vocoder_names}[network](getattr(config, network))
    assert {name.path: name.our_shape for name in table if name.path} == ours


@pytest.mark.parametrize("checkpoint", ["vae_tiny", "unet_tiny", "vocoder_tiny"])
def test_there_and_back_is_exact(checkpoint):
    names = TABLES[checkpoint]
    tensors = random_tensors(names)
    params, others = to_params(tensors, names)
    back = to_torch(params, others, names)
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert back[name].shape == tensor.shape and back[name].tobytes() == tensor.tobytes(), name
    again, _ = to_params(back, names)
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_layouts():
    names = {name.torch: name for name in TABLES["vocoder_tiny"] + TABLES["unet_tiny"]}

    def ours(name):
        tensor = np.arange(np.prod(names[name].shape)).reshape(names[name].shape)
        return tensor, names[name].to_ours(tensor)

    theirs, kernel = ours("conv_pre.weight_v")
    assert kernel[2, 3, 5] == theirs[5, 3, 2]
    theirs, kernel = ours("ups.0.0.weight_v")
    assert kernel[2, 3, 5] == theirs[3, 5, 2]
    theirs, kernel = ours("model.input_blocks.0.0.weight")
    assert kernel[0, 2, 3, 5] == theirs[5, 3, 0, 2]
    theirs, kernel = ours("model.time_embed.0.weight")
    assert kernel[3, 5] == theirs[5, 3]
    theirs, gain = ours("ups.0.0.weight_g")
    assert gain.shape == (64,) and gain[3] == theirs[3, 0, 0]


def test_missing_extra_and_misshaped_tensors_are_named():
    names = TABLES["vae_tiny"]
    tensors = random_tensors(names)
    del tensors["encoder.conv_in.weight"]
    tensors["encoder.conv_inn.weight"] = np.zeros(3)
    tensors["quant_conv.bias"] = np.zeros(7)
    with pytest.raises(ValueError, match="misshaped") as error:
        to_params(tensors, names)
    text = str(error.value)
    assert "missing encoder.conv_in.weight (32, 1, 3, 3)" in text
    assert "extra encoder.conv_inn.weight (3,)" in text
    assert "misshaped quant_conv.bias: (7,), expected (8,)" in text
    assert len(text.splitlines()) == 4


def test_missing_extra_and_misshaped_parameters_are_named():
    names = TABLES["vocoder_tiny"]
    params, others = to_params(random_tensors(names), names)
    del params["conv_pre"]["g"]
    params["conv_pre"]["gain"] = np.zeros(64)
    params["conv_post"]["bias"] = np.zeros(2)
    del others["activation_post.upsample.filter"]
    with pytest.raises(ValueError, match="misshaped") as error:
        to_torch(params, others, names)
    text = str(error.value)
    assert "missing conv_pre/g (64,)" in text
    assert "missing activation_post.upsample.filter (1, 1, 12)" in text
    assert "extra conv_pre/gain (64,)" in text
    assert "misshaped conv_post/bias: (2,), expected (1,)" in text
    assert len(text.splitlines()) == 5
