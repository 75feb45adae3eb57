"""The `flashsr` command. Only the standard library is imported until a sub-command runs, so that --help is at once."""

import argparse
import sys
from collections.abc import Callable, Sequence

from flashsr_jax import __version__
from flashsr_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit code.

    0: all done; 1: something failed, said in one line each on stderr; 2: wrong usage; 130: interrupted.
    """
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("flashsr: interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        print(f"flashsr: {error}", file=sys.stderr)
        return 1


def _upscale(args: argparse.Namespace) -> int:
    from flashsr_jax.devices.runtime import choose_device, enable_compilation_cache, limit_heap
    from flashsr_jax.upscale.files import Options, upscale_files
    from flashsr_jax.upscale.model import load_model
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
        spectrogram=args.spectrogram,
        overwrite=args.overwrite,
        json=args.json,
    )
    failures = upscale_files(
        args.inputs, args.output, model, settings, options, recursive=args.recursive, suffix=args.format
    )
    return 1 if failures else 0


def _benchmark(args: argparse.Namespace) -> int:
    from flashsr_jax.cost import upscaling
    from flashsr_jax.devices.runtime import choose_device, limit_heap
    from flashsr_jax.models.presets import preset
    from flashsr_jax.upscale.model import load_model
    from flashsr_jax.upscale.stream import Settings

    limit_heap()
    choose_device(args.device)
    settings = Settings(steps=args.steps, dtype=args.dtype, batch=args.batch)
    if args.preset:
        name, config = f"{args.preset} (random weights)", preset(args.preset)
        report = upscaling.benchmark(lambda: upscaling.random_model(config), settings, args.repeats)
    else:
        name = args.weights
        report = upscaling.benchmark(lambda: load_model(name), settings, args.repeats)
    print(upscaling.as_json(report, name) if args.json else upscaling.table(report, name))
    return 0


def _data_build(args: argparse.Namespace) -> int:
    from flashsr_jax.data.build import build_dataset

    build_dataset(
        args.sources,
        args.out,
        csv=args.csv,
        tfds=args.tfds,
        min_bandwidth_hz=args.min_bandwidth,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    return 0


def _weights_pack(args: argparse.Namespace) -> int:
    from flashsr_jax.exchange.pack import pack

    named = {network: getattr(args, network) for network in ("vae", "unet", "vocoder")}
    pack({network: run for network, run in named.items() if run}, args.output, args.dtype)
    return 0


def _weights_import(args: argparse.Namespace) -> int:
    from flashsr_jax.exchange.published import import_published

    import_published(args.files, args.output, args.dtype)
    return 0


def _weights_export(args: argparse.Namespace) -> int:
    from flashsr_jax.devices.runtime import enable_compilation_cache
    from flashsr_jax.exchange.published import export

    enable_compilation_cache()
    files, change = export(args.source, args.to, args.output, args.dtype, args.format, not args.last)
    print(*files, sep="\n")
    if change is not None:
        print(f"{args.dtype} changes the output by {change:.4f} in LSD (1.28 s of a tone in noise)")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from flashsr_jax.commands.evaluate import evaluate
    from flashsr_jax.devices.runtime import enable_compilation_cache

    enable_compilation_cache()
    print(
        evaluate(
            args.data,
            args.weights,
            args.output,
            split=args.split,
            clips=args.clips,
            seconds=args.seconds,
            cutoffs_hz=args.cutoffs,
            seeds=args.seeds,
            teacher=args.teacher,
            steps=args.steps,
            guidance=args.guidance,
            regression=args.regression,
            outputs=dict(args.outputs),
            noise_profiles=args.noise_profiles,
            perceptual=not args.no_perceptual,
            samples_per_class=args.samples,
            save_audio=args.save_audio,
            workers=args.workers,
        )
    )
    return 0


def _compare(args: argparse.Namespace) -> int:
    from flashsr_jax.evaluate.compare import compare

    print(compare(args.a, args.b, args.reference, args.cutoff, not args.no_perceptual))
    return 0


def _runs(args: argparse.Namespace) -> int:
    from flashsr_jax.runs.listing import as_json, listing

    print(as_json(args.folder) if args.json else listing(args.folder))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flashsr", description="One-step audio super-resolution to 48 kHz.")
    parser.add_argument("--version", action="version", version=f"flashsr {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    _add_upscale(commands)
    _add_benchmark(commands)

    data = commands.add_parser("data", help="data sets for training").add_subparsers(required=True, metavar="COMMAND")
    build = _command(data, "build", _data_build, "build a training data set from folders of recordings")
    build.add_argument(
        "sources", nargs="*", metavar="DIR", help="folders of recordings; speech, music or effects by name"
    )
    build.add_argument("--out", required=True, metavar="DIR", help="the data set's folder")
    build.add_argument("--csv", metavar="FILE", help="classes: columns path, class and, if wanted, group and split")
    build.add_argument(
        "--tfds", action="append", default=[], metavar="NAME=CLASS", help="a TFDS catalogue data set, as vctk=speech"
    )
    build.add_argument(
        "--min-bandwidth",
        type=float,
        default=16_000.0,
        metavar="HZ",
        help="leave out duller recordings (default 16000)",
    )
    build.add_argument("--workers", type=_integer(1, 1024), metavar="N", help="decoding processes (default: all cores)")
    build.add_argument("--overwrite", action="store_true", help="replace a data set of other inputs or options")

    runs = _command(commands, "runs", _runs, "list training runs: their best scores, and what sets each apart")
    runs.add_argument("folder", metavar="DIR", help="a folder of runs, or of folders of them")
    runs.add_argument("--json", action="store_true", help="for programs: with all scores, as JSON")

    _add_evaluation(commands)

    weights = commands.add_parser("weights", help="model files").add_subparsers(required=True, metavar="COMMAND")
    pack = _command(weights, "pack", _weights_pack, "put trained networks together in one file for upscaling")
    for network in ("vae", "unet", "vocoder"):
        help_text = f"the {network}'s run folder or weights file; several: their mean"
        pack.add_argument(f"--{network}", metavar="RUN", nargs="+", help=help_text)
    pack.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    bring = _command(weights, "import", _weights_import, "make the published PyTorch checkpoints a weights file")
    bring.add_argument("files", nargs="+", metavar="FILE", help="vae, student_ldm and sr_vocoder: .pth or .safetensors")
    bring.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    give = _command(weights, "export", _weights_export, "write weights for PyTorch or Orbax")
    give.add_argument("source", metavar="WEIGHTS", help="a weights file, the model that comes along, or a run's folder")
    give.add_argument("--to", required=True, choices=("torch", "orbax"), help="format")
    give.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    give.add_argument("--format", choices=("pth", "safetensors"), default="pth", help="for torch (default pth)")
    give.add_argument("--last", action="store_true", help="of a run, the last parameters instead of their average")
    for command in (pack, bring, give):
        command.add_argument(
            "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="storage (default float32)"
        )
    return parser


def _add_upscale(commands) -> None:
    upscale = _command(commands, "upscale", _upscale, "restore the high band of audio files: 48 kHz wav or flac out")
    upscale.add_argument(
        "inputs", nargs="+", metavar="IN", help="audio files, folders (with -r), patterns, or - for standard input"
    )
    upscale.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a file, a folder (several inputs, or a trailing /), or - (default: IN-48k.wav beside each input)",
    )
    upscale.add_argument("-r", "--recursive", action="store_true", help="upscale the audio files in folders, too")
    upscale.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    upscale.add_argument("--format", choices=("wav", "flac"), help="of the outputs (default: by -o, else wav)")
    upscale.add_argument(
        "--bit-depth", choices=("16", "24", "float"), help="of the outputs (default 24; float where the input is)"
    )
    upscale.add_argument("--spectrogram", action="store_true", help="draw before and after beside each output")
    upscale.add_argument("--json", action="store_true", help="a line of JSON for each file on standard output")

    sound = upscale.add_argument_group("sound")
    sound.add_argument(
        "--cutoff", type=_cutoff, default="auto", metavar="HZ", help="where the inputs end (default auto: detected)"
    )
    sound.add_argument("--lowpass", action="store_true", help="take away what the inputs have over the cutoff")
    sound.add_argument("--keep-low-band", action="store_true", help="put the input's own band under the cutoff back")
    sound.add_argument(
        "--high-band-gain", type=_decibels, default=0.0, metavar="DB", help="of what is over the cutoff (default 0)"
    )
    sound.add_argument(
        "--seed", type=_integer(0, 2**32 - 1), default=0, metavar="N", help="same seed, same output (default 0)"
    )

    networks = upscale.add_argument_group("networks")
    _add_weights(networks)
    _add_computation(networks)


def _add_benchmark(commands) -> None:
    benchmark = _command(commands, "benchmark", _benchmark, "measure how fast upscaling runs here, network by network")
    model = benchmark.add_mutually_exclusive_group()
    _add_weights(model)
    model.add_argument("--preset", metavar="SIZE", help="random weights of a size: tiny, small, base (the published)")
    _add_computation(benchmark)
    benchmark.add_argument(
        "--repeats", type=_integer(1, 1000), default=3, metavar="N", help="timings, of which the median (default 3)"
    )
    benchmark.add_argument("--json", action="store_true", help="the figures as a line of JSON")


def _add_weights(group) -> None:
    group.add_argument(
        "--weights",
        default="small",
        metavar="FILE",
        help="a .safetensors file, or hf:OWNER/REPO (default: the model that comes along)",
    )


def _add_computation(networks) -> None:
    networks.add_argument(
        "--steps", type=_integer(1, 1000), default=1, metavar="N", help="evaluations of the diffusion model (default 1)"
    )
    networks.add_argument(
        "--batch", type=_integer(1, 1024), metavar="N", help="windows at once (default: 1 on a CPU, else 4)"
    )
    networks.add_argument("--device", choices=("cpu", "gpu", "tpu"), help="(default: the best there is)")
    networks.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation (default float32)"
    )


def _add_evaluation(commands) -> None:
    evaluate = _command(
        commands, "evaluate", _evaluate, "compare models, baselines and other systems' files, and write a report"
    )
    evaluate.add_argument(
        "--data", required=True, metavar="DIR", help="full-band originals, or a data set of `flashsr data build`"
    )
    evaluate.add_argument("--weights", metavar="FILE", help="the model, a .safetensors file")
    evaluate.add_argument("-o", "--output", required=True, metavar="DIR", help="the report's folder")
    evaluate.add_argument(
        "--cutoffs",
        type=_cutoffs,
        default="2000,4000,6000,8000,12000,16000",
        metavar="HZ,...",
        help="where the inputs end (default %(default)s)",
    )
    evaluate.add_argument(
        "--clips", type=_integer(1, 10**6), metavar="N", help="clips a class (default: all files; 40 of a data set)"
    )
    evaluate.add_argument(
        "--seconds", type=float, default=5.12, metavar="S", help="the most of a recording that is used (default 5.12)"
    )
    evaluate.add_argument("--split", default="test", help="of a data set (default test)")
    evaluate.add_argument(
        "--seeds", type=_integer(1, 100), default=1, metavar="N", help="runs of whatever draws noise (default 1)"
    )
    evaluate.add_argument("--teacher", metavar="RUN", help="a teacher's run folder or weights file to compare")
    evaluate.add_argument(
        "--steps", type=_integer(1, 1000), default=50, metavar="N", help="the teacher's steps (default 50)"
    )
    evaluate.add_argument(
        "--guidance", type=float, default=1.0, metavar="S", help="the teacher's guidance scale (default 1: none)"
    )
    evaluate.add_argument("--regression", metavar="RUN", help="a regression U-Net's run or weights file to compare")
    evaluate.add_argument(
        "--outputs",
        type=_named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="files of another system, named as the originals: DIR/CLIP.wav, or DIR/CUTOFF/CLIP.wav",
    )
    evaluate.add_argument(
        "--noise-profiles", metavar="FILE", help="profiles for the noise baseline (default: built in)"
    )
    evaluate.add_argument("--no-perceptual", action="store_true", help="leave out Zimtohrli and ViSQOL, which are slow")
    evaluate.add_argument(
        "--samples", type=_integer(0, 100), default=2, metavar="N", help="clips a class to listen to (default 2)"
    )
    evaluate.add_argument("--save-audio", action="store_true", help="keep every input and output as a file")
    evaluate.add_argument(
        "--workers", type=_integer(1, 1024), metavar="N", help="measuring processes (default: all cores)"
    )

    compare = _command(commands, "compare", _compare, "measure two files against the original")
    compare.add_argument("a", metavar="A")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--reference", required=True, metavar="R", help="the full-band original")
    compare.add_argument("--no-perceptual", action="store_true", help="leave out Zimtohrli and ViSQOL")
    compare.add_argument("--cutoff", type=float, metavar="HZ", help="where the input ended: measures of either band")


def _command(commands, name: str, run: Callable, summary: str) -> argparse.ArgumentParser:
    """A sub-command whose arguments are handled by `run(args) -> exit code`."""
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _cutoff(text: str) -> float | None:
    """An argparse type: a frequency in Hz; None for `auto`."""
    if text == "auto":
        return None
    try:
        hz = float(text)
    except ValueError:
        hz = 0.0
    if not 500 <= hz < 24_000:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a frequency from 500 to 24000 Hz")
    return hz


def _decibels(text: str) -> float:
    """An argparse type: a gain from -60 to 24 dB."""
    try:
        gain = float(text)
    except ValueError:
        gain = float("nan")
    if not -60 <= gain <= 24:
        raise argparse.ArgumentTypeError(f"{text!r} is not a gain from -60 to 24 dB")
    return gain


def _cutoffs(text: str) -> list[float]:
    """An argparse type: frequencies in Hz, separated by commas."""
    try:
        cutoffs = [float(part) for part in text.split(",")]
    except ValueError:
        cutoffs = []
    if not cutoffs or not all(100 <= hz < 24_000 for hz in cutoffs):
        raise argparse.ArgumentTypeError(f"{text!r} are not frequencies from 100 to 24000 Hz, separated by commas")
    return sorted(set(cutoffs))


def _named_folder(text: str) -> tuple[str, str]:
    """An argparse type: NAME=DIR."""
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=DIR")
    return name, folder


def _integer(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: an integer from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer from {low} to {high}")
        return value

    return parse
