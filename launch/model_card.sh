#!/usr/bin/env bash
# Measures the model that comes along on the test clips of launch/data.sh, beside its teacher and the regression of
# launch/train_small.sh, and writes the figures and pictures of MODEL_CARD.md and README.md:
# bash launch/model_card.sh [OUT]. Two hours on 2 cores, which should have nothing else to do.
source "$(dirname "$0")/setup.sh"
out=${1:-runs/model_card}
corpus=${CORPUS:-corpus}
runs=${RUNS:-runs/small}

flashsr evaluate --data "$corpus/test" --weights small --regression "$runs/regression" --cutoffs 4000 --seeds 3 \
  -o "$out/4khz"
flashsr evaluate --data "$corpus/test" --weights small --cutoffs 2000,8000,12000 -o "$out/cutoffs"
flashsr evaluate --data "$corpus/test" --weights small --teacher "$runs/teacher" --guidance "${GUIDANCE:-1.5}" \
  --cutoffs 4000 --no-perceptual -o "$out/teacher"
python launch/model_card.py "$out" "$corpus" "$runs"
