"""A training run's configuration, as --config names it and --config.FIELD changes it."""

import ast
import inspect
import runpy
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

import flashsr_jax
from flashsr_jax.errors import UserError
from flashsr_jax.train import fields, finished
from flashsr_jax.train.stages import STAGES


class _Dictionaries(flags.ArgumentParser):
    """Values of fields like config.data.mixture; ml_collections' own takes no folder with a dot in its name."""

    def parse(self, argument: str | ConfigDict) -> ConfigDict:
        if isinstance(argument, ConfigDict):
            return argument
        try:
            return ConfigDict(dict(ast.literal_eval(argument)), allow_dotted_keys=True)
        except (SyntaxError, TypeError, ValueError) as error:
            raise ValueError(f"{argument}: give it as {{'NAME': VALUE, ...}}, in quotes for the shell") from error


config_flags.register_flag_parser_for_type(ConfigDict, _Dictionaries())


def load_configuration(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The configuration `name`, with fields changed by `overrides`: --config.FIELD=VALUE, or the two apart.

    `name` is STAGE:PRESET of the package's own configurations, FILE.py:ARGUMENT of one's own, whose
    `get_config(ARGUMENT)` makes a ConfigDict, or the config.json of a run. Raises UserError where there is none, where
    it cannot be made, for fields and values that do not suit it, and where it lacks some that its stage needs.
    """
    path, *argument = name.split(":", 1)
    if not path.endswith((".py", ".json")):
        path, argument = str(_own(name)), argument or [""]
    if not Path(path).is_file():
        raise UserError(f"--config {name}: there is no file {path}")
    try:
        config = finished.get_config(path) if path.endswith(".json") else _made(Path(path), argument)
        if not isinstance(config, ConfigDict):
            raise TypeError(f"its configuration is {config!r}, not a ConfigDict")
    except UserError:
        raise
    except Exception as error:  # whatever a file of the user's own raises
        raise UserError(f"--config {name}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    config = _overridden(config, list(overrides))
    fields.check(config, _known(name, config), f"--config {name}")
    return config


def configurations() -> Path:
    """The folder of the package's own configurations: in the package where it is installed, beside it in a checkout."""
    package = Path(flashsr_jax.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _made(path: Path, argument: list[str]) -> ConfigDict:
    """What a configuration's file makes of its argument."""
    get_config = runpy.run_path(str(path)).get("get_config")
    if get_config is None:
        raise UserError(f"{path} is no configuration: it has no function get_config")
    asks = [p for p in inspect.signature(get_config).parameters.values() if p.default is p.empty]
    if asks and not argument:
        if path.resolve().parent != configurations().resolve():
            raise UserError(f"{path} asks for its {asks[0].name}: write {path}:{asks[0].name.upper()}")
        argument = [""]  # which it answers with the choices
    return get_config(*argument)


def _known(name: str, config: ConfigDict) -> ConfigDict:
    """The smallest of the package's own configurations of the same stage."""
    stage = config.get("stage")
    if stage not in STAGES:
        raise UserError(f"--config {name}: there is no stage {stage!r}; those are {', '.join(STAGES)}")
    return _made(configurations() / f"{stage}.py", ["tiny"])


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
