"""Space-filling and optimal designs on a search space, the same for the same seed.

sobol        low-discrepancy points of the unit box, carried onto the bounded simplexes
sobol-edges  those, by turns with points of corners, edges and faces far from everything before
dirichlet    draws around a prior, small weights made exact zeros (RegMix's swarm)
maximin      draws thinned until the smallest distance between two is largest
d-optimal    rows that make the least-squares fit of a feature map most certain
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ablations.errors import ConfigError, Problem, unknown_name
from sweeps.search.designs.d_optimal import d_optimal, maximin
from sweeps.search.designs.levels import ENUMERATED, balanced, distinct, spread
from sweeps.search.space import Floats, Point, SearchSpace

__all__ = ["DESIGNS", "Design", "DesignOptions", "blending", "design", "distances"]

Design = Literal["sobol", "dirichlet", "maximin", "d-optimal", "sobol-edges"]

DESIGNS: tuple[str, ...] = get_args(Design)
"""Names that :func:`design` knows."""

_CANDIDATES_PER_POINT = 24
"""Draws that maximin and D-optimal designs choose from, per point asked for."""


_EDGE_CANDIDATES = 1000
"""Draws from corners, edges and faces: as many for every size, so that sizes share their beginning."""


@dataclass(frozen=True, kw_only=True)
class DesignOptions:
    """What the designs other than Sobol's want to know."""

    prior: Mapping[str, Any] | None = None
    """Mean of the Dirichlet draws; the middle of the space where it is not said."""
    concentration: float = 4.0
    """Dirichlet parameters are ``concentration × prior weight``."""
    sparse_below: float = 0.0
    """Weights under this become exact zeros in Dirichlet draws."""
    features: Callable[[Floats], Floats] | None = None
    """Feature map of the D-optimal design; linear and pairwise blending terms when None."""


def design(
    space: SearchSpace,
    kind: str,
    n: int,
    *,
    seed: int,
    taken: Floats | None = None,
    options: DesignOptions | None = None,
) -> list[Point]:
    """Return ``n`` points of one design, none of them twice; fewer where the space has fewer.

    Parameters that come in levels use each level as often as any other. A space of few points is
    taken point by point, whatever the design.

    Args:
        space: Where they lie.
        kind: One of :data:`DESIGNS`.
        n: How many.
        seed: The same seed gives the same points, and fewer points of a ``sobol`` or
            ``sobol-edges`` design are a prefix.
        taken: Coordinates that are run anyway (baselines): the designs that look at distances or at
            the information of runs fill around them.
        options: Prior, sparsity, features.

    Raises:
        ConfigError: an unknown design.
    """
    if kind not in DESIGNS:
        raise ConfigError(unknown_name("search.design", "design", kind, DESIGNS))
    if n < 0:
        raise ConfigError(Problem("search.design", "a negative number of points", found=n))
    rng = np.random.default_rng((seed, DESIGNS.index(kind)))
    already = np.zeros((0, len(space.names))) if taken is None else taken
    if space.size is not None and space.size <= ENUMERATED:
        return space.points(spread(space, n, already, rng))
    rows = _rows(space, kind, n, seed, already, rng, options or DesignOptions())
    # The D-optimal choice weighs levels itself.
    levelled = rows if kind == "d-optimal" else balanced(space, rows)
    asked = {space.key(point) for point in space.points(already)} if len(already) else set()
    return distinct(space, space.points(levelled), asked, (seed,))


def _rows(
    space: SearchSpace,
    kind: str,
    n: int,
    seed: int,
    taken: Floats,
    rng: np.random.Generator,
    options: DesignOptions,
) -> Floats:
    """Return coordinates of a design's points, before levels are looked at."""
    if kind == "sobol":
        return _sobol(space, n, seed)
    if kind == "sobol-edges":
        return _by_turns(space, _sobol(space, n - n // 2, seed), n, taken, rng)
    if kind == "dirichlet":
        prior = options.prior or space.points(space.centre[None])[0]
        return space.around(
            prior,
            n,
            rng,
            concentration=options.concentration,
            sparse_below=options.sparse_below,
        )
    drawn = space.sample(max(64, _CANDIDATES_PER_POINT * n), rng)
    if kind == "maximin":
        return drawn[maximin(distances(space, drawn, taken), n)]
    drawn = np.concatenate([drawn, space.edges(len(drawn) // 2, rng)])
    features = options.features or blending
    rows = features(space.inputs(drawn))
    fixed = features(space.inputs(taken)) if len(taken) else np.zeros((0, rows.shape[1]))
    return drawn[d_optimal(rows, n, fixed)]


def blending(inputs: Floats) -> Floats:
    """Linear terms and products of pairs: Scheffé's quadratic blending model."""
    first, second = np.triu_indices(inputs.shape[1], 1)
    return np.concatenate([inputs, inputs[:, first] * inputs[:, second]], axis=1)


def distances(space: SearchSpace, left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Distances among ``left``, and from ``left`` to ``right``, between square roots of inputs.

    Square roots make a step from 0 to 1% as long as it is for a model: Hellinger's distance.
    """
    here, there = _roots(space, left), _roots(space, right)
    return _euclid(here, here), _euclid(here, there)


def _roots(space: SearchSpace, coordinates: Floats) -> Floats:
    roots: Floats = np.sqrt(np.maximum(space.inputs(coordinates), 0.0))
    return roots


def _by_turns(
    space: SearchSpace, inner: Floats, n: int, taken: Floats, rng: np.random.Generator
) -> Floats:
    """Inner points in their order, after each the outermost candidate farthest from all so far."""
    drawn = np.concatenate([space.snap(space.corners), space.edges(_EDGE_CANDIDATES, rng)])
    roots = _roots(space, drawn)
    gaps = _euclid(roots, _roots(space, taken)).min(axis=1, initial=np.inf)
    rows: list[Floats] = []
    for turn in range(n):
        rows.append(inner[turn // 2] if turn % 2 == 0 else drawn[int(gaps.argmax())])
        gaps = np.minimum(gaps, _euclid(roots, _roots(space, rows[-1][None]))[:, 0])
    return np.array(rows).reshape(n, len(space.names))


def _euclid(left: Floats, right: Floats) -> Floats:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2.0 * left @ right.T
    lengths: Floats = np.sqrt(np.maximum(squares, 0.0))
    return lengths


def _sobol(space: SearchSpace, n: int, seed: int) -> Floats:
    from scipy.stats import qmc

    width = len(space.unit_names)
    if width == 0 or n == 0:
        return np.tile(space.centre, (n, 1))
    with warnings.catch_warnings():
        # Balance of powers of two is given up on purpose: a study asks for any number of points.
        warnings.filterwarnings("ignore", message="The balance properties of Sobol")
        box = qmc.Sobol(width, seed=np.random.default_rng((seed, 17))).random(n)
    return space.from_unit(box)
