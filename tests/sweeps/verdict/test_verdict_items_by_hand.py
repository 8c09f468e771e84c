"""Check item noise by hand: few items, unequal runs, groups, holes and both sides of each limit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sweeps.verdict import item_noise
from sweeps.verdict.covariance import Covariance
from sweeps.verdict.item_noise import (
    hierarchical_bootstrap,
    item_covariance,
    paired_error,
    permutation_p,
)

ONE = np.array([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 9.0, 9.0]])
"""One run of each of two candidates: variances 14 / 3 and 16 / 3, covariance 12 / 3."""
BOTH = np.array([0, 1])
NAN = math.nan


def dense(
    tables: list[np.ndarray], weights: list[float], **given: object
) -> tuple[np.ndarray, float]:
    found, df = item_covariance(tables, weights, BOTH, **given)  # type: ignore[arg-type]
    return (found.dense() if isinstance(found, Covariance) else found), df


def test_one_run_each_has_the_covariance_of_its_items() -> None:
    found, df = dense([ONE], [2.0])
    assert found == pytest.approx(np.array([[14.0, 12.0], [12.0, 16.0]]) / 3.0)
    assert df == 3.0
    assert dense([ONE], [-2.0])[0] == pytest.approx(found)


def test_tasks_add_up_and_the_one_with_fewest_items_counts() -> None:
    two, hole = ONE[:, 1:3], np.array([[1.0, NAN, 7.0, 6.0], [NAN, 2.0, 9.0, 2.0]])
    alone, df = dense([two], [1.0])
    assert df == 1.0
    assert alone == pytest.approx(np.array([[0.25, 1.0], [1.0, 4.0]]))
    found, df = dense([ONE, two, ONE[:, :1], two], [2.0, 1.0, 5.0, 0.0])
    assert found == pytest.approx(dense([ONE], [2.0])[0] + alone)
    assert df == 1.0
    assert dense([two, ONE], [1.0, 2.0])[1] == 1.0
    # Only the last two items are in both runs.
    assert dense([hole], [1.0])[0] == pytest.approx(dense([hole[:, 2:]], [1.0])[0])
    assert dense([ONE, ONE[:, :1]], [1.0, 1.0])[1] == 3.0
    assert dense([ONE, two], [1.0, 0.0])[1] == 3.0
    assert dense([ONE[:, :1]], [1.0])[1] == math.inf


def test_groups_count_as_drawn_with_the_sum_of_their_items() -> None:
    group = np.array([7, 7, 2, 9])
    # Deviations -2 -1 0 3 and -2 -2 2 2 summed by group, over 4 / 3 items a group.
    expected = np.array([[1.6875, 1.6875], [1.6875, 2.25]])
    found, df = dense([ONE], [1.0], groups=[group])
    assert found == pytest.approx(expected)
    assert df == 2.0
    mean, error, count = paired_error(ONE[0], np.zeros(4), group)
    assert (mean, count) == (3.0, 4)
    assert error == pytest.approx(math.sqrt(1.6875))
    halves = paired_error(ONE[0], np.zeros(4), np.array([0, 0, 1, 1]))
    assert halves[1] == pytest.approx(1.5)
    holed = np.array([1.0, 2.0, 3.0, NAN, 6.0])
    assert paired_error(holed, np.zeros(5), np.array([7, 7, 2, 7, 9])) == pytest.approx(
        (mean, error, count)
    )


UNEQUAL = np.array([[-1.5, 0.5, 7.0, 2.0], [4.5, 2.5, 5.0, 4.0], [0.0, 18.0, 6.0, 8.0]])
"""Two runs of the first candidate and one of the second. What is left of a run varies with 16 / 3."""


@pytest.mark.parametrize(("most", "second"), [(2, 14.0 - 4.0 / 3.0), (1, 14.0 - 2.0 / 3.0)])
def test_what_a_run_adds_is_subtracted_by_its_runs_and_of_many_by_the_most_runs(
    monkeypatch: pytest.MonkeyPatch, most: int, second: float
) -> None:
    monkeypatch.setattr(item_noise, "MOST_DENSE", most)
    found, df = item_covariance([UNEQUAL], [1.0], np.array([0, 0, 1]))
    assert isinstance(found, Covariance) == (most == 1)
    whole = found.dense() if isinstance(found, Covariance) else found
    expected = [[1.125 - 2.0 / 3.0, -0.75], [-0.75, second]]
    assert whole == pytest.approx(np.array(expected))
    assert df == 3.0


@pytest.mark.parametrize("most", [2, 1])
def test_what_is_subtracted_never_leaves_a_negative_variance(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(item_noise, "MOST_DENSE", most)
    table = UNEQUAL.copy()
    table[:2] -= 0.9 * UNEQUAL[:2].mean(axis=0)
    table[2] *= 0.5
    found, _ = item_covariance([table], [1.0], np.array([0, 0, 1]))
    whole = found.dense() if isinstance(found, Covariance) else found
    values = np.linalg.eigvalsh(whole)
    assert values[0] == pytest.approx(0.0, abs=1e-12)
    assert 2.0 < values[1] < 3.5


def test_a_pair_of_runs_needs_two_items_that_both_have() -> None:
    first, second = np.array([1.0, 4.0, NAN, 7.0]), np.array([0.0, 1.0, 5.0, NAN])
    assert paired_error(first, second) == pytest.approx((2.0, 1.0, 2))
    mean, error, count = paired_error(first[1:], second[1:])
    assert math.isnan(mean)
    assert math.isnan(error)
    assert count == 1
    found = paired_error(ONE[0], np.zeros(4))
    assert found == pytest.approx((3.0, math.sqrt(14.0 / 3.0) / 2.0, 4))
    assert paired_error(np.zeros(4), ONE[0])[0] == -3.0


OFFSETS = np.array([[0.0], [1.0], [5.0]]) + np.zeros((3, 6))
"""Three seeds that answer all six items alike."""


def test_seeds_are_drawn_together_only_if_they_are_the_same() -> None:
    def drawn(first: np.ndarray, second: np.ndarray, **given: object) -> np.ndarray:
        return hierarchical_bootstrap([first], [second], [1.0], **given)  # type: ignore[arg-type]

    together = drawn(OFFSETS, OFFSETS, shared_seeds=True)
    assert together == pytest.approx(np.zeros(2000), abs=1e-12)
    apart = drawn(OFFSETS, OFFSETS)
    assert apart.std() > 0.5
    assert apart.tolist() == drawn(OFFSETS, OFFSETS, shared_seeds=False, seed=0).tolist()
    assert len(apart) == 2000
    assert drawn(OFFSETS, OFFSETS[:2], shared_seeds=True).std() > 0.5


def test_the_bootstrap_is_about_the_weighted_difference_of_the_means() -> None:
    first = [OFFSETS + np.arange(6.0), OFFSETS]
    second = [np.zeros((3, 6)), OFFSETS + 4.0]
    draws = hierarchical_bootstrap(first, second, [0.5, -0.25], draws=6000)
    # 0.5 * (2 + 2.5) and -0.25 * -4.
    assert draws.mean() == pytest.approx(3.25, abs=0.05)


def test_an_item_that_any_run_lacks_is_not_drawn() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.standard_normal((2, 3, 5))
    holed_first, holed_second = first.copy(), second.copy()
    holed_first[1, 0], holed_second[2, 4] = NAN, NAN
    kept = [side[:, 1:4] for side in (first, second)]
    groups = np.array([3, 1, 1, 2, 3])
    for group, own in ((None, None), ([groups], [groups[1:4]])):
        found = hierarchical_bootstrap([holed_first], [holed_second], [1.0], groups=group)
        expected = hierarchical_bootstrap([kept[0]], [kept[1]], [1.0], groups=own)
        assert found == pytest.approx(expected)


def test_one_item_is_drawn_whole() -> None:
    found = hierarchical_bootstrap([np.array([[3.0]])], [np.array([[1.0]])], [1.0], draws=5)
    assert found.tolist() == [2.0] * 5


@pytest.mark.parametrize(
    ("seeds", "sd"), [((1, 1), 0.3 * math.sqrt(2.0)), ((1, 3), 0.3), ((2, 2), 0.0)]
)
def test_only_a_side_with_one_run_gets_the_declared_noise(
    seeds: tuple[int, int], sd: float
) -> None:
    first, second = (np.ones((count, 4)) for count in seeds)
    draws = hierarchical_bootstrap([first], [second], [1.0], run_sd=0.3, draws=8000)
    assert draws.std() == pytest.approx(sd, rel=0.03, abs=1e-12)


def test_the_declared_noise_is_added_as_it_is_drawn() -> None:
    sides = [np.arange(4.0)[None, :]], [np.ones((1, 4))], [1.0]
    plain = hierarchical_bootstrap(*sides, draws=3)
    noise = hierarchical_bootstrap(*sides, run_sd=1.0, draws=3) - plain
    again = np.random.default_rng(0)
    for _ in range(2):
        again.multinomial(1, [1.0], size=3)
    again.multinomial(4, [0.25] * 4, size=3)
    assert noise == pytest.approx(again.normal(0.0, math.sqrt(2.0), 3))


def test_every_seed_is_drawn_as_often() -> None:
    found = item_noise._seed_weights(3, 9000, np.random.default_rng(0))
    assert found.sum(axis=1) == pytest.approx(np.ones(9000))
    assert found.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.01)


def test_every_item_and_every_group_is_drawn_as_often() -> None:
    rng = np.random.default_rng(0)
    alone = item_noise._item_draws(4, None, 9000, rng)
    assert alone.mean(axis=0) == pytest.approx([0.25] * 4, abs=0.01)
    grouped = item_noise._item_draws(4, np.array([5, 3, 5, 8]), 9000, rng)
    assert grouped.sum(axis=1) == pytest.approx(np.ones(9000))
    assert (grouped[:, 0] == grouped[:, 2]).all()
    assert grouped[:, 1].mean() == pytest.approx(grouped[:, 3].mean(), abs=0.01)
    shared = item_noise._item_draws(4, np.array([5, 5, 5, 5]), 9000, rng)
    assert shared.std(axis=0).min() > 0.1


def test_seeds_are_moved_away_from_the_mean_of_each_item() -> None:
    runs = np.array([[0.0, 1.0], [0.0, 4.0], [9.0, 1.0]])
    far = math.sqrt(1.5)
    expected = [[3.0 - 3.0 * far, 2.0 - far], [3.0 - 3.0 * far, 2.0 + 2.0 * far]]
    expected.append([3.0 + 6.0 * far, 2.0 - far])
    assert item_noise._spread(runs) == pytest.approx(np.array(expected))
    assert item_noise._spread(runs[:1]).tolist() == [[0.0, 1.0]]
    assert item_noise._spread(runs[1:, :1]) == pytest.approx(
        4.5 + math.sqrt(2.0) * np.array([[-4.5], [4.5]])
    )


def test_the_permutation_test_of_unequal_sides_by_hand() -> None:
    # Of ten splits two are as far apart, of five three, and of six four.
    assert permutation_p(np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])) == pytest.approx(0.2)
    assert permutation_p(np.array([5.0]), np.array([1.0, 2.0, 3.0, 5.0])) == pytest.approx(0.6)
    assert permutation_p(np.array([4.0, 1.0]), np.array([5.0, 2.0])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("scale", [2.0**-10, 1.0, 2.0**23])
def test_the_permutation_test_does_not_depend_on_the_unit(scale: float) -> None:
    """Mirrored splits are equally far apart, however the sums are rounded."""
    for third in (0.3, 0.55, 0.91):
        first, second = np.array([0.1, 0.2, third]), np.array([0.1, 0.2, third]) + 2.0
        assert permutation_p(scale * first, scale * second) == pytest.approx(0.1)
        assert permutation_p(scale * second, scale * first) == pytest.approx(0.1)


def test_the_most_splits_are_still_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    monkeypatch.setattr(item_noise, "_MOST_SPLITS", 20)
    assert permutation_p(first, second) == pytest.approx(0.1)
    monkeypatch.setattr(item_noise, "_MOST_SPLITS", 19)
    assert permutation_p(first, second) is None
