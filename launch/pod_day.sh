#!/usr/bin/env bash
# Measures training on the machine at hand within a time budget, and writes one report: bash launch/pod_day.sh OUT [--minutes N] ...
# On every host of a slice or a cluster the same, `srun bash launch/pod_day.sh OUT`; where JAX does not see it by itself, variables say who is who.
# A rehearsal on eight simulated devices: JAX_NUM_CPU_DEVICES=8 bash launch/pod_day.sh OUT --preset tiny --windows 1 --steps 2
# On two processes of two: for i in 0 1; do JAX_COORDINATOR_ADDRESS=localhost:8476 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=$i \
#   JAX_NUM_CPU_DEVICES=2 bash launch/pod_day.sh OUT --preset tiny --windows 1 --steps 2 & done; wait
# Either compiles in a quarter of the time with JAX_DISABLE_MOST_OPTIMIZATIONS=1.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python launch/pod_day.py "$@"
