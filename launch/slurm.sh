#!/usr/bin/env bash
# One stage on a Slurm cluster: SHARED=/data sbatch launch/slurm.sh teacher [OPTION...] (see launch/train.sh)
# Many files, an array of jobs with a GPU each:
#   sbatch --array=1-16 --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 launch/slurm.sh upscale -r /data/in -o /data/out
# Jobs 3 and 7 of those again: SHARDS=16 sbatch --array=3,7 ... (see launch/upscale.sh)
# Preempted, out of time or after a node's failure, the job is queued again and goes on; a mistake (exit code 1 or 2) ends it.
#SBATCH --job-name=flashsr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=flashsr-%j.log
set -euo pipefail
RESTARTS=${RESTARTS:-50}

cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
code=0
if [ "${1:-}" = upscale ]; then
  if [ "${SLURM_NTASKS:-1}" -gt 1 ]; then
    echo "a job of the array is one process: give sbatch --nodes=1 --ntasks-per-node=1 --gpus-per-node=1" >&2
    exit 1
  fi
  export SHARD=${SLURM_ARRAY_TASK_ID:?give sbatch --array=1-16, say}
  export SHARDS=${SHARDS:-$SLURM_ARRAY_TASK_MAX}
  srun bash launch/upscale.sh "${@:2}" || code=$?
else
  # One process a GPU, as JAX expects of Slurm; where one fails, srun ends the rest.
  srun --kill-on-bad-exit=1 bash launch/train.sh "$@" || code=$?
fi
if [ "$code" -gt 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$RESTARTS" ]; then
  echo "exit code $code: queued again, it goes on where it was"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
