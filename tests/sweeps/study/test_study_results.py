"""Results read from run folders, their cost, and the direction of the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ablations.files import read_json, write_json
from ablations.record.run_record import RunRecord
from sweeps.search.space import Point
from sweeps.study.budget import ledger_of
from sweeps.study.confirm import finalists
from sweeps.study.run_results import outcome_of, write_trial_spec
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import BudgetSpec, ConfirmSpec, Direction, ObjectiveSpec
from sweeps.study.strategy import History, plan_strategy
from sweeps.study.study_state import Run
from sweeps.study.trial import TrialSpec
from tests.sweeps.study.builders import finish, spec, strategy, study, trial

SPEC = TrialSpec(number=0, phase="design", point={"mixture.weights": {"web": 1.0}})


def record_of(folder: Path, execution: dict[str, int]) -> RunRecord:
    record = RunRecord.create(
        folder, study="s", trial="trial-0000", seed=0, config={"execution": execution}
    )
    record.write_result(
        {"status": "done", "score": 1.0, "metrics": {}, "cost": {"wall_seconds": 3600.0}}
    )
    return record


@pytest.mark.parametrize(
    ("execution", "devices"),
    [({}, 1), ({"dp": 2}, 2), ({"dp": 2, "tp": 2, "pp": 2}, 8), ({"tp": 4}, 4), ({"pp": 3}, 3)],
)
def test_a_run_s_hours_count_each_of_its_devices(
    tmp_path: Path, execution: dict[str, int], devices: int
) -> None:
    record_of(tmp_path, execution)
    outcome = outcome_of(tmp_path / "s", SPEC, 0)
    assert outcome is not None
    assert outcome.device_seconds == 3600.0 * devices


def test_a_pruned_run_that_is_still_held_has_not_ended(tmp_path: Path) -> None:
    run = tmp_path / "trial-0000-0"
    run.mkdir()
    write_json(run / "pruned.json", {"reason": "behind"})
    with FileLock(run / "lock"):
        assert outcome_of(tmp_path, SPEC, 0) is None
    outcome = outcome_of(tmp_path, SPEC, 0)
    assert outcome is not None
    assert (outcome.status, outcome.reason) == ("pruned", "behind")


def test_a_trial_s_first_specification_stays(tmp_path: Path) -> None:
    write_trial_spec(tmp_path, SPEC, 0)
    write_trial_spec(tmp_path, TrialSpec(number=0, phase="search", name="other", point={}), 0)
    assert read_json(tmp_path / "trial-0000-0/trial.json") == json.loads(json.dumps(SPEC.plain()))


def test_the_combinations_of_a_sweep_are_not_paid_from_the_search_s_trials() -> None:
    trials = [
        trial(0, phase="grid", overrides=("a=1",)),
        trial(1, phase="baseline"),
        trial(2),
        trial(3, phase="search"),
        trial(4, phase="confirm"),
    ]
    ledger = ledger_of(BudgetSpec(trials=4), trials)
    assert ledger.explored_trials == 3
    assert ledger.may_explore(0)


def test_proposals_come_in_batches(tmp_path: Path) -> None:
    asked: list[int] = []
    search = spec()
    planned = strategy(search)

    def propose(history: History, count: int) -> list[Point]:
        asked.append(count)
        return planned.propose(history, count)

    assert search.space is not None
    from sweeps.study.resources import Resources

    counted = plan_strategy(search.strategy, planned.space, Resources(), 10, propose)
    seen = History(
        trials=(
            trial(0, phase="baseline", name="uniform"),
            trial(1, phase="baseline", name="half"),
            *(trial(2 + i, point=point) for i, point in enumerate(counted.design)),
        ),
        objectives=search.objectives,
        baseline="uniform",
    )
    assert len(counted.next_drafts(seen, 8)) == 2
    assert len(counted.next_drafts(seen, 1)) == 1
    assert asked == [2, 1]


@pytest.mark.parametrize(("direction", "first"), [("minimize", [1, 2]), ("maximize", [3, 0])])
def test_the_finalists_are_the_best_in_either_direction(
    direction: Direction, first: list[int]
) -> None:
    ended = tuple(trial(i, score) for i, score in enumerate([3.0, 1.0, 2.0, 4.0]))
    history = History(trials=ended, objectives={"score": ObjectiveSpec(direction=direction)})
    assert [t.number for t in finalists(history, ConfirmSpec(finalists=2))] == first


@pytest.mark.parametrize(("direction", "best"), [("minimize", 3), ("maximize", 6)])
def test_a_whole_search_confirms_its_best_in_either_direction(
    tmp_path: Path, direction: Direction, best: int
) -> None:
    search = spec(
        objectives={"score": ObjectiveSpec(direction=direction)},
        confirm=ConfirmSpec(finalists=1, pick=False, seeds=(0, 1)),
    )
    state = study(tmp_path, search)
    scores: dict[int, float] = {3: 1.0, 6: 9.0}
    scheduler = SearchScheduler(strategy(search), None)
    confirmed: set[int] = set()
    while runs := scheduler.next_runs(state, set(), 4):
        for run in runs:
            result: dict[str, Any] = {"direction": direction}
            finish(state, Run(run.number, run.seed), scores.get(run.number, 5.0), **result)
            found = state.collect(run)
            assert found is not None
            state.record(run, found)
            confirmed |= {run.number} if run.seed else set()
    assert confirmed == {0, best}
