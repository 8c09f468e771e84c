"""The boundary of training: a job goes in, checkpoints and an outcome come out.

    job = TrainJob(directory=run_folder, model=…, training=…, schedule=…, …)
    outcome = NanotronTrainer().train(job, watch=show)
    # run_folder/metrics.jsonl, events.jsonl, checkpoints/<step>/, worker.log

A trainer resumes by itself: given the job of a killed run it goes on from the newest whole
checkpoint, and on CPU the losses are bit for bit those of a run that was never killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ablations.errors import ConfigError, Problem
from ablations.mixture.schedule import LearningRate, Schedule
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec

__all__ = ["StepRow", "TrainJob", "TrainOutcome", "WarmStart", "Watch"]


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Begin from another training's checkpoint instead of random weights (annealing arms)."""

    checkpoint: Path
    """A checkpoint folder, ``…/checkpoints/<step>``."""
    load_optimizer: bool
    """Whether the optimiser's moments come along; its ranks must then be this job's."""
    first_step: int
    """Steps that count as done: schedule, learning rate and sample index go on from here."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything one training needs: picklable, and free of torch."""

    directory: Path
    """The run folder."""
    model: ModelSpec
    training: TrainingSpec
    execution: ExecutionSpec
    schedule: Schedule
    learning_rate: LearningRate
    stores: Mapping[str, Path]
    """Source → folder of its token store."""
    slices: Mapping[str, int] | None = None
    """Source → windows that may be read (simulated epoching); None = all of all."""
    seed: int
    checkpoint_steps: tuple[int, ...]
    """Steps after which a checkpoint is saved; the last step always is."""
    warm_start: WarmStart | None = None

    def __post_init__(self) -> None:
        if problems := [*self._shape_problems(), *self._step_problems()]:
            raise ConfigError(problems)

    def _shape_problems(self) -> list[Problem]:
        pairs = {
            "sequence_length": (self.schedule.sequence_length, self.training.sequence_length),
            "batch_size": (self.schedule.batch_size, self.training.batch_size),
        }
        problems = [
            Problem(f"training.{name}", "differs from the schedule's", found=there, allowed=here)
            for name, (here, there) in pairs.items()
            if here != there
        ]
        if missing := sorted(set(self.schedule.sources) - set(self.stores)):
            problems.append(
                Problem("stores", "no token store for a source", found=", ".join(missing))
            )
        return problems

    def _step_problems(self) -> list[Problem]:
        total = self.schedule.total_steps
        problems = []
        if self.learning_rate.total_steps != total:
            problems.append(
                Problem(
                    "schedule.lr",
                    "made for another number of steps",
                    found=self.learning_rate.total_steps,
                    allowed=total,
                )
            )
        if not 0 <= self.first_step < total:
            problems.append(
                Problem(
                    "warm_start.first_step",
                    "outside the schedule",
                    found=self.first_step,
                    allowed=f"0 to {total - 1}",
                )
            )
        return problems

    @property
    def first_step(self) -> int:
        """Steps that count as done before this job's first."""
        return self.warm_start.first_step if self.warm_start else 0

    @property
    def checkpoints_dir(self) -> Path:
        """Where its checkpoints are written."""
        return self.directory / "checkpoints"


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One optimiser step, as ``metrics.jsonl`` holds it."""

    step: int
    """Counted from 1: the number of steps done."""
    tokens: int
    """Tokens trained so far."""
    loss: float
    """Mean cross-entropy of the step's tokens, nats; NaN where the step had none."""
    lr: float
    """Learning rate of the step."""
    grad_norm: float
    """L2 norm of the gradient before clipping; NaN without clipping."""
    tokens_per_second: float
    """Trained tokens of the step over its wall time."""
    seconds: float
    """Wall time of the step."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; a number that is not finite is null."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> StepRow:
        """The inverse of :meth:`to_json`; null becomes NaN, keys of other writers are left out."""
        values: dict[str, Any] = {
            name: math.nan if row.get(name) is None else row[name]
            for name in cls.__dataclass_fields__
        }
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """How a training ended."""

    status: Literal["done", "failed"]
    reason: str | None
    """Why it failed; None when done."""
    last_step: int
    """Optimiser steps done, warm start included."""
    checkpoints: tuple[int, ...]
    """Whole checkpoints on disk, ascending."""
    windows: tuple[tuple[int, ...], ...] | None = None
    """Windows really read [stage][source of ``schedule.sources``] up to the last checkpoint."""
    cpu_seconds: float = 0.0
    """CPU time of the worker processes of this call."""
    device: str = "cpu"
    """What it ran on, as the driver names it."""


Watch = Callable[[StepRow], None]
"""Called with every step's row, in order, in the caller's process."""
