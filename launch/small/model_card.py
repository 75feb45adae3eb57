"""Writes the measured parts of MODEL_CARD.md and README.md, and the pictures, of the model that comes along.

python launch/small/model_card.py EVALUATION CORPUS [RUNS]

EVALUATION is the folder of launch/model_card.sh, CORPUS that of launch/data.sh, RUNS that of launch/small/train.sh.
Each part stands between <!-- NAME --> and <!-- /NAME --> and is replaced as a whole; the text around it is by hand.
Without RUNS what is said about training stays as it is, without EVALUATION/teacher what is said about the teacher,
without CORPUS/manifest.csv.gz (a corpus whose clips alone are at hand) what is said about the data, and where the
evaluation has no system `before` the comparison with the weights that came along before.
"""

import csv
import dataclasses
import gzip
import hashlib
import itertools
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from ml_collections import ConfigDict
from PIL import Image

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.pictures import spectrogram_figure
from flashsr_jax.data import CLASSES
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.inputs import low_passed
from flashsr_jax.evaluate.metrics import BETTER, MAIN_METRICS, PERCEPTUAL, frame_lines_db, lsd
from flashsr_jax.evaluate.references import Reference, load_references
from flashsr_jax.evaluate.report.tables import khz, loud_table, markdown_table, read_scores
from flashsr_jax.evaluate.results import BASELINES, Results
from flashsr_jax.evaluate.statistics import Comparison, paired, summarise
from flashsr_jax.files import replacing
from flashsr_jax.models.flops import preset_costs
from flashsr_jax.models.presets import preset
from flashsr_jax.runs.folder import CONFIG_FILE, METRICS_FILE
from flashsr_jax.train.batch import seconds_per_window
from flashsr_jax.upscale.model import Model, load_model
from flashsr_jax.upscale.stream import upscale
from flashsr_jax.weights.shipped import SHIPPED

NAME = "small"
STAGES = ("vocoder", "vae", "regression", "teacher", "student", "vocoder_tuned", "tune")
READ = "speech, read"  # the voices that the corpus got later; the clips of CLASSES never change
ROWS = ("speech", READ, "music", "effects")
# Relative to the noise baseline, in the order of ROWS: what the model has to reach, and the published FlashSR on its
# own demos.
REQUIRED = {"lsd": (1.0,) * 4, "zimtohrli": (0.60, 0.55, 0.65, 0.62), "visqol": (0.25, 0.25, 0.15, 0.15)}
PUBLISHED = {
    "lsd": (1.13, None, 1.15, 1.20),
    "zimtohrli": (0.59, None, 1.20, 0.78),
    "visqol": (0.26, None, -0.08, 0.09),
}
BEFORE = "before"  # the system that the weights before are called
FLASHSR = Path(sys.executable).with_name("flashsr")
PICTURES = Path("docs") / NAME
KEPT = ("training", "teacher", BEFORE, "data")  # parts that stay as they are where their source is not at hand


def main(evaluation: Path, corpus: Path, runs: Path | None = None) -> None:
    main_scores, others, files = (measured(evaluation, name) for name in ("4khz", "cutoffs", "files"))
    model = load_model(NAME)
    PICTURES.mkdir(parents=True, exist_ok=True)
    parts = {
        "figures": relative_table(main_scores),
        "scores": markdown_table(main_scores, MAIN_METRICS),
        "loud": loud_table(main_scores),
        "cutoffs": markdown_table(others, ("lsd", *PERCEPTUAL)),
        "baselines": baselines_table(others),
        "files": baselines_table(files, said=file_of),
        "speech-24khz": baselines_table(files, ("speech", READ), (12_000.0,), file_of),
        "low-band": low_band(main_scores),
        "speed": speed_and_size(evaluation),
        "signals": signals(model),
        "pictures": pictures(main_scores, model, corpus / "test"),
        "settings": "\n".join(f"- {name}: {text}" for name, text in main_scores.settings.items()),
    }
    if (corpus / "manifest.csv.gz").exists():
        for name in ("manifest.csv.gz", "licences.md"):
            shutil.copyfile(corpus / name, PICTURES / name)
        parts["data"] = data_table(corpus)
    if (evaluation / "teacher").exists():
        parts["teacher"] = teacher_table(read(evaluation / "teacher" / "scores.json"))
    if any(score.system == BEFORE for score in main_scores.scores):
        parts[BEFORE] = before_table(main_scores)
    if runs:
        keep_configurations(runs)
        parts["training"] = training_table(runs, corpus)
    for path in (Path("MODEL_CARD.md"), Path("README.md")):
        fill(path, parts)


def read(path: Path) -> Results:
    """Scores that say which system the model is. Raises UserError for those of older versions."""
    results = read_scores(path)
    if results.model is None:
        raise UserError(f"{path} does not say what its `student` is, since an older version wrote it: measure again")
    return results


def measured(evaluation: Path, name: str) -> Results:
    """Scores of the test clips of all ROWS, from the folders NAME and NAME_read.

    Raises UserError as `read` does, and where the two were not measured alike.
    """
    results, later = read(evaluation / name / "scores.json"), read(evaluation / f"{name}_read" / "scores.json")
    data = f"{results.settings['data']}; {READ}: {later.settings['data']}"
    for setting, value in results.settings.items():
        if setting != "data" and later.settings.get(setting) != value:
            raise UserError(
                f"{evaluation}: {name} was measured with {setting} {value}, {name}_read with "
                f"{later.settings.get(setting)}: measure both again"
            )
    return dataclasses.replace(
        results,
        settings=results.settings | {"data": data},
        scores=results.scores + [dataclasses.replace(score, class_name=READ) for score in later.scores],
        problems=results.problems + later.problems,
    )


def fill(path: Path, parts: Mapping[str, str]) -> None:
    """Replace the parts that `path` has and `parts` has too. Raises ValueError for a marker of no part at all."""

    def part(match: re.Match) -> str:
        name = match.group(1)
        if name in KEPT and name not in parts:
            return match.group(0)
        if name not in parts:
            raise ValueError(f"{path}: <!-- {name} -->: there is no such part; there are {', '.join(parts)}")
        return f"<!-- {name} -->\n{parts[name].strip()}\n<!-- /{name} -->"

    text = re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- /\1 -->", part, path.read_text(encoding="utf-8"), flags=re.DOTALL)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, all but the first column to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def relative_table(results: Results) -> str:
    """The model against the noise baseline, a row a metric and class."""
    rows = []
    for metric in REQUIRED:
        higher = metric == "visqol"
        means = by_class(results, metric)
        difference = against_noise(results, metric)
        for index, name in enumerate(ROWS):
            noise, model = means[name, "noise"], means[name, results.model_name]
            relative, required = model - noise if higher else model / noise, REQUIRED[metric][index]
            reached = relative >= required if higher else relative <= required
            shown = [
                "–" if figure is None else f"{figure:+.2f}" if higher else f"{figure:.2f}"
                for figure in (relative, required, PUBLISHED[metric][index])
            ]
            shown[0] = f"**{shown[0]}**" if reached else f"{shown[0]}, not reached"
            interval = f"{difference[name].low:+.3g} to {difference[name].high:+.3g}"
            rows.append([f"{name}, {metric}", f"{noise:.3g}", f"{model:.3g}", *shown, interval])
    head = ["", "noise", results.model_name, "relative", "required", "published FlashSR", "95 % of the difference"]
    return table(head, rows)


def file_of(cutoff_hz: float) -> str:
    """What a file is called whose rate is twice the cutoff."""
    return f"a file of {khz(2 * cutoff_hz)}"


def baselines_table(
    results: Results,
    classes: Sequence[str] = ROWS,
    cutoffs: Sequence[float] | None = None,
    said: Callable[[float], str] = khz,
) -> str:
    """The model against the best of the input, `mirror` and `noise`, a row a class and cutoff (None: all), which is
    called what `said` says."""
    rows = []
    for name, cutoff_hz in itertools.product(classes, cutoffs or results.cutoffs):
        of_cutoff = [score for score in results.scores if score.cutoff_hz == cutoff_hz]
        row = [f"{name}, {said(cutoff_hz)}"]
        for metric in PERCEPTUAL:
            means = by_class(dataclasses.replace(results, scores=of_cutoff), metric)
            model, baselines = means[name, results.model_name], [means[name, system] for system in BASELINES]
            best = max(baselines) if BETTER[metric] == "higher" else min(baselines)
            better = model > best if BETTER[metric] == "higher" else model < best
            row += [f"{best:.3g}", f"**{model:.3g}**" if better else f"{model:.3g}, not better"]
        rows.append(row)
    head = [f"{metric}, {column}" for metric in PERCEPTUAL for column in ("best baseline", results.model_name)]
    return table(["", *head], rows)


def before_table(results: Results) -> str:
    """The model against the weights that came along before, on the same clips, by each metric."""
    rows = []
    for metric in results.main_metrics:
        means = by_class(results, metric)
        compared = paired(results.scores, results.model_name, BEFORE, metric, ("class_name",))
        for row in sorted(compared, key=lambda row: ROWS.index(row.group["class_name"])):
            name = row.group["class_name"]
            figures = [f"{means[name, system]:.3g}" for system in (BEFORE, results.model_name)]
            difference = f"{row.mean:+.3g} [{row.low:+.3g}, {row.high:+.3g}]"
            clips = f"{row.better} of {row.better + row.worse + row.equal}"
            rows.append([f"{name}, {metric}", *figures, difference, clips])
    return table(["", BEFORE, results.model_name, "difference [95 %]", "clips that got better"], rows)


def against_noise(results: Results, metric: str) -> dict[str, Comparison]:
    """{class: the model minus the noise baseline}."""
    rows = paired(results.scores, results.model_name, "noise", metric, ("class_name",))
    return {row.group["class_name"]: row for row in rows}


def by_class(results: Results, metric: str) -> dict[tuple[str, str], float]:
    """{(class, system): mean over clips, median over seeds}."""
    rows = summarise(results.scores, metric, ("class_name", "system"))
    return {(row.group["class_name"], row.group["system"]): row.figures()[0] for row in rows if row.count}


def low_band(results: Results) -> str:
    """What happens under the cutoff. The level is compared with the input's, since the low-pass has a ripple of its
    own; sizes of the differences, whatever their sign."""
    distance, offset = by_class(results, "lsd_lf"), by_class(results, "time_offset")
    input_db = {
        (score.clip, score.cutoff_hz): score.metrics["low_band_gain_db"]
        for score in results.scores
        if score.system == "unprocessed" and "low_band_gain_db" in score.metrics
    }
    rows = []
    for name in ROWS:
        changes_db = [
            abs(score.metrics["low_band_gain_db"] - input_db[score.clip, score.cutoff_hz])
            for score in results.scores
            if score.class_name == name and score.system == results.model_name and "low_band_gain_db" in score.metrics
        ]
        columns = (
            distance[name, "unprocessed"],
            distance[name, results.model_name],
            np.mean(changes_db),
            max(changes_db),
        )
        rows.append([name, *(f"{value:.3f}" for value in columns), f"{offset[name, results.model_name]:.0f}"])
    head = ["", "LSD under the cutoff, input", "output", "level against the input, dB", "at most", "offset, samples"]
    return table(head, rows)


def teacher_table(results: Results) -> str:
    """One evaluation of the model against the teacher's many."""
    means = by_class(results, "lsd")
    rows = []
    for name in CLASSES:
        model, teacher = means[name, results.model_name], means[name, "teacher"]
        rows.append([name, f"{model:.3f}", f"{teacher:.3f}", f"{model / teacher:.2f}"])
    times = {row.system: row.rtf for row in results.speeds}
    times_as_long = times["teacher"] / times[results.model_name]
    note = f"The teacher ({results.settings['teacher']}) takes {times_as_long:.1f} times as long."
    return table(["LSD", results.model_name, "teacher", "ratio"], rows) + "\n\n" + note


def speed_and_size(evaluation: Path) -> str:
    """Sizes; a window's time by `flashsr benchmark`; time and memory of `flashsr upscale` on a minute of stereo."""
    rng = np.random.default_rng(0)
    source, target = evaluation / "minute.wav", evaluation / "minute_48khz.wav"
    soundfile.write(source, rng.uniform(-0.1, 0.1, size=(60 * 8000, 2)), 8000)
    command: list[str | Path] = [FLASHSR, "upscale", source, "-o", target, "--overwrite"]
    subprocess.run(command, check=True)  # compiles
    began = time.monotonic()
    subprocess.run(command, check=True)
    minute = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    costs = preset_costs(preset(NAME)).values()
    benchmark = subprocess.run([FLASHSR, "benchmark", "--json"], check=True, capture_output=True, text=True)
    report = json.loads(benchmark.stdout)
    rows = {
        "parameters": f"{sum(cost.parameters for cost in costs) / 1e6:.2f} M",
        "weights file": f"{SHIPPED[NAME].stat().st_size / 1e6:.1f} MB",
        "work for a second of audio": f"{sum(cost.flops for cost in costs) / 1e9:.2f} GFLOP",
        "processing time / audio time, a window": f"{report['window']['seconds'] / report['window_seconds']:.3f}",
        "`flashsr upscale` of a minute of stereo": f"{minute:.1f} s",
        "peak memory of `flashsr upscale` (a minute of stereo)": f"{peak:.2f} GiB",
    }
    return table(["", ""], rows.items())


def signals(model: Model) -> str:
    """Signals whose right output is known, at 8 kHz but for the last."""
    t = np.arange(8 * 8000) / 8000
    rng = np.random.default_rng(0)
    silence = upscale(model, np.zeros(len(t)), 8000)
    tone = upscale(model, 0.3 * np.sin(2 * np.pi * 1000 * t), 8000)
    noise = upscale(model, 0.1 * rng.standard_normal(len(t)), 8000)
    full = 0.1 * rng.standard_normal(8 * SAMPLE_RATE).astype(np.float32)
    rows = {
        "digital silence": f"peak {level_db(np.abs(silence).max()):.0f} dBFS",
        "a tone of 1 kHz": f"{tone_to_rest_db(tone, 1000):.1f} dB over everything else",
        "white noise": f"level of its seconds within {spread_db(noise[SAMPLE_RATE:-SAMPLE_RATE]):.2f} dB",
        "what is added to it": (
            f"lines at multiples of 100 Hz, the mel's frame rate: {frame_lines_db(full, noise, 4000):+.1f} dB"
        ),
        "white noise of the full band, upscaled all the same": (
            f"LSD to itself {lsd(full, upscale(model, full, SAMPLE_RATE)):.2f}"
        ),
        "the same through `flashsr upscale`, which recognises it": f"LSD to itself {lsd(full, listened(full)):.2f}",
    }
    return table(["input", "output"], rows.items())


def listened(x_N: np.ndarray) -> np.ndarray:
    """A signal at 48 kHz as `flashsr upscale` returns it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.wav"), Path(folder, "out.wav")
        soundfile.write(source, x_N, SAMPLE_RATE, subtype="FLOAT")
        subprocess.run([FLASHSR, "upscale", source, "-o", target], check=True)
        return soundfile.read(target, dtype="float32")[0]


def level_db(amplitude: float) -> float:
    """Decibels of an amplitude, -200 at least."""
    return 20 * np.log10(max(amplitude, 1e-10))


def tone_to_rest_db(y_N: np.ndarray, hz: float) -> float:
    """Power of a tone over that of all that is 50 Hz and more away, without the first and last second."""
    y_N = y_N[SAMPLE_RATE:-SAMPLE_RATE]
    power_K = np.abs(np.fft.rfft(y_N * np.hanning(len(y_N)))) ** 2
    near_K = np.abs(np.fft.rfftfreq(len(y_N), 1 / SAMPLE_RATE) - hz) < 50
    return 10 * np.log10(power_K[near_K].sum() / power_K[~near_K].sum())


def spread_db(y_N: np.ndarray) -> float:
    """Largest less smallest level of whole seconds."""
    seconds_SxN = y_N[: len(y_N) // SAMPLE_RATE * SAMPLE_RATE].reshape(-1, SAMPLE_RATE)
    return float(np.ptp(10 * np.log10(np.mean(seconds_SxN**2, axis=1))))


def pictures(results: Results, model: Model, clips: Path) -> str:
    """Before, after, original of three clips a class: by Zimtohrli less the noise baseline's, the best, the median and
    the worst. Nobody chose them."""
    references = {reference.name: reference for reference in load_references(clips)[0]}
    lines = []
    compared = against_noise(results, "zimtohrli")
    for name in CLASSES:
        row, difference = compared[name], clip_differences(results, name)
        order = sorted(difference, key=lambda clip: difference[clip])
        for place, clip in (("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1])):
            path = PICTURES / f"{name}-{place}.png"
            draw(references[clip], model, path)
            lines.append(f"![{name}, {place}]({path.as_posix()})\n\n*{place}: `{clip}`, {difference[clip]:+.4f}*\n")
        lines.append(f"{name}: nearer than noise on {row.better} of {row.better + row.worse + row.equal} clips.\n")
    return "\n".join(lines)


def clip_differences(results: Results, class_name: str) -> dict[str, float]:
    """{clip: the model's Zimtohrli less noise's}, each its median over seeds."""
    values: dict[str, dict[str, list[float]]] = {}
    for score in results.scores:
        if score.class_name == class_name and score.system in (results.model_name, "noise"):
            values.setdefault(score.clip, {}).setdefault(score.system, []).append(score.metrics["zimtohrli"])
    return {clip: float(np.median(of[results.model_name]) - np.median(of["noise"])) for clip, of in values.items()}


def draw(reference: Reference, model: Model, path: Path) -> None:
    low_N = low_passed(reference, 4000.0).low_N
    after_N = upscale(model, low_N, SAMPLE_RATE)
    spectrogram_figure({"before (4 kHz)": low_N, "after": after_N, "original": reference.audio}, path)
    with Image.open(path) as image:  # 256 colours: a third of the bytes, which every clone carries
        image.convert("RGB").quantize(256).save(path, optimize=True)


def training_table(runs: Path, corpus: Path) -> str:
    """What each stage saw, how long it took, and its last scores on the validation clips."""
    hours, rows = train_hours(corpus), []
    for run in STAGES:
        if not (runs / run / METRICS_FILE).exists():
            continue
        config = json.loads((runs / run / CONFIG_FILE).read_text())
        logged = [json.loads(line) for line in (runs / run / METRICS_FILE).read_text().splitlines()]
        steps = [line for line in logged if line["kind"] == "train"]
        seconds = seconds_per_window(ConfigDict(config))
        heard = steps[-1]["step"] * config["batch_size"] * seconds / 3600
        took = sum(
            (line["step"] - before) * config["batch_size"] * seconds / line["audio_seconds_per_second"] / 3600
            for before, line in zip([0, *(line["step"] for line in steps)], steps, strict=False)
        )
        times = ", ".join(f"{heard / 3 / hours[name]:.1f}" for name in CLASSES)
        scores = next(line for line in reversed(logged) if line["kind"] == "eval")
        shown = ", ".join(
            f"{name} {scores[name]:.3g}" for name in dict.fromkeys([config["best_metric"], "lsd"]) if name in scores
        )
        window = f"{config['batch_size']} x {seconds:.2f} s"
        rows.append([run, str(steps[-1]["step"]), window, f"{heard:.1f}", times, f"{took:.1f}", shown])
    return table(
        ["stage", "steps", "windows", "hours heard", "passes (speech, music, effects)", "hours", "scores"], rows
    )


def train_hours(corpus: Path) -> dict[str, float]:
    """Hours of each class in the training split."""
    with gzip.open(corpus / "manifest.csv.gz", "rt", newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "train"]
    return {name: sum(float(row["seconds"]) for row in rows if row["class"] == name) / 3600 for name in CLASSES}


def data_table(corpus: Path) -> str:
    """Hours by class and split, and the manifest's hash."""
    text = (corpus / "licences.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in text.split("\n\n")[1].splitlines() if line.startswith("|"))
    digest = hashlib.sha256(gzip.decompress((corpus / "manifest.csv.gz").read_bytes())).hexdigest()
    hashes = {"the manifest (unpacked)": digest}
    hashes |= {f"the samples in {name}/": clips_digest(corpus / name) for name in ("test", "test_read")}
    return "\n".join([table, "", *(f"- SHA-256 of {name}: `{digest}`" for name, digest in hashes.items())])


def clips_digest(folder: Path) -> str:
    """Hash of the names and samples (24 bits) of a folder's clips, which no version of the corpus may change."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.flac")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(soundfile.read(path, dtype="int32")[0].tobytes())
    return digest.hexdigest()


def keep_configurations(runs: Path) -> None:
    """Copy the configuration of each stage that made the model."""
    for run in STAGES:
        if (runs / run / CONFIG_FILE).exists():
            shutil.copyfile(runs / run / CONFIG_FILE, PICTURES / f"{run}.json")


def _arguments(argv: Sequence[str]) -> list[Path]:
    if len(argv) not in (2, 3):
        sys.exit(__doc__)
    return [Path(argument) for argument in argv]


if __name__ == "__main__":
    try:
        main(*_arguments(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"model_card: {error}")
