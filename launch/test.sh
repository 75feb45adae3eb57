#!/usr/bin/env bash
# All tests but the slow ones: linting, types, the lane of a bare `pytest` together with trainings, then parity at the
# published size. Arguments go to pytest, in place of these: bash launch/test.sh -m training
source "$(dirname "$0")/setup.sh"
python -c 'import sys, jax, numpy; print("Python", sys.version.split()[0], "jax", jax.__version__, "numpy", numpy.__version__)'
ruff check .
ruff format --check .
mypy
if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi
python -m pytest --durations=10 -m "not full and not slow"
XLA_FLAGS="" python -m pytest --durations=10 -m full  # computes for minutes: well optimised programs pay here
