"""Collect the limits of a space from its mixtures and the epoch caps that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ablations.errors import ConfigError, Problem
from sweeps.search.space.caps import EpochCaps
from sweeps.search.space.polytope import Polytope
from sweeps.search.space.simplex import BoundedSimplex, Floats
from sweeps.search.space.specs import SearchSpaceSpec

__all__ = ["centre_of", "polytope_of", "shared_caps", "upper_bounds"]


def upper_bounds(spec: SearchSpaceSpec, path: str, caps: EpochCaps | None) -> dict[str, float]:
    """Return the largest weight of each source of one mixture if other mixtures read their least of it."""
    upper = {}
    for source in spec.mixtures[path].sources if caps else ():
        assert caps is not None
        others = sum(
            caps.share(other) * simplex.bounds(source)[0]
            for other, simplex in spec.mixtures.items()
            if other != path and source in simplex.sources
        )
        upper[source] = max(0.0, caps.limit(source) - others) / caps.share(path)
    return {source: bound for source, bound in upper.items() if bound < 1.0}


def shared_caps(
    mixtures: Mapping[str, BoundedSimplex], width: int, caps: EpochCaps | None
) -> list[tuple[Floats, float]]:
    """Return coefficients and limit of each epoch cap that several mixtures can exceed together."""
    if caps is None:
        return []
    found = []
    for source in dict.fromkeys(name for m in mixtures.values() for name in m.sources):
        row, most, start = np.zeros(width), 0.0, 0
        for path, mixture in mixtures.items():
            if source in mixture.sources:
                column = mixture.sources.index(source)
                row[start + column] = caps.share(path)
                most += caps.share(path) * mixture.high[column]
            start += len(mixture.sources)
        if np.count_nonzero(row) > 1 and most > caps.limit(source):
            found.append((row, caps.limit(source)))
    return found


def polytope_of(
    mixtures: Mapping[str, BoundedSimplex], parameters: int, shared: list[tuple[Floats, float]]
) -> Polytope:
    """Return bounds, sums, group weights and shared caps as limits on coordinates."""
    low = np.concatenate([*(m.low for m in mixtures.values()), np.zeros(parameters)])
    high = np.concatenate([*(m.high for m in mixtures.values()), np.ones(parameters)])
    sums: list[Floats] = []
    start = 0
    for mixture in mixtures.values():
        sums.append(_indicator(len(low), range(start, start + len(mixture.sources))))
        for columns, least, most in mixture.groups.values():
            row = _indicator(len(low), [start + column for column in columns])
            if most > least:
                shared = [*shared, (row, most), (-row, -least)]
            else:
                sums.append(row)
        start += len(mixture.sources)
    return Polytope(
        low=low,
        high=high,
        rows=np.array([row for row, _ in shared]).reshape(-1, len(low)),
        limits=np.array([limit for _, limit in shared]),
        sums=np.array(sums).reshape(-1, len(low)),
    )


def _indicator(width: int, columns: Iterable[int]) -> Floats:
    row = np.zeros(width)
    row[list(columns)] = 1.0
    return row


def centre_of(
    mixtures: Mapping[str, BoundedSimplex], parameters: int, polytope: Polytope, coupled: bool
) -> Floats:
    """Return a point inside: the mean of fixed draws, or the point with most slack if caps are shared."""
    rng = np.random.default_rng(0)
    draws = [m.from_unit(rng.random((256, len(m.unit_names)))).mean(0) for m in mixtures.values()]
    centre: Floats = np.concatenate([*draws, np.full(parameters, 0.5)])
    if not coupled or polytope.violation(centre[None])[0] <= 0.0:
        return centre
    slackest = _slackest(polytope, polytope.sums @ centre)
    slackest[len(slackest) - parameters :] = 0.5
    return slackest


def _slackest(polytope: Polytope, totals: Floats) -> Floats:
    """Return the point whose smallest distance to a limit is largest, by linear programming."""
    from scipy.optimize import linprog

    width = len(polytope.low)
    free = (polytope.high - polytope.low > 1e-12).astype(float)[:, None]
    eye = np.eye(width)
    result = linprog(
        np.r_[np.zeros(width), -1.0],
        A_ub=np.block(
            [
                [polytope.rows, np.linalg.norm(polytope.rows, axis=1, keepdims=True)],
                [eye, free],
                [-eye, free],
            ]
        ),
        b_ub=np.concatenate([polytope.limits, polytope.high, -polytope.low]),
        A_eq=np.c_[polytope.sums, np.zeros(len(totals))],
        b_eq=totals,
        bounds=[(None, None)] * width + [(0.0, None)],
    )
    if result.status != 0:
        raise ConfigError(
            Problem(
                "search.space",
                "no point keeps the epoch caps of all stages together",
                do="allow more epochs, widen bounds, or give the capped sources more tokens",
            )
        )
    centre: Floats = np.clip(result.x[:width], polytope.low, polytope.high)
    return centre
