"""One number from many metrics: a :class:`ScoreRule` applied to the scores of a checkpoint.

    score = Σ weight · mean(metrics of the term) / Σ weight

A term whose metrics improve against the rule's direction counts negatively. A missing metric makes the
score missing, and the reason says which: a score is never made of what happens to be there, since two
checkpoints would then be compared by different rules.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass

from ablations.evaluation.results import MetricScore, TaskScores
from ablations.evaluation.specs import ScoreRule, ScoreTerm

__all__ = ["Score", "apply_rule"]


@dataclass(frozen=True)
class Score:
    """The score, or why there is none."""

    value: float | None
    reason: str | None = None


def apply_rule(rule: ScoreRule, tasks: Mapping[str, TaskScores]) -> Score:
    """The score of one checkpoint."""
    metrics = {
        f"{name}/{metric}": one
        for name, task in tasks.items()
        for metric, one in task.metrics.items()
    }
    total, weights, reasons = 0.0, 0.0, []
    for name, term in rule.terms.items():
        part, reason = _term(term, rule, metrics)
        if part is None:
            reasons.append(f"{name}: {reason}")
        else:
            total += term.weight * part
            weights += term.weight
    if reasons:
        return Score(None, "; ".join(reasons))
    return Score(total / weights)


def _term(
    term: ScoreTerm, rule: ScoreRule, metrics: Mapping[str, MetricScore]
) -> tuple[float | None, str | None]:
    chosen = [name for name in metrics if fnmatch.fnmatchcase(name, term.metrics)]
    if not chosen:
        return None, f"no metric matches {term.metrics!r}"
    absent = [name for name in chosen if metrics[name].value is None]
    if absent:
        return None, f"{', '.join(absent)} is missing"
    guessless = [name for name in chosen if term.rescale and metrics[name].chance is None]
    if guessless:
        return None, f"{', '.join(guessless)} has no chance level to rescale by"
    values = [_signed(metrics[name], term, rule) for name in chosen]
    return math.fsum(values) / len(values), None


def _signed(metric: MetricScore, term: ScoreTerm, rule: ScoreRule) -> float:
    assert metric.value is not None
    value = metric.value
    if term.rescale:
        assert metric.chance is not None
        value = (value - metric.chance) / (1.0 - metric.chance)
    direction = term.direction or ("maximize" if metric.higher_is_better else "minimize")
    return value if direction == rule.direction else -value
