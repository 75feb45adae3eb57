#!/usr/bin/env bash
# Better files with the model that comes along: held-out recordings at 8 kHz become 48 kHz, and are scored and drawn
# beside the originals. Everything it writes goes to demo_output/ (or the folder given).
source "$(dirname "$0")/setup.sh"
out=${1:-demo_output}
recordings=tests/recordings/recordings.csv
mkdir -p "$out"
started=$SECONDS

python launch/demo.py prepare "$recordings" "$out"
flashsr upscale "$out"/input_8khz/*.wav -o "$out/output_48khz/" --overwrite
flashsr evaluate --data "$out/original_48khz" --weights small --cutoffs 4000 --seconds 30 -o "$out/report"
python launch/demo.py finish "$out"
echo "Files: $out/output_48khz/, pictures: $out/pictures/, report: $out/report/index.html"
echo "Whole demo: $((SECONDS - started)) s after installation"
