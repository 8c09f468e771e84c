"""Search space as written in ``conf/search``: plain data, checked when it is made.

space:
  mixtures:
    mixture.weights:                       # path of the weights in the run's config
      sources: [web, edu, stack, commits, wiki]
      low: {web: 0.2}                      # shares of the stage's tokens
      fixed: {wiki: 0.05}
      groups:
        code: {sources: [stack, commits], weight: 0.25}
  parameters:
    training.peak_lr: {kind: log, low: 1.0e-4, high: 1.0e-2}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ablations.errors import ConfigError, Problem, unknown_name

__all__ = ["BOUND_TOLERANCE", "GroupSpec", "ParameterSpec", "SearchSpaceSpec", "SimplexSpec"]

BOUND_TOLERANCE = 1e-9
"""Slack of every comparison of weights with bounds: the rounding of a few additions."""


@dataclass(frozen=True, kw_only=True)
class GroupSpec:
    """Sources of one domain, whose weights are searched inside the domain's weight."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    sources: tuple[str, ...]
    """Members; each belongs to at most one group."""
    weight: float | None = None
    """Fixed weight of the domain; only the ratios inside it are searched."""
    low: float = 0.0
    """Lower bound of the domain's weight if ``weight`` is null."""
    high: float = 1.0
    """Upper bound of the domain's weight if ``weight`` is null."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the lower and the upper bound of the domain's weight."""
        return (self.low, self.high) if self.weight is None else (self.weight, self.weight)


@dataclass(frozen=True, kw_only=True)
class SimplexSpec:
    """Searched mixture: its sources, and bounds of their weights."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    sources: tuple[str, ...]
    """Sources of the mixture, including fixed ones."""
    low: Mapping[str, float] = field(default_factory=dict)
    """Lower bounds of weights; 0 for sources without one."""
    high: Mapping[str, float] = field(default_factory=dict)
    """Upper bounds of weights; 1 for sources without one."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Weights that are not searched."""
    groups: Mapping[str, GroupSpec] = field(default_factory=dict)
    """Domain name → its sources and weight."""

    def __post_init__(self) -> None:
        if problems := [*_name_problems(self), *_bound_problems(self)]:
            raise ConfigError(problems)

    def bounds(self, source: str) -> tuple[float, float]:
        """Return the lower and the upper bound of the weight of ``source``, before epoch caps."""
        if source in self.fixed:
            return self.fixed[source], self.fixed[source]
        return self.low.get(source, 0.0), self.high.get(source, 1.0)


@dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """Searched number or choice that is not a weight."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: Literal["float", "log", "int", "choice"]
    """``float``: even; ``log``: even in the logarithm; ``int``: whole; ``choice``: of a list."""
    low: float | None = None
    """Smallest value (``float``, ``log``, ``int``)."""
    high: float | None = None
    """Largest value, inclusive (``float``, ``log``, ``int``)."""
    choices: tuple[str | int | float | bool, ...] = ()
    """Values of a ``choice``."""

    def __post_init__(self) -> None:
        if problem := _parameter_problem(self):
            raise ConfigError(problem)


@dataclass(frozen=True, kw_only=True)
class SearchSpaceSpec:
    """Search space of one study: mixtures and other parameters by config path."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    mixtures: Mapping[str, SimplexSpec] = field(default_factory=dict)
    """Config path of a weights mapping (``mixture.weights``,
    ``schedule.stages.decay.weights``) → the searched mixture."""
    parameters: Mapping[str, ParameterSpec] = field(default_factory=dict)
    """Config path of a value → its range."""

    def __post_init__(self) -> None:
        if not self.mixtures and not self.parameters:
            raise ConfigError(
                Problem(
                    "search.space",
                    "nothing to search",
                    do="name a mixture under mixtures or a value under parameters",
                )
            )
        if both := sorted(set(self.mixtures) & set(self.parameters)):
            raise ConfigError(
                Problem("search.space", "the same path as mixture and as parameter", found=both)
            )


def _name_problems(spec: SimplexSpec) -> list[Problem]:
    problems = []
    if not spec.sources or len(set(spec.sources)) != len(spec.sources):
        problems.append(
            Problem("sources", "need unique names, at least one", found=list(spec.sources))
        )
    named = [("low", spec.low), ("high", spec.high), ("fixed", spec.fixed)]
    for label, names in [*named, *((f"groups.{g}", s.sources) for g, s in spec.groups.items())]:
        problems += [
            unknown_name(f"{label}.{name}", "source", name, spec.sources)
            for name in names
            if name not in spec.sources
        ]
    problems += [
        Problem(f"fixed.{name}", "a fixed source cannot have bounds too")
        for name in spec.fixed
        if name in spec.low or name in spec.high
    ]
    owners: dict[str, str] = {}
    for group, members in spec.groups.items():
        for name in members.sources:
            if name in owners:
                problems.append(
                    Problem(f"groups.{group}", f"{name!r} is in group {owners[name]!r} already")
                )
            owners[name] = group
    return problems


def _bound_problems(spec: SimplexSpec) -> list[Problem]:
    problems = []
    for name in spec.sources:
        low, high = spec.bounds(name)
        if not (0.0 <= low <= high <= 1.0):
            problems.append(_interval_problem(f"weight of {name}", low, high))
    for group, members in spec.groups.items():
        low, high = members.bounds
        if not (0.0 <= low <= high <= 1.0):
            problems.append(_interval_problem(f"groups.{group}", low, high))
    return problems


def _interval_problem(where: str, low: float, high: float) -> Problem:
    return Problem(
        where,
        "not an interval of weights",
        found=f"[{low:g}, {high:g}]",
        allowed="0 <= low <= high <= 1",
    )


def _parameter_problem(spec: ParameterSpec) -> Problem | None:
    if spec.kind == "choice":
        if len(spec.choices) < 1 or len(set(map(repr, spec.choices))) != len(spec.choices):
            return Problem("choices", "need unique values, at least one", found=list(spec.choices))
        return None
    if (
        spec.low is None
        or spec.high is None
        or not (math.isfinite(spec.low) and math.isfinite(spec.high) and spec.low <= spec.high)
    ):
        return Problem(
            spec.kind,
            "not a range",
            found=f"[{spec.low}, {spec.high}]",
            allowed="finite low <= high",
        )
    if spec.kind == "log" and spec.low <= 0.0:
        return Problem("log", "a logarithmic range begins above 0", found=spec.low)
    if spec.kind == "int" and (spec.low != round(spec.low) or spec.high != round(spec.high)):
        return Problem("int", "bounds are whole numbers", found=f"[{spec.low}, {spec.high}]")
    return None
