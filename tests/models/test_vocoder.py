"""The SR Vocoder and its anti-aliased activation: golden parity, definitions, gradients, lengths it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from jax import lax

from flashsr_jax.audio import front_end
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import frame_lines_db
from flashsr_jax.exchange.names import vocoder_names
from flashsr_jax.models.antialias import antialiased_snake_beta, lowpass_filter
from flashsr_jax.models.presets import VocoderConfig
from flashsr_jax.models.vocoder import (
    DISPERSED_GAIN,
    SRVocoder,
    WeightNormConv,
    WeightNormUpsample,
    dispersed,
    fold_weight_norm,
    missing,
    phase_groups,
)

from helpers.parity import VOCODER_TINY, assert_parity, golden, synthetic_params


@pytest.mark.training
def test_parity():
    arrays = golden("sr_vocoder_tiny")
    variables = {"params": synthetic_params(vocoder_names(VOCODER_TINY))}
    out = jax.jit(SRVocoder(VOCODER_TINY).apply)(variables, arrays["mel"], arrays["lr_audio"])
    assert_parity(out, arrays["out"])


def variables_of(config, mel, lr):
    """Random ones of a network: drawn by numpy, since compiling the draws takes longer than the tests."""
    shapes, rng = jax.eval_shape(SRVocoder(config).init, jax.random.key(0), mel, lr), np.random.default_rng(2)
    return jax.tree.map(lambda x: (0.3 * rng.standard_normal(x.shape)).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def micro():
    """A network that compiles fast: (config, variables, mel, waveform)."""
    config, rng = (
        VocoderConfig(mel_bins=8, channels=8, rates=(4, 2), kernels=(3,), dilations=(1,)),
        np.random.default_rng(0),
    )
    mel, lr = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 8, 8), (1, 64)))
    return config, variables_of(config, mel, lr), mel, lr


@pytest.mark.training
def test_mel_is_standardised_inside(micro):
    config, variables, mel, lr = micro
    shifted = dataclasses.replace(config, mel_mean=-5.0, mel_std=3.0)
    expected = jax.jit(SRVocoder(config).apply)(variables, mel, lr)
    assert_parity(jax.jit(SRVocoder(shifted).apply)(variables, 3 * mel - 5, lr), np.asarray(expected))


@pytest.mark.training
def test_bfloat16_computes_close_and_returns_float32(micro):
    config, variables, mel, lr = micro
    exact, half = (jax.jit(SRVocoder(config, dtype).apply)(variables, mel, lr) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == jnp.float32
    assert 1e-4 < np.abs(half - exact).max() / np.abs(exact).max() < 0.1


@pytest.mark.parametrize(("frames", "samples"), [(8, 63), (7, 64)])
def test_refuses_lengths_that_do_not_fit(micro, frames, samples):
    config, variables, _, _ = micro
    with pytest.raises(ValueError, match="8 samples a mel frame"):
        jax.eval_shape(SRVocoder(config).apply, variables, jnp.zeros((1, frames, 8)), jnp.zeros((1, samples)))


@pytest.mark.training
def test_with_an_inverse_stft_the_low_resolution_passes_unchanged_and_the_rest_is_added():
    config = VocoderConfig(mel_bins=8, channels=8, rates=(2,), kernels=(3,), dilations=(1,), istft_size=16)
    assert config.hop == 8
    rng = np.random.default_rng(0)
    mel, lr = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 6, 8), (2, 48)))
    apply, variables = jax.jit(SRVocoder(config).apply), variables_of(config, mel, lr)
    added_to = {level: apply(variables, mel, level * lr) - level * lr for level in (1.0, 1e-3)}
    assert added_to[1e-3].shape == lr.shape and np.abs(added_to[1e-3]).max() > 1e-3
    assert np.abs(added_to[1.0]).max() < 0.1 * np.abs(added_to[1e-3]).max()  # it has all that the network would make
    silent = jax.tree.map(lambda x: np.full_like(x, 1e-9), variables)  # not 0: no 0 / 0 in the weight norm
    silent["params"]["conv_post"]["bias"][:9] = -40.0
    np.testing.assert_allclose(apply(silent, mel, lr), lr, atol=1e-6)


@pytest.mark.parametrize("size", [4, 12, 100])
def test_refuses_sizes_of_the_inverse_stft_that_do_not_divide(size):
    with pytest.raises(UserError, match=f"istft_size={size}"):
        VocoderConfig(istft_size=size)


def test_filter_is_scipys():
    attenuation = 2.285 * 5 * np.pi * 1.2 + 7.95
    expected = scipy.signal.firwin(12, 0.5, window=("kaiser", scipy.signal.kaiser_beta(attenuation)))
    np.testing.assert_allclose(lowpass_filter(), expected, atol=1e-7)


def direct_activation(x_BxNxC, alpha_C, beta_C):
    """The definition, by zero stuffing and convolutions of all 12 taps, one channel as one example."""
    taps = jnp.asarray(lowpass_filter())[:, None, None]

    def convolve(x, stride):
        return lax.conv_general_dilated(x, taps, (stride,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))

    batch, samples, channels = x_BxNxC.shape
    x = jnp.moveaxis(x_BxNxC, 2, 1).reshape(-1, samples, 1)
    x = jnp.pad(x, ((0, 0), (5, 5), (0, 0)), mode="edge")
    stuffed = jnp.pad(jnp.stack([x, jnp.zeros_like(x)], 2).reshape(len(x), -1, 1)[:, :-1], ((0, 0), (11, 11), (0, 0)))
    up = 2 * convolve(stuffed, 1)[:, 15:-15].reshape(batch, channels, 2 * samples)
    up += jnp.sin(up * jnp.exp(alpha_C)[:, None]) ** 2 / (jnp.exp(beta_C)[:, None] + 1e-9)
    up = jnp.pad(up.reshape(-1, 2 * samples, 1), ((0, 0), (5, 6), (0, 0)), mode="edge")
    return jnp.moveaxis(convolve(up, 2).reshape(batch, channels, samples), 1, 2)


@pytest.mark.training
@pytest.mark.parametrize("samples", [3, 64, 1001])
def test_activation_and_its_gradient_match_the_definition(samples):
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(3 * rng.standard_normal((2, samples, 5)), jnp.float32) for _ in range(2))
    alpha, beta = (jnp.asarray(0.5 * rng.standard_normal(5), jnp.float32) for _ in range(2))

    def output_and_gradient(activation):
        def loss(*args):
            y = activation(*args)
            return jnp.sum(y * weight), y

        (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(x, alpha, beta)
        return [y, *gradients]

    found, definition = map(output_and_gradient, (antialiased_snake_beta, direct_activation))
    for ours, expected in zip(found, definition, strict=True):
        assert_parity(ours, np.asarray(expected))


def test_activation_of_a_constant_is_constant():
    """Replicated, not zero, edges: a constant stays one up to both ends."""
    out = antialiased_snake_beta(jnp.full((1, 20, 1), 0.7), jnp.zeros(1), jnp.zeros(1))
    np.testing.assert_allclose(out, 0.7 + np.sin(0.7) ** 2, rtol=1e-5)


def test_activation_gradient_keeps_types():
    x = jnp.ones((1, 8, 2), jnp.bfloat16)
    gradient = jax.grad(lambda *args: antialiased_snake_beta(*args).astype(jnp.float32).sum(), (0, 1, 2))
    grads = jax.eval_shape(gradient, x, jnp.zeros(2), jnp.zeros(2))
    assert [grad.dtype for grad in grads] == [jnp.bfloat16, jnp.float32, jnp.float32]


@pytest.mark.training
@pytest.mark.parametrize("module", [WeightNormConv(6, 3, dilation=2), WeightNormUpsample(6, 4)])
def test_weight_norm_starts_as_its_own_norm_and_ignores_the_scale_of_v(module):
    x, apply = np.random.default_rng(0).standard_normal((1, 16, 5)).astype(np.float32), jax.jit(module.apply)
    params = jax.jit(module.init)(jax.random.key(1), x)["params"]
    scaled = {**params, "v": 3 * params["v"]}
    np.testing.assert_allclose(apply({"params": scaled}, x), apply({"params": params}, x), atol=1e-5)
    axes = (0, 1) if isinstance(module, WeightNormConv) else (0, 2)
    np.testing.assert_allclose(params["g"], np.sqrt(np.sum(np.square(params["v"]), axes)), rtol=1e-5)


def test_upsampling_is_the_transposed_convolution():
    module, rate = WeightNormUpsample(3, 4), 4
    x = np.random.default_rng(0).standard_normal((2, 10, 5)).astype(np.float32)
    params = jax.jit(module.init)(jax.random.key(1), x)["params"]
    expected = np.zeros((2, 10 * rate + rate, 3))
    for n in range(10):
        for k in range(2 * rate):
            expected[:, n * rate + k] += x[:, n] @ np.asarray(params["v"][k])
    assert_parity(jax.jit(module.apply)({"params": params}, x), expected[:, rate // 2 : -rate // 2])


@pytest.mark.training
@pytest.mark.parametrize("istft_size", [0, 16])
def test_a_vocoder_of_the_mel_alone_does_not_hear_the_waveform(istft_size):
    config = VocoderConfig(
        mel_bins=8, channels=8, rates=(2,), kernels=(3,), dilations=(1,), istft_size=istft_size, lr_conditioned=False
    )
    rng = np.random.default_rng(0)
    mel, lr = rng.normal(size=(1, 4, 8)), rng.normal(size=(2, 1, 4 * config.hop))
    variables, apply = variables_of(config, mel, lr[0]), jax.jit(SRVocoder(config).apply)
    assert "lr_branch" not in variables["params"]
    one, other = (apply(variables, mel, waveform) for waveform in lr)
    assert one.shape == lr[0].shape and np.abs(one).max() > 0
    np.testing.assert_array_equal(one, other)


def test_random_phases_make_a_buzz_a_noise_of_its_level():
    """Frames that are alike sound at their rate; here two a mel frame, as those of a mel without fine structure."""
    config = VocoderConfig(channels=8, rates=(2,), istft_size=960)
    rng = np.random.default_rng(0)
    phase_MxK = np.tile(rng.uniform(-np.pi, np.pi, (2, 481)), (512, 1)).astype(np.float32)
    noise_MxG = rng.standard_normal((len(phase_MxK), phase_groups(config))).astype(np.float32)
    turned_MxK = np.asarray(dispersed(phase_MxK[None], noise_MxG[None]))[0]
    buzz_N, noise_N = (
        np.asarray(front_end.istft(np.exp(1j * x)[None].astype(np.complex64)))[0] for x in (phase_MxK, turned_MxK)
    )
    white_N = rng.standard_normal(len(buzz_N))
    assert frame_lines_db(white_N, buzz_N, 4000) > 40 and abs(frame_lines_db(white_N, noise_N, 4000)) < 1.5
    assert abs(20 * np.log10(DISPERSED_GAIN * noise_N.std() / buzz_N.std())) < 3
    turns_MxK = (turned_MxK - phase_MxK) / np.pi
    np.testing.assert_allclose(turns_MxK[:, :8], np.broadcast_to(noise_MxG[:, :1], (len(phase_MxK), 8)), atol=1e-5)
    np.testing.assert_allclose(turns_MxK[:, -1], noise_MxG[:, -1], atol=1e-5)


def test_missing_is_what_the_low_resolution_waveform_lacks():
    noise = np.random.default_rng(0).normal(size=48_000).astype(np.float32)
    low = scipy.signal.sosfiltfilt(scipy.signal.cheby1(8, 0.1, 6000 / 24_000, output="sos"), noise).astype(np.float32)
    edge = 360
    full = np.abs(jax.jit(front_end.stft, static_argnums=(1, 2))(np.pad(noise, edge)[None], 960, 240))
    lacks, level = jax.jit(missing), np.log(np.sqrt(np.mean(full**2)))
    share = np.asarray(lacks(np.full_like(full, level), low[None]))
    hz = np.fft.rfftfreq(960, 1 / 48_000)
    assert share.shape == (1, 200, 481)
    assert share[0, 2:-2][:, hz < 5800].mean() < 0.02
    assert share[0, :, hz > 7000].min() > 0.99
    assert not np.any(np.isnan(lacks(np.full_like(full, -200.0), np.zeros((1, 48_000), np.float32))))


@pytest.mark.training
def test_folded_weight_norm_makes_the_same_output():
    arrays, params = golden("sr_vocoder_tiny"), synthetic_params(vocoder_names(VOCODER_TINY))
    folded = fold_weight_norm(params)
    assert not {"v", "g"} & {key.key for path, _ in jax.tree.leaves_with_path(folded) for key in path}
    out = jax.jit(SRVocoder(VOCODER_TINY).apply)({"params": folded}, arrays["mel"], arrays["lr_audio"])
    assert_parity(out, arrays["out"])
