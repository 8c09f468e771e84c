"""Check the power of a comparison against tables and against designs computed by hand."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
from scipy import stats

from sweeps.verdict.power import (
    PowerEstimate,
    detectable_effect,
    estimate_power,
    items_factor_needed,
    power,
    seeds_needed,
)

NORMAL = 2.801585
"""Quantiles of the normal distribution at 97.5% and at 80%, added: what 80% of studies detect."""


@pytest.mark.parametrize(
    ("effect", "seeds", "reached"), [(1.0, 17, 0.807), (0.5, 64, 0.8015), (0.8, 26, 0.807)]
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_power_is_that_of_the_tables_of_the_t_test(
    effect: float, seeds: int, reached: float, sign: float
) -> None:
    found = power(effect=sign * effect, seeds=seeds, run_variance=1.0, item_variance=0.0)
    assert found == pytest.approx(reached, abs=5e-4)
    assert seeds_needed(effect=sign * effect, run_variance=1.0, item_variance=0.0) == seeds


def test_the_effect_counts_in_standard_deviations_of_a_run() -> None:
    found = power(effect=1.5, seeds=64, run_variance=9.0, item_variance=0.0)
    assert found == pytest.approx(0.8015, abs=5e-4)


@pytest.mark.parametrize(
    ("run_variance", "item_variance", "effect", "total", "df"),
    [(3.0, 2.0, 4.0, 4.0, 16.0), (3.0, 4.0, 5.0, 6.0, 36.0), (6.0, 2.0, 5.0, 6.0, 9.0)],
)
def test_items_add_to_the_error_and_not_to_what_few_runs_estimate(
    run_variance: float, item_variance: float, effect: float, total: float, df: float
) -> None:
    """Three seeds: two thirds of a run's variance are estimated, on four degrees of freedom."""
    found = power(effect=effect, seeds=3, run_variance=run_variance, item_variance=item_variance)
    assert found == pytest.approx(
        stats.nct.sf(stats.t.isf(0.025, df), df, effect / math.sqrt(total)), abs=1e-9
    )


def test_items_alone_are_known_as_the_normal_distribution_is() -> None:
    found = power(effect=NORMAL * 3.0, seeds=2, run_variance=0.0, item_variance=9.0)
    assert found == pytest.approx(0.8, abs=1e-4)


def test_one_seed_each_detects_nothing() -> None:
    assert power(effect=9.0, seeds=1, run_variance=1.0, item_variance=1.0) == 0.0


@pytest.mark.parametrize(("run_variance", "item_variance"), [(0.0, 0.0), (1e-9, 0.0)])
def test_without_noise_any_difference_is_detected(
    run_variance: float, item_variance: float
) -> None:
    arguments = {"seeds": 3, "run_variance": run_variance, "item_variance": item_variance}
    assert power(effect=1.0, **arguments) == 1.0  # type: ignore[arg-type]


def test_a_stricter_level_needs_more_seeds_and_a_laxer_one_fewer() -> None:
    """Tables of the two-sided t test at d = 1: 17 of each at 5%, 26 at 1%, 14 at 10%; 23 for 90%."""
    arguments = {"effect": 1.0, "run_variance": 1.0, "item_variance": 0.0}
    assert [seeds_needed(alpha=a, **arguments) for a in (0.01, 0.05, 0.1)] == [26, 17, 14]
    assert [seeds_needed(wanted=w, **arguments) for w in (0.8, 0.9)] == [17, 23]


@pytest.mark.parametrize("wanted", [0.8, 1.0])
def test_no_fewer_than_two_seeds_are_proposed(wanted: float) -> None:
    assert seeds_needed(effect=1e6, run_variance=1.0, item_variance=0.0, wanted=wanted) == 2
    assert seeds_needed(effect=1e6, run_variance=0.0, item_variance=1.0, wanted=wanted) == 2


def test_no_difference_and_an_unknown_noise_have_no_number_of_seeds() -> None:
    assert seeds_needed(effect=0.0, run_variance=0.0, item_variance=0.0) is None
    assert seeds_needed(effect=1.0, run_variance=math.inf, item_variance=0.0, wanted=0.0) is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("share", "factor"),
    [(0.9, 0.5 / 0.31), (1.0, 1.0), (2.0, 1.0), (0.8, 0.5 / 0.14), (0.5, None), (0.7, None)],
)
def test_items_pay_for_what_seeds_leave_of_the_allowed_variance(
    sign: float, share: float, factor: float | None
) -> None:
    """A variance of 1, half of it from items: at 0.9 of the smallest effect 0.81 - 0.5 is left to them."""
    found = items_factor_needed(
        effect=sign * share * NORMAL, standard_error=1.0, item_variance=0.5, df=math.inf
    )
    assert found == (None if factor is None else pytest.approx(factor, rel=1e-4))


def test_seeds_that_take_all_that_is_allowed_leave_nothing_to_items() -> None:
    smallest = detectable_effect(standard_error=1.0, df=7.0)
    assert smallest is not None
    found = items_factor_needed(effect=smallest / 2, standard_error=1.0, item_variance=0.75, df=7.0)
    assert found is None


@pytest.mark.parametrize(
    "change", [{"effect": 0.0}, {"item_variance": 0.0}, {"df": 0.0}, {"item_variance": -4.0}]
)
def test_no_number_of_items_is_enough_where_one_part_is_missing(change: dict[str, float]) -> None:
    arguments = {"effect": 5.0, "standard_error": 1.5, "item_variance": 2.25, "df": 9.0, **change}
    assert items_factor_needed(**arguments) is None


def test_the_items_needed_follow_the_level_and_the_power_that_is_wanted() -> None:
    def factor(alpha: float, wanted: float) -> float | None:
        return items_factor_needed(
            effect=2.0,
            standard_error=1.0,
            item_variance=1.0,
            df=math.inf,
            alpha=alpha,
            wanted=wanted,
        )

    assert factor(0.05, 0.8) == pytest.approx((NORMAL / 2.0) ** 2, rel=1e-4)
    assert factor(0.05, 0.9) == pytest.approx(((1.959964 + 1.281552) / 2.0) ** 2, rel=1e-4)
    assert factor(0.01, 0.8) == pytest.approx(((2.575829 + 0.841621) / 2.0) ** 2, rel=1e-4)


@pytest.mark.parametrize(
    ("alpha", "wanted", "sum_of_quantiles"),
    [(0.05, 0.8, NORMAL), (0.05, 0.9, 1.959964 + 1.281552), (0.01, 0.5, 2.575829)],
)
def test_the_smallest_effect_is_the_quantiles_times_the_error(
    alpha: float, wanted: float, sum_of_quantiles: float
) -> None:
    found = detectable_effect(standard_error=3.0, df=math.inf, alpha=alpha, wanted=wanted)
    assert found == pytest.approx(3.0 * sum_of_quantiles, rel=1e-4)
    assert detectable_effect(standard_error=1.0, df=math.inf) == pytest.approx(NORMAL, rel=1e-4)


def test_one_degree_of_freedom_detects_large_effects_alone() -> None:
    """The square of the critical value, 12.7, times the quantile of a chi-square: 2.8 standard errors."""
    found = detectable_effect(standard_error=1.0, df=1.0, wanted=0.995)
    assert found == pytest.approx(12.7062 * math.sqrt(stats.chi2.ppf(0.995, 1)), rel=0.01)


@pytest.mark.parametrize(
    ("error", "df", "wanted"),
    [(math.inf, 5.0, 0.8), (math.nan, 5.0, 0.8), (1.0, 0.0, 0.8), (1.0, 5.0, 0.01)],
)
def test_no_effect_is_stated_without_an_error_or_below_the_rate_of_false_alarms(
    error: float, df: float, wanted: float
) -> None:
    assert detectable_effect(standard_error=error, df=df, wanted=wanted) is None


def test_an_estimate_states_all_that_a_comparison_needs() -> None:
    found = estimate_power(
        effect=-1.0,
        standard_error=1.0,
        df=math.inf,
        run_variance=1.0,
        item_variance=0.9,
        seeds_now=3,
        alpha=0.1,
        wanted=0.5,
    )
    # At 10% and half of the studies, the smallest effect is 1.645 standard errors.
    assert found.items_factor == pytest.approx(0.9 / (1.0 / 1.644854**2 - 0.1), rel=1e-3)
    assert found.detectable_effect == pytest.approx(1.644854, rel=1e-4)
    assert replace(found, items_factor=None, detectable_effect=None) == PowerEstimate(
        effect=1.0,
        power=0.5,
        seeds_now=3,
        seeds_needed=None,
        items_factor=None,
        items_known=True,
        detectable_effect=None,
    )


def test_an_estimate_is_at_five_percent_and_four_of_five_studies_by_default() -> None:
    of_two_seeds = functools.partial(
        estimate_power,
        effect=1.0,
        standard_error=1.0,
        df=math.inf,
        run_variance=1.0,
        item_variance=0.0,
        seeds_now=2,
    )
    found = of_two_seeds()
    assert (found.power, found.seeds_needed) == (0.8, 17)
    assert (found.items_known, found.items_factor) == (False, None)
    assert found.detectable_effect == pytest.approx(NORMAL, rel=1e-4)
    strict = of_two_seeds(alpha=0.01, wanted=0.8)
    assert strict.seeds_needed == 26
