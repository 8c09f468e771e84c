"""The search space of a study: searched mixtures and other parameters, as one set of numbers.

Three views of the same thing::

    point         {"mixture.weights": {"web": 0.7, "math": 0.3}, "training.peak_lr": 0.002}
    coordinates   [0.7, 0.3, 0.41]      every weight, then every parameter's place in [0, 1]
    unit box      [0.52, 0.41]          as many numbers as there are degrees of freedom

Points are what runs are configured with and what is recorded. Coordinates are where limits are
linear: sampling and optimising happen there. The unit box is for samplers that know boxes alone
(Optuna's, Sobol's): each of its points is feasible.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from ablations.errors import ConfigError, Problem, unknown_name
from ablations.mixture.mixture import SUM_TOLERANCE
from sweeps.search.space.caps import EpochCaps
from sweeps.search.space.limits import centre_of, polytope_of, shared_caps, upper_bounds
from sweeps.search.space.parameter import Parameter, Value
from sweeps.search.space.polytope import Polytope
from sweeps.search.space.simplex import BoundedSimplex, Floats
from sweeps.search.space.specs import SearchSpaceSpec

__all__ = ["Point", "SearchSpace"]

Point = dict[str, "Value | dict[str, float]"]
"""Config path → value; for a mixture, the weight of every one of its sources."""

_WALK_STEPS = 60
"""Hit-and-run steps of :meth:`SearchSpace.sample`. It starts from draws that are even but for upper
bounds, so few steps are enough: docs/decisions/surrogates.md."""

_CORNERS = 64
"""Random directions in which corners are looked for, beside those of the axes."""

_REDRAWS = 20
"""Rounds in which Dirichlet draws outside the bounds are drawn again before they are pulled in."""


@dataclass(frozen=True)
class SearchSpace:
    """What a study ranges over; made by :meth:`build`, never changed."""

    mixtures: Mapping[str, BoundedSimplex]
    """Config path → its mixtures, epoch caps included."""
    parameters: Mapping[str, Parameter]
    """Config path → its range."""
    polytope: Polytope
    """Every limit on coordinates."""
    centre: Floats
    """Coordinates of a point well inside, the same for the same space."""
    coupled: bool
    """Whether a limit joins several mixtures (an epoch cap over stages)."""

    @classmethod
    def build(cls, spec: SearchSpaceSpec, caps: EpochCaps | None = None) -> SearchSpace:
        """The space of ``spec`` under epoch caps.

        Raises:
            ConfigError: bounds that no mixture satisfies.
        """
        upper = {path: upper_bounds(spec, path, caps) for path in spec.mixtures}
        mixtures = {
            path: BoundedSimplex(simplex, upper[path], path)
            for path, simplex in spec.mixtures.items()
        }
        parameters = {path: Parameter(path, value) for path, value in spec.parameters.items()}
        width = sum(len(m.sources) for m in mixtures.values()) + len(parameters)
        shared = shared_caps(mixtures, width, caps)
        polytope = polytope_of(mixtures, len(parameters), shared)
        coupled = bool(shared)
        return cls(
            MappingProxyType(mixtures),
            MappingProxyType(parameters),
            polytope,
            centre_of(mixtures, len(parameters), polytope, coupled),
            coupled,
        )

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Names of the coordinates of the unit box: ``<path>/<source>`` and ``<path>``."""
        weights = [f"{path}/{name}" for path, m in self.mixtures.items() for name in m.unit_names]
        return (*weights, *self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates: ``<path>.<source>`` of every source, then ``<path>``."""
        weights = [f"{path}.{name}" for path, m in self.mixtures.items() for name in m.sources]
        return (*weights, *self.parameters)

    def blocks(self) -> dict[str, slice]:
        """Config path of a mixture → its columns of the coordinates."""
        edges = np.cumsum([0, *(len(m.sources) for m in self.mixtures.values())])
        return {
            path: slice(int(edges[i]), int(edges[i + 1])) for i, path in enumerate(self.mixtures)
        }

    @cached_property
    def size(self) -> int | None:
        """Count the points; None where a weight or a parameter is continuous."""
        levels = [parameter.levels for parameter in self.parameters.values()]
        if any(mixture.unit_names for mixture in self.mixtures.values()) or None in levels:
            return None
        return math.prod(level for level in levels if level is not None)

    @cached_property
    def discrete_levels(self) -> list[tuple[int, int]]:
        """List column and number of levels of each parameter that has levels."""
        return [
            (column, parameter.levels)
            for column, parameter in enumerate(self.parameters.values(), self._first_parameter)
            if parameter.levels is not None
        ]

    def every(self) -> Floats:
        """Return coordinates ``[size, names]`` of every point of a space that has a :attr:`size`."""
        places = [
            (np.arange(parameter.levels or 1) + 0.5) / (parameter.levels or 1)
            for parameter in self.parameters.values()
        ]
        rows = np.array(list(itertools.product(*places))).reshape(-1, len(self.parameters))
        weights = np.tile(self.centre[: self._first_parameter], (len(rows), 1))
        return np.concatenate([weights, rows], axis=1)

    def key(self, point: Mapping[str, Any]) -> tuple[float, ...]:
        """Return a key that points share which are one run: equal to six digits of each coordinate."""
        row = self.coordinates([point], check=False)[0]
        return tuple(float(place) for place in np.round(row, 6) + 0.0)

    def extremes(self) -> Iterator[tuple[str, Point]]:
        """Yield the ends of each parameter's range and its choices, all else at the centre, by name."""
        for index, (path, parameter) in enumerate(self.parameters.items(), self._first_parameter):
            for value in parameter.ends():
                row = self.centre.copy()
                row[index] = parameter.to_unit(value)
                yield f"{path}={value}", self.points(row[None])[0]

    def from_unit(self, box: Floats) -> Floats:
        """Coordinates of points ``[n, len(unit_names)]`` of the unit box: always feasible."""
        box = np.asarray(box, dtype=np.float64)
        parts, used = [], 0
        for mixture in self.mixtures.values():
            degrees = len(mixture.unit_names)
            parts.append(mixture.from_unit(box[:, used : used + degrees]))
            used += degrees
        coordinates = self.snap(np.concatenate([*parts, box[:, used:]], axis=1))
        return self._pull(coordinates, self.centre) if self.coupled else coordinates

    def to_unit(self, coordinates: Floats) -> Floats:
        """Points of the unit box; :meth:`from_unit` leads back to the same coordinates."""
        parts = [self.mixtures[p].to_unit(coordinates[:, cut]) for p, cut in self.blocks().items()]
        return np.concatenate([*parts, coordinates[:, self._first_parameter :]], axis=1)

    def points(self, coordinates: Floats) -> list[Point]:
        """Points to configure runs with."""
        cuts = self.blocks()
        out: list[Point] = []
        for row in np.atleast_2d(coordinates):
            point: Point = {
                path: dict(zip(m.sources, _weights(row[cuts[path]]), strict=True))
                for path, m in self.mixtures.items()
            }
            places = row[self._first_parameter :]
            point |= {
                path: parameter.from_unit(place)
                for (path, parameter), place in zip(self.parameters.items(), places, strict=True)
            }
            out.append(point)
        return out

    def coordinates(self, points: Sequence[Mapping[str, Any]], *, check: bool = True) -> Floats:
        """Coordinates of points.

        Args:
            points: Points; a source that a mixture does not name has weight 0.
            check: Refuse points outside the bounds; baselines and foreign runs may lie there.

        Raises:
            ConfigError: unknown or missing names; a point outside the space when ``check``.
        """
        rows = np.array([self._row(point) for point in points]).reshape(
            len(points), len(self.names)
        )
        if check:
            for point, row in zip(points, rows, strict=True):
                self._check_row(point, row)
        return rows

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Whether ``point`` keeps every limit."""
        try:
            self.coordinates([point])
        except ConfigError:
            return False
        return True

    def snap(self, coordinates: Floats) -> Floats:
        """Coordinates whose whole-number and choice parameters sit in the middle of a value."""
        snapped = coordinates.copy()
        for i, parameter in enumerate(self.parameters.values(), self._first_parameter):
            snapped[:, i] = parameter.snap(snapped[:, i])
        return snapped

    def inputs(self, coordinates: Floats) -> Floats:
        """Columns for a surrogate: weights, places, and one indicator for every choice."""
        parts = [coordinates[:, : self._first_parameter]]
        for i, parameter in enumerate(self.parameters.values(), self._first_parameter):
            parts.append(parameter.inputs(coordinates[:, i]))
        return np.concatenate(parts, axis=1)

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """``n`` even draws."""
        start = self.from_unit(rng.random((n, len(self.unit_names))))
        return self.snap(self.polytope.walk(start, _WALK_STEPS, rng))

    @cached_property
    def corners(self) -> Floats:
        """Corners ``[k, d]``, the same for the same space; of very many, those in some directions."""
        return self.polytope.corners(self.centre, _CORNERS, np.random.default_rng(0))

    def edges(self, n: int, rng: np.random.Generator) -> Floats:
        """``n`` draws from the corners, edges and faces, of every dimension: even mixes of corners.

        Not box points at 0 and 1: stick-breaking meets the corner of its last source alone once in
        two to the power of the sources.
        """
        corners = self.corners
        most = min(len(corners), len(self.unit_names) + 1)
        shares = rng.standard_exponential((n, len(corners)))
        order = rng.random(shares.shape).argsort(axis=1).argsort(axis=1)
        shares[order >= rng.integers(1, most + 1, (n, 1))] = 0.0
        mixed: Floats = (shares / shares.sum(axis=1, keepdims=True)) @ corners
        return self.snap(mixed)

    def around(
        self,
        prior: Mapping[str, Any],
        n: int,
        rng: np.random.Generator,
        *,
        concentration: float,
        sparse_below: float = 0.0,
    ) -> Floats:
        """``n`` Dirichlet draws around a prior, pulled inside the bounds where they leave them.

        Args:
            prior: The point at their mean; parameters are drawn evenly.
            n: How many.
            rng: Source of the draws.
            concentration: Dirichlet parameters are ``concentration × weight``: large is close.
            sparse_below: Weights under this become exact zeros (RegMix's swarm is 45% zeros).
        """
        centre = self.nearest(self.coordinates([prior], check=False))[0]
        drawn = np.zeros((0, len(self.names)))
        for _ in range(_REDRAWS):
            more = self._dirichlet(centre, n, rng, concentration, sparse_below)
            drawn = np.concatenate([drawn, more[self.polytope.violation(more) <= 1e-9]])[:n]
            if len(drawn) == n:
                return drawn
        more = self._dirichlet(centre, n - len(drawn), rng, concentration, sparse_below)
        inside = self._pull(more, 0.9 * centre + 0.1 * self.centre)
        return np.concatenate([drawn, inside])

    def nearest(self, coordinates: Floats) -> Floats:
        """The point of the space nearest to every row; rows inside stay put."""
        return self.snap(np.array([self.polytope.project(row, self.centre) for row in coordinates]))

    def near(self, coordinates: Floats, scale: float, n: int, rng: np.random.Generator) -> Floats:
        """``n`` feasible neighbours of every row, at distances around ``scale``."""
        start = np.repeat(np.atleast_2d(coordinates), n, axis=0)
        lengths = scale * np.abs(rng.normal(size=len(start)))
        return self.snap(self.polytope.jitter(start, lengths, rng))

    @property
    def _first_parameter(self) -> int:
        return sum(len(mixture.sources) for mixture in self.mixtures.values())

    def _dirichlet(
        self,
        centre: Floats,
        n: int,
        rng: np.random.Generator,
        concentration: float,
        sparse_below: float,
    ) -> Floats:
        """Draws whose sums and fixed weights are right; other bounds are not looked at."""
        drawn = self.snap(rng.random((n, len(self.names))))
        for path, cut in self.blocks().items():
            # A source of prior weight 0 would never appear: it gets a thousandth.
            shape = np.maximum(centre[cut], 1e-3) * concentration
            gammas = np.maximum(rng.standard_gamma(np.tile(shape, (n, 1))), 1e-300)
            weights = gammas / gammas.sum(1, keepdims=True)
            weights = np.where(weights < sparse_below, 0.0, weights)
            drawn[:, cut] = self.mixtures[path].rescale(weights, centre[cut])
        return drawn

    def _pull(self, outside: Floats, inside: Floats) -> Floats:
        """Weights moved towards those of ``inside`` until they are feasible; parameters stay."""
        origin = np.tile(inside, (len(outside), 1))
        origin[:, self._first_parameter :] = outside[:, self._first_parameter :]
        return self.polytope.pull(outside, origin)

    def _row(self, point: Mapping[str, Any]) -> list[float]:
        known = [*self.mixtures, *self.parameters]
        problems = [unknown_name(p, "search parameter", p, known) for p in point if p not in known]
        problems += [Problem(p, "missing from the point") for p in known if p not in point]
        for path, mixture in self.mixtures.items():
            problems += [
                unknown_name(f"{path}.{name}", "source", name, mixture.sources)
                for name, weight in dict(point.get(path) or {}).items()
                if name not in mixture.sources and weight
            ]
        if problems:
            raise ConfigError(problems)
        row = [
            float(point[path].get(name, 0.0))
            for path, mixture in self.mixtures.items()
            for name in mixture.sources
        ]
        return row + [parameter.to_unit(point[path]) for path, parameter in self.parameters.items()]

    def _check_row(self, point: Mapping[str, Any], row: Floats) -> None:
        problems = []
        for path, cut in self.blocks().items():
            if self.mixtures[path].violation(row[None, cut])[0] > SUM_TOLERANCE:
                problems.append(Problem(path, "outside the search space", found=point[path]))
        if not problems and self.polytope.violation(row[None])[0] > SUM_TOLERANCE:
            problems.append(
                Problem("search.space", "over an epoch cap of all stages together", found=point)
            )
        if problems:
            raise ConfigError(problems)


def _weights(row: Floats) -> list[float]:
    """Plain floats that sum to one to the last bit that matters."""
    return [float(weight) for weight in np.maximum(row, 0.0) / np.maximum(row, 0.0).sum()]
