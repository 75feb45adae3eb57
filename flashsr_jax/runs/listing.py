"""`flashsr runs`: the training runs below a folder, how well each does, and in what their configurations differ."""

import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flashsr_jax.errors import UserError, one_line
from flashsr_jax.files import local
from flashsr_jax.runs.folder import (
    CONFIG_FILE,
    METRICS_FILE,
    SOURCES,
    flattened,
    gate_text,
    read_config,
    read_gate,
    read_metrics,
    read_provenance,
)

LOGGER = logging.getLogger(__name__)
COLUMNS = ("mel_l1", "lsd", "lsd_hf", "zimtohrli", "visqol")  # scores shown beside the best metric


class Run(NamedTuple):
    """One run: its folder below the one that was searched, its stage, steps done and planned; the metric that its best
    checkpoint is chosen by, the evaluation where that was lowest (with its `step`; {} before the first one), what its
    results depend on, {dotted name: value}, and what `train.gate` measured before it ({} where nothing)."""

    name: str
    stage: str
    step: int
    steps: int
    metric: str
    best: dict[str, float]
    settings: dict[str, object]
    gate: dict[str, object]


def find_runs(folder: str | os.PathLike) -> list[Run]:
    """The runs in a folder and below it, by stage and name. Raises UserError where there is none."""
    folder = local(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    runs = []
    for path, folders, files in os.walk(folder):
        if CONFIG_FILE in files and (run := _read(Path(path), folder)):
            runs.append(run)
            folders.clear()
    if not runs:
        raise UserError(f"{folder}: no training run there or below (a run's folder has a {CONFIG_FILE})")
    return sorted(runs, key=lambda run: (run.stage, run.name))


def differences(runs: list[Run]) -> list[dict[str, object]]:
    """For each run, the settings in which it is unlike most of `runs` (where none prevails, unlike the first)."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    usual = {name: Counter(repr(run.settings.get(name)) for run in runs).most_common(1)[0][0] for name in names}
    return [
        {name: run.settings.get(name) for name in names if repr(run.settings.get(name)) != usual[name]} for run in runs
    ]


class Kept(NamedTuple):
    """A checkpoint: its step, the score that the best is chosen by (None: not evaluated), its size in bytes, and how
    many arrays and numbers each of its parts holds, {"weights/vae": (arrays, numbers)}."""

    step: int
    score: float | None
    size: int
    parts: dict[str, tuple[int, int]]


def checkpoints(run: str | os.PathLike, metric: str) -> list[Kept]:
    """Those of a run, the oldest first, with their `metric`; of what cannot be read, no score and no parts. Orbax's
    files are JSON, so that none of its arrays are loaded."""
    folders = [path for path in (Path(run) / "checkpoints").glob("*") if path.name.isdecimal()]
    return [_kept(path, metric) for path in sorted(folders, key=lambda path: int(path.name))]


def _kept(folder: Path, metric: str) -> Kept:
    parts: dict[str, tuple[int, int]] = {}
    score = None
    try:
        score = json.loads((folder / "metrics" / "metrics").read_text()).get(metric)
    except FileNotFoundError:
        pass  # saved without an evaluation
    except (OSError, ValueError, AttributeError) as error:
        LOGGER.warning("%s: its score cannot be read: %s", folder, error)
    for part, depth in (("weights", 1), ("state", 2)):
        try:
            leaves = json.loads((folder / part / "_METADATA").read_text())["tree_metadata"].values()
            for leaf in leaves:
                if "write_shape" in leaf["value_metadata"]:  # else nothing: an optimizer's empty state
                    keys = [str(entry["key"]) for entry in leaf["key_metadata"][:depth]]
                    name = "/".join([part, *keys])
                    arrays, numbers = parts.get(name, (0, 0))
                    parts[name] = arrays + 1, numbers + math.prod(leaf["value_metadata"]["write_shape"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            LOGGER.warning("%s: what it holds cannot be read: %s", folder / part, error)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Kept(int(folder.name), score, size, parts)


def _contents(run: Run, kept: list[Kept]) -> str:
    """Text: the checkpoints, and what the last one holds."""
    if not kept:
        return "no checkpoint yet"
    rows = [["checkpoint", run.metric, "MB"]]
    scored = [each.score for each in kept if each.score is not None]
    for each in kept:
        best = "*" if scored and each.score == min(scored) else " "
        rows.append(
            [str(each.step), "- " if each.score is None else f"{each.score:.4g}{best}", f"{each.size / 1e6:.1f}"]
        )
    held = [["holds", "arrays", "numbers"]]
    held += [[name, str(arrays), f"{numbers:,}"] for name, (arrays, numbers) in kept[-1].parts.items()]
    return f"{_aligned(rows)}\n\ncheckpoint {kept[-1].step}\n{_aligned(held)}"


def listing(folder: str | os.PathLike) -> str:
    """Text of a table for each stage; of a run's own folder also its checkpoints, and what the last one holds."""
    by_stage: dict[str, list[Run]] = {}
    for run in find_runs(folder):
        by_stage.setdefault(run.stage, []).append(run)
    tables = [_table(stage, runs) for stage, runs in by_stage.items()]
    if (Path(folder) / CONFIG_FILE).exists():
        ((run,),) = by_stage.values()
        tables.append(_contents(run, checkpoints(folder, run.metric)))
    return "\n\n".join(tables)


def as_json(folder: str | os.PathLike) -> str:
    """The same for programs: a list of objects."""
    runs = find_runs(folder)
    stages = dict.fromkeys(run.stage for run in runs)
    unlike = [unlike for stage in stages for unlike in differences([run for run in runs if run.stage == stage])]
    objects = [
        {name: value for name, value in run._asdict().items() if name != "settings"} | {"differs_in": differs_in}
        for run, differs_in in zip(runs, unlike, strict=True)
    ]
    if (Path(folder) / CONFIG_FILE).exists():
        objects[0]["checkpoints"] = [kept._asdict() for kept in checkpoints(folder, runs[0].metric)]
    return json.dumps(objects, indent=2)


def _table(stage: str, runs: list[Run]) -> str:
    shown = [name for name in COLUMNS if any(name in run.best for run in runs)]
    metrics = list(dict.fromkeys([run.metric for run in runs] + shown))
    rows = [[stage, "steps", *metrics, "at step", "unlike the others"]]
    for run, unlike in zip(runs, differences(runs), strict=True):
        scores = [_marked(run, name) for name in metrics]
        changes = " ".join(f"{name}={_short(value)}" for name, value in unlike.items())
        rows.append([run.name, f"{run.step}/{run.steps}", *scores, str(run.best.get("step", "-")), changes])
    gates = [f"before {run.name}: {gate_text(run.gate)}" for run in runs if run.gate]
    return "\n".join([_aligned(rows, last=str.ljust), *gates])


def _aligned(rows: list[list[str]], last: Callable[[str, int], str] = str.rjust) -> str:
    """Columns: the first to the left, those after it to the right, the last as `last` has it."""
    rows = [list(map(one_line, row)) for row in rows]  # names of folders may hold anything
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        middle = [text.rjust(width) for text, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *middle, last(row[-1], widths[-1])]).rstrip())
    return "\n".join(lines)


def _marked(run: Run, name: str) -> str:
    """A score, with a star if the best checkpoint is chosen by it."""
    return f"{run.best[name]:.4g}{'*' if name == run.metric else ' '}" if name in run.best else "- "


def _short(value: object) -> str:
    """As one types it on the command line; of hashes the beginning."""
    if isinstance(value, list):
        return ",".join(map(_short, value))
    return str(value)[:10] if re.fullmatch("[0-9a-f]{40,64}", str(value)) else str(value)


def _read(path: Path, root: Path) -> Run | None:
    """The run in a folder; None where its configuration is that of something else, or damaged, which is said."""
    try:
        config = read_config(path / CONFIG_FILE)
        stage, steps, metric = config["stage"], config["steps"], config["best_metric"]
    except (UserError, KeyError) as error:
        if (path / METRICS_FILE).exists():
            why = error if isinstance(error, UserError) else f"{path / CONFIG_FILE} has no {error}"
            LOGGER.warning("%s; that run is not listed", why)
        return None
    lines = read_metrics(path)
    scored = [line for line in lines if line.get("kind") == "eval" and metric in line]
    best = min(scored, key=lambda line: line[metric], default={})
    settings = flattened(config)
    for start in read_provenance(path):  # the last one counts
        settings |= flattened({name: start[name] for name in SOURCES})
    return Run(
        path.relative_to(root).as_posix(),
        stage,
        max((line["step"] for line in lines), default=0),
        steps,
        metric,
        {name: value for name, value in best.items() if name != "kind"},
        settings,
        read_gate(path),
    )
