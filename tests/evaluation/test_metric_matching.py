"""Check what is said about patterns of metrics: how many it lists, and what it advises."""

from __future__ import annotations

import pytest

from ablations.evaluation.metric_matching import (
    metric_names,
    score_problems,
    unmatched,
    unseen,
)
from ablations.evaluation.specs import EvaluationSpec, ScoreRule, ScoreTerm, TaskSpec


def suite(tasks: int, *metrics: str, heldout: bool = False, **term: ScoreTerm) -> EvaluationSpec:
    made = {
        f"t{number:02}": TaskSpec(form="cloze", domain="d", items="x", metrics=metrics)
        for number in range(tasks)
    }
    score = ScoreRule(direction="maximize", terms=term) if term else None
    return EvaluationSpec(tasks=made, heldout=heldout, score=score)


@pytest.mark.parametrize(
    ("tasks", "allowed"),
    [
        (0, "none: the suite has no task"),
        (2, "t00/acc, t01/acc"),
        (12, ", ".join(f"t{n:02}/acc" for n in range(12))),
        (13, ", ".join(f"t{n:02}/acc" for n in range(12)) + ", … (13 in all)"),
    ],
)
def test_twelve_metrics_are_listed_and_the_rest_counted(tasks: int, allowed: str) -> None:
    spec = suite(tasks, "acc")
    problem = unmatched("here", "nothing/at_all", metric_names(spec, ()), spec)
    assert problem is not None
    assert (problem.where, problem.found, problem.allowed) == ("here", "nothing/at_all", allowed)
    assert problem.do == "name a metric of the suite"


@pytest.mark.parametrize("tasks", [2, 12, 14])
def test_twelve_metrics_without_chance_are_listed(tasks: int) -> None:
    spec = suite(tasks, "bpb", one=ScoreTerm(metrics="*/bpb", rescale=True))
    (problem,) = score_problems(spec, ())
    assert problem.where == "evaluation.score.terms.one.rescale"
    assert problem.found == ", ".join(f"t{n:02}/bpb" for n in range(min(tasks, 12)))


@pytest.mark.parametrize(
    ("pattern", "rescale", "wrong"),
    [
        ("*/acc", True, 0),
        ("*/bpb", False, 0),
        ("*/bpb", True, 1),
        ("t00/*", True, 1),
        ("none/acc", True, 1),
    ],
)
def test_bits_alone_cannot_be_rescaled(pattern: str, rescale: bool, wrong: int) -> None:
    spec = suite(2, "acc", "bpb", one=ScoreTerm(metrics=pattern, rescale=rescale))
    assert len(score_problems(spec, ())) == wrong


def test_a_suite_without_a_score_has_no_problem() -> None:
    assert score_problems(suite(2, "acc"), ("web",)) == []


def test_a_pattern_may_match_one_metric_of_many() -> None:
    spec = suite(3, "acc")
    assert unmatched("here", "t01/*", metric_names(spec, ()), spec) is None
    assert unmatched("here", "T01/*", metric_names(spec, ()), spec) is not None


NEVER = "set evaluation.heldout=true, or name a metric of the suite"


@pytest.mark.parametrize(
    ("pattern", "heldout", "do"),
    [
        ("heldout_web/bpb", False, NEVER),
        ("*/bpb", False, NEVER),
        ("t00/acd", False, "did you mean 't00/acc'?"),
        ("heldout_we/bpb", True, "did you mean 'heldout_web/bpb'?"),
        ("zzz/qqq", True, "name a metric of the suite"),
        ("zzz/qqq", False, "name a metric of the suite"),
    ],
)
def test_held_out_text_is_advised_where_it_is_not_scored(
    pattern: str, heldout: bool, do: str
) -> None:
    spec = suite(2, "acc", heldout=heldout)
    problem = unmatched("here", pattern, metric_names(spec, ("web",)), spec)
    assert problem is not None
    assert problem.do == do


def pictures(*metrics: str) -> EvaluationSpec:
    task = TaskSpec(form="picture", domain="d", source="s", metrics=metrics, max_new_tokens=4)
    text = TaskSpec(form="cloze", domain="d", items="x", metrics=("bpb",))
    return EvaluationSpec(tasks={"shown": task, "text": text}, heldout=False)


@pytest.mark.parametrize(
    ("pattern", "metrics", "whats"),
    [
        ("*/bpb", ("bpb",), ["without gain and shuffled_gain, which show"]),
        ("*/bpb", ("bpb", "gain"), ["without shuffled_gain, which show"]),
        ("*/bpb", ("bpb", "gain", "shuffled_gain"), []),
        ("text/bpb", ("bpb",), []),
        ("shown/acc", ("bpb",), []),
        (
            "shown/*",
            ("bpb", "bpb_without"),
            ["without gain and shuffled_gain", "which no picture moves"],
        ),
        ("shown/*", ("gain", "shuffled_gain", "exact_match"), []),
        (
            "shown/bpb_without",
            ("bpb_without", "gain", "shuffled_gain"),
            ["which no picture moves"],
        ),
    ],
)
def test_a_pattern_that_judges_pictures_shows_that_they_are_used(
    pattern: str, metrics: tuple[str, ...], whats: list[str]
) -> None:
    problems = list(unseen("here", pattern, pictures(*metrics), ()))
    assert len(problems) == len(whats)
    for problem, what in zip(problems, whats, strict=True):
        assert what in problem.what
        assert problem.where == "here"
        assert problem.found == ("shown/bpb_without" if "moves" in what else pattern)
