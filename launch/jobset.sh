#!/usr/bin/env bash
# One stage on Kubernetes, as a JobSet: IMAGE=... CLAIM=... bash launch/jobset.sh teacher [OPTION...] | kubectl apply -f -
# The image holds this repository in /flashsr_jax, installed with JAX for the devices; the claim is a volume with data/ that
# all hosts can write (see launch/train.sh). For TPUs: RESOURCE=google.com/tpu PER_HOST=4 HOSTS=16
# NODES=$'cloud.google.com/gke-tpu-accelerator: tpu-v5p-slice\ncloud.google.com/gke-tpu-topology: 4x4x4'
# Many files, a part in each of 16 pods with a GPU (see launch/upscale.sh):
# HOSTS=16 IMAGE=... CLAIM=... bash launch/jobset.sh upscale -r /shared/in -o /shared/out | kubectl apply -f -
# A pod that is taken away starts again and does what is missing; a part with a file that cannot be read stops no other.
# Hosts of a stage that are taken away or fail start the whole set again, and the run goes on; a mistake (exit code 1 or 2) ends it.
set -euo pipefail
NAME=${NAME:-flashsr}
IMAGE=${IMAGE:?an image with this repository in /flashsr_jax}
CLAIM=${CLAIM:?a persistent volume claim that all hosts can write}
HOSTS=${HOSTS:-2}
RESOURCE=${RESOURCE:-nvidia.com/gpu}
NODES=${NODES:-cloud.google.com/gke-accelerator: nvidia-h100-80gb}
RESTARTS=${RESTARTS:-50}

if [ "${1:-}" = upscale ]; then
  shift
  program=upscale
  PER_HOST=${PER_HOST:-1}
  restarts=0
  limit="backoffLimitPerIndex: $RESTARTS"
  mistake="{action: FailIndex, onExitCodes: {containerName: upscale, operator: In, values: [1, 2]}}"
  variables="- {name: SHARDS, value: '$HOSTS'}"
else
  program=train
  PER_HOST=${PER_HOST:-8}
  restarts=$RESTARTS
  limit="backoffLimit: 0"
  mistake="{action: FailJob, onExitCodes: {containerName: train, operator: In, values: [1, 2]}}"
  variables="- {name: SHARED, value: /shared}
- {name: PRESET, value: ${PRESET:-base}}"
  # JAX finds TPU hosts by itself.
  [ "$RESOURCE" = google.com/tpu ] || variables="$variables
- {name: JAX_COORDINATOR_ADDRESS, value: '$NAME-host-0-0.$NAME:8476'}
- {name: JAX_NUM_PROCESSES, value: '$HOSTS'}
- name: JAX_PROCESS_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']"
fi

indented() { printf '%s\n' "$2" | sed "s/^/$(printf "%$1s")/"; }

cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $NAME
spec:
  failurePolicy:
    maxRestarts: $restarts
    rules:
      - action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: host
      replicas: 1
      template:
        spec:
          parallelism: $HOSTS
          completions: $HOSTS
          completionMode: Indexed
          $limit
          podFailurePolicy:
            rules:
              - $mistake
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 180
              nodeSelector:
$(indented 16 "$NODES")
              containers:
                - name: $program
                  image: $IMAGE
                  workingDir: /flashsr_jax
                  command: [bash, launch/$program.sh]
                  args:
$(for argument in "$@"; do indented 20 "- '${argument//\'/\'\'}'"; done)
                  env:
$(indented 20 "$variables")
                  resources:
                    limits:
                      $RESOURCE: $PER_HOST
                  volumeMounts:
                    - {name: shared, mountPath: /shared}
                    - {name: memory, mountPath: /dev/shm}
              volumes:
                - name: shared
                  persistentVolumeClaim: {claimName: $CLAIM}
                - name: memory
                  emptyDir: {medium: Memory}
YAML
