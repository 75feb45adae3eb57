"""A run's folder: the names of what lies in it beside its checkpoints, and the one reader of each."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from flashsr_jax.errors import UserError

LOGGER = logging.getLogger(__name__)
# What a run leaves in its folder, beside its checkpoints.
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
PROVENANCE_FILE = "provenance.jsonl"
GATE_FILE = "gate.json"  # of a student: its teacher beside the network that it starts from
SOURCES = ("code", "packages", "devices", "manifests", "networks")  # of the provenance: what else results depend on
GATED = ("teacher", "init_from", "noise")  # the systems that a gate has scores of
LOCK_FILE = ".lock"  # while it runs: by which process
# Fields without which a configuration is not that of a run, and their types.
NEEDED = {"stage": str, "model": dict}


class NoConfiguration(UserError):
    """A file that should be the configuration of a run is damaged, or something else."""


def read_config(path: str | os.PathLike) -> dict:
    """The fields of a run's configuration, from its `CONFIG_FILE` (or a copy of it).

    Raises NoConfiguration, a UserError, where it is none, and UserError where the run was made with another latent for
    "no condition" than `models.diffusion.UNCONDITIONAL`: older versions had a field for it.
    """
    try:
        fields = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise NoConfiguration(f"{path} is not the configuration of a run: {error}") from error
    for name, kind in NEEDED.items():
        if not isinstance(fields, dict) or not isinstance(fields.get(name), kind):
            raise NoConfiguration(f"{path} is not the configuration of a run: it has no {name}, or another kind of it")
    if "unconditional" in fields:
        _check_unconditional(path, fields.pop("unconditional"))
    return fields


def _check_unconditional(path: str | os.PathLike, value: float) -> None:
    from flashsr_jax.models.diffusion import UNCONDITIONAL  # with JAX, which takes its time

    if not math.isclose(value, UNCONDITIONAL, rel_tol=1e-6):
        raise UserError(
            f"{path}: trained with unconditional={value}; this version knows {UNCONDITIONAL:.6g} alone: train it again"
        )


def read_metrics(folder: str | os.PathLike) -> list[dict]:
    """The lines of a run's metrics, each with its `step` and its `kind` ("train" or "eval"); none before the first."""
    return _read_lines(Path(folder) / METRICS_FILE, _is_measured)


def _is_measured(line: dict) -> bool:
    """Whether a line has what all metrics have, in their types."""
    numbers = (value for name, value in line.items() if name != "kind")
    return {"step", "kind"} <= line.keys() and all(isinstance(value, (int, float)) for value in numbers)


def read_provenance(folder: str | os.PathLike) -> list[dict]:
    """A dict for every start of a run, see `runs.provenance`; none before the first."""
    return _read_lines(Path(folder) / PROVENANCE_FILE, _is_start)


def read_gate(folder: str | os.PathLike) -> dict:
    """What `train.gate` measured before a run; {} where nothing was, and where the file is damaged."""
    path = Path(folder) / GATE_FILE
    try:
        gate = json.loads(path.read_text())
        whole = {"metric", "margin", "scores", "settings"} <= gate.keys()
        return gate if whole and all(isinstance(gate["scores"][name][gate["metric"]], float) for name in GATED) else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        LOGGER.debug("%s is damaged", path)
        return {}


def gate_text(gate: Mapping) -> str:
    """The systems of a gate side by side, on one line."""
    columns = dict.fromkeys((gate["metric"], "lsd"))
    return "; ".join(
        f"{system} {', '.join(f'{name} {gate_score(gate, system, name):.4g}' for name in columns)}" for system in GATED
    )


def gate_score(gate: Mapping, system: str, metric: str) -> float:
    """NaN where it was not measured."""
    return gate["scores"][system].get(metric, math.nan)


def _is_start(line: dict) -> bool:
    return all(isinstance(line.get(name), Mapping) for name in SOURCES)


def _read_lines(path: Path, is_whole: Callable[[dict], bool]) -> list[dict]:
    """Objects of a file with one a line. Damaged lines are passed over, with a warning that counts them; without one
    the last, where it is being written, or was when its process died."""
    found, damaged = [], []
    lines = path.read_text(errors="replace").splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict) and is_whole(value):
            found.append(value)
        elif line.endswith("\n"):
            damaged.append(number)
    if damaged:
        LOGGER.warning(
            "%s: %d of %d lines are damaged and left out, the first of them line %d",
            path,
            len(damaged),
            len(lines),
            damaged[0],
        )
    return found


def flattened(tree: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested fields by their dotted names: {"optimizer.vae.lr": 0.001, ...}."""
    flat: dict[str, object] = {}
    for name, value in tree.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
