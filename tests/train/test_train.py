"""Training as a researcher runs it: the command line, all stages in a row, mistakes."""

import numpy as np
import pytest
import soundfile

from flashsr_jax.cli import main as flashsr
from flashsr_jax.runs.checkpoint import load_weights
from flashsr_jax.train import loop
from flashsr_jax.weights.store import load_weights as load_file

from helpers.toy import toy_stage
from helpers.training import AT_THE_END, ROOT, logged, run, run_word


@pytest.mark.training
def test_every_stage_reports_its_losses_its_speed_and_its_scores(runs):
    terms = {
        "vae": {"reconstruction", "kl", "adversarial", "discriminator", "grad_norm/vae"},
        "regression": {"latent", "mel", "grad_norm/regression"},
        "teacher": {"loss", "grad_norm/teacher"},
        "student": {"distill", "adversarial", "dmd", "mel", "head", "grad_norm/student"},
        "vocoder": {"mel", "features", "adversarial", "discriminator", "grad_norm/vocoder"},
    }
    for stage, folder in runs.items():
        training = [line for line in logged(folder) if line["kind"] == "train"]
        scores = [line for line in logged(folder) if line["kind"] == "eval"]
        assert [line["step"] for line in scores] == ([6, 12] if stage == "vocoder" else [12])
        assert {"mel_l1", "mel_l1_hf", "lsd", "lsd_hf"} <= scores[-1].keys()
        common = {"data/rescaled", "data/rejected", "windows_per_second", "tflop_per_second", "data_wait_percent"}
        assert terms[stage] | common | {f"learning_rate/{stage}"} <= training[-1].keys()
        assert training[-1]["tflop_per_second"] > 0
        assert list((folder / "tensorboard").glob("events*"))


@pytest.mark.training
def test_the_vocoder_can_be_tuned_on_decoded_mel_in_bfloat16(runs, dataset, tmp_path):
    sources = [f"--config.vae_from={runs['vae']}", f"--config.student_from={runs['student']}"]
    options = ["--config.mel_source=student", f"--config.init_from={runs['vocoder']}", "--config.steps=2"]
    options += ["--config.dtype=bfloat16", "--config.eval.perceptual=True"]
    code, stderr = run("vocoder", tmp_path, dataset, *sources, *options)
    assert code == 0, stderr
    assert {"zimtohrli", "lsd_lf"} <= logged(tmp_path)[-1].keys()
    before, after = load_weights(runs["vocoder"], "")[0], load_weights(tmp_path, "")[0]
    difference = np.abs(before["vocoder"]["conv_pre"]["bias"] - after["vocoder"]["conv_pre"]["bias"]).max()
    assert 0 < difference < 0.02  # continued from there, not from scratch


@pytest.mark.training
def test_the_unet_stages_train_on_windows_that_were_encoded_before(runs, dataset, tmp_path):
    sources = [f"--config.vae_from={runs['vae']}", f"--config.teacher_from={runs['teacher']}"]

    def cache(out, *options):
        micro = ["--config", f"{ROOT}/tests/helpers/micro.py:student", f"--config.data.dir={dataset}"]
        return run_word(["data", "encode", "--out", str(out), "--windows", "20", *micro, *sources, *options])

    code, stderr = cache(tmp_path / "latents")
    assert code == 0 and "20 of 20 windows" in stderr, stderr
    cached = f"--config.data.latents={tmp_path}/latents"
    off = [f"--config.losses.{name}=0,0,0,0" for name in ("adversarial", "dmd")]  # which read latents alone
    code, stderr = run("student", tmp_path / "student", dataset, *sources, cached, *off, *AT_THE_END)
    assert code == 0, stderr
    assert "passes: " in stderr and len(logged(tmp_path / "student")) == len(logged(runs["student"]))

    code, stderr = cache(tmp_path / "latents")
    assert code == 1 and "exists: choose another folder" in stderr.strip().splitlines()[-1]
    longer = "--config.data.window_frames=64"
    code, stderr = run("student", tmp_path / "longer", dataset, *sources, cached, longer)
    assert code == 1 and "has windows of 32 frames, the run of 64" in stderr.strip().splitlines()[-1]
    code, stderr = run("vae", tmp_path / "vae", dataset, cached)
    assert code == 1 and "latents" in stderr.strip().splitlines()[-1]


@pytest.mark.training
def test_from_runs_to_a_weights_file_to_a_longer_better_sampled_file(runs, tmp_path):
    weights, source = tmp_path / "micro.safetensors", tmp_path / "in.wav"
    arguments = ["--vae", str(runs["vae"]), "--unet", str(runs["student"]), "--vocoder", str(runs["vocoder"])]
    assert flashsr(["weights", "pack", *arguments, "-o", str(weights)]) == 0
    loaded = load_file(weights)
    expected = load_weights(runs["student"], "")[0]["student"]["encoder"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(loaded.params["unet"]["encoder"]["conv_in"]["kernel"], expected)
    moments = load_weights(runs["vae"], "")[0]
    std = np.sqrt(moments["latent_square"] - moments["latent_mean"] ** 2)
    assert loaded.params["scale_factor"] == pytest.approx(1 / std, rel=1e-6)
    soundfile.write(source, 0.1 * np.random.default_rng(0).standard_normal(8000), 8000)
    assert flashsr(["upscale", str(source), "-o", str(tmp_path / "out.wav"), "--weights", str(weights)]) == 0
    output, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 48000 and len(output) == 48000 and np.isfinite(output).all()


@pytest.mark.training
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage(broken=(5,)))
    options = ["--config.best_metric=error", "--config.checkpoint.every=1"]
    code, stderr = run("vae", tmp_path, dataset, *options)
    last = stderr.strip().splitlines()[-1]
    assert code == 1 and "Traceback" not in stderr
    assert last.startswith("flashsr_jax: step 5: ") and "loss = nan" in last
    assert load_weights(tmp_path, "")[1] == 4


MISTAKES = {
    "--config.optimiser=1": "the configuration has no field 'optimiser' Did you mean \"optimizer\"",
    "--config.batch_size=0": "config.batch_size=0: give a whole number of 1 or more",
    "--config.mesh.data=3": "does not cover 1 devices: set config.mesh",
    "--config.teacher_from=nowhere": "config.teacher_from=nowhere does not exist",
    "--config.vae_from=": "config.vae_from is not set",
    "--config.data.dir=nowhere": "no dataset there",
    "--config.data.window_frames=31": "multiple of 960 samples",
    "--config.phases=(1,2)": "one boundary less",
    "--config.model.vae.channels=8": "set config.model.vae.channels=4",
}


@pytest.mark.training
@pytest.mark.parametrize("option", MISTAKES)
def test_mistakes_are_one_line_that_says_what_to_change(option, runs, dataset, tmp_path):
    sources = [f"--config.vae_from={runs['vae']}", f"--config.teacher_from={runs['teacher']}"]
    code, stderr = run("student", tmp_path / "run", dataset, *sources, option)
    last = stderr.strip().splitlines()[-1]
    assert code == 1 and "Traceback" not in stderr
    assert last.startswith("flashsr_jax: ") and MISTAKES[option] in last


@pytest.mark.training
def test_a_run_of_another_stage_is_refused(runs, dataset, tmp_path):
    code, stderr = run("teacher", tmp_path, dataset, f"--config.vae_from={runs['vocoder']}")
    assert code == 1 and "is a run of stage vocoder, which trains no vae" in stderr.strip().splitlines()[-1]
    code, stderr = run("vocoder", runs["vae"], dataset)
    assert code == 1 and "holds a run with another config" in stderr.strip().splitlines()[-1]


@pytest.mark.training
def test_a_dataset_without_a_class_is_one_line(tmp_path):
    recordings = ROOT / "tests" / "recordings" / "speech"
    assert flashsr(["data", "build", str(recordings), "--out", str(tmp_path / "speech")]) == 0
    code, stderr = run("vocoder", tmp_path / "run", tmp_path / "speech")
    last = stderr.strip().splitlines()[-1]
    assert code == 1 and "no train recordings of music" in last and "class_weights.music=0" in last
