"""Inducing points stand for thousands of runs, and change nothing while there are few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeps.search.proposals import Evidence, ProposalOptions, pick, propose
from sweeps.search.proposals.propose import _AROUND, _best_runs, search_families
from sweeps.search.space import SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.search.surrogates import ProcessFamily, Surrogate
from sweeps.search.surrogates.gaussian_process import ProcessModel
from sweeps.search.surrogates.inducing import condition, spread_rows

Floats = NDArray[np.float64]

RNG = np.random.default_rng(3)
INPUTS = RNG.dirichlet(np.ones(4), 60)
VALUES = np.exp(-3.0 * INPUTS[:, 0]) + 0.02 * RNG.standard_normal(60)
UNSEEN = RNG.dirichlet(np.ones(4), 25)


def fitted(family: ProcessFamily) -> tuple[Surrogate, ProcessModel]:
    model = Surrogate(family).fit(INPUTS, VALUES)
    task = model._tasks[0]
    assert isinstance(task, ProcessModel)
    return model, task


@pytest.mark.parametrize("kernel", ["matern32", "matern52", "rbf"])
def test_every_run_as_an_inducing_point_gives_the_exact_process(kernel: str) -> None:
    family = ProcessFamily(kernel=kernel)  # type: ignore[arg-type]
    exact, whole = fitted(family)
    sparse, points = fitted(replace(family, exact_runs=0))
    assert whole.sparse is None
    assert points.sparse is not None
    np.testing.assert_allclose(sparse.predict(UNSEEN), exact.predict(UNSEEN), atol=1e-5)
    np.testing.assert_allclose(sparse.spread(UNSEEN), exact.spread(UNSEEN), atol=1e-5)
    np.testing.assert_allclose(points.left_out, whole.left_out, atol=1e-5)


def test_up_to_a_thousand_runs_the_process_is_conditioned_on_each() -> None:
    family = ProcessFamily()
    assert family.exact_runs == 1000
    _, at = fitted(replace(family, exact_runs=60))
    _, beyond = fitted(replace(family, exact_runs=59, inducing=20))
    assert at.sparse is None
    assert at.rows.shape == (60, 4)
    assert beyond.sparse is not None
    assert beyond.rows.shape == (20, 4)
    # Textbook: K^-1 y, with the covariance written out.
    gaps = np.sqrt(((at.rows[:, None] - at.rows[None]) ** 2).sum(axis=2))
    covariance = at.signal * (1 + np.sqrt(3) * gaps) * np.exp(-np.sqrt(3) * gaps)
    covariance += (at.noise + 1e-8) * np.eye(60)
    scaled = (VALUES - VALUES.mean()) / VALUES.std()
    np.testing.assert_allclose(at.weights, np.linalg.solve(covariance, scaled), atol=1e-6)


def test_a_third_of_the_runs_predicts_nearly_as_well_as_all() -> None:
    exact, _ = fitted(ProcessFamily())
    sparse, _ = fitted(ProcessFamily(exact_runs=0, inducing=20))
    truth = np.exp(-3.0 * UNSEEN[:, 0])
    errors = [
        float(np.sqrt(np.mean((model.predict(UNSEEN)[:, 0] - truth) ** 2)))
        for model in (exact, sparse)
    ]
    assert errors[1] < 1.2 * errors[0]
    assert errors[1] < 0.1 * truth.std()


def kernel(left: Floats, right: Floats) -> Floats:
    squares = ((left[:, None] - right[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-2.0 * squares))


def test_errors_at_left_out_runs_are_those_of_a_fit_without_the_run() -> None:
    points = INPUTS[::5]
    within = kernel(points, points) + 1e-8 * np.eye(len(points))
    across, noise = kernel(INPUTS, points), np.full(60, 0.05)
    found = condition(within, across, 1.0, noise, VALUES)
    for run in (0, 17, 59):
        kept = np.arange(60) != run
        without = condition(within, across[kept], 1.0, noise[kept], VALUES[kept])
        expected = float(across[run] @ without.weights) - VALUES[run]
        assert found.left_out[run] == pytest.approx(expected, abs=1e-9)


def test_a_run_of_huge_noise_counts_for_nothing() -> None:
    points = INPUTS[::5]
    within = kernel(points, points) + 1e-8 * np.eye(len(points))
    across, noise = kernel(INPUTS, points), np.full(60, 0.05)
    wrong, doubted = VALUES.copy(), noise.copy()
    wrong[7], doubted[7] = 1e3, 1e12
    kept = np.arange(60) != 7
    with_it = condition(within, across, 1.0, doubted, wrong)
    without = condition(within, across[kept], 1.0, noise[kept], VALUES[kept])
    at = kernel(UNSEEN, points)
    np.testing.assert_allclose(at @ with_it.weights, at @ without.weights, atol=1e-6)
    np.testing.assert_allclose(with_it.explained(at), without.explained(at), atol=1e-6)


def test_inducing_points_are_spread_out_and_never_the_same_twice() -> None:
    rows = np.concatenate([np.zeros((50, 2)), np.eye(2), -np.eye(2)])
    chosen = spread_rows(rows, 10)
    assert chosen.tolist() == [0, 50, 51, 52, 53]
    assert spread_rows(rows, 3).tolist() == sorted(spread_rows(rows, 3).tolist())
    assert len(spread_rows(INPUTS, 20)) == 20


def space() -> SearchSpace:
    spec = SimplexSpec(sources=("web", "code", "math"))
    return SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))


def evidence(runs: int) -> Evidence:
    own = space()
    mixtures = own.sample(runs, np.random.default_rng(0))
    values = np.stack([np.exp(-3.0 * mixtures[:, 1]), np.exp(-3.0 * mixtures[:, 2])], axis=1)
    return Evidence.of(own, own.points(mixtures), values)


def test_candidates_are_drawn_around_the_best_of_thousands_of_runs() -> None:
    few, many = evidence(_AROUND), evidence(_AROUND + 200)
    assert _best_runs(few) is few.coordinates
    missing = many.values.copy()
    missing[3] = np.nan
    kept = _best_runs(replace(many, values=missing))
    losses = missing.mean(axis=1)
    order = np.argsort(losses)[:_AROUND]
    np.testing.assert_array_equal(kept, many.coordinates[np.sort(order)])


def test_a_study_of_many_runs_proposes_and_picks_as_one_that_uses_them_all() -> None:
    process = search_families()[-1]
    assert isinstance(process, ProcessFamily)
    known = evidence(150)
    sparse = ProposalOptions(families=(replace(process, exact_runs=100, inducing=64),))
    every = ProposalOptions(families=(process,))
    points = propose(space(), known, 3, seed=1, options=sparse)
    assert space().polytope.violation(space().coordinates(points)).max() <= 1e-9
    picks = [pick(space(), known, seed=1, options=options) for options in (sparse, every)]
    places = space().coordinates([chosen.point for chosen in picks])
    np.testing.assert_allclose(places[0], places[1], atol=0.02)
    assert picks[0].loss == pytest.approx(picks[1].loss, abs=0.01)
