#!/usr/bin/env bash
# Train, score and audit the promoted schedule with the platform's own trainer; resumes in any stage.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec ablate run --config-dir "$here/../conf" experiment=promoted "$@"
