"""Space-filling and optimal designs on a search space, the same for the same seed.

sobol        low-discrepancy points of the unit box, mapped onto the bounded simplexes
sobol-edges  those, alternating with points of corners, edges and faces far from all before them
dirichlet    draws around a prior, small weights made exact zeros (RegMix's swarm)
maximin      draws chosen so that the smallest distance between two is largest
d-optimal    draws chosen so that the least-squares fit of a feature map is most certain
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
"""Names of the designs."""

_CANDIDATES_PER_POINT = 24
"""Draws that maximin and D-optimal designs choose from, per requested point."""

_EDGE_CANDIDATES = 1000
"""Draws from corners, edges and faces; independent of the size, so that smaller designs are prefixes."""


@dataclass(frozen=True, kw_only=True)
class DesignOptions:
    """Options of the designs other than Sobol's."""

    prior: Mapping[str, Any] | None = None
    """Mean of the Dirichlet draws; the middle of the space if None."""
    concentration: float = 4.0
    """Dirichlet parameters are ``concentration × prior weight``."""
    sparse_below: float = 0.0
    """Weights below this become exact zeros in Dirichlet draws."""
    features: Callable[[Floats], Floats] | None = None
    """Feature map of the D-optimal design; :func:`blending` if None."""


def design(
    space: SearchSpace,
    kind: str,
    n: int,
    *,
    seed: int,
    taken: Floats | None = None,
    options: DesignOptions | None = None,
) -> list[Point]:
    """Return ``n`` different points of one design, or fewer if the space has fewer.

    Each level of a discrete parameter is used equally often. A space of few points is enumerated,
    whatever the design.

    Args:
        space: Search space of the points.
        kind: One of :data:`DESIGNS`.
        n: Number of points.
        seed: The same seed gives the same points, and fewer points of a ``sobol`` or
            ``sobol-edges`` design are a prefix.
        taken: Coordinates ``[k, d]`` that are run anyway (baselines). Designs that use distances or
            the information of runs take them into account.
        options: Prior, sparsity, features.

    Raises:
        ConfigError: an unknown design, or a negative number of points.
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
    # The D-optimal choice takes levels into account itself.
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
    """Return coordinates of a design's points, before levels are balanced."""
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
    """Return linear terms and products of pairs: Scheffé's quadratic blending model."""
    first, second = np.triu_indices(inputs.shape[1], 1)
    return np.concatenate([inputs, inputs[:, first] * inputs[:, second]], axis=1)


def distances(space: SearchSpace, left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return distances among ``left``, and from ``left`` to ``right``, between roots of inputs.

    With square roots (Hellinger's distance) the step from 0 to 1% is as large as its effect on a model.
    """
    first, second = _roots(space, left), _roots(space, right)
    return _euclid(first, first), _euclid(first, second)


def _roots(space: SearchSpace, coordinates: Floats) -> Floats:
    roots: Floats = np.sqrt(np.maximum(space.inputs(coordinates), 0.0))
    return roots


def _by_turns(
    space: SearchSpace, inner: Floats, n: int, taken: Floats, rng: np.random.Generator
) -> Floats:
    """Alternate inner points, in order, with the edge candidate farthest from all before it."""
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
        # A study may request any number of points, so the balance of powers of two is given up.
        warnings.filterwarnings("ignore", message="The balance properties of Sobol")
        box = qmc.Sobol(width, seed=np.random.default_rng((seed, 17))).random(n)
    return space.from_unit(box)
