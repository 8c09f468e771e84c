"""Proposals by the surrogate: turn the trials of a study into evidence, and evidence into points.

A score is a weighted mean of metrics, and each metric follows its own law. Therefore the surrogate is
fitted to the metrics, and the score's rule weights its predictions. If the rule does not reproduce
the recorded scores (a rescaled term, a rule of another application), the score itself is the only
metric.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.files import finite_or_none
from sweeps.search.proposals import Evidence, Limit, pick, propose, trust_pick
from sweeps.search.proposals.model_averaging import prefer
from sweeps.search.proposals.propose import families_for
from sweeps.search.space import Floats, Point, SearchSpace
from sweeps.study.confirm import Pick, Recommendation
from sweeps.study.old_runs import OldRun
from sweeps.study.reuse import judge_reuse
from sweeps.study.specs import ConstraintSpec, ObjectiveSpec, loss_sign
from sweeps.study.strategy import History, Propose
from sweeps.study.trial import Outcome, Trial, TrialSpec, constraint_bound, measure

if TYPE_CHECKING:
    from ablations.evaluation.score_rule import LinearForm

__all__ = [
    "Ranking",
    "evidence_of",
    "judge_old_runs",
    "predicted_losses",
    "surrogate_pick",
    "surrogate_proposer",
]

Ranking = Callable[[Sequence[Trial]], Floats]
"""Function that returns the predicted losses ``[n]`` of trials at the top."""

_SCORE = "score"
_SAME_SCORE = 1e-6
"""Largest relative gap between a recorded score and the one from its metrics that counts as rounding."""


def surrogate_proposer(space: SearchSpace, seed: int, rule: Mapping[str, Any]) -> Propose:
    """Return a proposer of batches from the surrogate that cross-validation prefers."""

    def proposer(history: History, count: int) -> list[Point]:
        return propose(space, evidence_of(space, history, rule), count, seed=seed)

    return proposer


def surrogate_pick(
    space: SearchSpace, seed: int, rule: Mapping[str, Any], *, judged: bool = True
) -> Pick:
    """Return a function that recommends the optimum of the preferred surrogate.

    It returns None for several objectives or too few trials. If ``judged``, the notes assess under
    ``evidence`` how far the optimum can be trusted.
    """

    def recommend(history: History) -> Recommendation | None:
        runs = len({trial.number for trial in (*history.done, *history.low)})
        if len(history.objectives) > 1 or runs < max(5, len(space.unit_names) + 2):
            return None
        known = evidence_of(space, history, rule)
        chosen = pick(space, known, seed=seed)
        notes: dict[str, Any] = {
            "loss": finite_or_none(chosen.loss),
            "low": finite_or_none(chosen.low),
            "high": finite_or_none(chosen.high),
            "surrogate": chosen.surrogate,
            "errors": {name: finite_or_none(error) for name, error in chosen.errors.items()},
        }
        if judged:
            baseline = history.baseline_trial
            point = None if baseline is None else baseline.spec.point
            trust = trust_pick(space, known, chosen, seed=seed, baseline=point)
            notes["evidence"] = trust.plain()
        return Recommendation(point=chosen.point, notes=notes)

    return recommend


def evidence_of(space: SearchSpace, history: History, rule: Mapping[str, Any]) -> Evidence:
    """Return the trials' metrics, the weight of each metric in each objective, and measured limits.

    Args:
        space: Search space.
        history: Trials of the study.
        rule: Score rule of the runs' config as plain values; empty if there is none.
    """
    done, low = history.done, history.low
    measured, old = (*done, *low), _as_trials(history.old)
    columns = _Columns()
    rows = [
        {
            name: loss_sign(objective.direction) * weight
            for name, weight in _weights(objective, measured, rule, history.form).items()
        }
        for objective in history.objectives.values()
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
        [trial.spec.point for trial in (*measured, *old)],
        columns.values((*measured, *old)),
        objectives=np.array([columns.vector(row) for row in rows]),
        pending=[t.spec.point for t in history.searched if t.state == "running"],
        limits=[Limit(weights=columns.vector(row), bound=bound) for row, bound in bounds],
        rungs=_rungs(len(done), len(low), history),
        dropped=_dropped(len(measured), history.old),
    )


def _as_trials(runs: Sequence[OldRun]) -> list[Trial]:
    """Return the runs of earlier studies as finished trials, which metrics are read from."""
    return [
        Trial(
            spec=TrialSpec(number=-1 - number, phase="design", point=run.point),
            outcomes={0: Outcome(seed=0, status="done", score=run.score, metrics=run.metrics)},
        )
        for number, run in enumerate(runs)
    ]


def _rungs(done: int, low: int, history: History) -> Floats | None:
    """Return the distance ``[n, 3]`` of each row from the top: size, tokens, version of a text."""
    rows = np.zeros((done + low + len(history.old), 3))
    rows[done : done + low, :2] = history.rung or (0.0, 0.0)
    for row, run in zip(rows[done + low :], history.old, strict=True):
        row[:] = run.rung
    used = rows[:, rows.any(axis=0)]
    return used if used.shape[1] else None


def _dropped(new: int, runs: Sequence[OldRun]) -> Floats | None:
    """Return the weights ``[n, e]`` of sources that old runs have read and the space lacks."""
    names = list(dict.fromkeys(name for run in runs for name in run.dropped))
    if not names:
        return None
    old = np.array([[run.dropped.get(name, 0.0) for name in names] for run in runs])
    return np.concatenate([np.zeros((new, len(names))), old])


def judge_old_runs(
    space: SearchSpace, history: History, rule: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Return what the runs of earlier studies are worth; see :func:`~sweeps.study.reuse.judge_reuse`."""
    new = len(history.done) + len(history.low)
    return judge_reuse(space, evidence_of(space, history, rule), new, seed)


def predicted_losses(
    space: SearchSpace, history: History, rule: Mapping[str, Any], seed: int
) -> Ranking:
    """Return a function from trials to their predicted losses at the top, less is better."""
    evidence = evidence_of(space, history, rule)
    model = prefer(space, evidence, families_for(evidence), seed)

    def losses(trials: Sequence[Trial]) -> Floats:
        points = space.coordinates([trial.spec.point for trial in trials], check=False)
        predicted: Floats = model.predict(space.inputs(points)) @ evidence.objectives[0]
        return predicted

    return losses


@dataclass
class _Columns:
    """Metrics that any objective or limit uses, in order."""

    names: list[str] = field(default_factory=list)

    def add(self, weights: Mapping[str, float]) -> None:
        self.names += [name for name in weights if name not in self.names]

    def vector(self, weights: Mapping[str, float]) -> Floats:
        return np.array([weights.get(name, 0.0) for name in self.names])

    def values(self, trials: Sequence[Trial]) -> Floats:
        rows = [[_value(trial, name) for name in self.names] for trial in trials]
        return np.array(rows, dtype=np.float64).reshape(len(trials), len(self.names))


def _value(trial: Trial, name: str) -> float:
    """Return the mean of one metric over the trial's runs; NaN if it is missing."""
    value = trial.value(ObjectiveSpec(metrics=(name,)))
    return math.nan if value is None else value


def _weights(
    objective: ObjectiveSpec,
    trials: Sequence[Trial],
    rule: Mapping[str, Any],
    form: LinearForm | None = None,
) -> dict[str, float]:
    """Return metric → weight in the objective."""
    if objective.metrics == (_SCORE,):
        if form is not None:
            # No metric represents a constant: in that case the score itself is modelled.
            return dict(form.weights) if form.constant == 0.0 else {_SCORE: 1.0}
        weights = _rule_weights(trials, rule)
        return weights if weights and _reproduces_scores(trials, weights) else {_SCORE: 1.0}
    names = [
        name
        for pattern in objective.metrics
        for name in ([_SCORE] if pattern == _SCORE else fnmatch.filter(_metrics(trials), pattern))
    ]
    return {name: names.count(name) / len(names) for name in dict.fromkeys(names)}


def _rule_weights(trials: Sequence[Trial], rule: Mapping[str, Any]) -> dict[str, float]:
    """Return the weight of each metric in a score of ``rule``."""
    # Imported here: studies of other applications have no score rule.
    from ablations.evaluation.score_rule import facts_of_names, linear_form

    direction = str(rule.get("direction"))
    form = linear_form(rule.get("terms") or {}, direction, facts_of_names(_metrics(trials)))
    return dict(form.weights)


def _reproduces_scores(trials: Sequence[Trial], weights: Mapping[str, float]) -> bool:
    """Return whether the weighted metrics equal the scores that the runs recorded."""
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
    """Return a constraint as weights and their largest sum; None if it has no bound yet."""
    weights = _weights(ObjectiveSpec(metrics=constraint.metrics), trials, {})
    sign, bound = loss_sign(constraint.direction), constraint_bound(constraint, baseline)
    if bound is None or not weights:
        return None
    return {name: sign * weight for name, weight in weights.items()}, sign * bound


def _metrics(trials: Sequence[Trial]) -> list[str]:
    """Return the metrics that every trial recorded, in order."""
    first = trials[0].replicates[0].metrics if trials else {}
    return [name for name in first if all(name in t.replicates[0].metrics for t in trials)]
