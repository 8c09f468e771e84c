"""Check the gains of pictures, and what a blind candidate is not named, with numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.decision import Judgement, Regret, Ruling
from sweeps.verdict.observations import (
    Candidate,
    Observations,
    ObservedRun,
    PictureGain,
    TaskData,
)
from sweeps.verdict.pictures import PictureUse, picture_use
from sweeps.verdict.training_noise import TrainingNoise
from sweeps.verdict.verdict_record import PictureRow
from tests.oracles.verdicts import estimate, picture_row, task_row

NAN = math.nan


def gain(
    metric: str, values: Sequence[float], errors: Sequence[float], draws: Sequence[float]
) -> PictureGain:
    data = TaskData(
        task="look",
        metric=metric,
        higher_is_better=True,
        chance=None,
        values=np.array(values),
    )
    return PictureGain(data=data, errors=np.array(errors), draws=np.array(draws))


def use(
    owners: Sequence[int],
    *pictures: PictureGain,
    baseline: str | None = None,
    weights: Mapping[str, float] | None = None,
    names: str = "ab",
) -> Mapping[tuple[str, str], PictureRow]:
    observed = Observations(
        study="look",
        direction="minimize",
        score="",
        rule={},
        candidates=tuple(Candidate(name=name, trial=name) for name in names),
        runs=tuple(
            ObservedRun(name=str(i), candidate=owner, seed=i, score=0.0)
            for i, owner in enumerate(owners)
        ),
        tasks=(),
        pictures=pictures,
    )
    return picture_use(
        observed, weights or {"look/bpb": 1.0}, baseline=baseline, alpha=0.05, last=5
    ).rows


def test_items_alone_bound_the_gain_where_seeds_show_nothing() -> None:
    """Two equal runs: a mean error of 0.03, on the fewer pictures less one, at 2.5% over two candidates."""
    own = gain("gain", [0.4, 0.4, 0.1], [0.02, 0.04, 0.02], [31.0, 11.0, 101.0])
    control = gain("shuffled_gain", [0.2, 0.2, 0.3], [0.01, 0.01, 0.01], [21.0, 21.0, 101.0])
    found = use([0, 0, 1], own, control)
    assert list(found) == [("look", "a"), ("look", "b")]
    row = found["look", "a"]
    assert (row.task, row.candidate, row.runs, row.noise) == ("look", "a", 2, "items")
    assert row.gain == pytest.approx(0.4)
    assert row.shuffled_gain == pytest.approx(0.2)
    assert row.gain_low == pytest.approx(0.4 - stats.t.isf(0.0125, 10) * 0.03)
    assert row.shuffled_gain_low == pytest.approx(0.2 - stats.t.isf(0.0125, 20) * 0.01)
    assert row.used
    assert row.in_score
    assert found["look", "b"].gain_low == pytest.approx(0.1 - stats.t.isf(0.0125, 100) * 0.02)


@pytest.mark.parametrize(("baseline", "level"), [(None, 0.0125), ("a", 0.025), ("z", 0.0125)])
def test_the_level_is_shared_by_the_candidates_that_were_chosen_from(
    baseline: str | None, level: float
) -> None:
    own = gain("gain", [0.4, 0.4], [0.02] * 2, [11.0] * 2)
    control = gain("shuffled_gain", [0.4, 0.4], [0.02] * 2, [11.0] * 2)
    found = use([0, 1], own, control, baseline=baseline)
    assert found["look", "b"].gain_low == pytest.approx(0.4 - stats.t.isf(level, 10) * 0.02)


def test_a_baseline_alone_is_one_candidate() -> None:
    own = gain("gain", [0.4], [0.02], [11.0])
    control = gain("shuffled_gain", [0.4], [0.02], [11.0])
    found = use([0], own, control, baseline="a", names="a")
    assert found["look", "a"].gain_low == pytest.approx(0.4 - stats.t.isf(0.025, 10) * 0.02)


def test_seeds_and_items_add_up_beyond_the_noise_of_either() -> None:
    """Pairs 0.2 and 0.4 apart: a variance of 0.05 on two degrees of freedom, half of it in a mean."""
    error = 0.025**0.5
    own = gain("gain", [0.1, 0.3, 0.5, 0.9], [error] * 4, [11.0] * 4)
    control = gain("shuffled_gain", [0.2, 0.2, 0.9, 0.9], [error] * 4, [11.0] * 4)
    found = use([0, 0, 1, 1], own, control)
    row = found["look", "b"]
    df = 0.05**2 / (0.025**2 / 2.0 + 0.025**2 / 10.0)
    limited = min(df, 2.0 * 2.0)
    assert row.gain_low == pytest.approx(0.7 - stats.t.isf(0.0125, limited) * 0.05**0.5)
    assert row.noise == "seeds and items"
    assert row.gain == pytest.approx(0.7)
    # The control has equal pairs, which measure no noise of seeds.
    assert row.shuffled_gain_low == pytest.approx(0.9 - stats.t.isf(0.0125, 10) * error)


@pytest.mark.parametrize(
    ("values", "errors", "draws", "mean", "noise"),
    [
        ([0.4, NAN], [0.1, 0.1], [9.0, 9.0], None, "unknown"),
        ([0.4, 0.4], [0.1, NAN], [9.0, 9.0], 0.4, "unknown"),
        ([0.4, 0.4], [0.1, 0.1], [9.0, 1.0], 0.4, "unknown"),
        ([0.4, 0.4], [0.1, 0.1], [9.0, NAN], 0.4, "unknown"),
        ([0.4, 0.4], [0.1, 0.1], [9.0, 2.0], 0.4, "items"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_gain_without_its_noise_has_no_lower_end_and_is_not_used(
    values: list[float],
    errors: list[float],
    draws: list[float],
    mean: float | None,
    noise: str,
    turned: bool,
) -> None:
    names = ("shuffled_gain", "gain") if turned else ("gain", "shuffled_gain")
    first = gain(names[0], values, errors, draws)
    second = gain(names[1], [9.0, 9.0], [0.001, 0.001], [99.0, 99.0])
    row = use([0, 0], first, second, names="a")["look", "a"]
    gains = (row.shuffled_gain, row.gain) if turned else (row.gain, row.shuffled_gain)
    lows = (
        (row.shuffled_gain_low, row.gain_low) if turned else (row.gain_low, row.shuffled_gain_low)
    )
    assert gains == (mean, 9.0)
    assert row.noise == noise
    assert (lows[0] is None) == (noise == "unknown")
    assert lows[1] == pytest.approx(9.0, abs=0.01)
    assert not row.used


@pytest.mark.parametrize(
    ("own", "control", "used"), [(0.5, 0.5, True), (0.0, 0.5, False), (0.5, 0.0, False)]
)
def test_both_lower_ends_lie_above_zero_where_pictures_are_used(
    own: float, control: float, used: bool
) -> None:
    pair = [gain(m, [v], [0.0], [9.0]) for m, v in (("gain", own), ("shuffled_gain", control))]
    row = use([0], *pair, names="a")["look", "a"]
    assert (row.gain_low, row.shuffled_gain_low, row.used) == (own, control, used)


def test_a_candidate_without_runs_has_no_gain() -> None:
    pair = [gain(m, [0.5], [0.1], [9.0]) for m in ("gain", "shuffled_gain")]
    row = use([0], *pair)["look", "b"]
    assert (row.gain, row.gain_low, row.runs, row.noise) == (None, None, 0, "unknown")


@pytest.mark.parametrize(
    ("weights", "counted"),
    [({"look/acc": 1.0}, True), ({"text/bpb": 1.0}, False), ({"text/a": 0.5, "look/b": 1}, True)],
)
def test_a_task_counts_if_the_score_has_one_of_its_metrics(
    weights: Mapping[str, float], counted: bool
) -> None:
    pair = [gain(m, [0.5], [0.1], [9.0]) for m in ("gain", "shuffled_gain")]
    assert use([0], *pair, weights=weights, names="a")["look", "a"].in_score == counted


def used_by(**names: bool) -> PictureUse:
    rows = {("look", name): picture_row("look", name, used=used) for name, used in names.items()}
    outside = {("off", name): picture_row("off", name, used=False, in_score=False) for name in "ab"}
    return PictureUse(rows={**rows, **outside})


def test_a_candidate_is_blind_on_tasks_of_the_score_alone() -> None:
    found = used_by(a=True, b=False)
    assert found.blind("a") == ()
    assert [(row.task, row.candidate) for row in found.blind("b")] == [("look", "b")]
    assert [(row.task, row.candidate) for row in found.of("b")] == [("look", "b"), ("off", "b")]
    assert len(found.of("a", "b")) == 4


def judged(outcome: Any, pick: str) -> Judgement:
    ruling = Ruling(
        outcome=outcome,
        tie_kind="equivalent" if outcome == "tie" else None,
        pick=pick,
        reference="c",
        advantages={},
    )
    loss = Regret(
        margin=0.0, chance=None, expected=None, expected_if_kept=None, shrunk_advantage=0.0
    )
    return Judgement(ruling=ruling, finalists=(pick,), regret=loss)


BEST_FIRST = Evidence(
    names=("c", "a", "b"),
    means=np.array([0.0, 9.0, 5.0]),
    unit=np.eye(3),
    noise=TrainingNoise.unknown(),
)


@pytest.mark.parametrize(
    ("blind", "outcome", "pick", "baseline", "finalists", "found"),
    [
        ("", "winner", "a", "c", ("a",), ("winner", None)),
        ("b", "winner", "a", "c", ("a",), ("winner", None)),
        ("a", "winner", "a", "c", ("a", "b", "c"), ("keep-baseline", None)),
        ("a", "winner", "a", None, ("a", "b", "c"), ("tie", "undecided")),
        ("a", "tie", "a", "c", ("a", "b", "c"), ("tie", "equivalent")),
        ("a", "winner", "b", "c", ("a", "b", "c"), ("winner", None)),
        ("b", "winner", "b", "c", ("b",), ("keep-baseline", None)),
    ],
)
def test_a_blind_pick_wins_nothing_and_a_blind_lead_rules_nobody_out(
    blind: str,
    outcome: str,
    pick: str,
    baseline: str | None,
    finalists: tuple[str, ...],
    found: tuple[str, str | None],
) -> None:
    before = judged(outcome, pick)
    use = used_by(**{name: name not in blind for name in "abc"})
    after = use.withhold(before, BEST_FIRST, baseline)
    assert (after.ruling.outcome, after.ruling.tie_kind) == found
    assert after.finalists == finalists
    assert replace(after.ruling, outcome=before.ruling.outcome, tie_kind=None) == replace(
        before.ruling, tie_kind=None
    )


@pytest.mark.parametrize(
    ("effect", "pick", "reference", "found"),
    [
        ("gains", False, True, "blind"),
        ("gains", True, False, "gains"),
        ("pays", True, False, "blind"),
        ("pays", False, True, "pays"),
        ("not shown", False, False, "not shown"),
        ("unknown", False, False, "unknown"),
    ],
)
def test_the_better_side_of_a_task_is_blind_if_it_does_not_look(
    effect: str, pick: bool, reference: bool, found: str
) -> None:
    rows = (task_row("look", effect=effect), task_row("text", effect=effect, advantage=estimate(1)))
    first, second = used_by(a=pick, b=reference).effects(rows, "a", "b")
    assert (first.effect, second.effect) == (found, effect)
    assert replace(first, effect=rows[0].effect) == rows[0]
