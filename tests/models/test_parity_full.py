"""Parity at the published size: each network, and the whole pipeline with one and with four solver steps.

Minutes and gigabytes. The 615 million parameters are filled once and shared by all tests.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from flashsr_jax.audio.front_end import denormalise, normalisation, normalise
from flashsr_jax.exchange.names import unet_names, vae_names, vocoder_names
from flashsr_jax.models import pipeline
from flashsr_jax.models.presets import preset
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vae import VAE
from flashsr_jax.models.vocoder import SRVocoder

from helpers.parity import assert_parity, golden, synthetic_params

pytestmark = pytest.mark.full

BASE = preset("base")
THROUGH_LOG_MEL = 1e-4  # relative tolerance of what the log-mel's rounding comes through


@pytest.fixture(scope="module")
def params():
    names = {"vae": vae_names(BASE.vae), "unet": unet_names(BASE.unet), "vocoder": vocoder_names(BASE.vocoder)}
    yield {network: synthetic_params(table) for network, table in names.items()} | {"scale_factor": jnp.float32(0.3342)}
    jax.clear_caches()


def test_vae(params):
    arrays, module, variables = golden("vae_full"), VAE(BASE.vae), {"params": params["vae"]}
    mean, logvar = jax.jit(functools.partial(module.apply, method="encode"))(variables, arrays["mel"][..., 0])
    assert_parity(mean, arrays["mean"])
    assert_parity(logvar, arrays["logvar"])
    decoded = jax.jit(functools.partial(module.apply, method="decode"))(variables, arrays["mean"])
    assert_parity(decoded, arrays["decoded_mean"][..., 0])


def test_unet(params):
    arrays, variables = golden("unet_full"), {"params": params["unet"]}
    apply = jax.jit(UNet(BASE.unet).apply)
    assert_parity(apply(variables, arrays["z"], arrays["cond"], arrays["t"]), arrays["out"])
    assert_parity(apply(variables, arrays["z"], arrays["cond"], jnp.array([250])), arrays["out_t250"])


def test_vocoder(params):
    arrays = golden("sr_vocoder_full")
    out = jax.jit(SRVocoder(BASE.vocoder).apply)({"params": params["vocoder"]}, arrays["mel"], arrays["lr_audio"])
    assert_parity(out, arrays["out"])


@pytest.mark.parametrize(("name", "steps"), [("pipeline_full", 1), ("pipeline_full_4steps", 4)])
def test_pipeline(params, name, steps, monkeypatch):
    """From a waveform as it comes to one of the same scale: normalised before, mapped back after. In one program, whose
    parts give what they make."""
    arrays, lr = golden(name), golden("pipeline_full")["lr_audio"]
    noises = arrays["posterior_noise"], arrays["initial_noise"]
    stats = normalisation(lr)
    lr = normalise(lr, stats)

    made = {}

    def keep(part, function):
        def kept(*args):
            made[part] = function(*args)
            return made[part]

        monkeypatch.setattr(pipeline, part, kept)

    for part in ("encode", "sample_latent", "decode"):
        keep(part, getattr(pipeline, part))

    @jax.jit
    def super_resolve(params, lr, posterior_noise, initial_noise):
        return pipeline.super_resolve(params, BASE, lr, posterior_noise, initial_noise, steps=steps), dict(made)

    hr, found = super_resolve(params, lr, *noises)
    if steps == 1:
        assert_parity(found["encode"], arrays["z_lr"], THROUGH_LOG_MEL)
    assert_parity(found["sample_latent"], arrays["z0"], THROUGH_LOG_MEL)
    assert_parity(found["decode"], arrays["decoded_mel"][..., 0], THROUGH_LOG_MEL)
    assert_parity(denormalise(hr, stats), arrays["hr_audio"])
