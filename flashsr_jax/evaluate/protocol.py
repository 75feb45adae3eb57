"""The evaluation protocol: originals that end at several cutoffs, every system on every clip, every metric.

A reference that ends at a codec's wall is compared under the wall alone.
"""

import collections
import itertools
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import numpy as np

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio.pictures import N_FFT
from flashsr_jax.evaluate.inputs import INPUTS, Input, low_passed
from flashsr_jax.evaluate.measuring import Output, measure
from flashsr_jax.evaluate.references import Reference
from flashsr_jax.evaluate.results import Problem, Results, Sample, Score, Spectrum, Speed
from flashsr_jax.evaluate.signals import Unmeasurable, checked
from flashsr_jax.evaluate.systems import System
from flashsr_jax.progress import Progress

WIDEST_CUTOFF = 0.94  # of a reference's own wall: over it hardly anything is missing
SPEED_RUNS, SPEED_CUTOFF_HZ = 5, 4000.0
LOG_EVERY = 120.0  # seconds between lines that say how far it is, where there is no terminal
REPORTED_PACKAGES = ("flashsr_jax", "jax", "jaxlib", "numpy", "zimtohrli", "visqol-python")


def run(
    references: Sequence[Reference],
    systems: Mapping[str, System],
    cutoffs_hz: Sequence[float],
    *,
    settings: Mapping[str, str],
    inputs: str = "low-pass",
    seeds: Sequence[int] = (0,),
    samples_per_class: int = 2,
    perceptual: bool = True,
    workers: int | None = None,
) -> Results:
    """Run every system on every reference at every cutoff and measure its outputs, in `workers` processes (default:
    one a core). `inputs` is one of `INPUTS`. Systems that depend on a seed run once for each of `seeds`. Progress goes
    to stderr.

    What is `Unmeasurable` becomes a `Problem`: a cutoff over 0.94 of a reference's own wall, an input in which nothing
    is missing, a system without an output for a clip, an output of another length or with samples that are not finite.
    Any other exception ends the run.
    """
    speeds = _speeds(systems, references[0]) if references else []
    sampled = _sampled(references, samples_per_class)
    collected = _Collected(list(systems))
    shown_cutoff = 4000.0 if 4000.0 in cutoffs_hz else cutoffs_hz[0]
    workers = workers or os.cpu_count() or 1
    waiting: collections.deque[tuple[Reference, list[Output], Future]] = collections.deque()
    clips = itertools.count(1)

    def take() -> None:
        collected.take(*waiting.popleft())
        done = next(clips)
        progress.show(done / len(references), f"{done} of {len(references)} clips")

    with (
        Progress("flashsr", LOG_EVERY) as progress,
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
    ):
        for reference in references:
            outputs = list(_outputs(reference, systems, cutoffs_hz, inputs, seeds, collected.problems))
            if reference.name in sampled:
                collected.sample(reference, shown_cutoff, outputs, seeds[0])
            task = pool.submit(measure, reference.audio, reference.wall_hz, outputs, perceptual)
            waiting.append((reference, outputs, task))
            while len(waiting) > 2 * workers:
                take()
        while waiting:
            take()
    return Results(
        settings={**settings, **_environment()},
        scores=collected.scores,
        problems=collected.problems,
        samples=collected.samples,
        spectra=collected.spectra(),
        speeds=speeds,
    )


def speed(name: str, system: System, reference: Reference, given: Input) -> Speed:
    """Median of a few runs on one clip after one that compiles; nothing else should run on the machine."""
    seconds = []
    for _ in range(1 + SPEED_RUNS):
        started = time.perf_counter()
        system.process(reference, given, 0)
        seconds.append(time.perf_counter() - started)
    typical = float(np.median(seconds[1:]))
    return Speed(name, typical * SAMPLE_RATE / len(given.low_N), max(0.0, seconds[0] - typical))


def _speeds(systems: Mapping[str, System], reference: Reference) -> list[Speed]:
    given, speeds = low_passed(reference, SPEED_CUTOFF_HZ), []
    with Progress() as progress:
        for name, system in systems.items():
            if system.measured:
                progress.say(f"{name}: compiling, then {SPEED_RUNS} timings")
                speeds.append(speed(name, system, reference, given))
    return speeds


def _outputs(
    reference: Reference,
    systems: Mapping[str, System],
    cutoffs_hz: Sequence[float],
    inputs: str,
    seeds: Sequence[int],
    problems: list[Problem],
) -> Iterator[Output]:
    for cutoff_hz in cutoffs_hz:
        if reference.wall_hz and cutoff_hz > WIDEST_CUTOFF * reference.wall_hz:
            reason = f"its own band ends at {reference.wall_hz:.0f} Hz: nothing to restore over this cutoff"
            problems.append(Problem(reference.name, "", cutoff_hz, reason))
            continue
        try:
            given = INPUTS[inputs](reference, cutoff_hz)
        except Unmeasurable as error:
            problems.append(Problem(reference.name, "", cutoff_hz, str(error)))
            continue
        for name, system in systems.items():
            for seed in seeds if system.seeded else seeds[:1]:
                try:
                    audio_N = checked(system.process(reference, given, seed))
                except Unmeasurable as error:
                    problems.append(Problem(reference.name, name, cutoff_hz, str(error)))
                    continue
                yield Output(name, cutoff_hz, seed, audio_N)


class _Collected:
    """Scores, problems, samples and mean spectra as they come in."""

    def __init__(self, systems: list[str]):
        self._systems = ["original", *systems]
        self.scores: list[Score] = []
        self.problems: list[Problem] = []
        self.samples: list[Sample] = []
        self._levels: dict[tuple[str, float, str], list[np.ndarray]] = collections.defaultdict(list)

    def take(self, reference: Reference, outputs: list[Output], task: Future) -> None:
        original, *measured = task.result()
        for output, result in zip(outputs, measured, strict=True):
            if result.problem:
                self.problems.append(Problem(reference.name, output.system, output.cutoff_hz, result.problem))
                continue
            for system, level_db in ((output.system, result.level_db), ("original", original.level_db)):
                self._levels[reference.class_name, output.cutoff_hz, system].append(level_db)
            self.scores.append(
                Score(
                    system=output.system,
                    cutoff_hz=output.cutoff_hz,
                    clip=reference.name,
                    class_name=reference.class_name,
                    group=reference.group,
                    wall_hz=reference.wall_hz,
                    seed=output.seed,
                    metrics=result.metrics,
                    loud_bands_db={f"{hz:g}": gain for hz, gain in result.loud_bands_db.items()},
                )
            )

    def sample(self, reference: Reference, cutoff_hz: float, outputs: list[Output], seed: int) -> None:
        chosen = [o for o in outputs if o.cutoff_hz == cutoff_hz and o.seed == seed]
        if chosen:
            signals = {"original": reference.audio} | {o.system: np.asarray(o.audio, np.float32) for o in chosen}
            self.samples.append(Sample(reference.name, reference.class_name, cutoff_hz, signals))

    def spectra(self) -> list[Spectrum]:
        frequencies_hz = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
        order = sorted(self._levels, key=lambda key: (*key[:2], self._systems.index(key[2])))
        return [
            Spectrum(
                system, class_name, cutoff_hz, frequencies_hz, np.mean(self._levels[class_name, cutoff_hz, system], 0)
            )
            for class_name, cutoff_hz, system in order
        ]


def _sampled(references: Sequence[Reference], per_class: int) -> set[str]:
    """Names of the clips to show: evenly spread over each class."""
    by_class = collections.defaultdict(list)
    for reference in references:
        by_class[reference.class_name].append(reference.name)
    return {
        names[i]
        for names in by_class.values()
        for i in np.linspace(0, len(names) - 1, min(per_class, len(names))).round().astype(int)
    }


def _environment() -> dict[str, str]:
    versions = []
    for package in REPORTED_PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return {
        "machine": f"{device.device_kind if device.platform != 'cpu' else _processor()}, {os.cpu_count()} CPU cores",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
