"""Deal values that come in levels: each level as often as any other, no point twice."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from sweeps.search.space import Floats, Point, SearchSpace

__all__ = ["ENUMERATED", "balanced", "distinct", "spread"]

ENUMERATED = 4096
"""Largest number of points that is listed whole; a larger space is drawn from."""

_DRAWS = 64


def spread(space: SearchSpace, n: int, taken: Floats, rng: np.random.Generator) -> Floats:
    """Return at most ``n`` points of a space of few points, none of them taken.

    One at a time, the point whose levels were used least, then the farthest from all before it; draws
    decide between equals. Fewer points are a prefix.
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
    """Return the rows with each level of a parameter used as often as any other, give or take one.

    In the order of the rows, each keeps the nearest of the levels that were used least: fewer rows
    are a prefix.
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
    """Return the points, each that was asked already replaced by another near it.

    Where every point of the space was asked, there are fewer of them, or none.

    Args:
        space: Where they lie.
        points: What is wanted.
        asked: Keys of points that exist (:meth:`SearchSpace.key`).
        seed: Seed of the draws that replace.
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
    """Return the nearest point that was not asked, of all or of some draws; None without one."""
    here = space.coordinates([point], check=False)
    if space.size is not None and space.size <= ENUMERATED:
        rows = space.every()
        order = np.abs(rows - here).sum(axis=1).argsort(kind="stable")
        candidates = space.points(rows[order])
    else:
        near = space.near(space.nearest(here), 0.05, _DRAWS, rng)
        candidates = space.points(np.concatenate([near, space.sample(_DRAWS, rng)]))
    return next((other for other in candidates if space.key(other) not in seen), None)


def _among(rows: Floats, taken: Floats) -> NDArray[np.bool_]:
    """Return a mask of the rows that are among ``taken``."""
    gaps = np.abs(rows[:, None] - taken[None]).max(axis=2, initial=0.0)
    found: NDArray[np.bool_] = (gaps < 1e-6).any(axis=1)
    return found
