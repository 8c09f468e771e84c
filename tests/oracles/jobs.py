"""Small training jobs, for tests and benchmarks of the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.files import read_json_lines
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from ablations.training.dataloader import Feed, Share
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.train_job import StepRow, TrainJob

TINY = ModelSpec(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)


def make_job(
    directory: Path,
    stores: dict[str, Path],
    *,
    steps: int = 8,
    model: ModelSpec = TINY,
    execution: ExecutionSpec | None = None,
    checkpoint_steps: tuple[int, ...] = (),
    seed: int = 1,
    **training: Any,
) -> TrainJob:
    """A two-stage job over the stores ``web`` and ``code``."""
    values = {"sequence_length": 16, "batch_size": 8, "peak_lr": 1e-2, **training}
    spec = TrainingSpec(**values)
    half = steps // 2
    schedule = Schedule(
        stages=(
            Stage(name="stable", steps=half, mixture=Mixture({"web": 0.75, "code": 0.25})),
            Stage(name="decay", steps=steps - half, mixture=Mixture({"web": 0.25, "code": 0.75})),
        ),
        sequence_length=spec.sequence_length,
        batch_size=spec.batch_size,
    )
    directory.mkdir(parents=True, exist_ok=True)
    return TrainJob(
        directory=directory,
        model=model,
        training=spec,
        execution=execution or ExecutionSpec(device="cpu", threads=1),
        schedule=schedule,
        learning_rate=LearningRate(
            peak=spec.peak_lr, warmup_steps=2, decay_steps=steps // 2, total_steps=steps
        ),
        stores=stores,
        seed=seed,
        checkpoint_steps=checkpoint_steps or (steps,),
    )


def with_execution(job: TrainJob, **values: Any) -> TrainJob:
    """The job, executed otherwise."""
    return replace(job, execution=replace(job.execution, **values))


def steps_of(job: TrainJob) -> Iterator[np.ndarray]:
    """The tokens [batch, length + 1] of each step, straight from the feed."""
    feed = Feed(job, Share(0, 1, job.training.batch_size))
    for step in range(job.first_step, job.schedule.total_steps):
        yield feed.step(step)[0]


def rows_of(job: TrainJob) -> dict[int, StepRow]:
    """The rows of a run's metrics, by step; of a repeated step, the last."""
    rows = read_json_lines(job.directory / "metrics.jsonl")
    return {row["step"]: StepRow.from_json(row) for row in rows}


def losses_of(job: TrainJob) -> list[float]:
    """The losses of a run, in order of steps."""
    rows = rows_of(job)
    return [rows[step].loss for step in sorted(rows)]


def kinds_of(job: TrainJob) -> list[str]:
    """The kinds of a run's events, in order."""
    return [row["kind"] for row in read_json_lines(job.directory / "events.jsonl")]
