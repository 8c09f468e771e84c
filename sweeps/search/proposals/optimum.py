"""The best point of a fitted model, inside every limit.

    even draws + edges and corners + runs so far ──▶ best few ──▶ random steps, ever shorter
                                                                 ──▶ descent by slopes ──▶ optimum

Optima of mixtures sit on faces (some sources at zero) more often than not, which interior draws
never hit: hence the edges, and a descent that slides along limits. A model without slopes (trees)
keeps what the random steps found.
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
    """Whatever predicts metrics ``[n, t]`` of a surrogate's inputs."""

    def predict(self, inputs: Floats) -> Floats:
        """Means."""
        ...


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is minimised: a predicted loss, a pull to the prior, and what limits forbid."""

    space: SearchSpace
    surrogate: Predictor
    weights: Floats
    """Weight of every metric in the loss, ``[t]``."""
    limits: tuple[Limit, ...] = ()
    """Bounds on predicted metrics."""
    prior: Mapping[str, Any] | None = None
    """Point that mixtures are pulled to."""
    pull: float = 0.0
    """Loss per nat of Kullback-Leibler divergence from the prior's mixtures."""

    def __call__(self, coordinates: Floats) -> Floats:
        """Losses ``[n]``, less is better."""
        predicted = self.surrogate.predict(self.space.inputs(coordinates))
        losses = predicted @ self.weights
        for limit in self.limits:
            # Steep enough that a limit is kept to a thousandth of what a metric varies by.
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
    """Even draws, edges and corners, the runs so far, and neighbours of these."""
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
    """Coordinates of the smallest ``goal`` and its value.

    Args:
        goal: Losses of coordinates.
        space: The limits.
        drawn: Feasible candidates to start from.
        rng: Source of the random steps.
        starts: Candidates that are refined.
    """
    losses = goal(drawn)
    best, loss = drawn[losses.argmin()], float(losses.min())
    for start in _apart(drawn[np.argsort(losses)[:200]], starts):
        found, value = _refine(goal, space, start, rng)
        if value < loss:
            best, loss = found, value
    return _clean(goal, space, best, loss)


def _apart(ordered: Floats, n: int) -> Floats:
    """The first row, then rows of the list far from those taken."""
    taken = [0]
    gaps = np.linalg.norm(ordered - ordered[0], axis=1)
    for _ in range(min(n, len(ordered)) - 1):
        taken.append(int(gaps.argmax()))
        gaps = np.minimum(gaps, np.linalg.norm(ordered - ordered[taken[-1]], axis=1))
    return ordered[taken]


def _refine(
    goal: Callable[[Floats], Floats], space: SearchSpace, start: Floats, rng: np.random.Generator
) -> tuple[Floats, float]:
    here, loss = start, float(goal(start[None])[0])
    for scale in _SCALES:
        around = space.near(here, scale, 60, rng)
        losses = goal(around)
        if losses.min() < loss:
            here, loss = around[losses.argmin()], float(losses.min())
    found, _ = space.polytope.descend(lambda x: _slope(goal, x), here)
    found = space.snap(found[None])[0]
    value = float(goal(found[None])[0])
    return (found, value) if value < loss else (here, loss)


def _slope(goal: Callable[[Floats], Floats], x: Floats) -> tuple[float, Floats]:
    """Value and forward differences, all in one prediction."""
    probes = np.concatenate([x[None], x + _STEP * np.eye(len(x))])
    losses = goal(probes)
    return float(losses[0]), (losses[1:] - losses[0]) / _STEP


def _clean(
    goal: Callable[[Floats], Floats], space: SearchSpace, best: Floats, loss: float
) -> tuple[Floats, float]:
    """Weights under a thousandth made exact zeros, where that costs nothing that could be seen."""
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
