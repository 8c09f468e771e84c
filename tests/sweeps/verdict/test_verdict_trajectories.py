"""Tables of many runs give the numbers of one run after another."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from sweeps.verdict.observations import Candidate, Observations, ObservedRun, TaskData
from sweeps.verdict.smoothness import CORRELATIONS
from sweeps.verdict.task_quality import TaskFit, measure_quality
from sweeps.verdict.training_noise import (
    CHECKPOINT_INFLATION,
    TrainingNoise,
    checkpoint_noise,
    fit_means,
)
from sweeps.verdict.trajectories import tables_of

Floats = NDArray[np.float64]
Run = tuple[Floats, Floats]

HOLE = st.sampled_from([True, False, False, False])


@st.composite
def studies(draw: st.DrawFn) -> list[Run]:
    """Draw runs of which some lack checkpoints, and some have others than the rest."""
    grids = draw(
        st.lists(st.lists(st.integers(1, 9), max_size=7, unique=True), min_size=1, max_size=3)
    )
    runs = []
    for _ in range(draw(st.integers(1, 7))):
        tokens = np.array(sorted(draw(st.sampled_from(grids))), dtype=np.float64)
        values = draw(st.lists(st.integers(-3, 3), min_size=len(tokens), max_size=len(tokens)))
        holes = draw(st.lists(HOLE, min_size=len(tokens), max_size=len(tokens)))
        score = np.where(holes, math.nan, np.array(values, dtype=np.float64))
        runs.append((tokens, score))
    return runs


def finite(run: Run) -> Run:
    kept = np.isfinite(run[1])
    return run[0][kept], run[1][kept]


@given(studies())
def test_every_scored_checkpoint_is_in_one_table(runs: list[Run]) -> None:
    tables = tables_of(runs)
    found = {
        int(row): (table.tokens.tolist(), own.tolist())
        for table in tables
        for row, own in zip(table.rows, table.scores, strict=True)
    }
    assert found == {i: tuple(side.tolist() for side in finite(r)) for i, r in enumerate(runs)}
    assert len({tuple(table.tokens.tolist()) for table in tables}) == len(tables)


def test_no_runs_make_no_table() -> None:
    assert tables_of([]) == []


def noise_of_each(runs: list[Run], last: int) -> TrainingNoise:
    """Compute the noise of late checkpoints run by run, with the likelihood written out."""
    squares, count = 0.0, 0
    quadratic, penalty = np.zeros(len(CORRELATIONS)), np.zeros(len(CORRELATIONS))
    for tokens, score in map(finite, runs):
        if len(tokens) < 3:
            continue
        x, y = tokens[-last:], score[-last:]
        line = np.column_stack([np.ones(len(x)), (x - x[0]) / np.ptp(x)])
        basis = np.linalg.qr(line, mode="complete")[0][:, 2:].T
        own = basis @ y
        squares, count = squares + float(own @ own), count + len(own)
        lag = np.abs(np.subtract.outer(np.arange(len(x)), np.arange(len(x))))
        for place, correlation in enumerate(CORRELATIONS):
            covariance = basis @ np.power(correlation, lag) @ basis.T
            quadratic[place] += own @ np.linalg.solve(covariance, own)
            penalty[place] += np.linalg.slogdet(covariance)[1]
    if count == 0:
        return TrainingNoise.unknown()
    factor = 1.0
    if squares > 0.0:
        likelihood = -0.5 * (count * np.log(quadratic / squares) + penalty)
        weight = np.exp(likelihood - likelihood.max())
        factor = float((weight * quadratic).sum() / weight.sum() / squares)
    smooth = max(1.0, factor / CHECKPOINT_INFLATION)
    variance = CHECKPOINT_INFLATION * squares / count
    return TrainingNoise(variance=variance, df=float(count), source="checkpoints", smooth=smooth)


@settings(deadline=None)
@given(studies(), st.integers(3, 6))
def test_the_noise_of_checkpoints_is_that_of_one_run_after_another(
    runs: list[Run], last: int
) -> None:
    found, wanted = checkpoint_noise(runs, last), noise_of_each(runs, last)
    assert found.df == wanted.df
    assert found.variance == pytest.approx(
        wanted.variance, rel=1e-6, abs=1e-15
    )  # positions have 9 decimals
    if wanted.known and wanted.variance > 1e-20:
        assert found.smooth == pytest.approx(wanted.smooth, rel=1e-6)


def stability_of_each(runs: list[Run], last: int) -> float | None:
    """Compute the stability of the ranking from dictionaries, one candidate for each run."""
    values = [dict(zip(*(side.tolist() for side in finite(run)), strict=True)) for run in runs]
    shared = sorted(set.intersection(*map(set, values)))[-last:]
    taus = []
    for before, after in itertools.pairwise(shared):
        a, b = ([of_run[at] for of_run in values] for at in (before, after))
        if len(set(a)) > 1 and len(set(b)) > 1:
            taus.append(stats.kendalltau(a, b).statistic)
    return float(np.mean(taus)) if len(runs) >= 3 and taus else None


@settings(deadline=None)
@given(studies())
def test_the_stability_of_a_ranking_is_that_of_the_checkpoints_that_all_share(
    runs: list[Run],
) -> None:
    names = [f"c{k}" for k in range(len(runs))]
    task = TaskData(
        task="task",
        metric="metric",
        higher_is_better=True,
        chance=0.0,
        values=np.zeros(len(runs)),
        trajectories=tuple(runs),
    )
    observed = Observations(
        study="s",
        direction="maximize",
        score="",
        rule={},
        candidates=tuple(Candidate(name=name, trial=name) for name in names),
        runs=tuple(
            ObservedRun(name=name, candidate=k, seed=0, score=0.0) for k, name in enumerate(names)
        ),
        tasks=(task,),
    )
    noise = TrainingNoise(variance=1.0, df=1.0, source="published")
    fit = fit_means(observed.run_scores(task.values))
    found = measure_quality(TaskFit(observed=observed, task=task, fit=fit, noise=noise))
    assert found.stability == pytest.approx(stability_of_each(runs, 5))
    ends = [score[-1] for _, score in map(finite, runs) if len(score)]
    assert found.above_chance == pytest.approx(np.mean(ends) if ends else None)
