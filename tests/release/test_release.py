"""The release as its users get it: sdist and wheel are well formed, and the wheel works where there is no checkout."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import flashsr_jax

from helpers import ROOT

pytestmark = pytest.mark.training
SOURCES = ("flashsr_jax", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")  # what building reads


def call(*command: str | Path, **options) -> str:
    """Run to the end, which has to be a good one; standard output."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the sdist, as `python -m build` does, without a network."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tree / name)
    call(sys.executable, "-m", "build", "--no-isolation", tree)
    (path,) = (tree / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of a virtual environment with the wheel in it; other packages are those of these tests."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    found = call(python, "-c", "import flashsr_jax; print(flashsr_jax.__file__)", cwd=folder)
    assert Path(found).is_relative_to(folder)
    return folder / "bin"


def test_twine_accepts_the_distributions(wheel):
    files = sorted(wheel.parent.iterdir())
    assert [file.name for file in files] == [
        f"flashsr_jax-{flashsr_jax.__version__}-py3-none-any.whl",
        f"flashsr_jax-{flashsr_jax.__version__}.tar.gz",
    ]
    assert "FAILED" not in call(sys.executable, "-m", "twine", "check", "--strict", *files)


def test_the_wheel_holds_the_configurations_and_the_model(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"flashsr_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert len(configs) >= 6 and configs < names
    assert {"flashsr_jax/py.typed", "flashsr_jax/weights/small.safetensors"} < names
    assert not [name for name in names if not name.startswith(("flashsr_jax/", "flashsr_jax-"))]


def test_the_wheel_upscales_a_file(installed, tmp_path):
    sf.write(tmp_path / "in.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 8000)
    call(installed / "flashsr", "upscale", "in.wav", "-o", "out.wav", cwd=tmp_path)
    y_N, rate = sf.read(tmp_path / "out.wav")
    assert rate == 48_000 and len(y_N) == 48_000 and 0.01 < np.std(y_N) < 1


def test_the_wheel_trains(installed, dataset, tmp_path):
    """Two steps; and what a run writes has the permissions that the user's umask gives."""
    options = [f"--config.data.dir={dataset}", "--config.steps=2", "--config.eval.clips_per_class=1"]
    options += ["--config.losses.adversarial=0.0"]  # half as much to compile
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    train = [installed / "flashsr", "train", "--config", "vae:tiny", "--workdir", "run", *options]
    call(*train, cwd=tmp_path, env=environment, umask=0o002)
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 2), ("eval", 2)]
    made = [
        path for path in [run, *run.rglob("*")] if path.stat().st_mode & 0o777 != (0o775 if path.is_dir() else 0o664)
    ]
    assert len(list(run.rglob("*"))) > 5 and not made
