"""Stage `student`: one-step super-resolution, distilled from the teacher.

L = distill + adversarial + dmd + mel, each times its weight of the current phase:
- distill: the student's clean latents against the teacher's solution from the same noisy ones;
- mel: L1 of the log-mel decoded from the student's clean latents against the recording's own;
- adversarial: a trainable head on the frozen teacher's features says real or fake, at a random noise level;
- dmd: distribution matching, the difference of the teacher's and the fake score's clean latents as gradient.
Flash Diffusion (Chadebec et al. 2025, arXiv:2406.02347), as FlashSR (Im & Nam 2025, arXiv:2501.10807) uses it; the
separate fake score is DMD2's (Yin et al. 2024, arXiv:2405.14867).
Letters: B batch, K steps of the teacher's grid; latents are (B, T, F, C).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from ml_collections import ConfigDict

from flashsr_jax.models.diffusion import (
    STEPS,
    SolverGrid,
    consistency_scalings,
    guided_v,
    q_sample,
    solve,
    solver_grid,
    velocity,
    z0_from_v,
)
from flashsr_jax.models.discriminators import LatentHead
from flashsr_jax.models.networks import example_inputs
from flashsr_jax.models.unet import UNet
from flashsr_jax.train import losses
from flashsr_jax.train.batch import band_weights
from flashsr_jax.train.evaluation import unet_outputs
from flashsr_jax.train.frozen import dtype_of, model_of, named
from flashsr_jax.train.latents import Latents, decoded_mel_l1, latents
from flashsr_jax.train.optimisers import by_phase
from flashsr_jax.train.state import TrainState, create, descend, finish_step

TERMS = ("distill", "adversarial", "dmd", "mel")
PredictV = Callable[[jax.Array, jax.Array], jax.Array]  # (z_t, t_B) -> v, of one condition


def needs(config: ConfigDict) -> dict[str, str]:
    """The VAE, the teacher, and where the config names them the first U-Net and the vocoder that renders evaluation
    audio."""
    return {"vae": "vae", "teacher": "unet"} | named(config, init="unet", vocoder="vocoder")


def init(config: ConfigDict, frozen: dict[str, Any], key: jax.Array) -> TrainState:
    """Student: the U-Net of config.init_from, else the teacher. Separate fake score: the teacher. The head is fresh."""
    params = {"student": frozen.get("init", frozen["teacher"])}
    if _uses(config, "adversarial"):
        model = model_of(config)
        inputs = example_inputs(model, "unet")
        features = UNet(model.unet).apply({"params": frozen["teacher"]}, *inputs, method=UNet.features)
        params["head"] = LatentHead(config.head.channels).init(key, features)["params"]
    if _separate_fake_score(config):
        params["fake_score"] = frozen["teacher"]
    return create(config, jax.tree.map(jnp.copy, params), "student")


def train_step(
    config: ConfigDict, state: TrainState, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the student, one of the head and, if separate, `fake_score_updates` of the fake score."""
    key_encode, key_start, key_noise, key_scale, key_level, key_dmd, key_fake = jax.random.split(key, 7)
    windows, metrics = latents(config, frozen, batch, key_encode)
    weights = {name: by_phase(config.losses[name], config.phases, state.step) for name in TERMS}
    mel_weight, latent_weight = band_weights(config, batch, windows.hr.shape[2])
    teacher = guided_teacher(config, frozen, windows.lr, key_scale)
    start = draw_start(config, state.step, windows.hr, key_start, key_noise)
    logits = discriminator(config, frozen, windows, key_level)

    def student_loss(params: dict) -> tuple[jax.Array, dict, jax.Array]:
        z_hat = clean_latents(_unet(config, params, windows.lr), start)
        of_example = {}
        if _uses(config, "distill"):
            of_example["distill"] = distillation(z_hat, teacher, start, latent_weight)
        if _uses(config, "adversarial"):
            fake = logits(state.params["head"], z_hat)
            of_example["adversarial"] = losses.adversarial_generator(fake, config.adversarial_kind)
        if _uses(config, "dmd"):
            fake_score = state.params["fake_score" if _separate_fake_score(config) else "student"]
            of_example["dmd"] = matched(config, z_hat, teacher, _unet(config, fake_score, windows.lr), key_dmd)
        if _uses(config, "mel"):
            of_example["mel"] = decoded_mel_l1(config, frozen, z_hat, windows.mel, mel_weight)
        total, terms = losses.weighted_sum(of_example, weights, windows.weight)
        return total, terms, lax.stop_gradient(z_hat)

    after, terms, z_hat = descend(config, state, "student", student_loss, "loss")
    metrics |= terms | {"solver_steps": config.teacher_steps - start.index}
    if _uses(config, "adversarial"):
        after, terms = update_head(config, after, logits, windows, z_hat)
        metrics |= terms
    if _separate_fake_score(config):
        after, terms = update_fake_score(config, after, windows, z_hat, key_fake)
        metrics |= terms
    return finish_step(config, after, "student"), metrics


def eval_step(
    config: ConfigDict, weights: dict, frozen: dict[str, Any], batch: dict[str, Any], key: jax.Array
) -> dict[str, Any]:
    """Super-resolution of clips the way it is used: one evaluation at t = 999."""
    return unet_outputs(config, weights["student"], frozen, batch, key)[0]


class Start(NamedTuple):
    """Where the student and the teacher's solve begin: an index into the teacher's grid, one for the whole batch and
    traced, so that one program serves them all; its timestep for each example, and the noisy latents there."""

    grid: SolverGrid
    index: jax.Array
    t_B: jax.Array
    z: jax.Array


def draw_start(config: ConfigDict, step: jax.Array, z0: jax.Array, key_start: jax.Array, key_noise: jax.Array) -> Start:
    """A start of the current phase's mixture; at its first step pure noise, else noised latents."""
    grid = solver_grid(config.teacher_steps)
    index = sample_start(config, key_start, step)
    t_B = jnp.full(z0.shape[:1], jnp.asarray(grid.timesteps)[index])
    noise = jax.random.normal(key_noise, z0.shape)
    return Start(grid, index, t_B, jnp.where(index == 0, noise, q_sample(z0, t_B, noise)))


def guided_teacher(config: ConfigDict, frozen: dict[str, Any], z_lr: jax.Array, key: jax.Array) -> PredictV:
    """The teacher's guided velocity, at a scale that is drawn for each example."""
    unet = UNet(model_of(config).unet, dtype_of(config), config.remat)
    low, high = config.guidance
    scale = jax.random.uniform(key, (z_lr.shape[0], 1, 1, 1), minval=low, maxval=high)

    def apply(z: jax.Array, cond: jax.Array, t_B: jax.Array) -> jax.Array:
        return unet.apply({"params": frozen["teacher"]}, z, cond, t_B)

    return lambda z, t_B: guided_v(apply, z, z_lr, t_B, scale)


def clean_latents(predict_v: PredictV, start: Start) -> jax.Array:
    """The student's prediction, with a consistency model's boundary condition."""
    skip, out = consistency_scalings(start.t_B)
    return skip * start.z + out * z0_from_v(start.z, start.t_B, predict_v(start.z, start.t_B))


def distillation(z_hat: jax.Array, teacher: PredictV, start: Start, weight: jax.Array) -> jax.Array:
    """Mean square (B,) of the difference from the teacher's solution from the same start."""
    return losses.l2(z_hat, lax.stop_gradient(solve(teacher, start.z, start.grid, start.index)), weight)


def matched(config: ConfigDict, z_hat: jax.Array, teacher: PredictV, fake_score: PredictV, key: jax.Array) -> jax.Array:
    """Distribution matching (B,): what the teacher and the fake score see in the same noised prediction."""
    key_t, key_eps = jax.random.split(key)
    t_B = jax.random.randint(key_t, z_hat.shape[:1], *config.dmd_timesteps)
    z_t = lax.stop_gradient(q_sample(z_hat, t_B, jax.random.normal(key_eps, z_hat.shape)))
    z_real, z_fake = (z0_from_v(z_t, t_B, predict_v(z_t, t_B)) for predict_v in (teacher, fake_score))
    return losses.distribution_matching(z_hat, z_real, z_fake)


def discriminator(
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


def update_head(
    config: ConfigDict,
    state: TrainState,
    logits: Callable[[dict, jax.Array], list[jax.Array]],
    windows: Latents,
    z_hat: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of the head on the recordings' latents and the student's."""

    def loss(params: dict) -> tuple[jax.Array, dict, None]:
        real, fake = logits(params, windows.hr), logits(params, z_hat)
        loss_B = losses.adversarial_discriminator(real, fake, config.adversarial_kind)
        return losses.weighted_mean(loss_B, windows.weight), {}, None

    return descend(config, state, "head", loss, "head")[:2]


def update_fake_score(
    config: ConfigDict, state: TrainState, windows: Latents, z_hat: jax.Array, key: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`fake_score_updates` updates of the fake score, a diffusion model of the student's latents; metrics are means."""

    def update(state: TrainState, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        key_t, key_eps = jax.random.split(key)
        t_B = jax.random.randint(key_t, z_hat.shape[:1], 0, STEPS)
        eps = jax.random.normal(key_eps, z_hat.shape)

        def loss(params: dict) -> tuple[jax.Array, dict, None]:
            v = _unet(config, params, windows.lr)(q_sample(z_hat, t_B, eps), t_B)
            return losses.weighted_mean(losses.l2(v, velocity(z_hat, t_B, eps)), windows.weight), {}, None

        return descend(config, state, "fake_score", loss, "fake_score")[:2]

    state, each = lax.scan(update, state, jax.random.split(key, config.fake_score_updates))
    return state, jax.tree.map(jnp.mean, each)


def start_probabilities(steps: int, mode_weights: Sequence[Sequence[float]]) -> np.ndarray:
    """Probability (phases, K) of each start step: modes at every (K / modes)-th step, of width exp(-d^2 / 0.5).

    `mode_weights` is (phases, modes), noisiest mode first. Each mode is normalised over the K steps by itself, so that
    the first, which the grid's edge cuts in half, keeps its weight. Flash Diffusion, section 3.2.
    """
    weights = np.asarray(mode_weights, np.float64)
    modes = np.arange(weights.shape[1]) * steps / weights.shape[1]
    bumps = np.exp(-np.square(np.arange(steps) - modes[:, None]) / 0.5)
    return weights @ (bumps / bumps.sum(axis=1, keepdims=True))


def mean_solver_steps(config: ConfigDict) -> np.ndarray:
    """Steps that the teacher's solve takes on average in each phase, (phases,)."""
    probabilities = start_probabilities(config.teacher_steps, config.start_modes)
    return config.teacher_steps - probabilities @ np.arange(config.teacher_steps)


def sample_start(config: ConfigDict, key: jax.Array, step: jax.Array) -> jax.Array:
    """Index into the teacher's grid where this batch starts, drawn from the current phase's mixture."""
    probabilities = start_probabilities(config.teacher_steps, config.start_modes)
    return jax.random.choice(key, config.teacher_steps, p=by_phase(probabilities, config.phases, step))


def _unet(config: ConfigDict, params: dict, z_lr: jax.Array) -> PredictV:
    """The velocity of a U-Net that is conditioned on the low resolution."""
    unet = UNet(model_of(config).unet, dtype_of(config), config.remat)
    return lambda z, t_B: unet.apply({"params": params}, z, z_lr, t_B)


def _uses(config: ConfigDict, name: str) -> bool:
    return any(weight > 0 for weight in config.losses[name])


def _separate_fake_score(config: ConfigDict) -> bool:
    return config.fake_score == "separate" and _uses(config, "dmd")
