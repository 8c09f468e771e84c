"""One number from many metrics: a :class:`ScoreRule` applied to the scores of a checkpoint.

    score = Σ weight · mean(metrics of the term) / Σ weight

A term whose metrics improve against the rule's direction counts negatively. A missing metric makes the
score missing, and the reason names it: a score of the metrics that happen to exist would compare two
checkpoints by different rules.

The score is linear in the metrics. :func:`linear_form` is the only place that turns a rule into the
weight of each metric: the run's score, the surrogate, the verdict and the report all use it.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ablations.evaluation.results import MetricScore, TaskScores
from ablations.evaluation.specs import HELDOUT_PREFIX, HIGHER_IS_BETTER, ScoreRule

__all__ = [
    "LinearForm",
    "MetricFacts",
    "Score",
    "apply_rule",
    "facts_of_names",
    "formula",
    "linear_form",
    "removable",
]


@dataclass(frozen=True)
class Score:
    """Value of a score, or the reason why it is missing."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class MetricFacts:
    """Properties of a metric that a score depends on."""

    higher_is_better: bool
    chance: float | None = None
    """Score of guessing; None if the metric has no chance level."""


@dataclass(frozen=True, kw_only=True)
class LinearForm:
    """A score as ``constant + Σ weight · metric``."""

    weights: Mapping[str, float]
    """``task/metric`` → weight in the score, with its sign."""
    constant: float = 0.0

    def value(self, metrics: Mapping[str, float | None]) -> float | None:
        """Return the score of ``task/metric`` values; None if one that has a weight is missing."""
        values = [metrics.get(name) for name in self.weights]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if not values or len(known) < len(values):
            return None
        products = (w * v for w, v in zip(self.weights.values(), known, strict=True))
        return self.constant + math.fsum(products)


def apply_rule(rule: ScoreRule, tasks: Mapping[str, TaskScores]) -> Score:
    """Return the score of one checkpoint."""
    metrics = {
        f"{name}/{metric}": one
        for name, task in tasks.items()
        for metric, one in task.metrics.items()
    }
    terms = {name: asdict(term) for name, term in rule.terms.items()}
    reasons = [
        f"{name}: {reason}"
        for name, term in terms.items()
        if (reason := _missing(term, metrics)) is not None
    ]
    if reasons:
        return Score(None, "; ".join(reasons))
    facts = {name: MetricFacts(one.higher_is_better, one.chance) for name, one in metrics.items()}
    form = linear_form(terms, rule.direction, facts)
    return Score(form.value({name: one.value for name, one in metrics.items()}))


def _missing(term: Mapping[str, Any], metrics: Mapping[str, MetricScore]) -> str | None:
    """Return the reason why a term has no value; None if it has one."""
    chosen = fnmatch.filter(metrics, term["metrics"])
    if not chosen:
        return f"no metric matches {term['metrics']!r}"
    absent = [name for name in chosen if metrics[name].value is None]
    if absent:
        return f"{', '.join(absent)} is missing"
    no_chance = [name for name in chosen if term["rescale"] and metrics[name].chance is None]
    if no_chance:
        return f"{', '.join(no_chance)} has no chance level to rescale by"
    return None


def linear_form(
    terms: Mapping[str, Mapping[str, Any]],
    direction: str,
    metrics: Mapping[str, MetricFacts],
    *,
    without: Collection[str] = (),
) -> LinearForm:
    """Return the weight of each metric in a score, and the score's constant.

    The score is the weighted mean of its terms, and a term is the mean of the metrics that it matches.
    A term that matches no metric is left out of both sums.

    Args:
        terms: Name → term, plain values of ``evaluation.score.terms``.
        direction: ``maximize`` or ``minimize``.
        metrics: ``task/metric`` → properties of each metric that was scored.
        without: Metrics that a study leaves out of its score (``search.task_quality``).
    """
    weights: dict[str, float] = {}
    constant, total = 0.0, 0.0
    known = [name for name in metrics if name not in without]
    for term in terms.values():
        matched = [name for name in known if fnmatch.fnmatchcase(name, term["metrics"])]
        if not matched:
            continue
        term_weight = float(term.get("weight", 1.0))
        total += term_weight
        for name in matched:
            fact = metrics[name]
            better = term.get("direction") or ("maximize" if fact.higher_is_better else "minimize")
            share = (term_weight if better == direction else -term_weight) / len(matched)
            chance = (fact.chance or 0.0) if term.get("rescale") else 0.0
            weight = share / (1.0 - chance)
            weights[name] = weights.get(name, 0.0) + weight
            constant -= weight * chance
    if total == 0.0:
        return LinearForm(weights={})
    return LinearForm(
        weights={name: weight / total for name, weight in weights.items()},
        constant=constant / total,
    )


def facts_of_names(names: Collection[str]) -> dict[str, MetricFacts]:
    """Return the properties that ``task/metric`` names alone give: the direction and no chance level."""
    return {
        name: MetricFacts(HIGHER_IS_BETTER.get(name.rpartition("/")[2], True)) for name in names
    }


def removable(terms: Mapping[str, Mapping[str, Any]], names: Collection[str]) -> list[str]:
    """Return the metrics of a score that a study may leave out for their task quality.

    Held-out text and metrics that a term names in full always count.
    """
    named = {term["metrics"] for term in terms.values()}
    patterns = [pattern for pattern in named if any(sign in pattern for sign in "*?[")]
    return [
        name
        for name in names
        if name not in named
        and not name.startswith(HELDOUT_PREFIX)
        and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def formula(terms: Mapping[str, Mapping[str, Any]], without: Collection[str] = ()) -> str:
    """Return a score rule as a formula, e.g. ``(3 × heldout_*/bpb + arc_*/bpb) / 4``."""
    parts, total = [], 0.0
    for term in terms.values():
        weight = float(term.get("weight", 1.0))
        total += weight
        times = "" if weight == 1.0 or len(terms) == 1 else f"{weight:g} × "
        parts.append(f"{times}{term['metrics']}{' above chance' if term.get('rescale') else ''}")
    if not parts:
        return "the score of the runs"
    mean = parts[0] if len(parts) == 1 else f"({' + '.join(parts)}) / {total:g}"
    return mean + (f", without {', '.join(sorted(without))}" if without else "")
