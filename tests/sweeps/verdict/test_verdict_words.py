"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from sweeps.verdict.words import number


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.012345, "0.0123"), (-3.0, "-3"), (1.1e-16, "0"), (None, "–"), (math.nan, "–")],
)
def test_a_number_is_short_and_rounding_is_no_difference(value: float | None, shown: str) -> None:
    assert number(value) == shown
