"""Designs are equal for equal seeds, lie inside the space, and are better than random draws."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.errors import ConfigError
from sweeps.search.designs import DESIGNS, DesignOptions, baselines, design, distances
from sweeps.search.designs.design import blending
from sweeps.search.space import EpochCaps, ParameterSpec, SearchSpace, SearchSpaceSpec, SimplexSpec

TOKENS = {"a": 1e9, "b": 2e9, "c": 4e9, "d": 10e9}
CAPS = EpochCaps(tokens=TOKENS, full_tokens=1e10, max_epochs=2.0)


@pytest.fixture
def space() -> SearchSpace:
    spec = SearchSpaceSpec(
        mixtures={"m": SimplexSpec(sources=tuple("abcd"), high={"d": 0.8})},
        parameters={"lr": ParameterSpec(kind="log", low=1e-4, high=1e-2)},
    )
    return SearchSpace.build(spec, CAPS)


@pytest.mark.parametrize("kind", DESIGNS)
def test_a_design_is_inside_and_the_same_for_a_seed(space: SearchSpace, kind: str) -> None:
    points = design(space, kind, 10, seed=3)
    assert len(points) == 10
    space.coordinates(points)
    assert points == design(space, kind, 10, seed=3)
    assert points != design(space, kind, 10, seed=4)


@pytest.mark.parametrize("kind", ["sobol", "sobol-edges"])
@pytest.mark.parametrize("fewer", [1, 4, 5])
def test_fewer_points_of_a_larger_study_are_a_prefix(
    space: SearchSpace, kind: str, fewer: int
) -> None:
    assert design(space, kind, 12, seed=0)[:fewer] == design(space, kind, fewer, seed=0)


def test_every_second_point_of_sobol_edges_lies_on_the_rim(space: SearchSpace) -> None:
    found = space.coordinates(design(space, "sobol-edges", 12, seed=0))
    slack = np.minimum(found - space.polytope.low, space.polytope.high - found).min(axis=1)
    assert (slack[1::2] < 1e-9).all()
    assert (slack[::2] > 1e-4).all()


def test_sobol_edges_reaches_the_most_of_every_source_and_keeps_from_what_is_run() -> None:
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=tuple("abcd"))}))
    taken = np.eye(4)[:1]
    found = space.coordinates(design(space, "sobol-edges", 8, seed=0, taken=taken))
    assert found.max(axis=0)[1:] == pytest.approx(1.0)
    assert found[:, 0].max() < 0.95


def test_maximin_points_are_farther_apart_than_draws(space: SearchSpace) -> None:
    chosen = space.coordinates(design(space, "maximin", 10, seed=0))
    drawn = space.sample(10, np.random.default_rng(0))
    assert _closest(space, chosen) > 1.5 * _closest(space, drawn)


def test_maximin_keeps_away_from_what_is_run_anyway(space: SearchSpace) -> None:
    taken = space.centre[None]
    chosen = space.coordinates(design(space, "maximin", 6, seed=0, taken=taken))
    assert distances(space, chosen, taken)[1].min() > 0.3


def test_d_optimal_points_are_more_informative_than_any_other_design(space: SearchSpace) -> None:
    gains = {kind: _information(space, kind) for kind in DESIGNS}
    assert max(gains, key=lambda kind: gains[kind]) == "d-optimal"


def test_dirichlet_designs_can_hold_exact_zeros(space: SearchSpace) -> None:
    options = DesignOptions(concentration=2.0, sparse_below=0.05)
    found = space.coordinates(design(space, "dirichlet", 50, seed=0, options=options))
    assert (found[:, :4] == 0.0).any(axis=1).mean() > 0.3


def test_baselines_are_moved_into_the_space_and_never_twice(space: SearchSpace) -> None:
    found = baselines(space, TOKENS, CAPS)
    # Caps hold a to 0.2: uniform moved inside is UniMax, which is then left out.
    assert set(found) == {"natural", "uniform"}
    assert found["uniform"]["m"] == pytest.approx({"a": 0.2, **dict.fromkeys("bcd", 0.8 / 3)})
    assert found["natural"]["m"] == pytest.approx({k: v / 17e9 for k, v in TOKENS.items()})


def test_without_token_counts_there_is_uniform_alone(space: SearchSpace) -> None:
    assert set(baselines(space)) == {"uniform"}


def test_an_unknown_design_and_a_negative_count_are_refused(space: SearchSpace) -> None:
    with pytest.raises(ConfigError, match="did you mean 'sobol'"):
        design(space, "sobool", 3, seed=0)
    with pytest.raises(ConfigError, match="negative"):
        design(space, "sobol", -1, seed=0)


def _closest(space: SearchSpace, rows: np.ndarray) -> float:
    gaps = distances(space, rows, rows)[0]
    return float(gaps[~np.eye(len(gaps), dtype=bool)].min())


def _information(space: SearchSpace, kind: str) -> float:
    rows = blending(space.inputs(space.coordinates(design(space, kind, 16, seed=0))))
    return float(np.linalg.slogdet(rows.T @ rows + 1e-6 * np.eye(rows.shape[1]))[1])
