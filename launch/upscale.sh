#!/usr/bin/env bash
# Many files on many machines: SHARD=2 SHARDS=16 bash launch/upscale.sh -r /data/in -o /data/out [OPTION...]
# does the second of sixteen parts of what `flashsr upscale` is asked for, and leaves out what is there already: the same
# command again does what is missing. slurm.sh and jobset.sh start this, one process with one GPU a part.
set -euo pipefail
SHARD=${SHARD:-$((${JOB_COMPLETION_INDEX:?set SHARD: which part, from 1} + 1))} # Kubernetes counts from 0
SHARDS=${SHARDS:?of how many}
PYTHON=${PYTHON:-python} # of an environment with the package and JAX for the devices: pip install . 'jax[cuda13]'

exec "$PYTHON" -m flashsr_jax upscale "$@" --shard "$SHARD/$SHARDS" --skip-existing
