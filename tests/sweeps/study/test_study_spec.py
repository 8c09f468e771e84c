"""Allowed values of a search config, and the errors for others."""

from __future__ import annotations

from typing import Any

import pytest

from ablations.config.schema import validate
from ablations.data.rows.chat_template import CHAT_PICTURE_FIELDS
from ablations.data.rows.row_specs import PICTURE_FIELDS
from ablations.errors import ConfigError
from sweeps.study.budget import affordable_trials
from sweeps.study.definition import shared_config
from sweeps.study.specs import BudgetSpec, ConfirmSpec, SearchSpec
from sweeps.study.study_cost import estimate_cost
from sweeps.study.sweep import read_request
from tests.sweeps.study import builders


@pytest.mark.parametrize(
    ("search", "where"),
    [
        ({"max_failures": -1}, "search.max_failures"),
        ({"attempts": 0}, "search.attempts"),
        ({"workers": 0}, "search.workers"),
        ({"objectives": {}}, "search.objectives"),
        ({"seeds": [0, 0]}, "search.seeds"),
        ({"confirm": {"seeds": [0, -1]}}, "search.confirm.seeds"),
        ({"confirm": {"finalists": -1}}, "search.confirm.finalists"),
        ({"strategy": {"design_trials": -1}}, "search.strategy.design_trials"),
        ({"budget": {"tokens": 0}}, "search.budget.tokens"),
        ({"budget": {"confirm_share": 1.0}}, "search.budget.confirm_share"),
        ({"strategy": {"batch": 0}}, "search.strategy.batch"),
        ({"strategy": {"baseline": "mine"}}, "search.strategy.baseline"),
        ({"strategy": {"mixtures": {"uniform": {"a": 1.0}}}}, "search.strategy.mixtures"),
        ({"strategy": {"proposer": "oracle"}}, "strategy.proposer"),
        ({"constraints": {"code": {"metrics": ["code/bpb"]}}}, "search.constraints"),
        (
            {"space": {"mixtures": {"mixture.weights": {"sources": ["a", "b"]}}}},
            "search.budget",
        ),
        ({"budgets": {}}, "budgets"),
    ],
)
def test_refuses_by_name(search: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(SearchSpec, search)
    assert any(where in problem.where for problem in raised.value.problems)


def test_an_objective_without_a_direction_takes_the_run_s() -> None:
    base = {"evaluation": {"score": {"direction": "maximize"}}}
    assert read_request(base, []).spec.objectives["score"].direction == "maximize"


@pytest.mark.parametrize(
    "objectives",
    [{"score": {}}, {"english": {"metrics": ["web/bpb"]}}],
)
def test_an_objective_without_any_direction_is_refused(objectives: dict[str, Any]) -> None:
    rule = {"score": {"direction": "maximize"}} if "english" in objectives else {}
    base = {"evaluation": rule, "search": {"objectives": objectives}}
    with pytest.raises(ConfigError, match="no direction is given"):
        read_request(base, [])


def test_a_null_objective_is_taken_back() -> None:
    named = {"score": None, "english": {"metrics": ["web/bpb"], "direction": "minimize"}}
    assert list(read_request({"search": {"objectives": named}}, []).spec.objectives) == ["english"]


def test_a_swept_value_with_a_search_is_refused() -> None:
    search = {
        "space": {"mixtures": {"mixture.weights": {"sources": ["a", "b"]}}},
        "budget": {"trials": 3},
        "objectives": {"score": {"direction": "minimize"}},
    }
    with pytest.raises(ConfigError, match="swept value with a search"):
        read_request({"search": search}, ["peak_lr=1,2"])


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("training.peak_lrr", "unknown key 'peak_lrr'; allowed: batch_size, peak_lr; did you mean"),
        ("trainin.peak_lr", "not in the run's config"),
        ("training.peak_lr.low", "not in the run's config"),
    ],
)
def test_a_searched_path_that_the_run_lacks_is_refused(path: str, problem: str) -> None:
    search = {
        "space": {"parameters": {path: {"kind": "log", "low": 1e-4, "high": 1e-2}}},
        "budget": {"trials": 3},
        "objectives": {"score": {"direction": "minimize"}},
    }
    base = {"search": search, "training": {"peak_lr": 1e-3, "batch_size": 8}}
    with pytest.raises(ConfigError, match=f"search.space.parameters.{path}: {problem}"):
        read_request(base, [])


def test_an_experiment_that_launches_its_runs_takes_no_multirun() -> None:
    base = {"study": "arms", "program": {"module": "sweeps.programs.annealing"}, "search": {}}
    base["evaluation"] = {"score": {"direction": "minimize"}}
    with pytest.raises(ConfigError, match="without --multirun"):
        read_request(base, [])


def test_the_cost_confirms_no_more_than_the_budget_allows() -> None:
    search = builders.spec(
        budget=BudgetSpec(tokens=1000.0), confirm=ConfirmSpec(finalists=3, pick=False)
    )
    price = {"tokens": 100.0}
    affordable = affordable_trials(search.budget, price, 1)
    cost = estimate_cost(search, builders.strategy(search), price, affordable)
    assert cost.total_runs == 10
    assert cost.runs["confirmation, at most"] == 3


@pytest.mark.parametrize(
    ("section", "added", "used"),
    [("training", "float8", True), ("evaluation", "guards", ["wiki"])],
)
def test_an_option_that_came_later_changes_a_study_only_where_it_is_used(
    section: str, added: str, used: Any
) -> None:
    before = {"training": {"peak_lr": 1e-3}, "evaluation": {"heldout": True}}
    unused = {**before, section: {**before[section], added: type(used)()}}
    asked = {**before, section: {**before[section], added: used}}
    assert shared_config(unused, ()) == shared_config(before, ())
    assert shared_config(asked, ())[section][added] == used


def test_pictures_that_came_later_change_a_study_only_where_there_are_any() -> None:
    chat: dict[str, Any] = {"template": "t"}
    rows: dict[str, Any] = {"kind": "conversations", "max_tokens": 8}
    before = {"tokenizer": {"name": "x", "chat": chat}, "source": {"a": {"rows": rows}}}
    later = {
        "tokenizer": {"name": "x", "chat": {**chat, **dict.fromkeys(CHAT_PICTURE_FIELDS)}},
        "source": {"a": {"rows": {**rows, **dict.fromkeys(PICTURE_FIELDS)}}},
    }
    assert shared_config(later, ()) == shared_config(before, ())
    shown = {
        "tokenizer": {"name": "x", "chat": {**chat, "picture": "<image>"}},
        "source": {"a": {"rows": {**rows, "kind": "pictures", "picture_size": 64}}},
    }
    assert shared_config(shown, ()) == shown
    plain = {"tokenizer": {"name": "x", "chat": None}, "source": {"a": {"rows": None}}}
    assert shared_config(plain, ()) == plain
