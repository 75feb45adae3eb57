"""Pieces of the training step, each against its definition: normalisation of batches, phases, EMA, starts, crops."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flashsr_jax.audio.front_end import Normalisation, denormalise
from flashsr_jax.errors import UserError
from flashsr_jax.models.diffusion import schedule, velocity
from flashsr_jax.train import losses, perceptual, starts
from flashsr_jax.train.batch import Windows, band_weights, prepare, random_crops
from flashsr_jax.train.loop import make_programs
from flashsr_jax.train.optimisers import by_phase, learning_rate, make_optimizer, spent_rates, update_ema
from flashsr_jax.train.stages import regression, student, teacher

from helpers import micro
from helpers.configs import get_config
from helpers.steps import mesh_of
from helpers.toy import toy_config, toy_stage

RNG = np.random.default_rng(0)


def test_windows_beyond_the_tanh_are_rescaled_and_silent_ones_rejected():
    lr = (0.1 * RNG.standard_normal((3, 4800))).astype(np.float32)
    hr = lr.copy()
    hr[1, 100] = 50.0  # a click that the low-pass took away: far beyond the low resolution's peak
    lr[2], hr[2] = 1e-6, 0.3
    windows, counts = jax.jit(prepare)({"hr": hr, "lr": lr})
    assert counts == {"data/rescaled": 1, "data/rejected": 1}
    np.testing.assert_array_equal(windows.weight, [1, 1, 0])
    peaks = np.abs(np.asarray(windows.hr)).max(axis=1)
    assert peaks[0] == pytest.approx(0.5, rel=1e-5) and peaks[1] == pytest.approx(0.99, rel=1e-5) and peaks[2] == 0
    # Both waveforms alike: the way back is exact, and the low resolution keeps its ratio to the high one.
    back = jax.jit(denormalise)
    np.testing.assert_allclose(back(windows.hr, windows.stats)[:2], hr[:2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(back(windows.lr, windows.stats)[:2], lr[:2], rtol=1e-3, atol=2e-5)


def test_weights_of_latent_positions_are_those_of_their_bins():
    config = micro.get_config("regression")  # 32 mel bins, a VAE of stride 2
    config.losses.high_band = 3.0
    batch = {"cutoff_hz": np.array([4000.0, 8000.0]), "bandwidth_hz": np.array([24_000.0, 12_000.0])}
    mel, latent = jax.jit(lambda batch: band_weights(config, batch, 16))(batch)
    assert mel.shape == (2, 1, 32) and latent.shape == (2, 1, 16, 1)
    np.testing.assert_allclose(latent[:, 0, :, 0], np.asarray(mel)[:, 0].reshape(2, 16, 2).mean(axis=-1))
    assert latent[0, 0, 0, 0] == 1 and latent[0, 0, -1, 0] == 3 and latent[1, 0, -1, 0] == 0


def at(schedule, steps):
    """A schedule's values at some steps, in one program."""
    return np.asarray(jax.jit(jax.vmap(schedule))(np.asarray(steps)))


def test_phases():
    values, boundaries = (0.0, 0.1, 0.2, 0.3), (10, 20, 30)
    steps = [0, 9, 10, 19, 20, 29, 30, 1000]
    actual = at(lambda step: by_phase(values, boundaries, step), steps)
    np.testing.assert_allclose(actual, [0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3], rtol=1e-6)
    with pytest.raises(UserError, match="one boundary less"):
        by_phase(values, (10, 20), np.int32(0))


def test_learning_rate_warms_up_then_decays():
    config = micro.get_config("vae").optimizer.vae
    config.update(lr=1.0, warmup_steps=4, decay=0.5, decay_steps=10)
    assert at(learning_rate(config, 100), (0, 3, 4, 14)) == pytest.approx([0.25, 1.0, 1.0, 0.5])


def test_a_rate_that_is_spent_long_before_the_run_ends_is_told():
    """A teacher of 60 000 steps at the preset of 3600 would learn nothing after the first sixth."""
    config = get_config("teacher", "small")
    assert not list(spent_rates(config.optimizer, config.steps))
    (line,) = spent_rates(config.optimizer, 60_000)
    spent = int(line.split("from step ")[1].split()[0])
    rate = learning_rate(config.optimizer.teacher, 60_000)
    assert rate(spent - 10) > 0.01 * config.optimizer.teacher.lr >= rate(spent + 1)
    assert "config.optimizer.teacher" in line and "schedule=cosine" in line
    config.optimizer.teacher.schedule = "cosine"
    assert not list(spent_rates(config.optimizer, 60_000))


@pytest.mark.parametrize("stage", ["vae", "vocoder", "vocoder_tuned", "regression", "teacher", "student", "tune"])
@pytest.mark.parametrize("preset", ["tiny", "small", "base"])
def test_no_preset_spends_its_rate_before_its_end(stage, preset):
    config = get_config(stage, preset)
    assert not list(spent_rates(config.optimizer, config.steps))


def test_a_cosine_and_a_warmup_stable_decay_end_with_the_run():
    config = micro.get_config("vae").optimizer.vae
    config.update(lr=2.0, schedule="cosine", warmup_steps=4, final=0.1, decay=0.5)
    expected = optax.cosine_decay_schedule(2.0, 100 - 4, alpha=0.1)
    steps = np.array([4, 28, 52, 99, 100, 200])
    rate = at(learning_rate(config, 100), [1, *steps])
    np.testing.assert_allclose(rate, [1.0, *at(expected, steps - 4)], rtol=1e-6)
    config.update(schedule="wsd", cooldown=0.25)
    rate = at(learning_rate(config, 100), [1, 4, 50, 75, 87.5, 100, 200])
    np.testing.assert_allclose(rate, [1.0, 2.0, 2.0, 2.0, 1.1, 0.2, 0.2], rtol=1e-6)
    config.updates = 40  # of a role that the run updates less often
    np.testing.assert_allclose(at(learning_rate(config, 100), [35]), 1.1, rtol=1e-6)
    config.schedule = "stairs"
    with pytest.raises(UserError, match="schedule='stairs' is not one of exponential, cosine, wsd"):
        learning_rate(config, 100)


def first_update(optimizer, gradients, params):
    return jax.jit(lambda gradients, params: optimizer.update(gradients, optimizer.init(params), params))(
        gradients, params
    )


def test_gradients_are_clipped_by_their_global_norm():
    config = micro.get_config("vae").optimizer.vae
    config.update(lr=1.0, warmup_steps=0, clip_norm=1.0, weight_decay=0.0, betas=(0.0, 0.0))
    optimizer = make_optimizer(config, 10)
    params = {"a": np.zeros(2, np.float32)}
    _, state = first_update(optimizer, {"a": np.float32([30.0, 40.0])}, params)
    np.testing.assert_allclose(state[1][0].mu["a"], [0.6, 0.8], rtol=1e-6)


def test_muon_moves_every_direction_of_a_kernel_alike():
    """The update's singular values are equal up to the five Newton-Schulz steps (0.7 to 1.2), its size is AdamW's."""
    config = micro.get_config("vae").optimizer.vae
    config.update(kind="muon", lr=0.1, warmup_steps=0, weight_decay=0.0)
    optimizer = make_optimizer(config, 10)
    params = {"conv": {"kernel": np.zeros((3, 3, 4, 8)), "bias": np.zeros(8)}, "norm": {"scale": np.ones(8)}}
    steep = np.logspace(0, -2, 8)  # gradients of very different size by output channel
    kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 8)) * steep
    gradients = {"conv": {"kernel": kernel, "bias": np.array([1.0, -2.0] * 4)}, "norm": {"scale": np.full(8, 1e-3)}}
    gradients, params = (jax.tree.map(np.float32, tree) for tree in (gradients, params))
    updates, _ = first_update(optimizer, gradients, params)
    matrix = np.asarray(updates["conv"]["kernel"]).reshape(36, 8)
    singular = np.linalg.svd(matrix, compute_uv=False)
    expected = 0.1 * 0.2 * np.sqrt(36)
    assert 0.6 * expected < singular.min() and singular.max() < 1.3 * expected
    assert np.sum(matrix * np.asarray(gradients["conv"]["kernel"]).reshape(36, 8)) < 0
    # Adam's first step, here with Nesterov's momentum, has one size whatever the gradient's.
    first = 0.1 * (0.9 / (1 - 0.9**2) * 0.1 + 1)
    np.testing.assert_allclose(updates["conv"]["bias"], [-first, first] * 4, rtol=1e-3)
    np.testing.assert_allclose(updates["norm"]["scale"], -first, rtol=1e-3)


def test_an_unknown_optimizer_is_named():
    config = micro.get_config("vae").optimizer.vae
    config.update(kind="sgd")
    with pytest.raises(UserError, match="kind='sgd'.*adamw, muon"):
        make_optimizer(config, 10)


def test_ema_starts_fast():
    np.testing.assert_allclose(at(lambda step: update_ema(0.0, 1.0, step, 0.999), [0, 10**6]), [0.9, 0.001], rtol=1e-4)


def test_start_probabilities():
    """K = 32: modes at 0, 8, 16, 24 of width exp(-d^2 / 0.5), weighted by phase."""
    weights = [[0.0, 0.0, 0.5, 0.5], [0.4, 0.2, 0.2, 0.2]]
    probabilities = starts.start_probabilities(32, weights)
    assert probabilities.shape == (2, 32)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities[0, :12].max() < 1e-6
    inner = 1 + 2 * np.exp(-2) + 2 * np.exp(-8) + 2 * np.exp(-18)
    assert probabilities[0, 16] == pytest.approx(0.5 / inner, rel=1e-6)
    assert probabilities[1, 1] / probabilities[1, 0] == pytest.approx(np.exp(-2))
    assert probabilities[1, :4].sum() == pytest.approx(0.4, abs=1e-6)


def test_starts_are_drawn_from_the_phase_of_the_step():
    config = micro.get_config("student")
    config.teacher_steps, config.phases = 32, (100, 200, 300)
    config.start_modes = ((0.0, 0.0, 0.5, 0.5),) * 3 + ((1.0, 0.0, 0.0, 0.0),)
    keys = jax.random.split(jax.random.key(0), 500)
    draw = jax.jit(jax.vmap(lambda key, step: starts.draw_first(config, key, step), in_axes=(0, None)))
    early, late = np.asarray(draw(keys, 0)), np.asarray(draw(keys, 300))
    assert early.min() >= 13 and abs((early >= 20).mean() - 0.5) < 0.08
    assert late.max() <= 3 and abs((late == 0).mean() - 1 / (1 + np.exp(-2) + np.exp(-8))) < 0.06


def test_timesteps_are_drawn_by_a_power():
    """A density that rises as t^(power - 1): a share of (T / 1000)^power lies under T."""
    draw = jax.jit(lambda key, power: teacher.draw_timesteps(key, (20_000,), power))
    for power in (1.0, 3.0):
        t = np.asarray(draw(jax.random.key(0), power))
        assert t.dtype == np.int32 and t.min() >= 0 and t.max() == 999
        for under in (250, 500, 750):
            assert (t < under).mean() == pytest.approx((under / 1000) ** power, abs=0.015)


def test_the_teachers_loss_is_weighted_as_its_configuration_says(monkeypatch):
    """Of a network that predicts nothing, the loss is the velocity's own square."""
    silent = SimpleNamespace(apply=lambda variables, z, cond, t_B: variables["params"]["gain"] * z)
    monkeypatch.setattr(teacher, "UNet", lambda *_: silent)
    config = micro.get_config("teacher")
    config.update(timestep_power=2.0, losses={"weighting": "x0", "loudness": 0.4, "high_band": 2.0})
    z_hr, z_lr = (RNG.standard_normal((4, 16, 16, 2)).astype(np.float32) for _ in range(2))
    batch = {"z_hr": z_hr, "z_lr": z_lr, "mel": RNG.standard_normal((4, 32, 32)), "weight": np.array([1.0, 1, 0, 1])}
    batch |= {"cutoff_hz": np.full(4, 4000.0), "bandwidth_hz": np.full(4, 24_000.0)}
    state = SimpleNamespace(params={"teacher": {"gain": np.zeros(())}})
    key = jax.random.key(5)
    found = jax.jit(lambda batch, key: teacher.gradients(config, state, {}, batch, key))(batch, key)

    @jax.jit
    def drawn(batch, key):
        _, key_t, key_eps, _ = jax.random.split(key, 4)
        t_B = teacher.draw_timesteps(key_t, (4,), 2.0)
        v = velocity(batch["z_hr"], t_B, jax.random.normal(key_eps, z_hr.shape))
        return t_B, v, band_weights(config, batch, 16)[1] * losses.loudness_weights(batch["mel"], (16, 16), 0.4)

    t_B, v, position = (np.asarray(x) for x in drawn(batch, key))
    weight = np.broadcast_to(position, v.shape)
    of_example = (weight * v**2).sum((1, 2, 3)) / weight.sum((1, 2, 3)) * (1 - np.asarray(schedule().alpha_bar)[t_B])
    assert found.metrics["loss"] == pytest.approx(np.mean(of_example[[0, 1, 3]]), rel=1e-4) and found.examples == 3


def test_the_regressions_mel_is_of_the_quantile_over_the_cutoff_and_of_the_median_under_it(monkeypatch):
    """Of a network whose mel is 0, the loss is the original's size: times 1.8 over 0, 0.2 under it for 0.9."""
    silent = SimpleNamespace(apply=lambda variables, z, cond, t_B: variables["params"]["gain"] * z)
    monkeypatch.setattr(regression, "UNet", lambda *_: silent)
    monkeypatch.setattr(regression, "decoded_mel", lambda config, frozen, z: jnp.zeros((2, 32, 32)) * z.sum())
    config = micro.get_config("regression")
    config.update(losses={"mel": 1.0, "mel_quantile": 0.9, "high_band": 2.0})
    z_hr, z_lr = (RNG.standard_normal((2, 16, 16, 2)).astype(np.float32) for _ in range(2))
    mel, cutoff_B = RNG.standard_normal((2, 32, 32)), np.array([1000.0, 8000.0])
    batch = {"z_hr": z_hr, "z_lr": z_lr, "mel": mel, "weight": np.ones(2)}
    batch |= {"cutoff_hz": cutoff_B, "bandwidth_hz": np.full(2, 24_000.0)}
    state = SimpleNamespace(params={"regression": {"gain": np.zeros(())}})
    found = jax.jit(lambda batch: regression.gradients(config, state, {}, batch, jax.random.key(0)))(batch)

    weight = np.broadcast_to(jax.jit(lambda batch: band_weights(config, batch, 16)[0])(batch), mel.shape)
    assert 0 < (weight == 2.0).mean() < 1
    asymmetric = np.where(mel > 0, 1.8, 0.2) * np.abs(mel)
    of_bin = np.where(weight == 2.0, asymmetric, np.abs(mel))
    expected = np.mean((weight * of_bin).sum((1, 2)) / weight.sum((1, 2)))
    assert found.metrics["mel"] == pytest.approx(expected, rel=1e-4)


def test_the_regression_hears_its_mel_over_the_cutoff_as_the_metrics_do(monkeypatch):
    silent = SimpleNamespace(apply=lambda variables, z, cond, t_B: variables["params"]["gain"] * z)
    monkeypatch.setattr(regression, "UNet", lambda *_: silent)
    mel = RNG.standard_normal((2, 64, 256)).astype(np.float32) - 3
    wrong = np.where(np.arange(256) < 100, 9.0, 1.0)  # under the cutoff: never heard
    monkeypatch.setattr(regression, "decoded_mel", lambda config, frozen, z: mel + wrong + 0 * z.sum())
    monkeypatch.setattr(perceptual, "LEVELS", (1.0, 1.0))
    config = micro.get_config("regression")
    config.model.vae.mel_bins = config.model.vocoder.mel_bins = 256
    config.update(losses={"mel": 0.0, "zimtohrli": 10.0, "visqol": 0.5, "latent": 0.0, "latent_l2": 0.0})
    z_hr, z_lr = (RNG.standard_normal((2, 32, 128, 2)).astype(np.float32) for _ in range(2))
    batch = {"z_hr": z_hr, "z_lr": z_lr, "mel": mel, "weight": np.array([1.0, 0.0])}
    batch |= {"cutoff_hz": np.full(2, 4000.0), "bandwidth_hz": np.full(2, 24_000.0)}
    state = SimpleNamespace(params={"regression": {"gain": np.zeros(())}})
    found = jax.jit(lambda batch: regression.gradients(config, state, {}, batch, jax.random.key(0)))(batch).metrics

    heard = perceptual.heard(mel + wrong, mel, batch["cutoff_hz"], batch["bandwidth_hz"])
    expected = [float(loss(heard, mel, np.ones(2))[0]) for loss in (perceptual.zimtohrli_loss, perceptual.visqol_loss)]
    assert [found["zimtohrli"], found["visqol"]] == pytest.approx(expected, rel=1e-3)
    assert found["loss"] == pytest.approx(10 * expected[0] + 0.5 * expected[1], rel=1e-3)


def test_the_regression_keeps_anothers_answers_over_a_cutoff(monkeypatch):
    """Of networks that make latents of the noise alone, at other gains."""
    scaled = SimpleNamespace(apply=lambda variables, z, cond, t_B: variables["params"]["gain"] * z)
    monkeypatch.setattr(regression, "UNet", lambda *_: scaled)
    config = micro.get_config("regression")
    config.update(keep_from="another", keep_over_hz=6000.0)
    config.losses.update({"latent": 0.0, "latent_l2": 0.0, "mel": 0.0, "keep": 3.0, "loudness": 0.0, "high_band": 1.0})
    z_hr, z_lr = (RNG.standard_normal((3, 16, 16, 2)).astype(np.float32) for _ in range(2))
    batch = {"z_hr": z_hr, "z_lr": z_lr, "mel": RNG.standard_normal((3, 32, 32)), "weight": np.ones(3)}
    batch |= {"cutoff_hz": np.array([4000.0, 8000.0, 12_000.0]), "bandwidth_hz": np.full(3, 24_000.0)}
    frozen = {"keep": {"gain": np.float32(0.25)}}

    def found(gain, batch):
        state = SimpleNamespace(params={"regression": {"gain": np.float32(gain)}})
        step = jax.jit(lambda batch: regression.gradients(config, state, frozen, batch, jax.random.key(0)))
        return {name: float(value) for name, value in step(batch).metrics.items()}

    assert found(0.25, batch)["keep"] == 0 and found(0.25, batch)["loss"] == 0
    of_all = found(1.25, batch | {"cutoff_hz": np.full(3, 8000.0)})["keep"]
    alone = [found(1.25, batch | {"weight": np.eye(3)[i]})["keep"] for i in range(3)]
    assert alone[0] == 0 and min(alone[1:]) > 0.5
    of_two = found(1.25, batch)
    assert of_two["keep"] == pytest.approx(sum(alone) / 3) and of_two["loss"] == pytest.approx(3 * of_two["keep"])
    assert of_two["keep"] == pytest.approx(2 / 3 * of_all, rel=0.1)


def test_the_student_hears_its_mel_as_the_metrics_do(monkeypatch):
    mel = RNG.standard_normal((2, 64, 256)).astype(np.float32) - 3
    wrong = np.where(np.arange(256) < 100, 9.0, 1.0)  # under the cutoff: never heard
    silent = SimpleNamespace(apply=lambda variables, z, cond, t_B: variables["params"]["gain"] * z)
    monkeypatch.setattr(student, "UNet", lambda *_: silent)
    monkeypatch.setattr(student, "decoded_mel", lambda config, frozen, z: mel + wrong + 0 * z.sum())
    monkeypatch.setattr(perceptual, "LEVELS", (1.0, 1.0))
    config = micro.get_config("student")
    config.model.vae.mel_bins = config.model.vocoder.mel_bins = 256
    none = dict.fromkeys(config.losses, (0.0,) * 4)
    config.losses = none | {"zimtohrli": (10.0,) * 4, "visqol": (0.5,) * 4, "high_band": 1.0}
    z_hr, z_lr = (RNG.standard_normal((2, 32, 128, 2)).astype(np.float32) for _ in range(2))
    batch = {"z_hr": z_hr, "z_lr": z_lr, "mel": mel, "weight": np.array([1.0, 0.0]), "class_id": np.zeros(2, int)}
    batch |= {"cutoff_hz": np.full(2, 4000.0), "bandwidth_hz": np.full(2, 24_000.0)}
    gain = {"gain": np.zeros(())}
    state = SimpleNamespace(params={"student": gain}, step=0)
    step = jax.jit(lambda batch: student.gradients(config, state, {"teacher": gain}, batch, jax.random.key(0)))
    found = step(batch).metrics

    heard = perceptual.heard(mel + wrong, mel, batch["cutoff_hz"], batch["bandwidth_hz"])
    expected = [float(loss(heard, mel, np.ones(2))[0]) for loss in (perceptual.zimtohrli_loss, perceptual.visqol_loss)]
    assert [found["zimtohrli"], found["visqol"]] == pytest.approx(expected, rel=1e-3)
    assert found["loss"] == pytest.approx(10 * expected[0] + 0.5 * expected[1], rel=1e-3)


def test_guidance_is_of_each_class():
    config = micro.get_config("student")
    config.guidance.update(speech=(1.0, 1.5), music=(2.0, 3.0), effects=(1.0, 1.0))
    low_high = np.array(jax.jit(lambda label: student.guidance(config, label))(np.array([1, 0, 2])))
    assert low_high.shape == (2, 3, 1, 1, 1)
    np.testing.assert_allclose(low_high[..., 0, 0, 0], [[2, 1, 1], [3, 1.5, 1]])


def test_a_student_cannot_hear_windows_that_were_encoded_before():
    config = micro.get_config("student")
    config.losses.waveform = (0.0, 0.1, 0.1, 0.1)
    assert student.needs(config)["vocoder"] == "vocoder"
    config.data.latents = "runs/latents"
    with pytest.raises(UserError, match="config.data.latents=runs/latents has none: leave that empty, or the weights"):
        student.needs(config)


def test_crops_of_mel_and_waveforms_are_the_same_stretch():
    frames, hop = 10, 480
    time = np.arange(frames * hop, dtype=np.float32)
    hr = np.stack([time, time + 1e5])
    mel = hr[:, ::hop, None] * np.ones(3, np.float32)
    stats = Normalisation(np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32))
    windows = Windows(hr=hr, lr=-hr, stats=stats, weight=np.ones(2, np.float32))

    @jax.jit
    def crop(seed):
        return random_crops(mel, windows, 4, jax.random.key(seed))

    crops = [jax.device_get(crop(seed)) for seed in range(20)]
    for mel_crop, hr_crop, lr_crop in crops:
        assert mel_crop.shape == (2, 4, 3) and hr_crop.shape == (2, 4 * hop)
        np.testing.assert_array_equal(mel_crop[:, :, 0], hr_crop[:, ::hop])
        np.testing.assert_array_equal(lr_crop, -hr_crop)
    firsts = {float(hr_crop[0, 0]) // hop for _, hr_crop, _ in crops}
    assert min(firsts) == 0 and max(firsts) == 6 and len(firsts) > 3


def test_products_of_a_step_and_an_evaluation_are_compiled_as_those_of_inference():
    """Without YNNPACK, by which `small` trains a fifth slower: `devices.runtime.compiler_options`."""

    def step(config, state, frozen, batch, key):
        return state, {"product": jax.nn.relu(batch @ batch)}

    def evaluation(config, weights, frozen, batch, key):
        return {"product": jax.nn.relu(batch @ batch)}

    toy = toy_stage()
    stage = SimpleNamespace(init=toy.init, train_step=step, eval_step=evaluation)
    config, mesh = toy_config("nowhere"), mesh_of(1, 1)
    programs = make_programs(config, stage, mesh, {})
    batch, key = jnp.ones((512, 512)), jax.random.key(0)
    state = programs.init({}, key)
    for program, first in ((programs.step, state), (programs.evaluate, state.weights)):
        assert "ynn" not in program.lower(first, {}, batch, key).compile().as_text()
