"""Compare bounds, epoch caps and parameters of a space with numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ablations.errors import ConfigError
from sweeps.search.space import (
    EpochCaps,
    GroupSpec,
    Parameter,
    ParameterSpec,
    SearchSpace,
    SearchSpaceSpec,
    SimplexSpec,
)
from sweeps.search.space.limits import upper_bounds

PAIR = SimplexSpec(sources=("a", "b"))


def staged(
    limit: float,
    *,
    low: float = 0.0,
    high: float = 1.0,
    own: dict[str, ParameterSpec] | None = None,
) -> SearchSpace:
    """Return two stages of the same sources, each half of the tokens, with a cap of ``limit`` on a."""
    stage = SimplexSpec(sources=("a", "b"), low={"a": low}, high={"a": high})
    spec = SearchSpaceSpec(mixtures={"x": stage, "y": stage}, parameters=own or {})
    return SearchSpace.build(spec, half_caps(limit))


def half_caps(limit: float) -> EpochCaps:
    return EpochCaps(
        tokens={"a": limit}, full_tokens=1.0, max_epochs=1.0, shares={"x": 0.5, "y": 0.5}
    )


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["full_tokens", "max_epochs", "shares.m"])
def test_a_cap_that_is_not_a_positive_number_is_refused_by_name(name: str, value: float) -> None:
    given: dict[str, Any] = {"full_tokens": 1.0, "max_epochs": 1.0, "shares": {"m": 1.0}}
    if name == "shares.m":
        given["shares"] = {"m": value}
    else:
        given[name] = value
    with pytest.raises(ConfigError, match=f"{name}: not a positive number"):
        EpochCaps(tokens={}, **given)


def test_a_cap_is_the_epochs_of_a_source_less_what_is_read_outside() -> None:
    caps = EpochCaps(
        tokens={"a": 3.0, "b": 2.0},
        full_tokens=10.0,
        max_epochs=2.0,
        shares={"m": 0.25},
        outside={"a": 0.1, "b": 0.5},
    )
    assert caps.limit("a") == pytest.approx(0.5)
    assert caps.limit("b") == 0.0
    assert (caps.share("m"), caps.share("n")) == (0.25, 1.0)


def test_a_mixture_may_read_what_the_least_of_the_others_leaves() -> None:
    spec = SearchSpaceSpec(
        mixtures={
            "x": SimplexSpec(sources=("a", "b", "c"), low={"a": 0.05}),
            "y": SimplexSpec(sources=("a", "c"), low={"a": 0.2, "c": 0.1}),
        }
    )
    caps = EpochCaps(
        tokens={"a": 0.35, "b": 0.6, "c": 0.02},
        full_tokens=1.0,
        max_epochs=1.0,
        shares={"x": 0.75, "y": 0.25},
    )
    # (0.35 - 0.25 * 0.2) / 0.75, 0.6 / 0.75; what y needs of c alone is above the cap.
    assert upper_bounds(spec, "x", caps) == pytest.approx({"a": 0.4, "b": 0.8, "c": 0.0})
    # (0.35 - 0.75 * 0.05) / 0.25 is more than all.
    assert upper_bounds(spec, "y", caps) == pytest.approx({"c": 0.08})
    assert upper_bounds(spec, "x", None) == {}


@pytest.mark.parametrize(
    ("limit", "high", "coupled"),
    [
        (0.999, 1.0, True),
        (1.0, 1.0, False),
        (0.55, 0.6, True),
        (0.6, 0.6, False),
        (0.7, 0.6, False),
    ],
)
def test_a_cap_joins_stages_that_exceed_it_together(
    limit: float, high: float, coupled: bool
) -> None:
    space = staged(limit, high=high)
    assert space.coupled is coupled
    assert space.polytope.rows.tolist() == ([[0.5, 0.0, 0.5, 0.0]] if coupled else [])
    assert space.polytope.limits.tolist() == ([limit] if coupled else [])


@pytest.mark.parametrize("share", [0.55, 0.62, 0.69, 0.78])
def test_a_cap_of_one_stage_alone_is_a_bound_and_joins_nothing(share: float) -> None:
    # With shares of .62, .69 and .78 the share times the bound rounds to more than the cap.
    spec = SearchSpaceSpec(mixtures={"x": PAIR, "y": SimplexSpec(sources=("c", "d"))})
    caps = EpochCaps(
        tokens={"a": 0.1, "c": 0.03},
        full_tokens=1.0,
        max_epochs=1.0,
        shares={"x": share, "y": 1.0 - share},
    )
    space = SearchSpace.build(spec, caps)
    assert not space.coupled
    assert len(space.polytope.rows) == 0
    assert space.polytope.high == pytest.approx([0.1 / share, 1.0, 0.03 / (1.0 - share), 1.0])


def test_groups_are_limits_and_fixed_groups_are_sums() -> None:
    first = SimplexSpec(
        sources=("a", "b", "c"), groups={"g": GroupSpec(sources=("b", "c"), low=0.2, high=0.6)}
    )
    second = SimplexSpec(
        sources=("d", "e", "f"), groups={"h": GroupSpec(sources=("d", "f"), weight=0.3)}
    )
    rate = ParameterSpec(kind="float", low=5.0, high=9.0)
    spec = SearchSpaceSpec(mixtures={"x": first, "y": second}, parameters={"p": rate})
    limits = SearchSpace.build(spec).polytope
    assert limits.rows.tolist() == [[0, 1, 1, 0, 0, 0, 0], [0, -1, -1, 0, 0, 0, 0]]
    assert limits.limits.tolist() == [0.6, -0.2]
    assert limits.sums.tolist() == [
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 0, 1, 0],
    ]
    assert (limits.low[-1], limits.high[-1]) == (0.0, 1.0)


def test_a_shared_cap_that_the_even_centre_keeps_does_not_move_it() -> None:
    free = staged(1.0)
    for limit in (0.6, 0.9):
        space = staged(limit)
        assert space.coupled
        assert space.polytope.violation(space.centre[None])[0] == 0.0
        assert space.centre == pytest.approx(free.centre)


@pytest.mark.parametrize("low", [0.0, 0.05])
def test_a_centre_under_a_tight_shared_cap_has_the_most_slack(low: float) -> None:
    rate = ParameterSpec(kind="float", low=1.0, high=3.0)
    space = staged(0.2, low=low, own={"p": rate})
    # Both weights of a are t above their bound, and 0.2 - a is t times the length of (0.5, 0.5).
    most = low + (0.2 - low) / (1.0 + math.sqrt(0.5))
    assert space.centre == pytest.approx([most, 1.0 - most, most, 1.0 - most, 0.5])


def test_a_fixed_weight_needs_no_slack() -> None:
    early = SimplexSpec(sources=("a", "b", "c"), fixed={"c": 0.3})
    late = SimplexSpec(sources=("a", "b"))
    caps = half_caps(0.2)
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"x": early, "y": late}), caps)
    most = 0.2 / (1.0 + math.sqrt(0.5))
    assert space.centre == pytest.approx([most, 0.7 - most, 0.3, most, 1.0 - most])


def test_each_of_two_shared_caps_has_its_own_slack() -> None:
    stages = {"x": SimplexSpec(sources=tuple("abc")), "y": SimplexSpec(sources=tuple("abc"))}
    caps = EpochCaps(
        tokens={"a": 0.1, "b": 0.3},
        full_tokens=1.0,
        max_epochs=1.0,
        shares={"x": 0.6, "y": 0.4},
    )
    space = SearchSpace.build(SearchSpaceSpec(mixtures=stages), caps)
    least = 0.1 / (1.0 + math.hypot(0.6, 0.4))
    slack = space.polytope.limits - space.polytope.rows @ space.centre
    assert space.centre.min() == pytest.approx(least)
    assert slack.min() >= least * math.hypot(0.6, 0.4) - 1e-9


def test_the_centre_beside_a_fixed_weight_is_the_mean_of_even_mixtures() -> None:
    spec = SimplexSpec(sources=tuple("abcd"), fixed={"c": 0.3}, high={"d": 0.1})
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))
    # d is even below .1, and a and b share the rest.
    assert space.centre == pytest.approx([0.325, 0.325, 0.3, 0.05], abs=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"high": {"a": 1.5}}, "weight of a: not an interval"),
        ({"low": {"b": -0.1}}, "weight of b: not an interval"),
        ({"fixed": {"a": 1.5}}, "weight of a: not an interval"),
        ({"fixed": {"a": 0.5}, "high": {"a": 0.6}}, "fixed.a: a fixed source cannot have bounds too"),
        ({"groups": {"g": GroupSpec(sources=("a",), low=-0.1)}}, "groups.g: not an interval"),
        ({"groups": {"g": GroupSpec(sources=("a",), high=1.5)}}, "groups.g: not an interval"),
        ({"groups": {"g": GroupSpec(sources=("a",), low=0.5, high=0.4)}}, "groups.g: not an interval"),
        ({"groups": {"g": GroupSpec(sources=("z",))}}, "unknown source 'z'"),
        ({"high": {"z": 0.5}}, "unknown source 'z'"),
        ({"fixed": {"z": 0.5}}, "unknown source 'z'"),
    ],
)  # fmt: skip
def test_bounds_that_are_no_interval_of_weights_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        SimplexSpec(sources=("a", "b"), **settings)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_bounds_may_meet_and_lie_at_the_ends(value: float) -> None:
    spec = SimplexSpec(
        sources=("a", "b"),
        low={"a": value},
        high={"a": value},
        groups={"g": GroupSpec(sources=("a",), low=value, high=value)},
    )
    assert spec.bounds("a") == (value, value)
    assert spec.bounds("b") == (0.0, 1.0)
    assert spec.groups["g"].bounds == (value, value)
    assert GroupSpec(sources=("a",), weight=0.25).bounds == (0.25, 0.25)
    assert GroupSpec(sources=("a",)).bounds == (0.0, 1.0)


def test_paths_of_mixtures_and_parameters_are_named_in_order() -> None:
    names = ["b", "f", "a", "e", "d", "c"]
    value = ParameterSpec(kind="int", low=1, high=2)
    with pytest.raises(ConfigError, match=r"\['a', 'b', 'c', 'd', 'e', 'f'\]"):
        SearchSpaceSpec(
            mixtures=dict.fromkeys([*names, "x"], PAIR),
            parameters=dict.fromkeys([*names, "y"], value),
        )
    assert SearchSpaceSpec(mixtures={"x": PAIR}, parameters={"y": value})
    assert SearchSpaceSpec(parameters={"y": value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "float", "low": 1.0}, "float: not a range"),
        ({"kind": "float", "high": 1.0}, "float: not a range"),
        ({"kind": "float", "low": -math.inf, "high": 1.0}, "float: not a range"),
        ({"kind": "float", "low": 1.0, "high": math.inf}, "float: not a range"),
        ({"kind": "float", "low": math.nan, "high": 1.0}, "float: not a range"),
        ({"kind": "int", "low": 3, "high": 2}, "int: not a range"),
        ({"kind": "int", "low": 1, "high": 2.5}, "int: bounds are whole"),
        ({"kind": "int", "low": 1.5, "high": 2}, "int: bounds are whole"),
        ({"kind": "log", "low": -1.0, "high": 2.0}, "log: a logarithmic range begins above 0"),
        ({"kind": "choice", "choices": ("a", "b", "a")}, "choices: need unique values"),
    ],
)
def test_a_range_or_list_that_is_none_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ParameterSpec(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "float", "low": -2.0, "high": -2.0},
        {"kind": "float", "low": -1.5, "high": 2.5},
        {"kind": "int", "low": -3, "high": 0},
        {"kind": "int", "low": 2, "high": 2},
        {"kind": "log", "low": 1e-9, "high": 0.5},
        {"kind": "choice", "choices": ("a",)},
        {"kind": "choice", "choices": (1, True, 1.0)},
    ],
)
def test_a_range_may_be_negative_or_a_single_value(settings: dict[str, Any]) -> None:
    spec = ParameterSpec(**settings)
    parameter = Parameter("p", spec)
    for value in parameter.ends():
        back = parameter.from_unit(parameter.to_unit(value))
        assert back == (pytest.approx(value) if isinstance(value, float) else value)
