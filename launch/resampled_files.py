"""How near `small` comes to the originals of files that a good resampler made: python launch/resampled_files.py DIR...

Each DIR holds full-band recordings (launch/data.sh makes corpus/validation and corpus/validation_read). They are
resampled to 8, 16 and 24 kHz as files are, and upscaled by what `flashsr upscale` does: once as they are, once with
what the networks go by over the cutoff (`audio.bands.as_resampled`); beside the `noise` baseline. Prints a table of
means.
"""

import argparse
import multiprocessing
from collections import defaultdict
from concurrent.futures import Future, ProcessPoolExecutor
from unittest import mock

import numpy as np
import soxr

from flashsr_jax import FlashSR
from flashsr_jax.audio import SAMPLE_RATE, bands
from flashsr_jax.audio.stretches import stretches_of
from flashsr_jax.evaluate.measuring import Output, measure
from flashsr_jax.evaluate.profiles import load_profiles
from flashsr_jax.evaluate.references import Reference, load_references
from flashsr_jax.evaluate.systems import noise

RATES = (8000, 16_000, 24_000)
METRICS = {"lsd": "{:.2f}", "zimtohrli": "{:.5f}", "visqol": "{:.2f}"}


def outputs(reference: Reference, rate: int, model: FlashSR) -> list[Output]:
    """What each system makes of the recording as a file of that rate; none where the file has its whole band."""
    x_N = soxr.resample(reference.audio, SAMPLE_RATE, rate, "VHQ")
    gain = np.float32(0.5 / np.abs(x_N).max())
    ((found, *_),) = stretches_of(gain * x_N[None], rate)
    if found.passes:
        return []
    low_N = soxr.resample(x_N, rate, SAMPLE_RATE, "VHQ")[: len(reference.audio)]
    with mock.patch.object(bands, "as_resampled", lambda x, cutoff_hz: x):
        as_it_is_N = model(gain * x_N, rate) / gain
    made = {
        "noise": noise(load_profiles(None)).process(reference, low_N, found.cutoff_hz, 0),
        "as it is": as_it_is_N,
        "with image": model(gain * x_N, rate) / gain,
    }
    fitted = {name: np.resize(y_N, len(reference.audio)).astype(np.float32) for name, y_N in made.items()}
    return [Output(name, found.cutoff_hz, 0, y_N) for name, y_N in fitted.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--clips", type=int, default=8, help="recordings of each class and folder (default 8)")
    arguments = parser.parse_args()
    model = FlashSR.load()
    waiting: list[tuple[tuple[int, str], list[str], Future]] = []
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for folder in arguments.folders:
            for reference in load_references(folder, count=arguments.clips)[0]:
                for rate in RATES:
                    made = outputs(reference, rate, model)
                    measured = pool.submit(measure, reference.audio, reference.wall_hz, made, True)
                    row = rate, f"{reference.class_name}, {folder.rstrip('/').rpartition('/')[2]}"
                    waiting.append((row, [output.system for output in made], measured))
        values: dict[tuple[int, str], dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
        for row, systems, measured in waiting:
            for system, result in zip(systems, measured.result()[1:], strict=True):
                values[row][system].append([result.metrics[name] for name in METRICS])
    names = ("noise", "as it is", "with image")
    titles = (f"{metric}: {' / '.join(names)}" for metric in METRICS)
    print(f"| file | {' | '.join(titles)} |")
    print("| --- " + "| ---: " * len(METRICS) + "|")
    for (rate, clips), of_system in sorted(values.items()):
        means = {name: np.mean(of_system[name], axis=0) for name in names}
        cells = [" / ".join(form.format(means[name][i]) for name in names) for i, form in enumerate(METRICS.values())]
        print(f"| {rate // 1000} kHz, {clips} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
