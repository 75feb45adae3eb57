"""The `flashsr` command. Only the standard library is imported until a word runs, so that --help is at once."""

import argparse
import os
import sys
from collections.abc import Sequence

from flashsr_jax import __version__
from flashsr_jax.commands import benchmark, compare, data, evaluate, runs, upscale, weights
from flashsr_jax.errors import DEBUG, UserError, show_traceback

WORDS = (upscale, benchmark, data, runs, evaluate, compare, weights)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit code.

    0: all done; 1: something failed, said in one line each on stderr; 2: wrong usage; 130: interrupted.
    """
    args = parser().parse_args(argv)
    if args.debug:
        os.environ[DEBUG] = "1"  # for the processes that this one starts, too
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("flashsr: interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        show_traceback()
        print(f"flashsr: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """Of the whole command; each word adds its own."""
    whole = argparse.ArgumentParser(prog="flashsr", description="One-step audio super-resolution to 48 kHz.")
    whole.add_argument("--version", action="version", version=f"flashsr {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for word in WORDS:
        word.add(commands)
    return whole
