"""Check each step of a decision on observations in memory: runs that count, rows, noise, what settles it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ablations.errors import ConfigError, UserError
from sweeps.verdict import decide as deciding
from sweeps.verdict.analysis_inputs import prepare_inputs
from sweeps.verdict.contrasts import Selection
from sweeps.verdict.decide import VerdictOptions, decide, selection
from sweeps.verdict.decision import Ruling
from sweeps.verdict.observations import Observations
from sweeps.verdict.power import detectable_effect
from tests.sweeps.verdict.in_memory import observations, task

NAN = math.nan
PLAIN = {"a": [1.0, 2.0], "b": [3.0, 3.5], "c": [2.0, 2.2]}


def test_baseline_and_pick_are_asked_for_by_name_or_trial() -> None:
    made = observations(PLAIN, first_baseline="a")

    def pair(**options: Any) -> tuple[str | None, str, str]:
        found = decide(made, VerdictOptions(**options))
        return found.baseline, found.pick, found.reference

    assert pair() == ("a", "b", "a")
    assert pair(baseline="c") == ("c", "b", "c")
    assert pair(baseline="trial-b") == ("b", "c", "b")
    assert pair(pick="trial-c") == ("a", "c", "a")
    assert pair(pick="c") == ("a", "c", "a")
    free = decide(observations(PLAIN))
    assert (free.baseline, free.pick, free.reference) == (None, "b", "c")
    with pytest.raises(ConfigError, match="pick: is the baseline itself; found: a"):
        pair(pick="trial-a")
    with pytest.raises(ConfigError, match=r"baseline.*did you mean 'trial-a'"):
        pair(baseline="trial-aa")


def test_two_candidates_are_enough_and_one_is_not() -> None:
    assert decide(observations({"a": [1.0, 2.0], "b": [3.0, 4.0]})).pick == "b"
    with pytest.raises(UserError, match="at least two candidates with scores; found: 1"):
        decide(observations({"a": [1.0, 2.0]}))


def test_a_verdict_tells_what_its_study_asked_and_what_was_left_out() -> None:
    found = decide(
        observations(
            PLAIN,
            objective="english",
            question="Which?",
            left_out={"x-0": "damaged"},
            caveats=("first",),
            score="formula",
        ),
        VerdictOptions(margin=0.01, alpha=0.1),
    )
    assert (found.objective, found.question, found.score) == ("english", "Which?", "formula")
    assert (found.study, found.alpha, found.margin) == ("web", 0.1, 0.01)
    assert found.left_out == {"x-0": "damaged"}
    assert found.caveats[0] == "first"
    assert found.equivalence_p is not None
    assert found.runs == ("a-0", "a-1", "b-0", "b-1", "c-0", "c-1")
    assert "pictures" not in found.rule
    assert found.pictures == ()
    assert decide(observations(PLAIN)).equivalence_p is None


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_candidates_are_listed_best_first_with_their_own_numbers(direction: str) -> None:
    made = observations(
        {"a": [1.0, 2.0, 1.5], "b": [8.0, 8.5], "c": [2.0, 2.2]},
        seeds={"a": [4, 0, 2]},
        direction=direction,
        rule={"all": {"metrics": "*", "weight": 1.0, "direction": direction}},
        weights={"b": {"edu": 1.0}},
    )
    found = decide(made, VerdictOptions(baseline="c"))
    names = [row.name for row in found.candidates]
    assert names == (["b", "c", "a"] if direction == "maximize" else ["a", "c", "b"])
    rows = {row.name: row for row in found.candidates}
    assert [rows[name].mean for name in "abc"] == pytest.approx([1.5, 8.25, 2.1])
    assert [rows[name].seeds for name in "abc"] == [(0, 2, 4), (0, 1), (0, 1)]
    assert rows["c"].advantage is None
    assert rows["b"].advantage is not None
    sign = 1.0 if direction == "maximize" else -1.0
    assert rows["b"].advantage.value == pytest.approx(sign * 6.15)
    assert (rows["b"].weights, rows["b"].trial) == ({"edu": 1.0}, "trial-b")
    assert {row.name for row in found.candidates if row.finalist} == set(found.finalists)
    assert ("b" in found.finalists) == (direction == "maximize")


def names_of(observed: Observations) -> list[str]:
    return [run.name for run in observed.runs]


@pytest.mark.parametrize(
    ("fresh", "baseline", "kept"),
    [
        ({}, "a", None),
        ({"a": [1]}, "a", None),
        ({"b": [1]}, "a", ["a-0", "a-1", "b-1"]),
        ({"a": [1], "b": [1], "c": [0, 1]}, "a", ["a-0", "a-1", "b-1", "c-0", "c-1"]),
        ({"b": [1]}, None, None),
        ({"b": [0, 1]}, None, None),
        ({"b": [1], "c": [0]}, None, ["b-1", "c-0"]),
        ({"a": [1], "b": [1], "c": [0]}, None, ["a-1", "b-1", "c-0"]),
    ],
)
def test_fresh_runs_count_alone_if_enough_candidates_have_some(
    fresh: Mapping[str, Sequence[int]], baseline: str | None, kept: list[str] | None
) -> None:
    made = observations(PLAIN, fresh=fresh)
    found, confirmed = deciding._fresh_runs(made, baseline)
    assert confirmed == (kept is not None)
    if kept is None:
        assert found is made
    else:
        assert names_of(found) == kept


SEARCHED = {"today": [1.0, 1.1], "a": [2.0, 2.1], "b": [1.5, 1.6, 1.4], "c": [0.2], "d": [0.4, 0.3]}


def test_a_choice_counts_the_runs_that_it_was_made_from() -> None:
    made = observations(SEARCHED, fresh={"today": [1], "a": [1], "b": [2]})
    counted, _ = deciding._fresh_runs(made, "today")
    # Without the baseline: a once, b twice, c once and d twice.
    found = selection(made, counted, "today")
    assert found == Selection(searched=4, seeds=1.5, unchosen=("today",))
    free, _ = deciding._fresh_runs(made, None)
    assert selection(made, free, None) == Selection(searched=5, seeds=7 / 5, unchosen=())
    assert selection(free, free, None) is None
    everyone = observations({"a": [1.0, 2.0], "b": [1.0, 3.0]}, fresh={"a": [1], "b": [1]})
    assert selection(everyone, everyone, None) is None


def test_a_confirmed_verdict_is_not_shrunk_and_rules_searched_mixtures_out_by_their_own_runs() -> (
    None
):
    scores = {
        "today": [1.0, 1.1, 1.05, 0.95],
        "a": [2.0, 2.1, 2.05, 1.95],
        "b": [1.5, 1.6, 1.55, 1.45],
        "c": [0.2, 0.3],
        "d": [2.06, 1.96],
        "e": [0.9, 1.0],
    }
    weights = {name: {"edu": 0.1 * n, "web": 1 - 0.1 * n} for n, name in enumerate(scores)}
    plain = decide(observations(scores, weights=weights, first_baseline="today"))
    assert not plain.confirmed
    assert plain.regret.shrunk_advantage != plain.advantage.value
    fresh = {name: [2, 3] for name in ("today", "a", "b")}
    made = observations(scores, weights=weights, fresh=fresh, first_baseline="today")
    found = decide(made)
    assert found.confirmed
    assert found.regret.shrunk_advantage == found.advantage.value
    assert {row.name for row in found.candidates} == {"today", "a", "b"}
    out = {trial for trial, may in found.may_be_best.items() if not may}
    assert out == {"trial-today", "trial-b", "trial-c", "trial-e"}
    assert set(found.may_be_best) == {f"trial-{name}" for name in scores}
    assert found.answer.startswith("Any edu share between 10% and 40% (not 20%, 30%) may be best")


class Use:
    """Use of pictures in which the named candidate does not look at them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def blind(self, candidate: str) -> bool:
        return candidate == self._name


@pytest.mark.parametrize(("blind", "out"), [("d", set()), ("a", {"c"}), ("c", {"c"})])
def test_a_best_mean_that_does_not_look_at_pictures_rules_nothing_out(
    monkeypatch: pytest.MonkeyPatch, blind: str, out: set[str]
) -> None:
    scores = {"today": [1.0, 1.1], "a": [2.0, 2.1], "c": [0.2, 0.3], "d": [2.4, 2.3]}
    weights = {name: {"edu": 0.1 * n, "web": 1 - 0.1 * n} for n, name in enumerate(scores)}
    made = observations(scores, weights=weights)
    compared = decide(made.keep([run.name[0] in "ta" for run in made.runs]))
    monkeypatch.setattr(deciding, "_picture_use", lambda *_: Use(blind))
    found = deciding._searched(made, compared, VerdictOptions())
    assert [one.trial for one in found] == ["trial-c", "trial-d"]
    assert {one.trial[-1] for one in found if not one.may_be_best} == out
    assert found[0].weights == weights["c"]


def ruling(pick: str, reference: str) -> Ruling:
    return Ruling(outcome="tie", tie_kind=None, pick=pick, reference=reference, advantages={})


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1.0), ("minimize", -1.0)])
def test_a_view_is_the_difference_of_the_plain_means(direction: str, sign: float) -> None:
    made = observations(
        {"a": [1.0, 2.0, NAN], "b": [7.0, 8.0, 9.0, 4.0], "c": [100.0]}, direction=direction
    )
    assert deciding._views(made, ruling("b", "a"), "mean") == {"mean": sign * 5.5}
    assert deciding._views(made, ruling("a", "b"), "mean") == {"mean": sign * -5.5}


def test_a_search_with_another_sign_than_the_fresh_seeds_is_noted() -> None:
    scores = {"today": [1.0, 1.1], "a": [9.0, 0.5, 0.6], "b": [0.2, 0.1, 0.3]}
    fresh = {"a": [1, 2], "b": [1, 2]}
    found = decide(observations(scores, fresh=fresh, first_baseline="today"))
    (note,) = found.disagreements
    assert note.startswith("Note: the mean of all its runs, search included, puts a ")
    assert decide(observations(PLAIN, first_baseline="a")).disagreements == ()


def test_candidates_that_break_a_constraint_do_not_count_unless_they_are_the_baseline() -> None:
    broken = {"a": "breaks x: 1", "c": "breaks x: 2"}
    made = observations({**PLAIN, "d": [0.1, 0.2]}, breaks=broken, left_out={"e-0": "failed"})
    found = deciding._allowed(made, "a")
    assert names_of(found) == ["a-0", "a-1", "b-0", "b-1", "d-0", "d-1"]
    assert dict(found.left_out) == {"e-0": "failed", "c-0": "breaks x: 2", "c-1": "breaks x: 2"}
    assert names_of(deciding._allowed(made, None)) == ["b-0", "b-1", "d-0", "d-1"]
    whole = observations(PLAIN)
    assert deciding._allowed(whole, None) is whole
    only = observations(PLAIN, breaks={"a": "breaks x: 1"})
    assert deciding._allowed(only, "a") is only
    with pytest.raises(UserError, match=r"found: 1 \(.*a-0: breaks x: 1"):
        deciding._allowed(observations(PLAIN, breaks=broken), None)
    with pytest.raises(ConfigError, match=r"pick: c cannot be judged; found: breaks x: 2.*a, b, d"):
        decide(made, VerdictOptions(baseline="a", pick="c"))


def test_a_baseline_or_a_pick_without_a_run_that_counts_is_refused_with_the_reason() -> None:
    lost = observations({"a": [NAN], "b": [1.0, 2.0], "c": [2.0, 3.0]})
    with pytest.raises(
        ConfigError, match="baseline: a cannot be judged; found: its scores are missing"
    ):
        decide(lost, VerdictOptions(baseline="a"))
    with pytest.raises(ConfigError, match="pick: a cannot be judged; found: it has no fresh seeds"):
        decide(lost, VerdictOptions(baseline="b", pick="a"))
    assert decide(lost, VerdictOptions(baseline="b")).pick == "c"


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ([3.0, 3.1, 3.2], [1.0, 1.1, 1.2, 1.3], 1 / 35),
        ([3.0, 3.1, 3.2], [1.0, 1.1, 1.2], 0.1),
        ([3.0, 3.1], [1.0, 1.1, 1.2, 1.3, 1.4], None),
        ([3.0, 3.1, 3.2, 3.3, 3.4], [1.0, 1.1], None),
    ],
)
def test_the_permutation_test_needs_three_runs_of_both(
    first: list[float], second: list[float], p: float | None
) -> None:
    found = decide(observations({"b": second, "a": first}, first_baseline="b"))
    assert found.noise.permutation_p == (None if p is None else pytest.approx(p))
    assert found.settle[0].seeds_now == min(len(first), len(second))


def with_items(
    scores: Mapping[str, Sequence[float]],
    *,
    seeds: Mapping[str, Sequence[int]] | None = None,
    bare: bool = False,
    groups: Any = None,
) -> Observations:
    """Two tasks of the score with items, and one beside it without any."""
    runs = [score for own in scores.values() for score in own]
    rng = np.random.default_rng(5)
    tables = [np.array(runs)[:, None] + rng.standard_normal((len(runs), n)) for n in (4, 3)]
    tasks = (
        task(runs, "x", items=tables[0], groups=groups),
        task(runs, "y", items=None if bare else tables[1]),
        task(runs, "beside"),
    )
    return observations(
        scores,
        seeds=seeds,
        tasks=tasks,
        rule={
            "x": {"metrics": "x/*", "weight": 3.0},
            "y": {"metrics": "y/*", "weight": 1.0},
        },
    )


FOUR = {
    "a": [1.0, 1.4, 1.1],
    "b": [2.0, 2.1, 2.5],
    "c": [9.0, 9.6, 9.2],
    "d": [8.0, 8.1, 8.3],
}


@pytest.mark.parametrize(
    ("seeds", "shared"),
    [
        ({}, True),
        ({"c": [0, 1, 3]}, False),
        ({n: range(4 * k, 4 * k + 3) for k, n in enumerate("abcd")}, False),
    ],
    ids=["the same", "blocked, others", "all others"],
)
def test_the_bootstrap_is_given_the_tasks_of_the_score_and_the_seeds_that_both_share(
    monkeypatch: pytest.MonkeyPatch, seeds: Mapping[str, Sequence[int]], shared: bool
) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []

    def spy(*given: Any, **named: Any) -> np.ndarray:
        calls.append((given, named))
        return np.linspace(0.0, 1.0, 1001)

    monkeypatch.setattr(deciding, "hierarchical_bootstrap", spy)
    groups = np.array([0, 0, 1, 1])
    made = with_items(FOUR, seeds=seeds, groups=groups)
    found = decide(made, VerdictOptions(baseline="d"))
    assert found.noise.bootstrap == pytest.approx((0.025, 0.975))
    ((first, second, weights), named) = calls[0]
    x, y, _ = made.tasks
    assert x.items is not None
    assert y.items is not None
    assert [side.tolist() for side in first] == [x.items[6:9].tolist(), y.items[6:9].tolist()]
    assert [side.tolist() for side in second] == [x.items[9:].tolist(), y.items[9:].tolist()]
    assert weights == [0.75, 0.25]
    assert named["shared_seeds"] is shared
    assert found.noise.blocked == ("c" not in seeds or len(seeds) == 1)
    assert named["run_sd"] == found.noise.run_sd
    assert [None if g is None else g.tolist() for g in named["groups"]] == [[0, 0, 1, 1], None]


def test_without_items_or_noise_there_is_no_bootstrap() -> None:
    found = decide(with_items(FOUR, bare=True))
    assert (found.noise.bootstrap, found.noise.item_error) == (None, None)
    single = {name: own[:1] for name, own in FOUR.items()}
    unknown = decide(with_items(single), VerdictOptions(effect=0.5))
    assert (unknown.noise.bootstrap, unknown.noise.run_sd, unknown.settle) == (None, None, ())
    assert unknown.noise.item_error is not None
    plain = decide(observations(FOUR))
    assert (plain.noise.bootstrap, plain.noise.item_error) == (None, None)
    whole = decide(with_items(FOUR))
    assert whole.noise.bootstrap is not None
    low, high = whole.noise.bootstrap
    assert low < whole.advantage.value < high


def test_the_item_error_is_that_of_the_difference() -> None:
    single = {name: own[:1] for name, own in FOUR.items()}
    made = with_items(single)
    x, y, _ = made.tasks
    assert x.items is not None
    assert y.items is not None
    # Of one run each, c less d: the variance of the differences item by item.
    parts = (
        0.75**2 * np.var(x.items[2] - x.items[3], ddof=1) / 4.0
        + 0.25**2 * np.var(y.items[2] - y.items[3], ddof=1) / 3.0
    )
    assert decide(made).noise.item_error == pytest.approx(math.sqrt(parts))


def test_runs_of_a_candidate_are_in_the_order_of_their_seeds() -> None:
    made = observations({"a": [1.0, 2.0], "b": [3.0, 4.0, 5.0]}, seeds={"b": [7, 1, 3]})
    inputs = prepare_inputs(made, VerdictOptions())
    assert deciding._rows_of(inputs, "b") == [3, 4, 2]
    assert deciding._rows_of(inputs, "a") == [0, 1]


def test_what_would_settle_it_is_told_for_the_advantage_and_for_the_stated_effect() -> None:
    made = observations(PLAIN)
    found = decide(made, VerdictOptions(effect=0.5, alpha=0.2))
    assert [one.effect for one in found.settle] == pytest.approx([found.advantage.value, 0.5])
    expected = detectable_effect(
        standard_error=found.advantage.standard_error, df=found.advantage.df, alpha=0.2
    )
    assert [one.detectable_effect for one in found.settle] == [expected, expected]
    assert len(decide(made).settle) == 1
