#!/usr/bin/env bash
# From recordings to better files by training: builds a dataset from the committed recordings, trains vocoder, VAE, teacher and
# student at the size `tiny`, super-resolves held-out clips from 8 to 48 kHz, and prints and draws what came of it.
# Everything it writes goes to train_demo_output/ (or the folder given); run again, it goes on where it stopped.
source "$(dirname "$0")/setup.sh"
out=${1:-train_demo_output}
recordings=tests/recordings
mkdir -p "$out"

stage() {
  local name=$1
  shift
  echo "== stage $name"
  python -m flashsr_jax.main --config "configs/$name.py:tiny" --workdir "$out/runs/$name" \
    --config.data.dir="$out/data" "$@"
}

started=$SECONDS
echo "== dataset"
flashsr data build "$recordings" --csv "$recordings/recordings.csv" --out "$out/data"
stage vocoder
stage vae --config.vocoder_from="$out/runs/vocoder"
stage teacher --config.vae_from="$out/runs/vae" --config.vocoder_from="$out/runs/vocoder"
stage student --config.vae_from="$out/runs/vae" --config.teacher_from="$out/runs/teacher" \
  --config.vocoder_from="$out/runs/vocoder"

echo "== super-resolution of held-out clips"
flashsr weights pack --vae "$out/runs/vae" --unet "$out/runs/student" --vocoder "$out/runs/vocoder" \
  -o "$out/tiny.safetensors"
python launch/demo.py prepare "$recordings/recordings.csv" "$out"
flashsr upscale "$out"/input_8khz/*.wav -o "$out/output_48khz/" --weights "$out/tiny.safetensors" --overwrite

echo "== evaluation against the originals"
flashsr evaluate --data "$out/original_48khz" --weights "$out/tiny.safetensors" --cutoffs 4000 --seconds 30 \
  -o "$out/report"
python launch/demo.py finish "$out"
echo "Files: $out/output_48khz/, pictures: $out/pictures/, report: $out/report/index.html"
echo "Whole demo: $((SECONDS - started)) s after installation"
