"""The configuration of a run as a configuration file, for `--config RUN/config.json`: the same run once more."""

import os

from ml_collections import ConfigDict

from flashsr_jax.data import CLASSES
from flashsr_jax.errors import UserError
from flashsr_jax.runs.folder import PROVENANCE_FILE, NoConfiguration, flattened, read_config
from flashsr_jax.train.defaults import ADDED, ADDED_TO_OPTIMIZERS, ADDED_TO_STAGE, common


def get_config(path: str | os.PathLike) -> ConfigDict:
    """The ConfigDict that was written to `path`. Fields can be overridden as in any other configuration.

    A field of `defaults.ADDED` and its neighbours that the run did not have gets the value that means what was done
    without it, and one guidance for all classes is that of each. Raises UserError where there is no configuration, or
    another version of this package wrote it, without a field that this one needs.
    """
    fields = read_config(path)
    fields = _filled(path, fields, ADDED | ADDED_TO_STAGE.get(fields["stage"], {}))
    if not isinstance(fields.get("optimizer"), dict):
        raise NoConfiguration(f"{path} is not the configuration of a run: it has no optimizer")
    roles = {role: ADDED_TO_OPTIMIZERS | of for role, of in fields["optimizer"].items() if isinstance(of, dict)}
    fields["optimizer"] = fields["optimizer"] | roles
    if isinstance(fields.get("guidance"), list):
        fields["guidance"] = dict.fromkeys(CLASSES, fields["guidance"])
    needed = flattened(common(fields["stage"], "tiny").to_dict())
    if missing := sorted(needed.keys() - flattened(fields).keys()):
        raise UserError(
            f"{path} has no {', '.join(missing)}: another version wrote it; check out the commit that "
            f"{PROVENANCE_FILE} beside it names, or start from the stage's file in configs/"
        )
    return ConfigDict(_as_written(fields), allow_dotted_keys=True)  # folders of data.mixture


def _filled(path: str | os.PathLike, fields: dict, added: dict) -> dict:
    """The fields, and those that are added where they are missing. Raises NoConfiguration where a section is none."""
    filled = added | fields
    for name, part in added.items():
        if isinstance(part, dict):
            section = fields.get(name)
            if not isinstance(section, dict):
                raise NoConfiguration(f"{path} is not the configuration of a run: it has no {name}")
            filled[name] = _filled(path, section, part)
    return filled


def _as_written(value: object) -> object:
    """JSON has no tuples, and configurations no lists."""
    if isinstance(value, dict):
        return {name: _as_written(part) for name, part in value.items()}
    return tuple(map(_as_written, value)) if isinstance(value, list) else value
