"""Steps of every trainer in the caller's process: tidy the run, begin a worker, pass on its rows.

A trainer's worker module has ``train_rank((job, start))``, which returns a :class:`TrainOutcome`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

from ablations.errors import AblationError, HostLostError, TrainingError
from ablations.files import LineTail, mend_lines
from ablations.training.checkpoints import remove_torn, set_damaged_aside
from ablations.training.hosts import hosts_of
from ablations.training.nanotron.outcome import failure, outcome_of, training_lock
from ablations.training.resume import Start
from ablations.training.run_logger import Logbook
from ablations.training.train_job import StepRow, TrainJob, TrainOutcome, Watch
from ablations.training.training_process import Task, run_in_worker

__all__ = ["tidy", "train_from"]


def tidy(job: TrainJob, find: Callable[[TrainJob], Start]) -> Start:
    """Remove what a killed worker left, rename damaged checkpoints, and return the start of the job.

    Raises:
        HeldError: a worker of this run is still alive.
        CheckpointError: what ``find`` raises.
    """
    job.checkpoints_dir.mkdir(parents=True, exist_ok=True)
    with training_lock(job.directory):
        remove_torn(job.checkpoints_dir)
        for name in ("metrics.jsonl", "events.jsonl"):
            mend_lines(job.directory / name)
        for step, reason in set_damaged_aside(job.checkpoints_dir).items():
            Logbook(job.directory).event("damaged", step=step, reason=reason)
        return find(job)


def train_from(
    job: TrainJob, start: Start, worker: str, watch: Watch | None, *, in_process: bool
) -> TrainOutcome:
    """Train a job from its start to its end, in worker processes or in this one.

    Args:
        job: The training.
        start: What :func:`tidy` returned.
        worker: Module whose ``train_rank`` trains.
        watch: Receives every row of ``metrics.jsonl`` while the training runs.
        in_process: Train in this process, which must end with the run.

    Returns:
        The outcome, also if the training diverged or a worker died.

    Raises:
        HostLostError: a training on several hosts lost one of them, or could not meet it.
    """
    if start.step >= job.end_step:
        return outcome_of(job)
    report = _reporter(job.directory / "metrics.jsonl", watch)
    train = _train_in_process if in_process else _train_in_workers
    return train(job, start, worker, report)


def _train_in_process(
    job: TrainJob, start: Start, worker: str, report: Callable[[], None]
) -> TrainOutcome:
    try:
        outcome: TrainOutcome = importlib.import_module(worker).train_rank((job, start))
    except TrainingError as error:
        return failure(job, error.reason)
    finally:
        report()
    return outcome


def _train_in_workers(
    job: TrainJob, start: Start, worker: str, report: Callable[[], None]
) -> TrainOutcome:
    task = Task(
        module=worker,
        function="train_rank",
        argument=(job, start),
        ranks=job.execution.ranks,
        hosts=hosts_of(job.execution),
        log=job.directory / "worker.log",
    )
    result = run_in_worker(task, report)
    if result.error is None and result.died is None:
        return result.value  # type: ignore[no-any-return]
    if task.hosts is not None and result.died is not None:
        ended = failure(job, result.died)
        goes_on = "the same command on every host goes on from the newest checkpoint"
        raise HostLostError(f"a host was lost: {result.died}; {goes_on}", step=ended.last_step)
    return failure(job, result.died or _reason(result.error, task.log))


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
