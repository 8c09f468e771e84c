"""Check the sentences of a verdict word for word: its outcome, its answer in weights, its caveats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sweeps.verdict import messages
from sweeps.verdict.answer import Tested as Searched
from sweeps.verdict.answer import all_tested, answer, mixture, named
from sweeps.verdict.contrasts import Estimate, Evidence
from sweeps.verdict.decide import decide
from sweeps.verdict.power import PowerEstimate
from sweeps.verdict.training_noise import NoiseSource, TrainingNoise
from sweeps.verdict.verdict_record import PictureRow, Verdict
from tests.sweeps.verdict.in_memory import observations

AHEAD = Estimate(
    value=0.25, standard_error=0.1, df=5.0, low=0.02, high=0.48, p=0.03, p_corrected=0.04
)
NUMBERS = "95% interval 0.02 to 0.48, corrected p = 0.04"


@pytest.fixture(scope="module")
def tie() -> Verdict:
    """A tie of three candidates with a baseline: a is picked, today the reference."""
    made = decide(
        observations(
            {"today": [1.0, 2.0], "a": [1.5, 2.1], "b": [1.2, 1.1]},
            weights={
                "today": {"edu": 0.7, "web": 0.3},
                "a": {"edu": 0.6, "web": 0.4},
                "b": {"edu": 0.1, "web": 0.9},
            },
            first_baseline="today",
        )
    )
    assert (made.outcome, made.pick, made.reference) == ("tie", "a", "today")
    return replace(made, advantage=AHEAD, tie_kind="undecided", disagreements=())


def mixed(verdict: Verdict, **weights: Mapping[str, float]) -> Verdict:
    """The same verdict on other mixtures, all of which may be best."""
    rows = (
        replace(row, weights=weights.get(row.name, {}), finalist=True) for row in verdict.candidates
    )
    return replace(verdict, candidates=tuple(rows))


PICK, TODAY = "edu 60%, web 40% (a)", "edu 70%, web 30% (today)"
LEAD = f"{PICK} is 0.25 ahead of {TODAY}"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, f"Tie: {LEAD}, which noise alone can explain ({NUMBERS})."),
        (
            {"tie_kind": "equivalent", "margin": 0.5},
            f"Tie: {LEAD}, within the margin of 0.5: equivalent ({NUMBERS}).",
        ),
        ({"outcome": "winner"}, f"Winner: {PICK} beats {TODAY} by 0.25 ({NUMBERS})."),
        (
            {"outcome": "winner", "baseline": None},
            f"Winner: {PICK} beats every other candidate, the next by 0.25 ({NUMBERS}).",
        ),
        (
            {"outcome": "keep-baseline"},
            f"Keep {TODAY}: no candidate is better; {LEAD} ({NUMBERS}).",
        ),
        (
            {"advantage": replace(AHEAD, value=-0.25, standard_error=math.inf)},
            f"Tie: {PICK} is 0.25 behind {TODAY}, but the study does not show how large the training noise "
            "is.",
        ),
        (
            {"advantage": replace(AHEAD, value=0.0), "alpha": 0.1},
            f"Tie: {PICK} is 0 ahead of {TODAY}, which noise alone can explain "
            "(90% interval 0.02 to 0.48, corrected p = 0.04).",
        ),
        (
            {"disagreements": ("Note: one.", "Note: two.")},
            f"Tie: {LEAD}, which noise alone can explain ({NUMBERS}). Note: one. Note: two.",
        ),
    ],
)
def test_the_outcome_is_one_sentence(tie: Verdict, changes: Mapping[str, Any], text: str) -> None:
    assert messages.sentence(replace(tie, **changes)) == text


@pytest.mark.parametrize(
    ("effects", "end"),
    [
        ({"x": "gains", "y": "pays"}, "; better on x, worse on y."),
        ({"x": "pays", "y": "gains", "z": "pays"}, "; better on y, worse on x, z."),
        ({"x": "gains", "y": "not shown"}, ")."),
        ({"x": "unknown", "y": "pays"}, ")."),
    ],
)
def test_tasks_are_named_if_some_are_better_and_some_are_worse(
    tie: Verdict, effects: Mapping[str, Any], end: str
) -> None:
    rows = tuple(
        replace(tie.tasks[0], task=task, effect=effect) for task, effect in effects.items()
    )
    assert messages.sentence(replace(tie, tasks=rows)).endswith(end)


def picture(task: str, **given: Any) -> PictureRow:
    settings: dict[str, Any] = {
        "candidate": "a",
        "gain": 0.1,
        "gain_low": -0.2,
        "shuffled_gain": 0.3,
        "shuffled_gain_low": None,
        "runs": 2,
        "noise": "items",
        "used": False,
        "in_score": True,
    }
    return PictureRow(task=task, **{**settings, **given})


def test_a_pick_that_does_not_look_is_named_with_its_gains(tie: Verdict) -> None:
    (row,) = tie.tasks
    tasks = tuple(
        replace(row, task=task, metric=metric, in_score=counts)
        for task, metric, counts in (
            ("vqa", "acc", True),
            ("vqa", "bpb", True),
            ("vqa", "gain", False),
            ("text", "bpb", True),
        )
    )
    blind = replace(tie, tasks=tasks, pictures=(picture("vqa"), picture("other", in_score=False)))
    gains = "gain in bits per byte 0.1, at least -0.2; over another picture 0.3"
    assert messages.gains(picture("vqa")) == gains
    why = (
        "winner is named, because pictures do not move the answers of a beyond their noise on "
        f"vqa/acc+bpb ({gains})"
    )
    assert messages.sentence(blind) == f"Keep {TODAY}: no {why}; {LEAD} ({NUMBERS})."
    unknown = replace(blind, baseline=None, advantage=replace(AHEAD, standard_error=math.inf))
    assert messages.sentence(unknown) == f"No {why}; {LEAD}."


def test_what_to_do_about_pictures_follows_what_was_measured() -> None:
    seen, bare = picture("vqa"), picture("ocr", gain=None)
    assert messages.gains(bare).startswith("gain in bits per byte not measured; over")
    assert messages.train_longer([seen]).startswith("Train the vision part longer")
    assert messages.train_longer([seen, bare, picture("map", shuffled_gain=None)]).startswith(
        "Add gain and shuffled_gain to the metrics of ocr, map, and score"
    )
    (caveat,) = messages.picture_caveats([picture("x", noise="seeds and items"), seen])
    assert caveat.startswith("No seeds repeat")
    assert messages.picture_caveats([picture("x", noise="seeds and items")]) == []
    assert messages.picture_caveats([]) == []
    assert "above zero at one-sided 0.05, corrected" in messages.picture_rule(0.1)


@pytest.mark.parametrize(
    ("advantage", "value", "shown"),
    [
        (0.1, -0.2, "Note: the mean puts a 0.2 behind b instead."),
        (-0.1, 0.2, "Note: the mean puts a 0.2 ahead of b instead."),
        (0.1, 0.2, None),
        (-0.1, -0.2, None),
        (0.0, 0.2, None),
        (0.1, 0.0, None),
        (-0.1, 1e-12, None),
        (0.1, -1e-13, None),
        (-0.1, 2e-12, "Note: the mean puts a 2e-12 ahead of b instead."),
    ],
)
def test_a_view_of_another_sign_is_noted(advantage: float, value: float, shown: str | None) -> None:
    found = messages.disagreements("a", "b", advantage, {"the mean": value})
    assert found == (() if shown is None else (shown,))


def test_numbers_at_the_limit_of_rounding_and_infinity() -> None:
    assert messages.number(1e-12) == "1e-12"
    assert messages.number(-9e-13) == "0"
    assert messages.number(-math.inf) == "–"
    assert messages.number(1.23456) == "1.23"
    assert messages.number(1.23456, 5) == "1.2346"


def test_of_many_names_four_are_listed() -> None:
    assert messages.without_noise(list("abcd")).startswith(
        "No noise is declared for a, b, c, d, so"
    )
    assert messages.without_noise(list("abcdef")).startswith(
        "No noise is declared for a, b, c, d and 2 more, so"
    )


def estimate(**given: Any) -> PowerEstimate:
    settings: dict[str, Any] = {
        "effect": 0.25,
        "power": 0.8,
        "seeds_now": 3,
        "seeds_needed": 7,
        "items_factor": None,
        "items_known": False,
        "detectable_effect": None,
    }
    return PowerEstimate(**{**settings, **given})


SEEDS = "A true difference of 0.25 would show with 7 fresh seeds each of a and b (80% power)"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, f"{SEEDS}."),
        (
            {"seeds_needed": None},
            "A true difference of 0.25 between a and b would take more than 200 seeds.",
        ),
        ({"items_factor": 1.5}, f"{SEEDS}, or with 1.5 times the items."),
        ({"items_factor": 1.0, "items_known": True}, f"{SEEDS}."),
        ({"items_factor": 0.7}, f"{SEEDS}."),
        ({"items_factor": 3.0, "items_known": True}, f"{SEEDS}, or with 3.0 times the items."),
        ({"items_known": True}, f"{SEEDS}; more items alone would not help."),
        ({"detectable_effect": 0.5}, f"{SEEDS}; the current runs can detect 0.5 or more."),
    ],
)
def test_what_would_settle_a_tie(given: Mapping[str, Any], text: str) -> None:
    assert messages.settle_text("tie", [estimate(**given)], "a", "b") == text
    assert messages.settle_text("winner", [estimate(**given)], "a", "b") == ""
    both = messages.settle_text("tie", [estimate(**given), estimate()], "a", "b")
    assert both == f"{text} {SEEDS}."


def test_without_noise_seeds_or_checkpoints_are_asked_for() -> None:
    for outcome in ("tie", "winner"):
        text = messages.settle_text(outcome, [], "a", "b")
        assert text.startswith("Two seeds of any two candidates")


def test_the_rule_is_told_with_its_error_rate() -> None:
    plain = messages.rule(0.1, 0.0, "today")
    assert plain.startswith("Winner where the two-sided p over today, corrected")
    assert "is at most 0.1. If all candidates are equally good, about 5.0% of" in plain
    assert "at most 5.0% wrongly keep today." in plain
    assert "Equivalent" not in plain
    without = messages.rule(0.1, 0.25, None)
    assert "beats all others at one-sided 0.05, corrected" in without
    assert "at most 10% of studies name a winner. Equivalent where" in without
    assert without.endswith("within 0.25. Anything else is a tie.")


@pytest.mark.parametrize(
    ("source", "df", "start"),
    [
        ("none", 0.0, "No seeds, late checkpoints or declared noise"),
        ("checkpoints", 9.0, "One seed per candidate: the noise is that of late checkpoints"),
        ("published", 2.0, "One seed per candidate: the noise is declared"),
        ("seeds", 3.0, "Few replicates: the noise is known with 3 degrees of freedom"),
        ("seeds", 1.0, "Few replicates: the noise is known with 1 degrees of freedom"),
        ("seeds", 4.0, None),
        ("seeds", 5.0, None),
    ],
)
def test_the_noise_s_caveat_follows_its_source(
    source: NoiseSource, df: float, start: str | None
) -> None:
    noise = TrainingNoise(variance=1.0, df=df, source=source, smooth=1.5)
    caveats = messages.noise_caveats(noise)
    assert [caveat[: len(start or "")] for caveat in caveats] == ([] if start is None else [start])
    assert ("(variance times 6: " in " ".join(caveats)) == (source == "checkpoints")


@pytest.mark.parametrize(
    ("count", "told", "shrunk"),
    [
        (1, False, False),
        (2, False, False),
        (3, True, False),
        (4, True, False),
        (5, True, True),
        (6, True, True),
    ],
)
def test_a_choice_by_the_same_scores_is_a_caveat(count: int, told: bool, shrunk: bool) -> None:
    made = Evidence(
        names=tuple(map(str, range(count))),
        means=np.zeros(count),
        unit=np.eye(count),
        noise=TrainingNoise.unknown(),
    )
    assert messages.selection_caveats(made, confirmed=True) == []
    text = " ".join(messages.selection_caveats(made, confirmed=False))
    assert ("too large by selection" in text) == told
    assert ("the chance of regret shrunk" in text) == shrunk


def test_the_answer_follows_the_outcome(tie: Verdict) -> None:
    two = mixed(
        tie, a={"edu": 0.6, "web": 0.4}, today={"edu": 0.7, "web": 0.3}, b={"edu": 0.8, "web": 0.2}
    )
    span = "Any edu share between 60% and 80% may be best;"
    assert answer(replace(two, outcome="winner")) == f"{span} use edu 60%, web 40%."
    assert answer(two) == f"{span} keep edu 70%, web 30%."
    assert answer(replace(two, baseline=None)) == (
        f"{span} the study does not show which of them to use."
    )
    rows = [replace(row, finalist=row.name == "a") for row in two.candidates]
    one = replace(two, candidates=tuple(rows), outcome="winner")
    assert answer(one) == "Use edu 60%, web 40%: no other mixture that was tested may be best."
    rows = [replace(row, finalist=row.name != "b") for row in two.candidates]
    pair = replace(two, candidates=tuple(rows), outcome="winner")
    assert answer(pair).startswith("Any edu share between 60% and 70% may be best; use")


def test_without_mixtures_that_differ_there_is_no_answer_in_weights(tie: Verdict) -> None:
    same = {"edu": 0.6, "web": 0.4}
    assert answer(mixed(tie, a=same, today=same, b=same)) == ""
    assert answer(mixed(tie)) == ""
    assert answer(mixed(tie, a=same, b={"edu": 1.0})) == ""  # the reference is no mixture
    assert answer(replace(mixed(tie, a=same, b={"edu": 1.0}), outcome="winner")) != ""
    assert named(tie, "a") == PICK
    assert named(tie, "else") == "else"
    assert named(mixed(tie, a=same, today=same, b=same), "a") == "a"
    assert named(mixed(tie, a=same, b={"edu": 1.0}), "today") == "today"


def test_shares_that_cannot_be_best_are_named_inside_the_range_only(tie: Verdict) -> None:
    two = mixed(tie, a={"edu": 0.2, "web": 0.8}, today={"edu": 0.6, "web": 0.4}, b={"web": 1.0})
    rows = [replace(row, finalist=row.name != "b") for row in two.candidates]
    verdict = replace(two, candidates=tuple(rows))
    outside = [(0.5, False), (0.3, False), (0.301, False), (0.4, True), (0.2, False), (0.6, False)]
    searched = [
        Searched(f"t{n}", {"edu": edu, "web": 1.0 - edu}, may)
        for n, (edu, may) in enumerate([*outside, (0.9, False)])
    ]
    assert answer(verdict, searched) == (
        "Any edu share between 20% and 60% (not 30%, 50%) may be best; keep edu 60%, web 40%."
    )
    wide = Searched("t8", {"edu": 0.9, "web": 0.1}, True)
    assert answer(verdict, [wide]).startswith("Any edu share between 20% and 90% may be best;")
    trials = [one.trial for one in all_tested(verdict, searched)]
    assert trials == [row.trial for row in verdict.candidates] + [one.trial for one in searched]
    assert [one.may_be_best for one in all_tested(verdict, ())] == [
        row.finalist for row in verdict.candidates
    ]


def test_one_share_is_told_where_the_range_has_no_width(tie: Verdict) -> None:
    near = mixed(
        tie,
        a={"edu": 0.601, "web": 0.399},
        today={"edu": 0.6, "web": 0.4},
        b={"edu": 0.602, "web": 0.398},
    )
    assert answer(near) == "A edu share of about 60% may be best; keep edu 60%, web 40%."


@pytest.mark.parametrize(("sources", "shown"), [(3, 3), (5, 5), (6, 4)])
def test_ranges_of_many_sources_are_those_of_the_largest(
    tie: Verdict, sources: int, shown: int
) -> None:
    base = {f"s{n}": 0.01 * (n + 1) for n in range(sources)}
    verdict = mixed(tie, today=base, a={name: 2.0 * w for name, w in base.items()}, b=base)
    text = answer(verdict)
    ranges = [f"s{n} {n + 1}% to {2 * n + 2}%" for n in range(sources)]
    listed = ranges if shown == sources else ranges[:1:-1][:4]
    more = "" if shown == sources else " and the ranges of 2 more sources"
    assert text.startswith(
        f"The best mixture may lie anywhere within {', '.join(listed)}{more}; keep"
    )


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"a": 0.2, "b": 0.8, "c": 0.0}, "b 80%, a 20%"),
        ({"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}, "d 40%, c 30%, b 20%, a 10%"),
        (
            {"a": 0.05, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.035, "f": 0.015},
            "d 40%, c 30%, b 20%, a 5%, 2 more 5%",
        ),
        ({"a": 0.006, "b": 0.994}, "b 99%, a 0.6%"),
        ({"a": 0.0004, "b": 0.01}, "b 1%, a 0.04%"),
    ],
)
def test_a_mixture_in_shares(weights: Mapping[str, float], text: str) -> None:
    assert mixture(weights) == text
    assert mixture({"a": 0.3, "b": 0.7}, most=1) == "b 70%, 1 more 30%"
