"""What a verdict is computed from: runs of candidates with their tasks, wherever they came from.

runs/<study>/  ──study.gather──▶ ┐
                                 ├ Observations ──decide──▶ Verdict
published table ─published.load─▶ ┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ablations.evaluation.score_rule import LinearForm, MetricFacts, linear_form
from sweeps.verdict.item_noise import Groups
from sweeps.verdict.training_noise import Floats, RunScores
from sweeps.verdict.transfer import Transfer

__all__ = ["Candidate", "Observations", "ObservedRun", "TaskData", "score_form"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One mixture under test."""

    name: str
    """What people call it."""
    trial: str
    """The trial's name in the run folders."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Source → weight; empty where the candidate is not a mixture."""
    breaks: str | None = None
    """The study's constraint that it breaks, and by how much; None where it keeps them all."""


@dataclass(frozen=True, kw_only=True)
class ObservedRun:
    """One scored run."""

    name: str
    """Its folder."""
    candidate: int
    seed: int
    score: float
    """As scored, in its own direction."""
    confirms: bool = False
    """Whether its seed was added after the candidate had been chosen."""


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
    """(tokens, value) of each run; empty where only final values are known."""
    items: Floats | None = None
    """Runs x items, the same items in the same order for all; None where they were not kept."""
    groups: Groups = None
    """Which items belong together (passage, subject, document); None where each stands alone."""
    published_sd: float | None = None
    """Declared training noise of one run on this metric."""

    @property
    def key(self) -> str:
        """``task/metric``."""
        return f"{self.task}/{self.metric}"


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Everything that was observed of one study."""

    study: str
    direction: Literal["maximize", "minimize"]
    score: str
    """What the score is made of, for people."""
    rule: Mapping[str, Any]
    """The score's terms, plain values of ``evaluation.score.terms``."""
    candidates: tuple[Candidate, ...]
    runs: tuple[ObservedRun, ...]
    tasks: tuple[TaskData, ...]
    form: LinearForm | None = None
    """The score as decided with the study's task quality; None = as ``rule`` makes it."""
    left_out_metrics: Mapping[str, str] = field(default_factory=dict)
    """``task/metric`` → why the study's task quality leaves it out of the score."""
    objective: str = "score"
    """Name of the declared objective that is judged."""
    question: str = ""
    """What the study asks, in its own words."""
    score_trajectories: tuple[tuple[Floats, Floats], ...] = ()
    """(tokens, score) of each run."""
    published_df: float = 9.0
    """Degrees of freedom behind the tasks' published SDs."""
    transfer: tuple[Transfer, ...] = ()
    first_baseline: str | None = None
    """The baseline that the study enqueued first."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Run folder → why it does not count."""
    caveats: tuple[str, ...] = ()

    @property
    def sign(self) -> float:
        """1 where a larger score is better, else -1."""
        return 1.0 if self.direction == "maximize" else -1.0

    def keep(self, wanted: Sequence[bool]) -> Observations:
        """Only the wanted runs, and the candidates that still have one."""
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
            score_trajectories=_rows(self.score_trajectories, rows),
        )

    def run_scores(self, value: Floats) -> RunScores:
        """``value`` of each run (higher is better) as input of the fit."""
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
