"""Training as researchers of this field start it.

python -m flashsr_jax.main --config configs/STAGE.py:PRESET --workdir DIR [--config.FIELD=VALUE ...]

is `flashsr train`; with --dry-run it is `flashsr plan`.
"""

import argparse
import sys
from collections.abc import Sequence

from flashsr_jax import cli


def main(argv: Sequence[str]) -> int:
    """Run the options `argv`; returns the exit code of `flashsr train`, whose module says what they mean."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--dry-run", action="store_true")
    options.add_argument("--workdir")
    known, rest = options.parse_known_args(argv)
    return cli.main(["plan", *rest] if known.dry_run else ["train", *argv], prog="flashsr_jax")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
