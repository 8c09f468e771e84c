#!/usr/bin/env bash
# Train all 4 stages of smollm2_1b7 in order on this machine (8 GPUs).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
for stage in 1 2 3 4; do
    bash "$here/stage.sh" "$stage"
done
