"""A rank's worker that kills itself at a moment that a test chooses: no clock, no race."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from ablations.training.nanotron import engine, rank
from ablations.training.resume import Start
from ablations.training.run_logger import Logbook
from ablations.training.train_job import StepRow, TrainJob, TrainOutcome

__all__ = ["MOMENT", "train_rank"]

MOMENT = "die_at.json"
"""In the run folder: [moment, step]; the moments are row and save."""


def train_rank(argument: tuple[TrainJob, Start]) -> TrainOutcome:
    """Train as the trainer's own worker does, up to the moment."""
    moment, step = json.loads((argument[0].directory / MOMENT).read_text())
    row, write_state = Logbook.row, engine.write_state

    def row_and_die(self: Logbook, of: StepRow) -> None:
        row(self, of)
        if moment == "row" and of.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def die_instead(checkpoint: Any, state: Any) -> None:
        if moment == "save" and state.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        write_state(checkpoint, state)

    Logbook.row = row_and_die  # type: ignore[method-assign]
    engine.write_state = die_instead  # type: ignore[assignment]
    return rank.train_rank(argument)
