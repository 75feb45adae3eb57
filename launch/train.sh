#!/usr/bin/env bash
# One stage on all devices of one host, a node with 8 GPUs say: SHARED=/data bash launch/train.sh teacher [OPTION...]
# The stages in their order are vocoder, vae, regression, teacher, student, vocoder_tuned, tune; each finds those before it in
# $SHARED/runs. Options go to flashsr_jax.main: --config.mesh.fsdp=8 splits the state as well as the batch. The same
# command again resumes. tpu_pod.sh, slurm.sh and jobset.sh start this on every one of their hosts.
set -euo pipefail
SHARED=${SHARED:?set it to the folder that holds data/, the dataset, and runs/; all hosts must see it}
PRESET=${PRESET:-base}
PYTHON=${PYTHON:-python} # of an environment with the package and JAX for the devices: pip install '.[train]' 'jax[cuda13]'

stage=$1
shift
runs=$SHARED/runs
rendered=(--config.vae_from="$runs/vae" --config.vocoder_from="$runs/vocoder")
case $stage in
  vocoder) sources=() ;;
  vae) sources=(--config.vocoder_from="$runs/vocoder") ;;
  regression) sources=("${rendered[@]}") ;;
  teacher) sources=("${rendered[@]}" --config.init_from="$runs/regression") ;;
  student) sources=("${rendered[@]}" --config.teacher_from="$runs/teacher") ;;
  vocoder_tuned) sources=(--config.vae_from="$runs/vae" --config.init_from="$runs/vocoder") ;;
  tune)
    sources=(--config.vae_from="$runs/vae" --config.init_from="$runs/student" --config.vocoder_from="$runs/vocoder_tuned")
    ;;
  *)
    echo "no stage $stage: vocoder, vae, regression, teacher, student, vocoder_tuned or tune" >&2
    exit 1
    ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "$PYTHON" -m flashsr_jax.main --config "configs/$stage.py:$PRESET" --workdir "$runs/$stage" \
  --config.data.dir="$SHARED/data" "${sources[@]}" "$@"
