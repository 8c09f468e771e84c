"""RowTrainer: training on rows in worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ablations.errors import CheckpointError, ConfigError, Problem
from ablations.training.batching import training_problems
from ablations.training.checkpoints import Topology, newest, read_state
from ablations.training.resume import Start
from ablations.training.train_job import TrainJob, TrainOutcome, Watch
from ablations.training.worker_calls import tidy, train_from

__all__ = ["RowTrainer", "execution_problems", "find_row_start"]


@dataclass(frozen=True)
class RowTrainer:
    """Trainer of rows, on CPU and CUDA; ranks are data-parallel."""

    worker: str
    """Module of a rank's work."""

    def train(
        self, job: TrainJob, watch: Watch | None = None, *, in_process: bool = False
    ) -> TrainOutcome:
        """Train a job to its end, from its newest complete checkpoint if it has one.

        Args:
            job: The training; it names a model to start from.
            watch: Receives every row of ``metrics.jsonl`` while the training runs.
            in_process: Train in this process instead of workers; only for one rank, and in a process that
                ends with the run.

        Returns:
            The outcome, also if the training diverged or a worker died.

        Raises:
            ConfigError: model, training and execution do not fit together.
            CheckpointError: the checkpoint to resume from is of another topology.
            HeldError: a worker of this run is still training.
        """
        problems = training_problems(job.model, job.training, job.execution)
        if problems := [*problems, *execution_problems(job)]:
            raise ConfigError(problems)
        return train_from(job, tidy(job, find_row_start), self.worker, watch, in_process=in_process)


def execution_problems(job: TrainJob) -> Iterator[Problem]:
    """Yield what a job asks that no training on rows can do."""
    if job.start_model is None:
        yield Problem(
            "warm_start.checkpoint",
            f"method={job.method.kind} begins from a trained model",
            do="name a checkpoint, a transformers folder, or a model of the hub",
        )
    for name in ("tp", "pp"):
        if getattr(job.execution, name) > 1:
            yield Problem(
                f"execution.{name}",
                "a training on rows divides the batch alone over ranks",
                found=getattr(job.execution, name),
                allowed="1",
                do="raise execution.dp instead",
            )
    if job.training.float8:
        yield Problem("training.float8", "is for method=pretrain", do="set training.float8=false")
    for name, off in (("zero_stage", "0"), ("compile", "false")):
        if getattr(job.execution, name):
            yield Problem(
                f"execution.{name}",
                "is for method=pretrain",
                found=getattr(job.execution, name),
                do=f"set execution.{name}={off}",
            )


def find_row_start(job: TrainJob) -> Start:
    """Return the start of a job: its newest checkpoint, or the model that it begins from.

    Raises:
        CheckpointError: the checkpoint was written with another type of weights.
    """
    own = newest(job.checkpoints_dir)
    state = read_state(own) if own is not None else None
    if own is None or state is None:
        return Start(kind="start", step=0)
    asked = Topology.of(job.execution, job.training.dtype)
    if asked.dtype != state.topology.dtype:
        raise CheckpointError(
            Problem(
                "training.dtype",
                f"the checkpoint {own} has another type",
                found=asked.dtype,
                allowed=state.topology.dtype,
            )
        )
    return Start(
        kind="resume",
        step=state.step,
        checkpoint=own,
        load_optimizer=True,
        threads=state.threads,
        windows=state.windows,
        supervised=state.supervised,
    )
