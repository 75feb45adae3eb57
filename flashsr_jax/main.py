"""Training from the command line: python -m flashsr_jax.main --config configs/STAGE.py:PRESET --workdir DIR.

Single fields are changed by --config.optimizer.student.lr=2e-5 and the like. The same command again resumes.
--dry-run instead of --workdir prints what the run will need of every device; see `flashsr_jax.plan`.
--config RUN/config.json, with another --workdir, makes a run again.
"""

import logging
import sys

from absl import app, flags
from ml_collections import config_flags

from flashsr_jax.errors import UserError
from flashsr_jax.plan.command import dry_run
from flashsr_jax.runtime import enable_compilation_cache
from flashsr_jax.train import finished
from flashsr_jax.train.loop import train

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/STAGE.py:PRESET, or config.json of a run", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run: checkpoints, logs, configuration")
_DRY_RUN = flags.DEFINE_bool(
    "dry-run", False, "Print shardings, memory, FLOPs, collectives and predicted speed; train not"
)
_DEVICES = flags.DEFINE_integer("devices", None, "Dry run: on so many devices instead of those that are here")
_COMPILE_FOR = flags.DEFINE_string(
    "compile-for", None, "Dry run: also compile, for `here` or a TPU topology such as v5e:2x4, and print what XLA says"
)


def main(argv):
    """Train. Mistakes of the user and diverged runs end with one line and exit code 1."""
    del argv
    prepare()
    try:
        if _DRY_RUN.value:
            dry_run(CONFIG.value, _DEVICES.value, _COMPILE_FOR.value)
        else:
            train(CONFIG.value, _WORKDIR.value)
    except (UserError, FloatingPointError) as error:
        sys.exit(f"flashsr_jax: {error}")


def prepare():
    """Set up what the programs of training log, and the compilation cache."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True)
    logging.getLogger("flashsr_jax").setLevel(logging.INFO)
    enable_compilation_cache()


def parse(argv, required=("config", "workdir")):
    """Parse the options; a mistake in them (an unknown field of the configuration, say) is one line too."""
    flags.mark_flags_as_required([name for name in required if name != "workdir" or "--dry-run" not in argv])
    try:
        rest = flags.FLAGS(_with_python_config(argv))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(f"flashsr_jax: {' '.join(str(error).split())}")
    if len(rest) > 1:
        sys.exit(f"flashsr_jax: do not know what to do with {' '.join(rest[1:])}: options start with --")
    return rest


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
