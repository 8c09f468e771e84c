"""Search space of a study: searched mixtures and other parameters, as one set of numbers.

There are three representations of a point::

    point         {"mixture.weights": {"web": 0.7, "math": 0.3}, "training.peak_lr": 0.002}
    coordinates   [0.7, 0.3, 0.41]      every weight, then every parameter's place in [0, 1]
    unit box      [0.52, 0.41]          as many numbers as there are degrees of freedom

Points configure runs and are recorded. Limits are linear in coordinates, so sampling and optimising
use them. The unit box is for samplers that support only boxes (Optuna's, Sobol's): each of its points
is feasible.
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
"""Config path → value; for a mixture, the weight of each of its sources."""

_WALK_STEPS = 60
"""Hit-and-run steps of :meth:`SearchSpace.sample`. It starts from draws that only upper bounds keep
from being even, so few steps are enough (docs/decisions/surrogates.md)."""

_CORNERS = 64
"""Number of random directions in which corners are searched, besides those of the axes."""

_REDRAWS = 20
"""Number of times that Dirichlet draws outside the bounds are redrawn before they are pulled in."""


@dataclass(frozen=True)
class SearchSpace:
    """Set of points of a study; made by :meth:`build`, immutable."""

    mixtures: Mapping[str, BoundedSimplex]
    """Config path → its mixtures, with epoch caps as upper bounds."""
    parameters: Mapping[str, Parameter]
    """Config path → its range."""
    polytope: Polytope
    """Limits on coordinates."""
    centre: Floats
    """Coordinates of a point well inside, the same for the same space."""
    coupled: bool
    """True if a limit joins several mixtures (an epoch cap over stages)."""

    @classmethod
    def build(cls, spec: SearchSpaceSpec, caps: EpochCaps | None = None) -> SearchSpace:
        """Return the space of ``spec`` under epoch caps.

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
        """Return the names of the unit box's coordinates: ``<path>/<source>`` and ``<path>``."""
        weights = [f"{path}/{name}" for path, m in self.mixtures.items() for name in m.unit_names]
        return (*weights, *self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the coordinates: ``<path>.<source>`` of each source, then ``<path>``."""
        weights = [f"{path}.{name}" for path, m in self.mixtures.items() for name in m.sources]
        return (*weights, *self.parameters)

    def blocks(self) -> dict[str, slice]:
        """Return config path of a mixture → its columns of the coordinates."""
        edges = np.cumsum([0, *(len(m.sources) for m in self.mixtures.values())])
        return {
            path: slice(int(edges[i]), int(edges[i + 1])) for i, path in enumerate(self.mixtures)
        }

    @cached_property
    def size(self) -> int | None:
        """Return the number of points; None if a weight or a parameter is continuous."""
        levels = [parameter.levels for parameter in self.parameters.values()]
        if any(mixture.unit_names for mixture in self.mixtures.values()) or None in levels:
            return None
        return math.prod(level for level in levels if level is not None)

    @cached_property
    def discrete_levels(self) -> list[tuple[int, int]]:
        """Return column and number of levels of each discrete parameter."""
        return [
            (column, parameter.levels)
            for column, parameter in enumerate(self.parameters.values(), self._first_parameter)
            if parameter.levels is not None
        ]

    def every(self) -> Floats:
        """Return coordinates ``[size, names]`` of all points; :attr:`size` must not be None."""
        places = [
            (np.arange(parameter.levels or 1) + 0.5) / (parameter.levels or 1)
            for parameter in self.parameters.values()
        ]
        rows = np.array(list(itertools.product(*places))).reshape(-1, len(self.parameters))
        weights = np.tile(self.centre[: self._first_parameter], (len(rows), 1))
        return np.concatenate([weights, rows], axis=1)

    def key(self, point: Mapping[str, Any]) -> tuple[float, ...]:
        """Return a key that is equal for points of the same run: coordinates rounded to six digits."""
        row = self.coordinates([point], check=False)[0]
        return tuple(float(place) for place in np.round(row, 6) + 0.0)

    def extremes(self) -> Iterator[tuple[str, Point]]:
        """Yield name and point for each end or choice of a parameter, all else at the centre."""
        for index, (path, parameter) in enumerate(self.parameters.items(), self._first_parameter):
            for value in parameter.ends():
                row = self.centre.copy()
                row[index] = parameter.to_unit(value)
                yield f"{path}={value}", self.points(row[None])[0]

    def from_unit(self, box: Floats) -> Floats:
        """Return coordinates of points ``[n, len(unit_names)]`` of the unit box, all feasible."""
        box = np.asarray(box, dtype=np.float64)
        parts, used = [], 0
        for mixture in self.mixtures.values():
            degrees = len(mixture.unit_names)
            parts.append(mixture.from_unit(box[:, used : used + degrees]))
            used += degrees
        coordinates = self.snap(np.concatenate([*parts, box[:, used:]], axis=1))
        return self._pull(coordinates, self.centre) if self.coupled else coordinates

    def to_unit(self, coordinates: Floats) -> Floats:
        """Return points of the unit box; :meth:`from_unit` maps them to the same coordinates."""
        parts = [self.mixtures[p].to_unit(coordinates[:, cut]) for p, cut in self.blocks().items()]
        return np.concatenate([*parts, coordinates[:, self._first_parameter :]], axis=1)

    def points(self, coordinates: Floats) -> list[Point]:
        """Return the points at coordinates ``[n, d]``."""
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
        """Return coordinates ``[n, d]`` of points.

        Args:
            points: Points; a source that a point does not name has weight 0.
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
        """Return True if ``point`` keeps all limits."""
        try:
            self.coordinates([point])
        except ConfigError:
            return False
        return True

    def snap(self, coordinates: Floats) -> Floats:
        """Return coordinates with discrete parameters moved to the middle of their value."""
        snapped = coordinates.copy()
        for i, parameter in enumerate(self.parameters.values(), self._first_parameter):
            snapped[:, i] = parameter.snap(snapped[:, i])
        return snapped

    def inputs(self, coordinates: Floats) -> Floats:
        """Return columns for a surrogate: weights, places, and one indicator for each choice."""
        parts = [coordinates[:, : self._first_parameter]]
        for i, parameter in enumerate(self.parameters.values(), self._first_parameter):
            parts.append(parameter.inputs(coordinates[:, i]))
        return np.concatenate(parts, axis=1)

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """Return ``n`` even draws."""
        start = self.from_unit(rng.random((n, len(self.unit_names))))
        return self.snap(self.polytope.walk(start, _WALK_STEPS, rng))

    @cached_property
    def corners(self) -> Floats:
        """Return corners ``[k, d]``; if there are very many, those in some fixed directions."""
        return self.polytope.corners(self.centre, _CORNERS, np.random.default_rng(0))

    def edges(self, n: int, rng: np.random.Generator) -> Floats:
        """Return ``n`` draws from corners, edges and faces of all dimensions: even mixes of corners.

        Box points at 0 and 1 would not do: with s sources, only one in 2**s is the corner of the last
        source.
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
        """Return ``n`` Dirichlet draws around a prior, pulled inside the bounds if necessary.

        Args:
            prior: Mean of the weights; parameters are drawn evenly.
            n: Number of draws.
            rng: Generator of the draws.
            concentration: Dirichlet parameters are ``concentration × weight``; large values are
                close to the prior.
            sparse_below: Weights below this become exact zeros (RegMix's swarm is 45% zeros).
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
        """Return the nearest point of the space for each row; rows inside are unchanged."""
        return self.snap(np.array([self.polytope.project(row, self.centre) for row in coordinates]))

    def near(self, coordinates: Floats, scale: float, n: int, rng: np.random.Generator) -> Floats:
        """Return ``n`` feasible neighbours of each row, at distances around ``scale``."""
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
        """Return draws that keep sums and fixed weights, but not other bounds."""
        drawn = self.snap(rng.random((n, len(self.names))))
        for path, cut in self.blocks().items():
            # A source of prior weight 0 would never be drawn, so it gets a thousandth.
            shape = np.maximum(centre[cut], 1e-3) * concentration
            gammas = np.maximum(rng.standard_gamma(np.tile(shape, (n, 1))), 1e-300)
            weights = gammas / gammas.sum(1, keepdims=True)
            weights = np.where(weights < sparse_below, 0.0, weights)
            drawn[:, cut] = self.mixtures[path].rescale(weights, centre[cut])
        return drawn

    def _pull(self, outside: Floats, inside: Floats) -> Floats:
        """Return weights moved towards those of ``inside`` until feasible; parameters are unchanged."""
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
    """Return plain floats that sum to one within rounding."""
    return [float(weight) for weight in np.maximum(row, 0.0) / np.maximum(row, 0.0).sum()]
