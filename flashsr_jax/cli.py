"""The `flashsr` command. Only the standard library is imported until a word runs, so that --help is at once."""

import argparse
import os
import sys
from collections.abc import Sequence

from flashsr_jax import __version__
from flashsr_jax.commands import benchmark, compare, data, evaluate, live, plan, runs, train, upscale, web, weights
from flashsr_jax.commands.arguments import said
from flashsr_jax.errors import DEBUG, UserError, one_line, show_traceback

WORDS = (upscale, live, benchmark, data, train, plan, runs, evaluate, compare, weights, web)


def main(argv: Sequence[str] | None = None, prog: str = "flashsr") -> int:
    """Run the command line `argv` (default: the process's own); returns the exit code. `prog` begins error messages.

    0: all done; 1: something failed, said in one line each on stderr; 2: wrong usage; 75: a training run was told to
    stop, and goes on when started again; 130: interrupted.
    """
    whole = parser(prog)
    args, rest = whole.parse_known_args(argv)
    if rest and "overrides" not in args:
        whole.error(f"unrecognized arguments: {' '.join(rest)}")
    args.prog, args.overrides = prog, rest
    if args.debug:
        os.environ[DEBUG] = "1"  # for the processes that this one starts, too
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except (UserError, OSError) as error:
        show_traceback()
        print(one_line(f"{prog}: {said(error)}"), file=sys.stderr)
        return 1


def parser(prog: str = "flashsr") -> argparse.ArgumentParser:
    """Of the whole command; each word adds its own."""
    whole = argparse.ArgumentParser(prog=prog, description="One-step audio super-resolution to 48 kHz.")
    whole.add_argument("--version", action="version", version=f"{prog} {__version__}")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for word in WORDS:
        word.add(commands)
    return whole
