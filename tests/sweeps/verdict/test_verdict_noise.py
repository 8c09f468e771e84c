"""Training noise from seeds, checkpoints and declared figures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.verdict.training_noise import (
    MIN_BLOCKED_DF,
    RunScores,
    TrainingNoise,
    checkpoint_noise,
    combine,
    fit_means,
    mean_noise,
)


def runs(values: np.ndarray, seeds: list[int] | None = None) -> RunScores:
    candidates, replicates = values.shape
    return RunScores(
        candidates=[f"c{k}" for k in range(candidates)],
        candidate=np.repeat(np.arange(candidates), replicates),
        seed=np.tile(seeds or list(range(replicates)), candidates),
        value=values.ravel(),
    )


def test_the_variance_is_pooled_over_candidates() -> None:
    values = np.array([[1.0, 3.0], [10.0, 10.0]])
    fit = fit_means(runs(values))
    assert fit.noise.variance == pytest.approx((2.0 + 0.0) / 2)
    assert fit.noise.df == 2.0
    assert not fit.blocked


def test_one_seed_each_leaves_the_noise_unknown() -> None:
    fit = fit_means(runs(np.array([[1.0], [2.0], [3.0]])))
    assert not fit.noise.known
    assert fit.noise.source == "none"


def test_what_a_seed_does_to_all_alike_is_no_noise() -> None:
    seed_effect = np.array([0.0, 5.0, -3.0])
    values = np.arange(4.0)[:, None] + seed_effect
    fit = fit_means(runs(values))
    assert fit.blocked
    assert fit.noise.variance == pytest.approx(0.0, abs=1e-20)
    assert np.diff(fit.means) == pytest.approx(np.ones(3))


def test_candidates_without_a_shared_seed_are_not_blocked() -> None:
    values = np.random.default_rng(0).standard_normal((4, 3))
    scores = runs(values)
    scores.seed[:] = np.arange(12)
    assert not fit_means(scores).blocked


def test_a_missing_score_is_refused_not_taken_as_zero() -> None:
    with pytest.raises(ValueError, match="missing"):
        runs(np.array([[1.0, math.nan], [1.0, 2.0]]))


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-1e3, 1e3), scale=st.floats(0.1, 10.0))
def test_noise_follows_units_and_ignores_shifts(shift: float, scale: float) -> None:
    values = np.random.default_rng(1).standard_normal((3, 3))
    plain, moved = fit_means(runs(values)), fit_means(runs(scale * values + shift))
    assert moved.noise.sd == pytest.approx(scale * plain.noise.sd, rel=1e-6)


def test_checkpoints_scatter_about_their_trend() -> None:
    tokens = np.arange(1.0, 6.0)
    assert checkpoint_noise([(tokens, 3.0 * tokens)]).variance == pytest.approx(0.0, abs=1e-20)
    rng = np.random.default_rng(2)
    many = [(tokens, 3.0 * tokens + rng.standard_normal(5)) for _ in range(2000)]
    noise = checkpoint_noise(many)
    assert noise.df == 6000.0
    # Independent noise of SD 1, doubled for the correlation that real checkpoints have.
    assert noise.variance == pytest.approx(2.0, rel=0.1)


def test_two_checkpoints_or_missing_scores_leave_the_noise_unknown() -> None:
    few = [(np.array([1.0, 2.0]), np.array([1.0, 2.0]))]
    holed = [(np.arange(4.0), np.array([1.0, math.nan, math.nan, 2.0]))]
    assert not checkpoint_noise(few).known
    assert not checkpoint_noise(holed).known


def test_a_task_without_declared_noise_makes_the_sum_unknown() -> None:
    weights = {"a": 0.5, "b": 0.5}
    assert not mean_noise({"a": 1.0}, weights, 9.0).known
    noise = mean_noise({"a": 3.0, "b": 4.0}, weights, 9.0)
    assert noise.sd == pytest.approx(2.5)
    assert 9.0 < noise.df < 18.0


def test_seeds_come_before_checkpoints_before_declared_noise() -> None:
    seeds = TrainingNoise(variance=4.0, df=20.0, source="seeds")
    late = TrainingNoise(variance=9.0, df=9.0, source="checkpoints")
    declared = TrainingNoise(variance=1.0, df=9.0, source="published")
    nothing = TrainingNoise.unknown()
    assert combine(seeds, late, declared) == seeds
    # Half of the noise is assumed to be hidden from checkpoints, which share their run's seed.
    assert combine(nothing, late, declared) == replace(late, variance=18.0)
    assert combine(nothing, nothing, declared) == declared
    assert not combine(nothing, nothing, nothing).known


def test_a_prior_only_widens_the_noise_of_few_seeds() -> None:
    few = TrainingNoise(variance=4.0, df=2.0, source="seeds")
    larger = TrainingNoise(variance=8.0, df=9.0, source="checkpoints")
    smaller = TrainingNoise(variance=1.0, df=9.0, source="checkpoints")
    nothing = TrainingNoise.unknown()
    assert combine(few, larger, nothing).variance == pytest.approx(6.0)
    assert combine(few, smaller, nothing) == few


@pytest.mark.parametrize(
    ("candidates", "seeds", "blocked"), [(3, 2, False), (5, 2, True), (3, 3, True), (2, 4, False)]
)
def test_seed_effects_are_fitted_where_four_degrees_of_freedom_remain(
    candidates: int, seeds: int, blocked: bool
) -> None:
    values = np.random.default_rng(3).standard_normal((candidates, seeds))
    fit = fit_means(runs(values))
    assert fit.blocked == blocked
    left = (candidates - 1) * (seeds - 1)
    assert (left >= MIN_BLOCKED_DF) == blocked
    assert fit.noise.df == (left if blocked else candidates * (seeds - 1))


def test_what_each_candidate_shows_adds_up_to_the_pool() -> None:
    values = np.random.default_rng(4).standard_normal((4, 3)) * np.array(
        [[1.0], [1.0], [1.0], [9.0]]
    )
    fit = fit_means(runs(values))
    assert fit.own is not None
    assert fit.own.squares.sum() == pytest.approx(fit.noise.variance * fit.noise.df)
    assert fit.own.df.sum() == pytest.approx(fit.noise.df)
    assert fit.own.squares.argmax() == 3
    plain = fit_means(runs(values, seeds=[0, 0, 0]))
    assert plain.own is not None
    assert plain.own.squares[3] == pytest.approx(2.0 * values[3].var(ddof=1))


def test_two_candidates_with_as_many_runs_are_the_pool() -> None:
    assert fit_means(runs(np.random.default_rng(5).standard_normal((2, 3)))).own is None


def test_the_smoother_the_checkpoints_the_more_they_hide() -> None:
    tokens, rng = np.arange(5.0), np.random.default_rng(6)
    rough = checkpoint_noise([(tokens, rng.standard_normal(5)) for _ in range(60)])
    walks = checkpoint_noise([(tokens, rng.standard_normal(5).cumsum()) for _ in range(60)])
    falling = checkpoint_noise([(tokens, (tokens - 5.0) ** 2) for _ in range(3)])
    assert rough.smooth < 2.0 < 3.0 < walks.smooth
    assert falling.smooth > 3.0
    nothing = TrainingNoise.unknown()
    # Only without seeds; beside seeds the prior is unchanged.
    assert combine(nothing, walks, nothing).variance == pytest.approx(
        2.0 * walks.smooth * walks.variance
    )
    few = TrainingNoise(variance=1e-9, df=2.0, source="seeds")
    assert combine(few, walks, nothing).variance == pytest.approx(walks.variance / 2.0)
