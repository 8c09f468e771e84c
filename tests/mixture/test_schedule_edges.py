"""Check rates, budgets and their settings at the ends of what is taken and refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ablations.errors import ConfigError
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage, decay_words, whole_steps
from ablations.mixture.specs import LearningRateSpec, MixtureSpec, ScheduleSpec, StageSpec


def schedule_of(**steps: int) -> Schedule:
    stages = tuple(
        Stage(name=name, steps=own, mixture=Mixture({"web": 1.0})) for name, own in steps.items()
    )
    return Schedule(stages=stages, sequence_length=8, batch_size=4)


# --------------------------------------------------------------------------------------------- rates


def test_a_rate_of_each_shape_is_that_of_the_formula_at_each_step() -> None:
    common = {"peak": 2.0, "warmup_steps": 2, "decay_steps": 4, "total_steps": 9, "min_ratio": 0.2}
    expected = {
        "linear": [0.5, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2],
        "1-sqrt": [0.5, 1.0, 1.0, 1.0, 1.0, 0.6, 0.43431457505, 0.307179676972, 0.2],
        "cosine": [0.5, 1.0, 1.0, 1.0, 1.0, 0.882842712475, 0.6, 0.317157287525, 0.2],
    }
    for shape, factors in expected.items():
        rate = LearningRate(**common, shape=shape)  # type: ignore[arg-type]
        assert rate.decay_start == 5
        assert [rate.factor(step) for step in range(9)] == pytest.approx(factors)
        assert [rate.at(step) for step in range(9)] == pytest.approx([2 * one for one in factors])
        # A step beyond the schedule, which a continued run may ask for, has the last rate.
        assert rate.factor(50) == pytest.approx(0.2)


def test_a_decay_of_one_step_is_a_decay() -> None:
    rate = LearningRate(peak=1.0, warmup_steps=0, decay_steps=1, total_steps=3, min_ratio=0.25)
    assert [rate.factor(step) for step in range(3)] == [1.0, 1.0, 0.25]


def test_a_rate_without_a_decay_may_warm_up_over_all_steps_and_holds_beyond_them() -> None:
    rate = LearningRate(peak=1.0, warmup_steps=4, decay_steps=0, total_steps=4)
    assert [rate.factor(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    with pytest.raises(ConfigError, match=r"found: 5 \+ 0 steps; allowed: at most 4"):
        LearningRate(peak=1.0, warmup_steps=5, decay_steps=0, total_steps=4)


def test_a_tail_without_a_decay_is_none() -> None:
    rate = LearningRate(peak=1.0, warmup_steps=4, decay_steps=0, total_steps=4, tail_steps=3)
    assert rate.decay_start == 4
    built = LearningRateSpec(decay_steps=0, tail_steps=5, warmup_steps=1).build(
        peak=1.0, schedule=schedule_of(a=10)
    )
    assert (built.decay_steps, built.tail_steps, built.decay_start) == (0, 0, 10)


@pytest.mark.parametrize(
    ("decay", "tail", "words"),
    [
        (30, 0, "over the last 30"),
        (0, 0, "over the last 0"),
        (0, 5, "over the last 0"),
        (30, 1, "over 30 steps from step 1,969, then 1 at the minimum"),
        (30, -1, "over 30 steps from step 1,971, of which the schedule leaves out the last 1"),
    ],
)
def test_a_decay_is_told_in_words(decay: int, tail: int, words: str) -> None:
    assert decay_words(decay_steps=decay, total_steps=2000, tail_steps=tail) == words


def test_a_decay_in_words_has_no_tail_unless_one_is_stated() -> None:
    assert decay_words(decay_steps=1500, total_steps=2000, peak=1.0) == "over the last 1,500"


@pytest.mark.parametrize("name", ["warmup_share", "decay_share", "min_ratio"])
def test_a_share_of_a_rate_goes_from_nothing_to_all_and_no_further(name: str) -> None:
    for value in (0.0, 0.75, 1.0):
        made = LearningRateSpec(**{name: value})  # type: ignore[arg-type]
        assert getattr(made, name) == value
    for value in (-0.001, 1.001, 1.5, math.nan):
        with pytest.raises(ConfigError) as caught:
            LearningRateSpec(**{name: value})  # type: ignore[arg-type]
        (problem,) = caught.value.problems
        assert (problem.where, problem.allowed) == (f"schedule.lr.{name}", "0 to 1")


@pytest.mark.parametrize("name", ["warmup_steps", "decay_steps"])
def test_steps_of_a_rate_are_any_number_from_none(name: str) -> None:
    for value in (0, 1, 10**9):
        assert getattr(LearningRateSpec(**{name: value}), name) == value  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"schedule\.lr\.{name}: outside.*allowed: >= 0"):
        LearningRateSpec(**{name: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "warmup", "decay"),
    [
        ({}, 2, 20),
        ({"warmup_share": 0.1, "decay_share": 0.35}, 10, 35),
        ({"warmup_steps": 7, "decay_steps": 3}, 7, 3),
        ({"kind": "cosine", "warmup_share": 0.1, "decay_steps": 3}, 10, 90),
        ({"kind": "constant", "warmup_steps": 7, "decay_steps": 3}, 7, 0),
        ({"decay_share": "b"}, 2, 50),
        ({"decay_share": "c"}, 2, 10),
    ],
)
def test_a_rate_is_built_over_the_steps_of_its_schedule(
    values: dict[str, Any], warmup: int, decay: int
) -> None:
    rate = LearningRateSpec(**values).build(peak=3.0, schedule=schedule_of(a=50, b=40, c=10))
    assert (rate.warmup_steps, rate.decay_steps, rate.total_steps) == (warmup, decay, 100)


# ----------------------------------------------------------------------------------------- schedules


def test_a_schedule_counts_steps_samples_and_tokens() -> None:
    schedule = schedule_of(a=3, b=1, c=2)
    assert (schedule.total_steps, schedule.total_samples) == (6, 24)
    assert (schedule.tokens_per_step, schedule.total_tokens) == (32, 192)
    assert [schedule.first_step(stage) for stage in range(4)] == [0, 3, 4, 6]


def test_a_schedule_needs_a_stage_and_a_stage_a_step() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        Schedule(stages=(), sequence_length=8, batch_size=4)
    for steps in (0, -1):
        with pytest.raises(ConfigError, match="shorter than one step"):
            Stage(name="a", steps=steps, mixture=Mixture({"web": 1.0}))


def test_steps_round_the_running_total() -> None:
    assert whole_steps([14.0, 14.0, 14.0], 10) == [1, 2, 1]
    assert whole_steps([], 10) == []


@pytest.mark.parametrize("name", ["total_tokens", "total_samples"])
@pytest.mark.parametrize("total", [0.5, 1.0, 7.0])
def test_a_total_of_tokens_or_of_samples_is_shared_out(name: str, total: float) -> None:
    spec = ScheduleSpec(
        stages={"a": StageSpec(share=0.25), "b": StageSpec(share="rest")},
        full_tokens=0.5,
        **{name: total},  # type: ignore[arg-type]
    )
    assert spec.total == total
    assert spec.budgets() == {"a": 0.25 * total, "b": 0.75 * total}


def test_a_total_in_tokens_and_in_samples_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        ScheduleSpec(total_tokens=10.0, total_samples=10.0)
    assert [str(problem) for problem in caught.value.problems] == [
        "schedule.total_samples: give it or schedule.total_tokens, one of them"
    ]
    with pytest.raises(ConfigError, match=r"schedule\.total_samples: not a budget; found: 0"):
        ScheduleSpec(total_samples=0)


def test_stages_in_tokens_need_no_total_and_may_agree_with_one() -> None:
    stages = {"a": StageSpec(tokens=0.5), "b": StageSpec(tokens=1.5)}
    assert ScheduleSpec(stages=stages).budgets() == {"a": 0.5, "b": 1.5}
    assert ScheduleSpec(stages=stages, total_tokens=2.0).total == 2.0
    with pytest.raises(ConfigError, match=r"found: 2 tokens; allowed: 2\.1"):
        ScheduleSpec(stages=stages, total_tokens=2.1)


def test_each_stage_without_a_budget_is_named_and_nothing_else() -> None:
    stages = {
        "a": StageSpec(),
        "b": StageSpec(tokens=0.0),
        "c": StageSpec(share=0.5),
        "d": StageSpec(share=0.5, tokens=1.0),
    }
    with pytest.raises(ConfigError) as caught:
        ScheduleSpec(stages=stages, total_tokens=10.0)
    assert [problem.where for problem in caught.value.problems] == [
        "schedule.stages.a",
        "schedule.stages.d",
    ]
    bad = {"a": StageSpec(tokens=0.0), "b": StageSpec(tokens=math.inf), "c": StageSpec(tokens=1.0)}
    with pytest.raises(ConfigError) as caught:
        ScheduleSpec(stages=bad, total_tokens=10.0)
    assert [problem.where for problem in caught.value.problems] == [
        "schedule.stages.a",
        "schedule.stages.b",
    ]


def test_wrong_weights_that_stages_share_are_told_once() -> None:
    stages = {"a": StageSpec(share=0.5), "b": StageSpec(share=0.5)}
    spec = ScheduleSpec(stages=stages, total_tokens=320.0)
    with pytest.raises(ConfigError) as caught:
        spec.build(MixtureSpec(weights={"web": 0.5}), sequence_length=8, batch_size=4)
    assert [problem.where for problem in caught.value.problems] == ["mixture.weights"]
    made = spec.build(
        MixtureSpec(weights={"web": 1.0, "code": 3.0}, normalize=True),
        sequence_length=8,
        batch_size=4,
    )
    assert dict(made.stages[1].mixture) == {"web": 0.25, "code": 0.75}


@pytest.mark.parametrize("value", [-1.0, 0.0, math.nan])
@pytest.mark.parametrize("name", ["epoch_cap", "audit_tolerance"])
def test_a_limit_of_a_mixture_is_above_zero(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"mixture\.{name}: must be above zero"):
        MixtureSpec(weights={"web": 1.0}, **{name: value})  # type: ignore[arg-type]
    small = MixtureSpec(weights={"web": 1.0}, **{name: 0.25})  # type: ignore[arg-type]
    assert getattr(small, name) == 0.25


def test_reasons_of_exemptions_are_asked_for_by_source() -> None:
    exempt = {"web": "published recipe", "code": "", "math": " "}
    with pytest.raises(ConfigError) as caught:
        MixtureSpec(weights={"web": 1.0}, epoch_cap_exempt=exempt)
    assert [problem.where for problem in caught.value.problems] == [
        "mixture.epoch_cap_exempt.code",
        "mixture.epoch_cap_exempt.math",
    ]
    assert MixtureSpec(weights={"web": 1.0}, epoch_cap_exempt={"web": "x"}).most_epochs == 4.0
