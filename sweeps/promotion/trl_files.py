"""Files for TRL: two configs for each stage after a full run, and a script that runs all stages.

    trl/1_sft.yaml        for TRL's own scripts: trl sft --config
    trl/tokenizer/        the chat tokenizer, whose template and markers TRL takes over
    handbook/1_sft.yaml   for alignment-handbook's: scripts/sft.py --config
    launch/post.sh        the stages in order, with accelerate; HANDBOOK=checkout takes the second form

The two mix differently, and neither as the platform does. TRL's ``fraction`` is a share of the mixture: the
first rows of each source, as many as the scarcest one allows, over and over. The handbook's ``weight`` is a
share of the source: that part of its shuffled rows, so that all epochs together have the mixture's shares.
Sources that neither can load by name are named in a comment.
"""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ablations.config.schema import RunConfig
from ablations.data.catalogue import FilesOrigin, HubOrigin, SourceSpec
from ablations.data.tokenizer import open_tokenizer
from ablations.files import write_text
from ablations.mixture.schedule import LearningRate
from sweeps.promotion.post_stages import PostStage
from sweeps.promotion.specs import ClusterSpec

__all__ = ["handbook_config", "post_script", "trl_config", "write_stage_files"]

_TOKENIZER = "tokenizer"


def write_stage_files(
    folder: Path, record: Mapping[str, Any], stages: Sequence[PostStage], cluster: ClusterSpec
) -> None:
    """Write the configs and the script of the stages into a promotion that is not published yet."""
    if not stages:
        return
    name = str(record["name"])
    before = f"{cluster.checkpoints}/{name}/export"
    files = []
    for form in ("trl", "handbook"):
        (folder / form).mkdir(exist_ok=True)
    for number, stage in enumerate(stages, start=1):
        file = f"{number}_{stage.name}.yaml"
        write_text(folder / "trl" / file, trl_config(stage, name, before, cluster))
        write_text(folder / "handbook" / file, handbook_config(stage, name, before, cluster))
        before = _output(cluster, name, stage)
        files.append((file, stage.config.method.kind))
    tokenizer = _tokenizer_folder(stages[0].config)
    if tokenizer.is_dir():
        shutil.copytree(tokenizer, folder / "trl" / _TOKENIZER)
    script = folder / "launch" / "post.sh"
    write_text(script, post_script(name, files, cluster))
    script.chmod(0o755)


def trl_config(stage: PostStage, name: str, before: str, cluster: ClusterSpec) -> str:
    """Return the text of a stage's config for the scripts of TRL 1.16.

    Args:
        stage: The stage.
        name: Name of the promotion.
        before: Model that it begins from: a transformers folder.
        cluster: GPUs, over which the batch is divided.
    """
    config = stage.config
    parts = list(_parts(config))
    total = sum(part.rows for part in parts)
    values = {
        "model_name_or_path": before,
        "dtype": config.training.dtype,
        "datasets": [
            {**part.trl(), "fraction": round(part.rows / total, 6)} for part in parts if part.rows
        ],
        "activation_checkpointing": config.execution.recompute,
        **_shared(stage, name, cluster),
    }
    if config.method.kind == "sft" and config.tokenizer.chat:
        # TRL takes the end of a turn from it too, and would seek an eos_token before it adds the markers.
        values["chat_template_path"] = f"trl/{_TOKENIZER}"
    if config.method.kind == "dpo":
        values["loss_type"] = [config.method.loss_type]
    return _text(stage, name, values)


def handbook_config(stage: PostStage, name: str, before: str, cluster: ClusterSpec) -> str:
    """Return the text of a stage's config for alignment-handbook (925acdf, TRL 0.19)."""
    config = stage.config
    parts = list(_parts(config))
    epochs = max(1, math.ceil(max(part.epochs for part in parts) - 1e-9))
    values = {
        "model_name_or_path": before,
        "torch_dtype": config.training.dtype,
        "dataset_mixture": {
            "datasets": [
                {**part.handbook(), "weight": round(part.epochs / epochs, 6)} for part in parts
            ],
            "seed": config.seed,
        },
        "gradient_checkpointing": config.execution.recompute,  # its name in transformers 4
        **_shared(stage, name, cluster),
        "num_train_epochs": epochs,
        "chat_template": config.tokenizer.chat.template if config.tokenizer.chat else None,
    }
    if config.method.kind == "sft":
        values["eos_token"] = config.tokenizer.chat.turn_end if config.tokenizer.chat else None
    else:
        values["loss_type"] = config.method.loss_type
    return _text(stage, name, values)


def _tokenizer_folder(config: RunConfig) -> Path:
    return Path(config.data_dir) / "tokenizers" / config.tokenizer.name


def _adds_markers(config: RunConfig) -> bool:
    """Return whether the chat tokenizer has tokens that the model of the pretraining has no rows for."""
    own = _tokenizer_folder(config)
    base = own.with_name(config.tokenizer.base or "")
    if not (own.is_dir() and config.tokenizer.base and base.is_dir()):
        return False
    return open_tokenizer(own).vocab_size > open_tokenizer(base).vocab_size


def _shared(stage: PostStage, name: str, cluster: ClusterSpec) -> dict[str, Any]:
    """Return what both forms state alike."""
    config = stage.config
    training, method = config.training, config.method
    schedule = config.build_schedule()
    rate = config.build_learning_rate(schedule)
    each = max(1, math.gcd(training.batch_size // max(1, cluster.gpus), cluster.micro_batch_size))
    shared: dict[str, Any] = {
        "bf16": training.dtype == "bfloat16",
        "per_device_train_batch_size": each,
        "gradient_accumulation_steps": max(1, training.batch_size // (each * cluster.gpus)),
        "learning_rate": training.peak_lr,
        "warmup_steps": rate.warmup_steps,
        **_scheduler(rate),
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_eps,
        "max_grad_norm": training.clip_norm or 0.0,
        "max_length": training.sequence_length,
        "max_steps": schedule.total_steps,
        "output_dir": _output(cluster, name, stage),
        "save_strategy": "steps",
        "save_steps": cluster.checkpoint_interval_steps,
        "seed": config.seed,
    }
    if method.kind == "sft":
        return {**shared, "assistant_only_loss": method.loss == "answers", "packing": False}
    return {**shared, "beta": method.beta, "precompute_ref_log_probs": True}


def _scheduler(rate: LearningRate) -> dict[str, Any]:
    """Return the learning rate's schedule by its name in transformers."""
    if not rate.decay_steps:
        return {"lr_scheduler_type": "constant_with_warmup"}
    whole = rate.decay_start == rate.warmup_steps and not rate.tail_steps
    if whole and not rate.min_ratio and rate.shape in ("cosine", "linear"):
        return {"lr_scheduler_type": rate.shape}
    # Without a number of stable steps they are those that warm-up and decay leave.
    stable = {"num_stable_steps": rate.decay_start - rate.warmup_steps} if rate.tail_steps else {}
    return {
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {
            **stable,
            "num_decay_steps": rate.decay_steps,
            "decay_type": rate.shape,
            "min_lr_ratio": rate.min_ratio,
        },
    }


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A source of a stage, with the rows that are read of it."""

    name: str
    spec: SourceSpec
    rows: float
    """Rows read over the whole stage, repeats included."""

    @property
    def epochs(self) -> float:
        """Return how often the source is read."""
        rows = self.spec.rows
        return self.rows / float((rows and rows.available) or self.rows or 1.0)

    @property
    def columns(self) -> list[str]:
        """Return the columns of a row."""
        assert self.spec.rows is not None
        return list(self.spec.rows.columns)

    def trl(self) -> dict[str, Any]:
        """Return the source as ``datasets.load_dataset`` takes it."""
        origin = self.spec.origin
        if isinstance(origin, FilesOrigin):
            kind = "parquet" if _is_parquet(origin) else "json"
            return {"path": kind, "data_files": list(origin.paths), "columns": self.columns}
        if not isinstance(origin, HubOrigin):
            return {"path": self.name, "columns": self.columns}
        subset = {"name": origin.subset} if origin.subset else {}
        return {"path": origin.repo, **subset, "split": origin.split, "columns": self.columns}

    def handbook(self) -> dict[str, Any]:
        """Return the source as the handbook takes it."""
        origin = self.spec.origin
        hub = origin if isinstance(origin, HubOrigin) else None
        return {
            "id": hub.repo if hub else self.name,
            "config": (hub.subset if hub else None) or "default",
            "split": hub.split if hub else "train",
            "columns": self.columns,
        }


def _is_parquet(origin: FilesOrigin) -> bool:
    return origin.format == "parquet" or all(path.endswith(".parquet") for path in origin.paths)


def _parts(config: RunConfig) -> Iterator[_Part]:
    for name, rows in config.build_schedule().tokens().items():
        if rows > 0:
            yield _Part(name=name, spec=config.source[name], rows=float(rows))


def _text(stage: PostStage, name: str, values: Mapping[str, Any]) -> str:
    """Return the file's text, with what its reader must know above it."""
    method = stage.config.method
    handbook = "dataset_mixture" in values
    heading = [f"# {name}, stage {stage.name}: the pick of study {stage.study}."]
    if method.kind == "dpo" and method.rounds > 1:
        heading.append(
            f"# The study trained {method.rounds} rounds, each against the one before: run this file once "
            "for each, from the model before."
        )
    if method.unit == "tokens":
        heading.append(
            "# The study's weights are shares of tokens; the shares here are of rows: divide each by the "
            "source's mean tokens (its manifest.json)."
        )
    if handbook and method.kind == "sft" and _adds_markers(stage.config):
        heading.append(
            "# The markers of turns are new tokens, and the handbook adds none: begin from the folder "
            f"start/ of a run of study {stage.study}, whose model has rows for them."
        )
    for part in _parts(stage.config):
        origin = part.spec.origin
        loaded = isinstance(origin, HubOrigin) or (isinstance(origin, FilesOrigin) and not handbook)
        if not loaded:
            heading.append(
                "# Not a data set of the hub, write its rows (as messages) and name them here: "
                f"{part.name}"
            )
    body = yaml.safe_dump(dict(values), sort_keys=False, width=100, allow_unicode=True)
    return "\n".join(heading) + "\n" + body


def _output(cluster: ClusterSpec, name: str, stage: PostStage) -> str:
    return f"{cluster.checkpoints}/{name}/{stage.name}"


_POST = """\
#!/usr/bin/env bash
# Fine-tune and prefer {name} with TRL after the full run: with TRL's own scripts (1.16), or,
# where HANDBOOK is a checkout of alignment-handbook, with its scripts (TRL 0.19).
# Needs the full run as a transformers folder: `ablate run` leaves it under exports/, and nanotron's
# checkpoints are converted with its own tools.
set -euo pipefail

here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")/.." && pwd)"

stage() {{ # METHOD FILE
    local -a own=()
    if [ -n "${{HANDBOOK:-}}" ]; then
        {launch} "$HANDBOOK/scripts/$1.py" --config "$here/handbook/$2"
        return
    fi
    if [ "$1" = sft ]; then own=(--chat_template_path "$here/trl/tokenizer"); fi
    {launch} --module "trl.scripts.$1" --config "$here/trl/$2" "${{own[@]}}"
}}

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
    lines = [f"stage {method} {shlex.quote(file)}" for file, method in stages]
    return _POST.format(name=name, launch=launch, lines="\n".join(lines))
