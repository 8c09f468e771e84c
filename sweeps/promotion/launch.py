"""Scripts that train a promoted chain with nanotron's main branch, on one machine or with Slurm.

    launch/stage.sh K       stage K with torchrun, from its newest checkpoint if it has one
    launch/train.sh         all stages in order on this machine
    launch/stage.sbatch K   stage.sh on every node of a job
    launch/submit.sh        one job for each stage, each after the one before
    launch/ablate.sh        the same schedule with the platform's own trainer, on this machine
    launch/ablate.sbatch    ablate.sh on every node of a job, with the ranks of the cluster

A job that was killed can be resubmitted unchanged. A finished stage is skipped. A started stage resumes
from its own ``latest.txt`` instead of the hand-over checkpoint that its file names.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablations.errors import ConfigError
from ablations.record.identity import folder_problem
from sweeps.promotion.specs import ClusterSpec

__all__ = ["StageLaunch", "scripts"]


@dataclass(frozen=True, kw_only=True)
class StageLaunch:
    """Values of one stage for the scripts."""

    file: str
    """Name of its file under ``nanotron/``."""
    checkpoints: str
    """Its checkpoint folder."""
    last_step: int
    """Last step of the stage."""


_STAGE = """\
#!/usr/bin/env bash
# Train one stage of {name} with nanotron's main branch, on this node of the job.
# Usage: stage.sh STAGE, from 1 to {count}. Relative folders are taken from the working directory.
set -euo pipefail

files=({files})
checkpoints=({checkpoints})
last_steps=({last_steps})

stage="${{1:?usage: stage.sh STAGE, from 1 to {count}}}"
index=$((stage - 1))
nanotron={nanotron}
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
config="$here/../nanotron/${{files[index]}}"
folder="${{checkpoints[index]}}"

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
    path="$quote${{folder//$quote/$quote$quote}}$quote"
    path="$(printf '%s' "$path" | sed -e 's/[\\\\&|]/\\\\&/g')"
    sed -e "s|^  resume_checkpoint_path: .*|  resume_checkpoint_path: $path|" \\
        -e "s|^  load_lr_scheduler: .*|  load_lr_scheduler: true|" \\
        -e "s|^  load_optimizer: .*|  load_optimizer: true|" "$config" >"$resumed.tmp"
    mv "$resumed.tmp" "$resumed"
    config="$resumed"
fi

export CUDA_DEVICE_MAX_CONNECTIONS=1
exec torchrun \\
    --nnodes "${{SLURM_NNODES:-1}}" \\
    --nproc_per_node {gpus_per_node} \\
    --rdzv_backend c10d \\
    --rdzv_id "${{SLURM_JOB_ID:-$$}}" \\
    --rdzv_endpoint "${{HEAD_NODE:-localhost}}:${{MASTER_PORT:-29500}}" \\
    "${{NANOTRON:-$nanotron}}/run_train.py" --config-file "$config"
"""

_TRAIN = """\
#!/usr/bin/env bash
# Train all {count} stages of {name} in order on this machine ({gpus_per_node} GPUs).
set -euo pipefail

here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
for stage in {numbers}; do
    bash "$here/stage.sh" "$stage"
done
"""

_SBATCH = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus_per_node}
#SBATCH --cpus-per-task={cpus_per_task}
#SBATCH --partition={partition}
#SBATCH --time={time}
#SBATCH --requeue
#SBATCH --output=%x-%j.out
# One stage of {name}; submit.sh gives the stage and the promotion's folder.
set -euo pipefail

stage="${{1:?usage: sbatch stage.sbatch STAGE}}"
HEAD_NODE="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export HEAD_NODE
srun --kill-on-bad-exit=1 bash "${{PROMOTION:?folder of the promotion}}/launch/stage.sh" "$stage"
"""

_SUBMIT = """\
#!/usr/bin/env bash
# Submit the {count} stages of {name}: {nodes} nodes each, a stage starts when the one before is done.
set -euo pipefail

here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
PROMOTION="$(dirname "$here")"
export PROMOTION
after=()
for stage in {numbers}; do
    job="$(sbatch --parsable --export=ALL --job-name={name}-"$stage" "${{after[@]}}" \\
        "$here/stage.sbatch" "$stage")"
    echo "stage $stage: job $job"
    after=(--dependency="afterok:${{job%%;*}}")
done
"""

_ABLATE = """\
#!/usr/bin/env bash
# Train, score and audit the promoted schedule with the platform's own trainer; resumes in any stage.
set -euo pipefail

here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
exec ablate run --config-dir "$here/../conf" experiment=promoted "$@"
"""


_ABLATE_SBATCH = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus_per_node}
#SBATCH --cpus-per-task={cpus_per_task}
#SBATCH --partition={partition}
#SBATCH --time={time}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# {name} with the platform's own trainer on {nodes} nodes, one task on each. Further overrides follow:
# PROMOTION=folder sbatch --export=ALL launch/ablate.sbatch execution.recompute=true
set -euo pipefail

code=0
srun --kill-on-bad-exit=1 bash "${{PROMOTION:?folder of the promotion}}/launch/ablate.sh" \\
    execution.device=cuda execution.nodes={nodes} \\
    execution.dp={dp} execution.tp={tp} execution.pp={pp} execution.zero_stage={zero_stage} \\
    execution.micro_batch_size={micro_batch_size} "$@" || code=$?
# 75: a host was lost. Slurm requeues the job itself if a node fails, but not if a process was killed.
if ((code == 75 && ${{SLURM_RESTART_COUNT:-0}} < 10)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def scripts(name: str, stages: Sequence[StageLaunch], cluster: ClusterSpec) -> Mapping[str, str]:
    """Return file name → text of every script of a chain.

    Values from a config are quoted as one word of the shell. Values in a comment or an ``#SBATCH`` line,
    where nothing can be quoted, are checked instead.

    Raises:
        ConfigError: The chain's name is not a valid folder name. :class:`ClusterSpec` checks its own values.
    """
    if problem := folder_problem("promotion.full.name", name):
        raise ConfigError(problem)
    values = {
        "name": name,
        "count": len(stages),
        "numbers": " ".join(str(number) for number in range(1, len(stages) + 1)),
        "files": shlex.join(stage.file for stage in stages),
        "checkpoints": shlex.join(stage.checkpoints for stage in stages),
        "last_steps": " ".join(str(stage.last_step) for stage in stages),
        "gpus_per_node": cluster.gpus_per_node,
        "dp": cluster.dp,
        "tp": cluster.tp,
        "pp": cluster.pp,
        "zero_stage": cluster.zero_stage if cluster.dp > 1 else 0,
        "micro_batch_size": cluster.micro_batch_size,
        "nodes": cluster.nodes,
        "cpus_per_task": cluster.cpus_per_task,
        "partition": cluster.partition,
        "time": cluster.time,
        "nanotron": shlex.quote(cluster.nanotron),
    }
    templates = {
        "stage.sh": _STAGE,
        "train.sh": _TRAIN,
        "stage.sbatch": _SBATCH,
        "submit.sh": _SUBMIT,
        "ablate.sh": _ABLATE,
        "ablate.sbatch": _ABLATE_SBATCH,
    }
    return {file: template.format(**values) for file, template in templates.items()}
