"""Super-resolution of audio files, block by block from disk to disk: the body of `flashsr upscale`."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.errors import UserError
from flashsr_jax.files import replacing
from flashsr_jax.upscale import Model, upscale_stream

BLOCK = 1 << 17  # samples read at a time
WAV_LIMIT = 2**32 - 2**16  # bytes of audio that a plain wav can hold; longer ones are written as RF64


def upscale_files(
    inputs: Sequence[str], output: str, model: Model, *, seed: int = 0, steps: int = 1, overwrite: bool = False
) -> int:
    """Super-resolve audio files to 48 kHz wav files; returns how many failed, each with a line on stderr.

    `output` is a folder where there are several inputs, where it exists as one, or where it ends in a slash: each
    output is then named after its input. Otherwise it is the one output, and ends in .wav. The outputs have 24 bits,
    or 32-bit floats where the input has floats. Raises UserError where `output` cannot be what it has to be.
    """
    folder = len(inputs) > 1 or output.endswith(("/", os.sep)) or Path(output).is_dir()
    if folder and Path(output).exists() and not Path(output).is_dir():
        raise UserError(f"-o {output} is a file, but there are {len(inputs)} inputs: give a folder")
    if not folder and Path(output).suffix.lower() != ".wav":
        raise UserError(f"-o {output}: outputs are wav files: end its name in .wav, or in / for a folder")

    made: dict[Path, str] = {}
    failures = 0
    for number, source in enumerate(inputs, start=1):
        target = Path(output) / f"{Path(source).stem}.wav" if folder else Path(output)
        progress = _Progress(f"[{number}/{len(inputs)}] {Path(source).name}")
        try:
            if target in made:
                raise UserError(f"{target} was just made from {made[target]}: give the two different folders")
            _check_target(Path(source), target, overwrite)
            peak = _upscale_file(model, source, target, seed, steps, progress)
            made[target] = source
            progress.close(f"-> {target}")
            if peak > 1:
                print(
                    f"flashsr: {source}: output exceeded full scale by {20 * np.log10(peak):.2f} dB and was clipped",
                    file=sys.stderr,
                )
        except (UserError, OSError, sf.SoundFileError) as error:
            failures += 1
            progress.close("failed")
            print(f"flashsr: {source}: {_reason(error)}", file=sys.stderr)
    return failures


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Raise UserError where the output would replace something that it should not."""
    if target.exists():
        if target.is_dir():
            raise UserError(f"the output {target} is a folder")
        if source.exists() and target.samefile(source):
            raise UserError(f"the output {target} is the input itself: choose another -o")
        if not overwrite:
            raise UserError(f"the output {target} exists: choose another -o, or give --overwrite")


def _upscale_file(model: Model, source: str, target: Path, seed: int, steps: int, progress: "_Progress") -> float:
    """Write `target` and return the output's absolute peak, or 0 where the format holds any level."""
    if not Path(source).exists():
        raise UserError("no such file")
    if Path(source).is_dir():
        raise UserError("is a folder: name the files in it")
    with sf.SoundFile(source) as audio:
        if not audio.frames:
            raise UserError("has no samples")
        total = round(audio.frames * SAMPLE_RATE / audio.samplerate)
        floats = audio.subtype in ("FLOAT", "DOUBLE")
        size = total * audio.channels * (4 if floats else 3)
        kind = {
            "samplerate": SAMPLE_RATE,
            "channels": audio.channels,
            "subtype": "FLOAT" if floats else "PCM_24",
            "format": "WAV" if size < WAV_LIMIT else "RF64",
        }
        outputs = upscale_stream(
            model, _blocks(audio), audio.samplerate, channels=audio.channels, seed=seed, steps=steps
        )
        written, peak = 0, 0.0
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial, sf.SoundFile(partial, "w", **kind) as wav:
            for block_CxN in outputs:
                _write(wav, block_CxN.T, target)
                written += block_CxN.shape[1]
                peak = max(peak, float(np.abs(block_CxN).max(initial=0)))
                progress.show(written / total)
    return 0.0 if floats else peak


def _blocks(audio: sf.SoundFile) -> Iterator[np.ndarray]:
    read = 0
    for block_NxC in audio.blocks(BLOCK, dtype="float32", always_2d=True):
        read += len(block_NxC)
        yield block_NxC.T
    if read < audio.frames:
        raise UserError(f"is cut short: {read} of {audio.frames} samples could be read")


def _write(wav: sf.SoundFile, block_NxC: np.ndarray, target: Path) -> None:
    try:
        wav.write(block_NxC)
    except sf.LibsndfileError as error:
        raise UserError(f"the output {target} cannot be written (is the disk full?): {error.error_string}") from error


def _reason(error: Exception) -> str:
    """One line without the file's name, which the caller has said."""
    if isinstance(error, sf.LibsndfileError):
        return f"cannot be read as audio: {error.error_string.rstrip('.')}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return str(error)


class _Progress:
    """A line on the terminal that says how far one file is and how long it will take; nothing elsewhere."""

    def __init__(self, title: str):
        self.title = title
        self.began = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def show(self, done: float) -> None:
        left = round((time.monotonic() - self.began) * (1 - done) / done)
        self._line(f"{100 * done:3.0f} %  {left // 60}:{left % 60:02d} left")

    def close(self, outcome: str) -> None:
        self._line(outcome + "\n")

    def _line(self, text: str) -> None:
        if self.terminal:
            print(f"\r\x1b[K{self.title}  {text}", end="", file=sys.stderr, flush=True)
