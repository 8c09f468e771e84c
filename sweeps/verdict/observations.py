"""What a verdict is computed from: runs of candidates with their tasks, wherever they came from.

runs/<study>/  ──study.gather──▶ ┐
                                 ├ Observations ──decide──▶ Verdict
published table ─published.load─▶ ┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np

from sweeps.verdict.noise import Floats, RunScores
from sweeps.verdict.transfer import Transfer

__all__ = ["Candidate", "Observations", "ObservedRun", "TaskData", "score_weights", "weighted"]


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


def score_weights(
    rule: Mapping[str, Any], direction: str, tasks: Sequence[TaskData]
) -> tuple[dict[str, float], float]:
    """What one unit of each ``task/metric`` is worth in the score, and the score's constant.

    The score is the weighted mean of its terms, and a term the mean of the metrics that it matches,
    so it is linear: score = constant + sum of weight x metric.

    Args:
        rule: The terms of the score rule, plain values.
        direction: ``maximize`` or ``minimize``.
        tasks: The metrics that count; a term that matches none of them falls away.
    """
    weights: dict[str, float] = {}
    constant, total = 0.0, 0.0
    for term in rule.values():
        matched = [task for task in tasks if fnmatchcase(task.key, term["metrics"])]
        if not matched:
            continue
        worth = float(term.get("weight", 1.0))
        total += worth
        for task in matched:
            own = term.get("direction") or ("maximize" if task.higher_is_better else "minimize")
            chance = (task.chance or 0.0) if term.get("rescale") else 0.0
            weight = (worth if own == direction else -worth) / len(matched) / (1.0 - chance)
            weights[task.key] = weights.get(task.key, 0.0) + weight
            constant -= weight * chance
    if total == 0.0:
        return {}, 0.0
    return {key: weight / total for key, weight in weights.items()}, constant / total


def weighted(tasks: Sequence[TaskData], weights: Mapping[str, float]) -> Floats:
    """Sum of weight x metric of each run; NaN where a metric that counts is missing."""
    parts = [weights[task.key] * task.values for task in tasks if task.key in weights]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


def _task_rows(task: TaskData, rows: Sequence[int]) -> TaskData:
    return replace(
        task,
        values=task.values[list(rows)],
        trajectories=_rows(task.trajectories, rows),
        items=None if task.items is None else task.items[list(rows)],
    )


def _rows(values: tuple[Any, ...], rows: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[i] for i in rows) if values else ()
