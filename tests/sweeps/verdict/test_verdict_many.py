"""The statistics of thousands of candidates are those of the plain matrices, in linear memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sweeps.verdict import contrasts, draws, item_noise
from sweeps.verdict.answer import not_ruled_out
from sweeps.verdict.contrasts import Evidence, best_subset, many_to_one, simultaneous
from sweeps.verdict.covariance import (
    Contrasts,
    Covariance,
    centred,
    differences,
    matrix,
    power_sums,
    product,
    variances,
)
from sweeps.verdict.decision import judge
from sweeps.verdict.item_noise import item_covariance
from sweeps.verdict.training_noise import (
    MIN_BLOCKED_DF,
    OwnVariances,
    RunScores,
    TrainingNoise,
    fit_means,
)

Floats = NDArray[np.float64]
RNG = np.random.default_rng(11)


def full(candidates: int, seeds: int) -> list[tuple[int, int]]:
    return [(k, s) for k in range(candidates) for s in range(seeds)]


DESIGNS: dict[str, list[tuple[int, int]]] = {
    "every candidate with every seed": full(4, 3),
    "a missing seed": [run for run in full(5, 3) if run not in {(0, 2), (3, 0)}],
    "unbalanced": [(0, s) for s in range(6)] + [(1, 0), (1, 1), (2, 4), (2, 5), (3, 0), (3, 5)],
    "one seed twice": [*full(4, 3), (0, 1), (2, 2)],
    "one candidate": full(1, 6),
    "one run": [(0, 0)],
    "one seed": full(6, 1),
    "a seed of its own for each run": [(k, 3 * k + s) for k in range(4) for s in range(3)],
    "two groups that share no seed": [*full(3, 3), *((k + 3, s + 3) for k, s in full(3, 3))],
    "too few degrees of freedom": full(3, 2),
    "just enough degrees of freedom": full(5, 2),
    "a search with three confirmed": [*((k, 0) for k in range(12)), *full(3, 4)[1:]],
    "large seeds": [(k, 10**9 + 7 * s) for k, s in full(4, 4)],
}


def scores(design: list[tuple[int, int]]) -> RunScores:
    rng = np.random.default_rng(len(design))
    candidate, seed = np.array(design).T
    value = 3.0 + rng.standard_normal(len(design)) + 0.5 * candidate + 0.3 * (seed % 5)
    names = [f"c{k}" for k in range(candidate.max() + 1)]
    return RunScores(candidates=names, candidate=candidate, seed=seed, value=value)


def dense(runs: RunScores) -> dict[str, Any]:
    """Solve the same least squares with one-hot matrices, as the platform did until 2026-11-26."""
    count = len(runs.candidates)
    plain = np.eye(count)[runs.candidate]
    names, position = np.unique(runs.seed, return_inverse=True)
    indicator = np.eye(len(names))[position]
    design = np.hstack([plain, indicator[:, :-1] - indicator[:, -1:]])
    rank = int(np.linalg.matrix_rank(design))
    blocked = len(names) > 1 and rank == design.shape[1]
    blocked = blocked and len(runs.value) - rank >= MIN_BLOCKED_DF
    design = design if blocked else plain
    inverse = np.linalg.inv(design.T @ design)
    solution = inverse @ (design.T @ runs.value)
    residual = runs.value - design @ solution
    free = 1.0 - ((design @ inverse) * design).sum(axis=1)
    counts = np.bincount(runs.candidate)
    return {
        "blocked": blocked,
        "means": solution[:count],
        "unit": inverse[:count, :count],
        "df": len(runs.value) - design.shape[1],
        "squares": np.bincount(runs.candidate, residual**2),
        "own_df": np.where(counts > 1, np.bincount(runs.candidate, free), 0.0),
    }


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_the_fit_is_that_of_the_one_hot_matrices(design: list[tuple[int, int]]) -> None:
    runs = scores(design)
    fit, expected = fit_means(runs), dense(runs)
    assert fit.blocked == expected["blocked"]
    np.testing.assert_allclose(fit.means, expected["means"], atol=1e-12)
    np.testing.assert_allclose(fit.unit.dense(), expected["unit"], atol=1e-12)
    assert fit.noise.df == expected["df"]
    if expected["df"]:
        squares = np.asarray(expected["squares"])
        assert fit.noise.variance == pytest.approx(squares.sum() / expected["df"], abs=1e-12)
    if fit.own is not None:
        np.testing.assert_allclose(fit.own.squares, expected["squares"], atol=1e-12)
        np.testing.assert_allclose(fit.own.df, expected["own_df"], atol=1e-12)


def low_rank(count: int) -> Covariance:
    root = RNG.standard_normal((3, 3))
    return Covariance(
        diagonal=RNG.uniform(0.5, 2.0, count),
        factor=RNG.standard_normal((count, 3)),
        inner=root @ root.T,
    )


@pytest.mark.parametrize(
    "weights", [differences(7, [0, 2, 6], 3), centred(7), centred(7, [1, 2, 5])]
)
def test_sparse_contrasts_are_those_of_the_matrix(weights: Contrasts) -> None:
    plain, covariance = weights.dense(), low_rank(7)
    assert len(weights) == len(plain)
    np.testing.assert_allclose(plain.sum(axis=1), 0.0, atol=1e-15)
    values = RNG.standard_normal(7)
    np.testing.assert_allclose(product(weights, values), plain @ values)
    for power in (2, 4):
        expected = plain**power @ values
        np.testing.assert_allclose(power_sums(weights, power, values), expected, atol=1e-12)
        np.testing.assert_allclose(power_sums(plain, power, values), expected, atol=1e-12)
    full_matrix = plain @ covariance.dense() @ plain.T
    for form in (covariance, covariance.dense()):
        for rows in (weights, plain):
            np.testing.assert_allclose(variances(form, rows), np.diag(full_matrix))
        np.testing.assert_allclose(matrix(form, plain), full_matrix, atol=1e-12)


def evidence(count: int, *, own: bool, items: bool) -> Evidence:
    rng = np.random.default_rng(count)
    runs = np.where(np.arange(count) < 5, 3.0, 1.0)
    df = runs - 1.0
    return Evidence(
        names=tuple(f"c{k}" for k in range(count)),
        means=rng.standard_normal(count),
        unit=Covariance(diagonal=1.0 / runs, factor=np.zeros((count, 0)), inner=np.zeros((0, 0))),
        noise=TrainingNoise(variance=0.04, df=10.0, source="seeds"),
        item_covariance=0.01 * np.eye(count) if items else None,
        item_df=99.0,
        own=OwnVariances(squares=0.06 * df * rng.chisquare(2, count), df=df, runs=runs)
        if own
        else None,
    )


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("items", [False, True])
def test_beyond_a_hundred_candidates_the_rule_is_that_of_single_comparisons(
    own: bool, items: bool
) -> None:
    made = evidence(110, own=own, items=items)
    found = many_to_one(made, 0)
    finalists, p_best = best_subset(made)
    for k in (1, 4, 77):
        weights = np.zeros((109, 110))
        others = [j for j in range(110) if j != k]
        weights[np.arange(109), others], weights[:, k] = 1.0, -1.0
        parts = made.parts(weights)
        tail = stats.t.sf(parts.t(), parts.df).min()
        assert p_best[f"c{k}"] == pytest.approx(min(1.0, 109 * tail), rel=1e-9)
        single = made.parts(-weights[:1])
        assert found[f"c{k}"].standard_error == pytest.approx(float(np.sqrt(single.variance[0])))
    assert set(finalists) == {name for name, p in p_best.items() if p > 0.025}
    best = made.names[int(np.argmax(made.means))]
    assert best in finalists
    assert best in not_ruled_out(made)


def test_of_thousands_only_the_best_rule_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = evidence(120, own=False, items=False)
    every = best_subset(made)[1]
    monkeypatch.setattr(contrasts, "MOST_DENSE", 110)
    monkeypatch.setattr(contrasts, "_RIVALS", 20)
    few = best_subset(made)[1]
    assert all(few[name] >= every[name] for name in made.names)
    assert few == pytest.approx(every, abs=1e-12)


def test_shrinking_a_pick_among_many_is_that_of_the_whole_matrix() -> None:
    made = evidence(40, own=True, items=True)
    assert isinstance(made.unit, Covariance)
    plain = replace(made, unit=made.unit.dense())
    found = judge(made, baseline="c0"), judge(plain, baseline="c0")
    assert found[0].regret.shrunk_advantage == pytest.approx(found[1].regret.shrunk_advantage)
    assert found[0].regret.expected == pytest.approx(found[1].regret.expected)
    assert found[0].finalists == found[1].finalists


def test_candidates_outside_a_comparison_may_be_merged_in_its_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = evidence(30, own=True, items=False)
    weights = np.zeros((1, 30))
    weights[0, [1, 2]] = 1.0, -1.0
    whole = simultaneous(made, weights)[0]
    monkeypatch.setattr(draws, "MOST_DENSE", 10)
    merged = simultaneous(made, weights)[0]
    assert merged.p == pytest.approx(whole.p, abs=0.01)
    assert merged.standard_error == whole.standard_error


@pytest.mark.parametrize("replicates", [1, 3])
def test_items_of_many_candidates_have_the_covariance_of_the_matrix(
    replicates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = np.repeat(np.arange(8), replicates)
    tables = [RNG.standard_normal((len(candidate), items)) for items in (40, 25)]
    tables = [t + RNG.standard_normal((8, t.shape[1]))[candidate] for t in tables]
    groups = [None, np.arange(25) // 3]
    expected, df = item_covariance(tables, [0.7, -0.3], candidate, groups)
    monkeypatch.setattr(item_noise, "MOST_DENSE", 5)
    found, same_df = item_covariance(tables, [0.7, -0.3], candidate, groups)
    assert isinstance(found, Covariance)
    assert isinstance(expected, np.ndarray)
    assert same_df == df
    np.testing.assert_allclose(found.dense(), expected, atol=1e-12)


def test_items_of_many_unequal_candidates_are_never_too_certain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidate = np.repeat(np.arange(8), [3, 3, 1, 1, 1, 1, 1, 1])
    table = RNG.standard_normal((len(candidate), 60))
    table += RNG.standard_normal((8, 60))[candidate]
    expected, _ = item_covariance([table], [1.0], candidate)
    monkeypatch.setattr(item_noise, "MOST_DENSE", 5)
    found, _ = item_covariance([table], [1.0], candidate)
    pairs = differences(8, [1, 2, 5, 7], 0)
    assert (variances(found, pairs) >= variances(expected, pairs) - 1e-12).all()
