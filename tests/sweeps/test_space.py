"""The search space refuses bad input, and its maps stay inside and are invertible."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.errors import ConfigError
from ablations.mixture.mixture import SUM_TOLERANCE
from sweeps.search.designs import baselines
from sweeps.search.space import (
    BoundedSimplex,
    EpochCaps,
    GroupSpec,
    Parameter,
    ParameterSpec,
    SearchSpace,
    SearchSpaceSpec,
    SimplexSpec,
)


def two_stages(caps: EpochCaps | None = None) -> SearchSpace:
    stable = SimplexSpec(
        sources=("web", "edu", "stack", "commits", "wiki"),
        low={"web": 0.2},
        fixed={"wiki": 0.05},
        groups={"code": GroupSpec(sources=("stack", "commits"), weight=0.25)},
    )
    decay = SimplexSpec(sources=("web", "edu", "math"), high={"math": 0.6})
    parameters = {
        "training.peak_lr": ParameterSpec(kind="log", low=1e-4, high=1e-2),
        "filter.threshold": ParameterSpec(kind="int", low=1, high=4),
        "filter.kind": ParameterSpec(kind="choice", choices=("fast", "slow")),
    }
    spec = SearchSpaceSpec(mixtures={"stable": stable, "decay": decay}, parameters=parameters)
    return SearchSpace.build(spec, caps)


SHARED_CAPS = EpochCaps(
    tokens={"web": 0.125e12, "math": 0.0125e12, "edu": 0.5e12},
    full_tokens=1e12,
    shares={"stable": 0.8, "decay": 0.2},
)


@st.composite
def simplexes(draw: st.DrawFn) -> SimplexSpec:
    """Draw bounds, groups and fixed weights around a mixture that keeps them, so that none contradict."""
    count = draw(st.integers(2, 6))
    names = tuple(f"s{i}" for i in range(count))
    raw = np.array([draw(st.floats(0.0, 1.0)) for _ in names]) + 1e-3
    inside = dict(zip(names, raw / raw.sum(), strict=True))
    low, high, fixed = {}, {}, {}
    for name, weight in inside.items():
        kind = draw(st.sampled_from(["free", "low", "high", "fixed"]))
        if kind == "low":
            low[name] = weight * draw(st.floats(0.0, 1.0))
        elif kind == "high":
            high[name] = weight + (1.0 - weight) * draw(st.floats(0.0, 1.0))
        elif kind == "fixed":
            fixed[name] = weight
    groups = {}
    if count >= 4 and draw(st.booleans()):
        members = names[:2]
        total = sum(inside[name] for name in members)
        loose = draw(st.booleans())
        groups["g"] = (
            GroupSpec(sources=members, low=0.5 * total, high=min(1.0, 1.5 * total))
            if loose
            else GroupSpec(sources=members, weight=total)
        )
    return SimplexSpec(sources=names, low=low, high=high, fixed=fixed, groups=groups)


@settings(max_examples=60, deadline=None)
@given(spec=simplexes(), seed=st.integers(0, 2**16))
def test_every_box_point_is_a_mixture_and_the_way_back_is_exact(
    spec: SimplexSpec, seed: int
) -> None:
    simplex = BoundedSimplex(spec)
    box = np.random.default_rng(seed).random((20, len(simplex.unit_names)))
    box[0], box[1] = 0.0, 1.0
    weights = simplex.from_unit(box)
    assert simplex.violation(weights).max() < 1e-9
    again = simplex.from_unit(simplex.to_unit(weights))
    np.testing.assert_allclose(again, weights, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(spec=simplexes(), seed=st.integers(0, 2**16))
def test_samples_edges_neighbours_and_priors_keep_every_bound(spec: SimplexSpec, seed: int) -> None:
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))
    rng = np.random.default_rng(seed)
    drawn = space.sample(16, rng)
    prior = space.points(drawn[:1])[0]
    for found in (
        drawn,
        space.edges(16, rng),
        space.near(drawn, 0.2, 2, rng),
        space.around(prior, 16, rng, concentration=3.0, sparse_below=0.02),
        space.nearest(rng.random((4, len(space.names)))),
    ):
        # Bounds of a group that leave less room than the tolerance of a sum are met within it.
        assert space.coordinates(space.points(found)) == pytest.approx(found, abs=SUM_TOLERANCE)


def test_the_corners_of_a_simplex_are_its_sources_and_edges_favour_none() -> None:
    names = tuple("abcdefgh")
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=names)}))
    assert sorted(space.corners.round(9).tolist()) == sorted(np.eye(8).tolist())
    drawn = space.edges(4000, np.random.default_rng(0))
    alone = (drawn > 1.0 - 1e-12).sum(axis=0)
    assert alone.min() > 0.5 * alone.max()
    assert set((drawn > 0.0).sum(axis=1)) == set(range(1, 9))


@pytest.mark.parametrize("caps", [None, SHARED_CAPS], ids=["no caps", "caps over both stages"])
def test_corners_are_inside_and_nothing_inside_is_beyond_them(caps: EpochCaps | None) -> None:
    space = two_stages(caps)
    assert space.polytope.violation(space.corners).max() < 1e-9
    drawn = space.sample(500, np.random.default_rng(0))
    assert (drawn.max(axis=0) <= space.corners.max(axis=0) + 1e-9).all()
    assert (drawn.min(axis=0) >= space.corners.min(axis=0) - 1e-9).all()


@pytest.mark.parametrize("caps", [None, SHARED_CAPS], ids=["no caps", "caps over both stages"])
def test_stages_parameters_and_shared_caps_map_to_the_box_and_back(caps: EpochCaps | None) -> None:
    space = two_stages(caps)
    rng = np.random.default_rng(0)
    for found in (
        space.from_unit(rng.random((200, len(space.unit_names)))),
        space.sample(100, rng),
        space.edges(100, rng),
    ):
        points = space.points(found)
        np.testing.assert_allclose(space.coordinates(points), found, atol=1e-9)
        np.testing.assert_allclose(space.from_unit(space.to_unit(found)), found, atol=1e-9)
        for point in points:
            stable: Any = point["stable"]
            assert stable["stack"] + stable["commits"] == pytest.approx(0.25)
            assert stable["wiki"] == pytest.approx(0.05)
            assert math.fsum(stable.values()) == pytest.approx(1.0, abs=1e-12)
            assert point["filter.threshold"] in (1, 2, 3, 4)


def test_caps_over_stages_count_all_stages_together() -> None:
    space = two_stages(SHARED_CAPS)
    for point in space.points(space.edges(200, np.random.default_rng(1))):
        stable: Any = point["stable"]
        decay: Any = point["decay"]
        for source in ("web", "edu", "math"):
            read = 0.8 * stable.get(source, 0.0) + 0.2 * decay[source]
            assert read <= SHARED_CAPS.limit(source) + 1e-9


def test_a_single_mixture_takes_its_cap_as_an_upper_bound() -> None:
    spec = SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=("web", "math"))})
    caps = EpochCaps(tokens={"math": 10e9}, full_tokens=1e12, max_epochs=4.0)
    assert SearchSpace.build(spec, caps).mixtures["m"].high[1] == pytest.approx(0.04)


def test_tokens_read_outside_the_search_lower_the_cap() -> None:
    caps = EpochCaps(tokens={"math": 10e9}, full_tokens=1e12, outside={"math": 0.03})
    assert caps.limit("math") == pytest.approx(0.01)
    assert caps.limit("web") == math.inf


def test_unbounded_box_points_are_even_on_the_simplex() -> None:
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=tuple("abcd"))}))
    weights = space.from_unit(np.random.default_rng(0).random((20_000, 3)))
    # Even draws of four weights: mean 1/4, variance 3/80.
    np.testing.assert_allclose(weights.mean(axis=0), 0.25, atol=0.005)
    np.testing.assert_allclose(weights.var(axis=0), 3 / 80, rtol=0.05)


def test_samples_under_upper_bounds_are_as_even_as_rejection() -> None:
    spec = SimplexSpec(sources=tuple("abc"), high={"a": 0.4, "b": 0.5})
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))
    rng = np.random.default_rng(0)
    drawn = space.sample(20_000, rng)
    even = rng.dirichlet(np.ones(3), 100_000)
    even = even[(even[:, 0] <= 0.4) & (even[:, 1] <= 0.5)]
    np.testing.assert_allclose(drawn.mean(axis=0), even.mean(axis=0), atol=0.005)
    np.testing.assert_allclose(drawn.std(axis=0), even.std(axis=0), rtol=0.03)


def test_sparse_draws_around_a_prior_hold_exact_zeros_and_the_prior_as_mean() -> None:
    spec = SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=tuple("abcdef"))})
    space = SearchSpace.build(spec)
    prior = {"m": {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.05, "e": 0.03, "f": 0.02}}
    rng = np.random.default_rng(0)
    drawn = space.around(prior, 4000, rng, concentration=4.0, sparse_below=0.02)
    assert (drawn == 0.0).mean() > 0.2
    np.testing.assert_allclose(drawn.mean(axis=0), list(prior["m"].values()), atol=0.03)


def test_projection_is_the_nearest_point() -> None:
    spec = SimplexSpec(sources=tuple("abcd"), high={"a": 0.1})
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))
    nearest = space.nearest(np.full((1, 4), 0.25))[0]
    np.testing.assert_allclose(nearest, [0.1, 0.3, 0.3, 0.3], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(place=st.floats(0.0, 1.0))
@pytest.mark.parametrize(
    "spec",
    [
        ParameterSpec(kind="float", low=-1.0, high=3.0),
        ParameterSpec(kind="log", low=1e-5, high=1e-1),
        ParameterSpec(kind="int", low=2, high=9),
        ParameterSpec(kind="choice", choices=("a", 1, 0.5)),
    ],
    ids=lambda spec: spec.kind,
)
def test_a_parameter_comes_back_from_its_place(spec: ParameterSpec, place: float) -> None:
    parameter = Parameter("p", spec)
    value = parameter.from_unit(place)
    assert parameter.from_unit(parameter.to_unit(value)) == pytest.approx(value) or value == (
        parameter.from_unit(parameter.to_unit(value))
    )


def test_choices_become_indicators() -> None:
    space = two_stages()
    rows = space.inputs(space.sample(50, np.random.default_rng(0)))
    assert rows.shape[1] == len(space.names) + 1
    assert set(np.unique(rows[:, -2:])) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"sources": ()}, "at least one"),
        ({"sources": ("a", "a")}, "unique"),
        ({"sources": ("a", "b"), "low": {"web": 0.1}}, "unknown source 'web'"),
        ({"sources": ("a", "b"), "low": {"a": 0.6}, "high": {"a": 0.5}}, "not an interval"),
        ({"sources": ("a", "b"), "fixed": {"a": 0.5}, "low": {"a": 0.1}}, "bounds too"),
        (
            {
                "sources": ("a", "b"),
                "groups": {"x": GroupSpec(sources=("a",)), "y": GroupSpec(sources=("a",))},
            },
            "already",
        ),
        ({"sources": ("a",), "groups": {"x": GroupSpec(sources=("a",), weight=1.5)}}, "groups.x"),
    ],
)
def test_a_simplex_names_what_is_wrong(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimplexSpec(**settings_)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SimplexSpec(sources=("a", "b"), low={"a": 0.7, "b": 0.7}), "no mixture satisfies"),
        (SimplexSpec(sources=("a", "b"), high={"a": 0.3, "b": 0.3}), "no mixture satisfies"),
        (
            SimplexSpec(
                sources=("a", "b", "c"),
                low={"a": 0.5},
                groups={"g": GroupSpec(sources=("a", "b"), weight=0.3)},
            ),
            "contradict",
        ),
        (
            SimplexSpec(
                sources=("a", "b", "c"),
                fixed={"a": 0.5, "b": 0.1},
                groups={"g": GroupSpec(sources=("a", "b"), weight=0.3)},
            ),
            "all fixed",
        ),
    ],
)
def test_bounds_that_no_mixture_keeps_are_refused(spec: SimplexSpec, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))


def test_a_cap_below_a_lower_bound_is_refused_by_name() -> None:
    spec = SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=("a", "b"), low={"a": 0.5})})
    with pytest.raises(ConfigError, match=r"m\.a: the epoch cap"):
        SearchSpace.build(spec, EpochCaps(tokens={"a": 1e9}, full_tokens=1e12))


def test_caps_that_no_stages_keep_together_are_refused() -> None:
    one, two = SimplexSpec(sources=("a", "b")), SimplexSpec(sources=("a", "b"))
    caps = EpochCaps(
        tokens={"a": 0.1e12, "b": 0.1e12}, full_tokens=1e12, shares={"x": 0.5, "y": 0.5}
    )
    with pytest.raises(ConfigError, match="all stages together"):
        SearchSpace.build(SearchSpaceSpec(mixtures={"x": one, "y": two}), caps)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"kind": "float", "low": 2.0, "high": 1.0}, "not a range"),
        ({"kind": "float"}, "not a range"),
        ({"kind": "log", "low": 0.0, "high": 1.0}, "above 0"),
        ({"kind": "int", "low": 0.5, "high": 3.0}, "whole"),
        ({"kind": "choice"}, "at least one"),
    ],
)
def test_a_parameter_names_what_is_wrong(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ParameterSpec(**settings_)


def test_an_empty_space_and_a_path_named_twice_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        SearchSpaceSpec()
    with pytest.raises(ConfigError, match="as mixture and as parameter"):
        SearchSpaceSpec(
            mixtures={"m": SimplexSpec(sources=("a", "b"))},
            parameters={"m": ParameterSpec(kind="float", low=0.0, high=1.0)},
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stable": {"web": 0.1, "edu": 0.6, "stack": 0.25, "wiki": 0.05}}, "outside the search"),
        ({"stable": {"webb": 1.0}}, "did you mean 'web'"),
        ({"training.peak_lr": 1.0}, "outside the range"),
        ({"filter.kind": "medium"}, "not a choice"),
        ({"training.peak": 1.0}, "unknown search parameter"),
    ],
)
def test_a_point_outside_the_space_is_refused(change: dict[str, Any], message: str) -> None:
    space = two_stages()
    point = {**space.points(space.centre[None])[0], **change}
    with pytest.raises(ConfigError, match=message):
        space.coordinates([point])
    assert not space.contains(point)


def test_a_point_that_lacks_a_path_is_refused() -> None:
    space = two_stages()
    point = space.points(space.centre[None])[0]
    del point["decay"]
    with pytest.raises(ConfigError, match="decay: missing"):
        space.coordinates([point])


@pytest.mark.parametrize("settings_", [{"full_tokens": 0.0}, {"max_epochs": -1.0}])
def test_epoch_caps_need_positive_numbers(settings_: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="not a positive number"):
        EpochCaps(**{"tokens": {}, "full_tokens": 1.0, **settings_})  # type: ignore[arg-type]


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_projection_is_the_nearest_point_also_where_weights_are_fixed(seed: int) -> None:
    """Variational inequality: no corner lies in the direction that the projection was moved from."""
    rng = np.random.default_rng(seed)
    fixed = float(rng.uniform(0.05, 0.3))
    early = SimplexSpec(
        sources=("a", "b", "c", "d"),
        fixed={"a": fixed},
        groups={"g": GroupSpec(sources=("b", "c"), weight=0.4)},
    )
    late = SimplexSpec(sources=("a", "b", "d"), low={"b": 0.05}, high={"d": 0.7})
    spec = SearchSpaceSpec(mixtures={"early": early, "late": late}, parameters={})
    caps = EpochCaps(
        tokens={"a": 2e9, "b": 1e9, "c": 6e9, "d": 20e9},
        full_tokens=1e10,
        shares={"early": 0.75, "late": 0.25},
        outside={"b": 0.02},
    )
    space = SearchSpace.build(spec, caps)
    outside = rng.dirichlet(np.ones(7)) * 2.0
    nearest = space.polytope.project(outside, space.centre)
    assert space.polytope.violation(nearest[None])[0] < 1e-9
    corners = space.polytope.corners(space.centre, 200, np.random.default_rng(0))
    assert ((corners - nearest) @ (outside - nearest)).max() < 1e-6


def test_an_even_stage_beside_fixed_weights_stays_even() -> None:
    early = SimplexSpec(sources=("a", "b", "c"), fixed={"a": 0.1})
    late = SimplexSpec(sources=("a", "b", "c"))
    spec = SearchSpaceSpec(mixtures={"early": early, "late": late}, parameters={})
    point = baselines(SearchSpace.build(spec))["uniform"]
    assert point["late"] == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert point["early"] == pytest.approx({"a": 0.1, "b": 0.45, "c": 0.45})
