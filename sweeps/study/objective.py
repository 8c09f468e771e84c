"""Objectives of a study: the numbers that it optimises, computed in the same way by every reader.

A study declares its objectives in ``search.objectives``. The first one is the number that ``ls``,
``watch``, the dashboard, ``fit``, the report, the verdict and the promotion show. If task quality was
applied (``search.task_quality``), ``study.json`` contains the decided weights, and the study's score
is computed with them from each run's metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, unknown_name
from ablations.evaluation.score_rule import LinearForm
from sweeps.study.definition import Definition, load_definition
from sweeps.study.specs import Direction
from sweeps.study.trial import Outcome, measure

__all__ = ["SCORE", "Objective", "decided_form", "objective_of", "objectives_of", "restated"]

SCORE = "score"
"""Name of the runs' score among an objective's ``metrics``."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Objective of a study, with all that is needed to compute it for a run."""

    name: str = SCORE
    metrics: tuple[str, ...] = (SCORE,)
    """``score``, or patterns of ``task/metric``; the objective is the mean of all that match."""
    direction: Direction | None = None
    """Better direction; None = as in the results of the runs."""
    form: LinearForm | None = None
    """Score of the study after task quality; None = the score that the runs recorded."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """``task/metric`` → reason why task quality removed it from the score."""

    @property
    def is_recorded(self) -> bool:
        """Return whether the objective is the score that runs record."""
        return self.metrics == (SCORE,) and self.form is None

    def value(self, result: Mapping[str, Any]) -> float | None:
        """Return the objective of one run's result (``result.json``); None if it is missing."""
        if self.is_recorded:
            return None if (score := result.get("score")) is None else float(score)
        outcome = Outcome(
            seed=0,
            status="done",
            score=result.get("score"),
            metrics=result.get("metrics") or {},
        )
        return measure(restated(outcome, self.form), self.metrics)


def restated(outcome: Outcome, form: LinearForm | None) -> Outcome:
    """Return an outcome with the study's score in place of the recorded one."""
    return outcome if form is None else replace(outcome, score=form.value(outcome.metrics))


def decided_form(definition: Definition | None) -> LinearForm | None:
    """Return the study's score after task quality; None if task quality removed no metric."""
    decision = definition.decision if definition is not None else None
    if decision is None or not decision["left_out"]:
        return None
    return LinearForm(weights=decision["weights"], constant=float(decision["constant"]))


def objectives_of(definition: Definition | None) -> tuple[Objective, ...]:
    """Return a study's objectives in their order; the runs' score if none is declared."""
    form = decided_form(definition)
    left_out = dict((definition.decision or {}).get("left_out", {})) if definition else {}
    declared = definition.objectives if definition is not None else {}
    found = tuple(
        Objective(
            name=name,
            metrics=tuple(one.get("metrics") or (SCORE,)),
            direction=one.get("direction"),
            form=form,
            left_out=left_out,
        )
        for name, one in declared.items()
    )
    return found or (Objective(),)


def objective_of(folder: Path, name: str | None = None) -> Objective:
    """Return the objective ``name`` of the study in ``folder``; the first one if None.

    Raises:
        ConfigError: the study has no such objective.
    """
    found = objectives_of(load_definition(folder))
    if name is None:
        return found[0]
    for objective in found:
        if objective.name == name:
            return objective
    raise ConfigError(unknown_name("objective", "objective", name, [one.name for one in found]))
