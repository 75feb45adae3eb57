"""Super-resolution of audio files, block by block from disk to disk: the body of `flashsr upscale`."""

import collections
import contextlib
import dataclasses
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from flashsr_jax.audio import SAMPLE_RATE
from flashsr_jax.audio import files as audio_files
from flashsr_jax.audio.bands import Bands, BandsByStretch
from flashsr_jax.audio.files import Survey, survey
from flashsr_jax.audio.limiter import FULL_SCALE, TRUE_PEAK_CEILING, Limiter
from flashsr_jax.audio.media import put_back
from flashsr_jax.audio.resampling import of_length, resample_stream
from flashsr_jax.audio.stretches import Stretch
from flashsr_jax.audio.tags import Tags
from flashsr_jax.errors import UserError, one_line, reason
from flashsr_jax.files import replacing, writable_folder
from flashsr_jax.progress import Progress
from flashsr_jax.upscale.model import Model
from flashsr_jax.upscale.sources import FILM, PICTURE, Naming, Shard, Source, find
from flashsr_jax.upscale.stream import Settings, Tally, upscale_stream

LOUDER_DB = 1.0  # nothing was added where the output's high band is no more over what of it is the input's own, ...
FAINT_DB = -60.0  # ... or is fainter beside the low band
MOST_DB = 60.0  # a limiter that takes more has taken all
SAID_DB = 0.1  # a limiter's work that is less is not worth a word


@dataclasses.dataclass(frozen=True)
class Options:
    """What `flashsr upscale` does beside running the networks.

    cutoff_hz: where the inputs end; None: detected. lowpass, keep_low_band, high_band_gain_db: as in `Bands`.
    bit_depth: "16", "24" or "float"; None: float where the input is, else 24. limit_peaks: keep the output within full
    scale, in a file of floats within the input's peak where that is over it. mono: mix the channels to one. out_rate:
    of the outputs, in Hz. spectrogram: draw a picture beside each output. overwrite: replace outputs that exist.
    skip_existing: leave them, and do what is missing. json: print a line for each file.
    """

    cutoff_hz: float | None = None
    lowpass: bool = True
    keep_low_band: bool = True
    high_band_gain_db: float = 0.0
    bit_depth: str | None = None
    limit_peaks: bool = True
    mono: bool = False
    out_rate: int = SAMPLE_RATE
    spectrogram: bool = False
    overwrite: bool = False
    skip_existing: bool = False
    json: bool = False

    def bands(self, found: Survey) -> Bands | BandsByStretch:
        """What to do to the bands of an input."""
        if self.cutoff_hz is not None:
            return Bands(self.cutoff_hz, self.lowpass, self.keep_low_band, self.high_band_gain_db)
        return BandsByStretch.of(
            found.stretches,
            lowpass=self.lowpass,
            keep_low_band=self.keep_low_band,
            high_band_gain_db=self.high_band_gain_db,
        )


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
    worded: Callable[[str], str] = str,
) -> int:
    """Super-resolve audio files to 48 kHz; returns how many failed, each with a line on stderr.

    `inputs` and `output` are as on the command line (see `sources`), `suffix` is "wav" or "flac" (None: by the name of
    the output, else wav), `shard` the part of the inputs to do (None: all). Where a file is full-band already, or
    silent, it is only resampled, and that is said. With `options.json` a line of JSON for each file goes to standard
    output. `worded` puts a line that names a parameter into the caller's words. Raises UserError where `output` cannot
    be what it has to be.
    """
    sources, passed_over = find(inputs, recursive, output)
    naming = Naming(sources, output, suffix, options.out_rate)
    if naming.standard and (options.json or options.spectrogram or options.skip_existing):
        raise UserError(
            "standard output holds the audio: `json`, `spectrogram` and `skip_existing` need a file's name as `output`"
        )
    for line in passed_over:
        print(one_line(f"flashsr: {line}"), file=sys.stderr)
    owners = {_identity(source.path): f"the input {source.name}" for source in sources if options.overwrite}
    if shard:
        every, sources = len(sources), shard.of(sources)
        print(f"flashsr: shard {shard.index}/{shard.count}: {len(sources)} of {every} inputs", file=sys.stderr)
    failures = skipped = 0
    for number, source in enumerate(sources, start=1):
        progress = Progress(one_line(f"[{number}/{len(sources)}] {Path(source.name).name}"))
        report: dict[str, object] = {"input": source.name}
        try:
            target = _target(source, naming, options, owners)
            with _on_disk(source) as path:
                if target and _is_done(target, options):
                    report |= {"output": str(target), "skipped": True}
                    if options.spectrogram and not _picture_of(target).exists():
                        _picture(path, target)
                else:
                    report |= _upscale_file(path, target, naming.suffix, model, settings, options, progress)
            owners[_identity(target)] = f"the output of {source.name}"
            skipped += "skipped" in report
            progress.close(
                "was there already" if "skipped" in report else one_line(f"-> {target or 'standard output'}")
            )
            for message in _remarks(report):
                print(one_line(f"flashsr: {source.name}: {worded(message)}"), file=sys.stderr)
        except Exception as error:  # noqa: BLE001 one odd file ends no batch
            failures += 1
            progress.close("failed")
            report["error"] = worded(reason(error))
            print(one_line(f"flashsr: {source.name}: {report['error']}"), file=sys.stderr)
        if options.json:
            print(json.dumps(report), flush=True)
    if skipped:
        print(f"flashsr: {skipped} of {len(sources)} outputs were there already", file=sys.stderr)
    return failures


def summarise_files(
    inputs: Sequence[str],
    output: str | None,
    options: Options,
    *,
    recursive: bool = False,
    suffix: str | None = None,
    shard: Shard | None = None,
    worded: Callable[[str], str] = str,
) -> int:
    """Say how much of what `upscale_files` would do with the same arguments is done; returns how many outputs are not
    there, or cannot be read, each with a line on stderr, `worded`: why, where its input cannot be opened.

    Nothing is computed and nothing written. Raises UserError as `upscale_files` does.
    """
    sources, passed_over = find(inputs, recursive, output)
    naming = Naming(sources, output, suffix, options.out_rate)
    if naming.standard:
        raise UserError("standard output leaves nothing to be counted: give the `output` that the outputs have")
    for line in passed_over:
        print(one_line(f"flashsr: {line}"), file=sys.stderr)
    if shard:
        sources = shard.of(sources)
    missing = 0
    for source in sources:
        try:
            _check_done(source, naming)
        except Exception as error:  # noqa: BLE001 one odd file ends no summary
            missing += 1
            print(one_line(f"flashsr: {source.name}: {worded(reason(error))}"), file=sys.stderr)
    print(f"{len(sources) - missing} of {len(sources)} outputs are there, {missing} are not")
    return missing


def _check_done(source: Source, naming: Naming) -> None:
    """Raise UserError where an output is not there or none, with the reason, if its input gives one."""
    if source.problem:
        raise UserError(source.problem)
    target = naming.target(source)
    if target and target.exists():
        with audio_files.opened(target):
            return
    with _on_disk(source) as path, audio_files.opened(path):
        raise UserError(f"not done yet: {target} is not there")


Identity = tuple[int, int] | None  # of a file, whatever its names are: links, and letters that a disk holds for equal


def _identity(path: Path | None) -> Identity:
    try:
        found = path.stat() if path else None
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if found else None


def _target(source: Source, naming: Naming, options: Options, owners: Mapping[Identity, str]) -> Path | None:
    """The output's file (None: standard output). Raises UserError where it, or its picture, would replace what it
    should not: `owners` says what files are inputs, or outputs of others."""
    if source.problem:
        raise UserError(source.problem)
    target = naming.target(source)
    if target is None:
        return None
    replaces = options.overwrite or _is_done(target, options)
    _check_free("output", target, source, replaces, owners)
    if options.spectrogram:
        _check_free("picture", _picture_of(target), source, replaces, owners)
    return target


def _check_free(kind: str, path: Path, source: Source, replaces: bool, owners: Mapping[Identity, str]) -> None:
    """Raise UserError where a name is taken. A link is taken, whatever it points to: it would be replaced itself."""
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise UserError(f"the {kind} {path} is a folder")
    if source.path and path.exists() and path.samefile(source.path):
        raise UserError(f"the {kind} {path} is the input itself: choose another `output`")
    if owner := owners.get(_identity(path)) if path.exists() else None:
        raise UserError(f"the {kind} {path} is {owner}: choose another `output`, or leave one of the two out")
    if not replaces:
        raise UserError(f"the {kind} {path} exists: choose another `output`, or give `overwrite` or `skip_existing`")


def _is_done(target: Path, options: Options) -> bool:
    """Whether an output is left as it is; outputs are complete or not there."""
    return options.skip_existing and target.exists()


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
    progress: Progress,
) -> dict:
    """Write the output; returns what there is to say about it."""
    began = time.monotonic()
    found = survey(path, options.mono, options.out_rate)
    every = [stretch for channel in found.stretches for stretch in channel]
    passed_through = options.cutoff_hz is None and all(stretch.passes for stretch in every)
    bit_depth = options.bit_depth or ("float" if found.floats and suffix == "wav" else "24")
    tally, limiter = Tally(), Limiter()
    samples = int(found.samples * options.out_rate / found.sample_rate + 0.5)
    with audio_files.opened(path) as audio:
        blocks = audio_files.blocks(audio)
        if options.mono:
            blocks = map(audio_files.mixed, blocks)
        if passed_through:
            outputs = resample_stream(blocks, found.sample_rate, found.channels, options.out_rate)
        else:
            loudest = max(1.0, found.peak) if bit_depth == "float" else 1.0
            ceiling = loudest * TRUE_PEAK_CEILING if options.limit_peaks else None
            settings = dataclasses.replace(settings, bands=options.bands(found), ceiling=ceiling)
            rate, channels = found.sample_rate, found.channels
            outputs = upscale_stream(model, blocks, rate, channels=channels, settings=settings, tally=tally)
            if options.out_rate != SAMPLE_RATE:
                outputs = resample_stream(outputs, SAMPLE_RATE, found.channels, options.out_rate)
        if options.limit_peaks and bit_depth != "float":
            outputs = limiter.whole(outputs, FULL_SCALE)
        output = _Output(suffix, bit_depth, found.channels, samples, found.tags, found.mask, options.out_rate)
        outputs = of_length(outputs, samples)
        if target is None:
            peak = _to_standard_output(outputs, output, progress)
        else:
            writable_folder(target.parent)
            with replacing(target) as partial:
                if suffix == FILM:
                    peak = _write_film(path, partial, outputs, output, found.film_start, progress, target)
                else:
                    peak = _write(partial, outputs, output, progress, target)
    if options.spectrogram and target:
        _picture(path, target)
    restored = {} if passed_through else _restored(options, found.stretches, tally)
    return {
        "output": str(target) if target else "-",
        "model": dict(model.origins),
        "sample_rate": found.sample_rate,
        "channels": found.channels,
        "seconds": found.samples / found.sample_rate,
        "cutoff_hz": round(found.bandwidth_hz),
        "passed_through": passed_through,
        **restored,
        "stretches": [
            {
                "channel": channel,
                "start": round(stretch.start, 2),
                "end": round(stretch.end, 2),
                "cutoff_hz": round(options.cutoff_hz or stretch.cutoff_hz),
                "passed_through": options.cutoff_hz is None and stretch.passes,
            }
            for channel, stretches in enumerate(found.stretches, start=1)
            for stretch in (stretches if options.cutoff_hz is None else [_whole(found)])
        ],
        "peak_db": round(_db(peak), 2),
        "limited_db": round(min(abs(_db(tally.least_gain)), MOST_DB), 2),
        "turned_down_db": round(abs(_db(limiter.least)), 2),
        "clipped": bool(peak > 1 and bit_depth != "float"),
        "remarks": list(found.remarks),
        "left_out": found.tags.left_out,
        "elapsed": round(time.monotonic() - began, 2),
    }


def _whole(found: Survey) -> Stretch:
    """All of a channel."""
    return Stretch(0.0, found.samples / found.sample_rate, 0.0, 0.0)


def _restored(options: Options, stretches: tuple[tuple[Stretch, ...], ...], tally: Tally) -> dict:
    """What a report says of a file that was not only resampled: the cutoff that most of it has, the level of what is
    over it beside the rest, and whether that was added."""
    seconds: collections.defaultdict[float, float] = collections.defaultdict(float)
    for stretch in (stretch for channel in stretches for stretch in channel if not stretch.passes):
        seconds[stretch.cutoff_hz] += stretch.end - stretch.start
    high_band_db = _db(np.sqrt(tally.over / tally.under)) if tally.under else None
    louder = tally.over > 10 ** (LOUDER_DB / 10) * tally.kept
    return {
        "cutoff_hz": round(options.cutoff_hz or max(seconds, key=lambda cutoff_hz: seconds[cutoff_hz])),
        "high_band_db": None if high_band_db is None else round(high_band_db, 1),
        "added": high_band_db is None or (high_band_db > FAINT_DB and louder),
    }


def _db(amplitude: float) -> float:
    return float(20 * np.log10(max(amplitude, 1e-10)))


class _Output(NamedTuple):
    """What the file to write is: format, depth, channels, samples, tags, the channels' places, rate."""

    suffix: str
    bit_depth: str
    channels: int
    samples: int
    tags: Tags
    mask: int | None
    sample_rate: int


def _write(path: Path, outputs: Iterator[np.ndarray], output: _Output, progress: Progress, name: Path | str) -> float:
    """Write all blocks (C, n); returns the absolute peak."""
    written, peak = 0, 0.0
    try:
        with audio_files.writer(path, *output) as file:
            for block_CxN in outputs:
                if not np.isfinite(block_CxN).all():  # integers would be made of it, at full scale
                    raise UserError(f"the output {name} would hold samples that are not finite: not written")
                file.write(block_CxN.T)
                written += block_CxN.shape[1]
                peak = max(peak, float(np.abs(block_CxN).max(initial=0)))
                progress.show(written / output.samples)
    except sf.LibsndfileError as error:
        raise UserError(f"the output {name} cannot be written (is the disk full?): {error.error_string}") from error
    return peak


def _write_film(
    path: Path,
    target: Path,
    outputs: Iterator[np.ndarray],
    output: _Output,
    start: float | None,
    progress: Progress,
    name: Path,
) -> float:
    """The film at `path` with the output in the place of its sound, which begins at `start` seconds; returns the
    absolute peak."""
    if start is None:
        raise UserError(f"there is no video in it to put into {name}: end the output's name in .wav or .flac")
    with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
        sound = Path(folder) / "sound.flac"
        peak = _write(sound, outputs, output._replace(suffix="flac"), progress, name)
        output.tags.left_out += put_back(path, sound, target, start)
    return peak


def _to_standard_output(outputs: Iterator[np.ndarray], output: _Output, progress: Progress) -> float:
    """As `_write`, by way of a temporary file: the header, which comes first, is complete last."""
    with tempfile.NamedTemporaryFile(suffix=f".{output.suffix}") as file:
        peak = _write(Path(file.name), outputs, output, progress, "to standard output")
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
    yield from report["remarks"]
    if report["left_out"]:
        yield f"not carried over: {', '.join(report['left_out'])}"
    khz = f"{report['cutoff_hz'] / 1000:.1f} kHz"
    if report["passed_through"]:
        state = f"full band already ({khz})" if report["cutoff_hz"] else "silent"
        yield f"{state}, only resampled; `cutoff_hz` upscales it all the same"
    elif not report["added"]:
        yield f"nothing was added over {khz}: try `lowpass`, or another `cutoff_hz`"
    if not report["passed_through"] and (spread := _spread(report["stretches"])):
        yield spread
    if report["limited_db"] > SAID_DB:
        yield f"the added band was turned down by up to {report['limited_db']:.1f} dB to stay within full scale"
    if report["turned_down_db"] > SAID_DB:
        yield f"turned down by up to {report['turned_down_db']:.1f} dB to stay within full scale"
    if report["clipped"]:
        yield f"output exceeded full scale by {report['peak_db']:.2f} dB and was clipped"
    elif report["peak_db"] > 0:
        yield f"output exceeds full scale by {report['peak_db']:.2f} dB, which a file of floats keeps"


def _spread(stretches: list[dict]) -> str | None:
    """In words, what share of each channel ends where; None where all ends at one frequency."""
    seconds: dict[int, collections.Counter] = collections.defaultdict(collections.Counter)
    for stretch in stretches:
        if not stretch["passed_through"]:
            what = f"ends at {stretch['cutoff_hz'] / 1000:.1f} kHz"
        else:
            what = "is full band already and stays" if stretch["cutoff_hz"] else "is silent"
        seconds[stretch["channel"]][what] += max(stretch["end"] - stretch["start"], 0.01)  # as they are rounded
    words = {}
    for channel, of_what in seconds.items():
        shares = [f"{100 * length / of_what.total():.0f} % {what}" for what, length in of_what.most_common()]
        words[channel] = ", ".join(shares) if len(shares) > 1 else next(iter(of_what))
    if len(set(words.values())) > 1:
        return "; ".join(f"channel {channel} {text}" for channel, text in words.items())
    return words[1] if len(seconds[1]) > 1 else None
