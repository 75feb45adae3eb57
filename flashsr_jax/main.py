"""Training from the command line: python -m flashsr_jax.main --config configs/STAGE.py:PRESET --workdir DIR.

Single fields are changed by --config.optimizer.student.lr=2e-5 and the like. The same command again resumes.
--dry-run instead of --workdir prints what the run will need of every device; see `flashsr_jax.cost.plan`.
--config RUN/config.json, with another --workdir, makes a run again.

Exit codes: 0, the run is complete; 1, a mistake that the last line names, or a run that diverged; 75, the run was told
to stop (SIGTERM) or lost another of its processes, and goes on when started again.
"""

import errno
import logging
import sys

import jax
from absl import app, flags
from ml_collections import config_flags

from flashsr_jax.cost.plan.dry_run import dry_run
from flashsr_jax.devices import processes
from flashsr_jax.devices.runtime import enable_compilation_cache
from flashsr_jax.errors import UserError
from flashsr_jax.train import finished
from flashsr_jax.train.loop import train

LOGGER = logging.getLogger("flashsr_jax")
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/STAGE.py:PRESET, or config.json of a run", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run: checkpoints, logs, configuration")
_DRY_RUN = flags.DEFINE_bool(
    "dry-run", False, "Print shardings, memory, FLOPs, collectives and predicted speed; no training"
)
_DEVICES = flags.DEFINE_integer("devices", None, "Dry run: on so many devices instead of those that are here")
_COMPILE_FOR = flags.DEFINE_string(
    "compile-for", None, "Dry run: also compile, for `here` or a TPU topology such as v5e:2x4, and print what XLA says"
)
_COORDINATOR_ADDRESS = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, in a run of several")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes the run has, over all hosts")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0")


def main(argv):
    """Train. What the user can do something about ends with one line."""
    del argv
    prepare()
    try:
        if _DRY_RUN.value:
            dry_run(CONFIG.value, _DEVICES.value, _COMPILE_FOR.value)
            return
        processes.initialize(_COORDINATOR_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        if jax.process_index() > 0:
            LOGGER.setLevel(logging.WARNING)
        train(CONFIG.value, _WORKDIR.value)
    except processes.Preempted as stopped:
        print(f"flashsr_jax: {stopped}", file=sys.stderr)
        sys.exit(processes.RESUMABLE)
    except (UserError, FloatingPointError) as error:
        sys.exit(f"flashsr_jax: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = error.filename or _WORKDIR.value
        sys.exit(
            f"flashsr_jax: {where}: {error.strerror}. Make room; the same command goes on from the last checkpoint"
        )
    except jax.errors.JaxRuntimeError as error:
        processes.end_if_others_are_lost(error)
        raise


def prepare():
    """Set up what the programs of training log, and the compilation cache."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True)
    LOGGER.setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax's stack traces of what is raised as one line
    enable_compilation_cache()


def parse(argv, required=("config", "workdir")):
    """Parse the options; a mistake in them (an unknown field of the configuration, say) is one line too."""
    flags.mark_flags_as_required([name for name in required if name != "workdir" or "--dry-run" not in argv])
    try:
        rest = flags.FLAGS(_with_python_config(argv))
        _ = CONFIG.value.stage  # ml_collections says only now that there is no such file
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(f"flashsr_jax: {_in_one_line(error)}")
    if len(rest) > 1:
        sys.exit(f"flashsr_jax: do not know what to do with {' '.join(rest[1:])}: options start with --")
    return rest


def _in_one_line(error):
    """What ml_collections says of a mistake: KeyErrors come wrapped, errors of a configuration file with traceback."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    unknown = "the configuration has no field " if isinstance(error, (AttributeError, KeyError)) else ""
    text = " ".join(str(error.args[0] if unknown else error).split())
    return unknown + text.rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2]


def _with_python_config(argv):
    """The options; in place of a run's JSON the Python file that reads it, as ml_collections takes no other."""
    argv = list(argv)
    for index, argument in enumerate(argv):
        alone = index > 0 and argv[index - 1] in ("--config", "-config")
        if argument.endswith(".json") and (alone or argument.startswith(("--config=", "-config="))):
            option, path = ("", argument) if alone else argument.split("=", 1)
            argv[index] = f"{option}{'' if alone else '='}{finished.__file__}:{path}"
    return argv


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
