"""The score: a weighted mean that is missing as soon as one of its metrics is."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.evaluation.results import MetricScore, TaskScores
from ablations.evaluation.score_rule import apply_rule
from ablations.evaluation.specs import Direction, ScoreRule, ScoreTerm

unit = st.floats(0.0, 1.0, allow_nan=False)
weight = st.floats(0.01, 100.0, allow_nan=False)


def tasks(**values: float | None) -> dict[str, TaskScores]:
    """``name=value`` is an accuracy with chance 0.25, ``name_bpb=value`` bits per byte."""
    made = {}
    for name, value in values.items():
        bits = name.endswith("_bpb")
        metric = MetricScore(value=value, higher_is_better=not bits, chance=None if bits else 0.25)
        made[name] = TaskScores(metrics={"bpb" if bits else "acc": metric})
    return made


def rule(direction: Direction = "maximize", **terms: Any) -> ScoreRule:
    made = {name: ScoreTerm(**term) for name, term in terms.items()}
    return ScoreRule(direction=direction, terms=made)


@given(st.lists(st.tuples(unit, weight), min_size=1, max_size=6))
def test_a_score_lies_between_its_terms_and_ignores_the_scale_of_weights(
    parts: list[tuple[float, float]],
) -> None:
    scored = tasks(**{f"t{i}": value for i, (value, _) in enumerate(parts)})
    terms = {f"t{i}": {"metrics": f"t{i}/acc", "weight": w} for i, (_, w) in enumerate(parts)}
    heavier = {name: {**term, "weight": 7 * term["weight"]} for name, term in terms.items()}  # type: ignore[operator]
    score = apply_rule(rule(**terms), scored).value
    again = apply_rule(rule(**heavier), scored).value
    values = [value for value, _ in parts]
    assert score is not None
    assert again is not None
    assert min(values) - 1e-12 <= score <= max(values) + 1e-12
    assert math.isclose(score, again, rel_tol=1e-12, abs_tol=1e-12)


@given(unit, unit)
def test_a_better_metric_makes_a_better_score(value: float, gain: float) -> None:
    better = value + (1.0 - value) * gain
    for direction, sign in (("maximize", 1.0), ("minimize", -1.0)):
        term = {"metrics": "a/acc", "rescale": True}
        low = apply_rule(rule(direction, t=term), tasks(a=value)).value  # type: ignore[arg-type]
        high = apply_rule(rule(direction, t=term), tasks(a=better)).value  # type: ignore[arg-type]
        assert low is not None
        assert high is not None
        assert sign * high >= sign * low


def test_chance_becomes_zero_and_certainty_one() -> None:
    term = {"metrics": "a/acc", "rescale": True}
    assert apply_rule(rule(t=term), tasks(a=0.25)).value == 0.0
    assert apply_rule(rule(t=term), tasks(a=1.0)).value == 1.0


def test_a_term_is_the_mean_of_what_its_pattern_matches() -> None:
    scored = tasks(arc_easy=0.6, arc_challenge=0.2, piqa=0.8)
    terms = {"arc": {"metrics": "arc_*/acc"}, "piqa": {"metrics": "piqa/acc"}}
    assert apply_rule(rule(**terms), scored).value == pytest.approx(0.6)


def test_a_metric_that_improves_the_other_way_counts_negatively() -> None:
    scored = tasks(a=0.5, t_bpb=2.0)
    terms = {"a": {"metrics": "a/acc"}, "b": {"metrics": "t_bpb/bpb"}}
    assert apply_rule(rule("maximize", **terms), scored).value == pytest.approx(-0.75)
    assert apply_rule(rule("minimize", **terms), scored).value == pytest.approx(0.75)


def test_a_stated_direction_overrules_the_metrics_own() -> None:
    term = {"metrics": "t_bpb/bpb", "direction": "maximize"}
    assert apply_rule(rule("maximize", t=term), tasks(t_bpb=2.0)).value == 2.0


@pytest.mark.parametrize(
    ("term", "scored", "message"),
    [
        ({"metrics": "b/acc"}, {"a": 0.5}, "no metric matches 'b/acc'"),
        ({"metrics": "*/acc"}, {"a": 0.5, "b": None}, "b/acc is missing"),
        ({"metrics": "*/bpb", "rescale": True}, {"a_bpb": 1.0}, "no chance level"),
    ],
)
def test_a_score_without_all_its_metrics_is_missing_with_the_reason(
    term: dict[str, Any], scored: dict[str, float | None], message: str
) -> None:
    score = apply_rule(rule(t=term, fine={"metrics": "a*/*"}), tasks(**scored))
    assert score.value is None
    assert score.reason is not None
    assert message in score.reason
    assert score.reason.startswith("t: ")
