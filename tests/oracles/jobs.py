"""Small training jobs, for tests and benchmarks of the trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.trainer import TrainJob

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
