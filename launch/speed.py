"""How fast this package is beside another system: both upscale a recording in turn, each in a process of its own.

    python launch/speed.py FOLDER MODULE:CLASS [OPTION...]

Prints the machine, and a table of seconds, of their share of real time, and of ratios to the other system's seconds.
Each ratio is of two timings one right after the other, so that it holds on a machine that others use too.
"""

import argparse
import contextlib
import importlib
import multiprocessing
import multiprocessing.connection
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from flashsr_jax.errors import UserError

RECORDING = Path(__file__).resolve().parents[1] / "tests" / "recordings" / "speech" / "alsa-english" / "test.flac"
RATE_OUT = 48_000
LEAST = 0.9  # of the seconds that go in have to come out: who returns a part has computed a part

System = Callable[[np.ndarray, int], np.ndarray]


def ours(name: str) -> System:
    """`small`, a weights file, or `base`: the published size with random weights, which computes as long."""
    from flashsr_jax import FlashSR

    if name != "base":
        return FlashSR.load(name)
    from flashsr_jax.cost.upscaling import random_model
    from flashsr_jax.models.presets import preset

    return FlashSR(random_model(preset(name)))


def theirs(folder: str, name: str) -> System:
    """The class MODULE:CLASS of a folder, as a function of arrays.

    A torch.nn.Module gets tensors, in evaluation and without gradients. Raises UserError where it cannot be had.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, folder)
    try:
        system = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise UserError(f"{folder}: {name} cannot be had ({error}); write MODULE:CLASS of a file in it") from error
    torch = sys.modules.get("torch")
    if torch is None:
        return lambda x_N, rate: np.asarray(system(x_N, rate))
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as JAX takes
    is_module = isinstance(system, torch.nn.Module)
    if is_module:
        system.eval()

    def upscaled(x_N: np.ndarray, rate: int) -> np.ndarray:
        with torch.inference_mode():
            y = system(torch.from_numpy(x_N) if is_module else x_N, rate)
        return y.cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)

    return upscaled


def serve(make: Callable[..., System], arguments: tuple, x_N: np.ndarray, rate: int, pipe: Any) -> None:
    """A process with one system: sends the package versions it runs on, then for each message the seconds of a call."""
    try:
        system = make(*arguments)
        y = system(x_N, rate)  # compiles, and shows what comes out
        if y.shape[-1] < LEAST * len(x_N) * RATE_OUT / rate or not np.isfinite(y).all():
            raise UserError(
                f"{arguments[-1]} returns {y.shape[-1]} samples for {len(x_N) / rate:g} s, or not finite ones: "
                f"(..., samples) at {RATE_OUT} Hz are expected"
            )
        modules = [sys.modules[name] for name in ("jax", "torch") if name in sys.modules]
        pipe.send({module.__name__: module.__version__ for module in modules})
        with contextlib.suppress(EOFError):  # nothing more is asked
            while pipe.recv():
                began = time.perf_counter()
                system(x_N, rate)
                pipe.send(time.perf_counter() - began)
    except UserError as error:
        pipe.send(error)


class Process:
    """A system in a process of its own, which computes nothing while it is not asked."""

    def __init__(self, make: Callable[..., System], arguments: tuple, x_N: np.ndarray, rate: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=serve, args=(make, arguments, x_N, rate, end), daemon=True)
        self._process.start()
        end.close()
        self._name = arguments[-1]
        self.versions = self._answer()

    def seconds(self) -> float:
        """Of one call."""
        self._pipe.send(True)
        return self._answer()

    def end(self) -> None:
        """Lets its memory go."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise UserError(f"{self._name} has failed; what it said stands above") from None
        if isinstance(answer, UserError):
            raise answer
        return answer


def machine() -> str:
    """The processor's name and the threads that are ours."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unnamed processor'}, {len(os.sched_getaffinity(0))} threads"


def table(times: dict[str, list[tuple[float, float]]], reference: str, seconds: float) -> str:
    """Markdown. `times`: of each system, (its seconds, the reference's beside them) by round."""
    lines = [
        f"| system | seconds | x real time | {reference}: seconds | its seconds / the system's: median | range |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, rounds in times.items():
        own, other = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = [theirs / ours for ours, theirs in rounds]
        lines.append(
            f"| {name} | {own:.3g} | {seconds / own:.2f} | {other:.3g} | {statistics.median(ratios):.3g} "
            f"| {min(ratios):.3g} to {max(ratios):.3g} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measures, and prints; 1 where a system cannot be had."""
    parser = argparse.ArgumentParser(prog="launch/speed.sh", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where the other system's Python files are")
    parser.add_argument("reference", metavar="MODULE:CLASS", help="its class, which is called with (waveform, rate)")
    parser.add_argument(
        "--ours", nargs="+", default=["small", "base"], metavar="NAME", help="small, base, weights file"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="timings of each (default 5)")
    parser.add_argument("--seconds", type=float, default=5.12, metavar="S", help="of speech (default 5.12, a window)")
    parser.add_argument("--rate", type=int, default=8000, metavar="HZ", help="of the input (default 8000)")
    args = parser.parse_args(arguments)

    speech_N, recorded_at = soundfile.read(RECORDING, dtype="float32")
    x_N = np.resize(soxr.resample(speech_N, recorded_at, args.rate), round(args.seconds * args.rate))
    times = {}
    try:
        reference = Process(theirs, (str(Path(args.folder).resolve()), args.reference), x_N, args.rate)
        versions = reference.versions
        for name in args.ours:
            process = Process(ours, (name,), x_N, args.rate)
            versions |= process.versions
            times[name] = [(process.seconds(), reference.seconds()) for _ in range(args.rounds)]
            process.end()
    except UserError as error:
        print(f"launch/speed.sh: {error}", file=sys.stderr)
        return 1
    print(machine(), *(f"{package} {version}" for package, version in sorted(versions.items())), sep=", ")
    print(f"{args.seconds:g} s of speech at {args.rate} Hz, {args.rounds} rounds in turn\n")
    print(table(times, args.reference, args.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
