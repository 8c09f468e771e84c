"""Numbers as text, and caveats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sweeps.verdict.contrasts import Evidence
from sweeps.verdict.messages import number, selection_caveats
from sweeps.verdict.p_values import p_equals, p_value
from sweeps.verdict.training_noise import TrainingNoise


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.012345, "0.0123"), (-3.0, "-3"), (1.1e-16, "0"), (None, "–"), (math.nan, "–")],
)
def test_a_number_is_short_and_rounding_is_no_difference(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("p", "cell", "sentence"),
    [
        (0.0123, "0.012", "p = 0.012"),
        (1.0, "1", "p = 1"),
        (1e-4, "0.0001", "p = 0.0001"),
        (9.9e-5, "< 0.0001", "p < 0.0001"),
        (0.0, "< 0.0001", "p < 0.0001"),
        (math.nan, "–", "p = –"),
    ],
)
def test_a_p_value_is_never_zero(p: float, cell: str, sentence: str) -> None:
    assert p_value(p) == cell
    assert p_equals(p) == sentence
    assert p_value(None) == "–"


def test_many_candidates_without_fresh_seeds_are_asked_to_be_confirmed() -> None:
    def caveats(count: int, confirmed: bool = False) -> str:
        evidence = Evidence(
            names=tuple(map(str, range(count))),
            means=np.zeros(count),
            unit=np.eye(count),
            noise=TrainingNoise.unknown(),
        )
        return " ".join(selection_caveats(evidence, confirmed))

    assert "With 16 candidates and no fresh seeds, confirm the best" in caveats(16)
    assert "confirm the best" not in caveats(15)
    assert caveats(16, confirmed=True) == ""
