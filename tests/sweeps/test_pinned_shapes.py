"""Numbers of a search of other shapes: two stages, levels alone, rungs, sparse processes, two objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from sweeps.search.designs import DESIGNS, DesignOptions, baselines, design
from sweeps.search.designs.levels import ENUMERATED, balanced, distinct
from sweeps.search.proposals import Evidence, Limit, ProposalOptions, pick, propose, trust_pick
from sweeps.search.proposals.model_averaging import prefer
from sweeps.search.proposals.optimum import candidates, optimise
from sweeps.search.proposals.optimum_tests import Difference, Skill, judge, skill
from sweeps.search.proposals.rung_policy import judge_rung, plan_rungs, rung_family, spread_rows
from sweeps.search.space import (
    EpochCaps,
    Floats,
    GroupSpec,
    ParameterSpec,
    SearchSpace,
    SearchSpaceSpec,
    SimplexSpec,
)
from sweeps.search.surrogates import FAMILIES, Family, ProcessFamily, Surrogate, family, leaderboard
from sweeps.search.surrogates.rung_process import RungFamily, rung_columns
from sweeps.search.surrogates.trees import TreesFamily
from tests.pinned import require_pinned

SOURCES = tuple("abcd")
TOKENS = {"a": 2e9, "b": 1e9, "c": 6e9, "d": 20e9}


def staged_space() -> SearchSpace:
    """Return two stages that share caps, with a fixed weight, a fixed group, and three numbers."""
    early = SimplexSpec(
        sources=SOURCES, fixed={"a": 0.1}, groups={"g": GroupSpec(sources=("b", "c"), weight=0.4)}
    )
    late = SimplexSpec(sources=("a", "b", "d"), low={"b": 0.05}, high={"d": 0.7})
    spec = SearchSpaceSpec(
        mixtures={"early": early, "late": late},
        parameters={
            "depth": ParameterSpec(kind="int", low=2, high=5),
            "share": ParameterSpec(kind="float", low=0.1, high=0.4),
            "same": ParameterSpec(kind="float", low=0.3, high=0.3),
        },
    )
    caps = EpochCaps(
        tokens=TOKENS,
        full_tokens=1e10,
        shares={"early": 0.75, "late": 0.25},
        outside={"b": 0.02},
    )
    return SearchSpace.build(spec, caps)


def levels_space() -> SearchSpace:
    """Return a space of levels alone, at one mixture: 3 × 4 × 2 × 3 points."""
    spec = SearchSpaceSpec(
        mixtures={"m": SimplexSpec(sources=("a", "b"), fixed={"a": 0.25, "b": 0.75})},
        parameters={
            "kind": ParameterSpec(kind="choice", choices=("x", "y", "z")),
            "depth": ParameterSpec(kind="int", low=1, high=4),
            "on": ParameterSpec(kind="choice", choices=(True, False)),
            "heads": ParameterSpec(kind="int", low=2, high=4),
        },
    )
    return SearchSpace.build(spec)


def free_space() -> SearchSpace:
    """Return three sources without a bound, and one number."""
    spec = SearchSpaceSpec(
        mixtures={"m": SimplexSpec(sources=("a", "b", "c"))},
        parameters={"lr": ParameterSpec(kind="log", low=1e-4, high=1e-1)},
    )
    return SearchSpace.build(spec)


def truth(inputs: Floats) -> Floats:
    """Return a loss ``[n]`` and an accuracy ``[n]`` of weights: columns of ``[n, 2]``."""
    loss = 2.0 + np.exp(-3.0 * inputs[:, 1]) + 0.3 * np.exp(-4.0 * inputs[:, 2])
    accuracy = 0.3 + 0.5 * np.sqrt(inputs[:, 0] + 0.1)
    return np.stack([loss, accuracy], axis=1)


def shape_of(space: SearchSpace, tokens: dict[str, float] | None) -> dict[str, Any]:
    """Return names, limits, points and ways through a space."""
    rng = np.random.default_rng(4)
    sampled = space.sample(4, rng)
    near = space.near(sampled[:2], 0.1, 3, rng)
    chosen = DesignOptions(concentration=6.0, prior=space.points(space.centre[None])[0])
    return {
        "names": list(space.names),
        "unit": list(space.unit_names),
        "blocks": {name: [cut.start, cut.stop] for name, cut in space.blocks().items()},
        "size": space.size,
        "levels": [list(pair) for pair in space.discrete_levels],
        "centre": space.centre.tolist(),
        "coupled": space.coupled,
        "rows": space.polytope.rows.tolist(),
        "limits": space.polytope.limits.tolist(),
        "sums": space.polytope.sums.tolist(),
        "high": space.polytope.high.tolist(),
        "corners": sorted(np.round(space.corners, 6).tolist()),
        "points": space.points(sampled),
        "to_unit": space.to_unit(sampled).tolist(),
        "from_unit": space.from_unit(rng.random((3, len(space.unit_names)))).tolist(),
        "near": near.tolist(),
        "inputs": space.inputs(sampled).tolist(),
        "keys": [list(space.key(point)) for point in space.points(sampled[:2])],
        "extremes": [[name, point] for name, point in space.extremes()],
        "edges": space.edges(3, rng).tolist(),
        "designs": {kind: design(space, kind, 4, seed=2, options=chosen) for kind in DESIGNS},
        "baselines": baselines(space, tokens),
    }


def test_stages_levels_and_free_mixtures_are_those_before() -> None:
    caps = EpochCaps(tokens=TOKENS, full_tokens=4e10, shares={"early": 0.75, "late": 0.25})
    staged, levels = staged_space(), levels_space()
    first = design(levels, "sobol", 6, seed=0)
    found = {
        "staged": shape_of(staged, TOKENS),
        "levels": shape_of(levels, None),
        "free": shape_of(free_space(), {"a": 1.0, "b": 3.0, "c": 0.0}),
        "with caps": baselines(staged, TOKENS, caps, {"depth": 4, "share": 0.9, "same": "no"}),
        "every": levels.every()[::17].tolist(),
        "balanced": balanced(levels, levels.every()[::7]).tolist(),
        "distinct": distinct(
            levels, [*first, *first[:3]], {levels.key(point) for point in first[4:6]}, (2, 3)
        ),
    }
    require_pinned("search_spaces", found, relative=1e-4, absolute=1e-6)


def test_the_corners_of_a_space_with_very_many_are_those_before() -> None:
    spec = SearchSpaceSpec(
        mixtures={"m": SimplexSpec(sources=tuple("abcdefg"), high={"a": 0.5})},
        parameters={f"p{n}": ParameterSpec(kind="float", low=0.0, high=1.0) for n in range(4)},
    )
    corners = np.round(SearchSpace.build(spec).corners, 6)
    require_pinned("many_corners", [len(corners), sorted(corners.tolist())[::9]])


def test_a_space_of_more_levels_than_are_enumerated_has_a_design_too() -> None:
    sizes = (ENUMERATED // 64, ENUMERATED // 32)
    spaces = [
        SearchSpace.build(
            SearchSpaceSpec(
                parameters={
                    "wide": ParameterSpec(kind="int", low=1, high=size),
                    "deep": ParameterSpec(kind="int", low=1, high=64),
                }
            )
        )
        for size in sizes
    ]
    found = {
        str(space.size): [design(space, kind, 5, seed=1) for kind in ("maximin", "sobol")]
        for space in spaces
    }
    assert list(found) == [str(ENUMERATED), str(2 * ENUMERATED)]
    require_pinned("levels_enumerated", found)


FAMILIES_OF_FORTY: dict[str, Callable[[], Family]] = {
    **{name: made for name, made in FAMILIES.items() if name not in ("stack", "choice")},
    "gp-52": lambda: ProcessFamily(kernel="matern52", powers=(0.4, 1.0), noise=0.1),
    "gp-sparse": lambda: ProcessFamily(exact_runs=20, inducing=12, settings_runs=16),
    "trees": lambda: TreesFamily(trees=30, fold_count=3),
}


def forty() -> tuple[Floats, Floats, Floats, Floats]:
    """Return inputs of forty runs and of four others, the runs' values, and their standard errors."""
    rng = np.random.default_rng(21)
    inputs, unseen = rng.dirichlet(np.ones(4), 40), rng.dirichlet(np.ones(4), 4)
    noise = np.full((40, 2), 0.01) + 0.02 * rng.random((40, 2))
    return inputs, unseen, truth(inputs) + noise * rng.normal(size=(40, 2)), noise


@pytest.mark.parametrize("name", FAMILIES_OF_FORTY)
def test_a_family_on_forty_runs_with_known_noise_is_that_before(name: str) -> None:
    inputs, unseen, values, noise = forty()
    model = Surrogate(FAMILIES_OF_FORTY[name](), seed=5).fit(inputs, values, noise)
    low, high = model.predict_interval(unseen)
    left_out = model.left_out()
    found = {
        "predicted": model.predict(unseen).tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "left_out": None if left_out is None else left_out[:5].tolist(),
    }
    require_pinned(f"surrogate_{name}", found, relative=1e-3, absolute=1e-4)


def test_a_leaderboard_of_runs_with_known_noise_is_that_before() -> None:
    inputs, _, values, noise = forty()
    board = leaderboard([family("linear"), family("scheffe")], inputs, values, noise=noise)
    require_pinned("leaderboard_forty", board.rows(), relative=1e-3, absolute=1e-4)


def test_rungs_are_planned_judged_and_fitted_as_before() -> None:
    rng = np.random.default_rng(8)
    weights = rng.dirichlet(np.ones(3), 24)
    rungs = np.where(np.arange(24)[:, None] < 16, [[0.0, 1.0]], [[0.0, 0.0]])
    inputs = rung_columns(weights, rungs)
    values = truth(weights) + 0.3 * rungs[:, 1:] + rng.normal(0.0, 0.01, (24, 2))
    top = rung_columns(rng.dirichlet(np.ones(3), 3), np.zeros((3, 2)))
    found: dict[str, Any] = {}
    for name, one in {"own": RungFamily(columns=2), "policy": rung_family(2)}.items():
        model = Surrogate(one).fit(inputs, values)
        low, high = model.predict_interval(top)
        found[name] = [model.predict(top).tolist(), low.tolist(), high.tolist()]
    found["plans"] = {
        f"{units} {price} {sources} {same}": asdict(
            plan_rungs(units, price, sources, same_model=same)
        )
        for units in (3.0, 8.0, 16.0, 24.0, 31.0, 32.0)
        for price in (0.1, 0.3)
        for sources in (4, 7)
        for same in (True, False)
    }
    scores = np.array([3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 8.0, 7.0])
    found["guards"] = [
        [guard.holds, str(guard)]
        for guard in (judge_rung(scores, np.roll(scores, k)) for k in range(4))
    ]
    found["spread"] = [spread_rows(weights, 5).tolist(), spread_rows(weights, 4, first=3).tolist()]
    require_pinned("rungs", found, relative=1e-3, absolute=1e-4)


@pytest.mark.parametrize(
    ("pairs", "rank", "holds"),
    [(8, 0.748, False), (8, 0.750, True), (40, 0.66, False), (40, 0.67, True)],
)
def test_a_rung_holds_if_its_pairs_rank_better_than_six_tenths_by_a_margin(
    pairs: int, rank: float, holds: bool
) -> None:
    # atanh(.6) = .6931, plus .6 standard errors of sqrt(1.06 / (pairs - 3)).
    scores = np.arange(float(pairs))
    assert replace(judge_rung(scores, scores), correlation=rank).holds is holds


def test_two_objectives_limits_and_missing_values_are_proposed_for_as_before() -> None:
    space = free_space()
    points = design(space, "sobol-edges", 12, seed=1)
    coordinates = space.coordinates(points)
    values = truth(coordinates) + np.random.default_rng(2).normal(0.0, 0.005, (12, 2))
    values[3, 1] = np.nan
    options = ProposalOptions(candidates=300, explore=0.34)
    noise = np.full((12, 2), 0.005)
    both = Evidence.of(
        space, points, values, objectives=np.array([[1.0, 0.0], [0.0, -1.0]]), pending=points[:2]
    )
    one = Evidence.of(
        space,
        points,
        values[:, :1],
        noise=noise[:, :1],
        limits=[Limit(weights=np.array([-1.0]), bound=-2.2)],
    )
    upward = Evidence.of(space, points, values, objectives=np.array([[0.0, -1.0]]))
    model = prefer(space, upward, options.families, 3)
    low, high = model.predict_interval(space.inputs(coordinates[:3]))
    chosen = pick(space, one, seed=6, options=options)
    found = {
        "both": space.coordinates(propose(space, both, 4, seed=6, options=options)).tolist(),
        "second": asdict(pick(space, both, seed=6, options=options, objective=1)),
        "one": space.coordinates(propose(space, one, 3, seed=6, options=options)).tolist(),
        "chosen": asdict(chosen),
        "upward": asdict(pick(space, upward, seed=6, options=options)),
        "turn": model.turn.tolist(),
        "weights": model.weights.tolist(),
        "interval": [low.tolist(), high.tolist()],
        "trust": trust_pick(space, one, chosen, seed=6, options=options).plain(),
    }
    require_pinned("proposals_shapes", found, relative=2e-3, absolute=2e-3)


def test_the_search_for_an_optimum_and_its_tests_are_those_before() -> None:
    space = free_space()
    rng = np.random.default_rng(3)
    drawn = candidates(space, space.sample(5, rng), 40, rng)
    wanted = np.array([0.0, 0.3, 0.7, 0.25])

    def goal(coordinates: Floats) -> Floats:
        return np.asarray(1.0 + ((coordinates - wanted) ** 2).sum(axis=1), dtype=np.float64)

    best, loss = optimise(goal, space, drawn, rng)
    inputs = space.inputs(drawn[:20])
    losses = truth(inputs)[:, 0]
    measured = skill(family("linear"), inputs, losses, compared=3, seed=1)
    worse = Difference(to="the best run", value=0.01, low=-0.02, high=0.04)
    better = Difference(to="the baseline", value=-0.02, low=-0.05, high=0.01)
    sure = Difference(to="the baseline", value=-0.05, low=-0.08, high=-0.02)
    good = Skill(correlation=0.9, shuffled=0.2, chance=0.001, needed=0.5)
    judged = [
        judge(20, good, worse, sure, True),
        judge(20, good, sure, better, False),
        judge(20, good, sure, sure, True),
        judge(20, Skill(correlation=0.4, shuffled=0.2, chance=0.08, needed=0.5)),
        judge(3, good),
    ]
    found = {
        "drawn": [len(drawn), drawn[::11].tolist()],
        "best": best.tolist(),
        "loss": loss,
        "skill": asdict(measured),
        "judged": [one.plain() for one in judged],
    }
    require_pinned("optimum", found, relative=1e-3, absolute=1e-4)
