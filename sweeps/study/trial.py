"""Trials: their specification, their outcomes, and the values computed from both.

The specification of a trial (:class:`TrialSpec`) never changes. Each of its seeds is one run, and each
finished run gives one :class:`Outcome`, read from the run's ``result.json``. Value, state and
constraints are computed from these two.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
TrialState = Literal["running", "paused", "done", "failed", "pruned"]


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
    rung: float | None = None
    """Trained tokens of the low rung of the study; None in a study without rungs."""
    pauses: bool = False
    """True if the trial's runs pause at the low rung, until the trial is continued."""

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
            **({} if self.rung is None else {"rung": self.rung, "pauses": self.pauses}),
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
    status: Literal["done", "paused", "failed", "pruned"]
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
    low_score: float | None = None
    """Score at the low rung; for a run that paused there or passed it."""
    low_metrics: Mapping[str, float | None] = field(default_factory=dict)
    """``<task>/<metric>`` → value at the low rung."""

    def plain(self) -> dict[str, Any]:
        """Return the outcome as JSON values, without what studies without rungs lack."""
        values = asdict(self)
        if not self.low_metrics and self.low_score is None:
            del values["low_score"], values["low_metrics"]
        return values


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Specification of a trial with the outcomes so far."""

    spec: TrialSpec
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    """Seed → outcome; seeds without a result are absent."""
    settled: bool = False
    """True once the journal contains the end of the trial."""
    continued: bool = False
    """True once a trial that pauses was chosen to go on to its end."""

    @property
    def number(self) -> int:
        """Return the trial's number."""
        return self.spec.number

    @property
    def state(self) -> TrialState:
        """Return ``failed`` or ``pruned`` if any seed of the specification is, ``done`` if all are.

        A trial whose runs have paused is ``paused``: it has no value until it is continued to its end.
        """
        asked = [self.outcomes.get(seed) for seed in self.spec.seeds]
        ends: tuple[TrialState, ...] = ("failed", "pruned")
        for state in ends:
            if any(outcome is not None and outcome.status == state for outcome in asked):
                return state
        if any(self.is_missing(seed) for seed in self.spec.seeds):
            return "running"
        return "paused" if any(o is not None and o.status == "paused" for o in asked) else "done"

    def is_missing(self, seed: int) -> bool:
        """Return whether a run is left to do: none has ended, or it paused and was continued."""
        outcome = self.outcomes.get(seed)
        return outcome is None or (outcome.status == "paused" and self.continued)

    @property
    def low(self) -> Trial | None:
        """Return the trial as it was at the low rung; None if a run has no value there."""
        ended = [self.outcomes.get(seed) for seed in self.spec.seeds]
        if not all(o is not None and o.low_metrics for o in ended):
            return None
        outcomes = {
            o.seed: replace(o, status="done", score=o.low_score, metrics=o.low_metrics)
            for o in ended
            if o is not None
        }
        return replace(self, outcomes=outcomes)

    @property
    def reason(self) -> str | None:
        """Return the reason of the first run that failed or was pruned."""
        ended = ("done", "paused")
        return next((o.reason for o in self.outcomes.values() if o.status not in ended), None)

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
