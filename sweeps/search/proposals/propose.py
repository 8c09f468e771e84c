"""Propose points to run next, and recommend one: pure functions of the evidence and a seed.

A batch of five, from the surrogate that cross-validation prefers::

    1 optimum of the fitted loss ─▶ 2, 3, 4 near-optimal points far from all others ─▶ 5 exploration

    evidence = Evidence.of(space, points, losses, pending=running)
    next_points = propose(space, evidence, 5, seed=study_seed)
    chosen = pick(space, evidence, seed=study_seed)          # at the end; confirm with replicates

The number of runs is part of the seed. So a study that was killed and resumed makes the same
proposals, and a later batch differs from an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.search.designs.design import distances
from sweeps.search.proposals.known_runs import Evidence
from sweeps.search.proposals.model_averaging import Preferred, prefer
from sweeps.search.proposals.optimum import Goal, candidates, optimise
from sweeps.search.proposals.optimum_tests import (
    MIN_RUNS,
    NO_SKILL,
    Refit,
    Trust,
    difference,
    inside,
    judge,
    skill,
)
from sweeps.search.proposals.rung_policy import rung_family
from sweeps.search.space import Floats, Point, SearchSpace
from sweeps.search.surrogates import Family, ProcessFamily, log_linear, power_law
from sweeps.search.surrogates.rung_process import RungFamily

__all__ = [
    "Pick",
    "ProposalOptions",
    "families_for",
    "pick",
    "propose",
    "search_families",
    "trust_pick",
]

_RESAMPLES = 12
"""Number of refits on resampled runs that a pick is tested with."""

_AROUND = 1000
"""Largest number of runs that candidates are drawn around: of more, the best are taken."""

_SAME = 0.05
"""Distance of square roots of weights within which a running point counts as the optimum, so that the
optimum is not proposed again."""


def search_families() -> tuple[Family, ...]:
    """Return the families of a search: two laws that extrapolate, and a Gaussian process."""
    # The process expects more noise than in a swarm of well-trained runs, as a search has 20 runs
    # with one seed.
    process = ProcessFamily(kernel="matern52", powers=(0.4, 1.0), length=1.0, noise=0.1)
    # Metrics are turned so that less is better, and returns diminish, so laws fall.
    falling = (1.0,)
    power = replace(power_law(), penalty=0.15, signs=falling)
    return power, replace(log_linear(), signs=falling), process


@dataclass(frozen=True, kw_only=True)
class ProposalOptions:
    """Composition of a batch."""

    families: tuple[Family, ...] = field(default_factory=search_families)
    """Surrogates to average, with weights from their errors on left-out runs."""
    explore: float = 0.2
    """Share of a batch that fills the space instead."""
    candidates: int = 2000
    """Number of even draws that the search for an optimum begins with."""
    near_optimal: float = 0.005
    """Share of candidates, by predicted loss, that the spread-out points are chosen from."""
    prior: dict[str, Any] | None = None
    """Point that mixtures are pulled to."""
    pull: float = 0.0
    """Loss per nat of divergence from the prior."""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Recommended point and its predicted loss."""

    point: Point
    loss: float
    """Predicted loss, less is better."""
    low: float
    """Lower bound of a new run's loss at 90%."""
    high: float
    """Upper bound of a new run's loss at 90%."""
    surrogate: str
    """Name of the family with the largest weight."""
    errors: dict[str, float]
    """Family → error on left-out runs."""


def propose(
    space: SearchSpace,
    evidence: Evidence,
    count: int,
    *,
    seed: int,
    options: ProposalOptions | None = None,
) -> list[Point]:
    """Return ``count`` points to run next.

    Args:
        space: Search space of the points.
        evidence: Finished runs and running points.
        count: Number of points.
        seed: Seed of the study; the same evidence and seed give the same points.
        options: Families, shares.
    """
    chosen = _for_rungs(options or ProposalOptions(), evidence)
    asked = len(evidence.coordinates) + len(evidence.pending)
    rng = np.random.default_rng((seed, asked, 0xBA7C4))
    explored = _explored(count, asked, chosen.explore)
    if len(evidence.coordinates) < max(5, len(space.unit_names) + 1):
        # Too few runs for a fit: fill the space.
        explored = count
    found = np.zeros((0, len(space.names)))
    if explored < count:
        model = prefer(space, evidence, chosen.families, seed)
        found = _exploit(space, evidence, model, count - explored, chosen, rng)
    taken = np.concatenate([evidence.coordinates, evidence.pending, found])
    filling = _farthest(space, space.sample(32 * max(1, explored), rng), taken, explored)
    return space.points(np.concatenate([found, filling]))


def pick(
    space: SearchSpace,
    evidence: Evidence,
    *,
    seed: int,
    options: ProposalOptions | None = None,
    objective: int = 0,
) -> Pick:
    """Return the optimum of the preferred surrogate, which a study recommends.

    Args:
        space: Search space of the point.
        evidence: Finished runs.
        seed: Seed of the study.
        options: Families, prior.
        objective: Index of the objective.
    """
    chosen = _for_rungs(options or ProposalOptions(), evidence)
    surrogate = prefer(space, evidence, chosen.families, seed)
    goal = _goal(space, surrogate, evidence, evidence.objectives[objective], chosen)
    rng = np.random.default_rng((seed, len(evidence.coordinates), 0x91C4))
    drawn = candidates(space, _best_runs(evidence), chosen.candidates, rng)
    best, _ = optimise(goal, space, drawn, rng)
    loss, low, high = _interval(space, surrogate, evidence.objectives[objective], best)
    return Pick(
        point=space.points(best[None])[0],
        loss=loss,
        low=low,
        high=high,
        surrogate=surrogate.name,
        errors=surrogate.errors,
    )


def trust_pick(
    space: SearchSpace,
    evidence: Evidence,
    chosen: Pick,
    *,
    seed: int,
    baseline: Point | None = None,
    options: ProposalOptions | None = None,
) -> Trust:
    """Test a pick for a single objective.

    Args:
        space: Search space of the pick.
        evidence: Runs that the pick was made from.
        chosen: The pick.
        seed: Seed of the study.
        baseline: Point that the pick has to beat; None = no such test.
        options: Options that the pick was made with.
    """
    own = _for_rungs(options or ProposalOptions(), evidence)
    losses = evidence.losses[:, 0]
    known = np.flatnonzero(np.isfinite(losses))
    family = next(family for family in own.families if family.name == chosen.surrogate)
    skilled = _one_rung(evidence, known)
    inputs = evidence.inputs(space)[skilled]
    inputs = inputs[:, : inputs.shape[1] - evidence.rung_columns]
    if len(skilled) < MIN_RUNS:
        return judge(len(skilled), NO_SKILL)
    plain = family.base if isinstance(family, RungFamily) else family
    measured = skill(plain, inputs, losses[skilled], compared=len(own.families), seed=seed)
    if measured.correlation < measured.needed:
        return judge(len(known), measured)
    fitted = prefer(space, evidence, own.families, seed)
    best = space.coordinates([chosen.point])[0]
    cloud = []
    for number in range(_RESAMPLES):
        rng = np.random.default_rng((seed, number, 0x7257))
        model = fitted.refit(space, evidence, np.sort(rng.choice(known, len(known))))
        goal = _goal(space, model, evidence, evidence.objectives[0], own)
        drawn = candidates(space, _best_runs(evidence), own.candidates // 4, rng)
        cloud.append(Refit(_losses(space, model, evidence), optimise(goal, space, drawn, rng)[0]))
    whole = Refit(_losses(space, fitted, evidence), best)
    # Losses of different rungs do not compare.
    full = known[evidence.at_top[known]] if evidence.at_top[known].any() else known
    top = evidence.coordinates[full[losses[full].argmin()]]
    beaten = None
    if baseline is not None:
        other = space.coordinates([baseline], check=False)[0]
        beaten = difference("the baseline", whole, cloud, other)
    return judge(
        len(known),
        measured,
        difference("the best run", whole, cloud, top),
        beaten,
        inside(best, [refit.optimum for refit in cloud]),
    )


def _best_runs(evidence: Evidence) -> Floats:
    """Return the coordinates of the runs: of thousands, the best for each objective, in their order."""
    if len(evidence.coordinates) <= _AROUND:
        return evidence.coordinates
    # Missing losses sort last.
    order = np.argsort(evidence.losses, axis=0, kind="stable")
    return evidence.coordinates[np.unique(order[: _AROUND // order.shape[1]])]


def _for_rungs(options: ProposalOptions, evidence: Evidence) -> ProposalOptions:
    """Return the options with the family that knows rungs, if the runs have several."""
    if evidence.rungs is None:
        return options
    return replace(options, families=families_for(evidence))


def families_for(evidence: Evidence) -> tuple[Family, ...]:
    """Return the families of a search: those that know rungs alone, if the runs have several."""
    if evidence.rungs is None:
        return search_families()
    return (rung_family(evidence.rung_columns),)


def _one_rung(evidence: Evidence, known: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the rows of the rung with the most runs: a skill is measured on losses that compare."""
    if evidence.rungs is None:
        return known
    kinds = np.unique(evidence.rungs[known], axis=0, return_inverse=True)[1].reshape(-1)
    return np.asarray(known[kinds == np.bincount(kinds).argmax()])


def _losses(space: SearchSpace, model: Preferred, evidence: Evidence) -> Callable[[Floats], Floats]:
    """Return a function that predicts the losses ``[n]`` of coordinates ``[n, d]``."""

    def losses(coordinates: Floats) -> Floats:
        predicted: Floats = model.predict(space.inputs(coordinates)) @ evidence.objectives[0]
        return predicted

    return losses


def _explored(count: int, asked: int, share: float) -> int:
    """Return the number of exploring points of this batch that keeps their share over all batches."""
    return int(np.floor((asked + count) * share) - np.floor(asked * share))


def _exploit(
    space: SearchSpace,
    evidence: Evidence,
    surrogate: Preferred,
    count: int,
    options: ProposalOptions,
    rng: np.random.Generator,
) -> Floats:
    """Return one optimum for each turn of the objectives, then near-optimal points far from others."""
    drawn = candidates(space, _best_runs(evidence), options.candidates, rng)
    found = np.zeros((0, len(space.names)))
    turns = 1 if len(evidence.objectives) == 1 else count
    for turn in range(turns):
        weights = _turn(evidence, turn, rng)
        goal = _goal(space, surrogate, evidence, weights, options)
        best = optimise(goal, space, drawn, rng)[0][None]
        waiting = distances(space, best, evidence.pending)[1].min(initial=np.inf)
        if waiting > _SAME or turns > 1:
            found = np.concatenate([found, best])
    if len(found) < count:
        near = drawn[np.argsort(goal(drawn))[: max(20, int(options.near_optimal * len(drawn)))]]
        taken = np.concatenate([evidence.coordinates, evidence.pending, found])
        return np.concatenate([found, _farthest(space, near, taken, count - len(found))])
    return np.asarray(found, dtype=np.float64)


def _turn(evidence: Evidence, turn: int, rng: np.random.Generator) -> Floats:
    """Return metric weights of one proposal: those of the objective, or a random mix of several."""
    if len(evidence.objectives) == 1:
        return np.asarray(evidence.objectives[0], dtype=np.float64)
    spread = np.nanstd(evidence.losses, axis=0)
    shares = rng.dirichlet(np.ones(len(spread))) / np.where(spread > 0.0, spread, 1.0)
    weighed: Floats = shares @ evidence.objectives
    return weighed


def _goal(
    space: SearchSpace,
    surrogate: Preferred,
    evidence: Evidence,
    weights: Floats,
    options: ProposalOptions,
) -> Goal:
    return Goal(
        space=space,
        surrogate=surrogate,
        weights=weights,
        limits=evidence.limits,
        prior=options.prior,
        pull=options.pull,
    )


def _farthest(space: SearchSpace, drawn: Floats, taken: Floats, count: int) -> Floats:
    """Return rows of ``drawn``, each the farthest from all points before it."""
    rows: list[int] = []
    if not count:
        return drawn[rows]
    among, to_taken = distances(space, drawn, taken)
    nearest = to_taken.min(axis=1) if len(taken) else among.sum(axis=1)
    for _ in range(count):
        rows.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, among[rows[-1]])
    return drawn[rows]


def _interval(
    space: SearchSpace, surrogate: Preferred, weights: Floats, best: Floats
) -> tuple[float, float, float]:
    """Return the loss at a point and its 90% interval, if errors of metrics are fully correlated."""
    inputs = space.inputs(best[None])
    loss = float((surrogate.predict(inputs) @ weights)[0])
    low, high = surrogate.predict_interval(inputs, 0.9)
    half = float((0.5 * (high - low) @ np.abs(weights))[0])
    return loss, loss - half, loss + half
