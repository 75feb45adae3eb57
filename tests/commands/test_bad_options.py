"""Every word, given options that cannot be: one line that names them, exit code 1, nothing written."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from flashsr_jax.cli import main

MISTAKES = {
    "compare a.wav none.wav --reference a.wav --no-perceptual": "none.wav: No such file or directory",
    "compare a.wav notes.txt --reference a.wav --no-perceptual": "notes.txt cannot be read as audio",
    "compare a.wav a.wav --reference a.wav --no-perceptual --cutoff nan": "--cutoff nan: give a frequency over 0",
    "runs none": "none: no such folder",
    "runs empty": "empty: no training run there or below",
    "weights pack --vae empty -o o.safetensors": "--vae empty is not the folder of a training run",
    "weights pack --vae a.wav -o o.safetensors": "a.wav is not a safetensors file",
    "weights pack --unet small -o nowhere/o.safetensors": "cannot write nowhere/o.safetensors: the folder nowhere does",
    "weights pack --unet small -o empty": "cannot write empty: it is a folder",
    "weights import notes.txt -o o.safetensors": "notes.txt is no checkpoint of PyTorch",
    "weights export none --to torch -o out": "no weights file at none",
    "benchmark --preset huge": "no preset 'huge': choose one of tiny, small, base",
    "benchmark --device tpu": "--device tpu: there is none here",
    "plan --config notes.txt": "--config notes.txt: there is no stage 'notes.txt'",
    "plan --config vae:tiny --config.mesh.fsdp=7": "mesh data=-1 x fsdp=7 does not cover 8 devices",
    "plan --config vae:tiny --devices 1 --config.data.window_frames=7": "a window must be a positive multiple of",
    "plan --config vae:tiny --devices 1 --config.dtype=int7": "config.dtype='int7' is not one of float32, bfloat16",
    "plan --config vae:tiny --devices 1 --config.model.unet.blocks=1000000": "U-Net: blocks=1000000: integers from",
    "train --config vae:tiny --workdir w --num_processes x": "num_processes=x is not a number",
    "train --config vocoder:tiny --workdir w --config.data.dir=none": "data.dir=none: no dataset there",
    "train --config vae --workdir w": "configs/vae.py:(nothing): choose a preset: tiny, small, base",
    "train --config notes.py --workdir w": "notes.py asks for its size: write notes.py:SIZE",
    "train --config empty.py --workdir w": "empty.py is no configuration: it has no function get_config",
    "train --config none.py:none --workdir w": "--config none.py:none: TypeError: its configuration is 'none', not a",
    "train --config vae:tiny": "--workdir is missing: name the run's folder",
    "train --config short.py --workdir w": "--config short.py has no accumulate, batch_size, best_metric",
    "train --config short.py --workdir w --config.stage=x": "--config short.py: there is no stage 'x'; those are vae, ",
    "train --config vae:tiny --workdir w --config.log_every=0": "config.log_every=0: give a whole number of 1 or more",
    "plan --config vae:tiny --config.checkpoint.every=0": "config.checkpoint.every=0: give a whole number of 1 or more",
    "plan --config vae:tiny --config.checkpoint.keep_last=-1": "config.checkpoint.keep_last=-1: give a whole number of",
    "plan --config vae:tiny --config.eval.every=-5": "config.eval.every=-5: give a whole number of 1 or more",
    "plan --config vae:tiny --config.eval.clips_per_class=0": "config.eval.clips_per_class=0: give a whole number of 1",
    "plan --config vae:tiny --config.batch_size=-8": "config.batch_size=-8: give a whole number of 1 or more",
    "plan --config vae:tiny --config.steps=0": "config.steps=0: give a whole number of 1 or more",
    "plan --config vae:tiny --config.seed=-1": "config.seed=-1: give a whole number from 0 to 4294967295",
    "plan --config vae:tiny --config.data.workers=-1": "config.data.workers=-1: give a whole number from 0 to 1024",
    "plan --config vae:tiny --config.data.window_frames=0": "config.data.window_frames=0: give a whole number of 1 or",
    "plan --config regression:tiny --config.losses.mel_quantile=2": "config.losses.mel_quantile=2.0: give a number",
    "plan --config vae:tiny --config.ema_decay=2": "config.ema_decay=2.0: give a number from 0.0 to 1.0",
    "plan --config vae:tiny --config.optimizer.vae.decay_steps=0": "config.optimizer.vae.decay_steps=0: give a whole",
    "plan --config vae:tiny --config.optimizer.vae.lr=nan": "config.optimizer.vae.lr=nan: give a number of 0.0 or more",
    "plan --config student:tiny --config.phases=1,-2,3": "config.phases=(1, -2, 3): give a whole number of 0 or more",
    "plan --config vae:tiny --config.data.class_weights.music=-1": "config.data.class_weights.music=-1.0: give",
    "data encode --config regression:tiny --out empty --windows 3": "empty exists: choose another folder",
    "data encode --config regression:tiny --out l --windows 3": "config.vae_from is not set",
    "data build empty --out d": "no recordings in empty",
    "data build empty --out d --tfds birds": "--tfds birds: write NAME=CLASS",
    "evaluate --data none -o report --no-perceptual": "--data none: no such folder",
    "evaluate --data empty -o report --no-perceptual": "--data empty: no recordings in it",
    "evaluate --data a.wav -o report --no-perceptual --teacher x": "--teacher, --regression and --latency need",
    "evaluate --data a.wav -o report --no-perceptual --weights none": "no weights file at none",
}


CONFIGURATIONS = {
    "empty.py": "",
    "none.py": "def get_config(name):\n    return name\n",
    "notes.py": "def get_config(size):\n    return size\n",
    "short.py": "from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({'stage': 'vae'})\n",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_options_that_cannot_be_are_one_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").write_text("not what was asked for")
    for name, text in CONFIGURATIONS.items():
        Path(name).write_text(text)
    sf.write("a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 60_000), 48_000)
    assert main(command.split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: {MISTAKES[command]}"), line
    assert {path.name for path in tmp_path.rglob("*")} == {"a.wav", "empty", "notes.txt", *CONFIGURATIONS}


ADDRESSES = (
    "train --config vae:tiny --workdir gs://b/run",
    "train --config vae:tiny --workdir s3://b/run --eval-only",
    "train --config vae:tiny --workdir w --config.batch_size=8 --config.data.dir=s3://b/data",
    "train --config regression:tiny --workdir w --config.vae_from=gs://b/vae",
    "data build a.wav --out memory://d",
    "data build gs://b/recordings --out d",
    "data encode --config regression:tiny --out gs://b/l --windows 3",
    "benchmark train --config vae:tiny --checkpoint gs://b/c",
    "runs gs://b/runs",
    "evaluate --data s3://b/data -o report --no-perceptual",
    "evaluate --data a.wav -o s3://b/report --no-perceptual",
    "weights pack --unet gs://b/w.safetensors -o o.safetensors",
    "weights pack --unet small -o gs://b/o.safetensors",
    "weights export small --to orbax -o gs://b/o",
)


@pytest.mark.parametrize("command", ADDRESSES)
def test_storage_by_its_address_is_refused_instead_of_a_folder_of_that_name(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sf.write("a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 60_000), 48_000)
    assert main(command.split()) == 1
    (address,) = (word.rpartition("=")[2] for word in command.split() if "://" in word)
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"{address}: storage is not read or written by its address: mount it", line), line
    assert [path.name for path in tmp_path.rglob("*")] == ["a.wav"]
