"""Lock of a run's one worker, and outcome of its training, for the caller and the worker.

Torch is not imported: the caller (``nanotron_trainer``) uses this before it starts a worker (``rank``).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from ablations.files import mend_lines, read_json_lines
from ablations.record.lease import only_process
from ablations.training.checkpoints import checkpoint_steps, newest, read_state
from ablations.training.train_job import TrainJob, TrainOutcome

__all__ = ["failure", "outcome_of", "training_lock"]


def training_lock(directory: Path) -> AbstractContextManager[None]:
    """Return the lock of the one worker that may write a run's checkpoints.

    Raises:
        HeldError: on entering it; see :func:`~ablations.record.lease.only_process`.
    """
    return only_process(directory, "training.lock", "a worker of this run is still training")


def outcome_of(job: TrainJob) -> TrainOutcome:
    """Return the outcome of a job whose last checkpoint is on disk."""
    last = newest(job.checkpoints_dir)
    state = read_state(last) if last else None
    return TrainOutcome(
        status="done",
        reason=None,
        last_step=int(last.name) if last else job.first_step,
        checkpoints=checkpoint_steps(job.checkpoints_dir),
        windows=state.windows if state else None,
        supervised=state.supervised if state else None,
    )


def failure(job: TrainJob, reason: str) -> TrainOutcome:
    """Return the outcome of a training that ended early; nothing on disk is lost."""
    mend_lines(job.directory / "metrics.jsonl")
    rows = read_json_lines(job.directory / "metrics.jsonl", needs="step")
    steps = [row["step"] for row in rows]
    last = steps[-1] if steps else job.first_step
    return replace(outcome_of(job), status="failed", reason=reason, last_step=last)
