"""Check task quality and the comparison task by task at their limits, with numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sweeps.verdict.observations import Candidate, Observations, ObservedRun, TaskData
from sweeps.verdict.task_effects import task_rows
from sweeps.verdict.task_quality import TaskFit, TaskQuality, fit_task, measure_quality
from sweeps.verdict.training_noise import TrainingNoise, fit_means

LOW = "mixtures differ by less than the noise of a run"
FLAT, CHANCE, UNSTABLE = "not monotone in tokens", "not above chance", "unstable ranking"


def task(values: Sequence[float], **changes: Any) -> TaskData:
    plain: dict[str, Any] = {"task": "arc", "metric": "acc", "higher_is_better": True}
    return TaskData(values=np.array(values), **{**plain, "chance": None, **changes})


def observed(owners: Sequence[int], *tasks: TaskData, seeds: Sequence[int] = ()) -> Observations:
    """Return runs of candidates a, b, …, in their order."""
    return Observations(
        study="study",
        direction="maximize",
        score="",
        rule={},
        candidates=tuple(Candidate(name=n, trial=n) for n in "abcdefgh"[: max(owners) + 1]),
        runs=tuple(
            ObservedRun(name=str(i), candidate=owner, seed=i, score=0.0)
            for i, owner in enumerate(owners)
        ),
        tasks=tasks,
        published_df=9.0,
    )


def paths(*scores: Sequence[float]) -> tuple[tuple[Any, Any], ...]:
    return tuple((np.arange(1.0, len(own) + 1.0), np.array(own)) for own in scores)


def measured(
    owners: Sequence[int], own: TaskData, *, variance: float = 1.0, df: float = 5.0, **more: Any
) -> TaskQuality:
    """Measure a task whose runs have a stated noise."""
    runs = observed(owners, own)
    noise = TrainingNoise(variance=variance, df=df, source="published")
    fit = fit_means(runs.run_scores(own.sign * own.values))
    return measure_quality(TaskFit(observed=runs, task=own, fit=fit, noise=noise), **more)


def test_a_metric_that_no_run_has_is_fitted_by_nothing() -> None:
    found = fit_task(observed([0, 1], task([1.0, 2.0])), task([math.nan, math.nan]), 5)
    assert (found.observed.runs, found.fit.means.size, found.noise.known) == ((), 0, False)
    assert found.fit.unit.diagonal.size == 0
    assert not found.fit.blocked
    quality = measure_quality(found)
    assert quality == TaskQuality(
        task="arc/acc",
        monotonicity=None,
        noise_sd=None,
        above_chance=None,
        stability=None,
        warnings=(),
        variance_ratio=None,
    )


def test_runs_without_the_metric_are_left_out_of_its_fit() -> None:
    own = task([1.0, math.nan, 3.0, 7.0], higher_is_better=False)
    found = fit_task(observed([0, 1, 2, 2], task([0.0] * 4), own), own, 5)
    assert [run.name for run in found.observed.runs] == ["0", "2", "3"]
    assert [one.name for one in found.observed.candidates] == ["a", "c"]
    assert found.fit.means.tolist() == [-1.0, -5.0]
    assert (found.noise.variance, found.noise.source) == (8.0, "seeds")
    assert found.task.values.tolist() == [1.0, 3.0, 7.0]


@pytest.mark.parametrize(
    ("sd", "values", "variance", "df", "source"),
    [
        (3.0, [1.0, 2.0], 9.0, 9.0, "published"),
        (None, [1.0, 2.0], math.inf, 0.0, "none"),
        # Two runs of one candidate that agree are no measure, and declared figures are one.
        (3.0, [1.0, 1.0, 2.0], 9.0, 9.0, "published"),
        (0.0, [1.0, 2.0], math.inf, 0.0, "none"),
        # One pair of runs 2 apart has variance 2, raised by a declared 9 that counts twice.
        (3.0, [1.0, 3.0, 2.0], (2.0 + 2 * 9.0) / 3.0, 1.0, "seeds"),
    ],
)
def test_declared_noise_stands_in_where_seeds_show_none(
    sd: float | None, values: list[float], variance: float, df: float, source: str
) -> None:
    own = task(values, published_sd=sd)
    found = fit_task(observed([0, 0, 1][3 - len(values) :], own), own, 5).noise
    assert found.variance == pytest.approx(variance)
    assert (found.df, found.source) == (df, source)


@pytest.mark.parametrize(
    ("least", "warnings"),
    [
        ((1.0, 0.5, 3.0), ()),
        ((1.1, 0.5, 3.0), (LOW,)),
        ((1.0, 1.0, 3.0), ()),
        ((1.0, 1.1, 3.0), (FLAT,)),
        ((1.0, 0.5, 4.0), ()),
        ((1.0, 0.5, 4.1), (CHANCE,)),
        ((9.0, 9.0, 9.0), (LOW, FLAT, CHANCE)),
    ],
)
def test_a_criterion_warns_below_its_least_value_and_not_at_it(
    least: tuple[float, float, float], warnings: tuple[str, ...]
) -> None:
    """Means 3 and 5 have variance 2: less their own noise, and over a variance of 1, the ratio is 1."""
    own = task([3.0, 5.0], chance=0.0, trajectories=paths([1.0, 2.0, 3.0], [3.0, 4.0, 5.0]))
    found = measured([0, 1], own, variance=1.0)
    assert (found.variance_ratio, found.monotonicity, found.above_chance) == (1.0, 1.0, 4.0)
    found = measured([0, 1], own, variance=1.0, least=least)
    assert found.warnings == warnings


def test_metrics_where_lower_is_better_warn_of_neither_chance_nor_a_rise() -> None:
    own = task([3.0, 5.0], chance=2.0, higher_is_better=False)
    rising = paths([1.0, 2.0, 3.0], [3.0, 4.0, 5.0])
    found = measured([0, 1], task([3.0, 5.0], chance=2.0, higher_is_better=False), variance=0.25)
    assert found.above_chance == -4.0
    assert found.warnings == ()
    found = measured(
        [0, 1],
        task(own.values.tolist(), chance=2.0, higher_is_better=False, trajectories=rising),
        variance=0.25,
    )
    assert (found.monotonicity, found.warnings) == (-1.0, ())


@pytest.mark.parametrize(
    ("variance", "df", "known"),
    [(4.0, 5.0, True), (4.0, 0.0, False), (0.0, 5.0, False), (math.inf, 5.0, False)],
)
def test_quality_in_noises_of_a_run_needs_a_noise(variance: float, df: float, known: bool) -> None:
    own = task([3.0, 7.0], chance=1.0)
    found = measured([0, 1], own, variance=variance, df=df)
    if known:
        # Variance 8 between the means over 4, less 1; the mean of the finals, 5, is 4 above chance.
        assert (found.noise_sd, found.variance_ratio, found.above_chance) == (2.0, 1.0, 2.0)
    else:
        assert (found.noise_sd, found.variance_ratio, found.above_chance) == (None, None, None)


def test_one_candidate_has_no_variance_between_mixtures() -> None:
    assert measured([0, 0], task([3.0, 7.0])).variance_ratio is None


def test_more_runs_of_a_candidate_leave_less_noise_in_its_mean() -> None:
    """Means 2 and 6 of two runs each: variance 8, and half of a run's variance is noise."""
    found = measured([0, 0, 1, 1], task([1.0, 3.0, 5.0, 7.0]), variance=4.0)
    assert found.variance_ratio == pytest.approx(8.0 / 4.0 - 0.5)


@pytest.mark.parametrize(
    ("owners", "scores", "stability"),
    [
        # Fewer than three candidates have no ranking to be stable.
        ([0, 1], ([1.0, 2.0], [2.0, 3.0]), None),
        ([0, 0, 1], ([1.0, 2.0], [2.0, 3.0], [4.0, 5.0]), None),
        ([0, 1, 2], ([1.0, 1.0], [2.0, 2.0], [3.0, 3.0]), 1.0),
        ([0, 1, 2], ([1.0, 3.0], [2.0, 2.0], [3.0, 1.0]), -1.0),
        ([0, 1, 2], ([1.0], [2.0], [3.0]), None),
        # The mean over two runs of the first candidate ranks it last in both.
        ([0, 0, 1, 2], ([0.0, 9.0], [1.0, -9.0], [2.0, 2.0], [3.0, 3.0]), 1.0),
        # Candidates equal at one checkpoint have no ranking there.
        ([0, 1, 2], ([1.0, 5.0, 1.0, 1.0], [2.0, 5.0, 2.0, 3.0], [3.0, 5.0, 3.0, 2.0]), 1 / 3),
        ([0, 1, 2], ([1.0, 5.0], [2.0, 5.0], [3.0, 5.0]), None),
        ([0, 1, 2], ([5.0, 1.0], [5.0, 2.0], [5.0, 3.0]), None),
        # The last pair counts as much as the first.
        ([0, 1, 2], ([1.0, 1.0, 3.0], [2.0, 2.0, 2.0], [3.0, 3.0, 1.0]), 0.0),
    ],
)
def test_stability_is_the_mean_tau_between_consecutive_checkpoints(
    owners: list[int], scores: tuple[list[float], ...], stability: float | None
) -> None:
    own = task([one[-1] for one in scores], trajectories=paths(*scores))
    found = measured(owners, own)
    assert found.stability == (None if stability is None else pytest.approx(stability))
    assert (UNSTABLE in found.warnings) == (stability is not None and stability < 0.3)


def test_late_checkpoints_alone_are_ranked() -> None:
    """At 9, 10 and 11 tokens, as numbers and not as words: before, the ranking was another."""
    tokens = np.array([8.0, 9.0, 10.0, 11.0])
    scores = [[3.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], [1.0, 3.0, 3.0, 3.0]]
    own = task([1.0, 2.0, 3.0], trajectories=tuple((tokens, np.array(one)) for one in scores))
    assert measured([0, 1, 2], own, last=3).stability == 1.0
    assert measured([0, 1, 2], own, last=4).stability == pytest.approx(1.0 / 3.0)
    assert measured([0, 1, 2], own, last=1).stability is None


def test_checkpoints_are_ranked_where_every_run_has_one() -> None:
    first = (np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0]))
    second = (np.array([1.0, 3.0, 4.0]), np.array([2.0, 9.0, 2.0]))
    third = (np.array([1.0, 2.0, 3.0, 4.0]), np.array([3.0, 0.0, 0.0, 3.0]))
    own = task([1.0, 2.0, 3.0], trajectories=(first, second, third))
    assert measured([0, 1, 2], own).stability == 1.0


def test_two_checkpoints_show_no_trend_and_three_do() -> None:
    assert measured([0], task([2.0], trajectories=paths([1.0, 2.0]))).monotonicity is None
    assert measured([0], task([2.0], trajectories=paths([1.0, 3.0, 2.0]))).monotonicity == 0.5


def rows(owners: Sequence[int], *tasks: TaskData, **more: Any) -> Any:
    options: dict[str, Any] = {"pick": "b", "reference": "a", "alpha": 0.05, "last": 5, **more}
    return task_rows(observed(owners, *tasks), {"arc/acc": 1.0}, **options)


def test_a_task_says_by_how_much_the_pick_is_better() -> None:
    """Two pairs, 2 and 4 apart within: a pooled variance of 5, and an advantage of 7."""
    (row,) = rows([0, 0, 1, 1], task([1.0, 3.0, 7.0, 11.0]))
    assert (row.reference, row.pick, row.in_score) == (2.0, 9.0, True)
    assert row.advantage.value == 7.0
    assert row.advantage.standard_error == pytest.approx(5.0**0.5)
    assert row.advantage.df == 2.0
    # t = 3.13 on two degrees of freedom.
    assert row.advantage.p == pytest.approx(0.0887, abs=1e-3)
    assert (row.effect, row.items, row.item_error) == ("not shown", None, None)
    (row,) = rows([0, 0, 1, 1], task([1.0, 3.0, 7.0, 11.0]), alpha=0.1)
    assert row.effect == "gains"
    (row,) = rows([0, 0, 1, 1], task([1.0, 3.0, 7.0, 11.0], higher_is_better=False), alpha=0.1)
    assert (row.effect, row.advantage.value, row.pick) == ("pays", -7.0, 9.0)


def test_a_metric_outside_the_score_is_compared_as_well() -> None:
    first, second = rows(
        [0, 0, 1, 1],
        task([1.0, 1.1, 9.0, 9.1]),
        task([9.0, 9.1, 1.0, 1.1], metric="margin"),
    )
    assert [(row.metric, row.effect, row.in_score) for row in (first, second)] == [
        ("acc", "gains", True),
        ("margin", "pays", False),
    ]
    # Holm over two equal p-values doubles both.
    assert first.advantage.p_corrected == pytest.approx(2.0 * first.advantage.p)


@pytest.mark.parametrize(
    ("values", "pick", "reference"),
    [
        ([1.0, 2.0, math.nan], None, 1.5),
        ([math.nan, math.nan, 5.0], 5.0, None),
        ([math.nan, math.nan, math.nan], None, None),
    ],
)
def test_a_side_without_the_metric_has_no_difference(
    values: list[float], pick: float | None, reference: float | None
) -> None:
    items = np.zeros((3, 4))
    lost, kept = rows([0, 0, 1], task(values, items=items), task([1.0, 2.0, 9.0], metric="more"))
    assert (lost.pick, lost.reference, lost.advantage, lost.effect) == (
        pick,
        reference,
        None,
        "unknown",
    )
    assert (lost.items, lost.item_error) == (None, None)
    # The correction of the other task does not count it.
    assert kept.advantage.value == 7.5
    assert kept.advantage.p_corrected == kept.advantage.p


def test_a_difference_of_unknown_noise_is_unknown() -> None:
    (row,) = rows([0, 1], task([1.0, 2.0]))
    assert (row.advantage.value, row.effect) == (1.0, "unknown")


def test_items_widen_the_noise_of_a_task_and_are_compared_in_pairs() -> None:
    """Means over the runs, item by item: differences 1, 2, 3, 6 have variance 14 / 3 over four items."""
    items = np.array([[0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 2.0], [1.0, 3.0, 3.0, 7.0]])
    own = task([1.0, 2.0, 4.0], items=items)
    (row,) = rows([0, 0, 1], own)
    assert row.items == 4
    assert row.item_error == pytest.approx((14.0 / 3.0 / 4.0) ** 0.5)
    (plain,) = rows([0, 0, 1], task([1.0, 2.0, 4.0]))
    assert row.advantage.standard_error > plain.advantage.standard_error
    grouped = task([1.0, 2.0, 4.0], items=items, groups=np.array([0, 0, 1, 1]))
    (row,) = rows([0, 0, 1], grouped)
    # The groups' sums lie 3 below and 3 above what the mean of 3 makes of two items.
    assert row.items == 4
    assert row.item_error == pytest.approx((2.0 * (9.0 + 9.0)) ** 0.5 / 4.0)


def test_a_difference_as_unlikely_as_the_level_is_shown() -> None:
    own = task([1.0, 3.0, 7.0, 11.0])
    (row,) = rows([0, 0, 1, 1], own)
    p = row.advantage.p_corrected
    assert rows([0, 0, 1, 1], own, alpha=p)[0].effect == "gains"
    assert rows([0, 0, 1, 1], own, alpha=0.999 * p)[0].effect == "not shown"


@pytest.mark.parametrize(("alpha", "critical"), [(0.05, 4.302653), (0.1, 2.919986)])
def test_the_interval_of_a_task_is_that_of_one_comparison(alpha: float, critical: float) -> None:
    """The critical value is that of t on two degrees of freedom."""
    (row,) = rows([0, 0, 1, 1], task([1.0, 3.0, 7.0, 11.0]), alpha=alpha)
    assert row.advantage.low == pytest.approx(7.0 - critical * 5.0**0.5, rel=1e-4)
    assert row.advantage.high == pytest.approx(7.0 + critical * 5.0**0.5, rel=1e-4)


def test_items_count_once_in_the_noise_of_a_task() -> None:
    """One run each with declared noise: its variance of 2 for a difference, and 14 / 3 / 4 of items."""
    items = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 3.0, 3.0, 7.0]])
    (row,) = rows([0, 1], task([0.5, 3.5], items=items, published_sd=1.0))
    assert row.item_error == pytest.approx((14.0 / 3.0 / 4.0) ** 0.5)
    assert row.advantage.standard_error == pytest.approx((2.0 + 14.0 / 3.0 / 4.0) ** 0.5)


def test_candidates_that_scatter_more_than_the_rest_have_a_noise_of_their_own() -> None:
    """Of three pairs, two scatter with a variance of 50 and one with 0: the pool would be 100 / 3."""
    (row,) = rows([0, 0, 1, 1, 2, 2], task([0.0, 10.0, 20.0, 30.0, 7.0, 7.0]))
    assert row.advantage.standard_error == pytest.approx(50.0**0.5)
