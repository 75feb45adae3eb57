#!/usr/bin/env bash
# Training on a host without a network, one with a GPU say, from parts that are small enough to carry (45 MB):
#   bash launch/offline.sh pack PARTS [HOURS]     where there are a network and a corpus: wheels for the host's Python
#                                                 and HOURS (default 3) of each class become PARTS/1, PARTS/2 ...
#   bash launch/offline.sh add PART...            on the host: installs a part's wheels, takes in its recordings
#   bash launch/offline.sh train OUT SECONDS STAGE...   trains each stage of launch/small/train.sh for SECONDS at most,
#                                                 from the model that comes along; weights and logs to OUT
# The host needs Python with JAX for its device; all else is kept under $STORE. Set PYTHON_VERSION (3.12) for pack.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
store=${STORE:-/tmp/flashsr}
command=$1
shift

case $command in
  pack)
    source launch/setup.sh
    wheels=$(mktemp -d)
    # JAX and its numerics are the host's own; promise has no wheel, so one is built here.
    pip freeze --exclude-editable | grep -viE '^(jax|jaxlib|numpy|scipy|pytest|ruff|selenium|shellcheck|jsonschema|promise|visqol|zimtohrli|librosa|numba|llvmlite|scikit-learn|build|twine)' \
      >"$wheels/needs.txt"
    platforms=()
    for glibc in 17 24 27 28 31 34 35 39; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
    pip download --quiet --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
      --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 -d "$wheels" -r "$wheels/needs.txt"
    pip wheel --quiet --no-deps -w "$wheels" promise
    python launch/offline.py pack "${CORPUS:-corpus/dataset}" "$wheels" "$1" "${2:-3}"
    rm -r "$wheels"
    ;;
  add)
    mkdir -p "$store/audio"
    for part in "$@"; do
      if compgen -G "$part/*.whl" >/dev/null; then
        python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$store/site" "$part"/*.whl
      else
        cp -r "$part" "$store/audio/$(basename "$part")"
      fi
    done
    ;;
  train)
    out=$(realpath -m "$1") seconds=$2
    shift 2
    export FLASHSR_SITE=$store/site CORPUS=$store/dataset RUNS=${RUNS:-$store/runs}
    export DTYPE=${DTYPE:-bfloat16} WORKERS=${WORKERS:-12} BATCH=${BATCH:-64} FROM=${FROM:-small}
    source launch/setup.sh
    mkdir -p "$out"
    python launch/offline.py table "$store/audio"
    python -m flashsr_jax data build "$store/audio" --csv "$store/audio/recordings.csv" --out "$CORPUS" --overwrite
    for stage in "$@"; do
      # A run that is stopped goes on where its last checkpoint was, here or, from the weights, elsewhere.
      timeout --signal=INT "$seconds" bash launch/small/train.sh "$stage" 2>&1 | tee -a "$out/$stage.log" || true
      case $stage in vae) network=vae ;; vocoder*) network=vocoder ;; *) network=unet ;; esac
      python -m flashsr_jax weights pack --$network "$RUNS/$stage" -o "$out/$stage.safetensors" --dtype bfloat16
      cp "$RUNS/$stage/config.json" "$out/$stage.json"
      cp "$RUNS/$stage/metrics.jsonl" "$out/$stage.jsonl"
    done
    ;;
  *)
    echo "offline.sh: no command $command: pack, add or train" >&2
    exit 1
    ;;
esac
