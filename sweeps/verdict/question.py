"""Question of a study: its baseline, the objective that is compared, and its constraints.

It is read from ``study.json``. A folder of plain runs has none and is compared by the runs' own score.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.study.definition import load_definition
from sweeps.study.objective import SCORE, Objective, objective_of
from sweeps.study.specs import loss_sign

__all__ = ["Question", "broken", "question_of"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """Baseline, objective and constraints that a verdict compares candidates by."""

    baseline: str | None = None
    """Name of the trial that the study compares with."""
    objective: Objective = field(default_factory=Objective)
    """Declared objective that the candidates are compared by."""
    constraints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Constraint → metrics, direction, and a bound or a margin to the baseline."""
    text: str = ""
    """``search.question`` as the study declares it."""

    def value(self, result: Mapping[str, Any]) -> float | None:
        """Return the objective of one run's result; None if it is missing."""
        return self.objective.value(result)

    def terms(
        self, rule: Mapping[str, Any], keys: Sequence[str], direction: str
    ) -> dict[str, dict[str, Any]]:
        """Return the objective as terms over ``task/metric`` keys, in the form of a score's terms."""
        if self.objective.metrics == (SCORE,):
            return {name: dict(term) for name, term in rule.items()}
        times = {
            key: sum(fnmatch.fnmatchcase(key, pattern) for pattern in self.objective.metrics)
            for key in keys
        }
        return {
            key: {"metrics": key, "direction": direction, "weight": float(count)}
            for key, count in times.items()
            if count
        }


def question_of(folder: Path, objective: str | None = None) -> Question:
    """Return the question of the study in ``folder``; ``objective`` chooses among several.

    Raises:
        ConfigError: the study has no such objective.
    """
    definition = load_definition(folder)
    if definition is None:
        return Question(objective=objective_of(folder, objective))
    return Question(
        baseline=definition.strategy.get("baseline"),
        objective=objective_of(folder, objective),
        constraints=definition.constraints,
        text=definition.question,
    )


def broken(
    question: Question, results: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str | None
) -> dict[str, str]:
    """Return candidate → the constraint that it breaks, from the means over its runs.

    A constraint that cannot be measured (a metric or the baseline is missing) counts as met.
    """
    found: dict[str, str] = {}
    for name, constraint in question.constraints.items():
        measured = replace(question.objective, metrics=tuple(constraint["metrics"]))
        sign = loss_sign(constraint.get("direction", "minimize"))
        means = {candidate: _mean(measured, runs) for candidate, runs in results.items()}
        bound = constraint.get("bound")
        if constraint.get("margin") is not None:
            reference = means.get(baseline) if baseline else None
            bound = None if reference is None else reference + sign * float(constraint["margin"])
        if bound is None:
            continue
        for candidate, mean in means.items():
            if candidate != baseline and mean is not None and sign * (mean - bound) > 0.0:
                found.setdefault(candidate, f"breaks {name}: {mean:.4g}, allowed {bound:.4g}")
    return found


def _mean(objective: Objective, runs: Sequence[Mapping[str, Any]]) -> float | None:
    values = [objective.value(result) for result in runs]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
