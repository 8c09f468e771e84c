"""NanotronTrainer: the Trainer interface over nanotron, in worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ablations.errors import AblationError, TrainingError
from ablations.files import mend_lines
from ablations.training.batching import training_problems
from ablations.training.checkpoints import reference, remove_torn, set_damaged_aside
from ablations.training.nanotron.outcome import failure, outcome_of, training_lock
from ablations.training.resume import Start, find_start
from ablations.training.run_logger import Logbook
from ablations.training.train_job import StepRow, TrainJob, TrainOutcome, Watch
from ablations.training.training_process import Task, run_in_worker

__all__ = ["NanotronTrainer", "prepare"]

_WORKER = "ablations.training.nanotron.rank"


@dataclass(frozen=True)
class NanotronTrainer:
    """Trains with nanotron 0.4, on CPU (gloo) and CUDA (NCCL)."""

    def train(self, job: TrainJob, watch: Watch | None = None) -> TrainOutcome:
        """See :class:`ablations.training.train_job.Trainer`."""
        _require_fit(job)
        start = prepare(job)
        if start.step >= job.schedule.total_steps:
            return outcome_of(job)
        tail = _Tail(job.directory / "metrics.jsonl", watch)
        task = Task(
            module=_WORKER,
            function="train_rank",
            argument=(job, start),
            ranks=job.execution.ranks,
            log=job.directory / "worker.log",
        )
        result = run_in_worker(task, tail.read)
        if result.error is None and result.died is None:
            return result.value  # type: ignore[no-any-return]
        return failure(job, result.died or _reason(result.error, task.log))

    def train_here(self, job: TrainJob, watch: Watch | None = None) -> TrainOutcome:
        """As :meth:`train` for one rank, in this process, which must be a disposable one.

        It is left with process groups, patched modules and another number of torch threads.
        """
        from ablations.training.nanotron.rank import train_rank

        _require_fit(job)
        start = prepare(job)
        if start.step >= job.schedule.total_steps:
            return outcome_of(job)
        tail = _Tail(job.directory / "metrics.jsonl", watch)
        try:
            return train_rank((job, start))
        except TrainingError as error:
            return failure(job, error.reason)
        finally:
            tail.read()


def _require_fit(job: TrainJob) -> None:
    from ablations.errors import ConfigError

    if problems := training_problems(job.model, job.training, job.execution):
        raise ConfigError(problems)


def prepare(job: TrainJob) -> Start:
    """Clear up what a killed worker left, move damaged checkpoints aside, and find where to begin.

    Raises:
        HeldError: a worker of this run is still alive.
        CheckpointError: see :func:`find_start`.
    """
    job.checkpoints_dir.mkdir(parents=True, exist_ok=True)
    with training_lock(job.directory):
        remove_torn(job.checkpoints_dir)
        for name in ("metrics.jsonl", "events.jsonl"):
            mend_lines(job.directory / name)
        for step, what in set_damaged_aside(job.checkpoints_dir).items():
            Logbook(job.directory).event("damaged", step=step, reason=what)
        start = find_start(job)
    if start.kind == "warm_start" and start.checkpoint is not None:
        reference(start.checkpoint, job.directory)
    return start


def _reason(error: BaseException | None, log: Path) -> str:
    """Why a worker failed; what the user has to put right is raised instead."""
    if isinstance(error, TrainingError):
        return error.reason
    if isinstance(error, AblationError):
        raise error
    return f"{type(error).__name__}: {error}; {log} has the traceback"


class _Tail:
    """Hands the rows that a worker appends to a watcher in this process."""

    def __init__(self, file: Path, watch: Watch | None) -> None:
        self._file, self._watch = file, watch
        self._offset = file.stat().st_size if file.exists() else 0

    def read(self) -> None:
        """Show the watcher every whole row that is new."""
        import json

        if self._watch is None or not self._file.exists():
            return
        with self._file.open("rb") as stream:
            stream.seek(self._offset)
            block = stream.read()
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._watch(StepRow.from_json(json.loads(line)))
