"""NanotronTrainer: training with nanotron in worker processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ablations.errors import AblationError, ConfigError, TrainingError
from ablations.files import LineTail, mend_lines
from ablations.training.batching import training_problems
from ablations.training.checkpoints import reference, remove_torn, set_damaged_aside
from ablations.training.nanotron.outcome import failure, outcome_of, training_lock
from ablations.training.resume import Start, find_start
from ablations.training.run_logger import Logbook
from ablations.training.train_job import StepRow, TrainJob, TrainOutcome, Watch
from ablations.training.training_process import Task, run_in_worker

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
        if problems := training_problems(job.model, job.training, job.execution):
            raise ConfigError(problems)
        start = prepare(job)
        if start.step >= job.end_step:
            return outcome_of(job)
        report = _reporter(job.directory / "metrics.jsonl", watch)
        return (_train_in_process if in_process else _train_in_workers)(job, start, report)


def _train_in_process(job: TrainJob, start: Start, report: Callable[[], None]) -> TrainOutcome:
    from ablations.training.nanotron.rank import train_rank

    try:
        return train_rank((job, start))
    except TrainingError as error:
        return failure(job, error.reason)
    finally:
        report()


def _train_in_workers(job: TrainJob, start: Start, report: Callable[[], None]) -> TrainOutcome:
    task = Task(
        module=_WORKER,
        function="train_rank",
        argument=(job, start),
        ranks=job.execution.ranks,
        log=job.directory / "worker.log",
    )
    result = run_in_worker(task, report)
    if result.error is None and result.died is None:
        return result.value  # type: ignore[no-any-return]
    return failure(job, result.died or _reason(result.error, task.log))


def prepare(job: TrainJob) -> Start:
    """Remove what a killed worker left, rename damaged checkpoints, and return the start of the job.

    Raises:
        HeldError: a worker of this run is still alive.
        CheckpointError: see :func:`find_start`.
    """
    job.checkpoints_dir.mkdir(parents=True, exist_ok=True)
    with training_lock(job.directory):
        remove_torn(job.checkpoints_dir)
        for name in ("metrics.jsonl", "events.jsonl"):
            mend_lines(job.directory / name)
        for step, reason in set_damaged_aside(job.checkpoints_dir).items():
            Logbook(job.directory).event("damaged", step=step, reason=reason)
        start = find_start(job)
    if start.kind == "warm_start" and start.checkpoint is not None:
        reference(start.checkpoint, job.directory)
    return start


def _reason(error: BaseException | None, log: Path) -> str:
    """Return the reason of a worker's failure; an error that the user has to correct is raised instead."""
    if isinstance(error, TrainingError):
        return error.reason
    if isinstance(error, AblationError):
        raise error
    return f"{type(error).__name__}: {error}; {log} has the traceback"


def _reporter(file: Path, watch: Watch | None) -> Callable[[], None]:
    """Return a function that passes the rows which a worker has added since its last call to ``watch``."""
    tail = LineTail(file, file.stat().st_size if file.exists() else 0)

    def report() -> None:
        if watch is not None:
            for line in tail.read():
                watch(StepRow.from_json(json.loads(line)))

    return report
