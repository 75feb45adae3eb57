"""Where a run's results come from: what its folder holds, beside its configuration, so that it can be made again.

`provenance.jsonl` has a line for every start of the run: the step it began with, code, packages, devices, the data's
manifest, the networks that it was given, and what its configuration changed since the start before. Changes of the code
that were not committed lie beside it as a patch.
"""

import hashlib
import json
import logging
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import jax
from ml_collections import ConfigDict

import flashsr_jax
from flashsr_jax.data import MANIFEST
from flashsr_jax.data.latents import ABOUT
from flashsr_jax.files import replacing
from flashsr_jax.runs.folder import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    NoConfiguration,
    flattened,
    read_config,
    read_provenance,
)

LOGGER = logging.getLogger(__name__)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy")
SOURCES = ("flashsr_jax", "configs")


def record(config: ConfigDict, workdir: Path, step: int, networks: dict[str, str]) -> None:
    """Add a line for a start at `step` to the run's provenance, before its configuration is written.

    `networks` are the fingerprints of those that the stage was given, by role. Where a run goes on with other data or
    networks than before, that is said.
    """
    if jax.process_index():
        return
    path, fields = workdir / PROVENANCE_FILE, json.loads(config.to_json())
    code, patch = _code()
    start = {
        "step": step,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "seed": fields["seed"],
        "code": code,
        "packages": {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "manifests": {name: _sha256(file) for name, file in _manifests(fields).items()},
        "networks": networks,
        "changes": _changes(workdir / CONFIG_FILE, fields),
    }
    for name in ("seed", "batch_size"):  # with another, the examples are no longer those of the run so far
        if name in start["changes"]:
            before, now = start["changes"][name]
            LOGGER.warning("%s goes on with another %s than before: %s, it was %s", workdir, name, now, before)
    starts = read_provenance(workdir)
    if starts:
        before = starts[-1]
        for name in ("manifests", "networks"):
            for part in start[name]:
                if start[name][part] != before[name].get(part):
                    LOGGER.warning("%s goes on with another %s than before (%s in %s)", workdir, part, name, path.name)
    if patch:
        with replacing(workdir / code["patch"]) as partial:
            partial.write_text(patch)
    with replacing(path) as partial:
        partial.write_text("".join(json.dumps(each) + "\n" for each in [*starts, start]))


def _manifests(config: dict) -> dict[str, Path]:
    """Files that stand for the contents of the run's data."""
    mixture = config["data"]["mixture"]
    manifests = {f"data {folder}": Path(folder) / MANIFEST for folder in mixture}
    manifests = manifests or {"data": Path(config["data"]["dir"]) / MANIFEST}
    folders = config["data"].get("latents", "").split(",")
    return manifests | {f"latents {folder}": Path(folder) / ABOUT for folder in folders if folder}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _changes(path: Path, config: dict) -> dict[str, list]:
    """{field: [before, now]} where the configuration at `path` is another."""
    if not path.exists():
        return {}
    try:
        before, now = flattened(read_config(path)), flattened(config)
    except NoConfiguration:
        return {}
    return {name: [before.get(name), now.get(name)] for name in before | now if before.get(name) != now.get(name)}


def _code() -> tuple[dict, str]:
    """(version and, of a checkout, commit and the name of the patch of what was not committed; that patch)."""
    version = {"version": flashsr_jax.__version__}
    if not (commit := _git("rev-parse", "HEAD")):
        return version, ""
    patch = _git("diff", "HEAD", "--", *SOURCES)
    for path in _git("ls-files", "--others", "--exclude-standard", "--", *SOURCES).splitlines():
        patch += _git("diff", "--no-index", "--", "/dev/null", path)
    name = f"code-{hashlib.sha256(patch.encode()).hexdigest()[:12]}.patch" if patch else None
    return version | {"commit": commit.strip(), "patch": name}, patch


def _git(*arguments: str) -> str:
    """What git says in the code's folder; nothing where that is no checkout, or there is no git."""
    root = Path(flashsr_jax.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError:
        return ""
    return done.stdout
