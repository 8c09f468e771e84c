"""Check the draws behind joint p-values: by hand, and against the distributions that they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sweeps.verdict import draws
from sweeps.verdict.draws import (
    DRAWS,
    from_normal_score,
    normal_score,
    own_draws,
    own_noise,
    scaled_normals,
    selected_items,
    t_scales,
)
from sweeps.verdict.training_noise import OwnVariances


def replicates(df: list[float], runs: list[float]) -> OwnVariances:
    return OwnVariances(squares=np.zeros(len(df)), df=np.array(df), runs=np.array(runs))


def test_a_noisy_contrast_has_its_own_variance_and_the_degrees_of_freedom_behind_it() -> None:
    own = replicates([2.0, 2.0, 0.0], [3.0, 3.0, 1.0])
    weights = np.array([[2.0, -1.0, -1.0], [0.0, 1.0, -1.0]])
    ratio, df = own_noise(own, np.array(2.0), 100.0, weights, np.array([12.0, 1.0, 0.0]))
    # Own variances over the pool are 3, 0.25 and, without replicates, 1:
    # (4 * 3 / 3 + 0.25 / 3 + 1) / (4 / 3 + 1 / 3 + 1); the second is smaller than the pool's.
    assert ratio == pytest.approx([1.90625, 1.15625])
    # Its excess of 2 counts 2**2 / 2 = 2: uncertainty 16 * 2 / 9 / (8 / 3)**2 = 0.5. The second is that of
    # the pool of two with three runs, 13 / 4 / 2 = 1.625: excess 0.625**2 / 4, over nine, over (4 / 3)**2.
    assert df[0] == pytest.approx(1.90625**2 / (0.01 + 0.5))
    assert df[1] == pytest.approx(1.15625**2 / (0.01 + 0.625**2 / 4.0 / 16.0))
    assert own_noise(own, np.array(2.0), 3.0, weights, np.array([12.0, 1.0, 0.0]))[1][0] == 3.0


def test_a_variance_that_only_equals_the_pool_keeps_the_pool_s_degrees_of_freedom() -> None:
    own = replicates([2.0, 2.0], [3.0, 3.0])
    ratio, df = own_noise(own, np.array(1.0), 20.0, np.array([[1.0, -1.0]]), np.array([4.0, 0.0]))
    assert (ratio.tolist(), df.tolist()) == ([1.0], [20.0])


def test_candidates_with_equal_runs_are_pooled_only_once() -> None:
    """All of them together are the pool that was given, even where a prior moved it."""
    own = replicates([2.0, 2.0, 2.0], [3.0, 3.0, 3.0])
    ratio, _ = own_noise(
        own, np.array(1.0), 6.0, np.array([[1.0, -1.0, 0.0]]), np.array([1.0, 1.0, 40.0])
    )
    assert ratio.tolist() == [1.0]


def test_drawn_variances_are_the_larger_of_the_pool_s_and_the_contrast_s_own() -> None:
    weights = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    variance, df = own_draws(replicates([4.0, 4.0, 4.0], [5.0, 5.0, 5.0]), weights)
    a, b, c = np.random.default_rng(1).chisquare(4.0, (3, 400_000))
    expected = np.maximum((a + b + c) / 12.0, (a + b) / 8.0)
    assert variance.shape == df.shape == (DRAWS, 2)
    for column in variance.T:
        assert column.mean() == pytest.approx(expected.mean(), rel=0.01)
        assert column.std() == pytest.approx(expected.std(), rel=0.03)
    assert df.max() == 12.0
    assert ((df < 12.0).mean(axis=0) > 0.15).all()


def test_a_candidate_without_replicates_adds_nothing_to_the_pool() -> None:
    variance, _ = own_draws(replicates([3.0, 0.0], [4.0, 1.0]), np.array([[0.0, 1.0]]))
    # Its own variance is not known: the draws are those of chi-square / df with 3.
    assert variance[:, 0].mean() == pytest.approx(1.0, abs=0.02)
    assert variance[:, 0].std() == pytest.approx(math.sqrt(2.0 / 3.0), rel=0.03)


def test_rounding_in_the_degrees_of_freedom_draws_nothing_anew() -> None:
    weights = np.array([[1.0, -1.0]])
    first, same, other = (
        own_draws(replicates([df, 3.0], [3.0, 4.0]), weights)[0]
        for df in (2.0, 2.0000004, 2.000002)
    )
    assert same is first
    assert other is not first


@pytest.mark.parametrize(("most", "merged"), [(4, False), (3, True)])
def test_only_beyond_the_limit_are_candidates_merged(
    monkeypatch: pytest.MonkeyPatch, most: int, merged: bool
) -> None:
    own, weights = (
        replicates([2.0, 3.0, 1.0, 1.0], [3.0, 4.0, 2.0, 2.0]),
        np.array([[1.0, -1.0, 0.0, 0.0]]),
    )
    plain = own_draws(own, weights)[0]
    monkeypatch.setattr(draws, "MOST_DENSE", most)
    assert (own_draws(own, weights)[0] is plain) != merged


def test_merged_candidates_keep_their_runs_and_sum_their_degrees_of_freedom() -> None:
    own = replicates([2.0, 1.0, 3.0, 4.0, 5.0, 6.0], [3.0, 2.0, 4.0, 7.0, 6.0, 7.0])
    weights = np.array([[0.0, 1.0, -1.0, 0.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    merged, rows = draws._merged(own, weights)
    assert merged.runs.tolist() == [3.0, 2.0, 4.0, 6.0, 7.0]
    assert merged.df.tolist() == [2.0, 1.0, 3.0, 5.0, 10.0]
    assert len(merged.squares) == 5
    assert rows.tolist() == [[0.0, 1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("t", "df"), [(2.0, 1.0), (-2.0, 1.0), (3.0, 4.0)])
def test_a_normal_score_is_wallace_s_formula(t: float, df: float) -> None:
    expected = {
        1.0: 9.0 / 11.0 * math.sqrt(math.log(5.0)),
        4.0: 33.0 / 35.0 * 2.0 * math.sqrt(math.log(3.25)),
    }[df]
    assert float(normal_score(np.array(t), np.array(df))) == pytest.approx(expected)
    assert float(from_normal_score(expected, np.array(df))) == pytest.approx(abs(t))


def test_very_large_scores_stay_finite() -> None:
    one = np.array(1.0)
    assert math.log(from_normal_score(20.0, one)) == pytest.approx((20.0 * 11.0 / 9.0) ** 2 / 2.0)
    assert math.log(from_normal_score(30.0, one)) == pytest.approx(300.0)


def test_scaled_normals_have_the_correlations_of_the_covariance_and_variance_one() -> None:
    covariance = np.array([[4.0, -3.0, 0.0], [-3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    found, columns = scaled_normals(covariance)
    assert columns == 3
    assert found.shape == (DRAWS, 3)
    expected = np.array([[1.0, -0.5, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert np.cov(found.T) == pytest.approx(expected, abs=0.01)
    assert (found[:, 2] == 0.0).all()


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_the_scales_of_t_are_independent_of_its_normals(columns: int) -> None:
    normals, _ = scaled_normals(np.eye(columns))
    scales = t_scales(columns, 5.0)
    assert (scales**-2.0).mean() == pytest.approx(1.0, abs=0.005)
    assert (scales**-2.0).var() == pytest.approx(2.0 / 5.0, rel=0.02)
    for column in normals.T:
        assert abs(np.corrcoef(column, scales)[0, 1]) < 0.03
        assert abs(np.corrcoef(np.abs(column), scales)[0, 1]) < 0.03
        drawn = np.quantile(np.abs(column * scales), 0.95)
        assert drawn == pytest.approx(stats.t.isf(0.025, 5.0), rel=0.02)
    assert (t_scales(columns, math.inf) == 1.0).all()


def test_the_best_of_a_search_are_ahead_and_one_that_was_not_chosen_is_not() -> None:
    best = selected_items(10, 2, 1.0)
    assert best.shape == (DRAWS, 3)
    # Expected largest and second largest of ten normals.
    assert best.mean(axis=0) == pytest.approx([1.5388, 1.0014, 0.0], abs=0.02)
    assert (best[:, 0] >= best[:, 1]).all()
    alone = selected_items(1, 1, 1.0)
    assert alone.std(axis=0) == pytest.approx([1.0, 1.0], abs=0.02)


def test_the_items_are_a_share_of_what_the_choice_was_made_by() -> None:
    best, rest = selected_items(10, 2, 1.0), selected_items(10, 2, 0.0)
    mixed = selected_items(10, 2, 0.36)
    assert rest.mean(axis=0) == pytest.approx([0.0, 0.0, 0.0], abs=0.03)
    assert mixed[:, :2] == pytest.approx(0.6 * best[:, :2] + 0.8 * rest[:, :2])
    assert mixed[:, 2] == pytest.approx(rest[:, 2])
