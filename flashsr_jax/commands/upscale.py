"""`flashsr upscale`: audio files to 48 kHz."""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from flashsr_jax.commands.arguments import (
    add_computation,
    add_weights,
    command,
    cutoff,
    decibels,
    integer,
    shard,
    with_options,
)
from flashsr_jax.extras import needing
from flashsr_jax.upscale.sources import OUT_RATES


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    upscale = command(commands, "upscale", run, "restore the high band of audio files: 48 kHz wav or flac out")
    upscale.add_argument(
        "inputs", nargs="+", metavar="IN", help="audio files, folders (with -r), patterns, or - for standard input"
    )
    upscale.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a .wav, .flac or .mkv (a film) file, a folder, made if need be, or - (default: IN-48k.wav beside it)",
    )
    upscale.add_argument("-r", "--recursive", action="store_true", help="upscale the audio files in folders, too")
    existing = upscale.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument("--skip-existing", action="store_true", help="leave outputs that exist, do what is missing")
    upscale.add_argument(
        "--shard", type=shard, metavar="I/N", help="do the I-th of N parts of the inputs, on one of N machines, say"
    )
    upscale.add_argument(
        "--summary", action="store_true", help="only say which outputs are there and which are missing, on one machine"
    )
    upscale.add_argument("--format", choices=("wav", "flac"), help="of the outputs (default: by -o, else wav)")
    upscale.add_argument(
        "--bit-depth", choices=("16", "24", "float"), help="of the outputs (default 24; float where the input is)"
    )
    upscale.add_argument(
        "--out-rate",
        type=int,
        choices=OUT_RATES,
        default=48_000,
        metavar="HZ",
        help="of the outputs: 44100, 48000 or 96000, resampled from 48000 (default 48000)",
    )
    upscale.add_argument("--spectrogram", action="store_true", help="draw before and after beside each output")
    upscale.add_argument("--json", action="store_true", help="a line of JSON for each file on standard output")

    sound = upscale.add_argument_group("sound")
    sound.add_argument(
        "--cutoff", type=cutoff, default="auto", metavar="HZ", help="where the inputs end (default auto: detected)"
    )
    sound.add_argument(
        "--lowpass",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="take away what the inputs have over their band, a floor or a codec's rests (default: yes)",
    )
    sound.add_argument(
        "--keep-low-band",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put the inputs' own band under the cutoff in the place of the networks' (default: yes)",
    )
    sound.add_argument(
        "--high-band-gain", type=decibels, default=0.0, metavar="DB", help="of what is over the cutoff (default 0)"
    )
    sound.add_argument(
        "--peak",
        choices=("keep", "limit"),
        default="limit",
        help="what is added over full scale: limit (default) turns it down, keep clips it or, in floats, keeps it",
    )
    sound.add_argument("--mono", action="store_true", help="mix the channels to one")
    sound.add_argument(
        "--seed", type=integer(0, 2**32 - 1), default=0, metavar="N", help="same seed, same output (default 0)"
    )

    networks = upscale.add_argument_group("networks")
    add_weights(networks)
    add_computation(networks)


def run(args: argparse.Namespace) -> int:
    """Upscale all inputs; 1 where one of them could not be."""
    if args.summary:
        return _summary(args)
    if args.spectrogram:
        with needing("pictures", "--spectrogram"):  # before hours of upscaling
            import matplotlib  # noqa: F401

    from flashsr_jax.devices.runtime import choose_device, enable_compilation_cache, limit_heap
    from flashsr_jax.upscale.files import Options, upscale_files
    from flashsr_jax.upscale.model import load_model
    from flashsr_jax.upscale.programs import dropped_at_interrupts
    from flashsr_jax.upscale.stream import Settings

    limit_heap()
    enable_compilation_cache()
    device = choose_device(args.device)
    model = load_model(args.weights)
    if sys.stderr.isatty():
        print(f"flashsr: running on {device.device_kind}", file=sys.stderr)
    settings = Settings(seed=args.seed, steps=args.steps, dtype=args.dtype, batch=args.batch)
    options = Options(
        cutoff_hz=args.cutoff,
        lowpass=args.lowpass,
        keep_low_band=args.keep_low_band,
        high_band_gain_db=args.high_band_gain,
        bit_depth=args.bit_depth,
        limit_peaks=args.peak == "limit",
        mono=args.mono,
        out_rate=args.out_rate,
        spectrogram=args.spectrogram,
        overwrite=args.overwrite,
        skip_existing=args.skip_existing,
        json=args.json,
    )
    with _ends_when_told(), dropped_at_interrupts():
        failures = upscale_files(args.inputs, args.output, model, settings, options, **_selection(args))
    return 1 if failures else 0


def _summary(args: argparse.Namespace) -> int:
    from flashsr_jax.upscale.files import Options, summarise_files

    missing = summarise_files(args.inputs, args.output, Options(out_rate=args.out_rate), **_selection(args))
    return 1 if missing else 0


def _selection(args: argparse.Namespace) -> dict[str, Any]:
    """Which inputs, what their outputs are called, and how the options are."""
    from flashsr_jax.upscale.sources import Shard

    shard = Shard(*args.shard) if args.shard else None
    return {"recursive": args.recursive, "suffix": args.format, "shard": shard, "worded": with_options}


@contextlib.contextmanager
def _ends_when_told() -> Iterator[None]:
    """SIGTERM, which schedulers send before they stop a job, and SIGHUP of a terminal that is closed end by way of what
    removes a half-written output. One that is ignored, as under nohup, stays so; threads have no say in it."""

    def end(number: int, frame: object) -> None:
        sys.exit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows has no SIGHUP
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
