"""Compare budgets and ledgers with sums done by hand, on both sides of every limit."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from sweeps.study.budget import Account, Ledger, affordable_runs, affordable_trials, ledger_of
from sweeps.study.specs import BudgetSpec
from tests.sweeps.study.builders import outcome, trial

LIMITS = ("tokens", "flops", "gpu_hours")
SPENT = {"tokens": "tokens", "flops": "flops", "gpu_hours": "device_hours"}


def ledger(budget: BudgetSpec, **changes: Any) -> Ledger:
    values: dict[str, Any] = {"explored_trials": 0, "explore": Account(), "confirm": Account()}
    return Ledger(budget=budget, **{**values, **changes})


def spent(limit: str, runs: int, cost: float) -> Account:
    """Return an account of ``runs`` runs that cost ``cost`` each, in one currency."""
    return Account(runs=runs, **{SPENT[limit]: runs * cost})  # type: ignore[arg-type]


def test_accounts_are_added_part_by_part() -> None:
    one = Account(runs=5, failed=4, tokens=30.0, flops=20.0, device_hours=10.0)
    two = Account(runs=1, failed=2, tokens=3.0, flops=4.0, device_hours=5.0)
    added = Account(runs=6, failed=6, tokens=33.0, flops=24.0, device_hours=15.0)
    assert one.plus(two) == added
    assert two.plus(one) == added


@pytest.mark.parametrize(("explored", "may"), [(3, True), (4, False), (5, False)])
def test_exploring_ends_with_the_last_trial(explored: int, may: bool) -> None:
    made = ledger(BudgetSpec(trials=4), explored_trials=explored)
    assert made.may_explore(0) is may
    assert made.may_explore(9) is may
    assert made.may_confirm(0)


def test_a_budget_without_limits_always_fits() -> None:
    made = ledger(BudgetSpec(), explored_trials=999, explore=Account(runs=9, tokens=1e12))
    assert made.may_explore(99)
    assert made.may_confirm(99)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(("total", "may"), [(449.0, False), (450.0, True), (451.0, True)])
def test_half_a_run_of_slack_is_allowed_to_the_last_digit(
    limit: str, total: float, may: bool
) -> None:
    """Four runs cost 100 each: a fifth fits into a budget of 450 and of no less."""
    made = ledger(
        BudgetSpec(confirm_share=0.0, **{limit: total}),  # type: ignore[arg-type]
        explore=spent(limit, 3, 100.0),
        confirm=spent(limit, 1, 100.0),
    )
    assert made.may_confirm(0) is may


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize(("in_flight", "may"), [(0, True), (1, True), (2, False)])
def test_exploring_leaves_the_share_of_confirming(limit: str, in_flight: int, may: bool) -> None:
    """Of 800, 600 are for exploring: four runs are paid, and two more fit."""
    budget = BudgetSpec(confirm_share=0.25, **{limit: 800.0})  # type: ignore[arg-type]
    made = ledger(budget, explore=spent(limit, 4, 100.0), confirm=spent(limit, 2, 100.0))
    assert made.may_explore(in_flight) is may


@pytest.mark.parametrize(("in_flight", "may"), [(1, True), (2, False)])
def test_confirming_may_use_the_whole_budget_and_what_exploring_left(
    in_flight: int, may: bool
) -> None:
    made = ledger(
        BudgetSpec(tokens=800.0, confirm_share=0.25),
        explore=spent("tokens", 4, 100.0),
        confirm=spent("tokens", 2, 100.0),
    )
    assert made.may_confirm(in_flight) is may


@pytest.mark.parametrize(("in_flight", "may"), [(0, True), (1, False)])
def test_trunks_are_paid_by_exploring_and_do_not_change_the_price_of_a_run(
    in_flight: int, may: bool
) -> None:
    """Four runs of 100 and a trunk of 100: one more fits into 600."""
    made = ledger(
        BudgetSpec(tokens=600.0, confirm_share=0.0),
        explore=spent("tokens", 4, 100.0),
        trunks=Account(runs=2, tokens=100.0),
    )
    assert made.may_explore(in_flight) is may
    assert made.may_confirm(in_flight) is may


@pytest.mark.parametrize(("total", "may"), [(620.0, False), (625.0, True)])
def test_paused_runs_do_not_make_a_full_run_look_cheap(total: float, may: bool) -> None:
    """Two full runs cost 250 each, three paused ones 10 each: 530 + 250 − half a run."""
    paused = Account(runs=3, tokens=30.0)
    made = ledger(
        BudgetSpec(tokens=total + 30.0, confirm_share=0.0),
        explore=Account(runs=5, tokens=530.0),
        paused=paused,
    )
    assert made.may_explore(0) is may


def test_a_budget_is_open_while_no_run_has_a_price() -> None:
    assert ledger(BudgetSpec(tokens=1.0)).may_explore(50)
    only_paused = Account(runs=2, tokens=2.0)
    made = ledger(BudgetSpec(tokens=4.0), explore=only_paused, paused=only_paused)
    assert made.may_explore(50)


def test_one_limit_that_is_reached_is_enough() -> None:
    explore = Account(runs=1, tokens=1.0, flops=100.0, device_hours=1.0)
    for name, may in (("tokens", True), ("flops", False), ("gpu_hours", True)):
        limits = {**dict.fromkeys(LIMITS, 1e6), name: 40.0}
        made = ledger(BudgetSpec(**limits), explore=explore)  # type: ignore[arg-type]
        assert made.may_explore(0) is may
        assert made.may_confirm(0) is may


def test_the_total_of_a_ledger_has_the_cost_of_trunks_and_not_their_number() -> None:
    trunks = Account(runs=2, failed=0, tokens=40.0, flops=8.0, device_hours=0.5)
    made = ledger(
        BudgetSpec(trials=9),
        explored_trials=3,
        explore=Account(runs=3, failed=1, tokens=300.0),
        confirm=Account(runs=1, tokens=100.0, flops=2.0),
        trunks=trunks,
    )
    plain = made.plain()
    assert plain["total"] == asdict(
        Account(runs=4, failed=1, tokens=440.0, flops=10.0, device_hours=0.5)
    )
    assert plain["trunks"] == asdict(trunks)
    assert "paused" not in plain
    assert plain["budget"]["trials"] == 9
    assert plain["explored_trials"] == 3
    assert plain["explore"]["runs"] == 3
    assert plain["confirm"]["runs"] == 1


def test_a_ledger_names_what_paused_only_where_something_did() -> None:
    paused = Account(runs=1, tokens=7.0)
    plain = ledger(BudgetSpec(), explore=paused, paused=paused).plain()
    assert plain["paused"] == asdict(paused)
    assert "trunks" not in plain
    assert plain["total"]["runs"] == 1


def test_a_ledger_has_every_cost_of_every_run_under_its_purpose() -> None:
    first = outcome(seed=0, tokens=10.0, flops=20.0, device_seconds=1800.0)
    paused = outcome(seed=0, status="paused", tokens=1.0, flops=2.0, device_seconds=360.0)
    pruned = outcome(None, seed=0, status="pruned", tokens=3.0)
    extra = outcome(seed=1, tokens=100.0, flops=200.0, device_seconds=7200.0)
    trials = [
        replace(trial(0, phase="search"), outcomes={0: first, 1: extra}),
        replace(trial(1), outcomes={0: paused}),
        replace(trial(2, phase="baseline"), outcomes={0: pruned}),
        replace(trial(3, phase="confirm"), outcomes={}),
        replace(trial(4, phase="grid"), outcomes={0: first}),
    ]
    trunks = Account(runs=1, tokens=5.0)
    made = ledger_of(BudgetSpec(), trials, trunks)
    assert made.explored_trials == 3
    assert made.trunks == trunks
    assert made.paused == Account(runs=1, tokens=1.0, flops=2.0, device_hours=0.1)
    assert asdict(made.explore) == pytest.approx(
        {"runs": 4, "failed": 1, "tokens": 24.0, "flops": 42.0, "device_hours": 1.1}
    )
    assert made.confirm == Account(runs=1, tokens=100.0, flops=200.0, device_hours=2.0)
    assert ledger_of(BudgetSpec(), []).trunks == Account()


PRICES = dict(zip(LIMITS, (0.5, 2.0, 0.25), strict=True))


@pytest.mark.parametrize("limit", LIMITS)
def test_trials_and_runs_within_a_limit_are_counted_by_their_price(limit: str) -> None:
    """A price may be below one, and a limit without a known price does not count."""
    budget = BudgetSpec(confirm_share=0.5, **{limit: 12.0 * PRICES[limit]})  # type: ignore[arg-type]
    assert affordable_runs(budget, PRICES) == 12
    assert affordable_trials(budget, PRICES, runs_per_trial=3) == 2
    for unpriced in ({}, {limit: 0.0}):
        assert affordable_runs(budget, unpriced) is None
        assert affordable_trials(budget, unpriced, runs_per_trial=3) is None


def test_the_tightest_limit_decides_and_a_whole_number_is_not_lost_to_rounding() -> None:
    budget = BudgetSpec(trials=50, tokens=8.0, gpu_hours=0.7, confirm_share=0.0)
    prices = {"tokens": 1.0, "flops": 5.0, "gpu_hours": 0.1}
    assert 0.7 / 0.1 < 7.0
    assert affordable_trials(budget, prices, runs_per_trial=1) == 7
    assert affordable_runs(budget, prices) == 7
    assert affordable_runs(BudgetSpec(tokens=3.0), {"tokens": 1.0}) == 3
    assert affordable_runs(BudgetSpec(trials=5), {"tokens": 1.0}) is None
    assert affordable_trials(BudgetSpec(trials=5), {}, runs_per_trial=2) == 5
