"""Proposals are repeatable, inside the space, near the optimum, and spread out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ablations.errors import ConfigError
from sweeps.search.designs import design, distances
from sweeps.search.proposals import (
    Evidence,
    Goal,
    Limit,
    ProposalOptions,
    optimise,
    pick,
    prefer,
    propose,
)
from sweeps.search.proposals.optimum import candidates
from sweeps.search.space import SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.search.surrogates import Surrogate, log_linear, scheffe

Floats = NDArray[np.float64]


def space_of(**bounds: dict[str, float]) -> SearchSpace:
    spec = SimplexSpec(sources=("web", "code", "math"), **bounds)
    return SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))


def losses(weights: Floats) -> Floats:
    """Return the losses of two domains: one needs code, the other math; web helps neither."""
    return np.stack(
        [1.0 + np.exp(-3.0 * weights[:, 1]), 1.0 + np.exp(-3.0 * weights[:, 2])], axis=1
    )


def evidence(space: SearchSpace, n: int = 16, **kwargs: object) -> Evidence:
    points = design(space, "sobol", n, seed=0)
    noise = np.random.default_rng(0).normal(0.0, 0.01, (n, 2))
    values = losses(space.coordinates(points)) + noise
    return Evidence.of(space, points, values, **kwargs)  # type: ignore[arg-type]


def test_the_same_evidence_gives_the_same_points_and_more_gives_others() -> None:
    space = space_of(high={"code": 0.6})
    first = propose(space, evidence(space), 4, seed=1)
    assert first == propose(space, evidence(space), 4, seed=1)
    assert first != propose(space, evidence(space, 17), 4, seed=1)
    space.coordinates(first)


def test_a_batch_is_spread_out_and_avoids_what_is_running() -> None:
    space = space_of()
    running = propose(space, evidence(space), 2, seed=0)
    batch = space.coordinates(propose(space, evidence(space, pending=running), 4, seed=0))
    apart = distances(space, batch, space.coordinates(running))
    assert (apart[0] + np.eye(4)).min() > 0.02
    assert apart[1].min() > 0.01


def test_with_too_few_runs_a_batch_fills_the_space() -> None:
    space = space_of()
    assert len(propose(space, evidence(space, 2), 3, seed=0)) == 3


def test_where_every_run_failed_a_batch_fills_the_space() -> None:
    space = space_of()
    nothing = Evidence.of(space, [], np.zeros((0, 2)))
    batch = space.coordinates(propose(space, nothing, 3, seed=0))
    assert (distances(space, batch, batch)[0] + np.eye(3)).min() > 0.1


def test_values_without_a_row_for_each_point_are_refused() -> None:
    space = space_of()
    with pytest.raises(ConfigError, match="not one row per point"):
        Evidence.of(space, design(space, "sobol", 4, seed=0), np.zeros((3, 2)))


def test_a_share_of_proposals_explores() -> None:
    space = space_of()
    greedy = propose(space, evidence(space), 5, seed=0, options=ProposalOptions(explore=0.0))
    curious = propose(space, evidence(space), 5, seed=0, options=ProposalOptions(explore=1.0))
    best = np.array([[0.0, 0.5, 0.5]])
    far = [np.linalg.norm(space.coordinates(p) - best, axis=1).mean() for p in (greedy, curious)]
    assert far[0] < 0.5 * far[1]


def test_the_pick_is_the_optimum_of_the_truth() -> None:
    space = space_of()
    chosen = pick(space, evidence(space), seed=0)
    assert space.coordinates([chosen.point])[0] == pytest.approx([0.0, 0.5, 0.5], abs=0.06)
    assert chosen.low < chosen.loss < chosen.high
    assert chosen.surrogate in chosen.errors


def test_a_pick_keeps_bounds_and_measured_limits() -> None:
    space = space_of(high={"math": 0.4})
    # The code domain must stay under the loss it has at 55% of code.
    limit = Limit(weights=np.array([1.0, 0.0]), bound=1.0 + float(np.exp(-3.0 * 0.55)))
    chosen = pick(space, evidence(space, limits=[limit]), seed=0)
    mixture = space.coordinates([chosen.point])[0]
    assert mixture[2] <= 0.4 + 1e-9
    assert losses(mixture[None])[0, 0] <= limit.bound + 0.02


def test_a_pull_moves_the_pick_to_the_prior() -> None:
    space = space_of()
    prior = {"m": {"web": 0.8, "code": 0.1, "math": 0.1}}
    free, pulled = (
        pick(space, evidence(space), seed=0, options=ProposalOptions(prior=prior, pull=pull))
        for pull in (0.0, 10.0)
    )
    assert space.coordinates([free.point])[0, 0] < 0.1
    assert space.coordinates([pulled.point])[0, 0] > 0.7


def test_what_is_maximised_is_picked_like_what_is_minimised() -> None:
    space = space_of()
    seen = evidence(space)
    turned = Evidence.of(
        space, space.points(seen.coordinates), -seen.values, objectives=np.full(2, -0.5)
    )
    lower, higher = pick(space, seen, seed=0), pick(space, turned, seed=0)
    assert space.coordinates([lower.point]) == pytest.approx(space.coordinates([higher.point]))
    assert lower.loss == pytest.approx(higher.loss)
    assert (lower.low, lower.high) == pytest.approx((higher.low, higher.high))


def test_corners_do_not_decide_which_family_is_preferred() -> None:
    space = space_of()
    points = design(space, "sobol", 24, seed=0) + space.points(np.eye(3))
    values = losses(space.coordinates(points))
    # One source alone is worse than the law says; everywhere else the law is exact.
    values[-3:] += 0.5
    seen = Evidence.of(space, points, values)
    assert prefer(space, seen, (log_linear(), scheffe()), 0).name == "log-linear"


def test_several_objectives_are_weighed_at_random() -> None:
    space = space_of()
    batch = propose(space, evidence(space, objectives=np.eye(2)), 6, seed=0,
                    options=ProposalOptions(explore=0.0))  # fmt: skip
    ratio = space.coordinates(batch)[:, 1]
    assert np.ptp(ratio) > 0.2


def test_the_optimum_is_found_on_faces_and_corners() -> None:
    space = space_of(low={"web": 0.1})
    rng = np.random.default_rng(0)
    runs = space.sample(40, rng)
    model = Surrogate(log_linear()).fit(space.inputs(runs), losses(runs)[:, 1])
    goal = Goal(space=space, surrogate=model, weights=np.ones(1))
    best, value = optimise(goal, space, candidates(space, runs, 200, rng), rng)
    np.testing.assert_allclose(best, [0.1, 0.0, 0.9], atol=1e-3)
    assert value == pytest.approx(goal(best[None])[0])


def test_families_without_free_errors_are_chosen_by_folds() -> None:
    from sweeps.search.surrogates import StackFamily

    space = space_of()
    members = (log_linear(), scheffe())
    options = ProposalOptions(families=(StackFamily(name="s", members=members), scheffe()))
    chosen = pick(space, evidence(space), seed=0, options=options)
    assert set(chosen.errors) == {"s", "scheffe"}


def test_objectives_of_another_width_are_refused() -> None:
    space = space_of()
    with pytest.raises(ConfigError, match="one weight per metric"):
        evidence(space, objectives=np.ones(3))
