"""Compare chosen rows, baselines and replaced points with choices worked out by hand or over all subsets."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from sweeps.search.designs import DESIGNS, DesignOptions, baselines, design, distances, distinct
from sweeps.search.designs import levels as levels_module
from sweeps.search.designs.d_optimal import _with, d_optimal, maximin
from sweeps.search.designs.design import _sobol, blending
from sweeps.search.designs.levels import balanced, spread
from sweeps.search.space import (
    EpochCaps,
    Floats,
    ParameterSpec,
    SearchSpace,
    SearchSpaceSpec,
    SimplexSpec,
)

LINE = np.array([0.0, 1.0, 4.0, 9.0, 10.0])


class Counting(SearchSpace):
    """Space that notes how many draws it is asked for, and how far neighbours are."""

    asked: list[tuple[str, int]] = []  # noqa: RUF012

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        self.asked.append(("sample", n))
        return super().sample(n, rng)

    def edges(self, n: int, rng: np.random.Generator) -> Floats:
        self.asked.append(("edges", n))
        return super().edges(n, rng)


def mixture(sources: str = "abc", **given: Any) -> SearchSpace:
    return SearchSpace.build(
        SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=tuple(sources), **given)})
    )


def on_a_line(*taken: float) -> tuple[Floats, Floats]:
    others = np.array(taken).reshape(1, -1)
    return np.abs(LINE[:, None] - LINE[None]), np.abs(LINE[:, None] - others)


@pytest.mark.parametrize(
    ("taken", "n", "rows"),
    [
        # The most central of all rows, and then the farthest: 10 is 6 from 4, 0 is 4, 9 and 1 are 1.
        ((), 3, [2, 4, 0]),
        ((), 9, [2, 4, 0, 1, 3]),
        ((), 0, []),
        ((10.0,), 2, [0, 2]),
        ((0.0, 10.0), 1, [2]),
        ((0.0, 10.0), 5, [2, 1, 3, 0, 4]),
    ],
)
def test_each_row_is_the_farthest_from_all_before_it(
    taken: tuple[float, ...], n: int, rows: list[int]
) -> None:
    assert maximin(on_a_line(*taken), n).tolist() == rows


def test_rows_near_each_other_are_chosen_once() -> None:
    near = 0.01 * on_a_line()[0]
    assert maximin((near, np.zeros((5, 0))), 5).tolist() == [2, 4, 0, 1, 3]


def test_a_row_is_added_and_removed_from_an_inverse() -> None:
    matrix = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 4.0]])
    row = np.array([0.5, -1.0, 0.75])
    added = _with(np.linalg.inv(matrix), row, 1.0)
    assert added == pytest.approx(np.linalg.inv(matrix + np.outer(row, row)))
    assert _with(added, row, -1.0) == pytest.approx(np.linalg.inv(matrix))


def information(rows: Floats, taken: Floats) -> float:
    both = np.concatenate([rows, taken])
    return float(np.linalg.slogdet(both.T @ both + 1e-6 * np.eye(both.shape[1]))[1])


@pytest.mark.parametrize("seed", [13, 44, 57])
def test_exchanged_rows_are_the_best_of_all_subsets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, taken = rng.normal(size=(9, 3)), 0.3 * rng.normal(size=(seed % 3, 3))
    found = sorted(d_optimal(rows, 4, taken).tolist())
    subsets = [list(one) for one in itertools.combinations(range(9), 4)]
    best = max(subsets, key=lambda one: information(rows[one], taken))
    assert found == best


def test_a_row_is_taken_once_where_fewer_are_there_than_asked_for() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.1, 0.1]])
    assert sorted(d_optimal(rows, 9, np.zeros((0, 2))).tolist()) == [0, 1, 2, 3]
    assert d_optimal(rows, 2, np.zeros((0, 2))).tolist() == [2, 1]
    # Rows that run anyway are not measured again.
    assert d_optimal(rows, 1, np.array([[9.0, 0.0]])).tolist() == [1]
    assert d_optimal(rows, 1, np.array([[0.0, 9.0]])).tolist() == [2]


def test_blending_terms_are_the_inputs_and_the_products_of_pairs() -> None:
    found = blending(np.array([[2.0, 3.0, 5.0], [1.0, 0.0, 4.0]]))
    assert found.tolist() == [[2, 3, 5, 6, 10, 15], [1, 0, 4, 0, 4, 0]]


def test_distances_are_those_of_the_roots_of_weights() -> None:
    left = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]])
    right = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.25, 0.0, 0.75]])
    among, to = distances(mixture(), left, right)
    # (1 - .5)**2 + .75 = 1; (.5)**2 + (1 - .75**.5)**2 = 2 - 3**.5; (.75 + .75) = 1.5.
    assert among == pytest.approx(np.array([[0.0, 1.0], [1.0, 0.0]]), abs=1e-7)
    near = (2.0 - 3.0**0.5) ** 0.5
    assert to == pytest.approx(np.array([[2**0.5, 2**0.5, 1.0], [2**0.5, near, 1.5**0.5]]))


@pytest.mark.parametrize("kind", DESIGNS)
def test_a_design_of_no_points_is_empty(kind: str) -> None:
    assert design(mixture(), kind, 0, seed=0) == []


def test_two_sources_have_a_design_of_different_points() -> None:
    points = mixture("ab").coordinates(design(mixture("ab"), "sobol", 4, seed=0))
    assert sorted(np.floor(4.0 * points[:, 0]).tolist()) == [0, 1, 2, 3]


def test_a_mixture_that_is_fixed_has_one_point_however_many_are_asked_for() -> None:
    space = mixture("ab", fixed={"a": 0.25, "b": 0.75})
    assert _sobol(space, 3, 0).tolist() == [[0.25, 0.75]] * 3
    assert _sobol(space, 0, 0).shape == (0, 2)
    assert _sobol(mixture("abc"), 0, 0).shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "n", "asked"),
    [
        ("maximin", 1, [("sample", 64)]),
        ("maximin", 3, [("sample", 72)]),
        ("d-optimal", 2, [("sample", 64), ("edges", 32)]),
        ("d-optimal", 4, [("sample", 96), ("edges", 48)]),
    ],
)
def test_points_are_chosen_from_two_dozen_draws_each_and_from_64_at_least(
    kind: str, n: int, asked: list[tuple[str, int]]
) -> None:
    spec = SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=tuple("abc"))})
    space = Counting.build(spec)
    Counting.asked.clear()
    assert len(design(space, kind, n, seed=0)) == n
    assert Counting.asked == asked


def test_an_optimal_design_is_that_of_the_features_it_is_given() -> None:
    space = mixture()
    options = DesignOptions(features=lambda inputs: inputs[:, 1:2])
    points = space.coordinates(design(space, "d-optimal", 2, seed=0, options=options))
    assert points[:, 1] == pytest.approx(1.0, abs=0.05)


def test_draws_of_a_design_lie_around_its_prior() -> None:
    space = mixture()
    prior = {"m": {"a": 0.7, "b": 0.2, "c": 0.1}}
    options = DesignOptions(prior=prior, concentration=200.0)
    points = space.coordinates(design(space, "dirichlet", 40, seed=0, options=options))
    assert points.mean(axis=0) == pytest.approx([0.7, 0.2, 0.1], abs=0.02)
    middle = space.coordinates(
        design(space, "dirichlet", 40, seed=0, options=DesignOptions(concentration=200.0))
    )
    assert middle.mean(axis=0) == pytest.approx([1 / 3] * 3, abs=0.05)


def test_a_space_without_a_mixture_has_no_baseline() -> None:
    spec = SearchSpaceSpec(parameters={"p": ParameterSpec(kind="float", low=0.0, high=1.0)})
    assert baselines(SearchSpace.build(spec), {"a": 1.0}, own={"p": 0.5}) == {}


@pytest.mark.parametrize("tokens", [{"a": 1.0, "b": 0.0, "c": 3.0}, {"a": 1.0, "c": 3.0}])
def test_a_source_without_tokens_leaves_the_even_mixture_alone(tokens: dict[str, float]) -> None:
    caps = EpochCaps(tokens=tokens, full_tokens=1.0)
    found = baselines(mixture(), tokens, caps)
    assert list(found) == ["uniform"]
    assert found["uniform"]["m"] == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_baselines_that_share_a_weight_are_two() -> None:
    found = baselines(mixture(), {"a": 2.0, "b": 3.0, "c": 1.0})
    assert list(found) == ["natural", "uniform"]
    assert found["natural"]["m"] == pytest.approx({"a": 1 / 3, "b": 1 / 2, "c": 1 / 6})
    assert list(baselines(mixture(), {"a": 2.0, "b": 2.0, "c": 2.0})) == ["natural"]


def test_unimax_fills_the_share_of_its_stage_up_to_the_epochs_of_the_caps() -> None:
    tokens = {"a": 1.0, "b": 3.0, "c": 40.0}
    # Half of 40 tokens, two epochs: 2 of a, 6 of b, and 12 of c.
    caps = EpochCaps(tokens={}, full_tokens=40.0, max_epochs=2.0, shares={"m": 0.5})
    found = baselines(mixture(), tokens, caps)
    assert list(found) == ["natural", "uniform", "unimax"]
    assert found["unimax"]["m"] == pytest.approx({"a": 0.1, "b": 0.3, "c": 0.6})
    assert "unimax" not in baselines(mixture(), tokens, None)
    much = EpochCaps(tokens={}, full_tokens=1000.0, max_epochs=2.0)
    assert "unimax" not in baselines(mixture(), tokens, much)


def levels_of(*counts: int) -> SearchSpace:
    whole = {
        f"p{at}": ParameterSpec(kind="int", low=1, high=count) for at, count in enumerate(counts)
    }
    return SearchSpace.build(SearchSpaceSpec(parameters=whole))


def test_points_of_few_levels_are_spread_far_from_what_is_taken() -> None:
    space = levels_of(5)
    taken = space.every()[:1]
    found = spread(space, 3, taken, np.random.default_rng(0))
    # 0.9 is the farthest from 0.1, then the middle 0.5, and then either of the rest.
    assert found[:2, 0].tolist() == [0.9, 0.5]
    assert found[2, 0] in (pytest.approx(0.3), pytest.approx(0.7))
    assert len(spread(space, 9, taken, np.random.default_rng(0))) == 4


def test_levels_used_least_come_before_those_far_away() -> None:
    space = levels_of(2, 2)
    taken = space.coordinates([{"p0": 1, "p1": 1}])
    found = spread(space, 3, taken, np.random.default_rng(1))
    assert space.points(found[:1]) == [{"p0": 2, "p1": 2}]
    assert len({space.key(point) for point in space.points(found)}) == 3


def test_rows_get_the_nearest_of_the_levels_used_least() -> None:
    space = levels_of(4)
    rows = np.array([[0.9], [0.8], [0.8], [0.1], [0.8], [0.2], [0.8], [0.9]])
    found = balanced(space, rows)[:, 0]
    assert found.tolist() == [0.875, 0.625, 0.375, 0.125, 0.875, 0.125, 0.625, 0.375]


def test_a_point_used_already_gives_way_to_the_first_of_the_nearest() -> None:
    space = levels_of(41)
    for middle in (5, 20, 36):
        found = distinct(space, [{"p0": middle}] * 5, set(), (0,))
        values = [point["p0"] for point in found]
        assert values == [middle, middle - 1, middle + 1, middle - 2, middle + 2]


@pytest.mark.parametrize("size", [4, 5])
def test_a_space_of_as_many_points_as_are_enumerated_gives_every_one(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels_module, "ENUMERATED", size)
    monkeypatch.setattr(levels_module, "_DRAWS", 0)
    space = levels_of(5)
    points = space.points(space.every())
    keys = {space.key(point) for point in points[:4]}
    assert distinct(space, points[:1], keys, (0,)) == (points[4:] if size == 5 else [])


def test_a_point_of_weights_used_already_gives_way_to_one_close_by() -> None:
    space = mixture()
    middle = space.points(space.centre[None])[0]
    found = space.coordinates(distinct(space, [middle] * 60, set(), (1,)))
    steps = np.linalg.norm(found - space.centre, axis=1)
    assert steps[0] == pytest.approx(0.0, abs=1e-9)
    # Steps of .05 times the size of a normal number.
    assert steps[1:].mean() == pytest.approx(0.05 * (2.0 / np.pi) ** 0.5, abs=0.01)
