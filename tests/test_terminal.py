"""Output shared by the commands."""

from __future__ import annotations

import pytest

from ablations.terminal import count


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (0.0, 4, "0"),
        (614, 3, "614"),
        (819.2, 4, "819.2"),
        (-1_234_567, 4, "-1.235M"),
        (1_048_576, 4, "1.049M"),
        (11e12, 3, "11T"),
        (614_400, 3, "614k"),
        (999_949, 4, "999.9k"),
        (999_950, 4, "1M"),
        (999_500, 3, "1M"),
        (999.96, 3, "1k"),
    ],
)
def test_a_count_has_the_largest_suffix_that_its_rounded_value_reaches(
    number: float, digits: int, text: str
) -> None:
    assert count(number, digits=digits) == text
