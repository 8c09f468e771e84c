"""Compare scores, their forms and their formulas with numbers counted by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ablations.evaluation.results import MetricScore, TaskScores
from ablations.evaluation.score_rule import (
    LinearForm,
    MetricFacts,
    apply_rule,
    facts_of_names,
    formula,
    linear_form,
    removable,
)
from ablations.evaluation.specs import ScoreRule, ScoreTerm

FACTS = {
    "arc/acc": MetricFacts(True, 0.2),
    "quiz/acc": MetricFacts(True, 0.5),
    "wiki/bpb": MetricFacts(False),
}
TERMS: dict[str, dict[str, Any]] = {
    "quizzes": {"metrics": "*/acc", "weight": 3.0, "rescale": True},
    "text": {"metrics": "*/bpb"},
}


def test_a_form_is_the_weighted_mean_of_rescaled_metrics() -> None:
    form = linear_form(TERMS, "maximize", FACTS)
    # Of 4 parts the accuracies have 1.5 each, over what is left above chance; the bits have -1.
    assert form.weights == pytest.approx(
        {"arc/acc": 1.5 / 0.8 / 4, "quiz/acc": 1.5 / 0.5 / 4, "wiki/bpb": -0.25}
    )
    assert form.constant == pytest.approx(-(1.5 / 0.8 * 0.2 + 1.5 / 0.5 * 0.5) / 4)
    values = {"arc/acc": 0.6, "quiz/acc": 0.75, "wiki/bpb": 0.8}
    assert form.value(values) == pytest.approx((1.5 * 0.5 + 1.5 * 0.5 - 0.8) / 4)


def test_a_form_to_minimise_has_the_other_signs() -> None:
    up, down = (linear_form(TERMS, direction, FACTS) for direction in ("maximize", "minimize"))
    assert down.weights == pytest.approx({name: -weight for name, weight in up.weights.items()})
    assert down.constant == pytest.approx(-up.constant)
    assert up.constant < 0 < down.constant


def test_a_metric_of_two_terms_counts_in_both() -> None:
    terms: dict[str, dict[str, Any]] = {
        "all": {"metrics": "*/acc"},
        "arc": {"metrics": "arc/acc", "weight": 2.0},
    }
    form = linear_form(terms, "maximize", FACTS)
    assert form.weights == pytest.approx({"arc/acc": 2.5 / 3, "quiz/acc": 0.5 / 3})
    assert form.constant == 0.0


def test_a_term_that_matches_nothing_has_no_part_in_the_mean() -> None:
    more: dict[str, dict[str, Any]] = {
        **TERMS,
        "none": {"metrics": "none/*", "weight": 9.0},
    }
    assert linear_form(more, "maximize", FACTS) == linear_form(TERMS, "maximize", FACTS)


def test_what_is_left_out_leaves_its_weight_to_the_rest_of_its_term() -> None:
    form = linear_form(TERMS, "maximize", FACTS, without=("arc/acc",))
    assert form.weights == pytest.approx({"quiz/acc": 3.0 / 0.5 / 4, "wiki/bpb": -0.25})
    bare = linear_form(TERMS, "maximize", FACTS, without=tuple(FACTS))
    assert bare == LinearForm(weights={})
    assert bare.value({}) is None


@pytest.mark.parametrize(
    ("values", "score"),
    [
        ({"a": 1.0, "b": 0.25}, 0.5 + 2.0 - 1.0),
        ({"a": 0.0, "b": 0.0, "other": math.nan}, 0.5),
        ({"a": 1.0}, None),
        ({"a": 1.0, "b": None}, None),
        ({"a": math.inf, "b": 1.0}, None),
        ({"a": math.nan, "b": 1.0}, None),
    ],
)
def test_a_form_has_a_value_of_all_its_metrics_or_none(
    values: dict[str, float | None], score: float | None
) -> None:
    assert LinearForm(weights={"a": 2.0, "b": -4.0}, constant=0.5).value(values) == score


def scored(**values: float | None) -> dict[str, TaskScores]:
    return {
        name: TaskScores(metrics={"acc": MetricScore(value=value, chance=chance)})
        for (name, value), chance in zip(values.items(), (0.5, None), strict=False)
    }


@pytest.mark.parametrize(
    ("rescale", "values", "reason"),
    [
        (True, {"a": 0.5, "b": 0.5}, "t: b/acc has no chance level to rescale by"),
        (True, {"a": 0.5, "b": None}, "t: b/acc is missing"),
        (False, {"a": None, "b": None}, "t: a/acc, b/acc is missing"),
        (False, {}, "t: no metric matches '*/acc'; u: no metric matches 'a/acc'"),
        (False, {"a": None}, "t: a/acc is missing; u: a/acc is missing"),
    ],
)
def test_a_missing_score_names_every_term_that_has_none(
    rescale: bool, values: dict[str, float | None], reason: str
) -> None:
    terms = {"t": ScoreTerm(metrics="*/acc", rescale=rescale)}
    if len(values) < 2:
        terms["u"] = ScoreTerm(metrics="a/acc")
    elif values["a"] is None:
        terms = {"t": terms["t"]}
    score = apply_rule(ScoreRule(direction="maximize", terms=terms), scored(**values))
    assert (score.value, score.reason) == (None, reason)


def test_a_metric_without_chance_counts_as_it_is() -> None:
    rule = ScoreRule(direction="maximize", terms={"t": ScoreTerm(metrics="*/acc")})
    score = apply_rule(rule, scored(a=0.5, b=0.75))
    assert (score.value, score.reason) == (0.625, None)


def test_the_direction_of_a_metric_is_told_by_its_name() -> None:
    names = ("a/bpb", "a/acc", "b/dpo_loss", "a/b/bpb", "bpb/acc", "a/other")
    facts = facts_of_names(names)
    assert [facts[name].higher_is_better for name in names] == [
        *(False, True, False),
        *(False, True, True),
    ]
    assert {fact.chance for fact in facts.values()} == {None}


def test_metrics_of_patterns_may_be_left_out_but_never_those_named_or_held_out() -> None:
    terms = {
        "all": {"metrics": "*/acc"},
        "one": {"metrics": "arc/acc"},
        "some": {"metrics": "wik?/bpb"},
        "set": {"metrics": "[xy]/f1"},
    }
    names = ["quiz/acc", "arc/acc", "heldout_web/acc", "wiki/bpb", "wikis/bpb", "x/f1", "z/f1"]
    assert removable(terms, names) == ["quiz/acc", "wiki/bpb", "x/f1"]


@pytest.mark.parametrize(
    ("terms", "without", "text"),
    [
        ({}, (), "the score of the runs"),
        ({"a": {"metrics": "a/b"}}, (), "a/b"),
        ({"a": {"metrics": "a/b", "weight": 2.0}}, ("y", "x"), "a/b, without x, y"),
        ({"a": {"metrics": "a/b", "rescale": True}}, (), "a/b above chance"),
        (
            {"a": {"metrics": "a/b"}, "c": {"metrics": "c/d"}},
            (),
            "(a/b + c/d) / 2",
        ),
        (
            {
                "a": {"metrics": "a/b", "weight": 2.5, "rescale": True},
                "c": {"metrics": "c/d", "weight": 1.0},
            },
            ("e",),
            "(2.5 × a/b above chance + c/d) / 3.5, without e",
        ),
    ],
)
def test_a_rule_is_told_as_a_formula(
    terms: dict[str, dict[str, Any]], without: tuple[str, ...], text: str
) -> None:
    assert formula(terms, without) == text
