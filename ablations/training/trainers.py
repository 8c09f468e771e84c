"""The trainer of a method: nanotron for texts, TRL for conversations and preferences."""

from __future__ import annotations

from typing import Protocol

from ablations.training.method import MethodSpec
from ablations.training.train_job import TrainJob, TrainOutcome, Watch

__all__ = ["Trainer", "trainer_of"]


class Trainer(Protocol):
    """Trainer of a job."""

    def train(
        self, job: TrainJob, watch: Watch | None = None, *, in_process: bool = False
    ) -> TrainOutcome:
        """Train a job to its end, from its newest complete checkpoint if it has one."""


def trainer_of(method: MethodSpec) -> Trainer:
    """Return the trainer of a method."""
    if method.of_rows:
        from ablations.training.trl.trl_trainer import TrlTrainer

        return TrlTrainer()
    from ablations.training.nanotron.nanotron_trainer import NanotronTrainer

    return NanotronTrainer()
