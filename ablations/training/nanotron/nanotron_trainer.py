"""NanotronTrainer: training with nanotron in worker processes."""

from __future__ import annotations

import importlib.util

from ablations.errors import ConfigError, Problem
from ablations.training.batching import training_problems
from ablations.training.checkpoints import reference
from ablations.training.resume import Start, find_start
from ablations.training.train_job import TrainJob, TrainOutcome, Watch
from ablations.training.worker_calls import tidy, train_from

__all__ = ["NanotronTrainer", "prepare"]

_WORKER = "ablations.training.nanotron.rank"


class NanotronTrainer:
    """Trainer of nanotron 0.4, on CPU (gloo) and CUDA (NCCL)."""

    def train(
        self, job: TrainJob, watch: Watch | None = None, *, in_process: bool = False
    ) -> TrainOutcome:
        """Train a job to its end or its pause, from its newest complete checkpoint if it has one.

        Args:
            job: The training.
            watch: Receives every row of ``metrics.jsonl`` while the training runs.
            in_process: Train in this process instead of workers; only for one rank, and in a process that
                ends with the run. Process groups, patched modules and another number of torch threads remain
                in it.

        Returns:
            The outcome, also if the training diverged or a worker died.

        Raises:
            ConfigError: model, training and execution do not fit together.
            CheckpointError: see :func:`find_start`.
            HeldError: a worker of this run is still training.
        """
        problems = training_problems(job.model, job.training, job.execution)
        if job.training.float8 and importlib.util.find_spec("torchao") is None:
            problems.append(
                Problem(
                    "training.float8",
                    "its products are torchao's, which is not installed",
                    do="pip install 'ablations[float8]'",
                )
            )
        if problems:
            raise ConfigError(problems)
        start = prepare(job)
        return train_from(job, start, _WORKER, watch, in_process=in_process)


def prepare(job: TrainJob) -> Start:
    """Remove what a killed worker left, rename damaged checkpoints, and return the start of the job.

    Raises:
        HeldError: a worker of this run is still alive.
        CheckpointError: see :func:`find_start`.
    """
    start = tidy(job, find_start)
    if start.kind == "warm_start" and start.checkpoint is not None:
        reference(start.checkpoint, job.directory)
    return start
