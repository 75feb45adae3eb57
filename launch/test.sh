#!/usr/bin/env bash
# All tests but the slow ones, published-size parity included. Arguments go to pytest: bash launch/test.sh -m "not full"
source "$(dirname "$0")/setup.sh"
python -c 'import sys, jax, numpy; print("Python", sys.version.split()[0], "jax", jax.__version__, "numpy", numpy.__version__)'
ruff check .
ruff format --check .
if [ $# -gt 0 ]; then
  exec python -m pytest "$@"
fi
# Parity at the published size takes 6 GB, which a process of its own gives back before the other tests start theirs.
python -m pytest -m "full"
# Two workers, each with a file of tests at a time: compiling, most of the work, keeps one core busy.
exec python -m pytest -m "not slow and not full" -n 2 --dist loadfile
