"""Map between a bounded simplex and the unit box by stick-breaking, one coordinate at a time.

    box  v1 ──▶ share of unit 1 ──▶ what is left ──▶ v2 ──▶ share of unit 2 ──▶ … ──▶ the rest
                    │ (a group breaks its own share among its sources in the same way)

Each share is limited by its own bounds and by those of all later ones. So each point of the box gives
a feasible mixture, and each feasible mixture has its point. With lower bounds only, and one source per
unit, even points of the box are even on the simplex; with upper bounds, nearly so
(docs/decisions/surrogates.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablations.errors import ConfigError, Problem
from sweeps.search.space.specs import BOUND_TOLERANCE, SimplexSpec

__all__ = ["BoundedSimplex", "Floats"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Unit:
    """Part that is broken off in one step: a single free source, or a group."""

    name: str
    columns: tuple[int, ...]
    low: float
    high: float


class BoundedSimplex:
    """Mixtures over ``sources`` within bounds, with fixed sources and groups.

    Args:
        spec: Sources, bounds, groups.
        upper: Further upper bounds (epoch caps); the lower of the two counts.
        where: Config path of the mixture, for messages.

    Raises:
        ConfigError: no mixture satisfies the bounds.
    """

    def __init__(
        self, spec: SimplexSpec, upper: Mapping[str, float] | None = None, where: str = "mixture"
    ) -> None:
        self.where = where
        self.sources = spec.sources
        caps = upper or {}
        bounds = [spec.bounds(name) for name in spec.sources]
        self.low = np.array([low for low, _ in bounds])
        self.high = np.array(
            [min(high, caps.get(n, 1.0)) for n, (_, high) in zip(spec.sources, bounds, strict=True)]
        )
        self._check_caps(spec, caps)
        self.groups = {
            name: (tuple(spec.sources.index(member) for member in group.sources), *group.bounds)
            for name, group in spec.groups.items()
        }
        self._units, self._fixed = self._ordered_units()
        self._check_total()
        inside = [(unit, c) for unit in [*self._units, *self._fixed] for c in unit.columns[:-1]]
        self._names = [unit.name for unit in self._units[:-1]]
        self._names += [f"{unit.name}/{self.sources[column]}" for unit, column in inside]

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Return the names of the coordinates of the box, one per degree of freedom of the mixture."""
        return tuple(self._names)

    def from_unit(self, box: Floats) -> Floats:
        """Return weights ``[n, sources]`` of points ``[n, len(unit_names)]`` of the unit box."""
        weights = np.tile(self.low, (len(box), 1))
        unit_low, unit_high = self._unit_bounds()
        free = 1.0 - self._fixed_total()
        shares = _break(
            box[:, : max(0, len(self._units) - 1)], np.full(len(box), free), unit_low, unit_high
        )
        used = max(0, len(self._units) - 1)
        for unit, share in self._shared(shares):
            columns, degrees = list(unit.columns), len(unit.columns) - 1
            weights[:, columns] = _break(
                box[:, used : used + degrees],
                share,
                self.low[columns],
                self.high[columns],
            )
            used += degrees
        return weights

    def to_unit(self, weights: Floats) -> Floats:
        """Return the points of the unit box that :meth:`from_unit` maps to ``weights``."""
        unit_low, unit_high = self._unit_bounds()
        shares = np.zeros((len(weights), len(self._units)))
        for position, unit in enumerate(self._units):
            shares[:, position] = weights[:, list(unit.columns)].sum(1)
        free = np.full(len(weights), 1.0 - self._fixed_total())
        parts = [_join(shares, free, unit_low, unit_high)]
        for unit, share in self._shared(shares):
            columns = list(unit.columns)
            parts.append(_join(weights[:, columns], share, self.low[columns], self.high[columns]))
        return np.concatenate(parts, axis=1)

    def rescale(self, weights: Floats, fallback: Floats) -> Floats:
        """Return weights with fixed ones restored and free ones scaled so that sums are right.

        Bounds are ignored. If all weights to scale are zero, they are those of ``fallback``.
        """
        scaled = np.tile(self.low, (len(weights), 1))
        single = [column for unit in self._units for column in unit.columns]
        cells = [(single, 1.0 - self._fixed_total())]
        cells += [(list(unit.columns), unit.low) for unit in self._fixed]
        for columns, total in cells:
            sums = weights[:, columns].sum(1, keepdims=True)
            with np.errstate(divide="ignore", invalid="ignore"):
                share = weights[:, columns] * (total / sums)
            scaled[:, columns] = np.where(sums > 0.0, share, fallback[columns])
        return scaled

    def violation(self, weights: Floats) -> Floats:
        """Return the largest excess of each row over a bound or sum; within rounding of 0 if allowed."""
        gaps = [self.low - weights, weights - self.high, np.abs(weights.sum(1, keepdims=True) - 1)]
        for columns, low, high in self.groups.values():
            total = weights[:, list(columns)].sum(1, keepdims=True)
            gaps += [low - total, total - high]
        worst: Floats = np.maximum(0.0, np.concatenate(gaps, axis=1).max(axis=1))
        return worst

    def _ordered_units(self) -> tuple[list[_Unit], list[_Unit]]:
        """Return the units to break off, in order, and the groups whose weight is fixed."""
        grouped = {column for columns, _, _ in self.groups.values() for column in columns}
        units: list[_Unit] = []
        fixed: list[_Unit] = []
        for name, (columns, low, high) in self.groups.items():
            free = tuple(c for c in columns if self.high[c] > self.low[c])
            used = sum(self.low[c] for c in columns if c not in free)
            if free:
                unit = _Unit(name, free, low - used, high - used)
                (units if high > low else fixed).append(unit)
        for column, name in enumerate(self.sources):
            if column not in grouped and self.high[column] > self.low[column]:
                units.append(_Unit(name, (column,), 0.0, 1.0))
        # The least bounded unit takes the rest, which keeps shares drawn before it nearest to even.
        return sorted(units, key=lambda unit: self._unit_interval(unit)[1]), fixed

    def _shared(self, shares: Floats) -> Iterator[tuple[_Unit, Floats]]:
        """Yield each unit with its weights ``[n]``."""
        for position, unit in enumerate(self._units):
            yield unit, shares[:, position]
        for unit in self._fixed:
            yield unit, np.full(len(shares), unit.low)

    def _unit_interval(self, unit: _Unit) -> tuple[float, float]:
        columns = list(unit.columns)
        low = max(unit.low, float(self.low[columns].sum()))
        return low, min(unit.high, float(self.high[columns].sum()))

    def _unit_bounds(self) -> tuple[Floats, Floats]:
        intervals = np.array([self._unit_interval(unit) for unit in self._units]).reshape(-1, 2)
        return intervals[:, 0], intervals[:, 1]

    def _fixed_total(self) -> float:
        return float(self.low[self.low >= self.high].sum()) + sum(u.low for u in self._fixed)

    def _check_caps(self, spec: SimplexSpec, caps: Mapping[str, float]) -> None:
        problems = [
            Problem(
                f"{self.where}.{name}",
                "the epoch cap at the full budget is below its lower bound or fixed weight",
                found=f"cap {high:.4g}, lower bound {low:.4g}",
                do="lower the bound, allow more epochs, or give the source more tokens",
            )
            for name, low, high in zip(spec.sources, self.low, self.high, strict=True)
            if low > high + BOUND_TOLERANCE and name in caps
        ]
        if problems:
            raise ConfigError(problems)
        self.low = np.minimum(self.low, self.high)

    def _check_total(self) -> None:
        problems = []
        for unit in [*self._units, *self._fixed]:
            low, high = self._unit_interval(unit)
            if low > high + BOUND_TOLERANCE:
                problems.append(
                    Problem(
                        f"{self.where}.groups.{unit.name}",
                        "the group's weight and its sources' bounds contradict each other",
                        found=f"needs at least {low:.4g}, allows at most {high:.4g}",
                    )
                )
        if not problems:
            low, high = (bound.sum() + self._fixed_total() for bound in self._unit_bounds())
            if low > 1.0 + BOUND_TOLERANCE or high < 1.0 - BOUND_TOLERANCE:
                problems.append(
                    Problem(
                        self.where,
                        "no mixture satisfies the bounds",
                        found=f"lower bounds sum to {low:.4g}, upper bounds to {high:.4g}",
                        allowed="sum of lower bounds <= 1 <= sum of upper bounds",
                    )
                )
        problems += self._fixed_group_problems()
        if problems:
            raise ConfigError(problems)

    def _fixed_group_problems(self) -> list[Problem]:
        problems = []
        for name, (columns, low, high) in self.groups.items():
            lows = self.low[list(columns)]
            if (lows >= self.high[list(columns)]).all() and not (
                low - BOUND_TOLERANCE <= lows.sum() <= high + BOUND_TOLERANCE
            ):
                problems.append(
                    Problem(
                        f"{self.where}.groups.{name}",
                        "its sources are all fixed, at another total than the group's weight",
                        found=f"{lows.sum():.4g}",
                        allowed=f"[{low:.4g}, {high:.4g}]",
                    )
                )
        return problems


def _break(box: Floats, total: Floats, low: Floats, high: Floats) -> Floats:
    """Break ``total`` into parts within bounds, by box coordinates; the last part is the rest."""
    parts = np.empty((len(box), len(low)))
    left = total.copy()
    for i in range(len(low) - 1):
        smallest, largest, span = _interval(i, left, low, high)
        later = len(low) - 1 - i
        at_least, at_most = (_survival(x - low[i], span, later) for x in (smallest, largest))
        survival = at_least + box[:, i] * (at_most - at_least)
        part = low[i] + span * (1.0 - survival ** (1.0 / later))
        parts[:, i] = np.clip(part, smallest, largest)
        left = left - parts[:, i]
    if len(low):
        parts[:, -1] = np.clip(left, low[-1], high[-1])
    return parts


def _join(parts: Floats, total: Floats, low: Floats, high: Floats) -> Floats:
    """Return the box coordinates that :func:`_break` maps to ``parts``."""
    box = np.zeros((len(parts), max(0, len(low) - 1)))
    left = total.copy()
    for i in range(len(low) - 1):
        smallest, largest, span = _interval(i, left, low, high)
        later = len(low) - 1 - i
        part = np.clip(parts[:, i], smallest, largest)
        at_least, at_most, own = (
            _survival(x - low[i], span, later) for x in (smallest, largest, part)
        )
        width = at_least - at_most
        with np.errstate(invalid="ignore", divide="ignore"):
            box[:, i] = np.where(width > 0.0, (at_least - own) / width, 0.0)
        left = left - parts[:, i]
    return np.clip(box, 0.0, 1.0)


def _interval(i: int, left: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the smallest and largest part ``i``, and the amount left above all lower bounds."""
    later_low, later_high = low[i + 1 :].sum(), high[i + 1 :].sum()
    smallest = np.maximum(low[i], left - later_high)
    largest = np.maximum(smallest, np.minimum(high[i], left - later_low))
    return smallest, largest, np.maximum(left - later_low - low[i], 0.0)


def _survival(excess: Floats, span: Floats, later: int) -> Floats:
    """Return the probability that the first of ``later + 1`` even shares of ``span`` exceeds ``excess``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        reached = np.where(span > 0.0, excess / span, 0.0)
    survival: Floats = np.clip(1.0 - reached, 0.0, 1.0) ** later
    return survival
