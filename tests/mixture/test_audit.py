"""Compare audits of windows and of rows with numbers worked out by hand, on both sides of their limits."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.errors import AuditError
from ablations.mixture.audit import Audit, WindowCounts, audit, audit_rows
from ablations.mixture.mixture import Mixture
from ablations.mixture.sampler import Placement
from ablations.mixture.schedule import Schedule, Stage


def schedule_of(*weights: dict[str, float], steps: int = 100) -> Schedule:
    stages = tuple(
        Stage(name=f"s{number}", steps=steps, mixture=Mixture(own))
        for number, own in enumerate(weights)
    )
    return Schedule(stages=stages, sequence_length=8, batch_size=1)


def audited(counts: list[int], weights: dict[str, float], tolerance: float = 1e-3) -> Audit:
    return audit(schedule_of(weights), np.array([counts]), {}, tolerance=tolerance)


# ------------------------------------------------------------------------------------------- windows


def test_a_counter_goes_on_from_the_counts_that_it_is_given() -> None:
    counts = WindowCounts(schedule_of({"x": 0.5, "y": 0.5}), np.array([[5, 7]]))
    few = np.array([0, 0, 0], dtype=np.int32)
    sources = np.array([1, 1, 0], dtype=np.int32)
    counts.add(Placement(few, sources, few, few.astype(np.int64)))
    assert counts.array.tolist() == [[6, 9]]


def test_a_stage_that_was_not_reached_is_left_out_and_epochs_count_all_stages() -> None:
    schedule = schedule_of({"x": 0.25, "y": 0.75}, {"x": 0.5, "y": 0.5}, {"x": 1.0})
    counts = np.array([[25, 75], [40, 40], [0, 0]])
    found = audit(schedule, counts, {"x": 130}, tolerance=1e-3)
    assert found.ok
    assert [(row.stage, row.source, row.windows, row.tokens) for row in found.stages] == [
        ("s0", "x", 25, 200),
        ("s0", "y", 75, 600),
        ("s1", "x", 40, 320),
        ("s1", "y", 40, 320),
    ]
    assert found.epochs == {"x": 0.5, "y": 0.0}
    found.require()


def test_epochs_of_a_run_are_summed_over_its_stages_and_not_over_its_sources() -> None:
    schedule = schedule_of({"x": 0.25, "y": 0.75}, {"x": 0.5, "y": 0.5})
    found = audit(schedule, np.array([[10, 30], [8, 8]]), {"x": 36, "y": 19}, tolerance=1e-3)
    assert found.epochs == {"x": 0.5, "y": 2.0}


@pytest.mark.parametrize(
    ("counts", "weights", "tolerance", "ok"),
    [
        # Of 16 windows the sampler may miss log2(16) / 2 + 2 = 4: a quarter.
        ([0, 16], {"x": 0.5, "y": 0.5}, 0.25, True),
        ([0, 16], {"x": 0.5, "y": 0.5}, 0.2499, False),
        # Of 4 windows it may miss 3.
        ([0, 4], {"x": 0.875, "y": 0.125}, 0.125, True),
        ([0, 4], {"x": 0.875, "y": 0.125}, 0.1249, False),
        # Of 3 windows it may miss 2.79, which is less than 0.99 of them.
        ([0, 3], {"x": 0.99, "y": 0.01}, 1e-3, False),
        ([0, 3], {"x": 0.93, "y": 0.07}, 1e-3, True),
    ],
)
def test_few_windows_are_judged_by_what_the_sampler_can_do(
    counts: list[int], weights: dict[str, float], tolerance: float, ok: bool
) -> None:
    assert audited(counts, weights, tolerance).ok is ok


def test_a_source_without_weight_may_be_there_and_not_be_read() -> None:
    weights = {"x": 0.75, "y": 0.25, "z": 0.0}
    assert audited([75, 25, 0], weights).ok
    for read in (1, 2):
        assert not audited([75, 25 - read, read], weights).ok


def test_a_failure_names_the_row_with_the_largest_gap() -> None:
    found = audited([400, 300, 300], {"x": 0.7, "y": 0.2, "z": 0.1}, tolerance=0.01)
    assert found.worst.source == "x"
    with pytest.raises(AuditError, match=r"stage 's0' read 40\.0000% of its tokens from 'x'"):
        found.require()


# ---------------------------------------------------------------------------------------------- rows


def rows_audited(
    rows: list[int], tokens: list[int], weights: dict[str, float], unit: str = "samples"
) -> Audit:
    return audit_rows(
        schedule_of(weights), np.array([rows]), np.array([tokens]), {}, unit=unit, longest=20
    )


def test_shares_of_samples_and_of_tokens_are_each_the_other_of_the_other() -> None:
    weights = {"x": 0.75, "y": 0.25}
    found = rows_audited([3, 1], [30, 70], weights)
    assert found.ok
    assert found.tolerance == pytest.approx(0.25)
    assert [(row.realised, row.realised_other) for row in found.stages] == [
        (0.75, 0.3),
        (0.25, 0.7),
    ]
    assert [(row.asked, row.tokens, row.windows) for row in found.stages] == [
        (0.75, 30, 3),
        (0.25, 70, 1),
    ]
    other = rows_audited([1, 3], [75, 25], weights, unit="tokens")
    assert other.ok
    assert other.tolerance == pytest.approx(0.2)
    assert [(row.realised, row.realised_other) for row in other.stages] == [
        (0.75, 0.25),
        (0.25, 0.75),
    ]
    assert [row["realised_other"] for row in other.to_json()["stages"]] == [0.25, 0.75]


@pytest.mark.parametrize(
    ("rows", "ok"),
    [([2, 2], True), ([3, 1], True), ([1, 3], True), ([4, 0], False), ([0, 4], False)],
)
def test_shares_of_samples_are_exact_within_one_row(rows: list[int], ok: bool) -> None:
    assert rows_audited(rows, [10, 10], {"x": 0.5, "y": 0.5}).ok is ok


@pytest.mark.parametrize(
    ("tokens", "ok"), [([120, 80], True), ([121, 79], False), ([80, 120], True), ([79, 121], False)]
)
def test_shares_of_tokens_are_exact_within_the_longest_row(tokens: list[int], ok: bool) -> None:
    assert rows_audited([5, 5], tokens, {"x": 0.5, "y": 0.5}, unit="tokens").ok is ok


def test_one_source_far_below_its_share_fails_though_the_others_are_near_theirs() -> None:
    assert not rows_audited([4, 3, 3], [1, 1, 1], {"x": 0.6, "y": 0.2, "z": 0.2}).ok
    assert rows_audited([5, 3, 2], [1, 1, 1], {"x": 0.6, "y": 0.2, "z": 0.2}).ok


def test_rows_of_a_source_without_weight_fail_the_audit_within_its_tolerance_too() -> None:
    weights = {"x": 0.9, "y": 0.1, "z": 0.0}
    assert rows_audited([9, 1, 0], [9, 1, 0], weights).ok
    assert not rows_audited([9, 0, 1], [9, 0, 1], weights).ok
    assert not rows_audited([8, 0, 2], [8, 0, 2], weights).ok


def test_a_single_row_is_all_that_was_read() -> None:
    found = rows_audited([1, 0], [1, 0], {"x": 0.4, "y": 0.6})
    assert found.ok
    assert [row.realised for row in found.stages] == [1.0, 0.0]
    assert [row.realised_other for row in found.stages] == [1.0, 0.0]
    assert found.tolerance == pytest.approx(1.0)


@pytest.mark.parametrize("unit", ["samples", "tokens"])
def test_rows_of_which_the_loss_counts_no_token_have_no_share_of_tokens(unit: str) -> None:
    found = rows_audited([2, 2], [0, 0], {"x": 0.5, "y": 0.5}, unit=unit)
    shares = [(row.realised, row.realised_other) for row in found.stages]
    assert shares == [(0.5, 0.0)] * 2 if unit == "samples" else shares == [(0.0, 0.5)] * 2
    assert found.tolerance == pytest.approx(0.25 if unit == "samples" else 20.0)


def test_rows_of_all_stages_count_and_a_stage_that_was_not_reached_does_not() -> None:
    schedule = schedule_of({"x": 0.25, "y": 0.75}, {"x": 0.5, "y": 0.5}, {"x": 1.0})
    rows, tokens = np.array([[10, 30], [1, 1], [0, 0]]), np.array([[5, 5], [2, 3], [0, 0]])
    have = {"x": 22, "y": 62}
    found = audit_rows(schedule, rows, tokens, have, unit="samples", longest=9)
    assert found.ok
    assert [row.stage for row in found.stages] == ["s0", "s0", "s1", "s1"]
    assert found.epochs == {"x": 0.5, "y": 0.5}
    assert found.tolerance == pytest.approx(0.5)
    assert audit_rows(schedule, rows, tokens, {}, unit="samples", longest=9).epochs == {
        "x": 0.0,
        "y": 0.0,
    }
