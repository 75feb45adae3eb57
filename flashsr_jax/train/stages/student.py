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

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flashsr_jax.models.diffusion import (
    STEPS,
    consistency_scalings,
    guided_v,
    q_sample,
    solve,
    solver_grid,
    velocity,
    z0_from_v,
)
from flashsr_jax.models.discriminators import LatentHead
from flashsr_jax.models.pipeline import decode, latent_shape
from flashsr_jax.models.unet import UNet
from flashsr_jax.train import losses
from flashsr_jax.train.batch import band_weights, prepare
from flashsr_jax.train.evaluation import mel_outputs
from flashsr_jax.train.frozen import dtype_of, encode_pair, load, load_initial, load_vocoder, model_of
from flashsr_jax.train.latents import latents
from flashsr_jax.train.optimisers import by_phase
from flashsr_jax.train.state import TrainState, apply_gradients, create, finish_step


def load_frozen(config) -> dict:
    """The VAE, the teacher, and where the config names them the first U-Net and the vocoder that renders evaluation
    audio."""
    needed = load(config, "vae_from", "vae") | load(config, "teacher_from", "unet")
    return needed | load_initial(config, "unet") | load_vocoder(config)


def init(config, frozen: dict, key: jax.Array) -> TrainState:
    """Student: the U-Net of config.init_from, else the teacher. Separate fake score: the teacher. The head is fresh."""
    model = model_of(config)
    params = {"student": frozen.get("init", frozen["teacher"])}
    if _uses(config, "adversarial"):
        z = jnp.zeros((1, *latent_shape(model, config.data.window_frames * model.vocoder.hop)))
        unet = UNet(model.unet)
        features = unet.apply({"params": frozen["teacher"]}, z, z, jnp.zeros(1, jnp.int32), method=UNet.features)
        params["head"] = LatentHead(config.head.channels).init(key, features)["params"]
    if _separate_fake_score(config):
        params["fake_score"] = frozen["teacher"]
    return create(config, jax.tree.map(jnp.copy, params), "student")


def train_step(config, state: TrainState, frozen: dict, batch: dict, key: jax.Array):
    """One update of the student, one of the head and, if separate, `fake_score_updates` of the fake score."""
    key_encode, key_start, key_noise, key_scale, key_adv, key_dmd, key_fake = jax.random.split(key, 7)
    model, dtype = model_of(config), dtype_of(config)
    scale = frozen["scale_factor"]
    unet, head = UNet(model.unet, dtype, config.remat), LatentHead(config.head.channels, dtype)
    windows, metrics = latents(config, frozen, batch, key_encode)
    z0, z_lr = windows.hr, windows.lr
    weight = {
        name: by_phase(config.losses[name], config.phases, state.step)
        for name in ("distill", "adversarial", "dmd", "mel")
    }
    mel_weight, latent_weight = band_weights(config, batch, z0.shape[2])

    def predict(params, z, t_B):  # f(z_t, t, z_lr) of the spec: the clean latents that a v-model sees
        return z0_from_v(z, t_B, unet.apply({"params": params}, z, z_lr, t_B))

    guidance = jax.random.uniform(
        key_scale, (z0.shape[0], 1, 1, 1), minval=config.guidance[0], maxval=config.guidance[1]
    )

    def teacher_v(z, t_B):
        def apply(z, cond, t_B):
            return unet.apply({"params": frozen["teacher"]}, z, cond, t_B)

        return guided_v(apply, z, z_lr, t_B, guidance)

    def mean_of(loss_B):
        return losses.weighted_mean(loss_B, windows.weight)

    # One start for the whole batch, traced: the teacher's solve runs over the steps that remain, in one program.
    grid = solver_grid(config.teacher_steps)
    start = sample_start(config, key_start, state.step)
    t_start_B = jnp.full(z0.shape[:1], jnp.asarray(grid.timesteps)[start])
    noise = jax.random.normal(key_noise, z0.shape)
    z_start = jnp.where(start == 0, noise, q_sample(z0, t_start_B, noise))

    level_B, level_noise = _draw_level(config, key_adv, z0)

    def logits(head_params, z):
        noised = q_sample(z, level_B, level_noise)
        features = unet.apply({"params": frozen["teacher"]}, noised, z_lr, level_B, method=UNet.features)
        return head.apply({"params": head_params}, features)

    def student_loss(params):
        skip, out = consistency_scalings(t_start_B)
        z_hat = skip * z_start + out * predict(params, z_start, t_start_B)
        terms = {}
        if _uses(config, "distill"):
            target = lax.stop_gradient(solve(teacher_v, z_start, grid, start))
            terms["distill"] = mean_of(losses.l2(z_hat, target, latent_weight))
        if _uses(config, "adversarial"):
            fake = logits(state.params["head"], z_hat)
            terms["adversarial"] = mean_of(losses.adversarial_generator(fake, config.adversarial_kind))
        if _uses(config, "dmd"):
            key_t, key_eps = jax.random.split(key_dmd)
            t_B = jax.random.randint(key_t, z0.shape[:1], *config.dmd_timesteps)
            z_t = lax.stop_gradient(q_sample(z_hat, t_B, jax.random.normal(key_eps, z0.shape)))
            fake_params = state.params["fake_score" if _separate_fake_score(config) else "student"]
            z_real, z_fake = z0_from_v(z_t, t_B, teacher_v(z_t, t_B)), predict(fake_params, z_t, t_B)
            terms["dmd"] = mean_of(losses.distribution_matching(z_hat, z_real, z_fake))
        if _uses(config, "mel"):
            decoded = decode(frozen["vae"], model, z_hat, scale, dtype, config.remat)
            terms["mel"] = mean_of(losses.l1(decoded, windows.mel, mel_weight))
        return sum(weight[name] * term for name, term in terms.items()), (terms, lax.stop_gradient(z_hat))

    (total, (terms, z_hat)), gradients = jax.value_and_grad(student_loss, has_aux=True)(state.params["student"])
    after, norm = apply_gradients(config, state, "student", gradients)
    metrics |= {"loss": total, **terms, **norm, "solver_steps": config.teacher_steps - start}

    if _uses(config, "adversarial"):

        def head_loss(params):
            kind = config.adversarial_kind
            return mean_of(losses.adversarial_discriminator(logits(params, z0), logits(params, z_hat), kind))

        loss, gradients = jax.value_and_grad(head_loss)(state.params["head"])
        after, norm = apply_gradients(config, after, "head", gradients)
        metrics |= {"head": loss, **norm}

    if _separate_fake_score(config):

        def update_fake_score(after, key):
            key_t, key_eps = jax.random.split(key)
            t_B = jax.random.randint(key_t, z0.shape[:1], 0, STEPS)
            eps = jax.random.normal(key_eps, z0.shape)

            def fake_loss(params):
                v = unet.apply({"params": params}, q_sample(z_hat, t_B, eps), z_lr, t_B)
                return mean_of(losses.l2(v, velocity(z_hat, t_B, eps)))

            loss, gradients = jax.value_and_grad(fake_loss)(after.params["fake_score"])
            after, norm = apply_gradients(config, after, "fake_score", gradients)
            return after, {"fake_score": loss, **norm}

        after, each = lax.scan(update_fake_score, after, jax.random.split(key_fake, config.fake_score_updates))
        metrics |= jax.tree.map(jnp.mean, each)

    return finish_step(config, after, "student"), metrics


def eval_step(config, weights: dict, frozen: dict, batch: dict, key: jax.Array) -> dict:
    """Super-resolution of clips the way it is used: one evaluation at t = 999."""
    key_encode, key_noise = jax.random.split(key)
    model, dtype = model_of(config), dtype_of(config)
    windows, _ = prepare(batch)
    z0, z_lr = encode_pair(config, frozen, windows, key_encode)
    noise, t_B = jax.random.normal(key_noise, z0.shape), jnp.full(z0.shape[:1], STEPS - 1)
    v = UNet(model.unet, dtype).apply({"params": weights["student"]}, noise, z_lr, t_B)
    z_hat = z0_from_v(noise, t_B, v)
    decoded = decode(frozen["vae"], model, z_hat, frozen["scale_factor"], dtype)
    outputs = mel_outputs(config, frozen, windows, decoded, batch["cutoff_hz"])
    outputs["metrics"]["latent_l1"] = losses.l1(z_hat, z0)
    return outputs


def start_probabilities(steps: int, mode_weights) -> np.ndarray:
    """Probability (phases, K) of each start step: modes at every (K / modes)-th step, of width exp(-d^2 / 0.5).

    `mode_weights` is (phases, modes), noisiest mode first. Each mode is normalised over the K steps by itself, so that
    the first, which the grid's edge cuts in half, keeps its weight. Flash Diffusion, section 3.2.
    """
    mode_weights = np.asarray(mode_weights, np.float64)
    modes = np.arange(mode_weights.shape[1]) * steps / mode_weights.shape[1]
    bumps = np.exp(-np.square(np.arange(steps) - modes[:, None]) / 0.5)
    return mode_weights @ (bumps / bumps.sum(axis=1, keepdims=True))


def mean_solver_steps(config) -> np.ndarray:
    """Steps that the teacher's solve takes on average in each phase, (phases,)."""
    probabilities = start_probabilities(config.teacher_steps, config.start_modes)
    return config.teacher_steps - probabilities @ np.arange(config.teacher_steps)


def sample_start(config, key: jax.Array, step: jax.Array) -> jax.Array:
    """Index into the teacher's grid where this batch starts, drawn from the current phase's mixture."""
    probabilities = start_probabilities(config.teacher_steps, config.start_modes)
    return jax.random.choice(key, config.teacher_steps, p=by_phase(probabilities, config.phases, step))


def _draw_level(config, key: jax.Array, z0: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Noise level (B,) and noise at which real and generated latents alike meet the discriminator."""
    key_t, key_eps = jax.random.split(key)
    level_B = jax.random.choice(key_t, jnp.asarray(config.adversarial_timesteps), z0.shape[:1])
    return level_B, jax.random.normal(key_eps, z0.shape)


def _uses(config, name: str) -> bool:
    return any(weight > 0 for weight in config.losses[name])


def _separate_fake_score(config) -> bool:
    return config.fake_score == "separate" and _uses(config, "dmd")
