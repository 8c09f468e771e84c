"""Check which trials a scheduler adds and which runs it returns, call by call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations.errors import DamagedError
from ablations.files import read_json, write_json
from sweeps.search.space import Point
from sweeps.study.confirm import Recommendation
from sweeps.study.scheduler import (
    SearchScheduler,
    SweepScheduler,
    _ended,
    _kept,
    _missing,
    unfinished,
)
from sweeps.study.specs import BudgetSpec, ConfirmSpec
from sweeps.study.strategy import History, TrialRequest
from sweeps.study.study_state import Run, StudyState
from sweeps.study.trial import Phase, Trial
from tests.sweeps.study.builders import finish, outcome, spec, strategy, study, trial


def point(web: float, math: float) -> Point:
    return {"mixture.weights": {"web": web, "math": math, "code": 1.0 - web - math}}


def ended(state: StudyState, run: Run, score: float | None = 1.0, **result: Any) -> None:
    (state.folder / f"trial-{run.number:04d}-{run.seed}").mkdir(exist_ok=True)
    finish(state, run, score, **result)
    found = state.collect(run)
    assert found is not None
    state.record(run, found)


def added(state: StudyState, count: int, score: float | None = 1.0, **draft: Any) -> list[int]:
    """Add trials that are done."""
    numbers = []
    for _ in range(count):
        given: dict[str, Any] = {"phase": "design", "point": point(0.5, 0.25), **draft}
        number = state.add_trial(TrialRequest(**given)).number
        ended(state, Run(number, 0), score)
        numbers.append(number)
    return numbers


def trials_of(state: StudyState) -> list[int]:
    return [one.number for one in state.trials]


class Planner:
    """Strategy that plans and proposes what the test gives, with a record of what it is asked for."""

    most_trials: int | None = None

    def __init__(self, planned: Sequence[TrialRequest] = (), batch: int = 0) -> None:
        self.left, self.batch, self.limits = list(planned), batch, list[int]()

    def planned(self, history: History) -> list[TrialRequest]:
        return self.left[len(history.trials) :]

    def next_drafts(self, history: History, limit: int) -> list[TrialRequest]:
        self.limits.append(limit)
        search = [TrialRequest(phase="search", point=point(0.5, 0.25))] * self.batch
        return self.planned(history) or search


def scheduler_of(planner: Planner, **changes: Any) -> SearchScheduler:
    values: dict[str, Any] = {"strategy": planner, "pick": None, **changes}
    return SearchScheduler(**values)


DESIGN = [TrialRequest(phase="design", point=point(0.5, 0.1 * place)) for place in range(4)]


# -------------------------------------------------------------------------------------------- sweeps


def test_a_sweep_adds_no_trial_before_a_worker_is_free(tmp_path: Path) -> None:
    state = study(tmp_path)
    sweep = SweepScheduler([("a=1",), ("a=2",), ("a=3",)], (1, 2))
    assert sweep.next_runs(state, set(), 0) == []
    assert trials_of(state) == []
    assert sweep.next_runs(state, set(), 1) == [Run(0, 1)]
    assert sweep.next_runs(state, set(), 2) == [Run(0, 1), Run(0, 2)]
    assert [t.spec.seeds for t in state.trials] == [(1, 2)]
    assert sweep.next_runs(state, {Run(0, 1)}, 2) == [Run(0, 2), Run(1, 1)]
    assert len(state.trials) == 2
    assert sweep.total(state) == 3


def test_a_sweep_minds_its_own_combinations_and_seeds(tmp_path: Path) -> None:
    state = study(tmp_path)
    first = SweepScheduler([("a=1", "b=2"), ("b=2", "a=1")], (0, 1))
    second = SweepScheduler([("a=3",)], (0,))
    assert (first.total(state), second.total(state)) == (1, 1)
    for one in (first, second):
        for run in one.next_runs(state, set(), 4):
            ended(state, run)
    added(state, 1)
    assert first.ended_runs(state) == [Run(0, 0), Run(0, 1)]
    assert second.ended_runs(state) == [Run(1, 0)]
    assert SweepScheduler([("b=2", "a=1")], (1,)).ended_runs(state) == [Run(0, 1)]


# ----------------------------------------------------------------------------------------- exploring


def test_planned_trials_are_added_one_at_a_time_and_only_for_free_workers(tmp_path: Path) -> None:
    state, planner = study(tmp_path), Planner(DESIGN)
    scheduler = scheduler_of(planner)
    assert scheduler.next_runs(state, set(), 0) == []
    assert trials_of(state) == []
    assert scheduler.next_runs(state, set(), 1) == [Run(0, 0)]
    assert trials_of(state) == [0]
    busy = {Run(0, 0)}
    assert scheduler.next_runs(state, busy, 2) == [Run(1, 0), Run(2, 0)]
    assert len(state.trials) == 3
    assert scheduler.next_runs(state, busy, 1) == [Run(1, 0)]
    assert len(state.trials) == 3
    assert planner.limits == [10, 9, 8]


def test_without_a_budget_of_trials_as_many_are_asked_for_as_workers_are_free(
    tmp_path: Path,
) -> None:
    search = spec(budget=BudgetSpec(tokens=1e9))
    state, planner = study(tmp_path, search), Planner(DESIGN)
    assert len(scheduler_of(planner).next_runs(state, set(), 3)) == 3
    assert planner.limits == [3, 2, 1]


def test_a_batch_of_proposals_is_added_together_within_the_budget(tmp_path: Path) -> None:
    state = study(tmp_path / "a")
    assert scheduler_of(Planner(batch=3)).next_runs(state, set(), 1) == [Run(0, 0)]
    assert len(state.trials) == 3
    small = study(tmp_path / "b", spec(budget=BudgetSpec(trials=2)))
    assert len(scheduler_of(Planner(batch=3)).next_runs(small, set(), 4)) == 2
    assert len(small.trials) == 2


def test_runs_in_flight_count_towards_a_budget_of_tokens(tmp_path: Path) -> None:
    """Two runs of 100 are paid, 500 are there: three more fit, those in flight among them."""
    search = spec(budget=BudgetSpec(tokens=500.0, confirm_share=0.0))
    state = study(tmp_path, search)
    added(state, 2)
    busy = {Run(number, 0) for number in (7, 8)}
    assert len(scheduler_of(Planner(batch=1)).next_runs(state, busy, 4)) == 1
    assert len(state.trials) == 3


def test_trials_that_have_not_ended_come_before_new_ones(tmp_path: Path) -> None:
    state = study(tmp_path, spec(seeds=(0, 1)))
    phases: tuple[Phase, ...] = ("grid", "search")
    for phase in phases:
        state.add_trial(TrialRequest(phase=phase, point=point(0.5, 0.25)))
    ended(state, Run(1, 0))
    runs = scheduler_of(Planner(batch=1)).next_runs(state, set(), 3)
    assert runs == [Run(1, 1), Run(2, 0), Run(2, 1)]
    assert [t.spec.phase for t in state.trials] == ["grid", "search", "search"]


@pytest.mark.parametrize(
    ("trials", "most", "expected"),
    [(10, 6, 6), (4, 6, 4), (None, 6, 6), (4, None, 4), (None, None, None)],
)
def test_the_total_is_the_smaller_of_budget_and_space(
    tmp_path: Path, trials: int | None, most: int | None, expected: int | None
) -> None:
    planner = Planner()
    planner.most_trials = most
    state = study(tmp_path, spec(budget=BudgetSpec(trials=trials, tokens=1e9)))
    assert scheduler_of(planner).total(state) == expected


def test_the_ended_runs_of_a_search_leave_the_sweep_s_out(tmp_path: Path) -> None:
    state = study(tmp_path)
    added(state, 1, phase="grid")
    added(state, 2)
    state.add_trial(DESIGN[0])
    assert scheduler_of(Planner()).ended_runs(state) == [Run(1, 0), Run(2, 0)]


# ------------------------------------------------------------------------- decisions after the design


def judged(
    state: StudyState, planner: Planner, *, waiting: bool, judge: Any = dict
) -> tuple[bool, int]:
    """Return what the scheduler says about the old runs, and how often they were judged."""
    calls: list[Any] = []

    def said(judge: Any) -> str:
        calls.append(judge)
        return "judged"

    state.judge_evidence = said  # type: ignore[method-assign]
    scheduler = scheduler_of(planner)
    scheduler.judge = judge
    return scheduler._evidence_is_judged(state, waiting=waiting), len(calls)


@pytest.mark.parametrize(
    ("done", "waiting", "planned", "expected"),
    [
        (8, False, 0, (True, 1)),
        (9, False, 0, (True, 1)),
        (7, False, 0, (True, 0)),
        (8, True, 0, (False, 0)),
        (8, False, 1, (False, 0)),
        (8, True, 1, (False, 0)),
    ],
)
def test_old_runs_are_judged_by_eight_runs_once_the_plan_has_ended(
    tmp_path: Path, done: int, waiting: bool, planned: int, expected: tuple[bool, int]
) -> None:
    state = study(tmp_path)
    added(state, done)
    state.evidence = SimpleNamespace(check=None, used=False)  # type: ignore[assignment]
    planner = Planner(DESIGN[:1] * (done + planned))
    assert judged(state, planner, waiting=waiting) == expected


def test_old_runs_are_not_judged_twice_or_without_a_judge(tmp_path: Path) -> None:
    state = study(tmp_path)
    added(state, 8)
    assert judged(state, Planner(), waiting=True) == (True, 0)
    state.evidence = SimpleNamespace(check={}, used=False)  # type: ignore[assignment]
    assert judged(state, Planner(), waiting=True) == (True, 0)
    state.evidence = SimpleNamespace(check=None, used=False)  # type: ignore[assignment]
    assert judged(state, Planner(), waiting=True, judge=None) == (True, 0)


@pytest.mark.parametrize(("tokens", "open_plan"), [(900.0, True), (840.0, False)])
def test_a_plan_is_over_when_its_next_run_is_beyond_the_budget(
    tmp_path: Path, tokens: float, open_plan: bool
) -> None:
    """Eight runs of 100 are paid: a ninth fits into 900, a tenth does not."""
    search = spec(budget=BudgetSpec(tokens=tokens, confirm_share=0.0))
    state = study(tmp_path, search)
    added(state, 8)
    planner = Planner(DESIGN[:1] * 9)
    decided: list[Any] = []
    state.decide_quality = decided.append  # type: ignore[method-assign, assignment]
    scheduler = scheduler_of(planner, decide=dict)
    assert scheduler._score_is_settled(state, waiting=False) is not open_plan
    assert len(decided) == int(not open_plan)
    state.evidence = SimpleNamespace(check=None, used=False)  # type: ignore[assignment]
    assert judged(state, planner, waiting=False) == ((False, 0) if open_plan else (True, 1))


def test_a_score_is_decided_once_and_not_while_runs_are_in_flight(tmp_path: Path) -> None:
    state = study(tmp_path)
    decided: list[Any] = []
    state.decide_quality = decided.append  # type: ignore[method-assign, assignment]
    assert scheduler_of(Planner())._score_is_settled(state, waiting=True)
    scheduler = scheduler_of(Planner(), decide=dict)
    assert not scheduler._score_is_settled(state, waiting=True)
    assert decided == []
    assert scheduler._score_is_settled(state, waiting=False)
    assert decided == [dict]
    state.decided = True
    assert scheduler._score_is_settled(state, waiting=True)
    assert decided == [dict]


@pytest.mark.parametrize("what", ["judge", "decide"])
def test_only_planned_trials_are_added_before_a_decision(tmp_path: Path, what: str) -> None:
    state, planner = study(tmp_path), Planner(DESIGN[:1], batch=2)
    scheduler = scheduler_of(planner, decide=dict if what == "decide" else None)
    if what == "judge":
        scheduler.judge = dict  # type: ignore[assignment]
        state.evidence = SimpleNamespace(check=None, used=False)  # type: ignore[assignment]
    assert scheduler.next_runs(state, set(), 3) == [Run(0, 0)]
    # Nothing is left to launch, and the run in flight keeps the decision waiting.
    assert scheduler.next_runs(state, {Run(0, 0)}, 3) == []
    assert len(state.trials) == 1


# ---------------------------------------------------------------------------------------- confirming


def confirming(folder: Path, asked_pick: Any = None, **confirm: Any) -> tuple[StudyState, Any]:
    """Return a study of four done trials whose budget has ended, and its scheduler."""
    values = {"finalists": 2, "pick": asked_pick is not None, "seeds": (0, 1, 2)}
    asked = ConfirmSpec(**{**values, **confirm})
    state = study(folder, spec(confirm=asked, budget=BudgetSpec(trials=4)))
    for place, score in enumerate((3.0, 1.0, 4.0, 2.0)):
        added(state, 1, score, point=point(0.1 * place, 0.5))
    return state, SearchScheduler(strategy(state.spec), asked_pick)


def test_finalists_are_run_seed_by_seed_while_no_run_is_in_flight(tmp_path: Path) -> None:
    state, scheduler = confirming(tmp_path)
    assert scheduler.next_runs(state, {Run(9, 0)}, 9) == []
    assert not (state.folder / "finalists.json").exists()
    every = [Run(1, 1), Run(3, 1), Run(1, 2), Run(3, 2)]
    assert scheduler.next_runs(state, set(), 9) == every
    assert scheduler.next_runs(state, set(), 3) == every[:3]
    stored = read_json(state.folder / "finalists.json")
    assert {k: v for k, v in stored.items() if k != "content_sha256"} == {
        "explored": 4,
        "done": 4,
        "asked": 2,
        "finalists": [1, 3],
    }
    ended(state, Run(1, 1))
    assert scheduler.next_runs(state, set(), 9) == [Run(3, 1), Run(1, 2), Run(3, 2)]


def test_a_finalist_that_failed_is_not_run_with_more_seeds(tmp_path: Path) -> None:
    state, scheduler = confirming(tmp_path)
    write_json(state.folder / "finalists.json", {"explored": 4, "asked": 2, "finalists": [1, 4]})
    number = state.add_trial(TrialRequest(phase="confirm", point=point(0.5, 0.5))).number
    ended(state, Run(number, 0), None, status="failed")
    assert number == 4
    assert {run.number for run in scheduler.next_runs(state, set(), 9)} == {1}


def test_confirming_ends_with_the_budget(tmp_path: Path) -> None:
    """Four runs of 100 are paid of 620: two more fit with half a run of slack."""
    state, scheduler = confirming(tmp_path)
    state.spec = replace(state.spec, budget=BudgetSpec(trials=4, tokens=620.0))
    assert scheduler.next_runs(state, set(), 9) == [Run(1, 1), Run(3, 1)]
    state.spec = replace(state.spec, budget=BudgetSpec(trials=4, tokens=400.0))
    assert scheduler.next_runs(state, set(), 9) == []


def recommended(where: Point, calls: list[History]) -> Any:
    def pick(history: History) -> Recommendation:
        calls.append(history)
        return Recommendation(point=where, notes={"surrogate": "made"})

    return pick


@pytest.mark.parametrize(("web", "known"), [(0.2005, 2), (0.209, 2), (0.211, None), (0.25, None)])
def test_a_mixture_within_a_hundredth_counts_as_the_same(
    tmp_path: Path, web: float, known: int | None
) -> None:
    calls: list[History] = []
    pick = recommended(point(web, 0.5), calls)
    state, scheduler = confirming(tmp_path, pick)
    scheduler.next_runs(state, set(), 9)
    stored = read_json(state.folder / "pick.json")
    assert stored["trial"] == f"trial-{4 if known is None else known:04d}"
    assert stored["point"] == point(web, 0.5)
    assert stored["surrogate"] == "made"
    finals = read_json(state.folder / "finalists.json")["finalists"]
    assert set(finals) == ({1, 2, 3} if known is not None else {1, 3, 4})
    assert finals.count(4 if known is None else known) == 1
    assert len(state.trials) == (4 if known is not None else 5)
    if known is None:
        last = state.trials[-1].spec
        assert (last.phase, last.name, last.seeds) == ("confirm", "pick-4", (0, 1, 2))
    scheduler.next_runs(state, set(), 9)
    assert len(calls) == 1


def test_no_trial_is_near_where_none_is_done(tmp_path: Path) -> None:
    state, scheduler = confirming(tmp_path)
    assert scheduler._nearest([], point(0.0, 0.5)) is None
    trials = list(state.trials)
    assert scheduler._nearest(trials, point(0.301, 0.5)) == 3
    assert scheduler._nearest(trials, point(0.301, 0.4)) is None


@pytest.mark.parametrize("confirm", [{"finalists": 0}, {"pick": False}])
def test_no_optimum_is_asked_for_unless_it_is_to_be_confirmed(
    tmp_path: Path, confirm: dict[str, Any]
) -> None:
    calls: list[History] = []
    pick = recommended(point(0.5, 0.5), calls)
    state, scheduler = confirming(tmp_path, pick, **confirm)
    scheduler.next_runs(state, set(), 9)
    assert calls == []
    assert len(state.trials) == 4


def test_a_pick_that_was_added_before_a_kill_is_taken_up(tmp_path: Path) -> None:
    calls: list[History] = []
    state, scheduler = confirming(tmp_path, recommended(point(0.6, 0.3), calls))
    given = TrialRequest(phase="confirm", point=point(0.7, 0.1), name="pick-4")
    number = state.add_trial(given).number
    assert scheduler._picked_trial(state) == number
    assert calls == []
    without = SearchScheduler(strategy(state.spec), None)
    assert without._picked_trial(state) == number
    assert SearchScheduler(strategy(state.spec), lambda _: None)._picked_trial(state) == number
    other, scheduler = confirming(tmp_path / "other")
    assert scheduler._picked_trial(other) is None
    nothing = SearchScheduler(strategy(other.spec), lambda _: None)
    assert nothing._picked_trial(other) is None


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, [3, 1]),
        ({"explored": 5}, None),
        ({"asked": 3}, None),
        ({"done": 3}, None),
        ({"done": None}, [3, 1]),
    ],
)
def test_finalists_are_kept_while_nothing_has_changed(
    tmp_path: Path, changes: dict[str, int | None], kept: list[int] | None
) -> None:
    path = tmp_path / "finalists.json"
    assert _kept(path, 4, 2, 4) is None
    stored = {"explored": 4, "asked": 2, "done": 4, "finalists": [3, 1], **changes}
    write_json(path, {key: value for key, value in stored.items() if value is not None})
    assert _kept(path, 4, 2, 4) == kept


@pytest.mark.parametrize("wrong", [None, "12", {}, [1, "2"], ["1", 2], 7])
def test_a_list_of_finalists_that_is_none_is_damaged(tmp_path: Path, wrong: Any) -> None:
    path = tmp_path / "finalists.json"
    write_json(path, {"explored": 4, "asked": 2, "done": 4, "finalists": wrong})
    with pytest.raises(DamagedError, match="no list of finalists"):
        _kept(path, 4, 2, 4)


# ---------------------------------------------------------------------------------------------- runs


def test_runs_are_ended_or_missing_by_seed() -> None:
    paused = outcome(seed=1, status="paused")
    trials: list[Trial] = [
        replace(trial(0, seeds=(0, 1)), outcomes={2: outcome(seed=2), 0: outcome()}),
        replace(trial(1, seeds=(1,)), outcomes={1: paused}, continued=True),
        replace(trial(2, seeds=(1,)), outcomes={1: paused}),
        trial(3, seeds=(0,)),
        replace(trial(4, seeds=(0, 1)), outcomes={0: outcome(None, status="failed")}),
    ]
    assert [t.state for t in trials] == ["running", "running", "paused", "done", "failed"]
    assert _ended(trials) == [Run(0, 0), Run(0, 2), Run(2, 1), Run(3, 0), Run(4, 0)]
    assert unfinished(trials, set()) == [Run(0, 1), Run(1, 1)]
    assert unfinished(trials, {Run(0, 1), Run(1, 0)}) == [Run(1, 1)]
    assert _missing(trials, (0, 3), set()) == [Run(0, 3), Run(1, 0), Run(1, 3), Run(3, 3)]
    assert _missing(trials, (3,), {Run(0, 3), Run(3, 3)}) == [Run(1, 3)]
