"""A training run's configuration, as --config names it and --config.FIELD changes it."""

import runpy
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

import flashsr_jax
from flashsr_jax.errors import UserError
from flashsr_jax.train import finished


def load_configuration(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The configuration `name`, with fields changed by `overrides`: --config.FIELD=VALUE, or the two apart.

    `name` is STAGE:PRESET of the package's own configurations, FILE.py:ARGUMENT of one's own, whose
    `get_config(ARGUMENT)` makes a ConfigDict, or the config.json of a run. Raises UserError where there is none, where
    it cannot be made, and for fields and values that do not suit it.
    """
    path, *argument = name.split(":", 1)
    if not path.endswith((".py", ".json")):
        path, argument = str(_own(name)), argument or [""]
    if not Path(path).is_file():
        raise UserError(f"--config {name}: there is no file {path}")
    try:
        config = finished.get_config(path) if path.endswith(".json") else runpy.run_path(path)["get_config"](*argument)
    except UserError:
        raise
    except Exception as error:  # whatever a file of the user's own raises
        raise UserError(f"--config {name}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return _overridden(config, list(overrides))


def configurations() -> Path:
    """The folder of the package's own configurations: in the package where it is installed, beside it in a checkout."""
    package = Path(flashsr_jax.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _own(name: str) -> Path:
    """The file of STAGE:PRESET."""
    stage = name.partition(":")[0]
    stages = {path.stem: path for path in sorted(configurations().glob("*.py"))}
    if stage not in stages:
        raise UserError(
            f"--config {name}: there is no stage {stage!r}: choose STAGE:PRESET, STAGE one of {', '.join(stages)}; "
            "or name a file, configs/STAGE.py:PRESET or RUN/config.json"
        )
    return stages[stage]


def _overridden(config: ConfigDict, overrides: list[str]) -> ConfigDict:
    values = flags.FlagValues()
    try:
        holder = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=overrides)
        rest = values(["flashsr", *overrides])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_in_one_line(error)) from error
    if rest:
        raise UserError(f"do not know what to do with {' '.join(rest)}: options start with --")
    return holder.value


def _in_one_line(error: Exception) -> str:
    """What ml_collections says of a mistake: its KeyErrors come wrapped."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    unknown = "the configuration has no field " if isinstance(error, (AttributeError, KeyError)) else ""
    return unknown + " ".join(str(error.args[0] if unknown else error).split())
