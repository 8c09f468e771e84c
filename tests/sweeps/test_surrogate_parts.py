"""Check the parts that all surrogates share against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from ablations.errors import ConfigError
from sweeps.search.surrogates import (
    ProcessFamily,
    StackFamily,
    Surrogate,
    TreesFamily,
    family,
    leaderboard,
    linear,
    power_law,
    scheffe,
)
from sweeps.search.surrogates.base import TaskModel, _quantile, folds
from sweeps.search.surrogates.combined import _blend, _combine, left_out_predictions
from sweeps.search.surrogates.leaderboard import _entry, _regret, rank_correlation

Floats = NDArray[np.float64]

RNG = np.random.default_rng(0)
INPUTS = RNG.dirichlet(np.ones(3), 12)


@dataclass
class Fixed:
    """Family that predicts one number with one spread, and keeps what it was fitted to."""

    name: str = "fixed"
    mean: float = 0.0
    error: float = 1.0
    alone: list[tuple[Floats, Floats, Floats | None]] = field(default_factory=list)

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> Fixed:
        self.alone.append((inputs, values, noise))
        return self

    def predict(self, inputs: Floats) -> Floats:
        return np.full(len(inputs), self.mean)

    def spread(self, inputs: Floats) -> Floats:
        return np.full(len(inputs), self.error)


@dataclass
class Together(Fixed):
    """Family that fits several metrics at once."""

    together: list[tuple[Floats, Floats, Floats | None]] = field(default_factory=list)

    def fit_tasks(self, inputs: Floats, values: Floats, noise: Floats | None) -> list[TaskModel]:
        self.together.append((inputs, values, noise))
        return [self] * values.shape[1]


def test_values_and_errors_are_scaled_to_each_metric_and_back() -> None:
    values = np.array([[1.0, 10.0], [3.0, 10.0], [5.0, 10.0]])
    noise = np.array([[0.4, 0.1], [0.8, 0.2], [1.6, 0.3]])
    made = Fixed(mean=0.5, error=2.0)
    model = Surrogate(made).fit(INPUTS[:3], values, noise)
    scale = np.sqrt(8.0 / 3.0)
    (_, first, first_noise), (_, second, second_noise) = made.alone
    assert first_noise is not None
    assert second_noise is not None
    np.testing.assert_allclose(first, [-2.0 / scale, 0.0, 2.0 / scale])
    np.testing.assert_allclose(first_noise, [0.4 / scale, 0.8 / scale, 1.6 / scale])
    np.testing.assert_allclose(second, 0.0)  # a constant metric keeps its unit
    np.testing.assert_allclose(second_noise, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(model.predict(INPUTS[:1]), [[3.0 + 0.5 * scale, 10.5]])
    np.testing.assert_allclose(model.spread(INPUTS[:1]), [[2.0 * scale, 2.0]])
    assert model.left_out() is None


def test_runs_without_a_value_are_left_out_of_that_metric_alone() -> None:
    values = np.arange(8.0).reshape(4, 2)
    values[1, 0] = np.nan
    noise = np.arange(8.0, 16.0).reshape(4, 2)
    made = Together()
    Surrogate(made).fit(INPUTS[:4], values, noise)
    assert made.together == []
    (inputs, first, errors), (every, second, _) = made.alone
    np.testing.assert_array_equal(inputs, INPUTS[[0, 2, 3]])
    np.testing.assert_array_equal(every, INPUTS[:4])
    scale = np.sqrt(56.0 / 9.0)  # of 0, 4, 6 about 10 / 3
    np.testing.assert_allclose(first * scale + 10.0 / 3.0, [0.0, 4.0, 6.0])
    assert errors is not None
    np.testing.assert_allclose(errors * scale, [8.0, 12.0, 14.0])
    assert len(second) == 4


@pytest.mark.parametrize("runs", [3, 4])
def test_metrics_without_a_missing_value_are_fitted_together(runs: int) -> None:
    made = Together()
    Surrogate(made).fit(INPUTS[:runs], np.arange(2.0 * runs).reshape(runs, 2))
    assert [values.shape for _, values, _ in made.together] == [(runs, 2)]
    assert made.alone == []


def test_three_values_are_enough_and_two_are_not() -> None:
    values = np.full((5, 2), np.nan)
    values[:3, 0], values[:2, 1] = [1.0, 2.0, 4.0], [1.0, 2.0]
    with pytest.raises(ConfigError) as refused:
        Surrogate(Fixed()).fit(INPUTS[:5], values)
    assert str(refused.value.problems[0]) == (
        "surrogate values: too few runs have a value; found: metric columns [1]; "
        "allowed: at least 3 runs per metric"
    )
    assert Surrogate(Fixed()).fit(INPUTS[:5], values[:, :1]).predict(INPUTS[:1])[
        0, 0
    ] == pytest.approx(7.0 / 3.0)


def test_inputs_of_another_shape_are_refused_beside_missing_values() -> None:
    with pytest.raises(ConfigError) as refused:
        Surrogate(Fixed()).fit(np.ones((4, 2, 2)), np.full(4, np.nan))
    told = [str(problem) for problem in refused.value.problems]
    assert told[0] == "surrogate inputs: not a finite matrix; found: (4, 2, 2)"
    assert "metric columns [0]" in told[1]


@pytest.mark.parametrize("made", [Fixed(), Together()])
def test_an_interval_is_unbounded_where_no_fold_leaves_three_runs(made: Fixed) -> None:
    model = Surrogate(made).fit(INPUTS[:3], np.array([1.0, 2.0, 4.0]))
    low, high = model.predict_interval(INPUTS[:2])
    assert (low == -np.inf).all()
    assert (high == np.inf).all()


def test_an_interval_is_the_spread_times_a_quantile_of_errors_by_spread() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 12.0])
    model = Surrogate(Fixed(error=2.0)).fit(INPUTS[:9], values)
    # The mean is 40 / 9: errors 4.44 3.44 2.44 1.44 .44 .56 1.56 2.56 7.56. At level .5 the fifth.
    low, high = model.predict_interval(INPUTS[:1], 0.5)
    assert (low[0, 0], high[0, 0]) == pytest.approx((40.0 / 9 - 22.0 / 9, 40.0 / 9 + 22.0 / 9))
    low, high = model.predict_interval(INPUTS[:1])
    assert (low[0, 0], high[0, 0]) == pytest.approx((40.0 / 9 - 68.0 / 9, 40.0 / 9 + 68.0 / 9))


def test_another_fit_forgets_the_errors_of_the_last() -> None:
    model = Surrogate(Fixed()).fit(INPUTS, np.linspace(0.0, 1.0, 12))
    first = np.ptp(np.array(model.predict_interval(INPUTS[:1])))
    model.fit(INPUTS, np.r_[np.zeros(11), 1.0])
    assert np.ptp(np.array(model.predict_interval(INPUTS[:1]))) != pytest.approx(first)


def test_a_quantile_has_the_rank_of_the_level_among_one_more() -> None:
    ratios = np.arange(1.0, 10.0)
    assert _quantile(ratios, 0.9) == pytest.approx(9.0)
    assert _quantile(ratios, 0.5) == pytest.approx(5.0)
    assert _quantile(ratios, 0.25) == pytest.approx(2.5)
    assert _quantile(np.array([]), 0.5) == float("inf")


def test_folds_are_of_equal_size_and_differ_with_their_seed() -> None:
    fold = folds(11, 4, 3)
    assert sorted(np.bincount(fold).tolist()) == [2, 3, 3, 3]
    assert np.bincount(fold).argmin() == 3
    assert fold.tolist() == folds(11, 4, 3).tolist()
    assert fold.tolist() != folds(11, 4, 4).tolist()


def test_a_mixture_of_members_has_their_mean_and_their_disagreement() -> None:
    mean, spread = _combine(
        np.array([[1.0, 3.0], [2.0, 2.0]]),
        np.array([[1.0, 2.0], [3.0, 3.0]]),
        np.array([0.25, 0.75]),
    )
    # .25 (1 + 1.5²) + .75 (4 + .5²) = 4
    np.testing.assert_allclose(mean, [2.5, 2.0])
    np.testing.assert_allclose(spread, [2.0, 3.0])


@pytest.mark.parametrize(
    ("pull", "weight"),
    [(0.2, 1.05 / 1.1), (0.1, 1.025 / 1.05), (0.08, 1.0), (0.0, 1.0)],
)
def test_a_weight_below_two_percent_is_dropped(pull: float, weight: float) -> None:
    # One member is right, one predicts nothing. With S the sum of squares, the pull is p S / 4, and the
    # first weight is (1 + p / 4) / (1 + p / 2): the second is .0238 at a pull of .1, .0192 at .08.
    values = np.array([1.0, -2.0, 3.0])
    found = _blend(np.stack([values, np.zeros(3)], axis=1), values, pull)
    assert found.tolist() == pytest.approx([weight, 1.0 - weight], abs=1e-4)
    assert found.sum() == pytest.approx(1.0)


def test_members_that_are_both_right_share_the_weight() -> None:
    values = np.array([1.0, -2.0, 3.0])
    found = _blend(np.stack([values, values], axis=1), values, 0.05)
    assert found.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


def test_a_choice_fits_the_one_member_that_errs_least_on_left_out_runs() -> None:
    near, far = Fixed(mean=0.3, error=0.5), Fixed(mean=2.0, error=3.0)
    values = np.array([-1.0, 1.0, 0.0, -1.0, 1.0])
    made = StackFamily(name="c", members=(far, near), rule="choose")
    model = made.fit_task(INPUTS[:5], values, None)
    assert model.models == (None, near)
    assert model.weights.tolist() == [0.0, 1.0]
    assert len(far.alone) == 5  # its folds alone
    assert len(near.alone) == 6
    np.testing.assert_allclose(model.ratios, [0.6, 1.4, 1.4, 2.6, 2.6])
    np.testing.assert_allclose(model.predict(INPUTS[:2]), 0.3)
    np.testing.assert_allclose(model.spread(INPUTS[:2]), 0.5)


def test_a_stack_weighs_means_and_spreads_of_its_members() -> None:
    high, low = Fixed(mean=1.0, error=1.0), Fixed(mean=-1.0, error=2.0)
    values = np.array([-0.5, 0.5, 0.0, 0.25, -0.25])
    model = StackFamily(name="s", members=(high, low)).fit_task(INPUTS[:5], values, np.ones(5))
    assert model.weights.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    np.testing.assert_allclose(model.predict(INPUTS[:2]), 0.0, atol=1e-4)
    # .5 (1 + 1) + .5 (4 + 1)
    np.testing.assert_allclose(model.spread(INPUTS[:2]), np.sqrt(3.5), atol=1e-4)


def test_members_are_tried_on_folds_without_the_run_and_with_its_noise_left_out() -> None:
    made = Fixed(mean=2.0, error=3.0)
    noise = np.arange(4.0)
    stack = StackFamily(name="s", members=(made,), fold_count=10)
    means, spreads = left_out_predictions(stack, INPUTS[:4], np.arange(4.0), noise)
    assert len(made.alone) == 4
    for inputs, values, known in made.alone:
        assert (len(inputs), len(values)) == (3, 3)
        np.testing.assert_array_equal(values, known)
    assert means.tolist() == [[2.0]] * 4
    assert spreads.tolist() == [[3.0]] * 4


def test_the_families_of_several_have_these_members() -> None:
    smoother = ProcessFamily(name="gp-52", kernel="matern52")
    stack, choice = family("stack"), family("choice")
    assert isinstance(stack, StackFamily)
    assert isinstance(choice, StackFamily)
    assert stack.members == (ProcessFamily(), smoother, power_law(), TreesFamily(fold_count=2))
    assert choice.members[:3] == (linear(), scheffe(), family("ridge-sqrt"))
    assert choice.members[3:] == (family("log-linear"), power_law(), ProcessFamily())


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([1.0, 2.0], [3.0, 4.0], 1.0),
        ([1.0, 2.0], [4.0, 3.0], -1.0),
        ([1.0], [3.0], 0.0),
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], 0.0),
        ([5.0, 5.0, 5.0], [1.0, 2.0, 3.0], 0.0),
        ([1.0, 2.0, 3.0, np.nan], [1.0, 8.0, 27.0, -9.0], 1.0),
        ([1.0, 2.0, 3.0, 9.0], [1.0, 8.0, 27.0, np.nan], 1.0),
        ([1.0, 2.0, 3.0], [1.0, 3.0, 2.0], 0.5),
        ([1.0, 1.0, 3.0], [1.0, 2.0, 3.0], np.sqrt(0.75)),
    ],
)
def test_a_rank_correlation_shares_ranks_and_skips_missing_values(
    left: list[float], right: list[float], expected: float
) -> None:
    assert rank_correlation(np.array(left), np.array(right)) == pytest.approx(expected)


def test_an_entry_has_its_errors_in_units_of_each_metric() -> None:
    values = np.array([[0.0, 10.0], [2.0, 30.0], [4.0, np.nan], [6.0, 20.0]])
    predicted = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 7.0], [3.0, 40.0]])
    scale, towards = np.array([2.0, 10.0]), np.array([-1.0, 0.5])
    found = _entry("x", predicted, values, scale, towards, np.array([0, 0, 1, 1]))
    # Squared errors .25 0 0 2.25 and 0 1 - 4: means .625 and 5 / 3.
    assert found.r2 == pytest.approx(1.0 - (0.625 + 5 / 3) / 2)
    assert found.rmse == pytest.approx((np.sqrt(0.625) + np.sqrt(5 / 3)) / 2)
    # Scores 5 13 - 4 of guesses 4 8 - 17: errors 1 25 169.
    spread = np.std([5.0, 13.0, 4.0])
    assert found.score_rmse == pytest.approx(np.sqrt(195.0 / 3) / spread)
    assert found.score_rank_correlation == pytest.approx(-0.5)
    assert found.regret == 0.0
    # Ranks 1 2 4 3 of 1 2 3 4, and 1 2 3 of 1 3 2.
    assert found.rank_correlation == pytest.approx((0.8 + 0.5) / 2)


def test_a_constant_score_has_its_error_as_it_is() -> None:
    values, fold = np.ones((4, 1)), np.array([0, 0, 1, 1])
    found = _entry("x", values + 0.5, values, np.ones(1), np.ones(1), fold)
    assert found.score_rmse == pytest.approx(0.5)
    assert found.regret == 0.0


def test_regret_is_a_share_of_what_the_best_run_gains_over_the_mean() -> None:
    score = np.array([0.0, 1.0, 5.0, 7.0, 7.0, 0.0, 4.0])
    guess = np.array([1.0, 3.0, 2.0, 1.0, 2.0, 5.0, 1.0])
    fold = np.array([0, 0, 0, 1, 1, 2, 2])
    # 4 of 3 in the first fold, none to gain in the second, 4 of 2 in the third.
    assert _regret(guess, score, fold) == pytest.approx((4 / 3 + 2.0) / 2)
    assert _regret(guess[:2], np.ones(2), fold[:2]) == 0.0


def board_of(
    means: list[float], weights: list[float] | None, values: Floats
) -> tuple[list[str], list[str]]:
    families = [Fixed(name=f"{mean:g}", mean=mean) for mean in means]
    board = leaderboard(families, INPUTS[: len(values)], values, weights=weights, fold_count=4)
    return [one.name for one in board.entries], [one.name for one in board.dropped]


def test_a_family_is_dropped_for_its_metrics_or_for_its_score() -> None:
    own = np.linspace(-1.0, 1.0, 12)
    turned = np.stack([own, 0.3 * np.roll(own, 5) - own], axis=1)
    apart = np.stack([own, np.roll(own, 3)], axis=1)
    # Errors that add up in a score whose metrics nearly cancel, and ones that cancel themselves.
    assert board_of([0.0, 1.4], [1.0, 1.0], turned) == (["0"], ["1.4"])
    assert board_of([0.0, 2.5], [1.0, -1.0], apart) == (["0"], ["2.5"])
    assert board_of([0.0, 1.4], [1.0, -1.0], apart)[1] == []


def test_where_every_family_leaves_the_data_none_is_dropped() -> None:
    values = np.linspace(0.0, 1.0, 12)[:, None]
    assert board_of([5.0, 4.0], None, values) == (["4", "5"], [])


def test_a_leaderboard_has_no_more_folds_than_runs_and_tells_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([10.0, 12.5])
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    # The package has a function of the module's name.
    monkeypatch.setattr(import_module("sweeps.search.surrogates.leaderboard"), "time", clock)
    said: list[str] = []
    made = Fixed()
    values = np.array([[1.0], [2.0], [4.0], [8.0]])
    board = leaderboard([made], INPUTS[:4], values, fold_count=9, progress=said.append)
    assert (board.folds, board.runs, board.metrics) == (4, 4, 1)
    assert len(made.alone) == 4
    assert said == [f"fixed: rank correlation of the score {-1.0:.3f}, 2.5 s"]


def test_without_weights_the_score_is_minus_the_sum_of_the_standardised_metrics() -> None:
    own = np.linspace(-1.0, 1.0, 12)
    values = np.stack([own, 100.0 * np.roll(own, 4), np.full(12, 3.0)], axis=1)
    entry = leaderboard([Fixed(mean=0.5)], INPUTS, values, fold_count=3).entries[0]
    scales = np.array([own.std(), 100.0 * own.std(), 1.0])
    same = leaderboard([Fixed(mean=0.5)], INPUTS, values, weights=list(-1.0 / scales), fold_count=3)
    assert same.entries[0].score_rmse == pytest.approx(entry.score_rmse)
    assert same.entries[0].regret == pytest.approx(entry.regret)
    turned = leaderboard(
        [Fixed(mean=0.5)], INPUTS, values, weights=list(1.0 / scales), fold_count=3
    )
    assert turned.entries[0].regret != pytest.approx(entry.regret)


def test_noise_of_the_runs_that_are_left_in_reaches_the_family() -> None:
    made = Fixed()
    values = np.linspace(0.0, 1.0, 12)[:, None]
    leaderboard([made], INPUTS, values, noise=values, fold_count=3)
    for _, fitted, noise in made.alone:
        assert noise is not None
        np.testing.assert_allclose(np.diff(fitted), np.diff(noise))
