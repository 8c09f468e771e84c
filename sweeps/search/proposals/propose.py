"""What to run next, and what to recommend: pure functions of what is known and a seed.

A batch of five, from the surrogate that cross-validation prefers::

    1 optimum of the fitted loss ─▶ 2, 3, 4 near-optimal points far from everything ─▶ 5 exploration

    evidence = Evidence.of(space, points, losses, pending=running)
    next_points = propose(space, evidence, 5, seed=study_seed)
    chosen = pick(space, evidence, seed=study_seed)          # at the end; confirm with replicates

The number of runs goes into the seed: a study that was killed proposes what it would have proposed,
and a later batch is not the earlier one again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

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
from sweeps.search.space import Floats, Point, SearchSpace
from sweeps.search.surrogates import Family, ProcessFamily, log_linear, power_law

__all__ = ["Pick", "ProposalOptions", "pick", "propose", "search_families", "trust_pick"]

_RESAMPLES = 12
"""Refits on resampled runs that a pick is judged by."""

_SAME = 0.05
"""Distance of square roots of weights within which a running point is the optimum already: a law
that believes in it proposes it again."""


def search_families() -> tuple[Family, ...]:
    """What a search chooses from: two laws that extrapolate, and a process that assumes neither."""
    # More noise is expected than in a swarm of well-trained runs: a search sees 20 runs, one seed.
    process = ProcessFamily(kernel="matern52", powers=(0.4, 1.0), length=1.0, noise=0.1)
    # Metrics are turned so that less is better: returns diminish, which is a law that falls.
    falling = (1.0,)
    power = replace(power_law(), penalty=0.15, signs=falling)
    return power, replace(log_linear(), signs=falling), process


@dataclass(frozen=True, kw_only=True)
class ProposalOptions:
    """How a batch is made up."""

    families: tuple[Family, ...] = field(default_factory=search_families)
    """Surrogates to weigh by their errors on left-out runs."""
    explore: float = 0.2
    """Share of a batch that is drawn to fill the space instead."""
    candidates: int = 2000
    """Even draws that the search for an optimum begins with."""
    near_optimal: float = 0.005
    """Share of candidates, by predicted loss, that the spread-out points are chosen from."""
    prior: dict[str, Any] | None = None
    """Point that mixtures are pulled to."""
    pull: float = 0.0
    """Loss per nat of divergence from the prior."""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A recommendation, and what is believed about it."""

    point: Point
    loss: float
    """Predicted loss, less is better."""
    low: float
    """Lower bound of a new run's loss at 90%."""
    high: float
    """Upper bound of a new run's loss at 90%."""
    surrogate: str
    """Name of the family of most weight."""
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
    """``count`` points to run next.

    Args:
        space: Where they must lie.
        evidence: Finished runs and running points.
        count: How many.
        seed: The study's seed; the same evidence and seed give the same points.
        options: Families, shares.
    """
    chosen = options or ProposalOptions()
    asked = len(evidence.coordinates) + len(evidence.pending)
    rng = np.random.default_rng((seed, asked, 0xBA7C4))
    explored = _explored(count, asked, chosen.explore)
    if len(evidence.coordinates) < max(5, len(space.unit_names) + 1):
        # Too little to fit: fill the space.
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
    """The optimum of the preferred surrogate: what a study recommends.

    Args:
        space: Where it must lie.
        evidence: Finished runs.
        seed: The study's seed.
        options: Families, prior.
        objective: Which objective, where there are several.
    """
    chosen = options or ProposalOptions()
    surrogate = prefer(space, evidence, chosen.families, seed)
    goal = _goal(space, surrogate, evidence, evidence.objectives[objective], chosen)
    rng = np.random.default_rng((seed, len(evidence.coordinates), 0x91C4))
    drawn = candidates(space, evidence.coordinates, chosen.candidates, rng)
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
    """How far a pick of a single objective may be trusted.

    Args:
        space: Where it lies.
        evidence: The runs that it was made from.
        chosen: The pick.
        seed: The study's seed.
        baseline: The point that the pick has to beat, where there is one.
        options: What the pick was made with.
    """
    own = options or ProposalOptions()
    losses = evidence.losses[:, 0]
    known = np.flatnonzero(np.isfinite(losses))
    family = next(family for family in own.families if family.name == chosen.surrogate)
    inputs = space.inputs(evidence.coordinates[known])
    if len(known) < MIN_RUNS:
        return judge(len(known), NO_SKILL)
    measured = skill(family, inputs, losses[known], compared=len(own.families), seed=seed)
    if measured.correlation < measured.needed:
        return judge(len(known), measured)
    fitted = prefer(space, evidence, own.families, seed)
    best = space.coordinates([chosen.point])[0]
    cloud = []
    for number in range(_RESAMPLES):
        rng = np.random.default_rng((seed, number, 0x7257))
        model = fitted.refit(space, evidence, np.sort(rng.choice(known, len(known))))
        goal = _goal(space, model, evidence, evidence.objectives[0], own)
        drawn = candidates(space, evidence.coordinates, own.candidates // 4, rng)
        cloud.append(Refit(_losses(space, model, evidence), optimise(goal, space, drawn, rng)[0]))
    whole = Refit(_losses(space, fitted, evidence), best)
    top = evidence.coordinates[known[losses[known].argmin()]]
    beaten = None
    if baseline is not None:
        there = space.coordinates([baseline], check=False)[0]
        beaten = difference("the baseline", whole, cloud, there)
    return judge(
        len(known),
        measured,
        difference("the best run", whole, cloud, top),
        beaten,
        inside(best, [refit.optimum for refit in cloud]),
    )


def _losses(space: SearchSpace, model: Preferred, evidence: Evidence) -> Callable[[Floats], Floats]:
    """Predicted losses of coordinates."""

    def losses(coordinates: Floats) -> Floats:
        predicted: Floats = model.predict(space.inputs(coordinates)) @ evidence.objectives[0]
        return predicted

    return losses


def _explored(count: int, asked: int, share: float) -> int:
    """Exploring points of this batch: so many that their share holds over all batches."""
    return int(np.floor((asked + count) * share) - np.floor(asked * share))


def _exploit(
    space: SearchSpace,
    evidence: Evidence,
    surrogate: Preferred,
    count: int,
    options: ProposalOptions,
    rng: np.random.Generator,
) -> Floats:
    """One optimum for every objective's turn, then near-optimal points far from everything."""
    drawn = candidates(space, evidence.coordinates, options.candidates, rng)
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
    """The loss of one proposal: the objective, or a random weighing of several."""
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
    """Rows of ``drawn``, each the farthest from everything taken before it."""
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
    """Loss at a point with its 90% interval; metrics are taken to err together, to be safe."""
    inputs = space.inputs(best[None])
    loss = float((surrogate.predict(inputs) @ weights)[0])
    low, high = surrogate.predict_interval(inputs, 0.9)
    half = float((0.5 * (high - low) @ np.abs(weights))[0])
    return loss, loss - half, loss + half
