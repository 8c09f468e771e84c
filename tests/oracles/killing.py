"""Trainings that are killed at a step."""

from __future__ import annotations

from ablations.training.train_job import StepRow, TrainJob
from ablations.training.trainers import trainer_of

__all__ = ["killed_after"]


class Killed(Exception):  # noqa: N818 - a signal of the test, not an error
    """The caller's end, which kills its worker."""


def killed_after(job: TrainJob, step: int) -> bool:
    """Train until the row of a step was written, and kill the worker there, or while it goes on."""

    def kill(row: StepRow) -> None:
        if row.step >= step:
            raise Killed

    try:
        trainer_of(job.method).train(job, kill)
    except Killed:
        return True
    return False
