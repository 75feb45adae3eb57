"""The scripts that start training and upscaling on clusters: linted, and run against stubs of the clusters' own
commands, which write down what they are asked. No real cluster is ever asked: the stubs stand first in PATH."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from flashsr_jax.commands.configuration import load_configuration
from flashsr_jax.runs.folder import flattened

from helpers import ROOT

LAUNCH = ROOT / "launch"
STUBS = ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "python", "python3", "flashsr", "sleep")


@pytest.fixture
def cluster(tmp_path):
    """Runs a script among stubs; (exit code, output, what the stubs were asked, a line each). `bodies`: what they then
    do."""

    def run(*command, bodies=None, **variables):
        log = tmp_path / "asked"
        log.unlink(missing_ok=True)
        for name in STUBS:
            body = (bodies or {}).get(name, "")
            stub = tmp_path / "bin" / name
            stub.parent.mkdir(exist_ok=True)
            stub.write_text(f'#!/bin/bash\necho "{name} $*" >>{log}\n{body}\n')
            stub.chmod(0o755)
        environment = os.environ | {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"} | variables
        done = subprocess.run(["bash", *command], cwd=ROOT, env=environment, capture_output=True, text=True)
        asked = log.read_text().splitlines() if log.exists() else []
        return done.returncode, done.stdout + done.stderr, asked

    return run


def test_scripts_pass_shellcheck():
    scripts = [*LAUNCH.glob("**/*.sh"), *(ROOT / ".ci").iterdir()]
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "--exclude=SC1091", *scripts], capture_output=True, text=True)  # sourced files
    assert done.returncode == 0, done.stdout


def test_one_host_trains_a_stage_on_the_ones_before_it(cluster):
    code, output, asked = cluster(LAUNCH / "train.sh", "student", "--config.steps=5", SHARED="/shared")
    assert code == 0, output
    assert asked == [
        "python -m flashsr_jax.main --config configs/student.py:base --workdir /shared/runs/student "
        "--config.data.dir=/shared/data --config.vae_from=/shared/runs/vae --config.vocoder_from=/shared/runs/vocoder "
        "--config.teacher_from=/shared/runs/teacher --config.steps=5"
    ]
    assert cluster(LAUNCH / "train.sh", "painter", SHARED="/shared")[:2] == (
        1,
        "no stage painter: vocoder, vae, regression, teacher, student, vocoder_tuned or tune\n",
    )
    assert "SHARED" in cluster(LAUNCH / "train.sh", "vae")[1]


@pytest.mark.parametrize("stage", ["vocoder", "vae", "regression", "teacher", "student", "vocoder_tuned", "tune"])
def test_every_option_that_a_stage_is_given_is_a_field_of_its_configuration(cluster, stage):
    code, output, asked = cluster(LAUNCH / "train.sh", stage, SHARED="/shared", PRESET="small")
    assert code == 0, output
    options = asked[0].split()
    path, preset = options[options.index("--config") + 1].split(":")
    spec = importlib.util.spec_from_file_location("config", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(preset)
    for option in options:
        if option.startswith("--config."):
            field = config
            for name in option.split("=")[0].split(".")[1:]:
                field = field[name]
            assert isinstance(field, str)


def asked_of_small(cluster, tmp_path, *stages, **variables):
    """What launch/small/train.sh asks of Python, as (configuration, {option: value}) each."""
    variables = {"FLASHSR_SITE": str(tmp_path), "CORPUS": "corpus", "RUNS": "runs"} | variables
    code, output, asked = cluster(LAUNCH / "small" / "train.sh", *stages, **variables)
    assert code == 0, output
    lines = [line.split() for line in asked]
    return [
        (line[line.index("--config") + 1], dict(option.split("=", 1) for option in line if option[:9] == "--config."))
        for line in lines
    ]


def test_the_shipped_model_is_trained_by_its_configurations_alone(cluster, tmp_path):
    stages = ("vocoder", "vae", "latents", "regression", "teacher", "student", "vocoder_tuned", "tune")
    asked = asked_of_small(cluster, tmp_path, *stages)
    expected = [f"{'regression' if stage == 'latents' else stage}:small" for stage in stages]
    assert [config.removeprefix("configs/").replace(".py", "") for config, _ in asked] == expected
    for stage, (_, options) in zip(stages, asked, strict=True):
        given = {name for name in options if not name.endswith("_from")} - {"--config.data.dir"}
        assert given == ({"--config.seed", "--config.batch_size"} if stage == "latents" else set())
    variables = {"DTYPE": "bfloat16", "WORKERS": "8", "BATCH": "64", "STEPS": "1000", "DECAY": "0.9", "FROM": "small"}
    [(_, options)] = asked_of_small(cluster, tmp_path, "student", **variables)
    overrides = {"dtype": "bfloat16", "data.workers": "8", "batch_size": "64", "steps": "1000"}
    overrides |= {"phases": "250,500,750", "optimizer.student.decay": "0.9", "init_from": "small"}
    assert all(options[f"--config.{name}"] == value for name, value in overrides.items())
    code, output, _ = cluster(LAUNCH / "small" / "train.sh", "painter", FLASHSR_SITE=str(tmp_path))
    assert code == 1 and "no stage painter: vocoder vae latents" in output


def test_the_ablation_trains_each_row_once_and_reads_finished_ones(cluster, tmp_path):
    """Every option that a training is given is a field of its configuration."""
    variables = {
        "FLASHSR_SITE": str(tmp_path),
        "DATA": "data",
        "CLIPS": "clips",
        "RUNS": (runs := str(tmp_path / "runs")),
        "TEACHER": "best",
    }
    code, output, asked = cluster(LAUNCH / "ablation.sh", "--config.seed=1", **variables)
    assert code == 0, output
    trained = [line.split() for line in asked if "flashsr_jax.main" in line]
    names = [Path(line[line.index("--workdir") + 1]).name for line in trained]
    rows = ["distill", "adversarial", "dmd_self", "dmd_separate"]
    assert names == ["regression", *rows, "tune", "vocoder_lr", "vocoder_mel"]
    for name, line in zip(names, trained, strict=True):
        config = load_configuration(line[line.index("--config") + 1], [])
        options = dict(option[9:].split("=", 1) for option in line if option.startswith("--config."))
        assert set(options) <= flattened(config.to_dict()).keys() and options["seed"] == "1"
        if name in rows:
            assert options["teacher_from"] == "best" and options["init_from"] == f"{runs}/regression"
        if name == "tune":
            assert options["init_from"] == f"{runs}/dmd_separate"
    *packed, evaluate, page = [line for line in asked if "flashsr_jax.main" not in line]
    assert len(packed) == 8 and f"weights pack --vae small --unet {runs}/distill --vocoder small -o" in packed[1]
    assert Path(runs).is_dir(), "for the packed weights, whatever was trained"
    assert evaluate.startswith(f"flashsr evaluate --data clips --weights {runs}/regression.safetensors --teacher best ")
    assert (
        "--teacher-steps 50" in evaluate and "--seeds 3" in evaluate and f"--model tune={runs}/tune.safet" in evaluate
    )
    own, kept = (f"vocoder_mel{name}={runs}/vocoder_mel.safetensors" for name in ("", "_kept"))
    assert f"--own-low-band {own} --model {kept}" in evaluate
    assert page.startswith(f"python3 launch/ablation.py {runs}/report/scores.json docs/ablation.md ")
    described = [f"{name}={runs}/{name}" for name in names]
    described.insert(1, "teacher=best")
    assert page.endswith(" ".join(described))
    code, output, asked = cluster(LAUNCH / "ablation.sh", GATE="False", START="teacher", DISTILL="runs/d", **variables)
    students = [line for line in asked if "student.py" in line]
    assert len(students) == 3 and all("teacher_gate=False" in s and "init_from" not in s for s in students)


@pytest.mark.parametrize(
    "script", [s for s in LAUNCH.glob("**/*.sh") if "setup.sh" in s.read_text() and s.name != "offline.sh"], ids=str
)
def test_help_is_the_head_of_a_script_and_nothing_is_made(cluster, script, tmp_path):
    code, output, asked = cluster("-c", f"cd {tmp_path} && bash {script} --help")
    assert (code, asked) == (0, []) and f"# {output.splitlines()[0]}" == script.read_text().splitlines()[1]
    assert all(f"# {line}" in script.read_text() for line in output.splitlines())
    assert [path.name for path in tmp_path.iterdir()] == ["bin"] and not (ROOT / "--help").exists()


def test_a_stage_that_there_is_not_is_said_before_a_folder_is_made(cluster, tmp_path):
    code, output, asked = cluster(LAUNCH / "profile.sh", "teachr", OUT=str(tmp_path / "profile"))
    assert (code, asked) == (1, []) and output.startswith("profile.sh: no stage teachr: ")
    assert not (tmp_path / "profile").exists()


def test_the_corpus_is_built_where_the_user_is_with_the_users_options(cluster, tmp_path):
    command = f"cd {tmp_path} && bash {LAUNCH}/data.sh --recordings shared --workers 2"
    code, output, asked = cluster("-c", command, bodies={"python3": "pwd"}, FLASHSR_SITE=str(tmp_path))
    assert (code, output) == (0, f"{tmp_path}\n")
    assert asked == [f"python3 {LAUNCH}/small/corpus.py --recordings shared --workers 2"]


def test_the_card_measures_old_and_later_test_clips_at_every_cutoff(cluster, tmp_path):
    site = {"FLASHSR_SITE": str(tmp_path), "CORPUS": "corpus", "RUNS": f"{tmp_path}/none"}
    code, output, asked = cluster(LAUNCH / "model_card.sh", "out", **site)
    assert code == 0, output
    evaluate = "flashsr evaluate --data corpus/{} --weights small {} -o out/{}"
    at_files = "--inputs file --cutoffs 4000,8000,12000 --clips 16"
    assert asked == [
        evaluate.format("test", "--cutoffs 4000 --seeds 3", "4khz"),
        evaluate.format("test_read", "--cutoffs 4000 --seeds 3", "4khz_read"),
        evaluate.format("test", "--cutoffs 2000,8000,12000 --clips 16 --latency 200", "cutoffs"),
        evaluate.format("test_read", "--cutoffs 2000,8000,12000 --clips 16 --latency 200", "cutoffs_read"),
        evaluate.format("test", at_files, "files"),
        evaluate.format("test_read", at_files, "files_read"),
        "python3 launch/small/model_card.py out corpus",
    ]
    code, output, asked = cluster(LAUNCH / "model_card.sh", str(tmp_path / "out"), BEFORE="HEAD", **site)
    assert code == 0, output
    both = (
        f"--weights small --model before={tmp_path}/out/before.safetensors --cutoffs 4000 --seeds 3 -o {tmp_path}/out"
    )
    assert f"flashsr evaluate --data corpus/test {both}/4khz" in asked
    assert f"flashsr evaluate --data corpus/test_read {both}/4khz_read" in asked
    of_head = ["git", "cat-file", "-s", "HEAD:flashsr_jax/weights/small.safetensors"]
    size = subprocess.run(of_head, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert (tmp_path / "out/before.safetensors").stat().st_size == int(size)


@pytest.mark.parametrize(
    ("ended", "restarts", "again"), [(0, 0, False), (1, 0, False), (75, 0, True), (137, 3, True), (75, 50, False)]
)
def test_a_slurm_job_is_queued_again_unless_it_is_done_or_mistaken(cluster, ended, restarts, again):
    variables = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    bodies = {"srun": f"exit {ended}"}
    code, _, asked = cluster(LAUNCH / "slurm.sh", "teacher", bodies=bodies, SHARED="/shared", **variables)
    assert code == ended
    expected = ["srun --kill-on-bad-exit=1 bash launch/train.sh teacher"]
    assert asked == expected + (["scontrol requeue 7"] if again else [])


@pytest.mark.parametrize(
    ("ended", "restarts", "again"), [(0, 0, False), (1, 0, False), (2, 0, False), (143, 3, True), (143, 50, False)]
)
def test_a_job_of_an_array_upscales_its_part_and_is_queued_again_when_it_was_stopped(cluster, ended, restarts, again):
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "16", "SLURM_NTASKS": "1"}
    arguments = ("upscale", "-r", "/data/my songs", "-o", "/data/out")
    bodies = {"srun": '"$@"', "python": f"exit {ended}"}
    code, output, asked = cluster(LAUNCH / "slurm.sh", *arguments, bodies=bodies, **slurm, **array)
    assert code == ended, output
    assert asked == [
        "srun bash launch/upscale.sh -r /data/my songs -o /data/out",
        "python -m flashsr_jax upscale -r /data/my songs -o /data/out --shard 3/16 --skip-existing",
    ] + (["scontrol requeue 7"] if again else [])


def test_some_jobs_of_an_array_again_have_the_same_parts(cluster):
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7"}
    array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "7", "SHARDS": "16"}
    code, output, asked = cluster(LAUNCH / "slurm.sh", "upscale", "in", bodies={"srun": '"$@"'}, **slurm, **array)
    assert code == 0 and asked[1].endswith("upscale in --shard 3/16 --skip-existing"), output
    code, output, asked = cluster(LAUNCH / "slurm.sh", "upscale", "in", **slurm)
    assert code == 1 and "give sbatch --array=1-16" in output and not asked
    code, output, asked = cluster(LAUNCH / "slurm.sh", "upscale", "in", **slurm, **array, SLURM_NTASKS="16")
    assert code == 1 and "--nodes=1 --ntasks-per-node=1 --gpus-per-node=1" in output and not asked


def test_what_the_slurm_script_asks_for_are_options_of_sbatch():
    options = [line.split()[1] for line in (LAUNCH / "slurm.sh").read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--requeue", "--signal=TERM@180", "--ntasks-per-node=8", "--gpus-per-node=8"} <= set(options)


def test_a_tpu_slice_is_asked_for_and_every_host_runs_the_same(cluster):
    active = {"gcloud": 'case "$*" in *describe*) echo ACTIVE ;; esac'}
    code, output, asked = cluster(LAUNCH / "tpu_pod.sh", "create", bodies=active, NFS="10.0.0.2:/share")
    assert code == 0, output
    assert asked[0] == (
        "gcloud compute tpus queued-resources create flashsr --node-id=flashsr --accelerator-type=v5p-64 "
        "--runtime-version=v2-alpha-tpuv5 --spot --zone=us-east5-a"
    )
    assert [line.split()[3:5] for line in asked if line.startswith("gcloud")] == [
        ["queued-resources", "create"],
        ["queued-resources", "describe"],
        ["tpu-vm", "scp"],
        ["tpu-vm", "ssh"],
    ]
    arguments = ("train", "teacher", "--config.optimizer.teacher.lr=1e-4")
    code, output, asked = cluster(LAUNCH / "tpu_pod.sh", *arguments, bodies=active)
    assert code == 0 and len(asked) == 1, output
    assert "tpu-vm ssh flashsr --worker=all" in asked[0]
    assert "launch/train.sh 'teacher' '--config.optimizer.teacher.lr=1e-4'" in asked[0]


def test_a_tpu_slice_that_is_taken_away_is_asked_for_again_and_a_failed_run_is_not(cluster, tmp_path):
    gone = tmp_path / "gone"
    taken = f"""case "$*" in
      *launch/train.sh*) [ -e {gone} ] || {{ touch {gone}; exit 255; }} ;;
      *describe*) [ -e {gone}2 ] && echo ACTIVE || {{ touch {gone}2; echo SUSPENDED; }} ;;
    esac"""
    code, output, asked = cluster(
        LAUNCH / "tpu_pod.sh", "train", "vae", bodies={"gcloud": taken}, NFS="10.0.0.2:/share"
    )
    assert code == 0 and "taken away" in output
    kinds = ["train" if "launch/train.sh" in line else line.split()[4] for line in asked if line.startswith("gcloud")]
    assert kinds == ["train", "describe", "delete", "create", "describe", "scp", "ssh", "train"]
    failed = {"gcloud": 'case "$*" in *ssh*) exit 1 ;; *describe*) echo ACTIVE ;; esac'}
    code, output, asked = cluster(LAUNCH / "tpu_pod.sh", "train", "vae", bodies=failed)
    assert code == 1 and "the same command resumes it" in output and len(asked) == 2


def jobset(cluster, *arguments, **variables):
    code, output, asked = cluster(LAUNCH / "jobset.sh", *arguments, IMAGE="images/flashsr:1", CLAIM="data", **variables)
    assert code == 0 and asked == [], output
    manifest = yaml.safe_load(output)
    jsonschema.validate(manifest, json.loads((ROOT / "tests" / "jobset.schema.json").read_text()))
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    return job, job["template"]["spec"]["containers"][0]


def test_the_jobset_of_gpus_tells_every_host_who_it_is(cluster):
    job, container = jobset(cluster, "teacher", '--config.note=it\'s "one" argument', HOSTS="4")
    assert job["parallelism"] == job["completions"] == 4
    assert container["args"] == ["teacher", '--config.note=it\'s "one" argument']
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["JAX_COORDINATOR_ADDRESS"]["value"] == "flashsr-host-0-0.flashsr:8476"
    assert variables["JAX_NUM_PROCESSES"]["value"] == "4"
    assert "job-completion-index" in variables["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}


def test_the_jobset_of_tpus_leaves_that_to_jax(cluster):
    nodes = "cloud.google.com/gke-tpu-accelerator: tpu-v5p-slice\ncloud.google.com/gke-tpu-topology: 4x4x4"
    job, container = jobset(cluster, "vae", RESOURCE="google.com/tpu", PER_HOST="4", HOSTS="16", NODES=nodes)
    assert {variable["name"] for variable in container["env"]} == {"SHARED", "PRESET"}
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x4"


def test_the_jobset_that_upscales_gives_every_pod_its_part(cluster):
    job, container = jobset(cluster, "upscale", "-r", "/shared/my songs", "-o", "/shared/out", HOSTS="16")
    assert job["parallelism"] == job["completions"] == 16 and job["completionMode"] == "Indexed"
    assert container["args"] == ["-r", "/shared/my songs", "-o", "/shared/out"]
    assert container["env"] == [{"name": "SHARDS", "value": "16"}]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    (rule,) = job["podFailurePolicy"]["rules"]  # a file that cannot be read stops no other part
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailIndex", [1, 2])
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert job["backoffLimitPerIndex"] == 50 and "backoffLimit" not in job
    parts = [
        cluster(*container["command"][1:], *container["args"], SHARDS="16", JOB_COMPLETION_INDEX=str(index))[2]
        for index in (0, 15)
    ]
    command = "python -m flashsr_jax upscale -r /shared/my songs -o /shared/out --shard {}/16 --skip-existing"
    assert parts == [[command.format(1)], [command.format(16)]]


def test_the_schema_knows_a_misspelt_field(cluster):
    _, output, _ = cluster(LAUNCH / "jobset.sh", "vae", IMAGE="i", CLAIM="c")
    schema = json.loads((ROOT / "tests" / "jobset.schema.json").read_text())
    with pytest.raises(jsonschema.ValidationError, match="backoffLimits"):
        jsonschema.validate(yaml.safe_load(output.replace("backoffLimit", "backoffLimits")), schema)
