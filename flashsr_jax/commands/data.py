"""`flashsr data`: datasets for training."""

import argparse

from flashsr_jax.commands.arguments import command, integer


def add(commands) -> None:
    """The word and its flags."""
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
        type=float,
        default=16_000.0,
        metavar="HZ",
        help="leave out duller recordings (default 16000)",
    )
    parser.add_argument("--workers", type=integer(1, 1024), metavar="N", help="decoding processes (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of other inputs or options")


def build(args: argparse.Namespace) -> int:
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
