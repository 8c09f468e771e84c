"""Interface of a training: a job is passed in, checkpoints and an outcome are returned.

    job = TrainJob(directory=run_folder, model=…, training=…, schedule=…, …)
    outcome = NanotronTrainer().train(job, watch=show)
    # run_folder/metrics.jsonl, events.jsonl, checkpoints/<step>/, worker.log

A trainer resumes by itself: given the job of a killed run, it continues from the newest complete
checkpoint. On a CPU the losses are bit for bit those of a run that was never killed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablations.errors import ConfigError, Problem
from ablations.files import finite_or_none
from ablations.mixture.schedule import LearningRate, Schedule
from ablations.training.method import MethodSpec
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.vision import VisionLoad

__all__ = ["StepRow", "TrainJob", "TrainOutcome", "WarmStart", "Watch"]


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Start from another training's checkpoint instead of random weights (annealing arms)."""

    checkpoint: Path
    """Checkpoint folder, ``…/checkpoints/<step>``."""
    load_optimizer: bool
    """Load the optimiser's moments too; they must be divided over ranks as in this job."""
    first_step: int
    """Steps that count as done: schedule, learning rate and sample index continue from here."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Input of one training; picklable, without torch."""

    directory: Path
    """Run folder."""
    model: ModelSpec
    training: TrainingSpec
    execution: ExecutionSpec
    schedule: Schedule
    learning_rate: LearningRate
    stores: Mapping[str, Path]
    """Source → folder of its token store."""
    slices: Mapping[str, int] | None = None
    """Source → windows that may be read (simulated epoching); None = all windows of all sources."""
    seed: int
    checkpoint_steps: tuple[int, ...]
    """Steps after which a checkpoint is saved; the last step always is."""
    warm_start: WarmStart | None = None
    stop_step: int | None = None
    """Step after which the training pauses, one of ``checkpoint_steps``; None = it goes to its end."""
    method: MethodSpec = field(default_factory=MethodSpec)
    """Aim of the training; it decides the trainer."""
    start_model: str | None = None
    """Model that methods on rows begin from: a transformers folder, a checkpoint of this platform, or the
    name of a model on the hub."""
    tokenizer: Path | None = None
    """Folder of the tokenizer, which methods on rows write into their checkpoints."""
    most_pictures: int = 0
    """vlm: pictures of the row with the most of them, which decide the memory of a row."""

    def __post_init__(self) -> None:
        if problems := [*self._shape_problems(), *self._step_problems()]:
            raise ConfigError(problems)

    def _shape_problems(self) -> list[Problem]:
        # A row is one sample of the schedule, of any length up to training.sequence_length.
        length = 1 if self.method.of_rows else self.training.sequence_length
        pairs = {
            "sequence_length": (self.schedule.sequence_length, length),
            "batch_size": (self.schedule.batch_size, self.training.batch_size),
        }
        problems = [
            Problem(f"training.{name}", "differs from the schedule's", found=own, allowed=planned)
            for name, (planned, own) in pairs.items()
            if planned != own
        ]
        if missing := sorted(set(self.schedule.sources) - set(self.stores)):
            problems.append(
                Problem("stores", "no token store for a source", found=", ".join(missing))
            )
        return problems

    def _step_problems(self) -> list[Problem]:
        total = self.schedule.total_steps
        problems = []
        if total % self.method.rounds:
            problems.append(
                Problem(
                    "method.rounds",
                    "does not divide the steps of the schedule",
                    found=f"{total} steps in {self.method.rounds} rounds",
                    do="give the schedule a multiple of rounds × training.batch_size samples",
                )
            )
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
        if self.stop_step is not None and self.stop_step not in self.checkpoint_steps:
            problems.append(
                Problem(
                    "execution.stop_tokens",
                    "not at a checkpoint of the run",
                    found=f"step {self.stop_step}",
                    allowed=", ".join(map(str, self.checkpoint_steps)),
                )
            )
        return problems

    @property
    def vision_load(self) -> VisionLoad | None:
        """Return what the vision part adds to the memory; None without one."""
        if self.method.vision is None:
            return None
        return VisionLoad(
            vision=self.method.vision,
            text_width=self.model.hidden_size,
            pictures=self.most_pictures,
        )

    @property
    def end_step(self) -> int:
        """Return the step after which this call of the training ends."""
        return self.schedule.total_steps if self.stop_step is None else self.stop_step

    @property
    def first_step(self) -> int:
        """Return the number of steps that count as done before this job's first."""
        return self.warm_start.first_step if self.warm_start else 0

    @property
    def checkpoints_dir(self) -> Path:
        """Return the folder of the job's checkpoints."""
        return self.directory / "checkpoints"


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """Row of ``metrics.jsonl``: one optimiser step."""

    step: int
    """Number of steps done, counted from 1."""
    tokens: int
    """Tokens trained so far."""
    loss: float
    """Mean cross-entropy of the step's tokens, nats; NaN if it was not finite."""
    lr: float
    """Learning rate of the step."""
    grad_norm: float
    """L2 norm of the gradient before clipping; NaN without clipping."""
    tokens_per_second: float
    """Trained tokens of the step over its wall time."""
    seconds: float
    """Wall time of the step."""

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain values; a number that is not finite becomes null."""
        return {name: finite_or_none(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> StepRow:
        """Return the row of a JSON object; null becomes NaN, and unknown keys are ignored."""
        values: dict[str, Any] = {
            name: math.nan if row.get(name) is None else row[name]
            for name in cls.__dataclass_fields__
        }
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """Outcome of a training."""

    status: Literal["done", "failed"]
    reason: str | None
    """Reason of the failure; None if the training is done."""
    last_step: int
    """Optimiser steps done, warm start included."""
    checkpoints: tuple[int, ...]
    """Steps of the complete checkpoints on disk, ascending."""
    windows: tuple[tuple[int, ...], ...] | None = None
    """Windows that were read [stage][source of ``schedule.sources``] up to the last checkpoint."""
    supervised: tuple[tuple[int, ...], ...] | None = None
    """Methods on rows: tokens that the loss counted [stage][source], up to the last checkpoint."""
    cpu_seconds: float = 0.0
    """CPU time of the worker processes of this call."""
    device: str = "cpu"
    """Driver's name of the device, or ``cpu``."""


Watch = Callable[[StepRow], None]
"""Callback that receives the row of every step, in order, in the caller's process."""
