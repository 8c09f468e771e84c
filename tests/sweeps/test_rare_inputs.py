"""Rare inputs of search and verdict: nothing taken, nothing known, no mixture, an effect below zero."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from sweeps.search.designs.baselines import baselines
from sweeps.search.designs.d_optimal import maximin
from sweeps.search.space import ParameterSpec, SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.study.objective import Objective
from sweeps.verdict.power import estimate_power
from sweeps.verdict.question import Question, broken

RATE = {"training.peak_lr": ParameterSpec(kind="log", low=1e-4, high=1e-2)}


@pytest.mark.parametrize(
    ("positions", "taken", "chosen"),
    [
        # The most central first, then the farthest.
        ([0.0, 1.0, 2.0, 9.0, 10.0], [], [2, 4, 0]),
        # The farthest from what is taken, which is not the most central one.
        ([0.0, 1.0, 2.0, 9.0, 10.0], [9.0], [0, 2, 1]),
        ([0.0, 5.0], [], [0, 1]),
    ],
)
def test_maximin_begins_in_the_middle_only_if_nothing_is_taken(
    positions: Sequence[float], taken: Sequence[float], chosen: Sequence[int]
) -> None:
    rows, others = np.array(positions)[:, None], np.array(taken)[:, None].reshape(-1, 1)
    distances = np.abs(rows - rows.T), np.abs(rows - others.T)
    assert maximin(distances, 3).tolist() == list(chosen)


def test_a_space_without_mixtures_has_no_baselines() -> None:
    tokens = {"web": 1e9, "code": 1e9}
    assert baselines(SearchSpace.build(SearchSpaceSpec(parameters=RATE)), tokens) == {}
    mixed = SearchSpaceSpec(mixtures={"m": SimplexSpec(sources=("web", "code"))}, parameters=RATE)
    assert list(baselines(SearchSpace.build(mixed), tokens)) == ["natural"]  # uniform equals it


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([], [], 0.0),
        ([1.0], [2.0], 0.0),
        ([1.0, math.nan], [2.0, 3.0], 0.0),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], 0.0),
        ([1.0, 2.0], [5.0, 7.0], 1.0),
        ([1.0, 2.0, math.nan], [7.0, 5.0, 9.0], -1.0),
    ],
)
def test_a_rank_correlation_needs_two_known_pairs(
    left: Sequence[float], right: Sequence[float], expected: float
) -> None:
    assert rank_correlation(np.array(left), np.array(right)) == pytest.approx(expected)


def test_power_does_not_depend_on_the_sign_of_the_effect() -> None:
    shared = {"standard_error": 0.2, "df": 12.0, "run_variance": 0.04, "item_variance": 0.0}
    worse, better = (estimate_power(effect=e, seeds_now=2, **shared) for e in (-0.3, 0.3))
    assert worse == better
    assert better.effect == 0.3
    assert better.seeds_needed is not None
    assert better.seeds_needed > 2


BOUND = {"metrics": ["loss"], "direction": "minimize", "bound": 2.0}
MARGIN = {"metrics": ["acc"], "direction": "maximize", "margin": 0.1}


@pytest.mark.parametrize(
    ("constraint", "values", "baseline", "found"),
    [
        (BOUND, {"a": 2.0, "b": 2.1}, None, ["b"]),  # equal to the bound is allowed
        (BOUND, {"a": 2.5, "b": 2.1}, "a", ["b"]),  # the baseline itself breaks nothing
        (BOUND, {"a": None, "b": 1.0}, None, []),
        (MARGIN, {"a": 0.5, "b": 0.41, "c": 0.39}, "a", ["c"]),
        (MARGIN, {"a": None, "b": 0.1}, "a", []),  # no baseline to measure the margin from
        (MARGIN, {"a": 0.5, "b": 0.1}, None, []),
    ],
)
def test_a_constraint_is_broken_by_measured_candidates_beyond_it(
    constraint: Mapping[str, Any],
    values: Mapping[str, float | None],
    baseline: str | None,
    found: Sequence[str],
) -> None:
    metric = constraint["metrics"][0]
    question = Question(
        objective=Objective(metrics=(metric,), direction="minimize"),
        constraints={"guard": constraint},
    )
    results = {
        name: [{"metrics": {} if value is None else {metric: value}}]
        for name, value in values.items()
    }
    assert list(broken(question, results, baseline)) == found
