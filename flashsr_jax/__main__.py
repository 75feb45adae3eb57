"""python -m flashsr_jax: the `flashsr` command, where it is not installed as one."""

import sys

from flashsr_jax.cli import main

sys.exit(main())
