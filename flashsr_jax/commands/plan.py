"""`flashsr plan`: what a training run will cost, before it starts."""

import argparse

from flashsr_jax.commands.arguments import add_config, command, integer
from flashsr_jax.extras import needing


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    parser = command(
        commands, "plan", run, "print a run's shardings, memory, FLOPs, collectives and predicted speed; no training"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    add_config(parser, what)
    what.add_argument("--presets", action="store_true", help="a table instead: what each preset's networks cost")
    parser.add_argument(
        "--devices", type=integer(1, 10**6), metavar="N", help="on so many devices (default: those that are here)"
    )
    parser.add_argument(
        "--compile-for",
        metavar="TARGET",
        help="also compile, for `here` or a TPU topology such as v5e:2x4, and print what XLA says",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table of the presets, or the plan of a run."""
    if args.presets:
        return _print_presets(args)
    return _print_plan(args)


def _print_presets(args: argparse.Namespace) -> int:
    from flashsr_jax.errors import UserError
    from flashsr_jax.models.flops import table

    if args.overrides:
        raise UserError(f"--presets takes no {' '.join(args.overrides)}: these change a --config")
    print(table())
    return 0


@needing("train", "planning a run")
def _print_plan(args: argparse.Namespace) -> int:
    from flashsr_jax.commands.configuration import load_configuration
    from flashsr_jax.commands.train import log_to_terminal
    from flashsr_jax.cost.plan.dry_run import dry_run
    from flashsr_jax.devices.runtime import enable_compilation_cache

    log_to_terminal()
    enable_compilation_cache()
    dry_run(load_configuration(args.config, args.overrides), args.devices, args.compile_for)
    return 0
