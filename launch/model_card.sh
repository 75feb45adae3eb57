#!/usr/bin/env bash
# Measures the model that comes along on the test clips of launch/data.sh, beside the teacher and the regression of
# launch/small/train.sh where these runs are at hand, and the weights of an earlier commit, BEFORE, if one is given, and
# writes figures and pictures of MODEL_CARD.md and README.md: bash launch/model_card.sh [OUT].
# About an hour on 2 cores, which should have nothing else to do.
source "$(dirname "$0")/setup.sh"
out=${1:-runs/model_card}
corpus=${CORPUS:-corpus}
runs=${RUNS:-runs/small}

evaluate() { # the test clips, and the later ones of speech, `test_read`, apart: folder of OUT, weights, options
  for clips in test test_read; do
    flashsr evaluate --data "$corpus/$clips" --weights "$2" "${@:3}" -o "$out/$1${clips#test}"
  done
}

others=()
if [ -d "$runs/regression" ]; then others+=(--regression "$runs/regression"); fi
if [ -n "${BEFORE:-}" ]; then
  mkdir -p "$out"
  git show "$BEFORE:flashsr_jax/weights/small.safetensors" >"$out/before.safetensors"
  others+=(--model before="$out/before.safetensors")
fi
evaluate 4khz small "${others[@]}" --cutoffs 4000 --seeds 3
evaluate cutoffs small --cutoffs 2000,8000,12000 --clips 16 --latency 200
evaluate files small --inputs file --cutoffs 4000,8000,12000 --clips 16
if [ -d "$runs/teacher" ]; then
  flashsr evaluate --data "$corpus/test" --weights small --teacher "$runs/teacher" --teacher-guidance "${GUIDANCE:-1}" \
    --cutoffs 4000 --no-perceptual -o "$out/teacher"
fi
sources=("$out" "$corpus")
if [ -d "$runs" ]; then sources+=("$runs"); fi
python launch/small/model_card.py "${sources[@]}"
