"""Baselines as points of a search space: natural, uniform, UniMax.

Learned mixtures lose to them so often (UtiliMax, Aioli) that each study runs them first. A baseline
outside the bounds or caps is replaced by the nearest point inside. Other parameters keep the values
of the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ablations.errors import ConfigError
from ablations.mixture.mixture import Mixture, natural, uniform, unimax
from sweeps.search.space import BoundedSimplex, EpochCaps, Point, SearchSpace

__all__ = ["baselines", "own_point"]


def baselines(
    space: SearchSpace,
    tokens: Mapping[str, float] | None = None,
    caps: EpochCaps | None = None,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Point]:
    """Return name → point for each baseline that can be computed; duplicates are left out.

    Args:
        space: Search space of the points.
        tokens: Available tokens per source; if None, uniform is the only baseline.
        caps: Epoch caps at the full budget; if None, there is no UniMax.
        own: Config path of a parameter → the config's own value, which a baseline keeps; see
            :func:`own_point`.
    """
    around = own_point(space, own)
    named: dict[str, Point] = {}
    for name in ("natural", "uniform", "unimax"):
        mixtures = {
            path: _mixture(name, simplex, path, tokens, caps)
            for path, simplex in space.mixtures.items()
        }
        if not mixtures or any(mixture is None for mixture in mixtures.values()):
            continue
        point = _inside(space, around, {path: m for path, m in mixtures.items() if m is not None})
        if not any(_same(space, point, other) for other in named.values()):
            named[name] = point
    return named


def _mixture(
    name: str,
    simplex: BoundedSimplex,
    path: str,
    tokens: Mapping[str, float] | None,
    caps: EpochCaps | None,
) -> Mixture | None:
    if name == "uniform":
        return uniform(simplex.sources)
    if tokens is None or any(tokens.get(source, 0.0) <= 0.0 for source in simplex.sources):
        return None
    known = {source: tokens[source] for source in simplex.sources}
    if name == "natural":
        return natural(known)
    if caps is None:
        return None
    budget = caps.full_tokens * caps.share(path)
    try:
        return unimax(known, budget_tokens=budget, max_epochs=caps.max_epochs)
    except ConfigError:
        # No mixture of these sources fills the budget under the cap, so UniMax does not exist.
        return None


def _same(space: SearchSpace, left: Point, right: Point) -> bool:
    gaps = space.coordinates([left]) - space.coordinates([right])
    return float(np.abs(gaps).max()) < 1e-6


def own_point(space: SearchSpace, own: Mapping[str, Any] | None = None) -> Point:
    """Return the config as a point: weights at the centre, parameters at their own values.

    A value outside its range becomes the nearest one inside, or the middle one if none is nearest.
    """
    middle = space.points(space.centre[None])[0]
    kept: Point = {
        path: parameter.nearest(own[path])
        for path, parameter in space.parameters.items()
        if own is not None and path in own
    }
    return {**middle, **kept}


def _inside(space: SearchSpace, around: Point, mixtures: Mapping[str, Mixture]) -> Point:
    wanted: Point = {**around, **{path: dict(mixture) for path, mixture in mixtures.items()}}
    inside = space.points(space.nearest(space.coordinates([wanted], check=False)))[0]
    # Coordinates round the last digits of a value, and another digit would make another run.
    return {path: inside[path] if path in mixtures else around[path] for path in inside}
