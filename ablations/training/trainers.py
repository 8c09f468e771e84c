"""The trainer of a method: nanotron for texts, and for rows the Trainer of transformers or TRL."""

from __future__ import annotations

from typing import Protocol

from ablations.training.method import MethodKind, MethodSpec
from ablations.training.train_job import TrainJob, TrainOutcome, Watch

__all__ = ["Trainer", "trainer_of"]

_WORKERS: dict[MethodKind, str] = {
    "sft": "ablations.training.trl.rank",
    "dpo": "ablations.training.trl.rank",
    "vlm": "ablations.training.vlm.rank",
}
"""Method on rows → module of a rank's work."""


class Trainer(Protocol):
    """Trainer of a job."""

    def train(
        self, job: TrainJob, watch: Watch | None = None, *, in_process: bool = False
    ) -> TrainOutcome:
        """Train a job to its end, from its newest complete checkpoint if it has one."""


def trainer_of(method: MethodSpec) -> Trainer:
    """Return the trainer of a method."""
    if method.of_rows:
        from ablations.training.rows.row_trainer import RowTrainer

        return RowTrainer(_WORKERS[method.kind])
    from ablations.training.nanotron.nanotron_trainer import NanotronTrainer

    return NanotronTrainer()
