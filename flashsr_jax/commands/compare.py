"""`flashsr compare`: two files against the original."""

import argparse

from flashsr_jax.commands.arguments import command
from flashsr_jax.extras import needing


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    compare = command(commands, "compare", run, "measure two files against the original")
    compare.add_argument("a", metavar="A")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--reference", required=True, metavar="R", help="the full-band original")
    compare.add_argument("--no-perceptual", action="store_true", help="leave out Zimtohrli and ViSQOL")
    compare.add_argument("--cutoff", type=float, metavar="HZ", help="where the input ended: measures of either band")


@needing("eval", "comparing files")
def run(args: argparse.Namespace) -> int:
    """Print the measures of both files."""
    from flashsr_jax.evaluate.compare import compare

    print(compare(args.a, args.b, args.reference, args.cutoff, not args.no_perceptual))
    return 0
