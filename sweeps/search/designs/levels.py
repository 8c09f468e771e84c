"""Balance the levels of discrete parameters, and replace points that occur twice."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sweeps.search.space import Floats, Point, SearchSpace

__all__ = ["ENUMERATED", "balanced", "distinct", "spread"]

ENUMERATED = 4096
"""Largest number of points that are enumerated; a larger space is sampled."""

_DRAWS = 64


def spread(space: SearchSpace, n: int, taken: Floats, rng: np.random.Generator) -> Floats:
    """Return at most ``n`` points of a space of few points, none of them taken.

    Each step chooses the point whose levels were used least, among these the farthest from all before
    it, and among these a random one. Fewer points are a prefix.
    """
    everything = space.every()
    columns = [column for column, _ in space.discrete_levels]
    rows = everything[rng.permutation(len(everything))]
    rows = rows[~_among(rows, taken)]
    chosen: list[Floats] = []
    for _ in range(min(n, len(rows))):
        before = np.concatenate([taken, np.array(chosen).reshape(-1, rows.shape[1])])
        used = (np.abs(rows[:, None] - before[None]) < 1e-6)[..., columns].sum(axis=(1, 2))
        far = np.abs(rows[:, None] - before[None]).sum(axis=2).min(axis=1, initial=np.inf)
        best = int(np.lexsort((-far, used))[0])
        chosen.append(rows[best])
        rows = np.delete(rows, best, axis=0)
    return np.array(chosen).reshape(-1, everything.shape[1])


def balanced(space: SearchSpace, rows: Floats) -> Floats:
    """Return the rows with each level of a parameter used equally often, up to one.

    In order, each row gets the nearest of the levels that were used least. Fewer rows are a prefix.
    """
    levels = rows.copy()
    for column, count in space.discrete_levels:
        used = np.zeros(count)
        middles = (np.arange(count) + 0.5) / count
        for row in levels:
            least = np.flatnonzero(used == used.min())
            level = least[int(np.abs(middles[least] - row[column]).argmin())]
            used[level] += 1
            row[column] = middles[level]
    return levels


def distinct(
    space: SearchSpace,
    points: Iterable[Point],
    asked: set[tuple[float, ...]],
    seed: tuple[int, ...],
) -> list[Point]:
    """Return the points, with points that were used already replaced by others near them.

    If all points of the space were used, fewer points or none are returned.

    Args:
        space: Search space of the points.
        points: Requested points.
        asked: Keys of points that were used already (:meth:`SearchSpace.key`).
        seed: Seed of the draws of replacements.
    """
    seen, fresh = set(asked), []
    rng = np.random.default_rng(seed)
    for point in points:
        found = point if space.key(point) not in seen else _instead(space, point, seen, rng)
        if found is not None:
            seen.add(space.key(found))
            fresh.append(found)
    return fresh


def _instead(
    space: SearchSpace, point: Point, seen: set[tuple[float, ...]], rng: np.random.Generator
) -> Point | None:
    """Return an unused point near ``point``, from all points or from draws; None if there is none."""
    own = space.coordinates([point], check=False)
    if space.size is not None and space.size <= ENUMERATED:
        rows = space.every()
        order = np.abs(rows - own).sum(axis=1).argsort(kind="stable")
        candidates = space.points(rows[order])
    else:
        near = space.near(space.nearest(own), 0.05, _DRAWS, rng)
        candidates = space.points(np.concatenate([near, space.sample(_DRAWS, rng)]))
    return next((other for other in candidates if space.key(other) not in seen), None)


def _among(rows: Floats, taken: Floats) -> NDArray[np.bool_]:
    """Return a mask of the rows that are among ``taken``."""
    gaps = np.abs(rows[:, None] - taken[None]).max(axis=2, initial=0.0)
    found: NDArray[np.bool_] = (gaps < 1e-6).any(axis=1)
    return found
