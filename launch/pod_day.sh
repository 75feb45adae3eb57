#!/usr/bin/env bash
# Measures training on the machine at hand within a time budget, and writes one report: bash launch/pod_day.sh OUT [--minutes N] ...
# A rehearsal on eight simulated devices: JAX_NUM_CPU_DEVICES=8 bash launch/pod_day.sh OUT --preset tiny --windows 1 --steps 2
set -euo pipefail
cd "$(dirname "$0")/.."
exec python launch/pod_day.py "$@"
