"""Compare places, levels and values of a parameter with numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ablations.errors import ConfigError
from sweeps.search.space import Parameter, ParameterSpec

FLOAT = Parameter("p", ParameterSpec(kind="float", low=-1.0, high=3.0))
LOG = Parameter("p", ParameterSpec(kind="log", low=1e-3, high=1e1))
INT = Parameter("p", ParameterSpec(kind="int", low=2, high=5))
CHOICE = Parameter("p", ParameterSpec(kind="choice", choices=("x", "y", "z")))
FIXED = Parameter("p", ParameterSpec(kind="float", low=7.0, high=7.0))


@pytest.mark.parametrize(
    ("parameter", "levels", "ends"),
    [
        (FLOAT, None, (-1.0, 3.0)),
        (LOG, None, (1e-3, 1e1)),
        (INT, 4, (2, 5)),
        (CHOICE, 3, ("x", "y", "z")),
        (FIXED, 1, (7.0,)),
    ],
)
def test_a_parameter_has_its_levels_and_its_ends(
    parameter: Parameter, levels: int | None, ends: tuple[Any, ...]
) -> None:
    assert parameter.levels == levels
    assert parameter.ends() == pytest.approx(ends) if parameter is LOG else parameter.ends() == ends


@pytest.mark.parametrize(
    ("parameter", "place", "value"),
    [
        (FLOAT, 0.25, 0.0),
        (FLOAT, 1.5, 3.0),
        (FLOAT, -0.5, -1.0),
        (LOG, 0.25, 1e-2),
        (LOG, 0.75, 1.0),
        (LOG, 2.0, 1e1),
        (LOG, -1.0, 1e-3),
        (INT, 0.0, 2),
        (INT, 0.249, 2),
        (INT, 0.25, 3),
        (INT, 0.74, 4),
        (INT, 1.0, 5),
        (CHOICE, 0.33, "x"),
        (CHOICE, 0.34, "y"),
        (CHOICE, 1.0, "z"),
        (FIXED, 0.9, 7.0),
    ],
)
def test_a_place_has_its_value(parameter: Parameter, place: float, value: Any) -> None:
    found = parameter.from_unit(place)
    assert found == (pytest.approx(value) if isinstance(value, float) else value)
    assert type(found) is type(value)


@pytest.mark.parametrize("low", [0.1, 0.3, 0.7, 1e-3, 3e-5])
def test_a_logarithmic_place_never_rounds_out_of_its_range(low: float) -> None:
    for high in (low * 3.0, 0.9, 1.7, 13.0):
        parameter = Parameter("p", ParameterSpec(kind="log", low=low, high=high))
        places = np.linspace(0.0, 1.0, 7)
        values = [float(parameter.from_unit(place)) for place in places]
        assert low <= values[0] == min(values)
        assert max(values) == values[-1] <= high
        assert (values[0], values[-1]) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("parameter", "value", "place"),
    [
        (FLOAT, 0.0, 0.25),
        (FLOAT, 2.5, 0.875),
        (LOG, 1e-2, 0.25),
        (LOG, 1.0, 0.75),
        (INT, 2, 0.125),
        (INT, 5, 0.875),
        (INT, 3.0000000001, 0.375),
        (CHOICE, "x", 1 / 6),
        (CHOICE, "z", 5 / 6),
        (FIXED, 7.0, 0.5),
    ],
)
def test_a_value_has_its_place(parameter: Parameter, value: Any, place: float) -> None:
    assert parameter.to_unit(value) == pytest.approx(place)


@pytest.mark.parametrize(
    ("low", "high", "value", "allowed"),
    [
        # A billionth of the upper end, and at least a billionth.
        (0.0, 1000.0, 1000.0 + 5e-7, True),
        (0.0, 1000.0, 1000.0 + 2e-6, False),
        (0.0, 1000.0, -5e-7, True),
        (0.0, 1000.0, -2e-6, False),
        (0.0, 1.0, 1.0 + 0.9e-9, True),
        (0.0, 1.0, 1.0 + 1.5e-9, False),
        (0.0, 1.0, -1e-9, True),
        (-1.0, 0.0, 1e-9, True),
        (-1.0, 0.0, 1.5e-9, False),
        (0.0, 0.1, 0.1 + 0.8e-9, True),
        (-2000.0, -1000.0, -1000.0 + 5e-7, True),
        (-2000.0, -1000.0, -1000.0 + 2e-6, False),
        (0.0, 1.0, math.nan, False),
    ],
)
def test_a_value_beyond_its_range_by_rounding_alone_has_the_place_of_the_end(
    low: float, high: float, value: float, allowed: bool
) -> None:
    parameter = Parameter("p", ParameterSpec(kind="float", low=low, high=high))
    if allowed:
        assert parameter.to_unit(value) == (0.0 if value < low else 1.0)
    else:
        with pytest.raises(ConfigError, match="p: outside the range"):
            parameter.to_unit(value)


def test_a_logarithmic_value_beyond_its_range_by_rounding_has_the_place_of_the_end() -> None:
    parameter = Parameter("p", ParameterSpec(kind="log", low=2.0, high=4.0))
    assert parameter.to_unit(2.0 - 1e-9) == 0.0
    assert parameter.to_unit(4.0 + 1e-9) == 1.0


def test_a_value_that_is_no_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="p: not a choice"):
        CHOICE.to_unit("w")


@pytest.mark.parametrize(
    ("parameter", "value", "nearest"),
    [
        (FLOAT, 0.5, 0.5),
        (FLOAT, 9, 3.0),
        (FLOAT, -9.0, -1.0),
        (FLOAT, math.inf, 3.0),
        (FLOAT, math.nan, 1.0),
        (FLOAT, True, 1.0),
        (FLOAT, "2", 1.0),
        (FLOAT, None, 1.0),
        (LOG, "a", 1e-1),
        (INT, 3.4, 3),
        (INT, 4.6, 5),
        (INT, 0, 2),
        (INT, False, 4),
        (CHOICE, "z", "z"),
        (CHOICE, "w", "y"),
    ],
)
def test_the_nearest_value_is_inside_and_the_middle_stands_for_what_is_no_number(
    parameter: Parameter, value: object, nearest: Any
) -> None:
    found = parameter.nearest(value)
    assert found == (pytest.approx(nearest) if isinstance(nearest, float) else nearest)
    assert isinstance(found, type(nearest))


def test_true_is_no_number_although_it_equals_one() -> None:
    wide = Parameter("p", ParameterSpec(kind="float", low=0.0, high=10.0))
    assert wide.nearest(True) == 5.0
    assert wide.nearest(1) == 1.0


def test_places_of_levels_are_their_middles_and_others_stay() -> None:
    places = np.array([0.0, 0.2, 0.26, 0.5, 0.99, 1.0])
    assert INT.snap(places).tolist() == [0.125, 0.125, 0.375, 0.625, 0.875, 0.875]
    assert FIXED.snap(places).tolist() == [0.5] * 6
    assert FLOAT.snap(places).tolist() == places.tolist()
    assert INT.inputs(places)[:, 0].tolist() == INT.snap(places).tolist()
    assert LOG.inputs(places).tolist() == places[:, None].tolist()


def test_a_choice_is_an_indicator_of_each_value() -> None:
    found = CHOICE.inputs(np.array([0.0, 0.3, 0.4, 0.9, 1.0]))
    x, y, z = np.eye(3).tolist()
    assert found.tolist() == [x, x, y, z, z]
