"""Every reader of a study computes the score that the study decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from ablations.errors import ConfigError
from ablations.files import read_json
from sweeps.study.confirm import finalists
from sweeps.study.definition import Definition, load_definition, record_decision, settle_definition
from sweeps.study.objective import objective_of
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import ObjectiveSpec, SearchSpec, TaskQualitySpec
from sweeps.study.study_state import Run, StudyState
from tests.sweeps.study.builders import SPACE, finish, spec, strategy, study

DECISION = {
    "left_out": {"dice/bpb": "mixtures differ by less than the noise of a run"},
    "weights": {"web/bpb": 1.0},
    "constant": 0.0,
}


def applied() -> SearchSpec:
    return spec(task_quality=TaskQualitySpec(apply=True))


def defined(folder: Path, search: SearchSpec) -> StudyState:
    """Return a study with its definition, as a command leaves it before the driver starts."""
    state = study(folder, search)
    asked = Definition(
        study="s",
        question="",
        space={},
        strategy={},
        objectives={"score": {"metrics": ["score"], "direction": "minimize"}},
        constraints={},
        seeds=(),
        config={},
        arguments=(),
        task_quality={"apply": True},
    )
    settle_definition(state.folder, asked)
    return state


def end(state: StudyState, run: Run) -> None:
    """Finish a run whose recorded score is half noise; ``web/bpb`` grows with the trial's number."""
    web, dice = 1.0 + 0.1 * run.number, 5.0 * ((run.number * 7) % 10)
    metrics = {"web/bpb": web, "dice/bpb": dice}
    finish(state, run, score=(web + dice) / 2, metrics=metrics)
    found = state.collect(run)
    assert found is not None
    state.record(run, found)


class Decider:
    """Decision given by the test, with a record of its calls."""

    def __init__(self, state: StudyState) -> None:
        self.state, self.phases_at_calls = state, list[list[str]]()

    def __call__(self, runs_dir: Path, name: str, wanted: TaskQualitySpec) -> Mapping[str, Any]:
        assert (runs_dir / name) == self.state.folder
        assert wanted.apply
        self.phases_at_calls.append([trial.spec.phase for trial in self.state.trials])
        assert all(trial.state == "done" for trial in self.state.trials)
        return DECISION


def test_the_score_is_decided_once_after_the_design_and_before_the_first_proposal(
    tmp_path: Path,
) -> None:
    search = applied()
    state = defined(tmp_path, search)
    decide = Decider(state)
    scheduler = SearchScheduler(strategy(search), None, decide)
    busy: set[Run] = set()
    while runs := scheduler.next_runs(state, busy, 3):
        busy = set(runs)
        # While runs are in flight, nothing is decided or proposed.
        for more in scheduler.next_runs(state, busy, 3):
            assert state.trial(more.number).spec.phase in ("baseline", "design") or state.decided
            busy.add(more)
        for run in sorted(busy, key=lambda r: (r.number, r.seed)):
            end(state, run)
        busy = set()
    assert decide.phases_at_calls == [["baseline"] * 2 + ["design"] * 3]
    assert {trial.spec.phase for trial in state.trials} == {"baseline", "design", "search"}
    again = study(tmp_path, search)
    assert again.decided
    assert SearchScheduler(strategy(search), None, decide).next_runs(again, set(), 3) == []
    assert len(decide.phases_at_calls) == 1


def test_each_reader_computes_the_decided_score(tmp_path: Path) -> None:
    search = applied()
    state = defined(tmp_path, search)
    scheduler = SearchScheduler(strategy(search), None, Decider(state))
    while runs := scheduler.next_runs(state, set(), 4):
        for run in runs:
            end(state, run)
    history = state.history()
    objective = objective_of(state.folder)
    web = {f"trial-{n:04d}": 1.0 + 0.1 * n for n in range(10)}
    assert {t.spec.trial: history.values(t) for t in history.done} == {
        name: [pytest.approx(value)] for name, value in web.items()
    }
    for name, value in web.items():
        result = read_json(state.folder / f"{name}-0" / "result.json")
        assert objective.value(result) == pytest.approx(value)
        assert result["score"] != pytest.approx(value)
    best = [trial.number for trial in finalists(history, search.confirm)]
    assert best[:2] == [1, 2]
    assert best[-1] == history.baseline_trial.number == 0
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(state.folder / "journal.log"))
    )
    shown = optuna.load_study(study_name="s", storage=storage).get_trials(deepcopy=False)
    assert {t.user_attrs["trial"]: t.values for t in shown} == {
        name: [pytest.approx(value)] for name, value in web.items()
    }


def test_a_driver_that_dies_between_decision_and_journal_writes_values_again(
    tmp_path: Path,
) -> None:
    search = applied()
    state = defined(tmp_path, search)
    for number in range(2):
        runs = SearchScheduler(strategy(search), None, None).next_runs(state, set(), 1)
        assert [run.number for run in runs] == [number]
        end(state, runs[0])
    record_decision(state.folder, DECISION)
    again = study(tmp_path, search)
    assert [again.history().values(t) for t in again.trials] == [
        [pytest.approx(1.0)],
        [pytest.approx(1.1)],
    ]
    kept = load_definition(again.folder)
    assert kept is not None
    record_decision(again.folder, {**DECISION, "weights": {"dice/bpb": 1.0}})
    assert load_definition(again.folder) == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": None}, "a plain sweep has no design"),
        (
            {"objectives": {"web": ObjectiveSpec(metrics=("web/bpb",), direction="minimize")}},
            "no objective is made of the score",
        ),
    ],
)
def test_task_quality_is_refused_where_it_could_decide_nothing(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        spec(task_quality=TaskQualitySpec(apply=True), **changes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_variance_ratio": -1.0},
        {"min_variance_ratio": float("nan")},
        {"min_monotonicity": 2.0},
        {"min_above_chance": float("inf")},
    ],
)
def test_thresholds_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        TaskQualitySpec(**wrong)  # type: ignore[arg-type]


def test_another_task_quality_is_another_study(tmp_path: Path) -> None:
    assert SPACE is not None
    state = defined(tmp_path, applied())
    stored = load_definition(state.folder)
    assert stored is not None
    record_decision(state.folder, DECISION)
    asked = Definition(**{**vars(stored), "task_quality": {"apply": False}})
    with pytest.raises(ConfigError, match=r"task_quality\.apply"):
        settle_definition(state.folder, asked)
