"""How long a listener waits: `flashsr upscale` of ten seconds, with an empty cache and a full one, and of more.

    python launch/start_up.py [REPEATS]

Prints a table of seconds, by the clock and of CPU: the median of REPEATS (5), but for the empty cache: once; and what
decoding, resampling, windows and encoding take on top of the networks.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import librosa
import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.models.presets import preset
from flashsr_jax.upscale.windows import framing

RECORDING = Path(__file__).resolve().parents[1] / "tests" / "recordings" / "speech" / "alsa-english" / "test.flac"
SECONDS, RATE = 10, 8000
WINDOWS = 15  # more of them in a longer clip


def timed(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds by the clock and of CPU that a program takes."""
    cpu, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime


def networks_seconds(environment: dict[str, str]) -> float:
    """Seconds that the networks take for a window, each by itself."""
    words = [sys.executable, "-m", "flashsr_jax", "benchmark", "--json"]
    report = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE).stdout
    return sum(network["seconds"] for network in json.loads(report)["networks"].values())


def main() -> None:
    """Prints the table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        x_N = librosa.load(RECORDING, sr=RATE)[0]
        clip, longer = f"{folder}/clip.wav", f"{folder}/longer.wav"
        sf.write(clip, np.resize(x_N, SECONDS * RATE), RATE)
        more = WINDOWS * framing(preset("small")).step / SAMPLE_RATE
        sf.write(longer, np.resize(x_N, round((SECONDS + more) * RATE)), RATE)
        environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        environment["FLASHSR_CACHE"] = f"{folder}/cache"

        def upscale(file: str) -> tuple[float, float]:
            words = ["-m", "flashsr_jax", "upscale", file, "-o", f"{folder}/out.wav", "--overwrite"]
            return timed(words, environment)

        rows = {
            "upscale, empty cache": [upscale(clip)],
            "upscale": [upscale(clip) for _ in range(repeats)],
            f"upscale of {WINDOWS} windows more": [upscale(longer) for _ in range(repeats)],
            "import jax": [timed(["-c", "import jax"], environment) for _ in range(repeats)],
            "import flashsr_jax": [timed(["-c", "import flashsr_jax"], environment) for _ in range(repeats)],
            "FlashSR.load": [
                timed(["-c", "import flashsr_jax; flashsr_jax.FlashSR.load('small')"], environment)
                for _ in range(repeats)
            ],
        }
        networks = networks_seconds(environment)
    print("| what | seconds | of CPU |\n| --- | --- | --- |")
    clocks = []
    for name, times in rows.items():
        clock, cpu = (statistics.median(values) for values in zip(*times, strict=True))
        clocks.append(clock)
        print(f"| {name} | {clock:.2f} | {cpu:.2f} |")
    _, short, long, *_ = clocks
    window = (long - short) / WINDOWS
    print(f"\na window of a file {window:.3f} s, its networks {networks:.3f} s: {window / networks - 1:.0%} on top")


if __name__ == "__main__":
    main()
