"""Stage `vocoder`: the SR Vocoder against multi-period and multi-resolution discriminators.

Generator: mel x log-mel distance + stft x log-STFT distance + power x log-power distance of wide bands + features x
feature matching + adversarial x least squares.
HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), section 2.4; BigVGAN (Lee et al. 2023, arXiv:2206.04658).
Letters: B batch, N samples of a window, T its mel frames, F mel bins, S frames of a crop, H hop.
"""

import jax
import jax.numpy as jnp
from jax import lax

from flashsr_jax.audio.front_end import denormalise, log_mel
from flashsr_jax.errors import UserError
from flashsr_jax.models.diffusion import STEPS, z0_from_v
from flashsr_jax.models.discriminators import WaveDiscriminator
from flashsr_jax.models.pipeline import decode, vocode
from flashsr_jax.models.unet import UNet
from flashsr_jax.models.vocoder import SRVocoder
from flashsr_jax.train import losses
from flashsr_jax.train.batch import Windows, prepare
from flashsr_jax.train.evaluation import mel_outputs
from flashsr_jax.train.frozen import dtype_of, encode_pair, encode_waveforms, load, load_initial, model_of
from flashsr_jax.train.state import TrainState, apply_gradients, create, finish_step


def load_frozen(config) -> dict:
    """What `mel_source` needs: nothing (`true`), the VAE (`vae`), or VAE and student (`student`)."""
    if config.mel_source not in ("true", "vae", "student"):
        raise UserError(f"config.mel_source={config.mel_source!r}: choose 'true', 'vae' or 'student'")
    frozen = {} if config.mel_source == "true" else load(config, "vae_from", "vae")
    if config.mel_source == "student":
        frozen |= load(config, "student_from", "unet")
    return frozen | load_initial(config, "vocoder")


def init(config, frozen: dict, key: jax.Array) -> TrainState:
    """Generator (fresh, or of config.init_from) and fresh discriminators."""
    model = model_of(config)
    mel = jnp.zeros((1, config.crop_frames, model.vocoder.mel_bins))
    waveform = jnp.zeros((1, config.crop_frames * model.vocoder.hop))
    key_generator, key_discriminator = jax.random.split(key)
    fresh = SRVocoder(model.vocoder).init(key_generator, mel, waveform)["params"]
    params = {"vocoder": jax.tree.map(jnp.copy, frozen.get("init", fresh))}
    if _uses_discriminator(config):
        params["discriminator"] = _discriminator(config).init(key_discriminator, waveform)["params"]
    return create(config, params, "vocoder")


def train_step(config, state: TrainState, frozen: dict, batch: dict, key: jax.Array):
    """One update of the discriminators, and one of the generator against the discriminators before it."""
    key_mel, key_crop = jax.random.split(key)
    vocoder = SRVocoder(model_of(config).vocoder, dtype_of(config), config.remat)
    discriminator = _discriminator(config)
    windows, metrics = prepare(batch)
    mel_BxTxF = _conditioning_mel(config, frozen, windows, key_mel)
    mel, hr, lr = random_crops(mel_BxTxF, windows, config.crop_frames, key_crop)
    judge = state.params.get("discriminator")

    def mean_of(loss_B):
        return losses.weighted_mean(loss_B, windows.weight)

    def generator_loss(params):
        estimate = vocoder.apply({"params": params}, mel, lr)
        if config.mel_loss == "single":
            terms = {"mel": mean_of(losses.mel_l1(estimate, hr, mel.shape[-1]))}
        else:
            terms = {"mel": mean_of(losses.multi_scale_mel_l1(estimate, hr))}
        if config.losses.stft:
            terms["stft"] = mean_of(losses.multi_resolution_stft_l1(estimate, hr))
        if config.losses.power:
            terms["power"] = mean_of(losses.band_power_l1(estimate, hr))
        if judge is not None:
            _, real_features = discriminator.apply({"params": judge}, hr)
            fake_logits, fake_features = discriminator.apply({"params": judge}, estimate)
            terms["adversarial"] = mean_of(losses.adversarial_generator(fake_logits, "lsgan"))
            terms["features"] = mean_of(losses.feature_matching(real_features, fake_features))
        return sum(config.losses[name] * term for name, term in terms.items()), (terms, lax.stop_gradient(estimate))

    (total, (terms, estimate)), gradients = jax.value_and_grad(generator_loss, has_aux=True)(state.params["vocoder"])
    after, norm = apply_gradients(config, state, "vocoder", gradients)
    metrics |= {"loss": total, **terms, **norm}

    if judge is not None:

        def discriminator_loss(params):
            real_logits, _ = discriminator.apply({"params": params}, hr)
            fake_logits, _ = discriminator.apply({"params": params}, estimate)
            return mean_of(losses.adversarial_discriminator(real_logits, fake_logits, "lsgan"))

        loss, gradients = jax.value_and_grad(discriminator_loss)(judge)
        after, norm = apply_gradients(config, after, "discriminator", gradients)
        metrics |= {"discriminator": loss, **norm}

    return finish_step(config, after, "vocoder"), metrics


def eval_step(config, weights: dict, frozen: dict, batch: dict, key: jax.Array) -> dict:
    """Whole windows resynthesised from the same kind of mel as in training."""
    model = model_of(config)
    windows, _ = prepare(batch)
    mel = _conditioning_mel(config, frozen, windows, key)
    estimate = vocode(weights["vocoder"], model, mel, windows.lr, dtype_of(config))
    outputs = mel_outputs(config, {}, windows, log_mel(estimate, model.vocoder.mel_bins), batch["cutoff_hz"])
    return outputs | {"audio": denormalise(estimate, windows.stats)}


def random_crops(mel_BxTxF, windows: Windows, frames: int, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same random stretch of `frames` mel frames of each example: mel (B, S, F), hr and lr (B, S H)."""
    batch, total, bins = mel_BxTxF.shape
    hop = windows.hr.shape[-1] // total
    first_B = jax.random.randint(key, (batch,), 0, total - frames + 1)

    def crop(mel_TxF, hr_N, lr_N, first):
        return (
            lax.dynamic_slice(mel_TxF, (first, 0), (frames, bins)),
            lax.dynamic_slice(hr_N, (first * hop,), (frames * hop,)),
            lax.dynamic_slice(lr_N, (first * hop,), (frames * hop,)),
        )

    return jax.vmap(crop)(mel_BxTxF, windows.hr, windows.lr, first_B)


def _conditioning_mel(config, frozen: dict, windows: Windows, key: jax.Array) -> jax.Array:
    """Mel (B, T, F) of `mel_source`: the true one, decoded from the true latents, or from the student's."""
    model, dtype = model_of(config), dtype_of(config)
    if config.mel_source == "true":
        return log_mel(windows.hr, model.vocoder.mel_bins)
    key_encode, key_noise = jax.random.split(key)
    if config.mel_source == "vae":
        z = encode_waveforms(config, frozen, windows.hr, key_encode)
    else:
        z, z_lr = encode_pair(config, frozen, windows, key_encode)
        noise, t_B = jax.random.normal(key_noise, z.shape), jnp.full(z.shape[:1], STEPS - 1)
        z = z0_from_v(noise, t_B, UNet(model.unet, dtype).apply({"params": frozen["student"]}, noise, z_lr, t_B))
    return lax.stop_gradient(decode(frozen["vae"], model, z, frozen["scale_factor"], dtype))


def _uses_discriminator(config) -> bool:
    return config.losses.adversarial > 0 or config.losses.features > 0


def _discriminator(config) -> WaveDiscriminator:
    sizes = config.discriminator
    return WaveDiscriminator(
        tuple(sizes.periods),
        tuple(tuple(resolution) for resolution in sizes.resolutions),
        sizes.channels,
        sizes.max_channels,
        sizes.spectrogram_channels,
        dtype_of(config),
    )
