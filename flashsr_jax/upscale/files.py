"""Super-resolution of audio files, block by block from disk to disk: the body of `flashsr upscale`."""

import contextlib
import dataclasses
import json
import os
import shutil
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
from flashsr_jax.audio.resampling import resample_stream
from flashsr_jax.errors import UserError
from flashsr_jax.files import replacing
from flashsr_jax.upscale.model import Model
from flashsr_jax.upscale.sources import PICTURE, Naming, Shard, Source, find
from flashsr_jax.upscale.stream import Settings, upscale_stream

# The networks know cutoffs up to 16 kHz, which detection may read a tenth too high.
FULL_BAND_HZ = 17_600.0


@dataclasses.dataclass(frozen=True)
class Options:
    """What `flashsr upscale` does beside running the networks.

    cutoff_hz: where the inputs end; None: detected. lowpass, keep_low_band, high_band_gain_db: as in `Bands`.
    bit_depth: "16", "24" or "float"; None: float where the input is, else 24. spectrogram: draw a picture beside each
    output. overwrite: replace outputs that exist. skip_existing: leave them, and do what is missing. json: print a line
    for each file.
    """

    cutoff_hz: float | None = None
    lowpass: bool = False
    keep_low_band: bool = False
    high_band_gain_db: float = 0.0
    bit_depth: str | None = None
    spectrogram: bool = False
    overwrite: bool = False
    skip_existing: bool = False
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
    shard: Shard | None = None,
) -> int:
    """Super-resolve audio files to 48 kHz; returns how many failed, each with a line on stderr.

    `inputs` and `output` are as on the command line (see `sources`), `suffix` is "wav" or "flac" (None: by the name of
    the output, else wav), `shard` the part of the inputs to do (None: all). A file that is full-band already, or
    silent, is only resampled, and that is said. With `options.json` a line of JSON for each file goes to standard
    output. Raises UserError where `output` cannot be what it has to be.
    """
    sources, passed_over = find(inputs, recursive, output)
    naming = Naming(sources, output, suffix)
    if naming.standard and (options.json or options.spectrogram or options.skip_existing):
        raise UserError("standard output holds the audio: give -o FILE for --json, --spectrogram and --skip-existing")
    for line in passed_over:
        print(f"flashsr: {line}", file=sys.stderr)
    if shard:
        every, sources = len(sources), shard.of(sources)
        print(f"flashsr: shard {shard.index}/{shard.count}: {len(sources)} of {every} inputs", file=sys.stderr)
    failures = skipped = 0
    for number, source in enumerate(sources, start=1):
        progress = _Progress(f"[{number}/{len(sources)}] {Path(source.name).name}")
        report = {"input": source.name}
        try:
            target = _target(source, naming, options)
            with _on_disk(source) as path:
                if _is_done(target, options):
                    report |= {"output": str(target), "skipped": True}
                    if options.spectrogram and not _picture_of(target).exists():
                        _picture(path, target)
                else:
                    report |= _upscale_file(path, target, naming.suffix, model, settings, options, progress)
            skipped += "skipped" in report
            progress.close("was there already" if "skipped" in report else f"-> {target or 'standard output'}")
            for message in _remarks(report):
                print(f"flashsr: {source.name}: {message}", file=sys.stderr)
        except (UserError, OSError, sf.SoundFileError) as error:
            failures += 1
            progress.close("failed")
            report["error"] = _reason(error)
            print(f"flashsr: {source.name}: {report['error']}", file=sys.stderr)
        if options.json:
            print(json.dumps(report), flush=True)
    if skipped:
        print(f"flashsr: {skipped} of {len(sources)} outputs were there already", file=sys.stderr)
    return failures


def _target(source: Source, naming: Naming, options: Options) -> Path | None:
    """The output's file (None: standard output). Raises UserError where it, or its picture, would replace what it
    should not."""
    if source.problem:
        raise UserError(source.problem)
    target = naming.target(source)
    if target is None:
        return None
    replaces = options.overwrite or _is_done(target, options)
    _check_free("output", target, source, replaces)
    if options.spectrogram:
        _check_free("picture", _picture_of(target), source, replaces)
    return target


def _check_free(kind: str, path: Path, source: Source, replaces: bool) -> None:
    """Raise UserError where a name is taken. A link is taken, whatever it points to: it would be replaced itself."""
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise UserError(f"the {kind} {path} is a folder")
    if source.path and path.exists() and path.samefile(source.path):
        raise UserError(f"the {kind} {path} is the input itself: choose another -o")
    if not replaces:
        raise UserError(f"the {kind} {path} exists: choose another -o, or give --overwrite or --skip-existing")


def _is_done(target: Path | None, options: Options) -> bool:
    """Whether an output is left as it is; outputs are complete or not there."""
    return options.skip_existing and target is not None and target.exists()


@contextlib.contextmanager
def _on_disk(source: Source) -> Iterator[Path]:
    """The input as a file; what comes from standard input goes to a temporary one, since it is read twice."""
    if source.path:
        yield source.path
        return
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
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
    with sf.SoundFile(path) as audio:
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
        with audio_files.writer(path, suffix, bit_depth, found.channels, total, found.tags) as file:
            for block_CxN in outputs:
                file.write(block_CxN.T)
                written += block_CxN.shape[1]
                peak = max(peak, float(np.abs(block_CxN).max(initial=0)))
                progress.show(written / total)
    except sf.LibsndfileError as error:
        raise UserError(f"the output {name} cannot be written (is the disk full?): {error.error_string}") from error
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

    file_spectrograms({"input": path, "output": target}, _picture_of(target))


def _picture_of(target: Path) -> Path:
    return target.with_suffix(f".{PICTURE}")


def _remarks(report: dict) -> Iterator[str]:
    """What the user should know about a file that was written."""
    if "skipped" in report:
        return
    if report["passed_through"]:
        khz = f"full band already ({report['cutoff_hz'] / 1000:.1f} kHz)" if report["cutoff_hz"] else "silent"
        yield f"{khz}, only resampled; --cutoff HZ upscales it all the same"
    if report["clipped"]:
        yield f"output exceeded full scale by {report['peak_db']:.2f} dB and was clipped"
    elif report["peak_db"] > 0:
        yield f"output exceeds full scale by {report['peak_db']:.2f} dB, which a file of floats keeps"


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
        if not done:
            return
        left = round((time.monotonic() - self.began) * (1 - done) / done)
        self._line(f"{100 * done:3.0f} %  {left // 60}:{left % 60:02d} left")

    def close(self, outcome: str) -> None:
        self._line(outcome + "\n")

    def _line(self, text: str) -> None:
        if self.terminal:
            print(f"\r\x1b[K{self.title}  {text}", end="", file=sys.stderr, flush=True)
