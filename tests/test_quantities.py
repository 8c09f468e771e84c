"""Quantities are printed in units that a person reads."""

from __future__ import annotations

import pytest

from ablations.quantities import byte_size, clock, count, device_time, duration, memory_size


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


@pytest.mark.parametrize(
    ("number", "text"), [(76_800, "76.8k"), (0.5, "0.5"), (2e15, "2,000T"), (1e-7, "1.0e-07")]
)
def test_a_count_is_never_written_with_an_exponent_that_is_not_needed(
    number: float, text: str
) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (12_340, "12.3 kB"),
        (999_600, "1 MB"),
        (13_100_000, "13.1 MB"),
        (5.04e12, "5.04 TB"),
        (3e18, "3,000 PB"),
    ],
)
def test_bytes_are_shown_in_the_largest_unit_that_they_fill(size: float, text: str) -> None:
    assert byte_size(size) == text


def test_memory_is_shown_in_binary_units() -> None:
    assert memory_size(6.25 * 2**30) == "6.25 GiB"
    assert memory_size(300 * 2**20) == "300 MiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 seconds"),
        (36.04, "36 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (93_600, "26 hours"),
        (86_400 * 365 * 2130, "2,130 years"),
    ],
)
def test_a_time_is_shown_in_the_unit_of_a_person(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.01, "36 seconds of one device"),
        (1.5, "1.5 device-hours"),
        (26_880, "26,880 device-hours"),
    ],
)
def test_the_time_of_devices_is_readable_at_any_size(hours: float, text: str) -> None:
    assert device_time(hours) == text


def test_a_clock_has_hours_where_there_are_some() -> None:
    assert (clock(59.6), clock(123), clock(3723)) == ("1:00", "2:03", "1:02:03")
