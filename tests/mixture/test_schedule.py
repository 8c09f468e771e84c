"""Schedules round budgets to whole steps and shape the learning rate."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.errors import ConfigError
from ablations.mixture.constraints import broken_caps, simulated_slices
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import DecayShape, LearningRate, Schedule, Stage, whole_steps
from ablations.mixture.specs import LearningRateSpec, MixtureSpec, ScheduleSpec, StageSpec

WEB = Mixture({"web": 1.0})


def two_stages() -> Schedule:
    return Schedule(
        stages=(
            Stage(name="stable", steps=90, mixture=Mixture({"web": 0.9, "code": 0.1})),
            Stage(name="decay", steps=10, mixture=Mixture({"web": 0.5, "math": 0.5})),
        ),
        sequence_length=8,
        batch_size=4,
    )


@given(st.lists(st.floats(1.0, 1e7), min_size=1, max_size=6), st.integers(1, 5000))
def test_rounding_never_accumulates(budgets: list[float], per_step: int) -> None:
    steps = whole_steps(budgets, per_step)
    assert sum(steps) == round(math.fsum(budgets) / per_step)
    running = 0.0
    for index, budget in enumerate(budgets):
        running += budget
        assert abs(sum(steps[: index + 1]) - running / per_step) <= 0.5 + 1e-6


def test_tokens_and_epochs_count_the_whole_schedule() -> None:
    schedule = two_stages()
    assert schedule.sources == ("web", "code", "math")
    assert schedule.total_tokens == 100 * 32
    assert schedule.tokens()["web"] == pytest.approx((0.9 * 90 + 0.5 * 10) * 32)
    epochs = schedule.epochs({"web": 1376.0, "code": 144.0})
    assert epochs["web"] == pytest.approx(2.0)
    assert epochs["math"] == math.inf


@pytest.mark.parametrize("shape", ["linear", "1-sqrt", "cosine"])
def test_the_rate_warms_up_holds_and_decays_to_its_floor(shape: DecayShape) -> None:
    rate = LearningRate(
        peak=2.0, warmup_steps=10, decay_steps=20, total_steps=100, shape=shape, min_ratio=0.1
    )
    values = [rate.at(step) for step in range(100)]
    assert values[0] == pytest.approx(0.2)
    assert values[9:80] == pytest.approx([2.0] * 71)
    assert values[-1] == pytest.approx(0.2)
    assert all(later < earlier for earlier, later in itertools.pairwise(values[79:]))


@pytest.mark.parametrize(("tail", "start", "last"), [(0, 80, 0.0), (50, 30, 0.0), (-5, 85, 0.25)])
def test_a_decay_can_end_before_the_schedule_or_after_it(
    tail: int, start: int, last: float
) -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=100, mixture=WEB),), sequence_length=8, batch_size=1
    )
    spec = LearningRateSpec(warmup_steps=5, decay_steps=20, tail_steps=tail)
    rate = spec.build(peak=1.0, schedule=schedule)
    assert rate.decay_start == start
    assert rate.factor(start - 1) == 1.0
    assert rate.factor(start) == pytest.approx(0.95)
    assert rate.factor(99) == pytest.approx(last)
    if tail > 0:
        assert {rate.factor(step) for step in range(start + 19, 100)} == {0.0}


@pytest.mark.parametrize(("tail", "said"), [(76, "longer than"), (-21, "before the decay begins")])
def test_a_tail_that_does_not_fit_is_refused(tail: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LearningRate(peak=1.0, warmup_steps=5, decay_steps=20, total_steps=100, tail_steps=tail)


def test_a_rate_longer_than_its_schedule_is_refused() -> None:
    with pytest.raises(ConfigError, match="longer than the schedule"):
        LearningRate(peak=1.0, warmup_steps=60, decay_steps=50, total_steps=100)


def test_cosine_decays_from_the_end_of_the_warm_up() -> None:
    schedule = Schedule(
        stages=(Stage(name="a", steps=20, mixture=WEB),), sequence_length=8, batch_size=4
    )
    rate = LearningRateSpec(kind="cosine", warmup_steps=4).build(peak=1.0, schedule=schedule)
    assert (rate.decay_steps, rate.shape) == (16, "cosine")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("min_ratio", -1.0),
        ("min_ratio", 5.0),
        ("min_ratio", float("nan")),
        ("warmup_steps", -1),
        ("warmup_share", 1.5),
        ("decay_steps", -1),
        ("decay_share", -0.1),
    ],
)
def test_a_rate_outside_its_range_is_refused_by_field(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"schedule\.lr\.{field}: outside its range"):
        LearningRateSpec(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1.0, 0.0, float("inf"), float("nan")])
@pytest.mark.parametrize("field", ["total_tokens", "full_tokens"])
def test_a_budget_is_above_zero_and_finite(field: str, value: float) -> None:
    stages = {"a": StageSpec(tokens=10.0)}
    with pytest.raises(ConfigError, match=rf"schedule\.{field}: not a budget"):
        ScheduleSpec(stages=stages, **{field: value})  # type: ignore[arg-type]


def test_a_stage_without_weights_takes_the_runs_mixture() -> None:
    spec = ScheduleSpec(
        total_tokens=3200,
        stages={
            "a": StageSpec(share=0.75),
            "b": StageSpec(share=0.25, weights={"web": 0.5, "math": 0.5}),
        },
    )
    schedule = spec.build(MixtureSpec(weights={"web": 1.0}), sequence_length=8, batch_size=4)
    assert [stage.steps for stage in schedule.stages] == [75, 25]
    assert schedule.stages[0].mixture == WEB
    assert schedule.stages[1].mixture["math"] == 0.5


@pytest.mark.parametrize("share", [0.05, 0.2, 0.333, 0.4])
def test_one_stage_takes_the_rest_and_the_rate_decays_over_the_other(share: float) -> None:
    spec = ScheduleSpec(
        total_tokens=3200,
        stages={"stable": StageSpec(share="rest"), "decay": StageSpec(share=share)},
        lr=LearningRateSpec(decay_share="decay", warmup_steps=2),
    )
    assert spec.budgets() == pytest.approx({"stable": 3200 * (1 - share), "decay": 3200 * share})
    schedule = spec.build(MixtureSpec(weights={"web": 1.0}), sequence_length=8, batch_size=4)
    rate = spec.lr.build(peak=1.0, schedule=schedule)
    assert schedule.total_steps == 100
    assert rate.decay_steps == schedule.stages[1].steps == 100 - round(100 * (1 - share))


def test_the_rest_counts_stages_in_tokens_and_the_decay_all_stages_from_the_named_one() -> None:
    spec = ScheduleSpec(
        total_tokens=3200,
        stages={
            "a": StageSpec(tokens=800.0),
            "b": StageSpec(share="rest"),
            "c": StageSpec(share=0.25),
        },
        lr=LearningRateSpec(decay_share="b", warmup_steps=0),
    )
    assert spec.budgets() == {"a": 800.0, "b": 1600.0, "c": 800.0}
    schedule = spec.build(MixtureSpec(weights={"web": 1.0}), sequence_length=8, batch_size=4)
    assert spec.lr.build(peak=1.0, schedule=schedule).decay_steps == 75


def test_a_decay_over_an_unknown_stage_names_the_nearest() -> None:
    spec = ScheduleSpec(
        total_tokens=3200,
        stages={"decay": StageSpec(share=1.0)},
        lr=LearningRateSpec(decay_share="decai"),
    )
    schedule = spec.build(MixtureSpec(weights={"web": 1.0}), sequence_length=8, batch_size=4)
    with pytest.raises(ConfigError, match=r"unknown stage 'decai'.*did you mean 'decay'"):
        spec.lr.build(peak=1.0, schedule=schedule)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {
                "total_tokens": 10.0,
                "stages": {"a": StageSpec(share="rest"), "b": StageSpec(share="rest")},
            },
            "only one stage can take the rest",
        ),
        ({"stages": {"a": StageSpec(share="rest")}}, "needed by the share"),
        (
            {
                "total_tokens": 10.0,
                "stages": {"a": StageSpec(share="rest"), "b": StageSpec(share=1.0)},
            },
            "stages.a: needs a budget above zero",
        ),
        ({"stages": {"a": StageSpec()}}, "give a share or tokens"),
        ({"stages": {"a": StageSpec(share=1.0, tokens=5.0)}}, "give a share or tokens"),
        ({"stages": {"a": StageSpec(share=1.0)}}, "needed by the share"),
        ({"total_tokens": 10.0, "stages": {"a": StageSpec(share=0.5)}}, "do not add up"),
        ({"total_tokens": 10.0, "stages": {"a": StageSpec(share=-1.0)}}, "above zero"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScheduleSpec(**spec)  # type: ignore[arg-type]


def test_wrong_weights_of_every_stage_are_told_at_once() -> None:
    spec = ScheduleSpec(
        total_tokens=3200,
        stages={
            "a": StageSpec(share=0.5, weights={"web": 0.7}),
            "b": StageSpec(share=0.5, weights={"web": -1.0}),
        },
    )
    with pytest.raises(ConfigError) as caught:
        spec.build(MixtureSpec(weights={"web": 1.0}), sequence_length=8, batch_size=4)
    assert [problem.where for problem in caught.value.problems] == [
        "schedule.stages.a.weights",
        "schedule.stages.b.weights.web",
    ]


def test_a_stage_shorter_than_a_step_is_refused() -> None:
    spec = ScheduleSpec(
        total_tokens=1000, stages={"a": StageSpec(tokens=999.0), "b": StageSpec(tokens=1.0)}
    )
    with pytest.raises(ConfigError, match="shorter than one step"):
        spec.build(MixtureSpec(weights={"web": 1.0}), sequence_length=8, batch_size=4)


@pytest.mark.parametrize("where", ["epoch_cap", "audit_tolerance"])
def test_limits_of_zero_are_refused(where: str) -> None:
    with pytest.raises(ConfigError, match=f"mixture.{where}"):
        MixtureSpec(weights={"web": 1.0}, **{where: 0.0})  # type: ignore[arg-type]


def test_a_cap_counts_all_stages_and_names_the_source() -> None:
    available = {"web": 1e6, "code": 1e6, "math": 40.0}
    (problem,) = broken_caps(two_stages(), available, epoch_cap=3.9)
    assert problem.where == "source.math"
    assert "4.00 epochs" in str(problem)
    assert not broken_caps(two_stages(), available, epoch_cap=4.0)


@pytest.mark.parametrize("available", [{"math": 0.0}, {}], ids=["empty", "missing"])
def test_a_source_without_a_token_breaks_every_cap(available: dict[str, float]) -> None:
    there = {"web": 1e6, "code": 1e6, **available}
    (problem,) = broken_caps(two_stages(), there, epoch_cap=1e9)
    assert problem.where == "source.math"
    assert "inf epochs" in str(problem)


def test_an_exempt_source_may_be_read_more_often_the_others_not() -> None:
    available = {"web": 1e6, "code": 4.0, "math": 40.0}
    (problem,) = broken_caps(two_stages(), available, epoch_cap=3.9, exempt={"math": "published"})
    assert problem.where == "source.code"
    with pytest.raises(ConfigError, match="needs its reason"):
        MixtureSpec(weights={"web": 1.0}, epoch_cap_exempt={"web": " "})


def test_a_cap_can_be_judged_at_the_full_budget() -> None:
    available = dict.fromkeys(("web", "code", "math"), 3200.0 * 10)
    assert not broken_caps(two_stages(), available, epoch_cap=1.0, full_tokens=32_000)
    problems = broken_caps(two_stages(), available, epoch_cap=1.0, full_tokens=64_000)
    assert [problem.where for problem in problems] == ["source.web"]


def test_simulated_epochs_equal_the_full_runs() -> None:
    schedule, full = two_stages(), 3200.0 * 1000
    available = {"web": 1_376_000.0, "code": 288_000.0, "math": 160_000.0}
    windows = {"web": 10_000, "code": 10_000, "math": 10_000}
    slices = simulated_slices(schedule, windows, available, full)
    proxy = schedule.epochs({name: slices[name] * 8 for name in slices})
    whole = {name: read * 1000 / available[name] for name, read in schedule.tokens().items()}
    assert proxy == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize(("wanted", "expected"), [(0.2, 1), (0.7, 1), (1.6, 2), (99.0, 10)])
def test_a_slice_is_at_least_a_window_and_at_most_what_is_prepared(
    wanted: float, expected: int
) -> None:
    # A slice of 0 would be taken for the whole source.
    schedule, full = two_stages(), 3200.0 * 1000
    windows = {"web": 10_000, "code": 10_000, "math": 10}
    available = {"web": 1e6, "code": 1e6, "math": wanted * 8 * 1000}
    assert simulated_slices(schedule, windows, available, full)["math"] == expected


def test_stage_names_must_differ() -> None:
    stage = Stage(name="a", steps=1, mixture=WEB)
    with pytest.raises(ConfigError, match="unique names"):
        Schedule(stages=(stage, stage), sequence_length=8, batch_size=1)


def test_a_rate_without_a_decay_stays_at_its_peak() -> None:
    rate = LearningRate(peak=1.0, warmup_steps=0, decay_steps=0, total_steps=10)
    assert rate.decay_start == 10
    assert {rate.factor(step) for step in range(10)} == {1.0}
