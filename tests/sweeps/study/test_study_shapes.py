"""Whole searches on made-up results: the order of their runs, their ledger and finalists are those before."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.evaluation.score_rule import LinearForm
from sweeps.search.space import Floats, ParameterSpec, SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.study.budget import Account, Ledger, affordable_runs, affordable_trials, ledger_of
from sweeps.study.confirm import Recommendation, finalists, undominated
from sweeps.study.objective import Objective, decided_form, restated
from sweeps.study.resources import Resources
from sweeps.study.samplers import random_proposer
from sweeps.study.scheduler import SearchScheduler, SweepScheduler
from sweeps.study.specs import (
    BudgetSpec,
    ConfirmSpec,
    ConstraintSpec,
    ObjectiveSpec,
    SearchSpec,
    StrategySpec,
)
from sweeps.study.strategy import History, plan_strategy
from sweeps.study.study_state import Run, StudyState
from sweeps.study.trial import Phase, Trial
from tests.pinned import require_pinned
from tests.sweeps.study.builders import SOURCES, finish, outcome, spec, study, trial

TOKENS = {"web": 6.0, "math": 3.0, "code": 1.0}
STAGES = SearchSpaceSpec(
    mixtures={
        "mixture.weights": SimplexSpec(sources=SOURCES),
        "late.weights": SimplexSpec(sources=("web", "math"), low={"web": 0.2}),
    },
    parameters={"lr": ParameterSpec(kind="log", low=1e-4, high=1e-2)},
)
LEVELS = SearchSpaceSpec(
    parameters={
        "kind": ParameterSpec(kind="choice", choices=("x", "y", "z")),
        "deep": ParameterSpec(kind="int", low=1, high=2),
    }
)
UP = {"score": ObjectiveSpec(direction="maximize")}


def recommended(point: dict[str, Any]) -> Any:
    """Return a pick that always recommends one point."""
    return lambda _: Recommendation(point=point, notes={"surrogate": "made"})


EVEN = {"mixture.weights": dict(zip(SOURCES, (0.2, 0.2, 0.6), strict=True))}
SEARCHES: dict[str, tuple[SearchSpec, Any]] = {
    "two seeds and a pick": (
        spec(
            seeds=(3, 4),
            objectives=UP,
            confirm=ConfirmSpec(finalists=2, pick=True, seeds=(3, 4, 5)),
        ),
        recommended(EVEN),
    ),
    "a budget of tokens": (
        spec(
            budget=BudgetSpec(tokens=1500.0, confirm_share=0.4), confirm=ConfirmSpec(seeds=(0, 1))
        ),
        None,
    ),
    "stages": (
        spec(
            space=STAGES,
            strategy=StrategySpec(
                baselines=("natural", "uniform"),
                baseline="uniform",
                design="sobol-edges",
                design_trials=4,
                proposer="random",
                batch=3,
                seed=7,
            ),
            budget=BudgetSpec(trials=9),
        ),
        None,
    ),
    "levels": (
        spec(
            space=LEVELS,
            strategy=StrategySpec(
                baselines=("natural",), baseline="natural", design_trials=2, proposer="random"
            ),
            budget=BudgetSpec(trials=20),
            confirm=ConfirmSpec(finalists=1, pick=False, seeds=(0, 1)),
        ),
        None,
    ),
    "constraints": (
        spec(
            constraints={
                "web": ConstraintSpec(metrics=("web/bpb",), direction="minimize", bound=1.05)
            },
            confirm=ConfirmSpec(finalists=3, pick=False, seeds=(0, 1)),
        ),
        None,
    ),
    "two objectives": (
        spec(
            objectives={
                "score": ObjectiveSpec(direction="minimize"),
                "code": ObjectiveSpec(metrics=("code/acc",), direction="maximize"),
            }
        ),
        None,
    ),
}


def drive(state: StudyState, scheduler: Any, workers: int) -> list[Run]:
    """Run a search to its end: scores are a function of the run, and some runs fail."""
    done: list[Run] = []
    while runs := scheduler.next_runs(state, set(), workers):
        for run in runs:
            score = 1.0 + 0.01 * ((run.number * 7 + 3 * run.seed) % 10)
            failed = run.number == 5 and run.seed == 0
            changes: dict[str, Any] = {"status": "failed", "reason": "made"} if failed else {}
            changes["direction"] = state.spec.objectives["score"].direction
            metrics = {"web/bpb": score, "code/acc": 0.3 + 0.05 * (run.number % 4)}
            finish(state, run, None if failed else score, **{"metrics": metrics, **changes})
            found = state.collect(run)
            assert found is not None
            state.record(run, found)
            done.append(run)
        assert len(done) < 80
    return done


def stored(folder: Path, name: str) -> Any:
    """Return a file of a study without its checksum; None if there is none."""
    path = folder / name
    if not path.is_file():
        return None
    return {k: v for k, v in json.loads(path.read_text()).items() if k != "content_sha256"}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_is_driven_as_before(tmp_path: Path, name: str, workers: int) -> None:
    search, pick = SEARCHES[name]
    assert search.space is not None
    space = SearchSpace.build(search.space)
    planned = plan_strategy(
        search.strategy,
        space,
        Resources(tokens=TOKENS),
        search.budget.trials or 12,
        random_proposer(space, search.strategy.seed),
        {"kind": "y", "deep": 2, "lr": 0.003},
    )
    state = study(tmp_path, search)
    scheduler = SearchScheduler(planned, pick)
    runs = drive(state, scheduler, workers)
    found = {
        "runs": [[run.number, run.seed] for run in runs],
        "trials": [one.spec.plain() for one in state.trials],
        "states": [one.state for one in state.trials],
        "ended": [[run.number, run.seed] for run in scheduler.ended_runs(state)],
        "total": scheduler.total(state),
        "most": planned.most_trials,
        "ledger": state.ledger().plain(),
        "finalists": stored(state.folder, "finalists.json"),
        "pick": stored(state.folder, "pick.json"),
        "scheduled again": len(scheduler.next_runs(state, set(), workers)),
    }
    require_pinned(f"study_{name.replace(' ', '_')}_{workers}", found)
    again = study(tmp_path, search)
    assert [t.spec for t in again.trials] == [t.spec for t in state.trials]
    assert [t.outcomes for t in again.trials] == [t.outcomes for t in state.trials]
    assert [t.number for t in again.trials] == sorted(t.number for t in again.trials)


def test_a_sweep_is_driven_as_before(tmp_path: Path) -> None:
    state = study(tmp_path)
    first = SweepScheduler([("a=1", "b=1"), ("a=2", "b=1")], (0, 1))
    runs = drive(state, first, 3)
    second = SweepScheduler([("b=1", "a=2"), ("a=3",)], (1, 2))
    more = drive(state, second, 1)
    found = {
        "first": [[run.number, run.seed] for run in runs],
        "second": [[run.number, run.seed] for run in more],
        "overrides": [list(one.spec.overrides) for one in state.trials],
        "ended": [
            [[run.number, run.seed] for run in each.ended_runs(state)] for each in (first, second)
        ],
        "totals": [first.total(state), second.total(state)],
    }
    require_pinned("study_sweep", found)


def test_trials_are_in_the_order_of_their_numbers_after_one_was_recovered(tmp_path: Path) -> None:
    """The folder of an earlier trial comes to a study whose journal begins with a later one."""
    search = spec()
    assert search.space is not None
    space = SearchSpace.build(search.space)
    given = (search.strategy, space, Resources(tokens=TOKENS), 10, random_proposer(space, 0))
    state = study(tmp_path / "whole", search)
    drive(state, SearchScheduler(plan_strategy(*given), None), 1)
    place = tmp_path / "late/runs/s"
    for name in ("trial-0003-0", "trial-0000-0"):
        shutil.copytree(state.folder / name, place / name)
        late = study(tmp_path / "late", search)
    assert [one.number for one in late.trials] == [0, 3]
    assert [one.spec for one in late.trials] == [state.trial(n).spec for n in (0, 3)]


# ------------------------------------------------------------------------------------------ budgets


def test_a_fresh_account_is_empty_and_sums_each_part() -> None:
    empty = Account()
    assert asdict(empty) == {
        "runs": 0,
        "failed": 0,
        "tokens": 0.0,
        "flops": 0.0,
        "device_hours": 0.0,
    }
    one = Account(runs=1, failed=2, tokens=3.0, flops=4.0, device_hours=5.0)
    assert one.plus(empty) == one
    assert one.plus(one).device_hours == 10.0


@pytest.mark.parametrize(
    ("explored", "in_flight", "explore", "confirm"),
    [
        (4, 0, True, True),
        (4, 2, True, True),
        (4, 3, False, True),
        (4, 5, False, True),
        (4, 6, False, False),
    ],
)
def test_a_budget_ends_half_a_run_late(
    explored: int, in_flight: int, explore: bool, confirm: bool
) -> None:
    """Runs cost 100 of 1,000 tokens, of which 300 are kept for confirming."""
    ledger = Ledger(
        budget=BudgetSpec(tokens=1000.0, confirm_share=0.3),
        explored_trials=explored,
        explore=Account(runs=explored, tokens=100.0 * explored),
        confirm=Account(),
    )
    assert ledger.may_explore(in_flight) is explore
    assert ledger.may_confirm(in_flight) is confirm


def test_prices_and_ledgers_are_those_before() -> None:
    budget = BudgetSpec(trials=40, tokens=1e4, flops=1e9, gpu_hours=2.0, confirm_share=0.25)
    prices: list[dict[str, float]] = [
        {},
        {"tokens": 300.0},
        {"tokens": 300.0, "flops": 1e8},
        {"gpu_hours": 0.07},
    ]
    trials = [
        trial(0, phase="baseline", seeds=(0,)),
        replace(
            trial(1, seeds=(0,)),
            outcomes={
                0: outcome(seed=0, flops=5.0, device_seconds=1800.0),
                1: outcome(None, seed=1, status="failed"),
            },
        ),
        trial(2, phase="confirm"),
        trial(3, phase="grid"),
        replace(trial(4, phase="search"), outcomes={}),
    ]
    found = {
        "trials": [affordable_trials(budget, price, 2) for price in prices],
        "runs": [affordable_runs(budget, price) for price in prices],
        "none": [affordable_trials(BudgetSpec(), prices[1], 1), affordable_runs(BudgetSpec(), {})],
        "ledger": ledger_of(budget, trials).plain(),
    }
    require_pinned("budgets", found)


# ---------------------------------------------------------------------------------------- objectives


def test_an_objective_is_recorded_only_as_the_plain_score() -> None:
    form = LinearForm(weights={"a/b": 2.0}, constant=0.5)
    assert Objective().is_recorded
    assert not Objective(form=form).is_recorded
    assert not Objective(metrics=("a/b",)).is_recorded
    result = {"score": 1.0, "metrics": {"a/b": 3.0, "a/c": 5.0}}
    assert Objective().value(result) == 1.0
    assert Objective(form=form).value(result) == 6.5
    assert Objective(metrics=("a/*",)).value(result) == 4.0
    assert Objective(metrics=("a/*",)).value({"score": 1.0}) is None
    assert restated(outcome(1.0, metrics={"a/b": 1.0}), form).score == 2.5
    assert decided_form(None) is None


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_the_front_is_what_no_row_dominates(columns: int) -> None:
    losses = np.random.default_rng(columns).integers(0, 4, (40, columns)).astype(float)
    expected = [
        not any((other <= row).all() and (other < row).any() for other in losses) for row in losses
    ]
    assert undominated(losses).tolist() == expected


def test_finalists_of_histories_are_those_before() -> None:
    def made(losses: Floats, **changes: Any) -> History:
        trials: list[Trial] = []
        for number, row in enumerate(losses):
            phase: Phase = "baseline" if number == 2 else "confirm" if number == 5 else "search"
            one = trial(number, float(row[0]), phase=phase, name="base" if number == 2 else "")
            metrics = {"a/acc": float(row[1])}
            trials.append(replace(one, outcomes={0: outcome(float(row[0]), metrics=metrics)}))
        given = {"objectives": {"score": ObjectiveSpec(direction="minimize")}, "baseline": "base"}
        return History(**{"trials": tuple(trials), **given, **changes})

    losses = np.random.default_rng(3).random((9, 2)).round(2)
    both = {
        "score": ObjectiveSpec(direction="minimize"),
        "acc": ObjectiveSpec(metrics=("a/acc",), direction="maximize"),
    }
    limit = {"acc": ConstraintSpec(metrics=("a/acc",), direction="maximize", bound=0.3)}
    asked = ConfirmSpec(finalists=3)
    histories = {
        "one": made(losses),
        "up": made(losses, objectives=UP),
        "both": made(losses, objectives=both),
        "limited": made(losses, constraints=limit),
        "no baseline": made(losses, baseline="other"),
    }
    found = {
        f"{name} {picked}": [one.number for one in finalists(history, asked, picked)]
        for name, history in histories.items()
        for picked in (None, 2, 7)
    }
    found["none"] = [one.number for one in finalists(histories["one"], ConfirmSpec(finalists=0))]
    require_pinned("finalists", found)
