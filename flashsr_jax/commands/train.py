"""`flashsr train`: a stage of training."""

import argparse
import errno
import json
import logging
import sys

from flashsr_jax.commands.arguments import add_config, command, steps
from flashsr_jax.errors import UserError
from flashsr_jax.extras import needing


def add(commands: argparse._SubParsersAction) -> None:
    """The word and its flags."""
    parser = command(commands, "train", run, "train a stage, or go on with a run; the same command again resumes")
    add_config(parser)
    parser.add_argument("--workdir", metavar="DIR", help="the run's folder: checkpoints, logs, configuration")
    parser.add_argument(
        "--profile", type=steps, metavar="N:M", help="trace these steps, for TensorBoard's XProf: 50:60, say"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--print-config", action="store_true", help="print the configuration, as changed, and train nothing"
    )
    instead.add_argument(
        "--eval-only", action="store_true", help="measure the run's best checkpoint on the held-out clips, nothing else"
    )
    several = parser.add_argument_group("runs of several processes, where JAX does not see the cluster by itself")
    several.add_argument("--coordinator_address", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--num_processes", metavar="N", help="how many processes the run has, over all hosts")
    several.add_argument("--process_id", metavar="I", help="which of them this is, from 0")


@needing("train", "training")
def run(args: argparse.Namespace) -> int:
    """0: the run is complete; 75: it was told to stop (SIGTERM), or lost another of its processes or one that reads the
    data, and goes on when started again; what raises is a mistake, or a run that diverged."""
    import jax

    if not args.workdir and not args.print_config:
        raise UserError("--workdir is missing: name the run's folder, which is made where there is none")
    from flashsr_jax.commands.configuration import load_configuration
    from flashsr_jax.data.batches import WorkerLost
    from flashsr_jax.devices import processes
    from flashsr_jax.devices.runtime import enable_compilation_cache
    from flashsr_jax.train.loop import evaluate_run, train

    log_to_terminal()
    enable_compilation_cache()
    config = load_configuration(args.config, args.overrides)
    if args.print_config:
        print(json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True))
        return 0
    try:
        processes.initialize(args.coordinator_address, args.num_processes, args.process_id)
        if jax.process_index() > 0:
            logging.getLogger("flashsr_jax").setLevel(logging.WARNING)
        if args.eval_only:
            print(json.dumps(evaluate_run(config, args.workdir)))
        else:
            train(config, args.workdir, args.profile)
    except processes.Preempted as stopped:
        print(f"{args.prog}: {stopped}", file=sys.stderr)
        return processes.RESUMABLE
    except WorkerLost as lost:
        print(f"{args.prog}: {lost}; the same command goes on from the last checkpoint", file=sys.stderr)
        return processes.RESUMABLE
    except FloatingPointError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or args.workdir
        raise UserError(
            f"{where}: {error.strerror}. Make room; the same command goes on from the last checkpoint"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        processes.end_if_others_are_lost(error)
        raise
    return 0


def log_to_terminal() -> None:
    """What the programs of training log goes to standard error, with the time of day."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True)
    logging.getLogger("flashsr_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax's stack traces of what is raised as one line
