"""What a researcher asks of a run beside training: its configuration, its scores, its steps traced, its figures sent
elsewhere, its checkpoints shown."""

import json

import pytest

from flashsr_jax.cli import main
from flashsr_jax.train import loop

from helpers.configs import get_config
from helpers.toy import toy_stage
from helpers.training import assert_same_checkpoint, logged, options_of, run, run_here

TOLD = []


class Noted:
    """A writer of one's own."""

    def __init__(self, config, workdir, start_step):
        TOLD.append(("start", config.stage, workdir, start_step))

    def scalars(self, step, values):
        TOLD.append(("scalars", step, sorted(values)))

    def picture(self, step, name, picture):
        TOLD.append(("picture", step, picture.shape[2]))

    def close(self):
        TOLD.append(("close",))


@pytest.mark.training
def test_a_run_is_profiled_told_elsewhere_measured_and_shown(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ("--config.best_metric=error", "--config.eval.every=100", "--config.steps=5")
    options += (f"--config.writers=tensorboard,{__name__}:Noted", "--config.optimizer.vae.schedule=cosine")
    folder = tmp_path / "run"
    code, stderr = run("vae", folder, dataset, *options, "--profile=3:4")
    assert code == 0, stderr
    said = [line.partition(" ")[2] for line in stderr.splitlines()]
    for what in ("the training step", "the evaluation"):
        begins = said.index(f"compiling {what}")
        assert said[begins + 1 :] and any(line.startswith(f"compiled {what} and called it once in ") for line in said)
    assert len(list(folder.rglob("*.xplane.pb"))) == 1 and f"tensorboard --logdir {folder}/tensorboard" in stderr
    rates = [line["learning_rate/vae"] for line in logged(folder) if line["kind"] == "train"]
    assert len(set(rates)) == len(rates) > 2  # of a warm-up times half a cosine
    assert list((folder / "tensorboard").glob("events*"))
    assert TOLD[0] == ("start", "vae", folder, 0) and TOLD[-1] == ("close",)
    steps = [line["step"] for line in logged(folder)]
    assert [told[1] for told in TOLD if told[0] == "scalars"] == steps
    assert [told for told in TOLD if told[0] == "picture"] == [("picture", 5, 3)] * 3

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    code, stderr = run("vae", folder, dataset, *options, "--eval-only")
    assert code == 0, stderr
    assert json.loads(capsys.readouterr().out) == {"error": pytest.approx(logged(folder)[-1]["error"], rel=1e-6)}
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    code, stderr = run("vae", tmp_path / "none", dataset, *options, "--eval-only")
    assert code == 1 and "none: no checkpoints there" in stderr.splitlines()[-1] and not (tmp_path / "none").exists()

    assert main(["runs", str(folder)]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["checkpoint", "error", "MB"] in words and ["weights/vae", "1", "1"] in words
    assert ["state/params/vae", "1", "1"] in words and [row[0] for row in words if row[1:2] == ["-"]] == ["3"]
    (best,) = [row for row in words if row[:1] == ["5"]]
    assert best[1].endswith("*")
    assert main(["runs", str(folder), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert [kept["step"] for kept in shown["checkpoints"]] == [3, 5]


def test_a_configuration_is_printed_as_it_would_be_trained(capsys):
    assert main(["train", "--config", "vae:tiny", "--print-config", "--config.steps=7"]) == 0
    printed, expected = json.loads(capsys.readouterr().out), get_config("vae", "tiny")
    expected.steps = 7
    assert printed == json.loads(expected.to_json())


@pytest.mark.parametrize("given", ["60:50", "0:3", "5", "a:b"])
def test_steps_that_cannot_be_profiled(given, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--config", "vae:tiny", "--workdir", "w", "--profile", given])
    assert f"{given!r} are no steps: write 50:60" in capsys.readouterr().err


@pytest.mark.parametrize("writer", ["none", "json:none", "none:none", "tensorboard,comet"])
def test_a_writer_that_there_is_not(writer, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ("--config.best_metric=error", f"--config.writers={writer}")
    code, stderr = run("vae", tmp_path / "run", dataset, *options)
    assert code == 1 and "config.writers: there is no " in stderr.splitlines()[-1], stderr
    assert "choose of tensorboard, wandb, or MODULE:NAME of your own" in stderr.splitlines()[-1]


def test_a_best_metric_that_nothing_measures_is_said_at_the_start(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    code, stderr = run("vae", tmp_path / "run", dataset, "--config.best_metric=eror")
    assert code == 1 and not (tmp_path / "run").exists()
    assert stderr.splitlines()[-1].endswith(": config.best_metric=eror is not measured: give one of error")


@pytest.mark.training
def test_weights_and_biases_gets_the_figures_offline(dataset, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ("--config.best_metric=error", "--config.steps=2", "--config.writers=wandb")
    code, stderr = run("vae", tmp_path, dataset, *options)
    assert code == 0, stderr
    (stored,) = tmp_path.rglob("*.wandb")
    assert b"train/loss" in stored.read_bytes() and b"eval/error" in stored.read_bytes()
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.training
def test_a_run_on_a_mixture_of_datasets_resumes_and_is_made_again_bit_for_bit(dataset, tmp_path, monkeypatch):
    """By folders with dots in their names, too, and from the configuration that it left."""
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    other = tmp_path / "speech.v2"
    other.symlink_to(dataset)
    mixture = f"--config.data.mixture={{'{dataset}': 2, '{other}': 0.5}}"
    options = (mixture, "--config.best_metric=error", "--config.eval.every=100")
    for name, steps in (("whole", 4), ("stopped", 2), ("stopped", 4)):
        code, stderr = run("vae", tmp_path / name, "nowhere", *options, f"--config.steps={steps}")
        assert code == 0, stderr
    assert "resuming from step 2" in stderr and f"{other}: music " in stderr
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "stopped", 4, least=1)
    (first,) = map(json.loads, (tmp_path / "whole" / "provenance.jsonl").read_text().splitlines())
    assert first["manifests"].keys() == {f"data {dataset}", f"data {other}"}
    code, stderr = run_here(["--config", str(tmp_path / "whole" / "config.json"), "--workdir", str(tmp_path / "again")])
    assert code == 0, stderr
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "again", 4, least=1)


def test_a_mixture_is_printed_and_refused_where_it_cannot_be(capsys):
    micro = options_of("vae", "w", "d")[:2]
    mixture = "--config.data.mixture={'a/b.v2': 2, '../c': 1.5}"
    assert main(["train", *micro, "--print-config", mixture]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["mixture"] == {"a/b.v2": 2, "../c": 1.5}
    for wrong, said in {
        "{'a': 0}": "config.data.mixture={'a': 0}: give each folder a weight, a number over 0",
        "{'a': 1, 'b': -1}": "config.data.mixture={'a': 1, 'b': -1}: give each folder a weight",
        "{'a': True}": "config.data.mixture={'a': True}: give each folder a weight",
        "a=1": "flag --config.data.mixture=a=1: a=1: give it as {'NAME': VALUE, ...}, in quotes for the shell",
    }.items():
        capsys.readouterr()
        assert main(["plan", *micro, f"--config.data.mixture={wrong}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"flashsr: {said}")
