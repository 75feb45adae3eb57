#!/usr/bin/env bash
# The paper's tables: trains regression, teacher, the student by each set of losses, `tune`, and the vocoder with and
# without the low-resolution waveform; measures them on the test clips with three seeds, and writes docs/ablation.md:
# bash launch/ablation.sh [OPTION...]. Options go to every training. Run again, it goes on where it stopped.
# REGRESSION, TEACHER, DISTILL, ADVERSARIAL, DMD_SELF, DMD_SEPARATE, TUNE, VOCODER_LR and VOCODER_MEL name the folders of
# finished runs, which are read as they are. VAE and VOCODER: runs or weights that all of them share. A student begins
# with the regression and has the gate of configs/student.py before it (GATE=False: it learns from any teacher), or with
# START=teacher with the teacher. TEACHER_STEPS and GUIDANCE are of the teacher's solver.
source "$(dirname "$0")/setup.sh"
data=${DATA:-corpus/dataset}
clips=${CLIPS:-corpus/test}
runs=${RUNS:-runs/ablation}
configs=${CONFIGS:-configs/%s.py:small} # %s: the stage
vae=${VAE:-small}
vocoder=${VOCODER:-small}
read -ra measuring <<<"${MEASURING:-}" # further options of flashsr evaluate
extra=("$@")

train() { # name of the run, variable of a finished one, stage, options; sets `run`, its folder
  local name=$1 finished=$2 stage=$3 config
  shift 3
  run=${finished:-$runs/$name}
  if [ -n "$finished" ]; then return; fi
  echo "== $name"
  # shellcheck disable=SC2059 # a pattern
  config=$(printf "$configs" "$stage")
  python -m flashsr_jax.main --config "$config" --workdir "$run" --config.data.dir="$data" "$@" "${extra[@]}"
}

rendered=(--config.vae_from="$vae" --config.vocoder_from="$vocoder")
train regression "${REGRESSION:-}" regression "${rendered[@]}"
regression=$run
train teacher "${TEACHER:-}" teacher "${rendered[@]}" --config.init_from="$regression"
teacher=$run

student=("${rendered[@]}" --config.teacher_from="$teacher")
if [ "${START:-regression}" = regression ]; then student+=(--config.init_from="$regression"); fi
if [ -n "${GATE:-}" ]; then student+=(--config.teacher_gate="$GATE"); fi
train distill "${DISTILL:-}" student "${student[@]}" --config.losses.adversarial=0,0,0,0 --config.losses.dmd=0,0,0,0
distill=$run
train adversarial "${ADVERSARIAL:-}" student "${student[@]}" --config.losses.dmd=0,0,0,0
adversarial=$run
train dmd_self "${DMD_SELF:-}" student "${student[@]}" --config.fake_score=student
dmd_self=$run
train dmd_separate "${DMD_SEPARATE:-}" student "${student[@]}" --config.fake_score=separate
dmd_separate=$run
train tune "${TUNE:-}" tune "${rendered[@]}" --config.init_from="$dmd_separate"
tune=$run
heard=(--config.mel_source=vae --config.vae_from="$vae") # as at inference
train vocoder_lr "${VOCODER_LR:-}" vocoder "${heard[@]}"
vocoder_lr=$run
train vocoder_mel "${VOCODER_MEL:-}" vocoder "${heard[@]}" --config.model.vocoder.lr_conditioned=False
vocoder_mel=$run

echo "== measuring"
mkdir -p "$runs" # which no training has made where all are finished ones
pack() { # name, VAE, U-Net, vocoder: into NAME.safetensors
  flashsr weights pack --vae "$2" --unet "$3" --vocoder "$4" -o "$runs/$1.safetensors"
}
pack regression "$vae" "$regression" "$vocoder"
pack distill "$vae" "$distill" "$vocoder"
pack adversarial "$vae" "$adversarial" "$vocoder"
pack dmd_self "$vae" "$dmd_self" "$vocoder"
pack dmd_separate "$vae" "$dmd_separate" "$vocoder"
pack tune "$tune" "$tune" "$tune"
pack vocoder_lr "$vae" "$regression" "$vocoder_lr"
pack vocoder_mel "$vae" "$regression" "$vocoder_mel"
compared=()
for name in distill adversarial dmd_self dmd_separate tune; do compared+=(--model "$name=$runs/$name.safetensors"); done
for name in vocoder_lr vocoder_mel; do # the band under the cutoff as the networks make it, then the input's
  compared+=(--own-low-band "$name=$runs/$name.safetensors" --model "${name}_kept=$runs/$name.safetensors")
done
flashsr evaluate --data "$clips" --weights "$runs/regression.safetensors" --teacher "$teacher" \
  --teacher-steps "${TEACHER_STEPS:-50}" --teacher-guidance "${GUIDANCE:-1}" --cutoffs "${CUTOFFS:-4000}" --seeds 3 \
  "${compared[@]}" "${measuring[@]}" -o "$runs/report"
described=()
for name in regression teacher distill adversarial dmd_self dmd_separate tune vocoder_lr vocoder_mel; do
  described+=("$name=${!name}")
done
python launch/ablation.py "$runs/report/scores.json" "${PAGE:-docs/ablation.md}" "${described[@]}"
