"""A rank's worker whose files cannot grow beyond a size, as on a full disk."""

from __future__ import annotations

import resource

from ablations.training.nanotron import rank
from ablations.training.resume import Start
from ablations.training.train_job import TrainJob, TrainOutcome

__all__ = ["train_rank"]

_LARGEST = 40_000
"""Bytes: more than each tensor of the tiny model's weights, less than its optimiser."""


def train_rank(argument: tuple[TrainJob, Start]) -> TrainOutcome:
    """Train as the trainer's own worker does; a larger file ends with an error of the system."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST, _LARGEST))
    return rank.train_rank(argument)
