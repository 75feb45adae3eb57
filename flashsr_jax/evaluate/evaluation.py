"""The body of `flashsr evaluate`: which systems, on which originals, and what is written of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate import protocol, systems
from flashsr_jax.evaluate.metrics import MAIN_METRICS
from flashsr_jax.evaluate.perceptual import check_installed
from flashsr_jax.evaluate.profiles import load_profiles
from flashsr_jax.evaluate.references import Reference, load_references
from flashsr_jax.evaluate.report.page import write_report
from flashsr_jax.evaluate.report.tables import markdown_table, write_scores
from flashsr_jax.evaluate.results import Results, wall_free
from flashsr_jax.evaluate.systems import System
from flashsr_jax.files import replacing
from flashsr_jax.runs.networks import load_network
from flashsr_jax.upscale.model import Model, load_model


def evaluate(
    data: str,
    weights: str | None,
    out: str,
    *,
    split: str,
    clips: int | None,
    seconds: float,
    cutoffs_hz: Sequence[float],
    seeds: int,
    teacher: str | None,
    steps: int,
    guidance: float,
    regression: str | None,
    outputs: Mapping[str, str],
    noise_profiles: str | None,
    perceptual: bool,
    samples_per_class: int,
    save_audio: bool,
    workers: int | None,
) -> str:
    """Evaluate, write scores.csv, scores.json, tables.md and index.html to `out`, and return the tables as text.

    Raises UserError for mistakes in the arguments and where no original can be used.
    """
    if perceptual:
        check_installed()
    compared = {
        "unprocessed": System(systems.unprocessed),
        "mirror": System(systems.mirror),
        "noise": systems.noise(load_profiles(noise_profiles)),
    }
    compared |= _models(weights, teacher, steps, guidance, regression)
    for name, folder in outputs.items():
        if name in compared or name == "original":
            raise UserError(f"--outputs {name}={folder}: a system of that name is there already: choose another")
        compared[name] = systems.outputs(name, folder)
    references, problems = load_references(data, split=split, count=clips, seconds=seconds)
    if save_audio:
        compared = {name: _saving(name, system, Path(out) / "audio") for name, system in compared.items()}
        _save_originals(references, Path(out) / "audio" / "original")
    settings = {
        "data": f"{data}, {_counts(references)}",
        "weights": weights or "none",
        "input": f"Chebyshev I, order {protocol.ORDER}, zero-phase, at {', '.join(f'{hz:g}' for hz in cutoffs_hz)} Hz",
        "seeds": f"0 to {seeds - 1}" if seeds > 1 else "0",
    }
    if teacher:
        settings["teacher"] = f"{teacher}, {steps} steps, guidance {guidance:g}"
    if regression:
        settings["regression"] = regression
    results = protocol.run(
        references,
        compared,
        cutoffs_hz,
        settings=settings,
        seeds=range(seeds),
        samples_per_class=samples_per_class,
        perceptual=perceptual,
        workers=workers,
    )
    results = dataclasses.replace(results, problems=problems + results.problems)
    write_scores(results, out)
    tables = summary(results)
    with replacing(Path(out) / "tables.md") as partial:
        partial.write_text(tables + "\n", encoding="utf-8")
    return f"{tables}\n\n{write_report(results, out)}"


def summary(results: Results) -> str:
    """Tables for a README or model card: by class and cutoff, speeds, and what was left out."""
    measured = {metric for score in results.scores for metric in score.metrics}
    parts = [markdown_table(results, [metric for metric in MAIN_METRICS if metric in measured])]
    if results.speeds:
        rows = [f"| {s.system} | {s.rtf:.3f} | {1 / s.rtf:.1f} | {s.compile_s:.1f} |" for s in results.speeds]
        head = (
            "| system | processing time / audio time | times real time | compilation, s |\n| --- | ---: | ---: | ---: |"
        )
        parts.append("\n".join([head, *rows]))
    if results.problems:
        parts.append(f"Left out of the figures: {len(results.problems)} (see scores.json).")
    return "\n\n".join(parts)


def _models(
    weights: str | None, teacher: str | None, steps: int, guidance: float, regression: str | None
) -> dict[str, System]:
    """The model's systems, under the name that reports use."""
    if weights is None:
        if teacher or regression:
            raise UserError("--teacher and --regression need --weights, for the VAE and the vocoder around them")
        return {}
    loaded = load_model(weights)
    found = {"student": systems.model(loaded)}
    if teacher:
        found["teacher"] = systems.model(_with_unet(loaded, teacher, "--teacher"), steps=steps, guidance=guidance)
    if regression:
        found["regression"] = systems.model(_with_unet(loaded, regression, "--regression"))
    return found | {"ceiling": systems.ceiling(loaded)}


def _with_unet(loaded: Model, path: str, option: str) -> Model:
    """The model with another U-Net in it."""
    network = load_network(path, "unet", option)
    if network.config.vae != loaded.config.vae:
        raise UserError(f"{option} {path} learned on a VAE of other sizes than that of --weights: give another")
    config = dataclasses.replace(loaded.config, unet=network.config.unet)
    return Model(config, loaded.params | {"unet": jax.device_put(network.params)})


def _counts(references: Sequence[Reference]) -> str:
    names = [reference.class_name or "no class" for reference in references]
    counted = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return f"{len(references)} clips ({counted}), {sum(wall_free(r.wall_hz) for r in references)} of them wall-free"


def _saving(name: str, system: System, folder: Path) -> System:
    """The system, each of whose outputs (of the first seed) is also written to FOLDER/NAME/CUTOFF/CLIP.wav."""

    def process(reference: Reference, low_N: np.ndarray, cutoff_hz: float, seed: int) -> np.ndarray:
        audio_N = system.process(reference, low_N, cutoff_hz, seed)
        if seed == 0:
            _write(folder / name / f"{cutoff_hz:g}" / f"{reference.name}.wav", audio_N)
        return audio_N

    return system._replace(process=process)


def _save_originals(references: Sequence[Reference], folder: Path) -> None:
    for reference in references:
        _write(folder / f"{reference.name}.wav", reference.audio)


def _write(path: Path, audio_N: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        sf.write(partial, audio_N, SAMPLE_RATE, subtype="FLOAT", format="WAV")
