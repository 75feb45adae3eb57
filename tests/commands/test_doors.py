"""The words of training on the `flashsr` command: what --config takes, old forms, packages that are not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flashsr_jax import main as old_door
from flashsr_jax.cli import main
from flashsr_jax.commands import configuration
from flashsr_jax.commands.configuration import load_configuration
from flashsr_jax.errors import UserError

from helpers import ROOT, configs, micro


@pytest.fixture
def training(monkeypatch):
    """Calls of the programs behind the words, which are not run: (name, configuration, other arguments)."""
    calls = []

    def stand_in(name):
        return lambda config, *rest: calls.append((name, config, rest))

    monkeypatch.setattr("flashsr_jax.train.loop.train", stand_in("train"))
    monkeypatch.setattr("flashsr_jax.train.latents.write_cache", stand_in("encode"))
    monkeypatch.setattr("flashsr_jax.cost.plan.dry_run.dry_run", stand_in("plan"))
    return calls


@pytest.mark.parametrize("name", ["vae:tiny", f"{ROOT}/configs/vae.py:tiny", "RUN"])
def test_a_configuration_is_named_in_three_ways(name, training, tmp_path):
    if name == "RUN":
        name = str(tmp_path / "config.json")
        Path(name).write_text(configs.get_config("vae", "tiny").to_json())
    changes = ["--config.optimizer.vae.lr=1e-5", "--config.batch_size", "2", "--config.data.cutoff_hz=2000.0,4000.0"]
    assert main(["train", "--config", name, "--workdir", "run", *changes]) == 0
    ((program, config, rest),) = training
    expected = configs.get_config("vae", "tiny")
    expected.optimizer.vae.lr, expected.batch_size, expected.data.cutoff_hz = 1e-5, 2, (2000.0, 4000.0)
    assert (program, config.to_dict(), rest) == ("train", expected.to_dict(), ("run", None))


def test_each_word_gets_its_options(training):
    assert main(["data", "encode", "--config", "regression:tiny", "--out", "latents", "--windows", "7"]) == 0
    assert main(["plan", "--config", "student:base", "--devices", "8", "--compile-for", "v5e:2x4"]) == 0
    assert main(["plan", "--config.seed=1", "--config", "student:base"]) == 0
    assert [(program, config.stage, rest) for program, config, rest in training] == [
        ("encode", "regression", ("latents", 7)),
        ("plan", "student", (8, "v5e:2x4")),
        ("plan", "student", (None, None)),
    ]
    assert training[-1][1].seed == 1


def test_the_old_door_leads_to_the_same(training):
    config = ["--config", f"{ROOT}/configs/vae.py:tiny", "--workdir=run", "--config.seed=3"]
    assert old_door.main(config) == 0
    assert old_door.main([*config, "--dry-run", "--devices=4"]) == 0
    assert [(program, config.seed, rest) for program, config, rest in training] == [
        ("train", 3, ("run", None)),
        ("plan", 3, (4, None)),
    ]


MISTAKES = {
    ("none:tiny",): "--config none:tiny: there is no stage 'none': choose STAGE:PRESET, STAGE one of finetune, reg",
    ("vae:huge",): "configs/vae.py:huge: choose a preset: tiny, small, base",
    ("vae",): "configs/vae.py:(nothing): choose a preset",
    ("none.py:tiny",): "--config none.py:tiny: there is no file none.py",
    ("none/config.json",): "--config none/config.json: there is no file none/config.json",
    ("bad.py",): "--config bad.py: ZeroDivisionError: division by zero",
    ("vae:tiny", "--config.optimiser=1"): "the configuration has no field 'optimiser' Did you mean \"optimizer\"",
    ("vae:tiny", "--config.batch_size=two"): "flag --config.batch_size=two: invalid literal",
    ("vae:tiny", "--wrkdir=x"): "Unknown command line flag 'wrkdir'",
    ("vae:tiny", "--config.seed", "1", "2"): "do not know what to do with 2: options start with --",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes_are_one_line(arguments, training, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text("def get_config():\n    return 1 / 0\n")
    assert main(["train", "--workdir", "run", "--config", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: {MISTAKES[arguments]}") and training == []


def test_windows_are_encoded_for_stages_that_read_them(training, capsys):
    assert main(["data", "encode", "--config", "vae:tiny", "--out", "latents", "--windows", "7"]) == 1
    error = capsys.readouterr().err
    assert error == "flashsr: --config vae:tiny: stage vae reads no latents: encode for another\n" and not training


def test_configurations_of_an_installed_package_are_found(tmp_path, monkeypatch):
    """In the package itself, where there is no checkout around it; a user's file may be anywhere."""
    assert configuration.configurations() == ROOT / "configs"
    (tmp_path / "configs").mkdir()
    for name in ("mine.py", "vae.py"):
        (tmp_path / "configs" / name).write_text((ROOT / "configs" / "vae.py").read_text())
    monkeypatch.setattr(configuration.flashsr_jax, "__file__", str(tmp_path / "__init__.py"))
    assert load_configuration("mine:tiny").to_dict() == configs.get_config("vae", "tiny").to_dict()
    with pytest.raises(UserError, match="STAGE one of mine, vae;"):
        load_configuration("tune:tiny")
    helper = f"{micro.__file__}:finetune:vae"  # which takes an argument with a colon
    assert load_configuration(helper).init_from == "official.safetensors"


def test_the_presets_are_a_table(capsys, monkeypatch):
    monkeypatch.setattr("flashsr_jax.models.flops.table", lambda: "| preset |")
    assert main(["plan", "--presets"]) == 0
    assert capsys.readouterr().out == "| preset |\n"
    assert main(["plan", "--presets", "--config.seed=1"]) == 1
    assert "--presets takes no --config.seed=1" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["steps", "guidance"])
def test_the_teachers_options_of_an_evaluation_have_its_name(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--data", "originals", "-o", "report", f"--{option}", "4"])
    error = capsys.readouterr().err
    assert error.endswith(f"error: argument --{option}: is --teacher-{option} now: write --teacher-{option} 4\n")


def test_old_modules_name_the_new_form():
    new = {"benchmark": "benchmark train", "cache_latents": "data encode", "flops": "plan --presets"}
    for module, word in new.items():
        with pytest.raises(ModuleNotFoundError, match=f"it is `flashsr {word}` now"):
            __import__(f"flashsr_jax.{module}")
    with pytest.raises(ModuleNotFoundError, match="No module named 'flashsr_jax.nothing'"):
        __import__("flashsr_jax.nothing")


MISSING = (  # what upscaling does without
    "grain",
    "ml_collections",
    "matplotlib",
    "tensorboardX",
    "tensorflow_datasets",
    "PIL",
    "visqol",
    "zimtohrli",
    "numba",
    "sklearn",
    "librosa",
    "huggingface_hub",
    "onnx",
    "onnxruntime",
)
WORDS = {  # what needs one of them, the line's beginning and the extra
    "train --config vae:tiny --workdir run": ("training needs ", "train"),
    "plan --config vae:tiny": ("planning a run needs ", "train"),
    "benchmark train --config vae:tiny": ("measuring training steps needs ", "train"),
    "data build in --out data": ("building a data set needs ", "train"),
    "data encode --config vae:tiny --out latents --windows 1": ("encoding training windows needs ", "train"),
    "evaluate --data in -o report": ("evaluation needs ", "eval"),
    "upscale in/a.wav --spectrogram": ("--spectrogram needs matplotlib ", "pictures"),
    "weights export small --to onnx -o graphs": ("exporting to ONNX needs onnx", "onnx"),
    "web -o page": ("the page's model needs onnx", "onnx"),
    "upscale in/a.wav --weights hf:me/it": ("hf:me/it needs huggingface_hub ", "hub"),
}
PROBE = """
import json, sys
sys.modules |= dict.fromkeys(json.loads(sys.argv[1]))
import flashsr_jax.api, flashsr_jax.upscale.files
from flashsr_jax.cli import main
print(json.dumps([main(command.split()) for command in json.loads(sys.argv[2])]))
"""


@pytest.mark.training
def test_what_a_listener_has_not_installed_is_named_with_the_line_that_installs_it(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"")
    probe = [sys.executable, "-c", PROBE, json.dumps(list(MISSING)), json.dumps(list(WORDS))]
    nothing_kept = os.environ | {"FLASHSR_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(probe, cwd=tmp_path, env=nothing_kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1] * len(WORDS)
    lines = done.stderr.splitlines()
    assert len(lines) == len(WORDS), lines
    for line, (beginning, extra) in zip(lines, WORDS.values(), strict=True):
        assert line.startswith(f"flashsr: {beginning}") and line.endswith(f": pip install 'flashsr_jax[{extra}]'")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.wav"]
