"""Stage `student`: one-step super-resolution, distilled from the teacher.

L = the sum of these, each times its weight of the current phase:
- distill: the student's clean latents against the teacher's solution from the same noisy ones (`train.starts`);
- distill_mel: L1 of the log-mels decoded from both, a distance where it is heard;
- mel: L1 of the log-mel decoded from the student's clean latents against the recording's own;
- zimtohrli, visqol: what these metrics hear of that mel (`train.perceptual`);
- adversarial: a trainable head on the frozen teacher's features says real or fake, at a random noise level;
- waveform, features: discriminators of the high band (`train.hearing`), on what frozen decoder and vocoder make of it;
- dmd: distribution matching, the difference of the teacher's and the fake score's clean latents as gradient.
Flash Diffusion (Chadebec et al. 2025, arXiv:2406.02347), as FlashSR (Im & Nam 2025, arXiv:2501.10807) uses it; the
separate fake score is DMD2's (Yin et al. 2024, arXiv:2405.14867).
Letters: B batch; latents are (B, T, F, C).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.data import CLASSES
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import PERCEPTUAL
from flashsr_jax.models.diffusion import STEPS, consistency_scalings, guided_v, q_sample, solve, velocity, z0_from_v
from flashsr_jax.models.discriminators import Band, LatentHead
from flashsr_jax.models.networks import example_inputs
from flashsr_jax.models.unet import UNet
from flashsr_jax.train import losses
from flashsr_jax.train.batch import band_weights, prepare
from flashsr_jax.train.evaluation import unet_outputs
from flashsr_jax.train.frozen import dtype_of, model_of, named
from flashsr_jax.train.hearing import Heard, discriminator_loss, hear, initial_discriminator, judged, random_stretch
from flashsr_jax.train.latents import Latents, decoded_mel, latents
from flashsr_jax.train.optimisers import by_phase
from flashsr_jax.train.perceptual import metric_losses
from flashsr_jax.train.starts import Start, draw_start
from flashsr_jax.train.state import Gradients, TrainState, create, descend, finish_step, gradient

TERMS = ("distill", "distill_mel", "mel", *PERCEPTUAL, "adversarial", "waveform", "features", "dmd")
PredictV = Callable[[jax.Array, jax.Array], jax.Array]  # (z_t, t_B) -> v, of one condition


def needs(config: ConfigDict) -> dict[str, str]:
    """The VAE, the teacher, and where the config names them the first U-Net and the vocoder, which renders audio for
    evaluation and for the discriminators of waveforms.

    Raises UserError where these are to hear windows that were encoded before.
    """
    if _uses(config, "waveform", "features") and config.data.latents:
        raise UserError(
            f"config.losses.waveform hears recordings, and config.data.latents={config.data.latents} has none: leave "
            "that empty, or the weights 0"
        )
    heard = {"vocoder": "vocoder"} if _uses(config, "waveform", "features") else {}
    return {"vae": "vae", "teacher": "unet"} | heard | named(config, init="unet", vocoder="vocoder")


def init(config: ConfigDict, frozen: dict[str, Any], key: jax.Array) -> TrainState:
    """Student: the U-Net of config.init_from, else the teacher. Separate fake score: the teacher. Fresh discriminators:
    the head on the teacher's features, and that of waveforms."""
    key_head, key_discriminator = jax.random.split(key)
    params = {"student": frozen.get("init", frozen["teacher"])}
    if _uses(config, "adversarial"):
        model = model_of(config)
        inputs = example_inputs(model, "unet")
        features = UNet(model.unet).apply({"params": frozen["teacher"]}, *inputs, method=UNet.features)
        params["head"] = LatentHead(config.head.channels).init(key_head, features)["params"]
    if _uses(config, "waveform", "features"):
        params["discriminator"] = initial_discriminator(config, key_discriminator)
    if _separate_fake_score(config):
        params["fake_score"] = frozen["teacher"]
    return create(config, jax.tree.map(jnp.copy, params), "student")


def train_step(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the student, one of each discriminator and, if separate, `fake_score_updates` of the fake score."""
    key_batch, key_fake = jax.random.split(key)
    of_part = functools.partial(gradients, config, state, frozen)
    state, metrics, made = descend(config, state, of_part, batch, key_batch)
    if _separate_fake_score(config):
        state, terms = update_fake_score(config, state, made, key_fake)
        metrics |= terms
    return finish_step(config, state, "student"), metrics


class Made(NamedTuple):
    """What the student has made of a batch: clean latents, beside its condition and the weight (B,) of each."""

    z_hat: jax.Array
    z_lr: jax.Array
    weight: jax.Array


def gradients(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> Gradients:
    """Of the student and of its discriminators, for a batch or a part of it."""
    key_encode, key_start, key_noise, key_scale, key_noised, key_dmd, key_crop, key_level = jax.random.split(key, 8)
    windows, metrics = latents(config, frozen, batch, key_encode)
    weights = {name: by_phase(config.losses[name], config.phases, state.step) for name in TERMS}
    mel_weight, latent_weight = band_weights(config, batch, windows.hr.shape[2])
    teacher = guided_teacher(config, frozen, windows.lr, batch["class_id"], key_scale)
    start = draw_start(config, state.step, windows.hr, key_start, key_noise)
    logits = head_logits(config, frozen, windows, key_noised)
    metrics_asked = [name for name in PERCEPTUAL if _uses(config, name)]
    hear_crops = hearing(config, frozen, batch, key_crop) if _uses(config, "waveform", "features") else None

    def student_loss(params: dict) -> tuple[jax.Array, dict, tuple[jax.Array, Heard | None]]:
        z_hat = clean_latents(_unet(config, params, windows.lr), start)
        of_example, heard = {}, None
        if _uses(config, "distill", "distill_mel"):
            solution = solved(teacher, start)
            of_example["distill"] = losses.l2(z_hat, solution, latent_weight)
        if _uses(config, "mel", "distill_mel", *PERCEPTUAL):
            mel = decoded_mel(config, frozen, z_hat)
            of_example["mel"] = losses.l1(mel, windows.mel, mel_weight)
            of_example |= metric_losses(metrics_asked, mel, windows.mel, batch, key_level)
        if _uses(config, "distill_mel"):
            of_example["distill_mel"] = losses.l1(mel, decoded_mel(config, frozen, solution), mel_weight)
        if _uses(config, "adversarial"):
            fake = logits(state.params["head"], z_hat)
            of_example["adversarial"] = losses.adversarial_generator(fake, config.adversarial_kind)
        if hear_crops:
            heard = hear_crops(z_hat)
            said = judged(config, state.params["discriminator"], heard)
            of_example |= {"waveform": said["adversarial"], "features": said["features"]}
        if _uses(config, "dmd"):
            fake_score = state.params["fake_score" if _separate_fake_score(config) else "student"]
            of_example["dmd"] = matched(config, z_hat, teacher, _unet(config, fake_score, windows.lr), key_dmd)
        total, terms = losses.weighted_sum(of_example, weights, windows.weight)
        return total, terms, lax.stop_gradient((z_hat, heard))

    of_student, terms, (z_hat, heard) = gradient(state, "student", student_loss, "loss")
    of_role, metrics = {"student": of_student}, metrics | terms | {"solver_steps": config.teacher_steps - start.first}
    if _uses(config, "adversarial"):
        of_head = functools.partial(head_loss, config, logits, windows, z_hat)
        of_role["head"], terms, _ = gradient(state, "head", of_head, "head")
        metrics |= terms
    if heard:
        judge_loss = functools.partial(discriminator_loss, config, heard, windows.weight)
        of_role["discriminator"], terms, _ = gradient(state, "discriminator", judge_loss, "discriminator")
        metrics |= terms
    return Gradients(of_role, metrics, jnp.sum(windows.weight), Made(z_hat, windows.lr, windows.weight))


def eval_step(
    config: ConfigDict, weights: dict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Super-resolution of clips the way it is used: one evaluation at t = 999."""
    return unet_outputs(config, weights["student"], frozen, batch, key)[0]


def guidance(config: ConfigDict, class_id_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(lowest, highest) guidance scale of each example's class, each (B, 1, 1, 1)."""
    of_class = jnp.asarray([config.guidance[name] for name in CLASSES], jnp.float32)
    low_B, high_B = of_class[class_id_B].T
    return low_B[:, None, None, None], high_B[:, None, None, None]


def guided_teacher(
    config: ConfigDict, frozen: dict[str, Any], z_lr: jax.Array, class_id_B: jax.Array, key: jax.Array
) -> PredictV:
    """The teacher's guided velocity, at a scale that is drawn for each example."""
    unet = UNet(model_of(config).unet, dtype_of(config), config.remat)
    low, high = guidance(config, class_id_B)
    scale = low + (high - low) * jax.random.uniform(key, low.shape)

    def apply(z: jax.Array, cond: jax.Array, t_B: jax.Array) -> jax.Array:
        return unet.apply({"params": frozen["teacher"]}, z, cond, t_B)

    return lambda z, t_B: guided_v(apply, z, z_lr, t_B, scale)


def clean_latents(predict_v: PredictV, start: Start) -> jax.Array:
    """The student's prediction, with a consistency model's boundary condition."""
    skip, out = consistency_scalings(start.t_B)
    return skip * start.z + out * z0_from_v(start.z, start.t_B, predict_v(start.z, start.t_B))


def solved(teacher: PredictV, start: Start) -> jax.Array:
    """The teacher's clean latents from the same start."""
    return lax.stop_gradient(solve(teacher, start.z, start.grid, start.first))


def matched(config: ConfigDict, z_hat: jax.Array, teacher: PredictV, fake_score: PredictV, key: jax.Array) -> jax.Array:
    """Distribution matching (B,): what the teacher and the fake score see in the same noised prediction."""
    key_t, key_eps = jax.random.split(key)
    t_B = jax.random.randint(key_t, z_hat.shape[:1], *config.dmd_timesteps)
    z_t = lax.stop_gradient(q_sample(z_hat, t_B, jax.random.normal(key_eps, z_hat.shape)))
    z_real, z_fake = (z0_from_v(z_t, t_B, predict_v(z_t, t_B)) for predict_v in (teacher, fake_score))
    return losses.distribution_matching(z_hat, z_real, z_fake)


def head_logits(
    config: ConfigDict, frozen: dict[str, Any], windows: Latents, key: jax.Array
) -> Callable[[dict, jax.Array], list[jax.Array]]:
    """`logits(head, z)` of the head on the frozen teacher's features, at one noise level and noise for real and
    generated latents alike."""
    unet = UNet(model_of(config).unet, dtype_of(config), config.remat)
    head = LatentHead(config.head.channels, dtype_of(config))
    key_t, key_eps = jax.random.split(key)
    level_B = jax.random.choice(key_t, jnp.asarray(config.adversarial_timesteps), windows.hr.shape[:1])
    eps = jax.random.normal(key_eps, windows.hr.shape)

    def logits(head_params: dict, z: jax.Array) -> list[jax.Array]:
        inputs = q_sample(z, level_B, eps), windows.lr, level_B
        features = unet.apply({"params": frozen["teacher"]}, *inputs, method=UNet.features)
        return head.apply({"params": head_params}, features)

    return logits


def head_loss(
    config: ConfigDict,
    logits: Callable[[dict, jax.Array], list[jax.Array]],
    windows: Latents,
    z_hat: jax.Array,
    params: dict,
) -> tuple[jax.Array, dict, None]:
    """The head's loss on the recordings' latents and the student's."""
    real, fake = logits(params, windows.hr), logits(params, z_hat)
    loss_B = losses.adversarial_discriminator(real, fake, config.adversarial_kind)
    return losses.weighted_mean(loss_B, windows.weight), {}, None


def hearing(
    config: ConfigDict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> Callable[[jax.Array], Heard]:
    """`heard(z)`: frozen decoder and vocoder on a random crop of each example, the same at each call."""
    key_stretch, key_crop = jax.random.split(key)
    stretch = random_stretch(config, prepare(batch)[0], key_stretch)
    band = Band(batch["cutoff_hz"], batch["bandwidth_hz"])
    return lambda z: hear(config, frozen, frozen["scale_factor"], z, stretch, band, key_crop)[1]


def update_fake_score(
    config: ConfigDict, state: TrainState, made: Made, key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`fake_score_updates` updates of the fake score, a diffusion model of the student's latents; metrics are means."""

    def update(state: TrainState, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        return descend(config, state, functools.partial(fake_score_gradients, config, state), made, key)[:2]

    state, each = lax.scan(update, state, jax.random.split(key, config.fake_score_updates))
    return state, jax.tree.map(jnp.mean, each)


def fake_score_gradients(config: ConfigDict, state: TrainState, made: Made, key: jax.Array) -> Gradients:
    """Of the fake score, for what the student has made or a part of it."""
    key_t, key_eps = jax.random.split(key)
    t_B = jax.random.randint(key_t, made.z_hat.shape[:1], 0, STEPS)
    eps = jax.random.normal(key_eps, made.z_hat.shape)

    def loss(params: dict) -> tuple[jax.Array, dict, None]:
        v = _unet(config, params, made.z_lr)(q_sample(made.z_hat, t_B, eps), t_B)
        return losses.weighted_mean(losses.l2(v, velocity(made.z_hat, t_B, eps)), made.weight), {}, None

    of_fake_score, terms, _ = gradient(state, "fake_score", loss, "fake_score")
    return Gradients({"fake_score": of_fake_score}, terms, jnp.sum(made.weight))


def _unet(config: ConfigDict, params: dict, z_lr: jax.Array) -> PredictV:
    """The velocity of a U-Net that is conditioned on the low resolution."""
    unet = UNet(model_of(config).unet, dtype_of(config), config.remat)
    return lambda z, t_B: unet.apply({"params": params}, z, z_lr, t_B)


def _uses(config: ConfigDict, *names: str) -> bool:
    return any(weight > 0 for name in names for weight in config.losses[name])


def _separate_fake_score(config: ConfigDict) -> bool:
    return config.fake_score == "separate" and _uses(config, "dmd")
