"""Several comparisons at once: against closed forms, scipy and invariants."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sweeps.verdict.contrasts import (
    Evidence,
    Selection,
    best_subset,
    many_to_one,
    simultaneous,
)
from sweeps.verdict.draws import from_normal_score, normal_score, scaled_normals
from sweeps.verdict.holm import holm
from sweeps.verdict.training_noise import OwnVariances, TrainingNoise


def evidence(means: list[float], *, seeds: int = 3, sd: float = 1.0, df: float = 10.0) -> Evidence:
    return Evidence(
        names=tuple(f"c{k}" for k in range(len(means))),
        means=np.array(means),
        unit=np.eye(len(means)) / seeds,
        noise=TrainingNoise(variance=sd**2, df=df, source="seeds"),
    )


def test_one_comparison_is_a_t_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6))
    pooled = (a.var(ddof=1) + b.var(ddof=1)) / 2
    made = evidence([a.mean(), b.mean()], seeds=6, sd=math.sqrt(pooled), df=10.0)
    estimate = many_to_one(made, 0)["c1"]
    expected = stats.ttest_ind(b, a)
    assert estimate.p == pytest.approx(expected.pvalue)
    assert estimate.p_corrected == estimate.p
    interval = expected.confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))


def test_many_to_one_agrees_with_dunnett() -> None:
    rng = np.random.default_rng(3)
    groups = rng.standard_normal((4, 5)) + np.array([[0.0], [0.3], [1.0], [1.9]])
    variance = groups.var(axis=1, ddof=1).mean()
    made = evidence(groups.mean(axis=1).tolist(), seeds=5, sd=math.sqrt(variance), df=16.0)
    ours = many_to_one(made, 0)
    theirs = stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(0))
    for k, p in enumerate(theirs.pvalue):
        assert ours[f"c{k + 1}"].p_corrected == pytest.approx(p, abs=0.01)
    low = theirs.confidence_interval().low
    assert [ours[f"c{k + 1}"].low for k in range(3)] == pytest.approx(low, abs=0.06)


def test_all_pairs_agree_with_tukey() -> None:
    rng = np.random.default_rng(4)
    groups = rng.standard_normal((3, 6)) + np.array([[0.0], [0.5], [1.5]])
    made = evidence(
        groups.mean(axis=1).tolist(),
        seeds=6,
        sd=math.sqrt(groups.var(axis=1, ddof=1).mean()),
        df=15.0,
    )
    theirs = stats.tukey_hsd(*groups).pvalue
    pairs = [(0, 1), (0, 2), (1, 2)]
    weights = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    for (i, j), estimate in zip(pairs, simultaneous(made, weights), strict=True):
        assert estimate.p_corrected == pytest.approx(theirs[i, j], abs=0.01)


@settings(deadline=None, max_examples=25)
@given(
    means=st.lists(st.floats(-3, 3), min_size=2, max_size=6), df=st.sampled_from([1.0, 3.0, 30.0])
)
def test_correction_only_ever_raises_a_p_value(means: list[float], df: float) -> None:
    made = evidence(means, df=df)
    for estimate in many_to_one(made, 0).values():
        count = len(means) - 1
        assert estimate.p <= estimate.p_corrected <= min(1.0, count * estimate.p) + 1e-12
        assert estimate.low <= estimate.value <= estimate.high
    finalists, _ = best_subset(made)
    assert f"c{int(np.argmax(means))}" in finalists


def test_without_known_noise_nothing_is_significant() -> None:
    made = Evidence(
        names=("a", "b", "c"),
        means=np.array([0.0, 100.0, 50.0]),
        unit=np.eye(3),
        noise=TrainingNoise.unknown(),
        item_covariance=np.eye(3) * 1e-9,
        item_df=1e6,
    )
    estimate = many_to_one(made, 0)["b"]
    assert estimate.p_corrected == 1.0
    assert math.isinf(estimate.high)
    assert best_subset(made)[0] == ("a", "b", "c")


def test_finalists_are_those_that_may_be_best() -> None:
    made = evidence([0.0, 10.0, 9.9, 5.0], sd=0.5)
    assert best_subset(made)[0] == ("c1", "c2")


def test_item_noise_widens_intervals() -> None:
    plain = evidence([0.0, 1.0])
    noisy = Evidence(
        names=plain.names,
        means=plain.means,
        unit=plain.unit,
        noise=plain.noise,
        item_covariance=np.eye(2),
        item_df=999.0,
    )
    assert many_to_one(noisy, 0)["c1"].standard_error > many_to_one(plain, 0)["c1"].standard_error


def test_two_hundred_comparisons_fall_back_on_bonferroni() -> None:
    made = evidence([0.0] * 201)
    assert all(e.p_corrected == 1.0 for e in many_to_one(made, 0).values())


def test_holm_steps_down_and_leaves_the_untested_out() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    corrected = holm([0.01, math.nan, 0.04])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])


@pytest.mark.parametrize(("p", "finalists"), [(0.07, ("c0", "c1")), (0.04, ("c1",))])
def test_finalists_agree_with_the_two_sided_test(p: float, finalists: tuple[str, ...]) -> None:
    gap = float(stats.t.isf(p / 2.0, 10.0)) * math.sqrt(2.0 / 3.0)
    made = evidence([0.0, gap])
    assert many_to_one(made, 0)["c1"].p_corrected == pytest.approx(p)
    assert best_subset(made)[0] == finalists


def test_items_at_most_double_the_degrees_of_freedom() -> None:
    made = replace(evidence([0.0, 1.0], df=2.0), item_covariance=100.0 * np.eye(2), item_df=1e6)
    assert many_to_one(made, 0)["c1"].df == pytest.approx(4.0)


def noisy(own: list[float], runs: list[int], means: list[float] | None = None) -> Evidence:
    """Candidates whose own variances are ``own``, judged with them."""
    counts, variances = np.array(runs, dtype=float), np.array(own)
    pool = float((variances * (counts - 1)).sum() / (counts - 1).sum())
    return Evidence(
        names=tuple(f"c{k}" for k in range(len(own))),
        means=np.array(means or [0.0] * len(own)),
        unit=np.diag(1.0 / counts),
        noise=TrainingNoise(variance=pool, df=float((counts - 1).sum()), source="seeds"),
        own=OwnVariances(squares=variances * (counts - 1), df=counts - 1, runs=counts),
    )


def test_a_noisy_candidate_is_judged_by_its_own_noise_and_a_quiet_one_by_the_pool() -> None:
    means = [0.0, 4.0, 4.0, 0.0]
    made = noisy([1.0, 1.0, 10.0, 1.0], [3, 3, 3, 3], means)
    pooled = many_to_one(replace(made, own=None), 0)
    found = many_to_one(made, 0)
    assert found["c1"].standard_error == pytest.approx(pooled["c1"].standard_error)
    assert found["c2"].standard_error == pytest.approx(math.sqrt(11.0 / 3.0))
    assert found["c2"].df < 5.0 < found["c1"].df
    assert found["c2"].p_corrected > 2.0 * found["c1"].p_corrected
    for estimate in found.values():
        assert estimate.p <= estimate.p_corrected
        assert (estimate.low > 0.0) == (estimate.value > 0.0 and estimate.p_corrected <= 0.05)


def test_noisy_candidates_with_fewer_runs_are_pooled_with_their_like() -> None:
    # The two runs of c2 agree by luck; those of c3 and c4 show the noise of candidates with two runs.
    made = noisy([1.0, 1.0, 0.01, 9.0, 9.0], [5, 5, 2, 2, 2])
    like = (0.01 + 9.0 + 9.0) / 3.0
    error = many_to_one(made, 0)["c2"].standard_error
    assert error == pytest.approx(math.sqrt(1.0 / 5.0 + like / 2.0))


def test_equal_variances_leave_the_test_of_three_candidates_nearly_as_it_was() -> None:
    made = noisy([1.0, 1.0, 1.0], [6, 6, 6], [0.0, 1.5, 0.0])
    ours, plain = many_to_one(made, 0)["c1"], many_to_one(replace(made, own=None), 0)["c1"]
    assert ours.standard_error == pytest.approx(plain.standard_error)
    assert ours.p_corrected == pytest.approx(plain.p_corrected, abs=0.01)


@pytest.mark.parametrize("df", [2.0, 5.0, 80.0])
def test_normal_scores_are_those_of_the_t_distribution(df: float) -> None:
    t = np.array([0.5, 2.0, 4.0])
    exact = stats.norm.isf(stats.t.sf(t, df))
    assert normal_score(t, np.array(df)) == pytest.approx(exact, rel=0.015)
    for one in t:
        score = float(normal_score(np.array(one), np.array(df)))
        assert float(from_normal_score(score, np.array(df))) == pytest.approx(one)


def test_a_choice_on_the_same_items_costs_p_and_a_larger_search_costs_more() -> None:
    made = replace(
        evidence([0.0, 4.0, 0.0, 0.0], df=30.0), item_covariance=np.eye(4), item_df=199.0
    )
    found = [
        many_to_one(
            replace(
                made,
                selection=None if not n else Selection(searched=n, seeds=1.0, unchosen=("c0",)),
            ),
            0,
        )["c1"].p_corrected
        for n in (0, 10, 40, 400)
    ]
    assert found == sorted(found)
    assert found[2] > 1.3 * found[0]
    # Without items, a fresh run is independent of the search.
    alone = replace(made, item_covariance=None)
    searched = replace(alone, selection=Selection(searched=40, seeds=1.0, unchosen=("c0",)))
    assert many_to_one(searched, 0)["c1"].p_corrected == pytest.approx(
        many_to_one(alone, 0)["c1"].p_corrected
    )


def test_draws_do_not_depend_on_the_basis_of_equal_eigenvalues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Processors return other vectors of an equicorrelated covariance, all of them right."""
    covariance = 0.5 * np.ones((4, 4)) + 0.5 * np.eye(4)
    first, columns = scaled_normals(covariance)
    values, vectors = np.linalg.eigh(covariance)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = np.hstack([vectors[:, :3] @ turn, -vectors[:, 3:]])
    assert turned @ np.diag(values) @ turned.T == pytest.approx(covariance)
    monkeypatch.setattr(np.linalg, "eigh", lambda _: (values, turned))
    assert scaled_normals(covariance)[0] == pytest.approx(first, abs=1e-12)
    assert np.cov(first.T) == pytest.approx(covariance, abs=0.02)
    assert columns == 4
