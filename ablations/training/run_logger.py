"""Log of a training in its run folder: one row for each step, and events."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.files import append_json_line, mend_lines, read_json_lines
from ablations.training.train_job import StepRow, TrainJob

if TYPE_CHECKING:
    from ablations.training.async_metrics import Reading

__all__ = ["Logbook", "row_of"]


def row_of(job: TrainJob, reading: Reading) -> StepRow:
    """Return the row of a step."""
    tokens = job.training.tokens_per_step
    return StepRow(
        step=reading.step,
        tokens=reading.step * tokens,
        loss=reading.loss,
        lr=job.learning_rate.at(reading.step - 1),
        grad_norm=reading.grad_norm,
        tokens_per_second=tokens / reading.seconds,
        seconds=reading.seconds,
    )


class Logbook:
    """Writer of ``metrics.jsonl`` and ``events.jsonl``; each row is written as soon as it is added."""

    def __init__(self, directory: Path) -> None:
        self.metrics = directory / "metrics.jsonl"
        self.events = directory / "events.jsonl"
        mend_lines(self.metrics)
        mend_lines(self.events)

    def row(self, row: StepRow) -> None:
        """Append the row of one step."""
        append_json_line(self.metrics, row.to_json(), seal=True)

    def event(self, kind: str, *, step: int, **details: Any) -> None:
        """Append one event."""
        row = {"time": time.time(), "step": step, "kind": kind, **details}
        append_json_line(self.events, row, seal=True)

    def losses(self, *, before: int, last: int) -> list[float]:
        """Return the losses of the ``last`` steps up to step ``before``; of a repeated step, the latest."""
        rows = {
            row["step"]: StepRow.from_json(row).loss
            for row in read_json_lines(self.metrics, needs="step")
            if before - last < row["step"] <= before
        }
        return [rows[step] for step in sorted(rows)]
