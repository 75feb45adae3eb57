#!/usr/bin/env bash
# Trains the stages of the shipped model, one process a stage: bash launch/train_small.sh STAGE...
# Stages in their order: vocoder and vae, latents, regression, teacher, student, vocoder_tuned. Run again, each goes on
# where it stopped, or to more steps. `latents` encodes windows once for the next three, which otherwise encode fresh ones
# in every step; SEED=1 and so on encodes others, which they read as well. The settings are those of a CPU; a stage on a
# GPU: DTYPE=bfloat16 WORKERS=8 BATCH=64, and more STEPS, whose rate falls slower: DECAY.
source "$(dirname "$0")/../setup.sh"
corpus=${CORPUS:-corpus/dataset} # made by launch/data.sh
runs=${RUNS:-runs/small}
from=${FROM:-} # a weights file, or a shipped model's name, instead of the runs that a stage needs, and to start from
dtype=${DTYPE:-float32}
workers=${WORKERS:-0}
# Pages of 2 MB: fewer page faults, which slow training on a CPU.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

train() {
  local run=$1 stage=$2 steps=$3 batch=$4
  shift 4
  python -m flashsr_jax.main --config "configs/$stage.py:small" --workdir "$runs/$run" --config.data.dir="$corpus" \
    --config.dtype="$dtype" --config.data.workers="$workers" --config.batch_size="${BATCH:-$batch}" \
    --config.steps="${STEPS:-$steps}" --config.log_every=100 --config.checkpoint.every=500 --config.eval.every=1000 \
    --config.eval.clips_per_class=8 "$@"
}

sources=(--config.vae_from="${from:-$runs/vae}" --config.vocoder_from="${from:-$runs/vocoder}")
# For the U-Net: low cutoffs as likely as high ones, more speech, which is the hardest, and less of it under music.
windows=(--config.data.class_weights.speech=2.0 --config.data.mix_probability=0.25 --config.data.log_cutoff=True)
cached=()
if [ -d "$runs/latents" ]; then cached=(--config.data.latents="$(printf '%s\n' "$runs"/latents* | paste -sd,)"); fi
for stage in "$@"; do
  case $stage in
    latents)
      python -m flashsr_jax data encode --config regression:small --out "$runs/latents${SEED:-}" \
        --windows "${WINDOWS:-14000}" --config.seed="${SEED:-0}" --config.data.dir="$corpus" \
        --config.vae_from="${from:-$runs/vae}" \
        --config.dtype="$dtype" --config.data.workers="$workers" --config.batch_size=8 \
        "${windows[@]}" ;;
    vocoder)
      train vocoder vocoder 2000 8 --config.data.window_frames=128 --config.losses.mel=45.0 --config.losses.stft=45.0 \
        --config.losses.power=0.0 --config.losses.adversarial=0.0 --config.losses.features=0.0 \
        --config.optimizer.vocoder.decay=0.95 ;;
    vae) train vae vae 4500 4 --config.optimizer.vae.warmup_steps=300 --config.optimizer.vae.decay=0.604 ;;
    regression)
      train regression regression 4000 12 "${sources[@]}" "${windows[@]}" "${cached[@]}" --config.init_from="$from" \
        --config.losses.mel=0.0 --config.optimizer.regression.lr="${LR:-2e-3}" \
        --config.optimizer.regression.decay="${DECAY:-0.55}" ;;
    teacher)
      train teacher teacher 3600 12 "${sources[@]}" "${windows[@]}" "${cached[@]}" \
        --config.init_from="${from:-$runs/regression}" --config.eval.steps=8 --config.eval.guidance=1.0 \
        --config.optimizer.teacher.lr="${LR:-1e-3}" --config.optimizer.teacher.decay="${DECAY:-0.5}" ;;
    student)
      phase=$((${STEPS:-500} / 4))
      train student student 500 6 "${sources[@]}" "${windows[@]}" "${cached[@]}" \
        --config.teacher_from="$runs/teacher" --config.init_from="${from:-$runs/regression}" \
        --config.phases="($phase, $((2 * phase)), $((3 * phase)))" --config.guidance="(1.0, 1.5)" \
        --config.eval.perceptual=True --config.best_metric=zimtohrli ;;
    vocoder_tuned)
      train vocoder_tuned vocoder 2000 16 --config.data.window_frames=64 --config.mel_source=vae \
        --config.vae_from="${from:-$runs/vae}" --config.init_from="${from:-$runs/vocoder}" \
        --config.losses.adversarial=0.0 --config.losses.features=0.0 --config.losses.stft=10.0 \
        --config.losses.power=60.0 --config.data.log_cutoff=True --config.optimizer.vocoder.kind=muon \
        --config.optimizer.vocoder.lr=1e-3 --config.optimizer.vocoder.decay=0.3 ;;
    *)
      echo "no stage $stage: vocoder vae regression teacher student vocoder_tuned" >&2
      exit 1 ;;
  esac
done
