"""Super-resolution of audio files, block by block from disk to disk: the body of `flashsr upscale`."""

import contextlib
import dataclasses
import json
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio import files as audio_files
from flashsr_jax.audio.bands import Bands
from flashsr_jax.audio.files import Survey, survey
from flashsr_jax.audio.media import put_back
from flashsr_jax.audio.resampling import resample_stream
from flashsr_jax.errors import UserError, reason
from flashsr_jax.files import replacing
from flashsr_jax.upscale.model import Model
from flashsr_jax.upscale.sources import FILM, Naming, Source, find
from flashsr_jax.upscale.stream import Settings, upscale_stream

# The networks know cutoffs up to 16 kHz, which detection may read a tenth too high.
FULL_BAND_HZ = 17_600.0


@dataclasses.dataclass(frozen=True)
class Options:
    """What `flashsr upscale` does beside running the networks.

    cutoff_hz: where the inputs end; None: detected. lowpass, keep_low_band, high_band_gain_db: as in `Bands`.
    bit_depth: "16", "24" or "float"; None: float where the input is, else 24. spectrogram: draw a picture beside each
    output. json: print a line for each file.
    """

    cutoff_hz: float | None = None
    lowpass: bool = False
    keep_low_band: bool = False
    high_band_gain_db: float = 0.0
    bit_depth: str | None = None
    spectrogram: bool = False
    overwrite: bool = False
    json: bool = False

    def bands(self, cutoff_hz: float) -> Bands | None:
        """What to do to the bands of an input that ends at `cutoff_hz`."""
        if not (self.lowpass or self.keep_low_band or self.high_band_gain_db):
            return None
        return Bands(cutoff_hz, self.lowpass, self.keep_low_band, self.high_band_gain_db)


def upscale_files(
    inputs: Sequence[str],
    output: str | None,
    model: Model,
    settings: Settings,
    options: Options,
    *,
    recursive: bool = False,
    suffix: str | None = None,
) -> int:
    """Super-resolve audio files to 48 kHz; returns how many failed, each with a line on stderr.

    `inputs` and `output` are as on the command line (see `sources`), `suffix` is "wav" or "flac" (None: by the name of
    the output, else wav). A file that is full-band already, or silent, is only resampled, and that is said. With
    `options.json` a line of JSON for each file goes to standard output. Raises UserError where `output` cannot be what
    it has to be.
    """
    sources = find(inputs, recursive)
    naming = Naming(sources, output, suffix)
    if naming.standard and (options.json or options.spectrogram):
        raise UserError("standard output holds the audio: give -o FILE for --json and --spectrogram")
    made: dict[Path, str] = {}
    failures = 0
    for number, source in enumerate(sources, start=1):
        progress = _Progress(f"[{number}/{len(sources)}] {Path(source.name).name}")
        report = {"input": source.name}
        try:
            target = _target(source, naming, made, options.overwrite)
            with _on_disk(source) as path:
                report |= _upscale_file(path, target, naming.suffix, model, settings, options, progress)
            if target:
                made[target] = source.name
            progress.close(f"-> {target or 'standard output'}")
            for message in _remarks(report):
                print(f"flashsr: {source.name}: {message}", file=sys.stderr)
        except Exception as error:  # one odd file ends no batch
            failures += 1
            progress.close("failed")
            report["error"] = reason(error)
            print(f"flashsr: {source.name}: {report['error']}", file=sys.stderr)
        if options.json:
            print(json.dumps(report), flush=True)
    return failures


def _target(source: Source, naming: Naming, made: dict[Path, str], overwrite: bool) -> Path | None:
    """The output's file (None: standard output). Raises UserError where it would replace what it should not."""
    if source.problem:
        raise UserError(source.problem)
    target = naming.target(source)
    if target is None:
        return None
    if target in made:
        raise UserError(f"{target} was just made from {made[target]}: give the two different folders")
    if target.exists():
        if target.is_dir():
            raise UserError(f"the output {target} is a folder")
        if source.path and target.samefile(source.path):
            raise UserError(f"the output {target} is the input itself: choose another -o")
        if not overwrite:
            raise UserError(f"the output {target} exists: choose another -o, or give --overwrite")
    return target


@contextlib.contextmanager
def _on_disk(source: Source) -> Iterator[Path]:
    """The input as a file; what comes from a pipe goes to a temporary one, since it is read twice."""
    if source.path:
        kind = source.path.stat().st_mode
        if stat.S_ISREG(kind):
            yield source.path
            return
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            raise UserError("is neither a file nor a pipe")
    with contextlib.ExitStack() as stack:
        pipe = stack.enter_context(open(source.path, "rb")) if source.path else sys.stdin.buffer
        file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".audio"))
        shutil.copyfileobj(pipe, file)
        file.flush()
        yield Path(file.name)


def _upscale_file(
    path: Path,
    target: Path | None,
    suffix: str,
    model: Model,
    settings: Settings,
    options: Options,
    progress: "_Progress",
) -> dict:
    """Write the output; returns what --json says about it."""
    began = time.monotonic()
    found = survey(path)
    cutoff_hz = options.cutoff_hz or found.bandwidth_hz
    passed_through = options.cutoff_hz is None and not 0 < cutoff_hz < FULL_BAND_HZ
    bit_depth = options.bit_depth or ("float" if found.floats and suffix == "wav" else "24")
    with audio_files.opened(path) as audio:
        if passed_through:
            outputs = resample_stream(audio_files.blocks(audio), found.sample_rate, found.channels)
        else:
            settings = dataclasses.replace(settings, bands=options.bands(cutoff_hz))
            stream = {"channels": found.channels, "settings": settings}
            outputs = upscale_stream(model, audio_files.blocks(audio), found.sample_rate, **stream)
        if target is None:
            peak = _to_standard_output(outputs, suffix, bit_depth, found, progress)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as partial:
                if suffix == FILM:
                    peak = _write_film(path, partial, outputs, bit_depth, found, progress, target)
                else:
                    peak = _write(partial, outputs, suffix, bit_depth, found, progress, target)
    if options.spectrogram:
        _picture(path, target)
    return {
        "output": str(target) if target else "-",
        "sample_rate": found.sample_rate,
        "channels": found.channels,
        "seconds": found.samples / found.sample_rate,
        "cutoff_hz": round(cutoff_hz),
        "passed_through": passed_through,
        "peak_db": round(20 * np.log10(max(peak, 1e-10)), 2),
        "clipped": bool(peak > 1 and bit_depth != "float"),
        "remarks": list(found.remarks),
        "left_out": found.tags.left_out,
        "elapsed": round(time.monotonic() - began, 2),
    }


def _write(
    path: Path,
    outputs: Iterator[np.ndarray],
    suffix: str,
    bit_depth: str,
    found: Survey,
    progress: "_Progress",
    name: Path | str,
) -> float:
    """Write all blocks (C, n); returns the absolute peak."""
    total = round(found.samples * SAMPLE_RATE / found.sample_rate)
    written, peak = 0, 0.0
    try:
        with audio_files.writer(path, suffix, bit_depth, found.channels, total, found.tags, found.mask) as file:
            for block_CxN in outputs:
                file.write(block_CxN.T)
                written += block_CxN.shape[1]
                peak = max(peak, float(np.abs(block_CxN).max(initial=0)))
                progress.show(written / total)
    except sf.LibsndfileError as error:
        raise UserError(f"the output {name} cannot be written (is the disk full?): {error.error_string}") from error
    return peak


def _write_film(
    path: Path,
    target: Path,
    outputs: Iterator[np.ndarray],
    bit_depth: str,
    found: Survey,
    progress: "_Progress",
    name: Path,
) -> float:
    """The film at `path` with the output in the place of its sound; returns the absolute peak."""
    if found.film_start is None:
        raise UserError(f"there is no video in it to put into {name}: end the output's name in .wav or .flac")
    with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
        sound = Path(folder) / "sound.flac"
        peak = _write(sound, outputs, "flac", bit_depth, found, progress, name)
        put_back(path, sound, target, found.film_start)
    return peak


def _to_standard_output(
    outputs: Iterator[np.ndarray], suffix: str, bit_depth: str, found: Survey, progress: "_Progress"
) -> float:
    """As `_write`, by way of a temporary file: the header, which comes first, is complete last."""
    with tempfile.NamedTemporaryFile(suffix=f".{suffix}") as file:
        peak = _write(Path(file.name), outputs, suffix, bit_depth, found, progress, "to standard output")
        with open(file.name, "rb") as complete:
            shutil.copyfileobj(complete, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return peak


def _picture(path: Path, target: Path) -> None:
    """The spectrograms of input and output beside the output."""
    from flashsr_jax.audio.pictures import file_spectrograms  # slow to import

    file_spectrograms({"input": path, "output": target}, target.with_suffix(".png"))


def _remarks(report: dict) -> Iterator[str]:
    """What the user should know about a file that was written."""
    yield from report["remarks"]
    if report["left_out"]:
        yield f"not carried over: {', '.join(report['left_out'])}"
    if report["passed_through"]:
        khz = f"full band already ({report['cutoff_hz'] / 1000:.1f} kHz)" if report["cutoff_hz"] else "silent"
        yield f"{khz}, only resampled; --cutoff HZ upscales it all the same"
    if report["clipped"]:
        yield f"output exceeded full scale by {report['peak_db']:.2f} dB and was clipped"
    elif report["peak_db"] > 0:
        yield f"output exceeds full scale by {report['peak_db']:.2f} dB, which a file of floats keeps"


class _Progress:
    """A line on the terminal that says how far one file is and how long it will take; nothing elsewhere."""

    def __init__(self, title: str):
        self.title = title
        self.began = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def show(self, done: float) -> None:
        if not done:
            return
        left = round((time.monotonic() - self.began) * (1 - done) / done)
        self._line(f"{100 * done:3.0f} %  {left // 60}:{left % 60:02d} left")

    def close(self, outcome: str) -> None:
        self._line(outcome + "\n")

    def _line(self, text: str) -> None:
        if self.terminal:
            print(f"\r\x1b[K{self.title}  {text}", end="", file=sys.stderr, flush=True)
