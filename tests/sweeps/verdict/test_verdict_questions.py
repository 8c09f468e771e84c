"""Check the question of a study: its terms, and the constraints that candidates break."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.files import write_json
from sweeps.study.objective import Objective
from sweeps.verdict.question import Question, broken, question_of

RULE = {"one": {"metrics": "*/acc", "weight": 2.0}}


def result(**metrics: float) -> dict[str, Any]:
    return {"metrics": {name.replace("_", "/"): value for name, value in metrics.items()}}


def limited(**constraint: Any) -> Question:
    return Question(constraints={"cap": {"metrics": ["arc/acc"], **constraint}})


def test_the_score_keeps_the_terms_of_its_rule() -> None:
    found = Question().terms(RULE, ("arc/acc",), "maximize")
    assert found == RULE
    assert found["one"] is not RULE["one"]


def test_patterns_become_terms_that_weigh_as_often_as_they_match() -> None:
    question = Question(objective=Objective(metrics=("*/acc", "arc/*")))
    keys = ("arc/acc", "wiki/bpb", "sciq/acc", "arc/bpb")
    assert question.terms(RULE, keys, "minimize") == {
        "arc/acc": {"metrics": "arc/acc", "direction": "minimize", "weight": 2.0},
        "sciq/acc": {"metrics": "sciq/acc", "direction": "minimize", "weight": 1.0},
        "arc/bpb": {"metrics": "arc/bpb", "direction": "minimize", "weight": 1.0},
    }


@pytest.mark.parametrize(
    ("constraint", "value", "expected"),
    [
        ({"bound": 0.5}, 0.5, None),
        ({"bound": 0.5}, 0.6, "breaks cap: 0.6, allowed 0.5"),
        ({"bound": 0.5, "direction": "minimize"}, 0.6, "breaks cap: 0.6, allowed 0.5"),
        ({"bound": 0.5, "direction": "maximize"}, 0.5, None),
        ({"bound": 0.5, "direction": "maximize"}, 0.4, "breaks cap: 0.4, allowed 0.5"),
        ({"bound": 0.5, "direction": "maximize"}, 0.6, None),
        # A margin is counted from the baseline, 0.25, towards the worse side.
        ({"margin": 0.5}, 0.75, None),
        ({"margin": 0.5}, 1.0, "breaks cap: 1, allowed 0.75"),
        ({"margin": 0.5, "direction": "maximize"}, -0.25, None),
        ({"margin": 0.5, "direction": "maximize"}, -0.5, "breaks cap: -0.5, allowed -0.25"),
        ({"margin": 0.0, "bound": 9.0}, 0.5, "breaks cap: 0.5, allowed 0.25"),
        ({}, 99.0, None),
    ],
)
def test_a_candidate_beyond_a_bound_or_a_margin_breaks_it(
    constraint: Mapping[str, Any], value: float, expected: str | None
) -> None:
    results = {"base": [result(arc_acc=0.25)], "mix": [result(arc_acc=value)]}
    found = broken(limited(**constraint), results, "base")
    assert found == ({} if expected is None else {"mix": expected})


def test_the_mean_over_the_runs_counts_and_the_first_constraint_is_named() -> None:
    question = Question(
        constraints={
            "first": {"metrics": ["arc/acc"], "bound": 0.5},
            "second": {"metrics": ["wiki/bpb", "sciq/bpb"], "bound": 2.0},
        }
    )
    results = {
        "both": [result(arc_acc=0.4, wiki_bpb=9.0), result(arc_acc=0.8, wiki_bpb=9.0)],
        "neither": [result(arc_acc=0.1, wiki_bpb=1.0), result(arc_acc=0.9, wiki_bpb=2.0)],
        "last": [result(arc_acc=0.1, wiki_bpb=2.0, sciq_bpb=3.0)],
    }
    assert broken(question, results, None) == {
        "both": "breaks first: 0.6, allowed 0.5",
        "last": "breaks second: 2.5, allowed 2",
    }


def test_a_mean_over_fewer_runs_than_a_candidate_has_breaks_nothing() -> None:
    results = {
        "whole": [result(arc_acc=0.9)],
        "part": [result(arc_acc=0.9), result(wiki_bpb=1.0)],
        "none": [result(wiki_bpb=1.0)],
        "empty": [],
    }
    assert list(broken(limited(bound=0.5), results, None)) == ["whole"]


@pytest.mark.parametrize("baseline", [None, "gone", "base"])
def test_a_margin_to_a_baseline_that_was_not_measured_counts_as_met(baseline: str | None) -> None:
    results = {"base": [result(wiki_bpb=1.0)], "mix": [result(arc_acc=99.0)]}
    assert broken(limited(margin=0.1), results, baseline) == {}


def test_the_baseline_itself_breaks_no_bound() -> None:
    results = {"base": [result(arc_acc=9.0)], "mix": [result(arc_acc=9.0)]}
    assert list(broken(limited(bound=1.0), results, "base")) == ["mix"]
    assert list(broken(limited(bound=1.0), results, None)) == ["base", "mix"]


def test_a_folder_of_plain_runs_is_compared_by_its_score(tmp_path: Path) -> None:
    found = question_of(tmp_path)
    assert found == Question()
    assert (found.baseline, found.objective.metrics, found.text) == (None, ("score",), "")
    assert found.value({"score": 2}) == 2.0


def test_a_study_states_its_question_itself(tmp_path: Path) -> None:
    definition: dict[str, Any] = {
        "study": "web",
        "question": "Which share?",
        "space": None,
        "strategy": {"baseline": "natural"},
        "objectives": {
            "first": {"metrics": ["arc/acc"], "direction": "maximize"},
            "second": {"metrics": ["wiki/bpb"], "direction": "minimize"},
        },
        "constraints": {"cap": {"metrics": ["arc/acc"], "bound": 0.5}},
        "seeds": [],
        "config": {},
        "arguments": [],
    }
    write_json(tmp_path / "study.json", definition)
    found = question_of(tmp_path)
    assert (found.baseline, found.text) == ("natural", "Which share?")
    assert found.objective == Objective(name="first", metrics=("arc/acc",), direction="maximize")
    assert found.constraints == definition["constraints"]
    assert question_of(tmp_path, "second").objective.metrics == ("wiki/bpb",)
    assert found.value({"score": 9.0, "metrics": {"arc/acc": 0.25}}) == 0.25


def test_plain_runs_have_no_other_objective(tmp_path: Path) -> None:
    assert question_of(tmp_path, "score") == Question()
    with pytest.raises(ConfigError, match="objective"):
        question_of(tmp_path, "other")
