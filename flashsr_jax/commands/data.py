"""`flashsr data`: datasets for training."""

import argparse

from flashsr_jax.commands.arguments import add_config, command, integer, number, with_options
from flashsr_jax.errors import UserError
from flashsr_jax.extras import needing


def add(commands: argparse._SubParsersAction) -> None:
    """The words `data build` and `data encode`, and their flags."""
    data = commands.add_parser("data", help="data sets for training").add_subparsers(required=True, metavar="COMMAND")
    parser = command(data, "build", build, "build a training data set from folders of recordings")
    parser.add_argument(
        "sources", nargs="*", metavar="DIR", help="folders of recordings; speech, music or effects by name"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the data set's folder")
    parser.add_argument("--csv", metavar="FILE", help="classes: columns path, class and, if wanted, group and split")
    parser.add_argument(
        "--tfds", action="append", default=[], metavar="NAME=CLASS", help="a TFDS catalogue data set, as vctk=speech"
    )
    parser.add_argument(
        "--min-bandwidth",
        type=number(0, 24_000),
        default=16_000.0,
        metavar="HZ",
        help="leave out duller recordings, and of less than twice its rate (default 16000)",
    )
    parser.add_argument("--workers", type=integer(1, 1024), metavar="N", help="decoding processes (default: all cores)")
    parser.add_argument(
        "--runner",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="NAME",
        help="build on Apache Beam: DirectRunner, FlinkRunner, DataflowRunner, ...; last, as all after it are "
        "Beam's. Every worker needs the folders under the same names",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of other inputs or options")
    parser = command(
        data, "encode", encode, "encode training windows once, for stages that read them by --config.data.latents=DIR"
    )
    add_config(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write, which does not exist yet")
    parser.add_argument(
        "--windows", type=integer(1, 10**9), required=True, metavar="N", help="how many windows to draw and encode"
    )


@needing("train", "building a data set")
def build(args: argparse.Namespace) -> int:
    """Recordings become a data set."""
    from flashsr_jax.data.build import build_dataset

    if args.runner and args.workers:
        raise UserError(f"--workers {args.workers}: with --runner, Beam's options say how many there are")
    build_dataset(
        args.sources,
        args.out,
        csv=args.csv,
        tfds=args.tfds,
        min_bandwidth_hz=args.min_bandwidth,
        workers=args.workers,
        runner=args.runner,
        overwrite=args.overwrite,
        worded=with_options,
    )
    return 0


@needing("train", "encoding training windows")
def encode(args: argparse.Namespace) -> int:
    """Training windows of a regression, teacher or student configuration become latents. Raises UserError for another
    stage's."""
    from flashsr_jax.commands.configuration import load_configuration
    from flashsr_jax.commands.train import log_to_terminal
    from flashsr_jax.devices.runtime import enable_compilation_cache
    from flashsr_jax.train.latents import write_cache

    log_to_terminal()
    enable_compilation_cache()
    config = load_configuration(args.config, args.overrides)
    if "latents" not in config.data:
        raise UserError(f"--config {args.config}: stage {config.stage} reads no latents: encode for another")
    write_cache(config, args.out, args.windows)
    return 0
