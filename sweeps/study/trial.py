"""Trials: what was asked, what came back, and what follows from it.

A trial is decided once (:class:`TrialSpec`) and never changed; each of its seeds is one run, and each
finished run one :class:`Outcome`, read from the run's ``result.json``. Everything else — the value,
the state, the constraints — is computed from those two.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ablations.config.removed import without_removed_overrides
from sweeps.search.space.space import Point
from sweeps.study.specs import ConstraintSpec, ObjectiveSpec

__all__ = [
    "Outcome",
    "Phase",
    "Trial",
    "TrialSpec",
    "TrialState",
    "feasibility",
    "measure",
    "trial_name",
]

Phase = Literal["baseline", "design", "search", "confirm", "grid"]
TrialState = Literal["running", "done", "failed", "pruned"]


def trial_name(number: int) -> str:
    """The name of trial ``number``; its run folders are ``<name>-<seed>``."""
    return f"trial-{number:04d}"


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """What a trial is: decided before its first run, the same for ever."""

    number: int
    phase: Phase
    name: str = ""
    """What people call it (``natural``, ``60/40``); empty for designed and proposed trials."""
    point: Point = field(default_factory=dict)
    """Config path → value, or source → weight for a mixture."""
    overrides: tuple[str, ...] = ()
    """All task overrides of a plain Hydra sweep's combination; empty for a searched trial."""
    seeds: tuple[int, ...] = (0,)
    """Replicates that the trial was asked with."""

    @property
    def trial(self) -> str:
        """The trial's name on disk."""
        return trial_name(self.number)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
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
    """How one run ended."""

    seed: int
    status: Literal["done", "failed", "pruned"]
    reason: str | None = None
    score: float | None = None
    direction: str | None = None
    """Which way the run says its score is better."""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    """``<task>/<metric>`` → value at the last checkpoint; None where missing."""
    tokens: float = 0.0
    flops: float = 0.0
    device_seconds: float = 0.0
    """Wall time of the run times its devices."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Specification of a trial with the outcomes so far."""

    spec: TrialSpec
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    """Seed → how that run ended; seeds still running are absent."""
    settled: bool = False
    """Whether the journal holds the trial's end."""

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.spec.number

    @property
    def state(self) -> TrialState:
        """``done`` once every seed it was asked with is; one failed or pruned seed decides."""
        asked = [self.outcomes.get(seed) for seed in self.spec.seeds]
        ends: tuple[TrialState, ...] = ("failed", "pruned")
        for state in ends:
            if any(outcome is not None and outcome.status == state for outcome in asked):
                return state
        return "running" if None in asked else "done"

    @property
    def reason(self) -> str | None:
        """Why it failed or was pruned: the reason of the first run that was."""
        return next((o.reason for o in self.outcomes.values() if o.status != "done"), None)

    @property
    def replicates(self) -> tuple[Outcome, ...]:
        """Outcomes of the runs that finished, later replicates included."""
        return tuple(o for o in self.outcomes.values() if o.status == "done")

    def value(self, objective: ObjectiveSpec) -> float | None:
        """Mean of the objective over the finished replicates; None where it is missing."""
        return _mean([measure(outcome, objective.metrics) for outcome in self.replicates])


def measure(outcome: Outcome, metrics: Sequence[str]) -> float | None:
    """Mean of everything that ``metrics`` name or match; None when something named is missing."""
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
    """Constraint → how far beyond its bound the trial is (<= 0 is allowed).

    None while it cannot be said: a metric is missing, or the baseline has not finished.
    """
    values: dict[str, float] = {}
    for name, constraint in constraints.items():
        mine = trial.value(ObjectiveSpec(metrics=constraint.metrics))
        bound = constraint.bound
        sign = 1.0 if constraint.direction == "minimize" else -1.0
        if constraint.margin is not None:
            objective = ObjectiveSpec(metrics=constraint.metrics)
            theirs = None if baseline is None else baseline.value(objective)
            bound = None if theirs is None else theirs + sign * constraint.margin
        if mine is None or bound is None:
            return None
        values[name] = sign * (mine - bound)
    return values


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    if not present or len(present) < len(values):
        return None
    return math.fsum(present) / len(present)
