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
    import jax

    from flashsr_jax.runtime import enable_compilation_cache
    from flashsr_jax.upscale import load_model
    from flashsr_jax.upscale_files import upscale_files

    enable_compilation_cache()
    model = load_model(args.weights)
    if sys.stderr.isatty():
        print(f"flashsr: running on {jax.devices()[0].device_kind}", file=sys.stderr)
    options = {"seed": args.seed, "steps": args.steps, "overwrite": args.overwrite}
    return 1 if upscale_files(args.inputs, args.output, model, **options) else 0


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
    from flashsr_jax.weights.pack import pack

    pack(args.vae, args.unet, args.vocoder, args.output, args.dtype)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flashsr", description="One-step audio super-resolution to 48 kHz.")
    parser.add_argument("--version", action="version", version=f"flashsr {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    upscale = _command(commands, "upscale", _upscale, "restore the high band of audio files: 48 kHz wav files out")
    upscale.add_argument("inputs", nargs="+", metavar="IN", help="audio files of any length, channels and sample rate")
    upscale.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a .wav file, or a folder (several inputs, or a trailing /)",
    )
    upscale.add_argument("--weights", required=True, metavar="FILE", help="the model, a .safetensors file")
    upscale.add_argument(
        "--seed", type=_integer(0, 2**32 - 1), default=0, metavar="N", help="same seed, same output (default 0)"
    )
    upscale.add_argument(
        "--steps", type=_integer(1, 1000), default=1, metavar="N", help="evaluations of the diffusion model (default 1)"
    )
    upscale.add_argument("--overwrite", action="store_true", help="replace outputs that exist")

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

    weights = commands.add_parser("weights", help="model files").add_subparsers(required=True, metavar="COMMAND")
    pack = _command(weights, "pack", _weights_pack, "put trained networks together in one file for upscaling")
    for network in ("vae", "unet", "vocoder"):
        pack.add_argument(
            f"--{network}", required=True, metavar="RUN", help=f"the {network}'s run folder or weights file"
        )
    pack.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    pack.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="storage (default float32)"
    )
    return parser


def _command(commands, name: str, run: Callable, summary: str) -> argparse.ArgumentParser:
    """A sub-command whose arguments are handled by `run(args) -> exit code`."""
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.set_defaults(run=run)
    return parser


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
