#!/usr/bin/env bash
# Measures the model that comes along on the test clips of launch/data.sh, beside the teacher and the regression of
# launch/small/train.sh where these runs are at hand, and writes figures and pictures of MODEL_CARD.md and README.md:
# bash launch/model_card.sh [OUT]. Without them about 45 minutes on 2 cores, which should have nothing else to do.
source "$(dirname "$0")/setup.sh"
out=${1:-runs/model_card}
corpus=${CORPUS:-corpus}
runs=${RUNS:-runs/small}

trained=()
if [ -d "$runs/regression" ]; then trained=(--regression "$runs/regression"); fi
flashsr evaluate --data "$corpus/test" --weights small "${trained[@]}" --cutoffs 4000 --seeds 3 -o "$out/4khz"
flashsr evaluate --data "$corpus/test" --weights small --cutoffs 2000,8000,12000 -o "$out/cutoffs"
if [ -d "$runs/teacher" ]; then
  flashsr evaluate --data "$corpus/test" --weights small --teacher "$runs/teacher" --teacher-guidance "${GUIDANCE:-1}" \
    --cutoffs 4000 --no-perceptual -o "$out/teacher"
fi
sources=("$out" "$corpus")
if [ -d "$runs" ]; then sources+=("$runs"); fi
python launch/small/model_card.py "${sources[@]}"
