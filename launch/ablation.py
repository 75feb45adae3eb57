"""Writes docs/ablation.md of what launch/ablation.sh has measured: the paper's tables, what was expected and seen.

python launch/ablation.py SCORES.json PAGE.md [NAME=RUN...]

Of each NAME=RUN the page says what was trained: a run's folder, or weights.
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from flashsr_jax.data import CLASSES
from flashsr_jax.errors import UserError
from flashsr_jax.evaluate.metrics import BETTER, PERCEPTUAL
from flashsr_jax.evaluate.report.tables import arrow, markdown_table, read_scores
from flashsr_jax.evaluate.results import Results
from flashsr_jax.evaluate.statistics import Comparison, paired, summarise
from flashsr_jax.files import replacing
from flashsr_jax.runs.folder import CONFIG_FILE, read_config
from flashsr_jax.runs.listing import find_runs
from flashsr_jax.train.batch import seconds_per_window

QUALITY = ("lsd", *PERCEPTUAL, "loud_band_gain_db")
LOW_BAND = ("lsd_lf", "low_band_gain_db", "low_band_si_sdr", "cutoff_step_db", "lsd")
PAPERS_RATIO = 22  # times as long as the student, 50 steps of AudioSR
STUDENT_OF_TEACHER = 1.05  # most of a teacher's LSD

STUDENTS = ("dmd_separate", "dmd_self", "adversarial", "distill")  # the fullest first


class Row(NamedTuple):
    """A system by its name in the scores, in words, the one that it is compared with, and what the paper expects."""

    system: str
    title: str
    before: str
    expected: str


ROWS = (
    Row("regression", "regression", "", ""),
    Row(
        "teacher",
        "teacher",
        "regression",
        "Better to the ear: it samples what the sound could have been, where a regression gives a mean.",
    ),
    Row(
        "distill",
        "student by distillation",
        "teacher",
        "About the teacher's quality in one evaluation; distances of latents alone leave it softer.",
    ),
    Row("adversarial", "+ adversarial", "distill", "Sharper than by distillation alone."),
    Row(
        "dmd_self",
        "+ distribution matching, fake score: the student",
        "adversarial",
        "Nearer to the teacher's distribution, and the paper's best.",
    ),
    Row(
        "dmd_separate",
        "+ distribution matching, fake score: its own U-Net",
        "adversarial",
        "As the row before it, by a fake score that follows the student more closely (DMD2).",
    ),
    Row(
        "tune",
        "+ `tune`",
        "dmd_separate",
        "Not in the paper: decoder and vocoder learn what the student makes of them.",
    ),
)
VOCODERS = (
    Row("vocoder_lr", "with the low-resolution waveform", "", ""),
    Row(
        "vocoder_lr_kept",
        "the same, low band put back",
        "vocoder_lr",
        "No change: the waveform carries the low band, and nothing is put back afterwards.",
    ),
    Row(
        "vocoder_mel",
        "of the mel alone",
        "vocoder_lr",
        "A worse low band: it is made anew, and its phase is not that of the input.",
    ),
    Row(
        "vocoder_mel_kept",
        "of the mel alone, low band put back",
        "vocoder_lr",
        "As good a low band, at the price of a step where the two bands meet.",
    ),
)


def main(scores: Path, page: Path, runs: Mapping[str, str] | None = None) -> None:
    results = read(scores)
    rows = [row for row in ROWS if row.system in results.systems]
    vocoders = [row for row in VOCODERS if row.system in results.systems]
    against_regression = [row._replace(before="regression") for row in rows if row.before not in ("", "regression")]
    parts = [
        "# Ablation: the paper's tables\n\n`bash launch/ablation.sh` trains and measures what is compared here, and "
        "writes this page.\nMeans over clips with 95 % intervals; differences are paired, clip by clip.",
        "## Losses\n\n" + markdown_table(only(results, [row.system for row in rows]), present(results, QUALITY)),
        "Against the row that is named, by class; bold where the interval has no 0:\n\n"
        + steps(results, rows, QUALITY),
        "Against the regression:\n\n" + steps(results, against_regression, QUALITY) if against_regression else "",
        *paragraphs(results, rows, present(results, QUALITY)),
        "What else was tried of teacher and student, and what came of it, is in [trials](trials.md).",
        "## Time\n\n" + times(results, rows),
        "## The vocoder's low band\n\nAll with the regression's U-Net.\n\n"
        + markdown_table(only(results, ["unprocessed", *(row.system for row in vocoders)]), present(results, LOW_BAND)),
        steps(results, vocoders, LOW_BAND),
        *paragraphs(results, vocoders, present(results, LOW_BAND)),
        "## What was to be shown\n\n" + "\n".join(f"- {line}" for line in claims(results)),
        "## What was trained\n\n" + trained(runs) if runs else "",
        "## How\n\n" + "\n".join(f"- {name}: {text}" for name, text in results.settings.items()),
    ]
    with replacing(page) as partial:
        partial.write_text("\n\n".join(part.strip() for part in parts if part) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """The scores, in which the model is called `regression`. Raises UserError for those of something else."""
    results = read_scores(path)
    if results.model is None or not {row.system for row in ROWS[1:]} & set(results.systems):
        raise UserError(f"{path} has none of {', '.join(row.system for row in ROWS)}: measure by launch/ablation.sh")

    def renamed(system: str) -> str:
        return "regression" if system == results.model else system

    return dataclasses.replace(
        results,
        model="regression",
        scores=[dataclasses.replace(score, system=renamed(score.system)) for score in results.scores],
        speeds=[dataclasses.replace(speed, system=renamed(speed.system)) for speed in results.speeds],
    )


def only(results: Results, systems: Sequence[str]) -> Results:
    """The scores of these systems, in their order."""
    of_system = {system: [score for score in results.scores if score.system == system] for system in systems}
    return dataclasses.replace(results, scores=[score for scores in of_system.values() for score in scores])


def present(results: Results, metrics: Sequence[str]) -> list[str]:
    return [metric for metric in metrics if metric in results.metrics]


def compared(results: Results, system: str, other: str, metric: str) -> dict[str, Comparison]:
    """{class: the system minus the other}, where there are clips of both."""
    if metric not in results.metrics or not {system, other} <= set(results.systems):
        return {}
    rows = paired(results.scores, system, other, metric, ("class_name",))
    return {row.group["class_name"]: row for row in rows if row.mean is not None}


def verdict(metric: str, row: Comparison) -> str:
    """Of a difference by its interval: better, worse, or not to be told."""
    _, low, high = row.figures()
    if low <= 0 <= high:
        return "not to be told"
    return "better" if (low > 0) == (BETTER[metric] == "higher") else "worse"


def steps(results: Results, rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """A table of each row against its `before`, by class."""
    shown, lines = present(results, metrics), []
    for row in rows:
        by_metric = {metric: compared(results, row.system, row.before, metric) for metric in shown}
        for name in CLASSES:
            cells = [cell(metric, of_class.get(name)) for metric, of_class in by_metric.items()]
            if any(cells):
                lines.append([f"{row.title} − {row.before}", name, *cells])
    return table(["difference", "class", *(metric + arrow(metric) for metric in shown)], lines) if lines else ""


def cell(metric: str, row: Comparison | None) -> str:
    if row is None:
        return ""
    mean, low, high = (f"{value:+.3g}" for value in row.figures())
    told = verdict(metric, row) != "not to be told"
    return f"{f'**{mean}**' if told else mean} [{low}, {high}]"


def paragraphs(results: Results, rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """What was expected of each row, and what was seen."""
    return [
        f"**{row.title}** (`{row.system}`). Expected: {row.expected} "
        f"Seen, against {row.before}: {seen(results, row, metrics)}."
        for row in rows
        if row.before in results.systems
    ]


def seen(results: Results, row: Row, metrics: Sequence[str]) -> str:
    """The verdicts of each metric by class."""
    parts = []
    for metric in metrics:
        of_class = compared(results, row.system, row.before, metric)
        told: dict[str, list[str]] = {}
        for name, comparison in of_class.items():
            told.setdefault(verdict(metric, comparison), []).append(name)
        parts.append(f"{metric} " + ", ".join(f"{word} ({', '.join(names)})" for word, names in told.items()))
    return "; ".join(parts)


def times(results: Results, rows: Sequence[Row]) -> str:
    """Time of a second of audio, and how many times the student's the teacher's is."""
    rtf = {speed.system: speed.rtf for speed in results.speeds}
    of_row = [(row, rtf[row.system]) for row in rows if row.system in rtf]
    lines = [[row.title, f"{seconds:.4f}"] for row, seconds in of_row]
    text = table(["", "seconds for a second of audio"], lines)
    student = next((row.system for row in rows if row.system in STUDENTS and row.system in rtf), None)
    if student and "teacher" in rtf:
        ratio = rtf["teacher"] / rtf[student]
        text += f"\n\nThe teacher takes {ratio:.1f} times as long as its student (the paper: {PAPERS_RATIO} times)."
    return text


def claims(results: Results) -> Iterable[str]:
    """What the comparison was to show, each with yes or no."""

    def classes(system: str, other: str, metric: str, word: str) -> list[str]:
        rows = compared(results, system, other, metric)
        return [name for name, row in rows.items() if verdict(metric, row) == word]

    def nearer(system: str, other: str, metric: str) -> list[str]:
        """Classes where the mean alone is better."""
        rows = compared(results, system, other, metric)
        return [name for name, row in rows.items() if (row.figures()[0] > 0) == (BETTER[metric] == "higher")]

    perceptual = present(results, PERCEPTUAL)
    if "teacher" in results.systems and perceptual:
        both = set.intersection(*(set(classes("teacher", "regression", metric, "better")) for metric in perceptual))
        yield (
            f"{answer(len(both) >= 2)}: the teacher is better than the regression in {' and '.join(perceptual)} for at "
            f"least two classes ({listed(both)})"
        )
    student = next((name for name in STUDENTS if name in results.systems), None)
    if student and "teacher" in results.systems:
        rows = summarise(results.scores, "lsd", ("system",))
        means = {row.group["system"]: row.figures()[0] for row in rows if row.count}
        ratio = means[student] / means["teacher"]
        yield (
            f"{answer(ratio <= STUDENT_OF_TEACHER)}: the student ({student}) is within 5 % of the teacher in LSD "
            f"({ratio:.3f} times it)"
        )
    if student and perceptual:
        means_better = set.intersection(*(set(nearer(student, "regression", metric)) for metric in perceptual))
        told = set.intersection(*(set(classes(student, "regression", metric, "better")) for metric in perceptual))
        reached = means_better == set(results.classes) and len(told) >= 2
        yield (
            f"{answer(reached)}: it is better than the regression in {' and '.join(perceptual)} for every class "
            f"({listed(means_better)}), by intervals for two at least ({listed(told)})"
        )
    for row in ROWS[3:6]:
        if perceptual and {row.system, row.before} <= set(results.systems):
            gained = [m for m in perceptual if classes(row.system, row.before, m, "better")]
            lost = [m for m in perceptual if classes(row.system, row.before, m, "worse")]
            yield (
                f"{answer(bool(gained) and not lost)}: {row.title} is better than {row.before} in a perceptual metric "
                f"({listed(gained)}) and loses none ({listed(lost)})"
            )


def trained(runs: Mapping[str, str]) -> str:
    """A table of the runs that were measured: how long each was trained, from what, and at which of its steps it was
    best on validation clips, which is what was measured."""
    lines = []
    for name, where in runs.items():
        if not (Path(where) / CONFIG_FILE).exists():
            lines.append([name, "", f"the weights `{Path(where).name}`", "", "", ""])
            continue
        run, config = find_runs(where)[0], ConfigDict(read_config(Path(where) / CONFIG_FILE))
        first = Path(config.get("init_from") or config.get("teacher_from") or "nothing").name
        windows = f"{config.batch_size} x {seconds_per_window(config):.2f} s"
        best = f"{run.best['step']:.0f}" if run.best else ""
        lines.append([name, run.stage, first, f"{run.step}", windows, best])
    return table(["", "stage", "began with", "steps", "windows a step", "measured at step"], lines)


def answer(reached: bool) -> str:
    return "Yes" if reached else "No"


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), dict(argument.split("=", 1) for argument in sys.argv[3:]))
    except UserError as error:
        sys.exit(f"ablation: {error}")
