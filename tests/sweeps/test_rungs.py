"""Surrogate over mixtures and rungs, and the policy that shares a budget between rungs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sweeps.search.proposals.rung_policy import (
    FEWEST_PAIRS,
    Guard,
    judge_rung,
    plan_rungs,
    rung_family,
    spread_rows,
)
from sweeps.search.space import Floats
from sweeps.search.surrogates import ProcessFamily, Surrogate
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.search.surrogates.rung_process import RungFamily, rung_columns

LOW = np.array([0.0, 1.0])
TOP = np.zeros(2)


def mixtures(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).dirichlet(np.ones(4), count)


def loss(weights: Floats) -> Floats:
    """Return two metrics of a smooth truth."""
    roots = np.sqrt(weights)
    return np.stack(
        [3.0 - roots @ [0.9, 0.2, 0.1, 0.4], 2.0 - roots @ [0.1, 0.8, 0.3, 0.2]], axis=1
    )


def at(weights: Floats, rung: Floats) -> Floats:
    return rung_columns(weights, np.tile(rung, (len(weights), 1)))


def joint(low: Floats, low_values: Floats, top: Floats, top_values: Floats) -> Surrogate:
    inputs = np.r_[at(low, LOW), at(top, TOP)]
    return Surrogate(RungFamily(columns=2)).fit(inputs, np.r_[low_values, top_values])


@pytest.mark.parametrize("rung", [TOP, LOW], ids=["top", "low"])
def test_one_rung_alone_is_the_plain_surrogate_to_the_last_digit(rung: Floats) -> None:
    seen, fresh = mixtures(20), mixtures(7, 1)
    plain = Surrogate(ProcessFamily()).fit(seen, loss(seen))
    rungs = Surrogate(RungFamily(columns=2)).fit(at(seen, rung), loss(seen))
    assert np.array_equal(plain.predict(fresh), rungs.predict(at(fresh, TOP)))
    expected = plain.predict_interval(fresh)
    assert np.array_equal(expected, rungs.predict_interval(at(fresh, TOP)))
    assert np.array_equal(plain.left_out(), rungs.left_out())


def test_the_gradient_of_the_posterior_is_that_of_its_value() -> None:
    from sweeps.search.surrogates.rung_process import _Posterior, _Rows

    weights = mixtures(24)
    rungs = np.r_[np.tile(LOW, (16, 1)), np.zeros((8, 2))]
    data = _Rows.of(weights, rungs, loss(weights)[:, 0], None)
    posterior = _Posterior(RungFamily(columns=2), 0.35, data, np.arange(24))
    settings = posterior.prior + 0.2 * np.random.default_rng(0).normal(size=len(posterior.prior))
    slope = [
        (posterior(settings + 1e-5 * one)[0] - posterior(settings - 1e-5 * one)[0]) / 2e-5
        for one in np.eye(len(settings))
    ]
    assert posterior(settings)[1] == pytest.approx(slope, abs=1e-4)


def test_cheap_runs_rank_mixtures_that_few_full_runs_cannot() -> None:
    low, top, fresh = mixtures(30), mixtures(3, 1), mixtures(60, 2)
    model = joint(low, 1.3 * loss(low) + 0.7, top, loss(top))
    truth = loss(fresh)
    predicted = model.predict(at(fresh, TOP))
    assert rank_correlation(predicted.mean(axis=1), truth.mean(axis=1)) > 0.97
    assert np.abs(predicted - truth).mean() < 0.03, "the offset of the low rung is not the top's"


def test_finalists_alone_at_the_top_do_not_bias_its_level() -> None:
    low, fresh = mixtures(40), mixtures(50, 2)
    best = low[np.argsort(loss(low).mean(axis=1))[:5]]
    model = joint(low, loss(low) + 0.5, best, loss(best))
    assert (model.predict(at(fresh, TOP)) - loss(fresh)).mean() == pytest.approx(0.0, abs=0.02)


def test_a_loud_rung_does_not_make_the_top_loud() -> None:
    low, top, fresh = mixtures(40), mixtures(16, 1), mixtures(40, 2)
    noise = np.random.default_rng(3).normal(scale=loss(low).std(axis=0), size=(40, 2))
    model = joint(low, loss(low) + noise, top, loss(top))
    alone = Surrogate(ProcessFamily()).fit(top, loss(top))
    both = rank_correlation(model.predict(at(fresh, TOP))[:, 0], loss(fresh)[:, 0])
    assert both > rank_correlation(alone.predict(fresh)[:, 0], loss(fresh)[:, 0]) - 0.05


def test_intervals_at_the_top_hold() -> None:
    low, top, fresh = mixtures(40), mixtures(8, 1), mixtures(200, 2)
    rng = np.random.default_rng(5)
    noisy = loss(fresh) + rng.normal(scale=0.01, size=(200, 2))
    model = joint(
        low,
        loss(low) + rng.normal(scale=0.01, size=(40, 2)),
        top,
        loss(top) + rng.normal(scale=0.01, size=(8, 2)),
    )
    lower, upper = model.predict_interval(at(fresh, TOP), 0.9)
    assert 0.8 < ((lower <= noisy) & (noisy <= upper)).mean() <= 1.0


def test_a_metric_that_the_top_lacks_is_predicted_from_the_low_rung() -> None:
    low, top, fresh = mixtures(30), mixtures(4, 1), mixtures(40, 2)
    values = loss(top)
    values[:, 1] = np.nan
    model = joint(low, loss(low), top, values)
    predicted = model.predict(at(fresh, TOP))
    assert rank_correlation(predicted[:, 1], loss(fresh)[:, 1]) > 0.97


def test_settings_of_many_runs_are_found_on_a_part_that_keeps_the_small_rung() -> None:
    from sweeps.search.surrogates.rung_process import _Rows

    rungs = np.r_[np.tile(LOW, (300, 1)), np.zeros((12, 2))]
    data = _Rows.of(mixtures(312), rungs, np.arange(312.0), None)
    rows = data.part(64)
    assert len(rows) == 64
    assert set(range(300, 312)) <= set(rows.tolist())


@pytest.mark.parametrize(
    ("units", "price", "sources", "same", "low", "pairs", "finalists"),
    [
        pytest.param(4, 0.3, 7, True, 11, 0, 1, id="four units, unguarded"),
        pytest.param(8, 0.3, 7, True, 19, 0, 3, id="eight units, unguarded"),
        pytest.param(16, 0.3, 7, True, 25, 8, 4, id="sixteen units pay the guard"),
        pytest.param(1, 0.118, 7, False, 8, 0, 0, id="a proxy, one unit"),
        pytest.param(16, 0.3, 4, True, 24, 8, 4, id="four full runs a source limit the low runs"),
        pytest.param(40, 0.3, 4, True, 0, 0, 0, id="ten full runs a source"),
    ],
)
def test_a_budget_is_shared(
    units: float, price: float, sources: int, same: bool, low: int, pairs: int, finalists: int
) -> None:
    plan = plan_rungs(units, price, sources, same_model=same)
    assert (plan.low_runs, plan.pairs, plan.finalists) == (low, pairs, finalists)
    assert bool(plan.off) == (low == 0)
    assert plan.guarded == (pairs >= FEWEST_PAIRS)
    go_on = 1.0 - price if same else 1.0
    assert low * price + (pairs + finalists) * go_on <= units + 1e-9


def test_the_guard_names_ranks_and_consequence() -> None:
    scores = np.arange(8.0)
    assert judge_rung(scores, 2.0 * scores).holds
    turned = judge_rung(scores, -scores)
    assert not turned.holds
    assert "rank correlation -1.00 over 8 pairs" in str(turned)
    assert "dropped" in str(turned)


@pytest.mark.parametrize(
    ("rank", "words"),
    [(0.74, "dropped"), (0.75, "only roughly"), (0.79, "only roughly"), (0.8, "like full runs")],
)
def test_the_guard_says_that_a_rung_between_dropped_and_sure_is_doubted(
    rank: float, words: str
) -> None:
    guard = replace(judge_rung(np.arange(8.0), np.arange(8.0)), correlation=rank)
    assert words in str(guard)
    assert guard.doubted is (words == "only roughly")
    assert guard.holds is (words != "dropped")


def test_a_guard_of_an_older_study_keeps_its_result() -> None:
    assert Guard(pairs=8, correlation=0.65).holds, "no bound was stored: it was .6"


def test_the_interval_of_the_guard_narrows_with_pairs_and_survives_perfect_ranks() -> None:
    low, high = Guard(pairs=8, correlation=0.7).interval
    # atanh(.7) = .8673, its standard error sqrt(1.06 / 5) = .4604
    assert (low, high) == pytest.approx((0.1095, 0.9259), abs=1e-3)
    more = Guard(pairs=40, correlation=0.7).interval
    assert low < more[0] < 0.7 < more[1] < high
    assert Guard(pairs=6, correlation=1.0).interval[1] <= 1.0


def test_pairs_of_the_guard_span_the_design() -> None:
    corners = np.eye(4)
    inner = np.full((6, 4), 0.25) + 0.01 * np.random.default_rng(0).normal(size=(6, 4))
    rows = spread_rows(np.r_[inner, corners], 4)
    assert set(rows.tolist()) == {6, 7, 8, 9}
    assert len(spread_rows(inner, 20)) == 6
    assert len(spread_rows(np.zeros((0, 4)), 3)) == 0


def test_the_search_family_chooses_between_two_powers() -> None:
    assert rung_family(2).base.powers == (0.35, 0.7)
