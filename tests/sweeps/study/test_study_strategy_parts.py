"""Check histories, designs, baselines and finalists value by value, on data made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ablations.errors import ConfigError
from sweeps.search.space import ParameterSpec, Point, SearchSpace, SearchSpaceSpec
from sweeps.study.confirm import finalists, undominated
from sweeps.study.resources import Resources
from sweeps.study.specs import ConfirmSpec, ConstraintSpec, ObjectiveSpec, StrategySpec
from sweeps.study.strategy import (
    History,
    Strategy,
    TrialRequest,
    design_size,
    plan_strategy,
)
from sweeps.study.trial import Trial
from tests.sweeps.study.builders import SPACE, outcome, trial

SCORE = {"score": ObjectiveSpec(direction="minimize")}
BOTH = {
    "a": ObjectiveSpec(metrics=("a/x",), direction="minimize"),
    "b": ObjectiveSpec(metrics=("b/x",), direction="maximize"),
}
DOWN = {
    "a": ObjectiveSpec(metrics=("a/x",), direction="minimize"),
    "b": ObjectiveSpec(metrics=("b/x",), direction="minimize"),
}
LEVELS = SearchSpaceSpec(
    parameters={
        "kind": ParameterSpec(kind="choice", choices=("x", "y", "z")),
        "deep": ParameterSpec(kind="int", low=1, high=2),
    }
)


def history(*trials: Trial, **changes: Any) -> History:
    values = {"trials": trials, "objectives": SCORE, "baseline": "uniform", **changes}
    return History(**values)


def measured(number: int, a: float | None, b: float | None, **changes: Any) -> Trial:
    one = trial(number, **changes)
    return replace(one, outcomes={0: outcome(1.0, metrics={"a/x": a, "b/x": b})})


def running(number: int, **changes: Any) -> Trial:
    return replace(trial(number, **changes), outcomes={})


# ----------------------------------------------------------------------------------------- history


def test_what_is_searched_and_done_is_told_from_the_rest() -> None:
    seen = history(
        trial(0, phase="grid"),
        trial(1),
        running(2),
        replace(trial(3), outcomes={0: outcome(None, status="failed")}),
        trial(4, None),
        trial(5, phase="confirm"),
        # A seed of confirmation has a value, and the trial itself has not ended.
        replace(trial(6), outcomes={1: outcome(1.0, seed=1)}),
    )
    assert [t.number for t in seen.searched] == [1, 2, 3, 4, 5, 6]
    assert [t.number for t in seen.done] == [1, 5]
    assert seen.low == ()


def test_trials_have_values_at_the_low_rung_only_where_a_rung_is_in_use() -> None:
    low = outcome(None, status="paused", low_score=3.0, low_metrics={"a/x": 2.0})
    seen = (replace(trial(0), outcomes={0: low}), trial(1), running(2))
    assert history(*seen).low == ()
    found = history(*seen, rung=(0.0, 1.0)).low
    assert [t.number for t in found] == [0]
    assert found[0].outcomes[0].score == 3.0


def test_the_baseline_is_a_done_trial_of_that_name_and_phase() -> None:
    named = trial(1, phase="baseline", name="uniform")
    other = trial(0, phase="design", name="uniform")
    later = trial(2, phase="baseline", name="natural")
    assert history(other, named, later).baseline_trial is named
    assert history(other, named, later, baseline="natural").baseline_trial is later
    assert history(other, later).baseline_trial is None
    assert history(replace(named, outcomes={})).baseline_trial is None


def test_a_trial_has_values_only_with_all_objectives() -> None:
    seen = history(objectives=BOTH)
    assert seen.values(measured(0, 1.0, 2.0)) == [1.0, 2.0]
    assert seen.values(measured(0, 1.0, None)) is None
    assert seen.values(measured(0, None, 2.0)) is None
    assert seen.values(measured(0, None, None)) is None


def test_losses_turn_what_is_maximised() -> None:
    seen = history(objectives=BOTH)
    found = seen.losses([measured(0, 1.0, 2.0), measured(1, 3.0, 5.0), measured(2, 0.5, 0.25)])
    assert found.tolist() == [[1.0, -2.0], [3.0, -5.0], [0.5, -0.25]]
    assert seen.losses([]).shape == (0, 2)


def test_constraints_are_measured_from_the_history_s_own_baseline() -> None:
    limit = {"cap": ConstraintSpec(metrics=("score",), margin=0.25)}
    base = trial(0, 2.0, phase="baseline", name="uniform")
    seen = history(base, trial(1, 3.0), constraints=limit)
    found = seen.feasibility(seen.trials[1])
    assert found is not None
    assert found == pytest.approx({"cap": 0.75})
    assert history(trial(1, 3.0), constraints=limit).feasibility(seen.trials[1]) is None


# ---------------------------------------------------------------------------------------- strategy


@pytest.mark.parametrize(
    ("wanted", "affordable", "baselines", "expected"),
    [
        (None, None, 2, 30),
        (None, 200, 2, 30),
        (None, 20, 2, 12),
        (None, 3, 5, 0),
        (40, None, 2, 40),
        (40, 41, 2, 39),
        (40, 42, 2, 40),
        (40, 43, 2, 40),
        (4, 1, 3, 0),
    ],
)
def test_a_design_has_six_trials_for_each_source_and_parameter(
    wanted: int | None, affordable: int | None, baselines: int, expected: int
) -> None:
    """Three sources and two parameters: 30 trials, two thirds of what the baselines leave at most."""
    space = SearchSpace.build(replace(SPACE, parameters=LEVELS.parameters))
    spec = StrategySpec(design_trials=wanted)
    assert design_size(spec, space, baselines, affordable) == expected


def never(seen: History, count: int) -> list[Point]:
    raise AssertionError("no point is asked for")


def levels(propose: Any = never, baselines: Mapping[str, Point] | None = None) -> Strategy:
    space = SearchSpace.build(LEVELS)
    return Strategy(space=space, baselines=baselines or {}, design=(), propose=propose, batch=2)


def test_a_finite_space_allows_its_points_and_the_baselines_outside() -> None:
    inside: Point = {"kind": "x", "deep": 1}
    outside: Point = {"kind": "x", "deep": 5}
    assert levels().most_trials == 6
    assert levels(baselines={"in": inside}).most_trials == 6
    assert levels(baselines={"in": inside, "out": outside}).most_trials == 7
    infinite = Strategy(
        space=SearchSpace.build(SPACE), baselines={}, design=(), propose=never, batch=2
    )
    assert infinite.most_trials is None


POINTS: list[Point] = [{"kind": kind, "deep": deep} for kind in "xyz" for deep in (1, 2)]


def test_proposals_are_asked_for_until_each_point_has_a_trial() -> None:
    asked: list[int] = []

    def propose(seen: History, count: int) -> list[Point]:
        asked.append(count)
        return POINTS[-count:]

    planned = levels(propose)
    five = history(*(trial(i, point=point) for i, point in enumerate(POINTS[:5])))
    assert [d.point for d in planned.next_drafts(five, 1)] == [POINTS[5]]
    assert asked == [1]
    assert [d.phase for d in planned.next_drafts(five, 1)] == ["search"]
    full = history(*five.trials, trial(5, point=POINTS[5]))
    assert levels().next_drafts(full, 3) == []
    assert levels().next_drafts(five, 0) == []
    assert levels().next_drafts(five, -1) == []


def test_what_is_planned_is_cut_to_the_limit_and_never_negative() -> None:
    planned = replace(levels(), baselines={"a": POINTS[0], "b": POINTS[1]}, design=(POINTS[2],))
    everything = planned.next_drafts(history(), 9)
    assert everything == [
        TrialRequest(phase="baseline", point=POINTS[0], name="a"),
        TrialRequest(phase="baseline", point=POINTS[1], name="b"),
        TrialRequest(phase="design", point=POINTS[2]),
    ]
    assert not any(draft.pauses for draft in everything)
    assert planned.next_drafts(history(), 2) == everything[:2]
    assert planned.next_drafts(history(), 0) == []
    assert planned.next_drafts(history(), -1) == []


def test_planned_points_follow_from_the_names_and_the_count_of_the_trials() -> None:
    planned = replace(levels(), baselines={"a": POINTS[0], "b": POINTS[1]}, design=(*POINTS[2:],))
    seen = history(
        trial(0, phase="baseline", name="b", point=POINTS[1]),
        # A name alone does not make a baseline, and a point that was proposed is not run twice.
        trial(1, phase="design", name="a", point=POINTS[2]),
        trial(2, phase="search", point=POINTS[4]),
    )
    left = planned.planned(seen)
    assert [(d.phase, d.name, d.point) for d in left] == [
        ("baseline", "a", POINTS[0]),
        ("design", "", POINTS[3]),
        ("design", "", POINTS[5]),
    ]


def test_a_trial_number_that_means_another_point_has_another_key() -> None:
    """A study that is opened again may give a number to another point; its key is not the cached one."""
    planned = replace(levels(), design=(POINTS[0], POINTS[1]))
    first = history(trial(0, phase="search", point=POINTS[0]))
    second = history(trial(0, phase="search", point=POINTS[1]))
    assert [d.point for d in planned.planned(first)] == [POINTS[1]]
    assert [d.point for d in planned.planned(first)] == [POINTS[1]]
    assert [d.point for d in planned.planned(second)] == [POINTS[0]]


def test_the_cached_keys_are_no_part_of_a_strategy() -> None:
    planned = replace(levels(), design=(POINTS[0],))
    fresh = replace(planned)
    planned.planned(history(trial(0, point=POINTS[1])))
    assert planned == fresh
    assert "_keys" not in repr(planned)
    with pytest.raises(TypeError, match="_keys"):
        Strategy(**vars(planned))


def plan(spec: StrategySpec, space: SearchSpaceSpec, own: Mapping[str, Any] | None) -> Strategy:
    return plan_strategy(spec, SearchSpace.build(space), Resources(), None, never, own)


def test_the_config_s_own_values_are_the_baseline_of_a_space_without_mixtures() -> None:
    asked = StrategySpec(
        baselines=("natural", "uniform"), baseline="natural", design_trials=0, batch=3
    )
    planned = plan(asked, LEVELS, {"kind": "z", "deep": 2})
    assert planned.baselines == {"natural": {"kind": "z", "deep": 2}}
    assert planned.batch == 3
    assert planned.design == ()


def test_named_mixtures_are_baselines_over_all_sources_and_the_verdict_s_is_first() -> None:
    asked = StrategySpec(
        baselines=("uniform",),
        mixtures={"half": {"web": 0.5, "math": 0.5}, "same": {"math": 0.5, "web": 0.5}},
        baseline="half",
        design_trials=2,
    )
    planned = plan(asked, SPACE, None)
    assert list(planned.baselines) == ["half", "uniform"]
    assert planned.baselines["half"] == {"mixture.weights": {"web": 0.5, "math": 0.5, "code": 0.0}}
    assert len(planned.design) == 2


def test_a_search_may_have_no_baseline_at_all() -> None:
    assert plan(StrategySpec(baselines=(), design_trials=1), SPACE, None).baselines == {}


def test_a_baseline_that_cannot_be_made_is_refused_with_those_that_can() -> None:
    asked = StrategySpec(baselines=("uniform", "natural"), baseline="natural", design_trials=1)
    with pytest.raises(ConfigError, match=r"'natural' cannot be made") as raised:
        plan(asked, SPACE, None)
    assert "uniform" in str(raised.value)
    only = StrategySpec(baselines=("natural",), baseline="natural", design_trials=1)
    with pytest.raises(ConfigError, match="none"):
        plan(only, SPACE, None)


def test_a_named_mixture_of_an_unknown_source_is_refused_where_the_baseline_is_another() -> None:
    asked = StrategySpec(baselines=("uniform",), mixtures={"x": {"wikki": 1.0}}, baseline="uniform")
    with pytest.raises(ConfigError, match="wikki"):
        plan(asked, SPACE, None)


# --------------------------------------------------------------------------------------- finalists


def numbers(chosen: list[Trial]) -> list[int]:
    return [one.number for one in chosen]


def test_no_finalists_are_chosen_of_nothing_or_if_none_are_asked_for() -> None:
    assert finalists(history(), ConfirmSpec(finalists=2)) == []
    assert finalists(history(running(0)), ConfirmSpec(finalists=2)) == []
    assert finalists(history(trial(0)), ConfirmSpec(finalists=0)) == []
    assert numbers(finalists(history(trial(0), trial(1, 2.0)), ConfirmSpec(finalists=1))) == [0]


def test_the_picked_trial_and_confirmed_ones_are_finalists_besides_the_best() -> None:
    ended = [trial(i, score) for i, score in enumerate([3.0, 1.0, 2.0, 4.0])]
    added = trial(4, 9.0, phase="confirm")
    best = trial(5, 0.5, phase="confirm")
    base = trial(6, 0.1, phase="baseline", name="uniform")
    seen = history(*ended, added, best, base)
    asked = ConfirmSpec(finalists=2)
    assert numbers(finalists(seen, asked)) == [5, 1, 4, 6]
    assert numbers(finalists(seen, asked, picked=3)) == [5, 1, 3, 4, 6]
    assert numbers(finalists(seen, asked, picked=5)) == [5, 1, 2, 4, 6]
    assert numbers(finalists(seen, asked, picked=4)) == [5, 1, 4, 6]


def test_the_best_of_two_objectives_are_the_front_by_mean_rank_then_the_others() -> None:
    """On the front the mean ranks are 1 (trial 2), 2 (trial 0) and 2 (trial 3); behind it 2.5 each."""
    rows = [(1.0, 5.0), (4.0, 3.0), (2.0, 2.0), (5.0, 1.0), (3.0, 4.0)]
    ended = [measured(i, *row) for i, row in enumerate(rows)]
    seen = history(*ended, objectives=DOWN)
    assert numbers(finalists(seen, ConfirmSpec(finalists=5))) == [2, 0, 3, 1, 4]
    assert numbers(finalists(seen, ConfirmSpec(finalists=1))) == [2]


def test_equal_losses_rank_in_the_order_of_the_trials() -> None:
    """More than 16 equal values: a sort that is not stable would mix them."""
    ended = [trial(i, 1.0 if i % 2 else 2.0) for i in range(40)]
    chosen = numbers(finalists(history(*ended), ConfirmSpec(finalists=40)))
    assert chosen == [*range(1, 40, 2), *range(0, 40, 2)]


def test_only_what_keeps_every_constraint_is_a_finalist() -> None:
    limits = {
        "a": ConstraintSpec(metrics=("a/x",), bound=2.0),
        "b": ConstraintSpec(metrics=("b/x",), bound=3.0),
    }
    rows = [(2.0, 3.0), (2.5, 1.0), (1.0, 3.5), (9.0, 9.0), (1.0, 1.0), (1.0, None)]
    ended = [measured(i, *row) for i, row in enumerate(rows)]
    seen = history(*ended, constraints=limits)
    assert numbers(finalists(seen, ConfirmSpec(finalists=9))) == [0, 4]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Equal first losses: only the smaller second one; a copy of a front row is on the front too.
        ([[1.0, 3.0], [1.0, 2.0], [1.0, 2.0], [2.0, 2.0], [2.0, 1.0]], [0, 1, 1, 0, 1]),
        ([[2.0, 1.0], [1.0, 2.0], [3.0, 0.5], [3.0, 0.5], [0.5, 9.0]], [1, 1, 1, 1, 1]),
        ([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]], [0, 0, 1]),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [0.5, 9.0, 9.0]], [1, 1, 0, 1]),
        ([[2.0], [1.0], [1.0]], [0, 1, 1]),
    ],
)
def test_the_front_of_rows_is_known(rows: list[list[float]], expected: list[int]) -> None:
    assert undominated(np.array(rows)).tolist() == [bool(one) for one in expected]


def test_no_rows_have_no_front() -> None:
    assert undominated(np.empty((0, 2))).tolist() == []
