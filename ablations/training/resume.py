"""Start of a job: a new model, the job's own newest checkpoint, or another run's checkpoint.

It is decided before a worker is started and without torch, so that a job that cannot begin is refused
in the caller's process, and a finished job starts no worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablations.errors import CheckpointError, Problem
from ablations.training.checkpoints import (
    Topology,
    model_config,
    newest,
    read_state,
    require_intact,
    require_whole,
)
from ablations.training.specs import ModelSpec
from ablations.training.train_job import TrainJob

__all__ = ["Start", "find_start"]

_SHAPE = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "tie_word_embeddings"),
)
"""Fields that must be equal to load another model's weights; rotary base and length may differ."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Start of a training."""

    kind: Literal["start", "resume", "warm_start"]
    step: int
    """Steps that count as done."""
    checkpoint: Path | None = None
    load_optimizer: bool = False
    threads: int | None = None
    """torch threads that the checkpoint was written with, used if the job leaves them open."""
    windows: tuple[tuple[int, ...], ...] | None = None
    """Windows that this run had read by then [stage][source]; of methods on rows, rows."""
    supervised: tuple[tuple[int, ...], ...] | None = None
    """sft, dpo, vlm: tokens that the loss had counted by then [stage][source]."""


def find_start(job: TrainJob) -> Start:
    """Return the start of a job.

    Raises:
        CheckpointError: the checkpoint is incomplete or damaged, has another network's shape, or its
            optimiser is divided for another topology.
    """
    if (own := newest(job.checkpoints_dir)) is not None:
        return _from_checkpoint(job, own, kind="resume", step=int(own.name), load_optimizer=True)
    warm = job.warm_start
    if warm is None:
        return Start(kind="start", step=0)
    where = "warm_start.checkpoint"
    require_whole(warm.checkpoint, where)
    require_intact(warm.checkpoint, where, weights_only=not warm.load_optimizer)
    return _from_checkpoint(
        job,
        warm.checkpoint,
        kind="warm_start",
        step=warm.first_step,
        load_optimizer=warm.load_optimizer,
    )


def _from_checkpoint(
    job: TrainJob,
    checkpoint: Path,
    *,
    kind: Literal["resume", "warm_start"],
    step: int,
    load_optimizer: bool,
) -> Start:
    problems = _shape_problems(job.model, model_config(checkpoint), checkpoint)
    state = read_state(checkpoint)
    if load_optimizer:
        problems += _topology_problems(job, state.topology if state else None, checkpoint, kind)
    if problems:
        raise CheckpointError(problems)
    own = state if kind == "resume" else None
    return Start(
        kind=kind,
        step=step,
        checkpoint=checkpoint,
        load_optimizer=load_optimizer,
        threads=own.threads if own else None,
        windows=own.windows if own else None,
    )


def _shape_problems(model: ModelSpec, stored: Mapping[str, Any], checkpoint: Path) -> list[Problem]:
    return [
        Problem(
            f"model.{name}",
            f"differs from the checkpoint {checkpoint}",
            found=getattr(model, name),
            allowed=stored.get(name),
        )
        for name in _SHAPE
        if stored.get(name) != getattr(model, name)
    ]


def _topology_problems(
    job: TrainJob, stored: Topology | None, checkpoint: Path, kind: str
) -> list[Problem]:
    if stored is None:
        return [
            Problem(
                str(checkpoint),
                "does not record the ranks that its optimiser is divided over",
                do="set warm_start.load_optimizer=false to take its weights alone",
            )
        ]
    asked = Topology.of(job.execution, job.training.dtype)
    otherwise = " or start another run" if kind == "resume" else " or leave its optimiser behind"
    return [
        Problem(
            f"{'training' if name == 'dtype' else 'execution'}.{name}",
            f"the optimiser in {checkpoint} is divided for another topology",
            found=getattr(asked, name),
            allowed=getattr(stored, name),
            do=f"set it to {getattr(stored, name)}{otherwise}",
        )
        for name in asked.differences(stored)
    ]
