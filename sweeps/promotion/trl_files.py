"""Files for TRL: a config for each stage after a full run, as alignment-handbook's scripts take them.

    trl/1_sft.yaml     scripts/sft.py --config
    trl/2_dpo.yaml     scripts/dpo.py --config
    launch/post.sh     both, one after the other, with accelerate

TRL mixes otherwise than the platform: ``weight`` is the share of a data set's rows that are read, from its
beginning, and the parts are then shuffled together. The weights here are those that give the mixture's shares
over all epochs; each source that TRL cannot load by a name of the hub is named in a comment.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablations.config.schema import RunConfig
from ablations.data.catalogue import HubOrigin
from ablations.files import write_text
from sweeps.promotion.post_stages import PostStage
from sweeps.promotion.specs import ClusterSpec

__all__ = ["post_script", "stage_config", "write_stage_files"]

_SCHEDULERS = {"cosine": "cosine", "linear": "linear", "1-sqrt": "warmup_stable_decay"}


def write_stage_files(
    folder: Path, record: Mapping[str, Any], stages: Sequence[PostStage], cluster: ClusterSpec
) -> None:
    """Write the configs and the script of the stages into a promotion that is not published yet."""
    if not stages:
        return
    (folder / "trl").mkdir(exist_ok=True)
    before = f"{cluster.checkpoints}/{record['name']}/export"
    names = []
    for number, stage in enumerate(stages, start=1):
        name = f"{number}_{stage.name}.yaml"
        text = stage_config(stage, str(record["name"]), before, cluster)
        write_text(folder / "trl" / name, text)
        before = _output(cluster, str(record["name"]), stage)
        names.append((name, stage.config.method.kind))
    script = folder / "launch" / "post.sh"
    write_text(script, post_script(str(record["name"]), names, cluster))
    script.chmod(0o755)


def stage_config(stage: PostStage, name: str, before: str, cluster: ClusterSpec) -> str:
    """Return the text of a stage's config.

    Args:
        stage: The stage.
        name: Name of the promotion.
        before: Model that it begins from: a transformers folder.
        cluster: GPUs, over which the batch is divided.
    """
    config = stage.config
    training, method = config.training, config.method
    rate = config.build_learning_rate(config.build_schedule())
    each = max(1, math.gcd(training.batch_size // max(1, cluster.gpus), cluster.micro_batch_size))
    epochs, datasets, left_out = _datasets(config)
    plain: dict[str, Any] = {
        "model_name_or_path": before,
        "dtype": training.dtype,
        "dataset_mixture": {"datasets": datasets, "seed": config.seed},
        "bf16": training.dtype == "bfloat16",
        "gradient_checkpointing": config.execution.recompute,
        "per_device_train_batch_size": each,
        "gradient_accumulation_steps": max(1, training.batch_size // (each * cluster.gpus)),
        "learning_rate": training.peak_lr,
        "lr_scheduler_type": _SCHEDULERS[rate.shape],
        "warmup_steps": rate.warmup_steps,
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "max_grad_norm": training.clip_norm or 0.0,
        "max_length": training.sequence_length,
        "max_steps": config.build_schedule().total_steps,
        "num_train_epochs": epochs,
        "output_dir": _output(cluster, name, stage),
        "save_strategy": "steps",
        "save_steps": cluster.checkpoint_interval_steps,
        "seed": config.seed,
    }
    chat = config.tokenizer.chat
    if method.kind == "sft":
        plain |= {"assistant_only_loss": method.loss == "answers", "packing": False}
        plain["chat_template"] = chat.template if chat else None
        plain["eos_token"] = chat.turn_end if chat else None
    else:
        plain |= {"beta": method.beta, "loss_type": [method.loss_type]}
        plain["precompute_ref_log_probs"] = True
    heading = [f"# {name}, stage {stage.name}: the pick of study {stage.study}."]
    if method.kind == "dpo" and method.rounds > 1:
        heading.append(
            f"# The study trained {method.rounds} rounds, each against the one before: run this file once "
            "for each, from the model before."
        )
    heading += [
        f"# Not a data set of the hub, write its rows and name them here: {n}" for n in left_out
    ]
    return "\n".join(heading) + "\n" + yaml.safe_dump(plain, sort_keys=False, width=100)


def _output(cluster: ClusterSpec, name: str, stage: PostStage) -> str:
    return f"{cluster.checkpoints}/{name}/{stage.name}"


def _datasets(config: RunConfig) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Return epochs, TRL's data sets with their weights, and the sources that it cannot load."""
    schedule = config.build_schedule()
    asked = {name: rows for name, rows in schedule.tokens().items() if rows > 0}
    rows_of = {
        name: float((spec.rows.available if spec.rows else None) or asked[name])
        for name, spec in config.source.items()
        if name in asked
    }
    epochs = max(1, math.ceil(max(asked[name] / rows_of[name] for name in asked) - 1e-9))
    datasets, left_out = [], []
    for name, rows in asked.items():
        spec = config.source[name]
        origin = spec.origin
        if not isinstance(origin, HubOrigin):
            left_out.append(name)
        assert spec.rows is not None
        columns = list(spec.rows.columns)
        datasets.append(
            {
                "id": origin.repo if isinstance(origin, HubOrigin) else name,
                "config": (origin.subset if isinstance(origin, HubOrigin) else None) or "default",
                "split": origin.split if isinstance(origin, HubOrigin) else "train",
                "columns": columns,
                "weight": round(rows / (rows_of[name] * epochs), 6),
            }
        )
    return epochs, datasets, left_out


_POST = """\
#!/usr/bin/env bash
# Fine-tune and prefer {name} with TRL through alignment-handbook's scripts, after the full run.
# Needs a checkout of alignment-handbook (HANDBOOK), and the full run as a transformers folder: `ablate run`
# leaves it under exports/, and nanotron's checkpoints are converted with its own tools.
set -euo pipefail

here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
{lines}
"""


def post_script(name: str, stages: Sequence[tuple[str, str]], cluster: ClusterSpec) -> str:
    """Return the script that trains the stages in order.

    Args:
        name: Name of the promotion, which is a folder's name.
        stages: File and method of each stage.
        cluster: GPUs of one machine, and machines.
    """
    launch = f"accelerate launch --num_processes {cluster.gpus} --num_machines {cluster.nodes}"
    lines = [
        f'{launch} "${{HANDBOOK:?checkout of alignment-handbook}}/scripts/{method}.py" \\\n'
        f'    --config "$here/../trl/"{shlex.quote(file)}'
        for file, method in stages
    ]
    return _POST.format(name=name, lines="\n".join(lines))
