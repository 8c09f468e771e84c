"""Spaces whose values come in levels: no point twice, even levels, baselines with the config's own values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sweeps.search.designs import DESIGNS, baselines, design, distinct
from sweeps.search.space import ParameterSpec, SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.study.resources import Resources
from sweeps.study.samplers import optuna_proposer, random_proposer
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import BudgetSpec, ConfirmSpec, SearchSpec, StrategySpec
from sweeps.study.strategy import History, Propose, Strategy, plan_strategy
from sweeps.study.surrogate_proposer import surrogate_proposer
from tests.sweeps.study.builders import all_runs, spec, study, trial

CHOICE = ParameterSpec(kind="choice", choices=(2, 3, 4))
WHOLE = ParameterSpec(kind="int", low=1, high=4)
RATE = ParameterSpec(kind="log", low=1e-4, high=1e-2)
MIXTURE = SimplexSpec(sources=("web", "math", "code"))


def space_of(
    mixtures: dict[str, SimplexSpec] | None = None, **named: ParameterSpec
) -> SearchSpaceSpec:
    return SearchSpaceSpec(mixtures=mixtures or {}, parameters=named)


def planned(
    search: SearchSpec, propose: Propose | None = None, own: dict[str, Any] | None = None
) -> Strategy:
    assert search.space is not None
    space = SearchSpace.build(search.space)
    return plan_strategy(
        search.strategy,
        space,
        Resources(),
        search.budget.trials,
        propose or random_proposer(space, 0),
        own,
    )


def discrete(trials: int | None = 21, **named: ParameterSpec) -> SearchSpec:
    return spec(
        space=space_of(**named),
        strategy=StrategySpec(baselines=("natural",), baseline="natural", proposer="random"),
        budget=BudgetSpec(trials=trials) if trials else BudgetSpec(tokens=1e9),
        confirm=ConfirmSpec(finalists=3, pick=False, seeds=(0, 1, 2)),
    )


@pytest.mark.parametrize("trials", [21, None])
def test_one_choice_of_three_values_is_three_trials_and_then_seeds(
    tmp_path: Path, trials: int | None
) -> None:
    search = discrete(trials, filter=CHOICE)
    state = study(tmp_path, search)
    scheduler = SearchScheduler(planned(search, own={"filter": 4}), None)
    assert scheduler.total(state) == 3
    runs = all_runs(state, scheduler.next_runs)
    assert state.trials[0].spec.point["filter"] == 4
    assert sorted(trial.spec.point["filter"] for trial in state.trials) == [2, 3, 4]
    assert len(set(runs)) == len(runs) == 9


def proposers(space: SearchSpace) -> dict[str, Propose]:
    return {
        "random": random_proposer(space, 0),
        "tpe": optuna_proposer(space, "tpe", 0),
        "qmc": optuna_proposer(space, "qmc", 0),
        "surrogate": surrogate_proposer(space, 0, {}),
    }


@pytest.mark.parametrize("kind", ["random", "tpe", "qmc"])
def test_every_point_of_a_discrete_space_is_run_once(tmp_path: Path, kind: str) -> None:
    search = discrete(40, filter=CHOICE, depth=WHOLE)
    assert search.space is not None
    propose = proposers(SearchSpace.build(search.space))[kind]
    state = study(tmp_path, search)
    all_runs(state, SearchScheduler(planned(search, propose), None).next_runs)
    points = [tuple(trial.spec.point.values()) for trial in state.trials]
    assert len(points) == len(set(points)) == 12


def test_a_proposer_that_repeats_itself_is_given_other_points(tmp_path: Path) -> None:
    corner = {"mixture.weights": {"web": 1.0, "math": 0.0, "code": 0.0}}
    search = spec()
    state = study(tmp_path, search)
    scheduler = SearchScheduler(planned(search, lambda history, count: [corner] * count), None)
    all_runs(state, scheduler.next_runs)
    space = SearchSpace.build(search.space)  # type: ignore[arg-type]
    keys = [space.key(trial.spec.point) for trial in state.trials]
    assert len(keys) == len(set(keys)) == 10
    assert all(space.contains(trial.spec.point) for trial in state.trials)


@pytest.mark.parametrize("kind", DESIGNS)
@pytest.mark.parametrize("n", [3, 7, 12, 30])
def test_a_design_of_few_points_takes_each_once_and_its_levels_evenly(kind: str, n: int) -> None:
    space = SearchSpace.build(space_of(filter=CHOICE, depth=WHOLE))
    points = design(space, kind, n, seed=0)
    assert len(points) == len({space.key(point) for point in points}) == min(n, 12)
    for name, levels in (("filter", (2, 3, 4)), ("depth", (1, 2, 3, 4))):
        counts = [sum(point[name] == level for point in points) for level in levels]
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("kind", [kind for kind in DESIGNS if kind != "d-optimal"])
@pytest.mark.parametrize("n", [6, 11])
def test_levels_beside_a_mixture_are_even(kind: str, n: int) -> None:
    space = SearchSpace.build(space_of({"mixture.weights": MIXTURE}, filter=CHOICE))
    points = design(space, kind, n, seed=0)
    counts = Counter(point["filter"] for point in points)
    assert set(counts) == {2, 3, 4}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert all(space.contains(point) for point in points)
    assert design(space, kind, n, seed=0) == points


def test_even_levels_keep_the_beginning_of_a_larger_design() -> None:
    space = SearchSpace.build(space_of({"mixture.weights": MIXTURE}, filter=CHOICE))
    assert design(space, "sobol", 10, seed=0)[:6] == design(space, "sobol", 6, seed=0)


def test_baselines_keep_the_config_s_own_values_to_the_last_digit() -> None:
    space = SearchSpace.build(
        space_of({"mixture.weights": MIXTURE}, filter=CHOICE, rate=RATE, depth=WHOLE)
    )
    own = {"filter": 2, "rate": 0.0051234567, "depth": 3}
    named = baselines(space, {"web": 5.0, "math": 3.0, "code": 2.0}, own=own)
    assert set(named) == {"natural", "uniform"}
    for point in named.values():
        assert {name: point[name] for name in own} == own


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({"rate": 1.0}, ("rate", 1e-2)),
        ({"rate": None}, ("rate", 1e-3)),
        ({"filter": 7}, ("filter", 3)),
        ({"depth": 9}, ("depth", 4)),
        ({}, ("depth", 3)),
    ],
)
def test_an_own_value_outside_its_range_becomes_the_nearest_inside(
    own: dict[str, Any], kept: tuple[str, float]
) -> None:
    space = SearchSpace.build(
        space_of({"mixture.weights": MIXTURE}, filter=CHOICE, rate=RATE, depth=WHOLE)
    )
    point = baselines(space, own=own)["uniform"]
    assert point[kept[0]] == pytest.approx(kept[1])
    assert space.contains(point)


def test_a_named_mixture_that_equals_a_baseline_is_not_run_beside_it() -> None:
    even = dict.fromkeys(MIXTURE.sources, 1 / 3)
    asked = StrategySpec(baselines=("uniform",), mixtures={"even": even}, baseline="even")
    assert list(planned(spec(strategy=asked)).baselines) == ["even"]


def test_a_continuous_space_has_no_size_and_a_fixed_one_has_one() -> None:
    assert SearchSpace.build(space_of({"mixture.weights": MIXTURE}, filter=CHOICE)).size is None
    assert SearchSpace.build(space_of(rate=RATE)).size is None
    fixed = ParameterSpec(kind="log", low=1e-3, high=1e-3)
    space = SearchSpace.build(space_of(filter=CHOICE, rate=fixed))
    assert space.size == len(space.every()) == 3
    assert {point["rate"] for point in space.points(space.every())} == {1e-3}
    whole = SimplexSpec(sources=("web", "math"), fixed={"web": 0.25, "math": 0.75})
    assert SearchSpace.build(space_of({"mixture.weights": whole}, filter=CHOICE)).size == 3


def test_points_that_all_have_trials_leave_none() -> None:
    space = SearchSpace.build(space_of(filter=CHOICE))
    everything = space.points(space.every())
    asked = {space.key(point) for point in everything}
    assert distinct(space, everything, asked, (0,)) == []
    two = {space.key(point) for point in everything[:2]}
    assert distinct(space, everything[:1], two, (0,)) == everything[2:]


def test_a_history_of_every_point_proposes_nothing() -> None:
    search = discrete(21, filter=CHOICE)
    strategy = planned(search)
    seen = tuple(trial(number, point={"filter": 2 + number}) for number in range(3))
    history = History(trials=seen, objectives=search.objectives, baseline="natural")
    drafts = strategy.next_drafts(history, 4)
    assert [draft.phase for draft in drafts] == ["baseline"] * len(drafts)
