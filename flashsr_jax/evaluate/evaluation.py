"""The body of `flashsr evaluate`: which systems, on which originals, and what is written of it."""

import dataclasses
import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.resampling import MIN_SAMPLE_RATE
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate import protocol, systems
from flashsr_jax.evaluate.inputs import SAID, Input
from flashsr_jax.evaluate.metrics import MAIN_METRICS
from flashsr_jax.evaluate.perceptual import check_installed
from flashsr_jax.evaluate.profiles import load_profiles
from flashsr_jax.evaluate.references import Reference, as_text, load_references
from flashsr_jax.evaluate.report.page import write_report
from flashsr_jax.evaluate.report.tables import loud_table, markdown_table, markdown_text, write_scores
from flashsr_jax.evaluate.results import Results, wall_free
from flashsr_jax.evaluate.signals import checked
from flashsr_jax.evaluate.systems import System
from flashsr_jax.files import local, replacing, writable_folder
from flashsr_jax.runs.networks import load_network
from flashsr_jax.upscale.model import Model, load_model

RESERVED = ("original", "ceiling")  # names that no model and no other system's files can have


@dataclasses.dataclass(frozen=True)
class Options:
    """What is compared, on which originals, and how.

    split, clips, seconds: as in `load_references`. cutoffs_hz: where the inputs end, which are made by `inputs`, one of
    `INPUTS`. seeds: runs of whatever draws noise. weights: the model, as `load_model` takes it. latency_ms: the model
    once more, as it upscales live. teacher, regression: other U-Nets to put in it, as `load_network` takes them;
    teacher_steps, teacher_guidance: its solvers, each step count with each scale, which may be by class. models: (name,
    file) of other models; own_low_band: of those that are heard with the networks' own band under the cutoff, not the
    input's. outputs: (name, folder) of other systems' files. noise_profiles: a file for the noise baseline. perceptual:
    measure Zimtohrli and ViSQOL too. samples_per_class: clips to listen to. save_audio: keep every input and output.
    workers: processes that measure (None: one a core).
    """

    split: str = "test"
    clips: int | None = None
    seconds: float = 5.12
    cutoffs_hz: Sequence[float] = (2000.0, 4000.0, 6000.0, 8000.0, 12_000.0, 16_000.0)
    inputs: str = "low-pass"
    seeds: int = 1
    weights: str | None = None
    latency_ms: float | None = None
    teacher: str | None = None
    teacher_steps: Sequence[int] = (50,)
    teacher_guidance: Sequence[float | Mapping[str, float]] = (1.0,)
    regression: str | None = None
    models: Sequence[tuple[str, str]] = ()
    own_low_band: Sequence[tuple[str, str]] = ()
    outputs: Sequence[tuple[str, str]] = ()
    noise_profiles: str | None = None
    perceptual: bool = True
    samples_per_class: int = 2
    save_audio: bool = False
    workers: int | None = None


def evaluate(data: str, out: str, options: Options) -> str:
    """Evaluate, write scores.csv, scores.json, tables.md and index.html to `out`, and return the tables as text.

    Raises UserError for mistakes in the arguments, and where nothing could be measured; the reasons are then in
    scores.json.
    """
    if options.perceptual:
        check_installed()
    lowest_hz = min(options.cutoffs_hz)
    if options.inputs != "low-pass" and lowest_hz < MIN_SAMPLE_RATE / 2:
        raise UserError(
            f"{lowest_hz:g}: its file would have under {MIN_SAMPLE_RATE} Hz: give {MIN_SAMPLE_RATE // 2} or more",
            "cutoffs",
        )
    data, out = str(local(data)), str(local(out))
    compared, model, settings = _systems(options)
    references, problems = load_references(data, split=options.split, count=options.clips, seconds=options.seconds)
    writable_folder(out)
    if options.save_audio:
        _check_own_folders(compared)
        compared = {name: _saving(name, system, Path(out) / "audio") for name, system in compared.items()}
        _save_originals(references, Path(out) / "audio" / "original")
    settings = {"data": f"{data}, {_counts(references)}", **settings}
    settings = {name: as_text(said) for name, said in settings.items()}
    results = protocol.run(
        references,
        compared,
        options.cutoffs_hz,
        settings=settings,
        inputs=options.inputs,
        seeds=range(options.seeds),
        samples_per_class=options.samples_per_class,
        perceptual=options.perceptual,
        workers=options.workers,
    )
    results = dataclasses.replace(results, problems=problems + results.problems, model=model)
    write_scores(results, out)
    tables = summary(results)
    with replacing(Path(out) / "tables.md") as partial:
        partial.write_text(tables + "\n", encoding="utf-8")
    return f"{tables}\n\n{write_report(results, out)}"


def summary(results: Results) -> str:
    """Tables for a README or model card: by class and cutoff, loud moments, speeds, and what was left out."""
    measured = {metric for score in results.scores for metric in score.metrics}
    parts = [markdown_table(results, [metric for metric in MAIN_METRICS if metric in measured])]
    if loud := loud_table(results):
        parts.append(f"Loud moments, dB against the original (loud_band_gain_db, by band):\n\n{loud}")
    if results.speeds:
        rows = [
            f"| {markdown_text(s.system)} | {s.rtf:.3f} | {1 / s.rtf:.1f} | {s.compile_s:.1f} |" for s in results.speeds
        ]
        head = (
            "| system | processing time / audio time | times real time | compilation, s |\n| --- | ---: | ---: | ---: |"
        )
        parts.append("\n".join([head, *rows]))
    if results.problems:
        parts.append(f"Left out of the figures: {len(results.problems)} (see scores.json).")
    return "\n\n".join(parts)


def _systems(options: Options) -> tuple[dict[str, System], str | None, dict[str, str]]:
    """All systems by the names that reports use, the name of the model among them, and settings for the report.

    A model's name is what its U-Net is, and of two with one name the second is called by its whole origin.
    """
    found = {
        "unprocessed": System(systems.unprocessed),
        "mirror": System(systems.mirror),
        "noise": systems.noise(load_profiles(options.noise_profiles)),
    }
    model, settings = None, {"weights": "none"}
    if options.weights is not None:
        loaded = load_model(options.weights)
        model = _free_name(loaded, found)
        found[model] = systems.model(loaded)
        settings["weights"] = f"{options.weights} ({_made_of(loaded)})"
        if options.latency_ms is not None:
            found[f"{model}, live"] = systems.model(loaded, latency_ms=options.latency_ms, bands="auto")
            settings["live"] = f"{options.latency_ms:g} ms"
        if options.teacher:
            other = _with_unet(loaded, options.teacher, "teacher")
            found |= _solved(other, _free_name(other, found), options)
            scales = " or ".join(map(_scale_text, options.teacher_guidance))
            how = f"{', '.join(map(str, options.teacher_steps))} steps, guidance {scales}"
            settings["teacher"] = f"{options.teacher} ({other.origins['unet']}), {how}"
        if options.regression:
            other = _with_unet(loaded, options.regression, "regression")
            found[_free_name(other, found)] = systems.model(other)
            settings["regression"] = f"{options.regression} ({other.origins['unet']})"
        found["ceiling"] = systems.ceiling(loaded)
    elif options.teacher or options.regression:
        raise UserError("a teacher or regression needs weights, for the VAE and the vocoder around it")
    for argument, models in (("model", options.models), ("own_low_band", options.own_low_band)):
        for name, path in models:
            _check_free(name, path, found, argument)
            other = load_model(path)
            found[name] = systems.model(other, keep_low_band=argument == "model")
            settings[name] = f"{path} ({_made_of(other)})"
    for name, folder in options.outputs:
        _check_free(name, folder, found, "outputs")
        found[name] = systems.outputs(name, folder)
    hertz = ", ".join(f"{hz:g}" for hz in options.cutoffs_hz)
    settings["input"] = f"{SAID[options.inputs]}, at {hertz} Hz"
    settings["seeds"] = f"0 to {options.seeds - 1}" if options.seeds > 1 else "0"
    return found, model, settings


def _solved(teacher: Model, name: str, options: Options) -> dict[str, System]:
    """The teacher by each of its solvers; where there are several, its name says which."""
    found = {}
    for steps, guidance in itertools.product(options.teacher_steps, options.teacher_guidance):
        parts = [name]
        if len(options.teacher_steps) > 1:
            parts.append(f"{steps} steps")
        if len(options.teacher_guidance) > 1:
            parts.append(f"guidance {_scale_text(guidance)}")
        found[", ".join(parts)] = systems.model(teacher, steps=steps, guidance=guidance)
    return found


def _scale_text(guidance: float | Mapping[str, float]) -> str:
    if isinstance(guidance, Mapping):
        return " ".join(f"{name}={scale:g}" for name, scale in guidance.items())
    return f"{guidance:g}"


def _check_free(name: str, path: str, taken: Container[str], argument: str) -> None:
    """Raises UserError where another system has the name."""
    if name in taken or name in RESERVED:
        raise UserError(f"{name}={path}: a system of that name is there already: choose another", argument)


def _free_name(model: Model, taken: Container[str]) -> str:
    """What the model's U-Net is, else where it comes from, else that with a number."""
    origin = model.origins["unet"]
    numbered = (f"{origin} ({number})" for number in itertools.count(2))
    names = itertools.chain((model.name, origin), numbered)
    return next(name for name in names if name not in taken and name not in RESERVED)


def _with_unet(loaded: Model, path: str, argument: str) -> Model:
    """The model with another U-Net in it."""
    network = load_network(path, "unet", argument)
    if network.config.vae != loaded.config.vae:
        raise UserError(f"{path} learned on a VAE of other sizes than that of the weights: give another", argument)
    config = dataclasses.replace(loaded.config, unet=network.config.unet, expansion=network.config.expansion)
    params = loaded.params | {"unet": jax.device_put(network.params)}
    return Model(config, params, {**loaded.origins, "unet": network.origin})


def _made_of(model: Model) -> str:
    parts = [f"{network}: {origin}" for network, origin in model.origins.items()]
    if model.config.expansion:
        parts.append(f"expansion: {model.config.expansion:g}")
    if model.config.dispersed:
        parts.append("phases: dispersed")
    return ", ".join(parts)


def _counts(references: Sequence[Reference]) -> str:
    names = [reference.class_name or "no class" for reference in references]
    counted = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return f"{len(references)} clips ({counted}), {sum(wall_free(r.wall_hz) for r in references)} of them wall-free"


def _check_own_folders(names: Iterable[str]) -> None:
    """Raises UserError where two systems' outputs would replace one another."""
    by_folder: dict[str, str] = {}
    for name in names:
        other = by_folder.setdefault(_folder_name(name), name)
        if other != name:
            raise UserError(f"{name}: its audio and that of {other} would be in one folder: choose another name")


def _folder_name(system: str) -> str:
    return system.replace("/", "_")


def _saving(name: str, system: System, folder: Path) -> System:
    """The system, each of whose outputs (of the first seed) is also written to FOLDER/NAME/CUTOFF/CLIP.wav."""

    def process(reference: Reference, given: Input, seed: int) -> np.ndarray:
        audio_N = checked(system.process(reference, given, seed))
        if seed == 0:
            _write(folder / _folder_name(name) / f"{given.cutoff_hz:g}" / f"{reference.name}.wav", audio_N)
        return audio_N

    return system._replace(process=process)


def _save_originals(references: Sequence[Reference], folder: Path) -> None:
    for reference in references:
        _write(folder / f"{reference.name}.wav", reference.audio)


def _write(path: Path, audio_N: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        sf.write(partial, audio_N, SAMPLE_RATE, subtype="FLOAT", format="WAV")
