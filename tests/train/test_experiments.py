"""Experiments by command line: fine-tuning imported weights, the paper's ablations, runs listed and repeated."""

import functools
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from flashsr_jax.cli import main as flashsr
from flashsr_jax.cost.plan.run import KEY, Run, batch_shapes
from flashsr_jax.errors import UserError
from flashsr_jax.exchange.names import checkpoint_names
from flashsr_jax.exchange.published import FILES, import_published
from flashsr_jax.exchange.torch_files import save_torch
from flashsr_jax.runs.checkpoint import load_parameters
from flashsr_jax.runs.networks import load_network
from flashsr_jax.train import finished, loop
from flashsr_jax.train.frozen import model_of
from flashsr_jax.train.stages import STAGES
from flashsr_jax.weights.store import load_weights as load_file

from helpers import micro
from helpers.toy import toy_stage
from helpers.training import ROOT, assert_same_checkpoint, logged, run, run_here

FINETUNED = ("vocoder", "vae", "regression", "teacher", "student")
ABLATIONS = {  # as docs/training.md gives them
    "distill": ("student", "--config.losses.adversarial=0,0,0,0 --config.losses.dmd=0,0,0,0"),
    "adversarial": ("student", "--config.losses.dmd=0,0,0,0"),
    "mel_only": ("vocoder", "--config.model.vocoder.lr_conditioned=False"),
}


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    """Published checkpoints of micro size, imported."""
    folder, rng = tmp_path_factory.mktemp("official"), np.random.default_rng(0)
    config = model_of(micro.get_config("finetune:vae"))
    for network, names in checkpoint_names(config).items():
        tensors = {
            name.torch: rng.standard_normal(name.shape, np.float32) / np.sqrt(max(np.prod(name.shape[1:]), 1))
            if len(name.shape) > 1 and not name.torch.endswith("weight_g")
            else np.ones(name.shape, np.float32) / 2
            for name in names
        }
        save_torch(folder / f"{FILES[network]}.pth", tensors)
    import_published(sorted(folder.glob("*.pth")), folder / "official.safetensors", config=config)
    return folder / "official.safetensors"


@pytest.fixture(scope="module")
def finetuned(official, dataset, tmp_path_factory) -> Path:
    """Every stage, two steps from the imported weights."""
    folder = tmp_path_factory.mktemp("finetuned")
    for stage in FINETUNED:
        config = micro.get_config(f"finetune:{stage}")
        given = [name for name in ("init_from", "vae_from", "vocoder_from") if name in config]
        options = [f"--config.{name}={official}" for name in given]
        options += [f"--config.optimizer.{stage}.warmup_steps=0", "--config.steps=2"]
        if stage == "student":
            options += [f"--config.teacher_from={folder / 'teacher'}", "--config.teacher_gate=False"]
        code, stderr = run(f"finetune:{stage}", folder / stage, dataset, *options)
        assert code == 0, stderr
    return folder


def leaves(tree, prefix=""):
    for name, node in tree.items():
        yield from leaves(node, f"{prefix}{name}/") if isinstance(node, dict) else [(prefix + name, np.asarray(node))]


@pytest.mark.slow
def test_every_stage_goes_on_from_imported_weights(official, finetuned):
    for stage in FINETUNED:
        network = stage if stage in ("vae", "vocoder") else "unet"
        before = dict(leaves(load_file(official).params[network]))
        after = dict(leaves(load_parameters(finetuned / stage, "run")[0][stage]))
        assert before.keys() == after.keys()
        changes = {name: np.abs(after[name] - before[name]).max() for name in before}
        assert 0 < max(changes.values()) < 1e-3, "two steps at a small rate, from there"
        assert logged(finetuned / stage)[-1]["kind"] == "eval"
        if stage == "vae":
            kept = [name.startswith(("encoder/", "quant_conv/")) for name in before]
            assert any(kept) and not all(kept)
            assert [change == 0 for change in changes.values()] == kept


@pytest.mark.slow
def test_fine_tuned_networks_fit_the_published_ones(official, finetuned, tmp_path):
    """The decoder alone was trained: the latents' scale is the published one, and the U-Net goes on fitting."""
    out = tmp_path / "model.safetensors"
    parts = ["--vae", finetuned / "vae", "--unet", official, "--vocoder", finetuned / "vocoder"]
    assert flashsr(["weights", "pack", *map(str, parts), "-o", str(out)]) == 0
    assert load_file(out).params["scale_factor"] == pytest.approx(0.3342, rel=1e-6)
    assert flashsr(["weights", "export", str(out), "--to", "torch", "-o", str(tmp_path / "torch")]) == 0


@pytest.mark.training
def test_an_encoder_can_only_be_kept_where_there_is_one(dataset, tmp_path):
    code, stderr = run("vae", tmp_path, dataset, "--config.train_encoder=False")
    assert code == 1 and "set config.init_from" in stderr.strip().splitlines()[-1]
    code, stderr = run("finetune:decoder", tmp_path, dataset)
    assert code == 1 and "choose a stage of vocoder, vae" in stderr and "Traceback" not in stderr
    code, stderr = run_here(["--config", "none.py", "--workdir", str(tmp_path)])
    assert code == 1 and "there is no file none.py" in stderr and "Traceback" not in stderr


@pytest.fixture(scope="module")
def ablations(runs, dataset, tmp_path_factory) -> Path:
    """A folder of runs: those of all stages, and the ablations, which the command configures and a toy stage trains."""
    folder = tmp_path_factory.mktemp("ablations")
    for stage, path in runs.items():
        shutil.copytree(path, folder / stage, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    sources = [f"--config.vae_from={runs['vae']}", f"--config.teacher_from={runs['teacher']}"]
    for name, (stage, changes) in ABLATIONS.items():
        options = [*changes.split(), "--config.steps=4", *(sources if stage == "student" else [])]
        toy = toy_stage(role=stage, metric=micro.get_config(stage).best_metric)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(loop.STAGES, stage, toy)
            code, stderr = run(stage, folder / name, dataset, *options)
        assert code == 0, stderr
    return folder


@pytest.mark.training
def test_the_papers_ablations_are_short_overrides(ablations):
    """What they train and log: traced, with the configuration that the overrides made."""
    weights, terms = {}, {}
    for name in ABLATIONS:
        config = finished.get_config(ablations / name / "config.json")
        stage, shapes, batch = STAGES[config.stage], Run.of(config), batch_shapes(config, 2)
        step = functools.partial(stage.train_step, config)
        terms[name] = jax.eval_shape(step, shapes.state, shapes.frozen, batch, KEY)[1].keys()
        weights[name] = shapes.state.weights
        jax.eval_shape(functools.partial(stage.eval_step, config), weights[name], shapes.frozen, batch, KEY)
    assert "distill" in terms["distill"] and not {"adversarial", "dmd", "head"} & terms["distill"]
    assert {"distill", "adversarial", "head"} <= terms["adversarial"] and "dmd" not in terms["adversarial"]
    mel_only = weights["mel_only"]["vocoder"]
    assert "lr_branch" not in mel_only and "conv_pre" in mel_only
    manual = (ROOT / "docs" / "training.md").read_text()
    assert all(changes in manual for _, changes in ABLATIONS.values())


@pytest.mark.training
def test_runs_are_listed_with_their_scores_and_what_sets_them_apart(ablations, capsys):
    assert flashsr(["runs", str(ablations), "--json"]) == 0
    listed = {run["name"]: run for run in json.loads(capsys.readouterr().out)}
    assert listed.keys() == {path.name for path in ablations.iterdir()}
    for name, (stage, metric) in {
        "mel_only": ("vocoder", "lsd"),
        "vocoder": ("vocoder", "lsd"),
        "distill": ("student", "mel_l1"),
        "teacher": ("teacher", "velocity_mse"),
    }.items():
        scores = [line for line in logged(ablations / name) if line["kind"] == "eval"]
        assert (listed[name]["stage"], listed[name]["metric"]) == (stage, metric)
        assert listed[name]["best"][metric] == min(line[metric] for line in scores)
        assert listed[name]["step"] == listed[name]["steps"] == scores[-1]["step"]
    assert listed["adversarial"]["differs_in"] == {}  # between the other two
    assert listed["distill"]["differs_in"] == {"losses.adversarial": [0, 0, 0, 0]}
    assert flashsr(["runs", str(ablations)]) == 0
    table = capsys.readouterr().out
    assert re.search(r"^mel_only +4/4 +[0-9.]+\* ", table, re.MULTILINE)
    assert re.search(r"^vocoder +12/12 .* model.vocoder.lr_conditioned=True", table, re.MULTILINE)
    assert flashsr(["runs", str(ROOT / "configs")]) == 1
    assert "no training run there or below" in capsys.readouterr().err


@pytest.mark.training
def test_the_folder_of_a_run_alone_makes_it_again(runs, tmp_path):
    """Bit for bit, on the same machine; the folder says with which code, packages, devices, data and networks."""
    shutil.copy(runs["vae"] / "config.json", tmp_path / "config.json")
    code, stderr = run_here(["--config", str(tmp_path / "config.json"), "--workdir", str(tmp_path / "again")])
    assert code == 0, stderr
    assert_same_checkpoint(runs["vae"], tmp_path / "again", 12)
    starts = [json.loads((folder / "provenance.jsonl").read_text()) for folder in (runs["vae"], tmp_path / "again")]
    for start in starts:
        assert start["step"] == 0 and start.pop("time") and start.pop("command")
    assert starts[0] == starts[1]
    assert starts[0]["seed"] == 0 and len(starts[0]["manifests"]["data"]) == 64
    assert starts[0]["networks"].keys() == {"vocoder"} and starts[0]["packages"]["jax"]
    if (ROOT / ".git").exists():
        assert len(starts[0]["code"]["commit"]) == 40
        patch = starts[0]["code"]["patch"]
        assert patch is None or (runs["vae"] / patch).read_text() == (tmp_path / "again" / patch).read_text()


@pytest.mark.training
def test_what_a_resumed_run_changes_is_kept_and_said(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage())
    options = ["--config.best_metric=error", "--config.eval.every=100"]
    code, stderr = run("vae", tmp_path / "vae", dataset, *options, "--config.steps=6")
    assert code == 0, stderr
    shutil.copytree(dataset, tmp_path / "other")
    with (tmp_path / "other" / "manifest.csv").open("a") as manifest:
        manifest.write("\n")
    code, stderr = run("vae", tmp_path / "vae", tmp_path / "other", *options, "--config.steps=7")
    assert code == 0 and "goes on with another data than before" in stderr, stderr
    first, second = map(json.loads, (tmp_path / "vae" / "provenance.jsonl").read_text().splitlines())
    assert second["step"] == 6 and second["manifests"] != first["manifests"]
    assert second["changes"]["steps"] == [6, 7] and second["changes"].keys() == {"steps", "data.dir"}


def test_a_configuration_of_another_version_or_of_something_else_is_one_line(tmp_path):
    fields = json.loads(micro.get_config("vae").to_json())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    assert finished.get_config(path) == micro.get_config("vae")
    del fields["data"]["floor_probability"], fields["data"]["bright"], fields["accumulate"]  # of later versions
    path.write_text(json.dumps(fields))
    assert finished.get_config(path) == micro.get_config("vae")
    student = json.loads(micro.get_config("student").to_json())
    for name in ("distill_mel", "waveform", "features"):
        del student["losses"][name]
    del student["teacher_gate"], student["teacher_gate_steps"]
    path.write_text(json.dumps(student | {"guidance": [1.0, 1.5]}))
    read = finished.get_config(path)
    assert not read.teacher_gate and read.losses.waveform == (0.0,) * 4 and read.guidance.music == (1.0, 1.5)
    del fields["max_skipped_steps"], fields["data"]["order"]
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match="has no data.order, max_skipped_steps: another version wrote it; check out"):
        finished.get_config(path)
    for content in ("[]", "{", "{}", '{"stage": 1}'):
        path.write_text(content)
        with pytest.raises(UserError, match="is not the configuration of a run"):
            finished.get_config(path)
    with pytest.raises(UserError, match="No such file"):
        finished.get_config(tmp_path / "none.json")


@pytest.mark.training
def test_a_run_of_an_older_version_goes_on_without_its_field_for_no_condition(runs, dataset, tmp_path):
    """Guidance knows one latent for "no condition": a run made with it resumes and is made again; others are named."""
    shutil.copytree(runs["teacher"], tmp_path / "teacher")
    path = tmp_path / "teacher" / "config.json"
    fields = json.loads(path.read_text())
    assert "unconditional" not in fields
    path.write_text(json.dumps(fields | {"unconditional": -11.4981 * 0.3342}))
    assert "unconditional" not in finished.get_config(path)
    options = [f"--config.{name}={fields[name]}" for name in ("vae_from", "vocoder_from", "init_from")]
    code, stderr = run("teacher", tmp_path / "teacher", dataset, *options, "--config.steps=13")
    assert code == 0 and "resuming from step 12" in stderr, stderr
    assert "unconditional" not in json.loads((tmp_path / "teacher" / "provenance.jsonl").read_text().splitlines()[-1])

    path.write_text(json.dumps(fields | {"unconditional": 0.0}))
    with pytest.raises(UserError, match=r"config.json: trained with unconditional=0.0; this version knows -3.84"):
        finished.get_config(path)
    with pytest.raises(UserError, match="unconditional"):
        load_network(str(tmp_path / "teacher"), "unet", "config.teacher_from")
