"""The rule, the regret, and the seeds or items that settle a tie."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.decision import apply_rule, judge, regret
from sweeps.verdict.power import detectable_effect, items_factor_needed, power, seeds_needed
from sweeps.verdict.training_noise import TrainingNoise


def evidence(means: list[float], *, sd: float = 1.0, df: float = 20.0, seeds: int = 4) -> Evidence:
    names = ("base", *(f"mix{k}" for k in range(1, len(means))))
    return Evidence(
        names=names,
        means=np.array(means),
        unit=np.eye(len(means)) / seeds,
        noise=TrainingNoise(variance=sd**2, df=df, source="seeds"),
    )


@pytest.mark.parametrize(
    ("means", "outcome", "kind"),
    [
        ([0.0, 5.0, 1.0], "winner", None),
        ([0.0, 0.5, 0.2], "tie", "undecided"),
        ([5.0, 0.0, 1.0], "keep-baseline", None),
    ],
)
def test_the_three_outcomes(means: list[float], outcome: str, kind: str | None) -> None:
    ruling = apply_rule(evidence(means), baseline="base")
    assert (ruling.outcome, ruling.tie_kind) == (outcome, kind)
    assert ruling.reference == "base"


def test_a_difference_inside_the_margin_is_an_equivalent_tie_even_when_significant() -> None:
    sharp = evidence([0.0, 0.05], sd=0.01)
    assert apply_rule(sharp, baseline="base").outcome == "winner"
    ruling = apply_rule(sharp, baseline="base", margin=0.2)
    assert (ruling.outcome, ruling.tie_kind) == ("tie", "equivalent")


def test_a_wide_interval_is_never_called_equivalent() -> None:
    ruling = apply_rule(evidence([0.0, 0.0], sd=5.0), baseline="base", margin=0.2)
    assert ruling.tie_kind == "undecided"


def test_with_a_margin_the_baseline_is_kept_once_no_gain_is_worth_it() -> None:
    made = evidence([0.0, -0.6], sd=0.1)
    assert apply_rule(made, baseline="base", margin=0.5).outcome == "keep-baseline"


def test_without_a_baseline_one_has_to_beat_all_others() -> None:
    clear = apply_rule(evidence([0.0, 9.0, 1.0]), baseline=None)
    assert (clear.outcome, clear.pick, clear.reference) == ("winner", "mix1", "mix2")
    close = apply_rule(evidence([0.0, 9.0, 8.9]), baseline=None)
    assert close.outcome == "tie"


def test_a_named_pick_is_judged_though_another_is_ahead() -> None:
    ruling = apply_rule(evidence([0.0, 5.0, 0.3]), baseline="base", pick="mix2")
    assert (ruling.pick, ruling.outcome) == ("mix2", "tie")


def test_unknown_noise_is_always_a_tie() -> None:
    made = Evidence(
        names=("base", "mix1"),
        means=np.array([0.0, 99.0]),
        unit=np.eye(2),
        noise=TrainingNoise.unknown(),
        item_covariance=np.eye(2) * 1e-12,
        item_df=1e5,
    )
    judged = judge(made, baseline="base")
    assert judged.ruling.outcome == "tie"
    assert judged.regret.chance is None
    assert judged.finalists == ("mix1", "base")


def test_regret_is_the_tail_of_the_difference() -> None:
    made = evidence([0.0, 1.0], seeds=2, df=8.0)
    found = regret(made, "mix1", "base", margin=0.5)
    assert found.chance == pytest.approx(stats.t.cdf(-1.5, 8.0))
    draws = 1.0 + stats.t.rvs(8.0, size=400_000, random_state=np.random.default_rng(0))
    assert found.expected == pytest.approx(np.maximum(0.0, -draws).mean(), rel=0.02)
    assert found.expected_if_kept == pytest.approx(np.maximum(0.0, draws).mean(), rel=0.02)


def test_a_pick_from_noise_alone_is_shrunk() -> None:
    rng = np.random.default_rng(5)
    shrunk, naive = [], []
    for _ in range(200):
        means = (rng.standard_normal(9) / 2.0).tolist()
        made = evidence(means)
        pick = f"mix{1 + int(np.argmax(means[1:]))}"
        shrunk.append(regret(made, pick, "base", 0.0).shrunk_advantage)
        naive.append(regret(made, pick, "base", 0.0, shrink=False).shrunk_advantage)
    # The truth is 0: the best of eight leads by 0.7 on average before it is shrunk.
    assert np.mean(naive) > 0.6
    assert abs(np.mean(shrunk)) < 0.25


def test_a_real_spread_is_not_shrunk() -> None:
    made = evidence([0.0, 10.0, 20.0, 30.0, 40.0], sd=0.5)
    assert regret(made, "mix4", "base", 0.0).shrunk_advantage == pytest.approx(40.0, abs=0.1)


def test_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((2, 20_000, 4))
    p = stats.ttest_ind(b + 2.0, a, axis=1).pvalue
    stated = power(effect=2.0, seeds=4, run_variance=1.0, item_variance=0.0)
    assert stated == pytest.approx((p <= 0.05).mean(), abs=0.01)


def test_the_seeds_stated_are_the_fewest_that_do() -> None:
    need = seeds_needed(effect=1.5, run_variance=1.0, item_variance=0.05)
    assert need is not None
    reached = [
        power(effect=1.5, seeds=s, run_variance=1.0, item_variance=0.05) for s in (need - 1, need)
    ]
    assert reached[0] < 0.8 <= reached[1]


@pytest.mark.parametrize(
    ("effect", "item_variance"), [(0.0, 0.0), (0.01, 0.0), (0.5, 1.0)], ids=str
)
def test_some_ties_no_number_of_seeds_settles(effect: float, item_variance: float) -> None:
    assert seeds_needed(effect=effect, run_variance=1.0, item_variance=item_variance) is None


def test_items_settle_only_what_seeds_leave_room_for() -> None:
    common = {"standard_error": 1.0, "df": 30.0}
    smallest = detectable_effect(**common)
    assert smallest is not None
    factor = items_factor_needed(effect=0.9 * smallest, item_variance=0.9, **common)
    assert factor is not None
    assert factor > 1.0
    assert items_factor_needed(effect=0.1, item_variance=0.1, **common) is None


def test_unknown_noise_detects_nothing() -> None:
    assert detectable_effect(standard_error=math.inf, df=5.0) is None


@pytest.mark.parametrize(("effect", "needed"), [(0.2815, 200), (0.2795, None)])
def test_at_most_two_hundred_seeds_are_proposed(effect: float, needed: int | None) -> None:
    assert seeds_needed(effect=effect, run_variance=1.0, item_variance=0.0) == needed
