"""The surrogate as a proposer: from a study's trials to evidence, from evidence to points.

A score is a weighted mean of metrics, and each metric has a law of its own: the surrogate is fitted
to the metrics, and the score's rule weighs its predictions. Where the rule does not give back the
scores that runs recorded (a rescaled term, a rule of another application), the score itself is the
one metric.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sweeps.search.proposals import Evidence, Limit, pick, propose, trust_pick
from sweeps.search.space import Floats, Point, SearchSpace
from sweeps.study.confirm import Pick, Recommendation
from sweeps.study.specs import ConstraintSpec, ObjectiveSpec
from sweeps.study.strategy import History, Propose
from sweeps.study.trial import Trial, measure

if TYPE_CHECKING:
    from ablations.evaluation.score_rule import LinearForm

__all__ = ["evidence_of", "surrogate_pick", "surrogate_proposer"]

_SCORE = "score"
_SAME_SCORE = 1e-6
"""Largest gap between a recorded score and the one its metrics give that is put down to rounding."""


def surrogate_proposer(space: SearchSpace, seed: int, rule: Mapping[str, Any]) -> Propose:
    """Batches from the surrogate that cross-validation prefers."""

    def proposer(history: History, count: int) -> list[Point]:
        return propose(space, evidence_of(space, history, rule), count, seed=seed)

    return proposer


def surrogate_pick(
    space: SearchSpace, seed: int, rule: Mapping[str, Any], *, judged: bool = True
) -> Pick:
    """The optimum of the preferred surrogate; None with several objectives or too few trials.

    Its notes say under ``evidence`` how far it may be trusted, unless ``judged`` is false.
    """

    def recommend(history: History) -> Recommendation | None:
        if len(history.objectives) > 1 or len(history.done) < max(5, len(space.unit_names) + 2):
            return None
        known = evidence_of(space, history, rule)
        chosen = pick(space, known, seed=seed)
        notes: dict[str, Any] = {
            "loss": _finite(chosen.loss),
            "low": _finite(chosen.low),
            "high": _finite(chosen.high),
            "surrogate": chosen.surrogate,
            "errors": {name: _finite(error) for name, error in chosen.errors.items()},
        }
        if judged:
            standing = history.baseline_trial
            baseline = None if standing is None else standing.spec.point
            trust = trust_pick(space, known, chosen, seed=seed, baseline=baseline)
            notes["evidence"] = trust.plain()
        return Recommendation(point=chosen.point, notes=notes)

    return recommend


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def evidence_of(space: SearchSpace, history: History, rule: Mapping[str, Any]) -> Evidence:
    """What the trials say: metrics, what each weighs in each objective, and measured limits.

    Args:
        space: The search space.
        history: The trials.
        rule: The score rule of the runs' config, plain; empty where there is none.
    """
    done = history.done
    columns = _Columns()
    rows = [
        {
            name: sign * weight
            for name, weight in _weights(objective, done, rule, history.form).items()
        }
        for objective in history.objectives.values()
        for sign in (-1.0 if objective.direction == "maximize" else 1.0,)
    ]
    bounds = [
        found
        for constraint in history.constraints.values()
        if (found := _limit(constraint, done, history.baseline_trial)) is not None
    ]
    for row in [*rows, *(weights for weights, _ in bounds)]:
        columns.add(row)
    return Evidence.of(
        space,
        [trial.spec.point for trial in done],
        columns.values(done),
        objectives=np.array([columns.vector(row) for row in rows]),
        pending=[t.spec.point for t in history.searched if t.state == "running"],
        limits=[Limit(weights=columns.vector(row), bound=bound) for row, bound in bounds],
    )


@dataclass
class _Columns:
    """The metrics that any objective or limit is made of, in order."""

    names: list[str] = field(default_factory=list)

    def add(self, weights: Mapping[str, float]) -> None:
        self.names += [name for name in weights if name not in self.names]

    def vector(self, weights: Mapping[str, float]) -> Floats:
        return np.array([weights.get(name, 0.0) for name in self.names])

    def values(self, trials: Sequence[Trial]) -> Floats:
        rows = [[_value(trial, name) for name in self.names] for trial in trials]
        return np.array(rows, dtype=np.float64).reshape(len(trials), len(self.names))


def _value(trial: Trial, name: str) -> float:
    """Mean of one metric over the trial's replicates; NaN where it is missing."""
    value = trial.value(ObjectiveSpec(metrics=(name,)))
    return math.nan if value is None else value


def _weights(
    objective: ObjectiveSpec,
    trials: Sequence[Trial],
    rule: Mapping[str, Any],
    form: LinearForm | None = None,
) -> dict[str, float]:
    """Metric → its weight in the objective."""
    if objective.metrics == (_SCORE,):
        if form is not None:
            # A constant is in no metric: then the score itself is what is modelled.
            return dict(form.weights) if form.constant == 0.0 else {_SCORE: 1.0}
        weights = _rule_weights(trials, rule)
        return weights if weights and _gives_back(trials, weights) else {_SCORE: 1.0}
    names = [
        name
        for pattern in objective.metrics
        for name in ([_SCORE] if pattern == _SCORE else fnmatch.filter(_metrics(trials), pattern))
    ]
    return {name: names.count(name) / len(names) for name in dict.fromkeys(names)}


def _rule_weights(trials: Sequence[Trial], rule: Mapping[str, Any]) -> dict[str, float]:
    """Weight of each metric in a score of ``rule``."""
    # Imported here: another application's studies have no such rule.
    from ablations.evaluation.score_rule import facts_of_names, linear_form

    direction = str(rule.get("direction"))
    form = linear_form(rule.get("terms") or {}, direction, facts_of_names(_metrics(trials)))
    return dict(form.weights)


def _gives_back(trials: Sequence[Trial], weights: Mapping[str, float]) -> bool:
    """Whether the weighed metrics are the scores that the runs recorded."""
    for trial in trials:
        for outcome in trial.replicates:
            values = [measure(outcome, (name,)) for name in weights]
            if outcome.score is None or any(value is None for value in values):
                return False
            total = sum(w * (v or 0.0) for w, v in zip(weights.values(), values, strict=True))
            if abs(total - outcome.score) > _SAME_SCORE * max(1.0, abs(outcome.score)):
                return False
    return True


def _limit(
    constraint: ConstraintSpec, trials: Sequence[Trial], baseline: Trial | None
) -> tuple[dict[str, float], float] | None:
    """A measured bound as weights and the most they may sum to; None before the baseline is known."""
    objective = ObjectiveSpec(metrics=constraint.metrics)
    weights = _weights(objective, trials, {})
    sign = -1.0 if constraint.direction == "maximize" else 1.0
    bound = constraint.bound
    if constraint.margin is not None:
        theirs = None if baseline is None else baseline.value(objective)
        bound = None if theirs is None else theirs + sign * constraint.margin
    if bound is None or not weights:
        return None
    return {name: sign * weight for name, weight in weights.items()}, sign * bound


def _metrics(trials: Sequence[Trial]) -> list[str]:
    """Metrics that every trial recorded, in order."""
    first = trials[0].replicates[0].metrics if trials else {}
    return [name for name in first if all(name in t.replicates[0].metrics for t in trials)]
