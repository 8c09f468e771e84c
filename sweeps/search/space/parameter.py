"""Searched value that is not a weight, and its place on the unit interval."""

from __future__ import annotations

import math

import numpy as np

from ablations.errors import ConfigError, Problem
from sweeps.search.space.simplex import Floats
from sweeps.search.space.specs import ParameterSpec

__all__ = ["Parameter", "Value"]

Value = float | int | str | bool


class Parameter:
    """Map between the values of a range or a list and ``[0, 1]``.

    Whole numbers and choices have equal parts of the interval; their place is the middle of a part.
    """

    def __init__(self, path: str, spec: ParameterSpec) -> None:
        self.path, self.spec = path, spec
        self._low, self._high = float(spec.low or 0.0), float(spec.high or 0.0)

    @property
    def levels(self) -> int | None:
        """Return the number of values; None for a continuous range."""
        if self.spec.kind == "choice":
            return len(self.spec.choices)
        if self.spec.kind == "int":
            return int(self._high - self._low) + 1
        return 1 if self._high == self._low else None

    def ends(self) -> tuple[Value, ...]:
        """Return the smallest and the largest value; of a choice, all of them."""
        if self.spec.kind == "choice":
            return self.spec.choices
        return tuple(dict.fromkeys((self.from_unit(0.0), self.from_unit(1.0))))

    def from_unit(self, place: float) -> Value:
        """Return the value at ``place``."""
        place = min(1.0, max(0.0, float(place)))
        if (levels := self.levels) is not None:
            index = min(levels - 1, int(place * levels))
            if self.spec.kind == "choice":
                return self.spec.choices[index]
            return int(self._low) + index if self.spec.kind == "int" else self._low
        if self.spec.kind == "log":
            low, high = math.log(self._low), math.log(self._high)
            return min(self._high, max(self._low, math.exp(low + place * (high - low))))
        return self._low + place * (self._high - self._low)

    def to_unit(self, value: Value) -> float:
        """Return the place of ``value``.

        Raises:
            ConfigError: the value is outside the range or not among the choices.
        """
        if self.spec.kind == "choice":
            if value not in self.spec.choices:
                raise ConfigError(
                    Problem(self.path, "not a choice", found=value, allowed=self.spec.choices)
                )
            return (self.spec.choices.index(value) + 0.5) / len(self.spec.choices)
        number = float(value)
        slack = 1e-9 * max(1.0, abs(self._high))
        if not self._low - slack <= number <= self._high + slack:
            allowed = f"[{self._low:g}, {self._high:g}]"
            raise ConfigError(Problem(self.path, "outside the range", found=value, allowed=allowed))
        return self._place(number)

    def nearest(self, value: object) -> Value:
        """Return the value of the range nearest to ``value``; the middle one if none is nearest."""
        if self.spec.kind == "choice":
            same = [choice for choice in self.spec.choices if choice == value]
            return same[0] if same else self.from_unit(0.5)
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return self.from_unit(0.5)
        inside = min(self._high, max(self._low, float(value)))
        return round(inside) if self.spec.kind == "int" else inside

    def snap(self, places: Floats) -> Floats:
        """Return places moved to the middle of the value's part; continuous ones as they are."""
        if (levels := self.levels) is None:
            return places
        middles: Floats = (np.minimum(levels - 1, np.floor(places * levels)) + 0.5) / levels
        return middles

    def inputs(self, places: Floats) -> Floats:
        """Return columns ``[n, width]`` for a surrogate: the place, or one indicator per choice."""
        if self.spec.kind != "choice":
            return self.snap(places)[:, None]
        index = np.minimum(len(self.spec.choices) - 1, np.floor(places * len(self.spec.choices)))
        indicators: Floats = np.eye(len(self.spec.choices))[index.astype(int)]
        return indicators

    def _place(self, number: float) -> float:
        if self.spec.kind == "int":
            return (round(number) - self._low + 0.5) / (self._high - self._low + 1.0)
        if self._high == self._low:
            return 0.5
        if self.spec.kind == "log":
            low, high = math.log(self._low), math.log(self._high)
            return min(1.0, max(0.0, (math.log(number) - low) / (high - low)))
        return min(1.0, max(0.0, (number - self._low) / (self._high - self._low)))
