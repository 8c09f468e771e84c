"""What a study was asked: its baseline, the objective that is judged, and its constraints.

Read from ``study.json``; a folder of plain runs has none, and is judged on the runs' own score.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ablations.errors import ConfigError, unknown_name
from sweeps.study.definition import load_definition
from sweeps.study.trial import Outcome, measure

__all__ = ["Question", "broken", "question_of"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is judged."""

    baseline: str | None = None
    """Name of the trial that the study compares with."""
    metrics: tuple[str, ...] = ("score",)
    """``score``, or patterns of ``task/metric`` whose mean is judged."""
    direction: Literal["maximize", "minimize"] | None = None
    """Which way is better; None = as the runs say of their score."""
    constraints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Constraint → metrics, direction, and a bound or a margin to the baseline."""

    def value(self, result: Mapping[str, Any]) -> float | None:
        """What is judged, of one run's result; None where it is missing."""
        return _measured(result, self.metrics)

    def terms(
        self, rule: Mapping[str, Any], keys: Sequence[str], direction: str
    ) -> dict[str, dict[str, Any]]:
        """The rule that makes it from ``task/metric`` keys, in the form of a score's terms."""
        if self.metrics == ("score",):
            return {name: dict(term) for name, term in rule.items()}
        return {
            key: {"metrics": key, "direction": direction}
            for key in keys
            if any(fnmatch.fnmatchcase(key, pattern) for pattern in self.metrics)
        }


def question_of(folder: Path, objective: str | None = None) -> Question:
    """The question of the study in ``folder``; ``objective`` chooses among several.

    Raises:
        ConfigError: the study has no such objective.
    """
    definition = load_definition(folder)
    objectives = definition.objectives if definition is not None else {}
    if objective is not None and objective not in objectives:
        raise ConfigError(unknown_name("objective", "objective", objective, objectives or ["none"]))
    if definition is None:
        return Question()
    chosen = objectives[objective or next(iter(objectives))] if objectives else {}
    return Question(
        baseline=definition.strategy.get("baseline"),
        metrics=tuple(chosen.get("metrics") or ("score",)),
        direction=chosen.get("direction"),
        constraints=definition.constraints,
    )


def broken(
    question: Question, results: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str | None
) -> dict[str, str]:
    """Candidate → the constraint that it breaks, from the means over its runs.

    A constraint that cannot be measured (a metric or the baseline is missing) is broken by nobody.
    """
    found: dict[str, str] = {}
    for name, constraint in question.constraints.items():
        metrics = tuple(constraint["metrics"])
        sign = 1.0 if constraint.get("direction", "minimize") == "minimize" else -1.0
        means = {candidate: _mean(runs, metrics) for candidate, runs in results.items()}
        bound = constraint.get("bound")
        if constraint.get("margin") is not None:
            theirs = means.get(baseline) if baseline else None
            bound = None if theirs is None else theirs + sign * float(constraint["margin"])
        if bound is None:
            continue
        for candidate, mean in means.items():
            if candidate != baseline and mean is not None and sign * (mean - bound) > 0.0:
                found.setdefault(candidate, f"breaks {name}: {mean:.4g}, allowed {bound:.4g}")
    return found


def _measured(result: Mapping[str, Any], metrics: Sequence[str]) -> float | None:
    outcome = Outcome(
        seed=0,
        status="done",
        score=result.get("score"),
        metrics=result.get("metrics") or {},
    )
    return measure(outcome, metrics)


def _mean(runs: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> float | None:
    values = [_measured(result, metrics) for result in runs]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
