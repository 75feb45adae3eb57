#!/usr/bin/env bash
# Profiles training steps of the published size on one host's accelerators: speed, share of the peak (JSON), and a trace.
# bash launch/profile.sh [STAGE...]     (default: teacher student vae vocoder); results in profile/
set -euo pipefail
cd "$(dirname "$0")/.."

PRESET=${PRESET:-base}
STEPS=${STEPS:-10}
OUT=${OUT:-profile}
DATA=${DATA:-} # a dataset of `flashsr data build`; without one, noise
declare -A BATCH=([teacher]=${TEACHER_BATCH:-64} [student]=${STUDENT_BATCH:-32} [vae]=${VAE_BATCH:-8} [vocoder]=${VOCODER_BATCH:-16} [regression]=${REGRESSION_BATCH:-16} [tune]=${TUNE_BATCH:-8})
STAGES=("$@")
((${#STAGES[@]})) || STAGES=(teacher student vae vocoder)
for stage in "${STAGES[@]}"; do
  if [ -z "${BATCH[$stage]:-}" ]; then
    echo "profile.sh: no stage $stage: ${!BATCH[*]}" >&2
    exit 1
  fi
done

export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false} # so that the peak is what was needed
mkdir -p "$OUT"
for stage in "${STAGES[@]}"; do
  for remat in ${REMAT:-none products}; do
    python -m flashsr_jax benchmark train --config "$stage:$PRESET" --config.batch_size="${BATCH[$stage]}" \
      --config.remat="$remat" --repeats "$STEPS" ${DATA:+--data "$DATA"} --profile "$OUT/trace-$stage-$remat" --json |
      tee "$OUT/$stage-$remat.json"
  done
done
echo "traces: tensorboard --logdir $OUT, or load trace-*/plugins/profile/*/*.trace.json.gz at ui.perfetto.dev"
