"""The two ends of launch/demo.sh and train_demo.sh: 8 kHz inputs from held-out recordings; pictures, and a check.

python launch/demo.py prepare RECORDINGS.csv OUT
python launch/demo.py finish OUT
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.lowpass import LowpassFilter, apply_filter
from flashsr_jax.audio.pictures import spectrogram_figure
from flashsr_jax.evaluate.report.tables import read_scores
from flashsr_jax.evaluate.statistics import summarise
from flashsr_jax.files import replacing

INPUT_RATE = 8000


def prepare(recordings: Path, out: Path) -> None:
    """Write the test recordings to OUT/original_48khz/CLASS/GROUP.wav, low-passed to OUT/input_8khz/CLASS-GROUP.wav."""
    with recordings.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "test"]
    for row in rows:
        x, rate = soundfile.read(recordings.parent / row["path"], dtype="float32", always_2d=True)
        original = soxr.resample(x[:, 0], rate, SAMPLE_RATE, "VHQ")
        low = apply_filter(original, LowpassFilter("cheby1", 8, INPUT_RATE / 2))
        _write(out / "original_48khz" / row["class"] / f"{row['group']}.wav", original, SAMPLE_RATE)
        _write(
            out / "input_8khz" / f"{row['class']}-{row['group']}.wav",
            soxr.resample(low, SAMPLE_RATE, INPUT_RATE, "VHQ"),
            INPUT_RATE,
        )


def finish(out: Path) -> int:
    """Draw every clip; returns 1 unless the output is nearer to the original than the input in LSD for every class."""
    (out / "pictures").mkdir(exist_ok=True)
    for path in sorted((out / "original_48khz").glob("*/*.wav")):
        name = f"{path.parent.name}-{path.stem}"
        original, _ = soundfile.read(path)
        low, rate = soundfile.read(out / "input_8khz" / f"{name}.wav")
        after, _ = soundfile.read(out / "output_48khz" / f"{name}.wav")
        before = soxr.resample(low, rate, SAMPLE_RATE, "VHQ")
        signals = (np.pad(x, (0, max(0, len(original) - len(x))))[: len(original)] for x in (before, after, original))
        titles = (f"{name}: before (8 kHz)", "after", "original")
        spectrogram_figure(dict(zip(titles, signals, strict=True)), out / "pictures" / f"{name}.png")
    results = read_scores(out / "report" / "scores.json")
    rows = summarise(results.scores, "lsd", ("class_name", "system"))
    means = {tuple(row.group.values()): row.figures()[0] for row in rows if row.count}
    worse = [name for name in results.classes if means[name, results.model_name] >= means[name, "unprocessed"]]
    if worse:
        print(f"{', '.join(worse)}: the output is no nearer to the original than the input", file=sys.stderr)
    return 1 if worse else 0


def _write(path: Path, signal: np.ndarray, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        soundfile.write(partial, signal, rate, subtype="FLOAT")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(finish(Path(sys.argv[2])))
