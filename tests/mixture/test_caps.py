"""Check caps of epochs, laws of repeats and standing mixtures at their limits, by hand."""

from __future__ import annotations

import math

import pytest

from ablations.errors import ConfigError
from ablations.mixture.constraints import beyond_cap, broken_caps
from ablations.mixture.mixture import SUM_TOLERANCE, Mixture, unimax
from ablations.mixture.repeats import PUBLISHED, RepeatLaw, effective_tokens, runs_out
from ablations.mixture.schedule import Schedule, Stage
from ablations.mixture.specs import MixtureSpec

LAW = RepeatLaw(constant=10.0, low=5.0, high=20.0, study="s")


def one_step(**weights: float) -> Schedule:
    """A step of 32 tokens."""
    stage = Stage(name="a", steps=1, mixture=Mixture(weights))
    return Schedule(stages=(stage,), sequence_length=8, batch_size=4)


# ---------------------------------------------------------------------------------------------- caps


def test_a_cap_that_is_missed_by_rounding_alone_is_met() -> None:
    most = 4.0 * (1.0 + 1e-6)
    assert not beyond_cap(most, 4.0)
    assert beyond_cap(math.nextafter(most, math.inf), 4.0)


def test_less_than_a_token_is_counted_as_it_is() -> None:
    (problem,) = broken_caps(one_step(web=1.0), {"web": 0.5}, epoch_cap=4.0)
    assert "64.00 epochs (32 of 0.5 tokens)" in str(problem)
    (problem,) = broken_caps(one_step(web=0.99, code=0.01), {"web": 32.0}, epoch_cap=4.0)
    assert problem.where == "source.code"
    assert "inf epochs (0.32 of 0 tokens)" in str(problem)


def test_a_source_without_weight_needs_no_token() -> None:
    assert not broken_caps(one_step(web=1.0, code=0.0), {"web": 32.0}, epoch_cap=1.0)
    assert one_step(web=1.0, code=0.0).epochs({"web": 64.0}) == {"web": 0.5, "code": 0.0}


def test_epochs_of_what_is_not_there_are_endless() -> None:
    schedule = one_step(web=0.5, code=0.5)
    assert schedule.epochs({"web": 0.5, "code": 0.0}) == {"web": 32.0, "code": math.inf}
    assert schedule.epochs({"web": 1.0}) == {"web": 16.0, "code": math.inf}


def test_the_weight_that_a_cap_allows_is_told_of_the_budget_that_is_judged() -> None:
    (problem,) = broken_caps(one_step(web=1.0), {"web": 40.0}, epoch_cap=2.0, full_tokens=160.0)
    assert "4.00 epochs (160 of 40 tokens)" in str(problem)
    assert "a mean weight of at most 0.5000" in str(problem)


# ------------------------------------------------------------------------------------------- repeats


def refused(**values: float) -> list[str]:
    stated = {"constant": 10.0, "low": 5.0, "high": 20.0, **values}
    with pytest.raises(ConfigError) as caught:
        RepeatLaw(**stated, study="s")
    return [problem.where for problem in caught.value.problems]


@pytest.mark.parametrize(
    "values",
    [
        {"low": 0.0},
        {"low": -1.0},
        {"low": 10.5},
        {"high": 9.5},
        {"high": math.inf},
        {"constant": math.nan},
        {"constant": 30.0},
        {"constant": 1.0},
    ],
)
def test_an_interval_has_positive_finite_ends_around_its_median(values: dict[str, float]) -> None:
    assert refused(**values) == ["mixture.repeats"]


@pytest.mark.parametrize("value", [0.0, -0.5, 1.000001, 1.5, math.nan])
def test_a_least_value_is_a_share(value: float) -> None:
    assert refused(least_value=value) == ["mixture.repeats.least_value"]
    assert refused(least_value=value, low=11.0) == [
        "mixture.repeats",
        "mixture.repeats.least_value",
    ]


def test_ends_of_the_interval_and_a_least_value_of_one_are_taken() -> None:
    law = RepeatLaw(constant=3.0, low=3.0, high=3.0, study="s", least_value=1.0)
    assert law.most_epochs == 1.0
    assert RepeatLaw(constant=3.0, low=3.0, high=3.0, study="s", least_value=0.75).low == 3.0


@pytest.mark.parametrize(
    ("unique", "read", "worth"),
    [
        (5.0, 3.0, 3.0),
        (5.0, 5.0, 5.0),
        (5.0, 10.0, 9.75812909982),  # 5 + 50 (1 − e^−0.1)
        (5.0, 55.0, 36.6060279414),  # 5 + 50 (1 − 1/e)
        (0.0, 4.0, 0.0),
        (-2.0, 4.0, 0.0),
        (0.5, 1.0, 0.975812909982),
    ],
)
def test_repeats_are_worth_what_the_formula_says(unique: float, read: float, worth: float) -> None:
    assert LAW.effective(unique, read) == pytest.approx(worth)


def test_the_first_epoch_is_worth_one_and_the_later_ones_less() -> None:
    assert LAW.value(1.0) == LAW.value(0.25) == 1.0
    assert LAW.value(2.0) == pytest.approx(0.904837418036)
    assert LAW.value(11.0) == pytest.approx(0.367879441171)
    assert LAW.value(3.0, constant=4.0) == pytest.approx(0.606530659713)


def test_most_epochs_are_those_of_the_lower_end() -> None:
    assert LAW.most_epochs == pytest.approx(4.46573590280)  # 1 + 5 ln 2
    strict = RepeatLaw(constant=10.0, low=5.0, high=20.0, study="s", least_value=0.8)
    assert strict.most_epochs == pytest.approx(2.11571775657)
    assert MixtureSpec(weights={"a": 1.0}, repeats=LAW).most_epochs == LAW.most_epochs
    assert MixtureSpec(weights={"a": 1.0}, epoch_cap=3.0).most_epochs == 3.0


def test_the_published_law_is_that_of_the_paper() -> None:
    assert (PUBLISHED.constant, PUBLISHED.low, PUBLISHED.high) == (15.39, 15.39, 15.39)
    assert PUBLISHED.least_value == 0.5


def staged() -> Schedule:
    """Tokens of a step: 30 of a, 10 of b for 10 steps, then 10 of a, 30 of c for 20 steps."""
    stages = (
        Stage(name="one", steps=10, mixture=Mixture({"a": 0.75, "b": 0.25})),
        Stage(name="two", steps=20, mixture=Mixture({"a": 0.25, "c": 0.75})),
    )
    return Schedule(stages=stages, sequence_length=10, batch_size=4)


@pytest.mark.parametrize(
    ("available", "step"),
    [(299.0, 10), (295.0, 10), (29.0, 1), (31.0, 2), (301.0, 11), (455.0, 26), (499.0, 30)],
)
def test_a_source_runs_out_with_the_step_that_reads_its_last_token(
    available: float, step: int
) -> None:
    assert runs_out(staged(), {"a": available, "b": 1e6, "c": 1e6}) == {"a": step}


def test_a_source_of_just_enough_tokens_lasts_and_one_of_none_is_out_at_once() -> None:
    assert runs_out(staged(), {"a": 500.0, "b": 100.0, "c": 600.0}) == {}
    assert runs_out(staged(), {"a": 500.0, "b": 100.0}) == {"c": 10}
    assert runs_out(staged(), {"a": 500.0, "c": 600.0}) == {"b": 0}


def test_tokens_of_a_schedule_are_worth_what_their_repeats_are() -> None:
    found = effective_tokens(LAW, staged(), {"a": 250.0, "b": 200.0})
    assert found == pytest.approx({"a": 487.906454991, "b": 100.0, "c": 0.0})


# -------------------------------------------------------------------------------- standing mixtures


def test_a_blend_with_weights_of_another_sum_lies_on_the_simplex() -> None:
    blended = dict(Mixture({"web": 0.9, "code": 0.1}).blend({"math": 2.0}, 0.5))
    assert blended == pytest.approx({"web": 0.3, "code": 1 / 30, "math": 2 / 3})


def test_unimax_takes_a_budget_of_all_that_the_cap_allows() -> None:
    assert unimax({"web": 100.0}, budget_tokens=400.0, max_epochs=4.0) == {"web": 1.0}
    least = (1.0 - SUM_TOLERANCE) / 4.0
    assert unimax({"web": least}, budget_tokens=1.0, max_epochs=4.0) == {"web": 1.0}
    with pytest.raises(ConfigError, match="more than all sources give under the epoch cap"):
        unimax({"web": math.nextafter(least, 0.0)}, budget_tokens=1.0, max_epochs=4.0)


def test_unimax_gives_what_small_sources_cannot_take_to_the_others() -> None:
    found = unimax({"big": 1000.0, "small": 5.0, "middle": 30.0}, budget_tokens=200.0, max_epochs=2)
    assert found == pytest.approx({"big": 0.65, "small": 0.05, "middle": 0.3})
