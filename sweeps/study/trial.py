"""Trials: their specification, their outcomes, and the values computed from both.

The specification of a trial (:class:`TrialSpec`) never changes. Each of its seeds is one run, and each
finished run gives one :class:`Outcome`, read from the run's ``result.json``. Value, state and
constraints are computed from these two.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ablations.config.removed import without_removed_overrides
from sweeps.search.space.space import Point
from sweeps.study.specs import ConstraintSpec, ObjectiveSpec, loss_sign

__all__ = [
    "Outcome",
    "Phase",
    "Trial",
    "TrialSpec",
    "TrialState",
    "constraint_bound",
    "feasibility",
    "measure",
    "trial_name",
]

Phase = Literal["baseline", "design", "search", "confirm", "grid"]
TrialState = Literal["running", "done", "failed", "pruned"]


def trial_name(number: int) -> str:
    """Return the name of trial ``number``; its run folders are ``<name>-<seed>``."""
    return f"trial-{number:04d}"


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """Specification of a trial, fixed before its first run."""

    number: int
    phase: Phase
    name: str = ""
    """Name for people (``natural``, ``60/40``); empty for designed and proposed trials."""
    point: Point = field(default_factory=dict)
    """Config path → value, or source → weight for a mixture."""
    overrides: tuple[str, ...] = ()
    """All task overrides of a plain Hydra sweep's combination; empty for a searched trial."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trial while exploring; confirmation may add more."""

    @property
    def trial(self) -> str:
        """Return the trial's name on disk."""
        return trial_name(self.number)

    def plain(self) -> dict[str, Any]:
        """Return the specification as JSON values."""
        return {
            "number": self.number,
            "phase": self.phase,
            "name": self.name,
            "point": dict(self.point),
            "overrides": list(self.overrides),
            "seeds": list(self.seeds),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> TrialSpec:
        """Return the specification that :meth:`plain` wrote, without options that were removed since."""
        overrides = tuple(without_removed_overrides(plain["overrides"]))
        return cls(**{**plain, "overrides": overrides, "seeds": tuple(plain["seeds"])})


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """End of one run, with its score and cost."""

    seed: int
    status: Literal["done", "failed", "pruned"]
    reason: str | None = None
    score: float | None = None
    direction: str | None = None
    """Better direction of the score, as recorded by the run."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """``<task>/<metric>`` → value at the last checkpoint; None where missing."""
    tokens: float = 0.0
    flops: float = 0.0
    device_seconds: float = 0.0
    """Wall-clock seconds of the run times the number of its devices."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Specification of a trial with the outcomes so far."""

    spec: TrialSpec
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    """Seed → outcome; seeds without a result are absent."""
    settled: bool = False
    """True once the journal contains the end of the trial."""

    @property
    def number(self) -> int:
        """Return the trial's number."""
        return self.spec.number

    @property
    def state(self) -> TrialState:
        """Return ``failed`` or ``pruned`` if any seed of the specification is, ``done`` if all are."""
        asked = [self.outcomes.get(seed) for seed in self.spec.seeds]
        ends: tuple[TrialState, ...] = ("failed", "pruned")
        for state in ends:
            if any(outcome is not None and outcome.status == state for outcome in asked):
                return state
        return "running" if None in asked else "done"

    @property
    def reason(self) -> str | None:
        """Return the reason of the first run that failed or was pruned."""
        return next((o.reason for o in self.outcomes.values() if o.status != "done"), None)

    @property
    def replicates(self) -> tuple[Outcome, ...]:
        """Return the outcomes of the finished runs, confirmation included."""
        return tuple(o for o in self.outcomes.values() if o.status == "done")

    def value(self, objective: ObjectiveSpec) -> float | None:
        """Return the mean of the objective over the finished runs; None if it is missing in any."""
        return _mean([measure(outcome, objective.metrics) for outcome in self.replicates])


def measure(outcome: Outcome, metrics: Sequence[str]) -> float | None:
    """Return the mean of the metrics that ``metrics`` name or match; None if a named one is missing."""
    found: list[float | None] = []
    for pattern in metrics:
        if pattern == "score":
            found.append(outcome.score)
            continue
        matches = fnmatch.filter(outcome.metrics, pattern)
        found += [outcome.metrics[name] for name in matches] or [None]
    return _mean(found)


def feasibility(
    trial: Trial, constraints: Mapping[str, ConstraintSpec], baseline: Trial | None
) -> dict[str, float] | None:
    """Return constraint → distance of the trial beyond its bound (<= 0 is allowed).

    None if a metric is missing or the baseline has not finished.
    """
    values: dict[str, float] = {}
    for name, constraint in constraints.items():
        value = trial.value(ObjectiveSpec(metrics=constraint.metrics))
        bound = constraint_bound(constraint, baseline)
        if value is None or bound is None:
            return None
        values[name] = loss_sign(constraint.direction) * (value - bound)
    return values


def constraint_bound(constraint: ConstraintSpec, baseline: Trial | None) -> float | None:
    """Return the worst value allowed; None if it depends on a baseline that has no value."""
    if constraint.margin is None:
        return constraint.bound
    if baseline is None:
        return None
    value = baseline.value(ObjectiveSpec(metrics=constraint.metrics))
    return None if value is None else value + loss_sign(constraint.direction) * constraint.margin


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    if not present or len(present) < len(values):
        return None
    return math.fsum(present) / len(present)
