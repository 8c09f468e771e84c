"""Item noise: paired, separated from training noise, never counted twice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sweeps.verdict.item_noise import (
    hierarchical_bootstrap,
    item_covariance,
    paired_error,
    permutation_p,
)


def draw(
    rng: np.random.Generator, seeds: int, items: int, liked: float, rest: float
) -> tuple[np.ndarray, np.ndarray]:
    hard = 5.0 * rng.standard_normal(items)
    mine = liked * rng.standard_normal((2, items))
    candidate = np.repeat([0, 1], seeds)
    return (
        hard + mine[candidate] + rest * rng.standard_normal((2 * seeds, items)),
        candidate,
    )


def test_what_is_hard_for_all_cancels() -> None:
    table, candidate = draw(np.random.default_rng(0), 1, 4000, liked=0.0, rest=0.1)
    covariance, df = item_covariance([table], [1.0], candidate)
    contrast = np.array([1.0, -1.0])
    assert math.sqrt(contrast @ covariance @ contrast) == pytest.approx(
        0.1 * math.sqrt(2 / 4000), rel=0.1
    )
    assert df == 3999


def test_noise_of_single_answers_is_left_to_the_seeds() -> None:
    rng = np.random.default_rng(1)
    contrast = np.array([1.0, -1.0])
    found = []
    for _ in range(50):
        table, candidate = draw(rng, 3, 400, liked=1.0, rest=2.0)
        covariance, _ = item_covariance([table], [1.0], candidate)
        found.append(contrast @ covariance @ contrast)
    assert np.mean(found) == pytest.approx(2.0 / 400, rel=0.1)


def test_a_missing_item_is_left_out_of_all_runs() -> None:
    table, candidate = draw(np.random.default_rng(2), 2, 100, liked=1.0, rest=1.0)
    holed = table.copy()
    holed[1, 7] = math.nan
    whole = np.delete(table, 7, axis=1)
    ours, theirs = (item_covariance([t], [1.0], candidate) for t in (holed, whole))
    assert ours[0] == pytest.approx(theirs[0])
    assert ours[1] == 98.0


def test_pairing_makes_the_error_smaller() -> None:
    table, _ = draw(np.random.default_rng(3), 1, 1000, liked=0.5, rest=0.0)
    _, error, count = paired_error(table[0], table[1])
    unpaired = math.sqrt(table[0].var(ddof=1) / 1000 + table[1].var(ddof=1) / 1000)
    assert count == 1000
    assert unpaired / error > 8


def test_the_bootstrap_shows_the_whole_variance_of_two_seeds() -> None:
    items, rng = 60, np.random.default_rng(4)
    spreads = []
    for _ in range(60):
        first, second = (rng.standard_normal((2, 1)) + np.zeros((2, items)) for _ in range(2))
        spreads.append(hierarchical_bootstrap([first], [second], [1.0], draws=400).var())
    # Two means of two seeds, SD 1 each: 1/2 + 1/2. Plain resampling would show a half of that.
    assert np.mean(spreads) == pytest.approx(1.0, rel=0.25)


def test_the_bootstrap_adds_declared_noise_where_there_is_one_seed() -> None:
    first, second = np.ones((1, 50)), np.zeros((1, 50))
    draws = hierarchical_bootstrap([first], [second], [1.0], run_sd=0.3, draws=4000)
    assert draws.mean() == pytest.approx(1.0, abs=0.03)
    assert draws.std() == pytest.approx(0.3 * math.sqrt(2), rel=0.05)


def test_the_permutation_test_is_exact() -> None:
    assert permutation_p(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])) == pytest.approx(0.1)
    assert permutation_p(np.array([1.0]), np.array([2.0])) == 1.0
    assert permutation_p(np.zeros(30), np.ones(30)) is None


def test_items_of_one_passage_count_as_one_draw() -> None:
    rng, contrast, found, real = np.random.default_rng(5), np.array([1.0, -1.0]), [], []
    group = np.repeat(np.arange(40), 5)
    for _ in range(60):
        liked = np.repeat(rng.standard_normal((2, 40)), 5, axis=1)
        table = 5.0 * rng.standard_normal(200) + np.repeat(liked, 3, axis=0)
        table += 2.0 * rng.standard_normal(table.shape)
        covariance, df = item_covariance([table], [1.0], np.repeat([0, 1], 3), [group])
        assert df == 39.0
        found.append(contrast @ covariance @ contrast)
        real.append(liked[0].mean() - liked[1].mean())
    assert np.mean(found) == pytest.approx(2.0 / 40, rel=0.15)
    assert np.var(real) == pytest.approx(np.mean(found), rel=0.5)


@pytest.mark.parametrize("group", [np.arange(100), np.zeros(100, dtype=np.int64), None])
def test_groups_that_group_nothing_change_nothing(group: np.ndarray | None) -> None:
    table, candidate = draw(np.random.default_rng(6), 3, 100, liked=1.0, rest=1.0)
    grouped, plain = (item_covariance([table], [1.0], candidate, [g]) for g in (group, None))
    assert grouped[0] == pytest.approx(plain[0])
    assert grouped[1] == plain[1]


def test_pairs_and_bootstrap_draw_whole_groups_too() -> None:
    rng, group = np.random.default_rng(7), np.repeat(np.arange(30), 10)
    first = np.repeat(rng.standard_normal(30), 10)
    second = np.zeros(300)
    _, error, count = paired_error(first, second, group)
    assert count == 300
    assert error == pytest.approx(first[::10].std(ddof=1) / math.sqrt(30))
    assert error > 2.5 * paired_error(first, second)[1]
    sides = ([first[None, :]], [second[None, :]], [1.0])
    drawn = hierarchical_bootstrap(*sides, groups=[group], draws=3000)
    assert drawn.std() == pytest.approx(error, rel=0.1)
    assert hierarchical_bootstrap(*sides, draws=3000).std() < 0.5 * error
