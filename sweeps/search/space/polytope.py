"""Linear limits on a vector: even sampling, steps that stay inside, the way back in.

The walk is hit-and-run (Smith 1984): from a point, a random direction in the plane of the
equalities, then an even draw from the chord that the limits leave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sweeps.search.space.simplex import Floats

__all__ = ["Polytope"]

_SLACK = 1e-12


@dataclass(frozen=True, kw_only=True)
class Polytope:
    """``low <= x <= high``, ``rows @ x <= limits``, and sums of blocks that stay what they are."""

    low: Floats
    high: Floats
    rows: Floats
    """Coefficients ``[r, d]`` of the inequalities."""
    limits: Floats
    sums: Floats
    """Coefficients ``[q, d]`` of what a step must not change (each mixture sums to 1)."""
    plane: Floats = field(init=False)
    """Basis ``[d, k]`` of the directions that keep the sums and the fixed columns."""

    def __post_init__(self) -> None:
        fixed = np.eye(len(self.low))[self.high - self.low <= _SLACK]
        kept = np.concatenate([self.sums, fixed])
        if not len(kept):
            plane = np.eye(len(self.low))
        else:
            _, singular, right = np.linalg.svd(kept, full_matrices=True)
            plane = right[int((singular > 1e-10).sum()) :].T
        object.__setattr__(self, "plane", plane)

    def directions(self, n: int, rng: np.random.Generator) -> Floats:
        """``n`` random unit vectors in the plane."""
        steps = rng.normal(size=(n, self.plane.shape[1])) @ self.plane.T
        length = np.linalg.norm(steps, axis=1, keepdims=True)
        scaled: Floats = steps / np.where(length > 0.0, length, 1.0)
        return scaled

    def chord(self, start: Floats, step: Floats) -> tuple[Floats, Floats]:
        """The multiples of ``step`` between which ``start + t * step`` keeps every limit."""
        normals, bounds = self._limits()
        room = np.maximum(0.0, bounds - start @ normals.T)
        speed = step @ normals.T
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = room / speed
        ahead = np.where(speed > _SLACK, reach, np.inf).min(axis=1)
        behind = np.where(speed < -_SLACK, reach, -np.inf).max(axis=1)
        moving = np.isfinite(ahead) & np.isfinite(behind)
        return np.where(moving, behind, 0.0), np.where(moving, ahead, 0.0)

    def walk(self, start: Floats, steps: int, rng: np.random.Generator) -> Floats:
        """Every row of ``start`` after so many hit-and-run steps: nearly even draws."""
        here = start
        for _ in range(steps if self.plane.shape[1] else 0):
            step = self.directions(len(here), rng)
            behind, ahead = self.chord(here, step)
            here = here + (behind + rng.random(len(here)) * (ahead - behind))[:, None] * step
        return np.clip(here, self.low, self.high)

    def jitter(self, start: Floats, lengths: Floats, rng: np.random.Generator) -> Floats:
        """One random step of the given length from every row, cut where a limit is met."""
        if not self.plane.shape[1]:
            return start
        step = self.directions(len(start), rng)
        _, ahead = self.chord(start, step)
        return np.clip(start + np.minimum(lengths, ahead)[:, None] * step, self.low, self.high)

    def pull(self, outside: Floats, inside: Floats) -> Floats:
        """Rows moved towards ``inside`` just as far as the limits ask; rows within stay put."""
        origin = np.broadcast_to(inside, outside.shape)
        _, ahead = self.chord(origin, outside - origin)
        reach = np.where((outside == origin).all(axis=1), 1.0, np.minimum(1.0, ahead))[:, None]
        return np.where(reach >= 1.0, outside, origin + reach * (outside - origin))

    def descend(
        self, function: Callable[[Floats], tuple[float, Floats]], start: Floats
    ) -> tuple[Floats, float]:
        """A local minimum of a smooth function (value and gradient), from a feasible start.

        Sequential quadratic programming in coordinates of the plane: sums hold by construction.
        """
        from scipy.optimize import minimize

        if not self.plane.shape[1]:
            return start, function(start)[0]
        normals, bounds = self._limits()
        slopes = -normals @ self.plane
        room = np.maximum(0.0, bounds - normals @ start)

        def along(z: Floats) -> tuple[float, Floats]:
            value, gradient = function(np.clip(start + self.plane @ z, self.low, self.high))
            return value, self.plane.T @ gradient

        result = minimize(
            along,
            np.zeros(self.plane.shape[1]),
            jac=True,
            method="SLSQP",
            constraints={
                "type": "ineq",
                "fun": lambda z: room + slopes @ z,
                "jac": lambda z: slopes,
            },
            options={"ftol": 1e-10, "maxiter": 200},
        )
        # The solver keeps limits to its own tolerance: the last rounding is ours.
        found = self.pull((start + self.plane @ result.x)[None], start)
        found = np.clip(found, self.low, self.high)[0]
        return found, function(found)[0]

    def corners(self, inside: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Corners ``[k, d]`` of the points with the sums of ``inside``.

        One linear programme each towards and away from every axis and for ``n`` random directions,
        so that no coordinate's largest value is missed; a corner found twice is kept once.
        """
        from scipy.optimize import linprog

        axes = np.eye(len(self.low))
        found = [
            linprog(
                -towards,
                A_ub=self.rows if len(self.rows) else None,
                b_ub=self.limits if len(self.rows) else None,
                A_eq=self.sums if len(self.sums) else None,
                b_eq=self.sums @ inside if len(self.sums) else None,
                bounds=np.stack([self.low, self.high], axis=1),
            )
            for towards in np.concatenate([axes, -axes, rng.normal(size=(n, len(axes)))])
        ]
        solved = np.array([result.x for result in found if result.status == 0])
        tidy = self.pull(np.clip(solved, self.low, self.high), inside)
        _, first = np.unique(tidy.round(9), axis=0, return_index=True)
        corners: Floats = tidy[np.sort(first)]
        return corners

    def project(self, outside: Floats, inside: Floats) -> Floats:
        """The nearest point within the limits, found from ``inside``."""
        equal = np.abs(self.sums @ (outside - inside)).max(initial=0.0) <= _SLACK
        if equal and self.violation(outside[None])[0] <= _SLACK:
            return outside
        return self.descend(
            lambda x: (0.5 * float(((x - outside) ** 2).sum()), x - outside), inside
        )[0]

    def violation(self, x: Floats) -> Floats:
        """Largest excess over a limit of every row; 0 where there is none."""
        gaps = [self.low - x, x - self.high, x @ self.rows.T - self.limits]
        worst: Floats = np.maximum(0.0, np.concatenate(gaps, axis=1).max(axis=1))
        return worst

    def _limits(self) -> tuple[Floats, Floats]:
        """Every limit as ``normals @ x <= bounds``."""
        eye = np.eye(len(self.low))
        return (
            np.concatenate([-eye, eye, self.rows]),
            np.concatenate([-self.low, self.high, self.limits]),
        )
