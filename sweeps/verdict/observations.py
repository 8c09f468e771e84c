"""Input of a verdict: runs of candidates with their tasks, from a study or from a published table.

runs/<study>/   ──gather──────────▶ ┐
                                    ├ Observations ──decide──▶ Verdict
published table ──published_table─▶ ┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ablations.evaluation.score_rule import LinearForm, MetricFacts, linear_form
from sweeps.study.specs import Direction, loss_sign
from sweeps.verdict.item_noise import Groups
from sweeps.verdict.training_noise import Floats, RunScores
from sweeps.verdict.transfer import Transfer

__all__ = ["Candidate", "Observations", "ObservedRun", "PictureGain", "TaskData", "score_form"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One mixture under test."""

    name: str
    """Name for people, unique within the study."""
    trial: str
    """Name of the trial in the run folders."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Source → weight; empty if the candidate is not a mixture."""
    breaks: str | None = None
    """Constraint of the study that it breaks, and by how much; None if it meets them all."""


@dataclass(frozen=True, kw_only=True)
class ObservedRun:
    """One scored run."""

    name: str
    """Name of its folder."""
    candidate: int
    """Position of its candidate in :attr:`Observations.candidates`."""
    seed: int
    score: float
    """Score as recorded, in its own direction."""
    confirms: bool = False
    """True if its seed was added after the candidate had been chosen."""


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """One metric of one task over all runs."""

    task: str
    metric: str
    higher_is_better: bool
    chance: float | None
    values: Floats
    """Final value of each run; NaN = missing."""
    trajectories: tuple[tuple[Floats, Floats], ...] = ()
    """(tokens, value) of each run; empty if only final values are known."""
    items: Floats | None = None
    """Runs x items, the same items in the same order for all; None if they were not kept."""
    groups: Groups = None
    """Group of each item (passage, subject, document); None if each item is a group of its own."""
    published_sd: float | None = None
    """Declared training noise of one run on this metric."""

    @property
    def key(self) -> str:
        """``task/metric``."""
        return f"{self.task}/{self.metric}"

    @property
    def sign(self) -> float:
        """Factor that turns the metric so that higher is better."""
        return 1.0 if self.higher_is_better else -1.0


@dataclass(frozen=True, kw_only=True)
class PictureGain:
    """Gain or shuffled gain of one task about pictures over all runs, with its noise over items."""

    data: TaskData
    errors: Floats
    """Standard error of each run's value over its items, those of one picture as one; NaN = unknown."""
    draws: Floats
    """Pictures, or items, behind each standard error; NaN = unknown."""


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Runs of one study, with their candidates and tasks."""

    study: str
    direction: Direction
    score: str
    """Formula of the score, for people."""
    rule: Mapping[str, Any]
    """Terms of the score, plain values of ``evaluation.score.terms``."""
    candidates: tuple[Candidate, ...]
    runs: tuple[ObservedRun, ...]
    tasks: tuple[TaskData, ...]
    form: LinearForm | None = None
    """Score as decided with the study's task quality; None = as ``rule`` defines it."""
    left_out_metrics: Mapping[str, str] = field(default_factory=dict)
    """``task/metric`` → reason for which the study's task quality leaves it out of the score."""
    objective: str = "score"
    """Name of the declared objective that the candidates are compared by."""
    question: str = ""
    """Question of the study as ``search.question`` states it."""
    score_trajectories: tuple[tuple[Floats, Floats], ...] = ()
    """(tokens, score) of each run."""
    published_df: float = 9.0
    """Degrees of freedom behind the tasks' published SDs."""
    transfer: tuple[Transfer, ...] = ()
    first_baseline: str | None = None
    """Name of the baseline that the study enqueued first."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Run folder → reason for which it does not count."""
    pictures: tuple[PictureGain, ...] = ()
    """Gain and shuffled gain of each task about pictures; empty in a study without any."""
    caveats: tuple[str, ...] = ()

    @property
    def sign(self) -> float:
        """Factor that turns the score so that higher is better."""
        return -loss_sign(self.direction)

    def keep(self, wanted: Sequence[bool]) -> Observations:
        """Return the observations of the wanted runs and of the candidates that still have one."""
        if all(wanted) and len({run.candidate for run in self.runs}) == len(self.candidates):
            return self
        rows = [i for i, keep in enumerate(wanted) if keep]
        old = sorted({self.runs[i].candidate for i in rows})
        position = {k: new for new, k in enumerate(old)}
        return replace(
            self,
            candidates=tuple(self.candidates[k] for k in old),
            runs=tuple(
                replace(self.runs[i], candidate=position[self.runs[i].candidate]) for i in rows
            ),
            tasks=tuple(_task_rows(task, rows) for task in self.tasks),
            pictures=tuple(
                PictureGain(
                    data=_task_rows(one.data, rows), errors=one.errors[rows], draws=one.draws[rows]
                )
                for one in self.pictures
            ),
            score_trajectories=_rows(self.score_trajectories, rows),
        )

    def run_scores(self, value: Floats) -> RunScores:
        """Return ``value`` of each run (higher is better) as input of the fit."""
        return RunScores(
            candidates=[candidate.name for candidate in self.candidates],
            candidate=[run.candidate for run in self.runs],
            seed=[run.seed for run in self.runs],
            value=value,
        )


def score_form(rule: Mapping[str, Any], direction: str, tasks: Sequence[TaskData]) -> LinearForm:
    """Return the score as a linear form of the metrics, from the terms of its rule."""
    facts = {task.key: MetricFacts(task.higher_is_better, task.chance) for task in tasks}
    return linear_form(rule, direction, facts)


def _task_rows(task: TaskData, rows: Sequence[int]) -> TaskData:
    return replace(
        task,
        values=task.values[list(rows)],
        trajectories=_rows(task.trajectories, rows),
        items=None if task.items is None else task.items[list(rows)],
    )


def _rows(values: tuple[Any, ...], rows: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[i] for i in rows) if values else ()
