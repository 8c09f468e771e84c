"""Use of earlier runs in a search: the design for a new source, and the check of what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sweeps.search.proposals import Evidence
from sweeps.search.proposals.model_averaging import prefer
from sweeps.search.proposals.propose import families_for
from sweeps.search.proposals.rung_policy import LEAST_RANK
from sweeps.search.space import Floats, Point, SearchSpace
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.study import old_runs

__all__ = ["DESIGN_RUNS", "FEWEST_RUNS", "design_for", "judge_reuse", "reuse_sentence"]

DESIGN_RUNS = 16
"""Designed runs of a search that keeps old runs: as good as 128 started over (RegMix, a source added)."""

FEWEST_RUNS = 8
"""Fewest new runs that the old ones are judged on."""


def design_for(
    space: SearchSpace, points: Sequence[Point], added: Mapping[str, Sequence[str]]
) -> list[Point]:
    """Return the design with the weights of new sources spread over what the space allows.

    The new sources take turns. The other weights keep their ratios. A point that would leave the space
    stays as it is.

    Args:
        space: Search space.
        points: Points of the ordinary design.
        added: Searched path → sources that no old run has read.
    """
    turns = [(path, name) for path, names in added.items() for name in names]
    if not turns:
        return list(points)
    made = []
    for number, point in enumerate(points):
        path, name = turns[number % len(turns)]
        low, high = _range(space, path, name)
        place = (number // len(turns) + 0.5) / max(1, -(-len(points) // len(turns)))
        moved = _with_weight(point, path, name, low + place * (high - low))
        made.append(moved if space.contains(moved) else point)
    return made


def _range(space: SearchSpace, path: str, name: str) -> tuple[float, float]:
    """Return the smallest and largest weight of a source in the space."""
    column = space.blocks()[path].start + space.mixtures[path].sources.index(name)
    weights = space.corners[:, column]
    return float(weights.min()), float(weights.max())


def _with_weight(point: Point, path: str, name: str, weight: float) -> Point:
    before = point[path]
    assert isinstance(before, dict)
    rest = 1.0 - before[name]
    others = {source: value for source, value in before.items() if source != name}
    if rest > 0.0:
        scaled = {source: value * (1.0 - weight) / rest for source, value in others.items()}
    else:
        scaled = dict.fromkeys(others, (1.0 - weight) / max(1, len(others)))
    return {**point, path: {source: {**scaled, name: weight}[source] for source in before}}


def judge_reuse(space: SearchSpace, evidence: Evidence, new: int, seed: int) -> dict[str, Any]:
    """Compare predictions of the new runs with and without the old ones, each run left out in turn.

    Args:
        space: Search space.
        evidence: New runs first, then old ones.
        new: Number of new runs.
        seed: Seed of the study.

    Returns:
        ``used``, the rank correlations ``with_old`` and ``without_old``, and both numbers of runs.
    """
    alone = evidence.first(new)
    kept = _left_out_rank(space, evidence, new, seed)
    return {
        "new_runs": new,
        "old_runs": len(evidence.values) - new,
        "with_old": kept,
        "without_old": _left_out_rank(space, alone, new, seed),
        "used": kept >= LEAST_RANK,
    }


def _left_out_rank(space: SearchSpace, evidence: Evidence, new: int, seed: int) -> float:
    model = prefer(space, evidence, families_for(evidence), seed)
    assert model.left_out is not None
    errors: Floats = model.left_out[:new]
    actual = evidence.values[:new] @ evidence.objectives[0]
    predicted = (evidence.values[:new] + errors) @ evidence.objectives[0]
    known = np.isfinite(actual) & np.isfinite(predicted)
    if evidence.rungs is not None:  # scores of different rungs do not compare
        kinds = np.unique(evidence.rungs[:new], axis=0, return_inverse=True)[1].reshape(-1)
        known &= kinds == np.bincount(kinds).argmax()
    return rank_correlation(predicted[known], actual[known])


def reuse_sentence(evidence: old_runs.Evidence) -> str:
    """Return what the old runs were worth, in one sentence."""
    check = evidence.check
    if check is None:
        return (
            f"{len(evidence.runs)} old runs are part of the fit; the design will show their worth"
        )
    ranks = (
        f"rank correlation of the {check['new_runs']} new runs, left out one at a time: "
        f"{check['with_old']:.2f} with the {check['old_runs']} old runs, "
        f"{check['without_old']:.2f} without"
    )
    if check["used"]:
        return f"old runs are kept ({ranks})"
    return f"old runs are not used, the search starts over ({ranks}, needed {LEAST_RANK})"
