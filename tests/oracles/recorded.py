"""Trainings whose passes run over static buffers, as under a CUDA graph, where there is no CUDA."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.training.start import Start
from ablations.training.trainer import TrainJob, TrainOutcome


def train_rank(argument: tuple[TrainJob, Start]) -> TrainOutcome:
    """A worker's task: nanotron's one rank."""
    from ablations.training.nanotron import rank, steps

    steps.why_no_graph = lambda *_: None  # type: ignore[attr-defined]
    return rank.train_rank(argument)


def train_group(argument: tuple[Sequence[TrainJob], Sequence[Start]]) -> list[TrainOutcome]:
    """A worker's task: a group."""
    from ablations.training.together import group

    group.why_no_graph = lambda *_: None  # type: ignore[attr-defined]
    return group.train_group(argument)
