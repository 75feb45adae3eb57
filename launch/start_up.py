"""How long a listener waits for the first file: `flashsr upscale` of ten seconds, with an empty cache and a full one.

    python launch/start_up.py [REPEATS]

Prints a table of seconds, by the clock and of CPU: the median of REPEATS (5), but for the empty cache: once.
"""

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

RECORDING = Path(__file__).resolve().parents[1] / "tests" / "recordings" / "speech" / "alsa-english" / "test.flac"
SECONDS, RATE = 10, 8000


def timed(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds by the clock and of CPU that a program takes."""
    cpu, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime


def main() -> None:
    """Prints the table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        clip = f"{folder}/clip.wav"
        x_N = librosa.load(RECORDING, sr=RATE)[0]
        sf.write(clip, np.resize(x_N, SECONDS * RATE), RATE)
        environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        environment["FLASHSR_CACHE"] = f"{folder}/cache"
        upscale = ["-m", "flashsr_jax", "upscale", clip, "-o", f"{folder}/out.wav", "--overwrite"]
        rows = {
            "upscale, empty cache": [timed(upscale, environment)],
            "upscale": [timed(upscale, environment) for _ in range(repeats)],
            "import jax": [timed(["-c", "import jax"], environment) for _ in range(repeats)],
            "import flashsr_jax": [timed(["-c", "import flashsr_jax"], environment) for _ in range(repeats)],
            "FlashSR.load": [
                timed(["-c", "import flashsr_jax; flashsr_jax.FlashSR.load('small')"], environment)
                for _ in range(repeats)
            ],
        }
    print("| what | seconds | of CPU |\n| --- | --- | --- |")
    for name, times in rows.items():
        clock, cpu = (statistics.median(values) for values in zip(*times, strict=True))
        print(f"| {name} | {clock:.2f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
