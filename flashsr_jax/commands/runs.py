"""`flashsr runs`: what was trained, and what sets each run apart."""

import argparse

from flashsr_jax.commands.arguments import command


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    parser = command(commands, "runs", run, "list training runs: their best scores, and what sets each apart")
    parser.add_argument("folder", metavar="DIR", help="a folder of runs, or of folders of them")
    parser.add_argument("--json", action="store_true", help="for programs: with all scores, as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table, or JSON."""
    from flashsr_jax.runs.listing import as_json, listing

    print(as_json(args.folder) if args.json else listing(args.folder))
    return 0
