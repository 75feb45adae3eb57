"""launch/colab.ipynb: its cells run in their order and without a network, but for those that install."""

import json
import re
import shlex
import sys
import types

import matplotlib
import numpy as np
import pytest
import soundfile

from flashsr_jax import FlashSR
from flashsr_jax.cli import main
from flashsr_jax.weights.shipped import SHIPPED
from flashsr_jax.weights.store import save_weights

from helpers import ROOT
from helpers.micro_model import MICRO, micro_params
from helpers.training import run_here

NOTEBOOK = ROOT / "launch" / "colab.ipynb"


def cells(tag: str | None) -> list[str]:
    """The code of the cells with this tag, or with none."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code)
    return ["".join(cell["source"]) for cell in code if cell["metadata"].get("tags", [None]) == [tag]]


class Notebook:
    """Cells share their names; `!flashsr ...` runs in this process; `display` and the last value of a cell are kept."""

    def __init__(self):
        self.shown = []
        self.names = {"display": self.display, "shell": self.shell}

    def display(self, *values: object) -> None:
        self.shown += values

    def shell(self, line: str) -> None:
        program, word, *options = shlex.split(re.sub(r"\{(\w+)\}", lambda name: str(self.names[name[1]]), line))
        assert program == "flashsr"
        if word == "train":
            code, stderr = run_here(options)
            assert code == 0, stderr
        else:
            assert main([word, *options]) == 0

    def run(self, cell: str) -> None:
        *body, last = re.sub("^!(.*)$", lambda line: f"shell({line[1]!r})", cell, flags=re.MULTILINE).splitlines(True)
        exec("".join(body), self.names)
        if last.strip().endswith(";") or re.match(r"\w+ = |display|shell", last):
            exec(last, self.names)
        else:
            self.display(eval(last.partition("#")[0], self.names))


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """In a folder with a clone of the repository, as the cells that install leave it, with a model that is fast."""
    display = types.ModuleType("IPython.display")
    display.Audio = lambda data, rate=None: ("audio", data, rate)
    display.Image = lambda file: ("image", file)
    ipython = types.ModuleType("IPython")
    ipython.get_ipython, ipython.version_info = lambda: None, (9, 0)  # which pyplot asks for
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    save_weights(tmp_path / "micro.safetensors", MICRO, micro_params())
    monkeypatch.setitem(SHIPPED, "small", tmp_path / "micro.safetensors")
    (tmp_path / "repository").symlink_to(ROOT)
    monkeypatch.chdir(tmp_path)
    return Notebook()


def test_a_recording_is_restored_heard_and_seen(notebook, tmp_path):
    for cell in cells(None):
        notebook.run(cell)
    before, after, picture, array = notebook.shown
    assert before == ("audio", "telephone.wav", None) and after == ("audio", "restored.wav", None)
    x_N, rate = soundfile.read("telephone.wav")
    y_N, rate_out = soundfile.read("restored.wav")
    assert (rate, rate_out) == (8000, 48_000) and len(y_N) == 6 * len(x_N) > 2 * 48_000
    assert picture == ("image", "restored.png") and (tmp_path / "restored.png").read_bytes().startswith(b"\x89PNG")
    assert array[0] == "audio" and array[2] == FlashSR.sample_rate
    assert np.corrcoef(array[1][0], y_N)[0, 1] > 0.995  # but for the limiter of files


@pytest.mark.training
def test_a_vocoder_takes_its_first_steps(notebook, dataset, tmp_path):
    matplotlib.use("agg")
    (tmp_path / "data").symlink_to(dataset)
    smaller = {"vocoder:tiny": f"{ROOT}/tests/helpers/micro.py:vocoder", "config.steps=100": "config.steps=4"}
    (build, train), plot = (cell.splitlines(True) for cell in cells("train"))
    assert build.startswith("!flashsr data build repository/tests/recordings --csv") and build.endswith("--out data\n")
    for given, used in smaller.items():
        assert given in train
        train = train.replace(given, used)
    notebook.run(train)
    notebook.run("".join(plot))
    (line,) = notebook.names["pyplot"].gca().lines
    steps, losses = line.get_data()
    assert (steps[0], steps[-1]) == (2, 4) and np.isfinite(losses).all()
    notebook.names["pyplot"].close()


def test_what_installs_takes_the_repository_itself():
    (install,) = cells("install")
    assert install.endswith('%pip install --quiet "./repository[train]"')
