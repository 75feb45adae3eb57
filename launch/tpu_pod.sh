#!/usr/bin/env bash
# One stage on a TPU pod slice, by queued resources and SSH:
#   NFS=10.0.0.2:/share bash launch/tpu_pod.sh create      asks for the slice, waits for it and prepares every host
#   NFS=10.0.0.2:/share bash launch/tpu_pod.sh train teacher [OPTION...]    the same command on each (launch/train.sh)
#   bash launch/tpu_pod.sh delete
# The file share (Filestore, say) holds data/, and gets runs/ and the code. A spot slice that is taken away is asked for
# again, and the run goes on from its last checkpoint.
set -euo pipefail
NAME=${NAME:-flashsr}
ZONE=${ZONE:-us-east5-a}
TYPE=${TYPE:-v5p-64}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5}
POLL_S=${POLL_S:-30}

tpus() { gcloud compute tpus "$@" --zone="$ZONE"; }
state() { tpus queued-resources describe "$NAME" --format='value(state.state)'; }
on_every_host() { tpus tpu-vm ssh "$NAME" --worker=all --command="$1"; }

create() {
  tpus queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$RUNTIME" --spot
  until [ "$(state)" = ACTIVE ]; do sleep "$POLL_S"; done
  tpus tpu-vm scp --recurse . "$NAME:flashsr_jax" --worker=all
  on_every_host "sudo apt-get install -y -q nfs-common && sudo mkdir -p /shared && sudo mount ${NFS:?} /shared &&
    python3 -m venv .venv && .venv/bin/pip install -q './flashsr_jax[train]' 'jax[tpu]'"
}

delete() { tpus queued-resources delete "$NAME" --force --quiet; }

train() {
  local command
  command="SHARED=/shared PYTHON=\$HOME/.venv/bin/python PRESET=${PRESET:-base} bash flashsr_jax/launch/train.sh ${*@Q}"
  until on_every_host "$command"; do
    if [ "$(state)" = ACTIVE ]; then
      echo "the run ended on a slice that is whole: its last lines say why; the same command resumes it" >&2
      return 1
    fi
    echo "the slice was taken away: asking for another" >&2
    delete
    create
  done
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
  create | delete | train) "$@" ;;
  *)
    echo "tpu_pod.sh: create, train STAGE or delete" >&2
    exit 1
    ;;
esac
