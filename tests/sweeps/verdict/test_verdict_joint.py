"""Compare several contrasts at once: limits, exact borders, and each operand of the rules."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sweeps.verdict import contrasts
from sweeps.verdict.contrasts import (
    Estimate,
    Evidence,
    Parts,
    Selection,
    best_subset,
    joint_df,
    many_to_one,
    simultaneous,
)
from sweeps.verdict.covariance import differences
from sweeps.verdict.draws import DRAWS, selected_items
from sweeps.verdict.training_noise import OwnVariances, TrainingNoise


def evidence(means: list[float], *, seeds: int = 3, df: float = 10.0, **given: Any) -> Evidence:
    return Evidence(
        names=tuple(f"c{k}" for k in range(len(means))),
        means=np.array(means),
        unit=np.eye(len(means)) / seeds,
        noise=TrainingNoise(variance=1.0, df=df, source="seeds"),
        **given,
    )


def array(*values: float) -> np.ndarray:
    return np.array(values)


def test_degrees_of_freedom_of_two_noises_by_hand() -> None:
    found = joint_df(
        array(2.0, 2.0, 0.0, 6.0), array(4.0, 1.0, 5.0, 4.0), array(3.0, 3.0, 0.0, 0.0), 3.0
    )
    # 25 / (4 / 4 + 9 / 3); at most twice the training's 1; both zero: the training's; no items: the same.
    assert found == pytest.approx([6.25, 2.0, 5.0, 4.0])


def test_the_variance_is_that_of_both_parts_and_t_is_zero_or_endless_without_any() -> None:
    parts = Parts(
        values=array(0.0, 3.0, -3.0, 6.0, -5.0),
        training=array(0.0, 0.0, 0.0, 2.0, math.inf),
        items=array(0.0, 0.0, 0.0, 3.0, 1.0),
        ratio=array(1.0, 1.0, 1.0, 3.0, 1.0),
        df=np.ones(5),
    )
    assert parts.variance.tolist() == [0.0, 0.0, 0.0, 9.0, math.inf]
    assert parts.t().tolist() == [0.0, math.inf, -math.inf, 2.0, 0.0]


@pytest.mark.parametrize(
    ("value", "error", "t"),
    [
        (0.0, 0.0, "0.0"),
        (0.0, 2.0, "0.0"),
        (-1.0, math.inf, "0.0"),
        (3.0, 2.0, "1.5"),
        (1.0, 0.0, "inf"),
        (-1.0, 0.0, "-inf"),
    ],
)
def test_t_of_one_estimate(value: float, error: float, t: str) -> None:
    made = Estimate(
        value=value, standard_error=error, df=1.0, low=0.0, high=0.0, p=1.0, p_corrected=1.0
    )
    assert str(made.t) == t


def test_parts_and_covariances_of_evidence_by_hand() -> None:
    made = Evidence(
        names=("a", "b"),
        means=array(1.0, 4.0),
        unit=np.diag([0.5, 0.25]),
        noise=TrainingNoise(variance=8.0, df=4.0, source="seeds"),
        item_covariance=np.array([[3.0, 1.0], [1.0, 2.0]]),
        item_df=2.0,
    )
    weights = np.array([[-1.0, 1.0]])
    values, variance, df = made.contrasts(weights)
    assert (values.tolist(), variance.tolist()) == ([3.0], [9.0])
    assert df == pytest.approx([81.0 / (36.0 / 4.0 + 9.0 / 2.0)])
    training, items = made.covariances(weights)
    assert (training.tolist(), items.tolist()) == ([[6.0]], [[3.0]])
    plain = replace(made, item_covariance=None)
    assert plain.covariances(weights)[1].tolist() == [[0.0]]
    assert plain.contrasts(weights)[1].tolist() == [6.0]
    noisy = OwnVariances(squares=array(48.0, 4.0), df=array(2.0, 2.0), runs=array(2.0, 4.0))
    parts = replace(plain, own=noisy).parts(weights)
    # Own variances 24 and 2: 24 / 2 + 2 / 4 over 8 / 2 + 8 / 4.
    assert parts.ratio == pytest.approx([12.5 / 6.0])
    assert parts.training.tolist() == [6.0]
    assert parts.variance == pytest.approx([12.5])
    assert parts.df[0] < 4.0


def test_unknown_noise_gives_endless_intervals_and_p_one() -> None:
    made = replace(evidence([0.0, -2.0]), noise=TrainingNoise.unknown())
    (found,) = many_to_one(made, 0).values()
    assert (found.value, found.low, found.high) == (-2.0, -math.inf, math.inf)
    assert (found.p, found.p_corrected, found.df) == (1.0, 1.0, 0.0)
    assert best_subset(made) == (("c0", "c1"), {"c0": 1.0, "c1": 1.0})
    assert simultaneous(evidence([0.0, 1.0]), np.zeros((0, 2))) == []
    assert simultaneous(made, np.zeros((0, 2))) == []


def test_one_candidate_alone_is_the_best() -> None:
    assert best_subset(evidence([3.0])) == (("c0",), {"c0": 1.0})


def test_intervals_of_all_pairs_have_tukey_s_width_and_not_bonferroni_s() -> None:
    made = evidence([0.0, 0.5, 1.5], df=15.0)
    weights = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    tukey = stats.studentized_range.isf(0.05, 3, 15.0) / math.sqrt(2.0)
    bonferroni = stats.t.isf(0.05 / 6.0, 15.0)
    assert tukey < 0.97 * bonferroni
    for found in simultaneous(made, weights):
        error = math.sqrt(2.0 / 3.0)
        assert found.standard_error == pytest.approx(error)
        assert (found.high - found.value) / error == pytest.approx(tukey, rel=0.01)
        assert (found.value - found.low) / error == pytest.approx(tukey, rel=0.01)
        assert found.p == pytest.approx(2.0 * stats.t.sf(abs(found.value) / error, 15.0))
        assert found.p < found.p_corrected < min(1.0, 3.0 * found.p)


@pytest.mark.parametrize("df", [3.0, 5.0, 9.0, 15.0])
def test_one_contrast_alone_has_the_interval_of_t_itself(df: float) -> None:
    found = many_to_one(evidence([0.0, 1.0], df=df), 0)["c1"]
    assert found.high - 1.0 == pytest.approx(stats.t.isf(0.025, df) * math.sqrt(2.0 / 3.0))


@pytest.mark.parametrize(("most", "joint"), [(3, True), (2, False)])
def test_beyond_the_limit_of_comparisons_bonferroni_is_exact(
    monkeypatch: pytest.MonkeyPatch, most: int, joint: bool
) -> None:
    monkeypatch.setattr(contrasts, "_MOST_JOINT", most)
    made = evidence([0.0, 0.3, 1.5, 1.0])
    plain = np.hstack([-np.ones((3, 1)), np.eye(3)])
    critical = stats.t.isf(0.025 / 3.0, 10.0)
    for found in (*many_to_one(made, 0).values(), *simultaneous(made, plain)):
        bonferroni = min(1.0, 3.0 * found.p)
        width = (found.high - found.value) / found.standard_error
        assert (found.p_corrected < bonferroni - 0.005) == joint
        assert (width < critical - 0.02) == joint
        if not joint:
            assert found.p_corrected == bonferroni
            assert width == pytest.approx(critical)
            assert found.value - found.low == pytest.approx(found.high - found.value)


def test_sparse_contrasts_are_always_corrected_by_bonferroni() -> None:
    made = evidence([0.0, 0.3, 1.5, 1.0])
    for found in simultaneous(made, differences(4, [1, 2, 3], 0)):
        assert found.p_corrected == min(1.0, 3.0 * found.p)


@pytest.mark.parametrize(("offset", "drawn"), [(0, True), (1, False)])
def test_a_statistic_that_few_draws_exceed_has_bonferroni_s_p(
    monkeypatch: pytest.MonkeyPatch, offset: int, drawn: bool
) -> None:
    made = evidence([0.0, 0.3, 1.5, 1.0])
    before = many_to_one(made, 0)["c2"]
    beyond = round(before.p_corrected * DRAWS)
    assert beyond / DRAWS == before.p_corrected
    monkeypatch.setattr(contrasts, "_RARE", beyond + offset)
    after = many_to_one(made, 0)["c2"].p_corrected
    assert after == (before.p_corrected if drawn else 3.0 * before.p)


def two_noises() -> Evidence:
    """Two candidates with many quiet runs and two with few noisy ones, judged with their own noise."""
    runs, variances = array(9.0, 9.0, 3.0, 3.0), array(0.2, 0.2, 4.0, 4.0)
    df = runs - 1.0
    return Evidence(
        names=("c0", "c1", "c2", "c3"),
        means=array(0.0, 0.5, 3.2, 0.4),
        unit=np.diag(1.0 / runs),
        noise=TrainingNoise(variance=1.0, df=20.0, source="seeds"),
        own=OwnVariances(squares=variances * df, df=df, runs=runs),
    )


def test_with_own_noise_each_p_is_that_of_its_own_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    made = two_noises()
    together = many_to_one(made, 0)
    for k, name in ((1, "c1"), (2, "c2"), (3, "c3")):
        weights = np.zeros((1, 4))
        weights[0, [k, 0]] = 1.0, -1.0
        (alone,) = simultaneous(made, weights)
        by_t = 2.0 * stats.t.sf(abs(alone.t), alone.df)
        assert together[name].p == pytest.approx(alone.p, abs=0.01)
        assert together[name].p <= by_t
        assert together[name].p_corrected >= together[name].p
        assert alone.p_corrected == alone.p
    found = together["c2"]
    by_t = 2.0 * stats.t.sf(found.t, found.df)
    assert found.p < 0.9 * by_t
    beyond = round(found.p * DRAWS)
    monkeypatch.setattr(contrasts, "_RARE", beyond)
    assert many_to_one(made, 0)["c2"].p == found.p
    monkeypatch.setattr(contrasts, "_RARE", beyond + 1)
    assert many_to_one(made, 0)["c2"].p == pytest.approx(by_t)


def test_with_own_noise_an_interval_ends_at_zero_where_p_is_alpha() -> None:
    made = two_noises()
    first = many_to_one(made, 0)
    assert first["c1"].df != first["c2"].df
    for name in ("c1", "c2"):
        at = many_to_one(replace(made, alpha=first[name].p_corrected), 0)[name]
        width = at.value - at.low
        assert width == pytest.approx(abs(at.value), rel=0.01)


def chosen(**given: Any) -> Evidence:
    """Three candidates chosen out of more, and a baseline that was not."""
    return replace(
        evidence([0.0, 2.6, 0.5, 0.2], df=30.0),
        item_df=500.0,
        selection=Selection(searched=3, seeds=1.0, unchosen=("c0",)),
        **given,
    )


@pytest.mark.parametrize("items", [0.05, 0.3, 1.0, 4.0])
def test_a_choice_of_all_that_were_searched_costs_nothing(items: float) -> None:
    made = chosen(
        item_covariance=items * np.eye(4), means=array(0.0, 2.4, 0.5, 0.2) * (1 + items) ** 0.5
    )
    plain = many_to_one(replace(made, selection=None), 0)
    found = many_to_one(made, 0)
    assert 0.01 < plain["c1"].p_corrected < 0.2
    for name in ("c1", "c2"):
        assert found[name].p_corrected == pytest.approx(plain[name].p_corrected, abs=0.012)
        assert found[name].high == pytest.approx(plain[name].high, rel=0.02)


def test_a_search_counts_where_any_contrast_has_item_noise() -> None:
    made = chosen(item_covariance=np.diag([0.0, 0.0, 0.0, 0.5]))
    searched = Selection(searched=40, seeds=1.0, unchosen=("c0",))
    parts = made.parts(np.array([[-1.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 1.0]]))
    assert parts.items.tolist() == [0.0, 0.5]

    def comparisons(**given: Any) -> int:
        return contrasts._comparisons(replace(made, **given), parts)

    assert comparisons(selection=searched) == 40
    assert comparisons() == 3
    assert comparisons(selection=None) == 2
    assert comparisons(selection=replace(searched, searched=1)) == 2
    without = replace(parts, items=np.zeros(2))
    assert contrasts._comparisons(replace(made, selection=searched), without) == 2


def test_two_candidates_out_of_a_search_are_compared_by_draws_and_not_by_bonferroni() -> None:
    made = replace(
        evidence([0.0, 2.2], df=30.0),
        item_covariance=0.3 * np.eye(2),
        item_df=500.0,
        selection=Selection(searched=12, seeds=1.0, unchosen=("c0",)),
    )
    found = many_to_one(made, 0)["c1"]
    assert 1.1 * found.p < found.p_corrected < 0.5 * 12.0 * found.p
    tail = found.p / 2.0
    assert 1.1 * tail < best_subset(made)[1]["c0"] < 0.5 * 12.0 * tail


def test_the_share_of_the_items_in_a_choice_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def spy(searched: int, kept: int, share: float) -> np.ndarray:
        calls.append((searched, kept, share))
        return selected_items(searched, kept, share)

    monkeypatch.setattr(contrasts, "selected_items", spy)
    made = Evidence(
        names=("today", "a", "b"),
        means=array(0.0, 2.0, 1.0),
        unit=np.eye(3) / 2.0,
        noise=TrainingNoise(variance=0.75, df=12.0, source="seeds"),
        item_covariance=np.diag([0.0, 0.0, 1.0]),
        item_df=500.0,
        selection=Selection(searched=9, seeds=3.0, unchosen=("today",)),
    )
    weights = np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    # Half of the item variance of the contrasts that have any, 1, over that and 0.75 / 3.
    simultaneous(made, weights)
    assert calls == [(9, 2, 0.67)]
    few = replace(made, selection=Selection(searched=1, seeds=0.5, unchosen=("today",)))
    simultaneous(few, weights)
    assert calls[1:] == [(2, 2, 0.25)]
    simultaneous(replace(made, item_covariance=None), weights)
    simultaneous(replace(made, selection=None), weights)
    assert len(calls) == 2


def test_items_drawn_for_a_contrast_are_those_of_its_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = np.random.default_rng(3).standard_normal((DRAWS, 3))
    monkeypatch.setattr(contrasts, "selected_items", lambda *_: columns)
    made = Evidence(
        names=("a", "today", "b"),
        means=np.zeros(3),
        unit=np.eye(3),
        noise=TrainingNoise(variance=1.0, df=12.0, source="seeds"),
    )
    weights = np.array([[1.0, -1.0, 0.0], [1.0, -2.0, 1.0]])
    selection = Selection(searched=9, seeds=3.0, unchosen=("today",))
    found = contrasts._selected(made, selection, weights, array(1.0, 1.0))
    a, b, today = columns.T
    assert found[:, 0] == pytest.approx((a - today) / math.sqrt(2.0))
    assert found[:, 1] == pytest.approx((a - 2.0 * today + b) / math.sqrt(6.0))
