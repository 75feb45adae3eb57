"""What the page consists of: its own files, the graphs of a model, onnxruntime-web."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import flashsr_jax
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate import report
from flashsr_jax.exchange import graphs
from flashsr_jax.extras import needing
from flashsr_jax.files import cache_folder, replacing
from flashsr_jax.web.runtime import runtime_files
from flashsr_jax.weights.shipped import weights_path

PAGE = Path(__file__).parent / "page"
PLAYER = Path(report.__file__).parent / "static" / "player.js"  # one of the page's modules, which reports have, too
MODEL = "model.json"  # by which a folder of exported graphs is known


def site(weights: str | os.PathLike = "small", runtime: str | os.PathLike | None = None) -> dict[str, Path]:
    """The files of the page by their addresses, relative to its own: `model/model.json`, say.

    `weights`: a weights file or what `weights.shipped.weights_path` takes, whose graphs are exported to the cache once;
    or the folder of graphs that `flashsr weights export --to onnx` wrote. `runtime`: as `runtime_files` takes it.
    Raises UserError where something is missing or cannot be read.
    """
    cache = cache_folder() / "web"
    model = graphs_folder(weights, cache)
    files = {path.name: path for path in (*PAGE.iterdir(), PLAYER) if path.is_file()}
    files |= {f"model/{path.name}": path for path in _graphs(model)}
    return files | {f"runtime/{name}": path for name, path in runtime_files(cache, runtime).items()}


def write(files: dict[str, Path], folder: str | os.PathLike) -> None:
    """Copy the files of `site` into a folder that any web server can serve."""
    for address, source in files.items():
        path = Path(folder) / address
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            shutil.copyfile(source, partial)


def graphs_folder(weights: str | os.PathLike, cache: Path) -> Path:
    """The folder of a model's graphs, `weights` itself or one in the cache, exported where it is not there yet.

    Raises UserError where there is neither a weights file nor such a folder.
    """
    if (Path(weights) / MODEL).is_file():
        _check(Path(weights))
        return Path(weights)
    path = weights_path(weights)
    if not path.is_file():
        raise UserError(f"{weights}: no weights file and no folder of graphs", "weights")
    digest = hashlib.sha256(flashsr_jax.__version__.encode())
    for source in (path, *sorted(Path(graphs.__file__).parent.glob("*.py"))):
        digest.update(source.read_bytes())
    folder = cache / f"graphs-{digest.hexdigest()[:32]}"
    if not (folder / MODEL).is_file():  # which is written last
        with needing("onnx", "the page's model"):
            from flashsr_jax.devices.runtime import enable_compilation_cache
            from flashsr_jax.exchange.graphs.onnx_files import export_onnx
        print("flashsr: exporting the model to ONNX (once)", file=sys.stderr)
        enable_compilation_cache()
        export_onnx(str(path), folder)
    return folder


def _check(folder: Path) -> None:
    """Raise UserError where a folder does not hold graphs that the page runs."""
    from flashsr_jax.exchange.graphs.contract import FORMAT

    try:
        about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        known = about["format"] == FORMAT and "opset" in about
        files = [folder / graph["file"] for graph in about["graphs"].values()]
    except (ValueError, TypeError, KeyError, AttributeError):
        known, files = False, []
    if not known:
        raise UserError(f"{folder}: {MODEL} does not describe graphs of ONNX ({FORMAT}): export them again", "weights")
    if missing := [path.name for path in files if not path.is_file()]:
        raise UserError(f"{folder}: {MODEL} names {missing[0]}, which is not there: export again", "weights")


def _graphs(folder: Path) -> list[Path]:
    about = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    return [folder / MODEL, *(folder / graph["file"] for graph in about["graphs"].values())]
