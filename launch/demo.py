"""The two ends of launch/demo.sh: 8 kHz inputs from held-out recordings, and the scores and pictures of the outputs.

python launch/demo.py prepare RECORDINGS.csv OUT
python launch/demo.py score OUT
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.degrade import LowpassFilter, lowpass
from flashsr_jax.evaluate.metrics import lsd, lsd_hf
from flashsr_jax.evaluate.pictures import spectrogram_figure
from flashsr_jax.files import replacing

INPUT_RATE = 8000
CUTOFF_HZ = INPUT_RATE / 2


def prepare(recordings: Path, out: Path) -> None:
    """Write each test recording as OUT/original_48khz/CLASS-GROUP.wav and, low-passed, as OUT/input_8khz/..."""
    with recordings.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "test"]
    for row in rows:
        x, rate = soundfile.read(recordings.parent / row["path"], dtype="float32", always_2d=True)
        original = soxr.resample(x[:, 0], rate, SAMPLE_RATE, "VHQ")
        low = soxr.resample(lowpass(original, LowpassFilter("cheby1", 8, CUTOFF_HZ)), SAMPLE_RATE, INPUT_RATE, "VHQ")
        name = f"{row['class']}-{row['group']}.wav"
        for folder, signal, signal_rate in (("original_48khz", original, SAMPLE_RATE), ("input_8khz", low, INPUT_RATE)):
            (out / folder).mkdir(exist_ok=True)
            with replacing(out / folder / name) as partial:
                soundfile.write(partial, signal, signal_rate, subtype="FLOAT")


def score(out: Path) -> int:
    """Print LSD and LSD-HF of input and output of every clip, draw each, and compare the means of each class.

    Returns 1 unless the output is nearer to the original than the input for every class.
    """
    (out / "pictures").mkdir(exist_ok=True)
    by_class = {}
    print(f"{'clip':38} {'LSD in':>7} {'LSD out':>8} {'LSD-HF in':>10} {'LSD-HF out':>11}")
    for path in sorted((out / "original_48khz").glob("*.wav")):
        original, _ = soundfile.read(path)
        low, rate = soundfile.read(out / "input_8khz" / path.name)
        before = soxr.resample(low, rate, SAMPLE_RATE, "VHQ")
        before = np.pad(before, (0, max(0, len(original) - len(before))))[: len(original)]
        after, _ = soundfile.read(out / "output_48khz" / path.name)
        after = np.pad(after, (0, max(0, len(original) - len(after))))[: len(original)]
        figures = [f(original, x) for f in (lsd, lambda a, b: lsd_hf(a, b, CUTOFF_HZ)) for x in (before, after)]
        print(f"{path.stem:38} {figures[0]:7.2f} {figures[1]:8.2f} {figures[2]:10.2f} {figures[3]:11.2f}")
        by_class.setdefault(path.stem.split("-")[0], []).append(figures)
        titles = (f"{path.stem}: before (8 kHz)", "after", "original")
        spectrogram_figure(
            dict(zip(titles, (before, after, original), strict=True)), out / "pictures" / f"{path.stem}.png"
        )
    better = True
    for name, figures in by_class.items():
        mean = np.mean(figures, axis=0)
        print(f"{name + ' (mean)':38} {mean[0]:7.2f} {mean[1]:8.2f} {mean[2]:10.2f} {mean[3]:11.2f}")
        better &= bool(mean[1] < mean[0])
    print(f"audio and pictures: {out}/")
    if not better:
        print("the output of at least one class is no nearer to the original than its input", file=sys.stderr)
    return 0 if better else 1


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(score(Path(sys.argv[2])))
