"""Numbers of designs, surrogates and proposals on fixed inputs: a constant that changes shows here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from sweeps.search.designs import DESIGNS, DesignOptions, baselines, design
from sweeps.search.proposals import Evidence, Limit, ProposalOptions, pick, propose, trust_pick
from sweeps.search.space import (
    EpochCaps,
    Floats,
    GroupSpec,
    ParameterSpec,
    SearchSpace,
    SearchSpaceSpec,
    SimplexSpec,
)
from sweeps.search.surrogates import FAMILIES, Surrogate, family, leaderboard
from tests.pinned import require_pinned

SOURCES = tuple("abcd")
TOKENS = {"a": 1e9, "b": 2e9, "c": 4e9, "d": 10e9}
CAPS = EpochCaps(tokens=TOKENS, full_tokens=1e10, max_epochs=3.0)


def wide_space() -> SearchSpace:
    """Return a space with a group, bounds, epoch caps, a number, and a choice."""
    mixture = SimplexSpec(
        sources=SOURCES,
        high={"d": 0.8},
        low={"a": 0.02},
        groups={"text": GroupSpec(sources=("c", "d"), low=0.3, high=0.9)},
    )
    spec = SearchSpaceSpec(
        mixtures={"m": mixture},
        parameters={
            "lr": ParameterSpec(kind="log", low=1e-4, high=1e-2),
            "kind": ParameterSpec(kind="choice", choices=("x", "y", "z")),
        },
    )
    return SearchSpace.build(spec, CAPS)


def plain_space() -> SearchSpace:
    """Return a simplex of three sources with one bound."""
    spec = SimplexSpec(sources=("web", "code", "math"), high={"code": 0.6})
    return SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))


def truth(weights: Floats) -> Floats:
    """Return two losses ``[n, 2]``: one falls with the second source, the other with the third."""
    return np.stack(
        [
            1.0 + np.exp(-3.0 * weights[:, 1]),
            1.0 + 0.5 * np.exp(-2.0 * weights[:, 2]) + 0.1 * weights[:, 0],
        ],
        axis=1,
    )


def test_points_of_designs_baselines_and_draws_are_those_before() -> None:
    space = wide_space()
    rng = np.random.default_rng(5)
    options = DesignOptions(concentration=3.0, sparse_below=0.05)
    made: dict[str, Any] = {
        kind: space.coordinates(design(space, kind, 7, seed=3, options=options)).tolist()
        for kind in DESIGNS
    }
    outside = np.random.default_rng(6).normal(0.3, 0.5, (5, len(space.names)))
    found = {
        "designs": made,
        "baselines": [[name, point] for name, point in baselines(space, TOKENS, CAPS).items()],
        "sample": space.sample(4, rng).tolist(),
        "edges": space.edges(6, rng).tolist(),
        "centre": space.centre.tolist(),
        "inputs": space.inputs(space.centre[None]).tolist(),
        "violation": space.polytope.violation(outside).tolist(),
        "nearest": space.nearest(outside).tolist(),
    }
    require_pinned("designs", found)


def test_predictions_of_each_family_and_a_leaderboard_are_those_before() -> None:
    rng = np.random.default_rng(11)
    inputs, unseen = rng.dirichlet(np.ones(3), 18), rng.dirichlet(np.ones(3), 3)
    values = truth(inputs) + rng.normal(0.0, 0.01, (18, 2))
    values[4, 0] = np.nan
    found: dict[str, Any] = {}
    for name in FAMILIES:
        model = Surrogate(family(name)).fit(inputs, values)
        low, high = model.predict_interval(unseen, 0.9)
        found[name] = {
            "predicted": model.predict(unseen).tolist(),
            "low": low.tolist(),
            "high": high.tolist(),
            "spread": model.spread(unseen).tolist(),
        }
    full = truth(inputs) + rng.normal(0.0, 0.01, (18, 2))
    compared = [family(name) for name in ("linear", "ridge-sqrt", "power-law", "gp", "mixing-law")]
    board = leaderboard(compared, inputs, full, weights=(0.3, 0.7), fold_count=3, seed=2)
    require_pinned(
        "surrogates",
        {"families": found, "leaderboard": board.rows(), "text": str(board)},
        relative=1e-3,
        absolute=1e-4,
    )


def test_a_batch_a_pick_and_its_trust_are_those_before() -> None:
    space = plain_space()
    points = design(space, "sobol", 14, seed=0)
    noise = np.random.default_rng(0).normal(0.0, 0.02, (14, 2))
    values = truth(space.coordinates(points)) + noise
    plain = Evidence.of(space, points, values, pending=points[:1])
    limited = Evidence.of(
        space, points, values, limits=[Limit(weights=np.array([1.0, 0.0]), bound=1.35)]
    )
    prior = ProposalOptions(prior={"m": {"web": 0.6, "code": 0.2, "math": 0.2}}, pull=0.05)
    chosen = pick(space, plain, seed=4)
    found = {
        "batch": space.coordinates(propose(space, plain, 5, seed=4)).tolist(),
        "pick": asdict(chosen),
        "limited": asdict(pick(space, limited, seed=4)),
        "pulled": asdict(pick(space, plain, seed=4, options=prior)),
        "trust": trust_pick(space, plain, chosen, seed=4, baseline=points[3]).plain(),
    }
    require_pinned("proposals", found, relative=1e-3, absolute=1e-3)
