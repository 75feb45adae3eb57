"""Encodes training windows once, for stages that read them by --config.data.latents=DIR.

python -m flashsr_jax.cache_latents --config configs/STAGE.py:PRESET --out DIR --windows N

The stage is one of regression, teacher and student.
"""

import sys

from absl import app, flags

from flashsr_jax import main as training
from flashsr_jax.errors import UserError
from flashsr_jax.train.latents import write_cache

_OUT = flags.DEFINE_string("out", None, "Folder to write, which does not exist yet")
_WINDOWS = flags.DEFINE_integer("windows", None, "How many windows to draw and encode", lower_bound=1)


def main(argv):
    """Write the windows. Mistakes of the user end with one line and exit code 1."""
    del argv
    training.prepare()
    try:
        write_cache(training.CONFIG.value, _OUT.value, _WINDOWS.value)
    except UserError as error:
        sys.exit(f"flashsr_jax: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: training.parse(argv, ["config", "out", "windows"]))
