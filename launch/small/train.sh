#!/usr/bin/env bash
# Trains the stages of the shipped model by their configurations, one process a stage: bash launch/small/train.sh STAGE...
# Stages in their order: vocoder and vae, latents, regression, teacher, student, vocoder_tuned, tune. Run again, each goes on
# where it stopped, or to more STEPS. `latents` encodes windows once for the next three, which otherwise encode fresh ones
# in every step; SEED=1 and so on encodes others, which they read as well; of recordings of lower rates with
# CORPUS=corpus/dataset_lower SEED=9 bash launch/small/train.sh latents. `tune` begins with the regression's U-Net, or
# with that of UNET, the student's say. The student begins only if the teacher beats the regression, or with GATE=False.
# configs/STAGE.py:small are the settings of a CPU; a stage on a GPU:
# DTYPE=bfloat16 WORKERS=8 BATCH=64, and more STEPS, whose rate falls slower: DECAY.
source "$(dirname "$0")/../setup.sh"
corpus=${CORPUS:-corpus/dataset} # made by launch/data.sh
runs=${RUNS:-runs/small}
from=${FROM:-} # a weights file, or a shipped model's name, instead of the runs that a stage needs, and to start from
# Pages of 2 MB: fewer page faults, which slow training on a CPU.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

overrides=(--config.data.dir="$corpus" ${DTYPE:+--config.dtype="$DTYPE"} ${WORKERS:+--config.data.workers="$WORKERS"})
vae=--config.vae_from=${from:-$runs/vae}
unet=("$vae" --config.vocoder_from="${from:-$runs/vocoder}")
if [ -d "$runs/latents" ]; then unet+=(--config.data.latents="$(printf '%s\n' "$runs"/latents* | paste -sd,)"); fi

train() { # the optimizer's role, the configuration, which names the run, and the networks that it reads
  local role=$1 config=$2
  shift 2
  python -m flashsr_jax.main --config "configs/$config.py:small" --workdir "$runs/$config" "${overrides[@]}" \
    ${BATCH:+--config.batch_size="$BATCH"} ${STEPS:+--config.steps="$STEPS"} \
    ${DECAY:+--config.optimizer."$role".decay="$DECAY"} "$@"
}

for stage in "$@"; do
  case $stage in
    latents)
      python -m flashsr_jax data encode --config regression:small --out "$runs/latents${SEED:-}" \
        --windows "${WINDOWS:-14000}" "${overrides[@]}" --config.seed="${SEED:-0}" --config.batch_size=8 "$vae" ;;
    vocoder | vae) train "$stage" "$stage" ;;
    regression) train regression regression "${unet[@]}" --config.init_from="$from" ;;
    teacher) train teacher teacher "${unet[@]}" --config.init_from="${from:-$runs/regression}" ;;
    student)
      phases=()
      if [ -n "${STEPS:-}" ]; then phases=(--config.phases="$((STEPS / 4)),$((STEPS / 2)),$((3 * STEPS / 4))"); fi
      train student student "${unet[@]}" --config.teacher_from="$runs/teacher" \
        --config.init_from="${from:-$runs/regression}" ${GATE:+--config.teacher_gate="$GATE"} "${phases[@]}" ;;
    vocoder_tuned) train vocoder vocoder_tuned "$vae" --config.init_from="${from:-$runs/vocoder}" ;;
    tune)
      train tune tune "$vae" --config.vocoder_from="${from:-$runs/vocoder_tuned}" \
        --config.init_from="${UNET:-${from:-$runs/regression}}" ;;
    *)
      echo "no stage $stage: vocoder vae latents regression teacher student vocoder_tuned tune" >&2
      exit 1 ;;
  esac
done
