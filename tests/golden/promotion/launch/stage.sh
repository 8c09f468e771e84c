#!/usr/bin/env bash
# Train one stage of smollm2_1b7 with nanotron's main branch, on this node of the job.
# Usage: stage.sh STAGE, from 1 to 4. Relative folders are taken from the working directory.
set -euo pipefail

files=(1_stable.yaml 2_stable_math.yaml 3_stable_edu_code.yaml 4_decay.yaml)
checkpoints=(checkpoints/smollm2_1b7/1_stable checkpoints/smollm2_1b7/2_stable_math checkpoints/smollm2_1b7/3_stable_edu_code checkpoints/smollm2_1b7/4_decay)
last_steps=(2861023 3814697 4768372 5245209)

stage="${1:?usage: stage.sh STAGE, from 1 to 4}"
index=$((stage - 1))
nanotron=nanotron
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
config="$here/../nanotron/${files[index]}"
folder="${checkpoints[index]}"

if [[ -s "$folder/latest.txt" ]]; then
    latest="$(<"$folder/latest.txt")"
    if ((latest >= last_steps[index])); then
        echo "stage $stage ended at step $latest: nothing to do"
        exit 0
    fi
    # Resume from this stage's own newest checkpoint, not from the one that the file hands over.
    resumed="$folder/resume.$(hostname).yaml"
    # Quote the path for YAML, and escape the characters that are special to sed.
    quote="'"
    path="$quote${folder//$quote/$quote$quote}$quote"
    path="$(printf '%s' "$path" | sed -e 's/[\\&|]/\\&/g')"
    sed -e "s|^  resume_checkpoint_path: .*|  resume_checkpoint_path: $path|" \
        -e "s|^  load_lr_scheduler: .*|  load_lr_scheduler: true|" \
        -e "s|^  load_optimizer: .*|  load_optimizer: true|" "$config" >"$resumed.tmp"
    mv "$resumed.tmp" "$resumed"
    config="$resumed"
fi

export CUDA_DEVICE_MAX_CONNECTIONS=1
exec torchrun \
    --nnodes "${SLURM_NNODES:-1}" \
    --nproc_per_node 8 \
    --rdzv_backend c10d \
    --rdzv_id "${SLURM_JOB_ID:-$$}" \
    --rdzv_endpoint "${HEAD_NODE:-localhost}:${MASTER_PORT:-29500}" \
    "${NANOTRON:-$nanotron}/run_train.py" --config-file "$config"
