"""Check a study's journal and objectives step by step: what is kept, shown, moved aside and computed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from ablations.errors import ConfigError
from ablations.evaluation.score_rule import LinearForm
from sweeps.search.space import ParameterSpec, Point, SearchSpaceSpec
from sweeps.study.definition import Definition, settle_definition
from sweeps.study.journal import Journal
from sweeps.study.objective import Objective, decided_form, objective_of, objectives_of, restated
from sweeps.study.specs import ConstraintSpec, ObjectiveSpec
from sweeps.study.strategy import TrialRequest
from sweeps.study.study_state import Run, StudyState
from sweeps.study.trial import TrialSpec
from tests.sweeps.study.builders import SPACE, finish, outcome, spec, study, trial

WEIGHTS = {"web": 0.5, "math": 0.25, "code": 0.25}
POINT: Point = {"mixture.weights": WEIGHTS}
DRAFT = TrialRequest(phase="design", point=POINT)


def ended(state: StudyState, score: float | None = 1.0, **result: Any) -> Run:
    """Add a trial, finish its first run and record it."""
    run = Run(state.add_trial(DRAFT).number, 0)
    finish(state, run, score, **result)
    found = state.collect(run)
    assert found is not None
    state.record(run, found)
    return run


# ------------------------------------------------------------------------------------------- journal


def stored(folder: Path) -> optuna.Study:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    )
    return optuna.load_study(study_name="s", storage=storage)


def test_the_journal_shows_each_end_with_its_values_and_constraints(tmp_path: Path) -> None:
    objectives = {
        "web": ObjectiveSpec(metrics=("web/bpb",), direction="minimize"),
        "acc": ObjectiveSpec(metrics=("math/acc",), direction="maximize"),
    }
    limits = {"cap": ConstraintSpec(metrics=("web/bpb",), bound=2.5)}
    state = study(tmp_path, spec(objectives=objectives, constraints=limits))
    ended(state, metrics={"web/bpb": 3.0, "math/acc": 0.25})
    ended(state, metrics={"web/bpb": 3.0})
    ended(state, None, status="failed", reason="x")
    run = Run(state.add_trial(DRAFT).number, 0)
    state.record(run, outcome(None, status="pruned"))
    state.add_trial(DRAFT)
    shown = stored(state.folder)
    assert shown.metric_names == ["web", "acc"]
    assert [one.name.lower() for one in shown.directions] == ["minimize", "maximize"]
    trials = shown.get_trials(deepcopy=False)
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "FAIL", "PRUNED", "RUNNING"]
    assert [t.values for t in trials] == [[3.0, 0.25], None, None, None, None]
    assert trials[0].system_attrs["constraints:cap"] == pytest.approx(0.5)
    assert trials[0].user_attrs["outcomes"]["0"]["metrics"]["math/acc"] == 0.25
    assert [t.settled for t in state.trials] == [True, True, True, True, False]
    assert [t.settled for t in study(tmp_path, state.spec).trials] == [True] * 4 + [False]


def test_the_journal_s_parameters_have_their_own_ranges(tmp_path: Path) -> None:
    parameters = {
        "lr": ParameterSpec(kind="log", low=1e-4, high=1e-2),
        "warm": ParameterSpec(kind="float", low=0.0, high=0.5),
        "deep": ParameterSpec(kind="int", low=2, high=8),
        "kind": ParameterSpec(kind="choice", choices=("x", "y")),
    }
    space = SearchSpaceSpec(mixtures=SPACE.mixtures, parameters=parameters)
    state = study(tmp_path, spec(space=space))
    searched = {"lr": 0.001, "warm": 0.25, "deep": 3, "kind": "y"}
    point: dict[str, Any] = {**POINT, **searched}
    state.add_trial(replace(DRAFT, point=point, name="one"), overrides=("a=1", "b=2"))
    state.add_trial(DRAFT)
    first, second = stored(state.folder).get_trials(deepcopy=False)
    weights = {f"mixture.weights.{name}": w for name, w in WEIGHTS.items()}
    assert first.params == {**weights, **searched}
    assert second.params == weights
    named = optuna.distributions
    found = first.distributions
    assert found["lr"] == named.FloatDistribution(1e-4, 1e-2, log=True)
    assert found["warm"] == named.FloatDistribution(0.0, 0.5)
    assert found["deep"] == named.IntDistribution(2, 8)
    assert found["kind"] == named.CategoricalDistribution(("x", "y"))
    assert found["mixture.weights.web"] == named.FloatDistribution(0.0, 1.0)
    assert first.user_attrs["overrides"] == "a=1 b=2"
    assert (first.user_attrs["name"], first.user_attrs["phase"]) == ("one", "design")
    assert "overrides" not in second.user_attrs
    assert first.datetime_start is not None


def journal(folder: Path, scale: str = "") -> Journal:
    return Journal(folder, "s", {"score": "minimize"}, {}, scale)


def test_a_journal_keeps_what_goes_on_and_what_has_ended(tmp_path: Path) -> None:
    first = journal(tmp_path)
    for number in (4, 7):
        first.add(TrialSpec(number=number, phase="design", point=POINT))
    first.carry_on(replace(first.trials[7], continued=True))
    first.end(replace(first.trials[4], outcomes={0: outcome(1.5)}), [1.5], {})
    assert (first.trials[4].settled, first.trials[7].settled) == (True, False)
    read = journal(tmp_path).trials
    assert [(t.number, t.settled, t.continued) for t in read.values()] == [
        (4, True, False),
        (7, False, True),
    ]
    assert read[4].outcomes == {0: outcome(1.5)}
    first.keep(trial(7, 2.0))
    assert first.trials[7].outcomes[0].score == 2.0
    assert journal(tmp_path).trials[7].outcomes == {}


def test_a_journal_of_another_score_begins_again(tmp_path: Path) -> None:
    journal(tmp_path).add(TrialSpec(number=0, phase="design", point=POINT))
    assert list(journal(tmp_path).trials) == [0]
    assert list(journal(tmp_path, scale="other").trials) == []
    journal(tmp_path, scale="other").add(TrialSpec(number=1, phase="design", point=POINT))
    assert list(journal(tmp_path, scale="other").trials) == [1]


def test_damaged_journals_are_numbered_and_their_line_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "journal.log"
    for number in (1, 2):
        journal(tmp_path).add(TrialSpec(number=0, phase="design", point=POINT))
        lines = path.read_text().splitlines(keepends=True)
        wrong = lines[1].replace('"worker_id":"', '"worker_id":"x', 1)
        path.write_text("".join([lines[0], wrong, *lines[2:]]))
        assert list(journal(tmp_path).trials) == []
        said = capsys.readouterr().err
        assert "line 2" in said
        assert f"moved to journal.log.damaged-{number}" in said
        assert path.with_name(f"journal.log.damaged-{number}").exists()
        path.unlink()


# ---------------------------------------------------------------------------------------- objectives

FORM = LinearForm(weights={"a/b": 2.0}, constant=0.5)
DECISION = {"left_out": {"dice/bpb": "noise"}, "weights": {"a/b": 2.0}, "constant": 0.5}


def defined(**changes: Any) -> Definition:
    nothing: dict[str, Any] = {k: {} for k in ("strategy", "objectives", "constraints", "config")}
    given = {"space": None, "seeds": (0,), "arguments": (), **nothing, **changes}
    return Definition(study="s", question="", **given)


def quality(**changes: Any) -> dict[str, Any]:
    """Return the ``task_quality`` of a study that decided."""
    return {"apply": True, "decision": {**DECISION, **changes}}


def test_a_decided_score_replaces_the_recorded_one_only_where_it_left_something_out() -> None:
    assert decided_form(defined()) is None
    assert decided_form(defined(task_quality=quality(left_out={}))) is None
    assert decided_form(defined(task_quality=quality())) == FORM
    same = outcome(7.0)
    assert restated(same, None) is same
    assert restated(outcome(7.0, metrics={"a/b": 3.0}), FORM).score == 6.5
    assert restated(outcome(7.0), FORM).score is None


def test_objectives_are_those_declared_with_what_was_left_out() -> None:
    assert objectives_of(None) == (Objective(),)
    assert objectives_of(defined()) == (Objective(),)
    declared = {
        "first": {"metrics": ["a/*", "c/d"], "direction": "maximize"},
        "second": {"metrics": None},
    }
    assert objectives_of(defined(objectives=declared)) == (
        Objective(name="first", metrics=("a/*", "c/d"), direction="maximize"),
        Objective(name="second", metrics=("score",)),
    )
    both = objectives_of(defined(objectives=declared, task_quality=quality()))
    assert [one.form for one in both] == [FORM, FORM]
    assert [one.left_out for one in both] == [{"dice/bpb": "noise"}] * 2


def test_an_objective_is_found_by_name_and_the_first_one_without(tmp_path: Path) -> None:
    declared = {"first": {"metrics": ["a/b"]}, "second": {"metrics": ["c/d"]}}
    settle_definition(tmp_path, defined(objectives=declared))
    assert objective_of(tmp_path).name == "first"
    assert objective_of(tmp_path, "first").metrics == ("a/b",)
    assert objective_of(tmp_path, "second").metrics == ("c/d",)
    with pytest.raises(ConfigError, match="third") as raised:
        objective_of(tmp_path, "third")
    assert "second" in str(raised.value)


def test_a_recorded_score_is_a_number_or_missing() -> None:
    assert Objective().value({"score": 2}) == 2.0
    assert Objective().value({"score": None}) is None
    assert Objective().value({}) is None
    assert Objective(form=FORM).value({"score": 1.0, "metrics": {"a/b": 3.0}}) == 6.5
    assert Objective(form=FORM).value({"score": 1.0, "metrics": None}) is None
    both = Objective(metrics=("score", "a/b"))
    assert both.value({"score": 1.0, "metrics": {"a/b": 3.0}}) == 2.0
    assert json.dumps(Objective(metrics=("a/b",)).value({"score": 1.0, "metrics": {}})) == "null"
