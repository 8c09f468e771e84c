"""Several comparisons at once: against closed forms, scipy's own, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sweeps.verdict.contrasts import Evidence, all_pairs, best_subset, holm, many_to_one
from sweeps.verdict.noise import TrainingNoise


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
    for (first, second), estimate in all_pairs(made).items():
        i, j = int(first[1:]), int(second[1:])
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
