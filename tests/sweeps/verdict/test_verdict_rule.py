"""Check the rule and the regret at their exact borders, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

from sweeps.verdict import decision
from sweeps.verdict.contrasts import Estimate, Evidence, many_to_one
from sweeps.verdict.decision import apply_rule, best_first, equivalence_p, judge, regret
from sweeps.verdict.training_noise import OwnVariances, TrainingNoise


def evidence(means: list[float], *, sd: float = 1.0, df: float = 20.0, seeds: int = 4) -> Evidence:
    return Evidence(
        names=("base", *(f"mix{k}" for k in range(1, len(means)))),
        means=np.array(means),
        unit=np.eye(len(means)) / seeds,
        noise=TrainingNoise(variance=sd**2, df=df, source="seeds"),
    )


def estimate(value: float, error: float, df: float = 10.0) -> Estimate:
    return Estimate(
        value=value, standard_error=error, df=df, low=0.0, high=0.0, p=1.0, p_corrected=1.0
    )


@pytest.mark.parametrize("value", [0.5, -0.5])
def test_equivalence_is_the_worse_of_two_one_sided_tests(value: float) -> None:
    found = equivalence_p(estimate(value, 0.5), 1.0)
    assert found == pytest.approx(float(stats.t.sf(1.0, 10.0)))


@pytest.mark.parametrize(
    ("value", "error", "df", "p"),
    [
        (0.1, math.inf, 5.0, 1.0),
        (0.1, 0.5, 0.0, 1.0),
        (0.1, math.inf, 0.0, 1.0),
        (0.1, 0.0, 5.0, 0.0),
        (0.3, 0.0, 5.0, 1.0),
    ],
)
def test_equivalence_without_noise_or_without_its_size(
    value: float, error: float, df: float, p: float
) -> None:
    assert equivalence_p(estimate(value, error, df), 0.2) == p


def test_an_equivalence_p_of_exactly_alpha_is_equivalent() -> None:
    made = evidence([0.0, 0.05], sd=0.2)
    p = equivalence_p(many_to_one(made, 0)["mix1"], 0.3)
    at, below = replace(made, alpha=p), replace(made, alpha=0.99 * p)
    assert apply_rule(at, baseline="base", margin=0.3).tie_kind == "equivalent"
    assert apply_rule(below, baseline="base", margin=0.3).tie_kind == "undecided"


def test_without_a_margin_nothing_is_equivalent_whatever_alpha_is() -> None:
    made = replace(evidence([0.0, 0.01]), alpha=0.95)
    ruling = apply_rule(made, baseline="base", margin=0.0)
    assert (ruling.outcome, ruling.tie_kind) == ("tie", "undecided")


def test_a_p_of_exactly_alpha_names_a_winner() -> None:
    made = evidence([0.0, 1.5])
    p = many_to_one(made, 0)["mix1"].p_corrected
    assert apply_rule(replace(made, alpha=p), baseline="base").outcome == "winner"
    assert apply_rule(replace(made, alpha=0.99 * p), baseline="base").outcome == "tie"
    worse = replace(evidence([1.5, 0.0]), alpha=p)
    assert apply_rule(worse, baseline="base").outcome != "winner"


def test_an_interval_that_ends_at_the_margin_does_not_keep_the_baseline() -> None:
    made = evidence([0.0, -0.6])
    high = many_to_one(made, 0)["mix1"].high
    assert high > 0.5
    assert apply_rule(made, baseline="base", margin=high).outcome == "tie"
    kept = apply_rule(made, baseline="base", margin=1.001 * high)
    assert (kept.outcome, kept.tie_kind) == ("keep-baseline", None)


def test_the_baseline_is_kept_only_if_every_candidate_is_worse() -> None:
    assert apply_rule(evidence([0.0, 0.1, -9.0]), baseline="base").outcome == "tie"
    assert apply_rule(evidence([0.0, -8.0, -9.0]), baseline="base").outcome == "keep-baseline"


def test_pick_and_reference_follow_the_baseline_and_what_is_asked_for() -> None:
    made = evidence([4.0, 5.0, 1.0, 4.5])

    def pair(baseline: str | None, pick: str | None) -> tuple[str, str]:
        ruling = apply_rule(made, baseline=baseline, pick=pick)
        assert ruling.advantage == ruling.advantages[ruling.pick]
        assert set(ruling.advantages) == set(made.names) - {ruling.reference}
        return ruling.pick, ruling.reference

    assert pair("base", None) == ("mix1", "base")
    assert pair("mix1", None) == ("mix3", "mix1")
    assert pair("base", "mix2") == ("mix2", "base")
    assert pair(None, None) == ("mix1", "mix3")
    assert pair(None, "mix2") == ("mix2", "mix1")
    assert pair(None, "mix1") == ("mix1", "mix3")


def test_a_named_pick_without_a_baseline_wins_only_if_it_is_the_one_that_may_be_best() -> None:
    made = evidence([0.0, 9.0, 1.0])
    assert apply_rule(made, baseline=None, pick="mix2").outcome == "tie"
    assert apply_rule(made, baseline=None, pick="mix1").outcome == "winner"


def test_candidates_of_equal_means_stay_in_the_order_given() -> None:
    made = evidence([1.0, 2.0] * 30)
    names = made.names
    assert best_first(made) == (*names[1::2], *names[::2])


def test_finalists_are_those_that_may_be_best_with_the_best_first() -> None:
    judged = judge(evidence([0.0, 8.0, 1.0, 9.0, 8.5]), baseline="base")
    assert judged.finalists == ("mix3", "mix4", "mix1")
    assert judge(evidence([0.0, 9.0, 1.0]), baseline="base").finalists == ("mix1",)


def test_regret_by_hand() -> None:
    made = evidence([0.0, 1.2], sd=2.0, df=5.0, seeds=2)
    found = regret(made, "mix1", "base", 0.4)
    assert (found.margin, found.shrunk_advantage) == (0.4, 1.2)
    assert found.chance == pytest.approx(float(stats.t.cdf(-0.8, 5.0)))

    def excess(sign: float) -> float:
        density = stats.t(5.0, loc=sign * 1.2, scale=2.0).pdf
        return float(integrate.quad(lambda x: x * density(x), 0.0, math.inf)[0])

    assert found.expected == pytest.approx(excess(-1.0), rel=1e-5)
    assert found.expected_if_kept == pytest.approx(excess(1.0), rel=1e-5)


def test_the_regret_of_unknown_noise_is_unknown() -> None:
    made = replace(evidence([0.0, 1.2]), noise=TrainingNoise.unknown())
    found = regret(made, "mix1", "base", 0.4)
    assert (found.chance, found.expected, found.expected_if_kept) == (None, None, None)
    assert found.shrunk_advantage == 1.2


@pytest.mark.parametrize(
    ("value", "error", "df", "expected"),
    [
        (0.5, 2.0, 1.0, None),
        (0.5, 2.0, 0.9, None),
        (0.5, 0.0, 5.0, 0.5),
        (-0.5, 0.0, 5.0, 0.0),
        # 2 * (phi(0.25) + 0.25 * Phi(0.25)), both from tables.
        (0.5, 2.0, math.inf, 2.0 * (0.386668 + 0.25 * 0.598706)),
        (-0.5, 2.0, math.inf, 2.0 * (0.386668 - 0.25 * 0.401294)),
        # The t with two degrees of freedom has E max(0, t) = 1 / sqrt(2).
        (0.0, 3.0, 2.0, 3.0 / math.sqrt(2.0)),
    ],
)
def test_the_expected_excess_of_a_difference(
    value: float, error: float, df: float, expected: float | None
) -> None:
    found = decision._expected_excess(value, error, df)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-5))
    if df <= 1.0:
        assert decision._expected_excess(value, error, 1.5) is not None


def test_a_pick_of_four_candidates_is_shrunk_towards_their_mean_by_hand() -> None:
    made = evidence([1.0, 0.0, 3.0, 1.0, 2.0])
    found = regret(made, "mix2", "base", 0.5)
    # Spread 5 / 3, noise 1 / 4: 0.85 is kept of 3, and 0.15 of the mean 1.5 counts.
    assert found.shrunk_advantage == pytest.approx(0.85 * 3.0 + 0.15 * 1.5 - 1.0)
    # Weights 0.8875, three times 0.0375 and -1 on variances of 1 / 4, and 0.85 * 0.15 / 4 more.
    error = math.sqrt(0.25 * (0.8875**2 + 3 * 0.0375**2 + 1.0) + 0.031875)
    assert found.chance == pytest.approx(float(stats.t.cdf((-0.5 - 1.775) / error, 20.0)))


def test_a_spread_below_the_noise_leaves_the_mean_alone() -> None:
    made = evidence([1.0, 0.1, 0.2, 0.1, 0.2])
    found = regret(made, "mix2", "base", 0.0)
    assert found.shrunk_advantage == pytest.approx(0.15 - 1.0)
    assert found.chance == pytest.approx(float(stats.t.cdf(0.85 / math.sqrt(0.3125), 20.0)))
    equal = regret(evidence([1.0, 0.5, 0.5, 0.5, 0.5]), "mix2", "base", 0.0)
    assert equal.shrunk_advantage == pytest.approx(-0.5)


def test_three_candidates_fresh_seeds_and_unknown_noise_are_not_shrunk() -> None:
    few, many = evidence([1.0, 0.0, 3.0, 1.0]), evidence([1.0, 0.0, 3.0, 1.0, 2.0])
    assert regret(few, "mix2", "base", 0.0).shrunk_advantage == 2.0
    assert regret(many, "mix2", "base", 0.0, shrink=False).shrunk_advantage == 2.0
    unknown = replace(many, noise=TrainingNoise.unknown())
    assert regret(unknown, "mix2", "base", 0.0).shrunk_advantage == 2.0
    assert judge(many, baseline="base").regret == regret(many, "mix2", "base", 0.0)
    fresh = judge(many, baseline="base", shrink=False).regret
    assert fresh == regret(many, "mix2", "base", 0.0, shrink=False)
    assert fresh.chance == pytest.approx(float(stats.t.cdf(-2.0 / math.sqrt(0.5), 20.0)))


def test_the_regret_of_noisy_candidates_is_that_of_their_own_noise() -> None:
    runs, variances = np.array([3.0, 3.0, 3.0]), np.array([1.0, 9.0, 1.0])
    own = OwnVariances(squares=2.0 * variances, df=np.full(3, 2.0), runs=runs)
    made = Evidence(
        names=("base", "mix1", "mix2"),
        means=np.array([0.0, 1.0, 0.5]),
        unit=np.diag(1.0 / runs),
        noise=TrainingNoise(variance=3.0, df=6.0, source="seeds"),
        own=own,
    )
    found = regret(made, "mix1", "base", 0.0)
    (_, (variance,), (df,)) = made.contrasts(np.array([[-1.0, 1.0, 0.0]]))
    assert variance == pytest.approx(10.0 / 3.0)
    assert found.chance == pytest.approx(float(stats.t.cdf(-1.0 / math.sqrt(variance), df)))
