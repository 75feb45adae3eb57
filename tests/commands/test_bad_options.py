"""Every word, given options that cannot be: one line that names them, exit code 1, nothing written."""

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
    "data encode --config regression:tiny --out empty --windows 3": "empty exists: choose another folder",
    "data encode --config regression:tiny --out l --windows 3": "config.vae_from is not set",
    "data build empty --out d": "no recordings in empty",
    "data build empty --out d --tfds birds": "--tfds birds: write NAME=CLASS",
    "evaluate --data none -o report --no-perceptual": "--data none: no such folder",
    "evaluate --data empty -o report --no-perceptual": "--data empty: no recordings in it",
    "evaluate --data a.wav -o report --no-perceptual --teacher x": "--latency need --weights",
    "evaluate --data a.wav -o report --no-perceptual --weights none": "no weights file at none",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_options_that_cannot_be_are_one_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").write_text("not what was asked for")
    sf.write("a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 60_000), 48_000)
    assert main(command.split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"flashsr: {MISTAKES[command]}"), line
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.wav", "empty", "notes.txt"]
