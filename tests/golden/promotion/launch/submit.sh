#!/usr/bin/env bash
# Submit the 4 stages of smollm2_1b7: 32 nodes each, a stage starts when the one before is done.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
PROMOTION="$(dirname "$here")"
export PROMOTION
after=()
for stage in 1 2 3 4; do
    job="$(sbatch --parsable --export=ALL --job-name=smollm2_1b7-"$stage" "${after[@]}" \
        "$here/stage.sbatch" "$stage")"
    echo "stage $stage: job $job"
    after=(--dependency="afterok:${job%%;*}")
done
