#!/usr/bin/env bash
# All tests but the slow ones, published-size parity included. Arguments go to pytest: bash launch/test.sh -m "not full"
source "$(dirname "$0")/setup.sh"
ruff check .
ruff format --check .
if [ $# -eq 0 ]; then
  set -- -m "not slow"
fi
exec python -m pytest "$@"
