"""Score of a swarm: the metrics that it is the mean of, and the runs that have them all."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ablations.errors import ConfigError, Problem
from sweeps.swarm.swarm_tables import Swarm, is_bookkeeping

__all__ = ["complete_runs", "score_columns"]

_FAR_SCALE = 10.0
"""Ratio of levels or spreads from which on a metric is on another scale. The 110 metrics of Olmix are
within 4.4 of their median, RegMix's losses within 2; a perplexity beside losses is not."""


def score_columns(swarm: Swarm, target: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return the columns of the score, and a note for each kind of metric that matches and is left out.

    A metric that ``target`` names in full is taken as it is. Of those that a pattern matches, columns
    of bookkeeping, empty ones and ones on another scale are left out: each could dominate the mean.

    Args:
        swarm: Mixtures and the metrics of their runs.
        target: Patterns of metrics.

    Raises:
        ConfigError: no metric is left, or there is no common scale.
    """
    matched = [
        column
        for column, name in enumerate(swarm.metrics)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in target)
    ]
    if not matched:
        raise ConfigError(
            Problem(
                "target",
                "matches no metric",
                found=", ".join(target),
                allowed=", ".join(swarm.metrics[:12]),
            )
        )
    asked = [column for column in matched if swarm.metrics[column] in target]
    empty = [c for c in matched if not np.isfinite(swarm.values[:, c]).any()]
    if named := [swarm.metrics[column] for column in empty if column in asked]:
        raise ConfigError(Problem("target", "no run has a value", found=", ".join(named)))
    kept = [c for c in matched if c not in empty]
    made = [c for c in kept if c not in asked and is_bookkeeping(swarm.metrics[c])]
    kept = [c for c in kept if c not in made]
    odd = [c for c in _other_scale(swarm, kept) if c not in asked]
    if len(odd) > (len(kept) - 1) // 2:
        raise ConfigError(_scales(swarm, kept))
    kept = [c for c in kept if c not in odd]
    notes = [
        f"left out of the score: {', '.join(swarm.metrics[c] for c in columns)} ({why})"
        for columns, why in (
            (empty, "no run has a value"),
            (made, "describes how a run was made"),
            (odd, "on another scale than the rest; name it in target to take it"),
        )
        if columns
    ]
    if not kept:
        raise ConfigError(
            Problem("target", "no metric is left", found="; ".join(notes), do="name one in target")
        )
    return kept, notes


def _other_scale(swarm: Swarm, columns: Sequence[int]) -> list[int]:
    """Return the columns whose level or spread over the runs is far from that of most columns."""
    if len(columns) < 2:
        return []
    values = swarm.values[:, columns]
    sizes = [np.abs(np.nanmedian(values, axis=0)), np.nanstd(values, axis=0)]
    # Of two columns the smaller sets the scale; the other one is then no minority, and is refused.
    middle = (len(columns) - 1) // 2
    ratios = np.array([size / max(float(np.sort(size)[middle]), 1e-12) for size in sizes])
    largest = ratios.max(axis=0)
    far = (largest > _FAR_SCALE) | (largest < 1.0 / _FAR_SCALE)
    return [column for column, odd in zip(columns, far, strict=True) if odd]


def _scales(swarm: Swarm, columns: Sequence[int]) -> Problem:
    """Return the problem of metrics without a common scale: their mean would be that of the largest."""
    shown = [
        f"{swarm.metrics[c]} about {np.nanmedian(swarm.values[:, c]):.3g}" for c in columns[:6]
    ]
    return Problem(
        "target",
        "metrics on different scales: the largest would decide their mean",
        found=", ".join(shown),
        do="name those of the score in target",
    )


def complete_runs(swarm: Swarm, columns: Sequence[int], least: int) -> NDArray[np.bool_]:
    """Return a mask of the runs that have every metric of the score.

    Args:
        swarm: Mixtures and the metrics of their runs.
        columns: Columns of the score.
        least: Fewest such runs.

    Raises:
        ConfigError: fewer than ``least``, with the metrics that most runs lack.
    """
    known = np.isfinite(swarm.values[:, columns])
    complete: NDArray[np.bool_] = np.asarray(known.all(axis=1))
    if complete.sum() >= least:
        return complete
    lacking = {
        swarm.metrics[column]: int((~some).sum())
        for column, some in zip(columns, known.T, strict=True)
        if not some.all()
    }
    worst = sorted(lacking.items(), key=lambda item: -item[1])[:5]
    shown = "; ".join(f"{name!r} is missing in {count} runs" for name, count in worst)
    raise ConfigError(
        Problem(
            "swarm",
            "too few runs have every metric of the score",
            found=f"{int(complete.sum())} of {len(complete)}" + (f": {shown}" if shown else ""),
            allowed=f"at least {least}",
            do="leave a metric out with target=[…], or fill the table",
        )
    )
