#!/usr/bin/env bash
# One stage on a Slurm cluster: SHARED=/data sbatch launch/slurm.sh teacher [OPTION...] (see launch/train.sh)
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
# One process a GPU, as JAX expects of Slurm; where one fails, srun ends the rest.
srun --kill-on-bad-exit=1 bash launch/train.sh "$@" || code=$?
if [ "$code" -gt 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$RESTARTS" ]; then
  echo "exit code $code: queued again, the run goes on from its last checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
