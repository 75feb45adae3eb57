"""`flashsr evaluate` and `flashsr compare` on real recordings, through the command line."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from flashsr_jax import FlashSR
from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.cli import main
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate import evaluation, protocol, systems
from flashsr_jax.evaluate.inputs import Input
from flashsr_jax.evaluate.measuring import Output, measure
from flashsr_jax.evaluate.metrics import lsd, lsd_hf
from flashsr_jax.evaluate.profiles import load_profiles, measure_dataset
from flashsr_jax.evaluate.references import Reference, load_references
from flashsr_jax.evaluate.report.tables import read_scores
from flashsr_jax.evaluate.signals import Unmeasurable
from flashsr_jax.evaluate.systems import System
from flashsr_jax.upscale.model import load_model
from flashsr_jax.weights.store import save_weights

from helpers import RECORDINGS
from helpers.micro_model import MICRO, micro_params

RATE = 48_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "micro.safetensors"
    save_weights(path, MICRO, micro_params(), {"unet": "regression, step 7"})
    return str(path)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """One recording of each class, four that cannot be used, and one in a hidden folder."""
    root = tmp_path_factory.mktemp("originals")
    with (RECORDINGS / "recordings.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "test"]
    for name in ("speech", "music", "effects"):
        row = next(row for row in rows if row["class"] == name)
        folder = root / name / row["group"]
        folder.mkdir(parents=True)
        shutil.copy(RECORDINGS / row["path"], folder)
    rng = np.random.default_rng(0)
    sf.write(root / "music" / "dull.wav", rng.normal(size=RATE) * 0.1, 22_050)
    sf.write(root / "music" / "short.wav", rng.normal(size=RATE // 2) * 0.1, RATE)
    sf.write(root / "music" / "silent.wav", np.zeros(2 * RATE), RATE)
    (root / "music" / "broken.wav").write_bytes(b"RIFF nothing")
    (root / "music" / ".trash").mkdir()
    (root / "music" / ".trash" / "broken.wav").write_bytes(b"RIFF nothing")
    return root


@pytest.fixture(scope="module")
def report(originals, weights, tmp_path_factory) -> Path:
    """A whole evaluation: a model, its ceiling and another system's files at two cutoffs, two seeds, 1 s of each."""
    out, other = tmp_path_factory.mktemp("report"), tmp_path_factory.mktemp("other")
    references, _ = load_references(originals, seconds=1)
    for number, reference in enumerate(references):
        for cutoff in (4000, 8000):
            path = other / str(cutoff) / f"{reference.name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio = reference.audio if number else reference.audio[:-1]  # the first of another length
            if (number, cutoff) != (1, 8000):  # and one missing
                sf.write(path, audio, RATE, subtype="FLOAT")
    arguments = ["--data", str(originals), "--weights", weights, "-o", str(out), "--cutoffs", "4000,8000"]
    arguments += ["--seconds", "1", "--seeds", "2", "--outputs", f"other={other}", "--workers", "1", "--save-audio"]
    assert main(["evaluate", *arguments, "--regression", weights]) == 0
    return out


@pytest.mark.training
def test_every_system_is_scored_on_every_clip(report):
    results = read_scores(report / "scores.json")
    systems = ["unprocessed", "mirror", "noise", "regression", "regression, step 7", "ceiling", "other"]
    assert list(dict.fromkeys(score.system for score in results.scores)) == systems
    for system in systems[:-1]:
        seeds = 1 if system in ("unprocessed", "mirror") else 2
        assert len([s for s in results.scores if s.system == system]) == 3 * 2 * seeds
    names = {"lsd", "lsd_hf", "lsd_lf", "lsd_universr", "zimtohrli", "visqol", "low_band_si_sdr", "time_offset"}
    assert all(names <= score.metrics.keys() for score in results.scores)
    assert {score.class_name for score in results.scores} == {"speech", "music", "effects"}
    assert [speed.system for speed in results.speeds] == ["regression", "regression, step 7"]
    assert results.model == "regression" and results.settings["regression"].endswith(" (regression, step 7)")
    assert "unet: regression, step 7, vocoder: micro.safetensors" in results.settings["weights"]
    assert all(speed.rtf > 0 for speed in results.speeds)
    assert "3 clips (1 effects, 1 music, 1 speech)" in results.settings["data"]


@pytest.mark.training
def test_figures_are_those_of_the_saved_files(report):
    """What the tables say can be computed again from the audio that was kept."""
    results = read_scores(report / "scores.json")
    for score in results.scores:
        if score.seed or score.wall_hz or score.system == "other":
            continue
        original, _ = sf.read(report / "audio" / "original" / f"{score.clip}.wav")
        made, rate = sf.read(report / "audio" / score.system / f"{score.cutoff_hz:g}" / f"{score.clip}.wav")
        assert rate == RATE
        assert score.metrics["lsd"] == pytest.approx(lsd(original, made), rel=1e-5)
        assert score.metrics["lsd_hf"] == pytest.approx(lsd_hf(original, made, score.cutoff_hz), rel=1e-5)
        if score.system == "unprocessed":
            lowpass = LowpassFilter("cheby1", 8, score.cutoff_hz)
            low = simulate_low_resolution(original.astype(np.float32), lowpass)
            np.testing.assert_allclose(made, low, atol=1e-6)


@pytest.mark.training
def test_a_perfect_system_is_perfect_and_the_baselines_beat_the_input(report):
    results = read_scores(report / "scores.json")
    for score in (s for s in results.scores if s.system == "other"):
        assert score.metrics["lsd"] == 0 and score.metrics["zimtohrli"] == 0 and score.metrics["time_offset"] == 0
        assert score.metrics["visqol"] > 4.7
    means = {
        system: np.mean([s.metrics["lsd"] for s in results.scores if s.system == system])
        for system in ("unprocessed", "mirror", "noise")
    }
    assert means["noise"] < 0.8 * means["unprocessed"] and means["mirror"] < 0.8 * means["unprocessed"]


@pytest.mark.training
def test_what_was_left_out_is_named_and_counted(report, originals):
    problems = {(p.clip, p.system, p.cutoff_hz): p.reason for p in read_scores(report / "scores.json").problems}
    references, _ = load_references(originals, seconds=1)
    first, second = references[0].name, references[1].name
    assert "under 44100 Hz" in problems["music/dull", "", 0]
    assert "lasts 0.50 s" in problems["music/short", "", 0]
    assert "silent" in problems["music/silent", "", 0]
    assert ("music/broken", "", 0) in problems
    assert "47999 samples x 1 channels, not 48000 x 1" in problems[first, "other", 4000]
    assert "no file" in problems[second, "other", 8000]
    assert len(problems) == 7


@pytest.mark.training
def test_report_and_tables_are_written(report):
    page = (report / "index.html").read_text()
    assert "<html" in page and "regression" in page
    tables = (report / "tables.md").read_text()
    assert "| regression |" in tables and "student" not in tables + page and "Left out of the figures: 7" in tables
    with (report / "scores.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == len(json.loads((report / "scores.json").read_text())["scores"])


@pytest.mark.training
def test_a_cutoff_over_the_originals_own_wall_is_not_scored(tmp_path, originals):
    walled = tmp_path / "music"
    walled.mkdir()
    x = np.random.default_rng(0).normal(size=3 * RATE).astype(np.float32) * 0.1
    sf.write(walled / "walled.wav", simulate_low_resolution(x, LowpassFilter("cheby1", 10, 8000.0)), RATE)
    out = tmp_path / "report"
    arguments = ["--data", str(walled), "-o", str(out), "--cutoffs", "4000,7900", "--no-perceptual", "--workers", "1"]
    assert main(["evaluate", *arguments]) == 0
    results = read_scores(out / "scores.json")
    assert {score.cutoff_hz for score in results.scores} == {4000.0}
    assert all(7600 < score.wall_hz < 8400 and "zimtohrli" not in score.metrics for score in results.scores)
    (problem,) = results.problems
    assert problem.cutoff_hz == 7900 and "own band ends at" in problem.reason
    gains = {score.system: score.loud_bands_db for score in results.scores}
    assert all(list(of_system) == ["4000"] for of_system in gains.values()), "6 to 8 kHz has the wall in it"
    assert gains["unprocessed"]["4000"] < -20 < -12 < gains["noise"]["4000"] < 0
    table = (out / "tables.md").read_text().split("Loud moments")[1]
    assert "| system | 4–6 kHz |" in table and f"| noise | {gains['noise']['4000']:+.1f} |" in table
    assert "Loud moments" in (out / "index.html").read_text()


@pytest.mark.training
def test_inputs_may_be_files_of_a_good_resampler_that_the_model_gets_as_a_listeners(originals, weights, tmp_path):
    """At two usual rates and an odd one, of which two samples fewer come back; of 40 kHz nothing is missing that the
    model could restore."""
    out = tmp_path / "report"
    arguments = ["--data", str(originals), "--weights", weights, "-o", str(out), "--no-perceptual", "--save-audio"]
    arguments += ["--inputs", "file", "--cutoffs", "4000,5512.7,12000,20000", "--seconds", "1.3", "--clips", "1"]
    assert main(["evaluate", *arguments, "--workers", "1"]) == 0
    results = read_scores(out / "scores.json")
    assert results.settings["input"].startswith("files of twice the cutoff, resampled by soxr")
    scored = [(score.clip, score.cutoff_hz) for score in results.scores if score.system == "regression"]
    assert len(scored) == 9 and len(results.scores) == 5 * 9
    assert {problem.cutoff_hz for problem in results.problems} == {20_000.0} and len(results.problems) == 3
    model = FlashSR.load(weights)
    for clip, cutoff_hz in scored:
        made = {}
        for name in ("original", "unprocessed", "regression"):
            at = "." if name == "original" else f"{cutoff_hz:g}"
            made[name], _ = sf.read(out / "audio" / name / at / f"{clip}.wav", dtype="float32")
            assert made[name].shape == (62_400,)
        file = soxr.resample(made["original"], RATE, round(2 * cutoff_hz), "VHQ")
        upscaled = model(file, round(2 * cutoff_hz))
        fewer = 2 if cutoff_hz == 5512.7 else 0
        assert len(upscaled) == 62_400 - fewer
        np.testing.assert_allclose(made["regression"], np.pad(upscaled, (0, fewer), mode="edge"), atol=1e-6)
        spectrum = np.abs(np.fft.rfft(made["unprocessed"] * np.hanning(62_400)))
        hertz = np.fft.rfftfreq(62_400, 1 / RATE) / cutoff_hz
        under, over = (spectrum[(hertz > a) & (hertz < b)] for a, b in ((0.7, 0.9), (1.05, 1.15)))
        assert over.max() < 1e-3 * under.max(), "a steep end, and no image"


@pytest.mark.training
def test_a_built_dataset_can_be_evaluated(dataset, tmp_path):
    arguments = ["--data", str(dataset), "-o", str(tmp_path), "--cutoffs", "4000", "--no-perceptual", "--clips", "1"]
    assert main(["evaluate", *arguments, "--workers", "1"]) == 0
    results = read_scores(tmp_path / "scores.json")
    assert {score.clip for score in results.scores} == {"speech-0", "music-0", "effects-0"}
    assert all(score.group for score in results.scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--data", "EMPTY"], "EMPTY: no recordings in it"),
        (["--data", "DATA", "--teacher", "x"], "--teacher, --regression and --latency need --weights"),
        (
            ["--data", "DATA", "--weights", "WEIGHTS", "--teacher", "x"],
            "--teacher x does not exist: give the",
        ),
        (["--data", "DATA", "--outputs", "noise=."], "a system of that name is there already"),
        (
            ["--data", "DATA", "--weights", "WEIGHTS", "--model", "mirror=WEIGHTS"],
            "--model mirror=WEIGHTS: a system of",
        ),
        (["--data", "DATA", "--weights", "WEIGHTS", "--own-low-band", "a=no.safetensors"], "no.safetensors"),
        (["--data", "DATA", "--outputs", "mine=nowhere"], "--outputs mine=nowhere: no such folder"),
        (["--data", "DATA", "--noise-profiles", "EMPTY"], "is not a file of noise profiles"),
        (["--data", "DATA", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (
            ["--data", "DATA", "--inputs", "file", "--cutoffs", "1000,4000"],
            "--cutoffs 1000: its file would have under 4000 Hz: give 2000 or more",
        ),
        (
            ["--data", "DATA", "--inputs", "full-file", "--cutoffs", "1999"],
            "--cutoffs 1999: its file would have under 4000 Hz: give 2000 or more",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, message, originals, weights, tmp_path, capsys, monkeypatch):
    (tmp_path / "EMPTY").mkdir()
    monkeypatch.chdir(tmp_path)
    arguments = [{"DATA": str(originals), "WEIGHTS": weights}.get(a, a) for a in arguments]
    assert main(["evaluate", *arguments, "-o", str(tmp_path / "report"), "--no-perceptual"]) == 1
    stderr = capsys.readouterr().err
    assert message in stderr and len(stderr.strip().splitlines()) == 1


@pytest.mark.training
def test_a_teachers_solvers_and_further_models_are_compared_in_one_go(originals, weights, tmp_path, capsys):
    """A table of steps and guidance with the time of each; and a model with the networks' own low band."""
    shutil.copytree(originals / "music", tmp_path / "data" / "music")
    arguments = ["--data", f"{tmp_path}/data", "--weights", weights, "-o", f"{tmp_path}/out", "--cutoffs", "4000"]
    arguments += ["--seconds", "1", "--no-perceptual", "--workers", "1", "--samples", "0"]
    arguments += ["--teacher", weights, "--teacher-steps", "2,1", "--teacher-guidance", "1,2"]
    arguments += ["--model", f"again={weights}", "--own-low-band", f"networks={weights}", "--latency", "200"]
    assert main(["evaluate", *arguments]) == 0
    out, results = capsys.readouterr().out, read_scores(tmp_path / "out" / "scores.json")
    solvers = [f"regression, step 7, {n} steps, guidance {s}" for n in (2, 1) for s in (1, 2)]
    assert [speed.system for speed in results.speeds] == [
        "regression",
        "regression, live",
        *solvers,
        "again",
        "networks",
    ]
    assert all(f"| {name} | " in out for name in solvers)
    assert results.settings["teacher"].endswith(" (regression, step 7), 2, 1 steps, guidance 1 or 2")
    assert "unet: regression, step 7" in results.settings["networks"]
    of_system = {score.system: score.metrics for score in results.scores}
    assert of_system["regression, live"] != of_system["regression"] and results.settings["live"] == "200 ms"
    assert of_system["again"] == of_system["regression"] != of_system[solvers[0]]
    assert of_system["again"]["low_band_si_sdr"] > of_system["networks"]["low_band_si_sdr"] + 20
    assert of_system["again"]["lsd_lf"] < of_system["networks"]["lsd_lf"]


def test_another_u_net_has_its_own_expansion(weights):
    """A teacher's loud moments are its own, whatever was given to the model around it."""
    loaded = load_model(weights)
    around = loaded._replace(config=dataclasses.replace(loaded.config, expansion=0.3))
    assert evaluation._with_unet(around, weights, "teacher").config == loaded.config


def test_guidance_may_be_of_each_class(monkeypatch):
    asked = []
    monkeypatch.setattr(systems, "upscale", lambda *args, guidance, **_: asked.append(guidance) or np.zeros(1))
    system = systems.model(None, guidance={"speech": 1.0, "music": 2.0, "effects": 3.0})
    given = Input(4000.0, 4000.0, np.zeros(1), np.zeros(1), RATE)
    for name in ("music", "speech"):
        system.process(Reference("a", name, "", 0.0, np.zeros(1)), given, 0)
    assert asked == [2.0, 1.0]
    with pytest.raises(Unmeasurable, match="no guidance for a clip without a class"):
        system.process(Reference("a", "", "", 0.0, np.zeros(1)), given, 0)


def test_a_clip_whose_name_is_no_text_is_in_all_files_of_the_report(tmp_path):
    folder = os.fsencode(tmp_path / "speech")
    (tmp_path / "speech").mkdir()
    try:
        with open(folder + b"/caf\xe9.wav", "wb") as file:
            sf.write(file, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE, format="WAV")
    except OSError:
        pytest.skip("this file system takes no such names")
    options = ["--no-perceptual", "--workers", "1", "--cutoffs", "4000", "--samples", "0"]
    assert main(["evaluate", "--data", str(tmp_path / "speech"), "-o", str(tmp_path / "out"), *options]) == 0
    assert "caf\ufffd" in (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8")


def test_two_systems_whose_audio_would_be_in_one_folder_are_refused(originals, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    outputs = ["--outputs", f"x/y={tmp_path}/a", "--outputs", f"x_y={tmp_path}/b"]
    options = ["--no-perceptual", "--clips", "1", "--save-audio", *outputs]
    assert main(["evaluate", "--data", str(originals), "-o", str(tmp_path / "out"), *options]) == 1
    assert "x_y: its audio and that of x/y would be in one folder" in capsys.readouterr().err


def test_where_every_clip_fails_the_reasons_are_written(originals, tmp_path, capsys):
    for name in ("dull", "short", "silent"):
        shutil.copy(originals / "music" / f"{name}.wav", tmp_path)
    out = tmp_path / "report"
    assert main(["evaluate", "--data", str(tmp_path), "-o", str(out), "--no-perceptual", "--workers", "1"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "flashsr: nothing was scored, every clip was left out: "
        "dull: the sample rate is 22050 Hz, under 44100 Hz: no reference for 48 kHz; "
        "short: lasts 0.50 s, under 1 s; silent: is silent: its peak is under -80 dBFS"
    ]
    assert [problem.clip for problem in read_scores(out / "scores.json").problems] == ["dull", "short", "silent"]


@pytest.mark.parametrize("error", [ValueError("incompatible shapes for broadcasting"), UserError("no such rate")])
def test_only_what_cannot_be_measured_is_left_out(error, monkeypatch):
    """A mistake in a system, or of the user, ends the run instead of emptying the tables."""
    monkeypatch.setattr(protocol, "ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers))
    noise_N = np.random.default_rng(0).normal(size=2 * RATE).astype(np.float32) * 0.1
    references = [Reference(name, "music", "", 0.0, noise_N) for name in "ab"]

    def process(reference, given, seed):
        if reference.name == "a":
            raise Unmeasurable("no file")
        raise error

    with pytest.raises(type(error), match=str(error)):
        protocol.run(references, {"mine": System(process)}, [4000.0], settings={}, perceptual=False, workers=1)
    with pytest.raises(ValueError, match="the cutoff must lie in"):
        measure(noise_N, 0.0, [Output("mine", 30_000.0, 0, noise_N)], perceptual=False)
    bad_N = np.full_like(noise_N, np.nan)
    original, short, bad = measure(
        noise_N, 0.0, [Output("mine", 4000.0, 0, x_N) for x_N in (noise_N[:-1], bad_N)], perceptual=False
    )
    assert original.problem == ""
    assert short.problem == "expected signals of one length, got 96000 and 95999 samples"
    assert bad.problem == "a signal has samples that are not finite"


def test_a_long_evaluation_says_how_far_it_is_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(protocol, "ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers))
    monkeypatch.setattr(protocol, "LOG_EVERY", 0.0)
    noise_N = np.random.default_rng(0).normal(size=2 * RATE).astype(np.float32) * 0.1
    references = [Reference(name, "music", "", 0.0, noise_N) for name in "ab"]
    system = System(lambda reference, given, seed: given.low_N)
    protocol.run(references, {"mine": system}, [4000.0], settings={}, perceptual=False, workers=1)
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"flashsr  1 of 2 clips  \d+:\d\d left", first)
    assert second == "flashsr  2 of 2 clips  0:00 left"


def test_measuring_processes_start_without_jax():
    code = "import sys, flashsr_jax.evaluate.measuring; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("cutoffs", ["4000,x", "", "50", "24000"])
def test_cutoffs_that_are_none_are_usage_errors(cutoffs, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--data", ".", "-o", "x", "--cutoffs", cutoffs])


def test_noise_profiles_of_the_package_cover_the_classes(dataset):
    shipped, measured = load_profiles(), measure_dataset(dataset)
    assert shipped.keys() == measured.keys() == {"speech", "music", "effects"}
    hz = np.fft.rfftfreq(2048, 1 / RATE)
    for profile in (*shipped.values(), *measured.values()):
        power = np.array(profile.log10_power)
        assert power.shape == hz.shape and profile.cutoff_hz == 4000
        assert power[(hz > 2100) & (hz < 3600)].mean() == pytest.approx(0, abs=0.02)
        assert -6 < power[hz > 12_000].mean() < -0.3


@pytest.fixture
def three_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(2 * RATE, 2)) * 0.1
    sf.write("r.wav", reference, RATE, subtype="FLOAT")
    sf.write("a.wav", reference * 10**0.05, RATE, subtype="FLOAT")
    sf.write("b.wav", reference + 0.1 * rng.normal(size=reference.shape), RATE, subtype="FLOAT")
    return tmp_path


@pytest.mark.training
def test_compare_says_which_is_better(three_files, capsys):
    assert main(["compare", "a.wav", "b.wav", "--reference", "r.wav", "--cutoff", "4000"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows["lsd"][0] == "0.100" and rows["lsd"][2] == "A"
    assert rows["low_band_gain_db"][0] == "1.000" and rows["time_offset"] == ["0.000", "0.000", "equal"]
    assert rows["zimtohrli"][2] == rows["visqol"][2] == "A"
    assert rows["loud_band_gain_db"][::2] == ["1.000", "A"]
    for band in ("4–6", "22–24"):  # B has as much noise again
        assert rows[band][1::2] == ["1.000", "A"] and float(rows[band][2]) == pytest.approx(3.01, abs=0.3)
    assert main(["compare", "a.wav", "b.wav", "--reference", "r.wav", "--no-perceptual"]) == 0
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]}
    assert "lsd" in names and not names & {"lsd_hf", "low_band_gain_db", "zimtohrli", "loud_band_gain_db", "4–6"}


def test_compare_refuses_what_cannot_be_compared(three_files, capsys):
    fast = ["--reference", "r.wav", "--no-perceptual"]
    x, _ = sf.read("r.wav")
    sf.write("short.wav", x[:-1], RATE)
    sf.write("other_rate.wav", x, 44_100)
    sf.write("mono.wav", x[:, 0], RATE)
    Path("text.wav").write_text("no audio")
    for name in ("1", "2", "3"):
        sf.write(f"brief{name}.wav", x[:1000], RATE)
    for file, message in {
        "short.wav": "short.wav has 95999 samples x 2 channels and r.wav 96000 x 2",
        "other_rate.wav": "other_rate.wav has 44100 Hz and r.wav 48000 Hz",
        "mono.wav": "96000 samples x 1 channels",
        "text.wav": "text.wav cannot be read as audio",
        "nowhere.wav": "nowhere.wav: No such file or directory",
    }.items():
        assert main(["compare", "a.wav", file, *fast]) == 1
        assert message in capsys.readouterr().err
    assert main(["compare", "brief1.wav", "brief2.wav", "--reference", "brief3.wav", "--no-perceptual"]) == 1
    reason = "cannot be measured: LSD needs more than 1024 samples, got 1000"
    assert capsys.readouterr().err.splitlines() == [f"flashsr: brief1.wav {reason}; brief2.wav {reason}"]
    assert main(["compare", "a.wav", "b.wav", *fast, "--cutoff", "30000"]) == 1
    assert "flashsr: --cutoff 30000: give a frequency over 0 and up to 24000 Hz" in capsys.readouterr().err


@pytest.mark.training
def test_one_odd_file_is_one_line_of_a_report(tmp_path, monkeypatch, capsys):
    """NaN, and finite samples whose squares overflow, as originals and as another system's outputs."""
    monkeypatch.chdir(tmp_path)
    x_N = 0.1 * np.random.default_rng(0).normal(size=RATE).astype(np.float32)
    nan_N = np.where(np.arange(RATE) == 5, np.float32(np.nan), x_N)
    for folder in ("in/speech", "other/speech"):
        Path(folder).mkdir(parents=True)
    for path, audio_N in {
        "in/speech/a": x_N,
        "in/speech/b": x_N,
        "in/speech/c": x_N,
        "in/speech/huge": x_N * 3e21,
        "in/speech/nan": nan_N,
        "other/speech/a": x_N,
        "other/speech/b": nan_N,
        "other/speech/c": x_N * 3e21,
    }.items():
        sf.write(f"{path}.wav", audio_N, RATE, subtype="FLOAT")
    arguments = ["--data", "in", "-o", "out", "--cutoffs", "4000", "--outputs", "other=other", "--workers", "1"]
    assert main(["evaluate", *arguments, "--no-perceptual", "--save-audio", "--samples", "3"]) == 0
    results = read_scores("out/scores.json")
    assert {(score.clip, score.system) for score in results.scores} == {
        (f"speech/{clip}", system) for clip in "abc" for system in ("unprocessed", "mirror", "noise")
    } | {("speech/a", "other")}
    problems = {(problem.clip, problem.system): problem.reason for problem in results.problems}
    assert "sample 5 of channel 1 is nan" in problems["speech/nan", ""]
    assert "sample 0 of channel 1 is 3.77" in problems["speech/huge", ""]
    assert "sample 5 of channel 1 is nan" in problems["speech/b", "other"]
    assert "sample 0 of channel 1 is 3.77" in problems["speech/c", "other"]
    assert not Path("out/audio/other/4000/speech/b.wav").exists()
    assert "<html" in Path("out/index.html").read_text()


@pytest.mark.parametrize(("value", "said"), [(np.nan, "is nan"), (np.inf, "is inf"), (3e20, "is 3.0")])
def test_compare_names_the_sample_that_is_no_sound(three_files, capsys, value, said):
    x, _ = sf.read("r.wav")
    x[7, 1] = value
    sf.write("bad.wav", x, RATE, subtype="FLOAT")
    for files in (["bad.wav", "a.wav", "--reference", "r.wav"], ["a.wav", "b.wav", "--reference", "bad.wav"]):
        assert main(["compare", *files]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("flashsr: bad.wav sample 7 of channel 2") and said in line
