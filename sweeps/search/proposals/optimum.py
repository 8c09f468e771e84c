"""Find the best point of a fitted model within all limits.

    even draws + edges and corners + runs so far ──▶ best few ──▶ ever shorter random steps
                                                                 ──▶ gradient descent ──▶ optimum

Optima of mixtures usually lie on faces (some sources at zero), which interior draws never reach.
Hence the edges, and a descent that moves along limits. For a model without slopes (trees) the result
of the random steps stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from sweeps.search.proposals.known_runs import Limit
from sweeps.search.space import Floats, SearchSpace

__all__ = ["Goal", "candidates", "optimise"]

_STEP = 1e-6
"""Step of finite differences, in weight."""

_SCALES = (0.1, 0.03, 0.01, 0.003)


class Predictor(Protocol):
    """Interface of a model that predicts metrics."""

    def predict(self, inputs: Floats) -> Floats:
        """Return means ``[n, t]``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Function to minimise: a predicted loss, a pull to the prior, and penalties of limits."""

    space: SearchSpace
    surrogate: Predictor
    weights: Floats
    """Weight of each metric in the loss, ``[t]``."""
    limits: tuple[Limit, ...] = ()
    """Bounds on predicted metrics."""
    prior: Mapping[str, Any] | None = None
    """Point that mixtures are pulled to."""
    pull: float = 0.0
    """Loss per nat of Kullback-Leibler divergence from the prior's mixtures."""

    def __call__(self, coordinates: Floats) -> Floats:
        """Return losses ``[n]``, less is better."""
        predicted = self.surrogate.predict(self.space.inputs(coordinates))
        losses = predicted @ self.weights
        for limit in self.limits:
            # So steep that a limit is kept within a thousandth of a metric's range.
            excess = np.maximum(0.0, predicted @ limit.weights - limit.bound)
            losses = losses + 1e3 * excess * float(np.abs(self.weights).sum())
        if self.prior is not None and self.pull > 0.0:
            losses = losses + self.pull * self._divergence(coordinates)
        return np.asarray(losses, dtype=np.float64)

    def _divergence(self, coordinates: Floats) -> Floats:
        assert self.prior is not None
        prior = self.space.coordinates([self.prior], check=False)[0]
        total = np.zeros(len(coordinates))
        for cut in self.space.blocks().values():
            weights = np.maximum(coordinates[:, cut], 1e-12)
            total += (weights * np.log(weights / np.maximum(prior[cut], 1e-6))).sum(axis=1)
        return total


def candidates(space: SearchSpace, seen: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Return even draws, edges and corners, the runs so far, and neighbours of these."""
    parts = [space.sample(n, rng), space.edges(n // 2, rng), space.centre[None]]
    if len(seen):
        inside = seen[space.polytope.violation(seen) <= 1e-9]
        parts += [inside, space.near(inside, 0.1, 4, rng)] if len(inside) else []
    return np.concatenate(parts)


def optimise(
    goal: Callable[[Floats], Floats],
    space: SearchSpace,
    drawn: Floats,
    rng: np.random.Generator,
    *,
    starts: int = 4,
) -> tuple[Floats, float]:
    """Return the coordinates ``[d]`` that minimise ``goal``, and its value there.

    Args:
        goal: Function that returns the losses ``[n]`` of coordinates ``[n, d]``.
        space: Space with the limits.
        drawn: Feasible candidates ``[n, d]`` to start from.
        rng: Generator of the random steps.
        starts: Number of candidates that are refined.
    """
    losses = goal(drawn)
    best, loss = drawn[losses.argmin()], float(losses.min())
    for start in _apart(drawn[np.argsort(losses)[:200]], starts):
        found, value = _refine(goal, space, start, rng)
        if value < loss:
            best, loss = found, value
    return _clean(goal, space, best, loss)


def _apart(ordered: Floats, n: int) -> Floats:
    """Return the first row and ``n - 1`` others, each far from those before it."""
    taken = [0]
    gaps = np.linalg.norm(ordered - ordered[0], axis=1)
    for _ in range(min(n, len(ordered)) - 1):
        taken.append(int(gaps.argmax()))
        gaps = np.minimum(gaps, np.linalg.norm(ordered - ordered[taken[-1]], axis=1))
    return ordered[taken]


def _refine(
    goal: Callable[[Floats], Floats], space: SearchSpace, start: Floats, rng: np.random.Generator
) -> tuple[Floats, float]:
    best, loss = start, float(goal(start[None])[0])
    for scale in _SCALES:
        around = space.near(best, scale, 60, rng)
        losses = goal(around)
        if losses.min() < loss:
            best, loss = around[losses.argmin()], float(losses.min())
    found, _ = space.polytope.descend(lambda x: _slope(goal, x), best)
    found = space.snap(found[None])[0]
    value = float(goal(found[None])[0])
    return (found, value) if value < loss else (best, loss)


def _slope(goal: Callable[[Floats], Floats], x: Floats) -> tuple[float, Floats]:
    """Return the value and its forward differences, from one prediction."""
    probes = np.concatenate([x[None], x + _STEP * np.eye(len(x))])
    losses = goal(probes)
    return float(losses[0]), (losses[1:] - losses[0]) / _STEP


def _clean(
    goal: Callable[[Floats], Floats], space: SearchSpace, best: Floats, loss: float
) -> tuple[Floats, float]:
    """Set weights below a thousandth to zero if the loss grows by no more than a thousandth."""
    rounded = best.copy()
    for cut in space.blocks().values():
        block = np.where(rounded[cut] < 1e-3, 0.0, rounded[cut])
        rounded[cut] = block / block.sum()
    inside = space.polytope.violation(rounded[None])[0] <= 1e-12
    sums = np.abs(space.polytope.sums @ (rounded - best)).max(initial=0.0) <= 1e-12
    if inside and sums:
        value = float(goal(rounded[None])[0])
        if value <= loss + 1e-3 * abs(loss):
            return rounded, value
    return best, loss
