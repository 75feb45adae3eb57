"""What the program writes has the permissions that the user's umask gives, whatever the library beneath chooses."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import flashsr_jax.upscale.files
from flashsr_jax.cli import main
from flashsr_jax.evaluate.report.page import write_report
from flashsr_jax.evaluate.report.tables import write_scores
from flashsr_jax.exchange.published import export_orbax, export_torch
from flashsr_jax.files import replacing
from flashsr_jax.weights.store import load_weights, save_weights

from helpers.micro_model import MICRO, micro_params
from helpers.synthetic_results import synthetic_results


@pytest.fixture(params=[0o022, 0o002], ids=["022", "002"], autouse=True)
def umask(request, tmp_path, monkeypatch) -> Iterator[int]:
    """In a folder of its own."""
    monkeypatch.chdir(tmp_path)
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def strange(umask: int) -> list[str]:
    """Files and folders here whose permissions are not those of new ones."""
    return [
        f"{path}: {path.stat().st_mode & 0o777:o}"
        for path in Path().rglob("*")
        if path.stat().st_mode & 0o777 != (0o777 if path.is_dir() else 0o666) & ~umask
    ]


def test_a_file_that_is_replaced(umask):
    Path("file").touch(0o600)
    with replacing("file") as partial:
        partial.unlink()
        partial.touch(0o600)  # as a library does that renames a temporary file of its own
    assert strange(umask) == []


def test_a_disk_without_permissions(umask, monkeypatch):
    """Of a card or a network: it refuses to be asked for some."""

    def refused(path, mode):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(path))

    monkeypatch.setattr(Path, "chmod", refused)
    with replacing("file") as partial:
        partial.write_bytes(b"all")
    assert Path("file").read_bytes() == b"all" and strange(umask) == []


def test_weights_and_what_is_made_of_them(umask):
    save_weights("all.safetensors", MICRO, micro_params())
    networks = [f"--{name}=all.safetensors" for name in ("vae", "unet", "vocoder")]
    assert main(["weights", "pack", *networks, "-o", "packed.safetensors"]) == 0
    weights = load_weights("packed.safetensors")
    export_torch(weights, {}, "torch", "pth")
    export_torch(weights, {}, "torch", "safetensors")
    export_orbax(weights, "orbax")
    assert len([path for path in Path().rglob("*") if path.is_file()]) > 10
    assert strange(umask) == []


def test_sound_and_its_pictures(umask, monkeypatch):
    def repeat(model, blocks, sample_rate, **_):
        return (np.repeat(block, 48_000 // sample_rate, axis=1) for block in blocks)

    monkeypatch.setattr(flashsr_jax.upscale.files, "upscale_stream", repeat)
    sf.write("in.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 4000), 8000)
    for suffix in ("wav", "flac"):
        assert main(["upscale", "in.wav", "-o", f"new/{suffix}/out.{suffix}", "--spectrogram"]) == 0
    assert len(list(Path("new").rglob("out.*"))) == 4
    assert strange(umask) == []


@pytest.mark.parametrize("umask", [0o002], indirect=True)  # drawing takes seconds
def test_scores_and_the_report(umask):
    results = synthetic_results(0.1)
    write_scores(results, "report")
    write_report(results, "report")
    assert sorted(path.name for path in Path("report").iterdir()) == ["index.html", "scores.csv", "scores.json"]
    assert strange(umask) == []
