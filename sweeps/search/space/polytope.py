"""Linear limits on a vector: even sampling, steps that stay inside, projection.

The walk is hit-and-run (Smith 1984): from a point, a random direction in the plane of the
equalities, then an even draw from the chord within the limits.
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
    """Points with ``low <= x <= high``, ``rows @ x <= limits``, and fixed sums of blocks."""

    low: Floats
    high: Floats
    rows: Floats
    """Coefficients ``[r, d]`` of the inequalities."""
    limits: Floats
    sums: Floats
    """Coefficients ``[q, d]`` of sums that a step must not change (each mixture sums to 1)."""
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
        # A column that cannot move has rounding errors here, which differ by machine.
        plane = np.where(np.abs(plane) < _SLACK, 0.0, plane)
        object.__setattr__(self, "plane", plane)

    def directions(self, n: int, rng: np.random.Generator) -> Floats:
        """Return ``n`` random unit vectors in the plane."""
        steps = rng.normal(size=(n, self.plane.shape[1])) @ self.plane.T
        length = np.linalg.norm(steps, axis=1, keepdims=True)
        scaled: Floats = steps / np.where(length > 0.0, length, 1.0)
        return scaled

    def chord(self, start: Floats, step: Floats) -> tuple[Floats, Floats]:
        """Return the smallest and the largest ``t`` for which ``start + t * step`` keeps all limits."""
        normals, bounds = self._limits()
        slack = np.maximum(0.0, bounds - start @ normals.T)
        speed = step @ normals.T
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = slack / speed
        ahead = np.where(speed > _SLACK, reach, np.inf).min(axis=1)
        behind = np.where(speed < -_SLACK, reach, -np.inf).max(axis=1)
        moving = np.isfinite(ahead) & np.isfinite(behind)
        return np.where(moving, behind, 0.0), np.where(moving, ahead, 0.0)

    def walk(self, start: Floats, steps: int, rng: np.random.Generator) -> Floats:
        """Return each row of ``start`` after ``steps`` hit-and-run steps: nearly even draws."""
        rows = start
        for _ in range(steps if self.plane.shape[1] else 0):
            step = self.directions(len(rows), rng)
            behind, ahead = self.chord(rows, step)
            rows = rows + (behind + rng.random(len(rows)) * (ahead - behind))[:, None] * step
        return np.clip(rows, self.low, self.high)

    def jitter(self, start: Floats, lengths: Floats, rng: np.random.Generator) -> Floats:
        """Return each row after one random step of the given length, cut at limits."""
        if not self.plane.shape[1]:
            return start
        step = self.directions(len(start), rng)
        _, ahead = self.chord(start, step)
        return np.clip(start + np.minimum(lengths, ahead)[:, None] * step, self.low, self.high)

    def pull(self, outside: Floats, inside: Floats) -> Floats:
        """Return rows moved towards ``inside`` until they keep the limits; others are unchanged."""
        origin = np.broadcast_to(inside, outside.shape)
        _, ahead = self.chord(origin, outside - origin)
        reach = np.where((outside == origin).all(axis=1), 1.0, np.minimum(1.0, ahead))[:, None]
        return np.where(reach >= 1.0, outside, origin + reach * (outside - origin))

    def descend(
        self, function: Callable[[Floats], tuple[float, Floats]], start: Floats
    ) -> tuple[Floats, float]:
        """Return a local minimum of a smooth function, and its value, from a feasible start.

        Sequential quadratic programming in coordinates of the plane keeps the sums by construction.

        Args:
            function: Returns value and gradient.
            start: Feasible point ``[d]``.
        """
        from scipy.optimize import minimize

        if not self.plane.shape[1]:
            return start, function(start)[0]
        normals, bounds = self._limits()
        slopes = -normals @ self.plane
        # A limit that no step can reach is left out: with a slope of 1e-17 the solver gave it a multiplier of
        # 3e15, and ended at another point than the nearest one.
        reached = np.abs(slopes).max(axis=1) > _SLACK
        slopes = slopes[reached]
        slack = np.maximum(0.0, bounds - normals @ start)[reached]

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
                "fun": lambda z: slack + slopes @ z,
                "jac": lambda z: slopes,
            },
            options={"ftol": 1e-10, "maxiter": 200},
        )
        # The solver keeps limits only within its tolerance, so the result is pulled inside.
        found = self.pull((start + self.plane @ result.x)[None], start)
        found = np.clip(found, self.low, self.high)[0]
        return found, function(found)[0]

    def corners(self, inside: Floats, n: int, rng: np.random.Generator) -> Floats:
        """Return corners ``[k, d]`` of the points with the sums of ``inside``, each once.

        Linear programmes in both directions of each axis find all extremes of coordinates; ``n``
        random directions find further corners.
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
        """Return the nearest point within the limits; the search starts at ``inside``."""
        equal = np.abs(self.sums @ (outside - inside)).max(initial=0.0) <= _SLACK
        if equal and self.violation(outside[None])[0] <= _SLACK:
            return outside
        return self.descend(
            lambda x: (0.5 * float(((x - outside) ** 2).sum()), x - outside), inside
        )[0]

    def violation(self, x: Floats) -> Floats:
        """Return the largest excess of each row over a limit; 0 if there is none."""
        gaps = [self.low - x, x - self.high, x @ self.rows.T - self.limits]
        worst: Floats = np.maximum(0.0, np.concatenate(gaps, axis=1).max(axis=1))
        return worst

    def _limits(self) -> tuple[Floats, Floats]:
        """Return normals and bounds of all limits, as ``normals @ x <= bounds``."""
        eye = np.eye(len(self.low))
        return (
            np.concatenate([-eye, eye, self.rows]),
            np.concatenate([-self.low, self.high, self.limits]),
        )
