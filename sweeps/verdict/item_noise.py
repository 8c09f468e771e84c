"""Item noise: the part of a difference that comes from the choice of the items, with the items paired.

Two runs answer the same items, and an item that is hard for one is hard for the other. Differences item
by item remove that, and made the standard error 3.8 (accuracy) to 10 (bits per byte) times smaller. The
rest is the part of an item that favours one candidate over another.

    value of item i, run s of candidate k = item + candidate + candidate x item + run + rest
                                                               └ item noise ┘    └ training noise

With several seeds the rest is measured and subtracted from the item noise. It is part of the training
noise already, so it is not counted twice.

Items of one passage, subject or document favour the same candidate. If their groups are known, the
groups count as drawn, each with the sum of its items (the cluster-robust variance).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sweeps.verdict.covariance import MOST_DENSE, Covariance
from sweeps.verdict.training_noise import Floats

__all__ = [
    "Groups",
    "hierarchical_bootstrap",
    "item_covariance",
    "paired_error",
    "permutation_p",
]

Groups = NDArray[np.int64] | None
"""Group of each item, any numbers; None if each item is a group of its own."""

_MOST_SPLITS = 20_000
"""Most splits for which the permutation test is computed; with more the seeds are not few."""


def item_covariance(
    tables: Sequence[Floats],
    weights: Sequence[float],
    candidate: NDArray[np.int64],
    groups: Sequence[Groups] | None = None,
) -> tuple[Floats | Covariance, float]:
    """Return the covariance of candidates' scores from the choice of items, and its degrees of freedom.

    Args:
        tables: Runs x items for each task; an item that any run lacks (NaN) is left out of all.
        weights: Weight of each task's mean in the score, with its sign.
        candidate: Position of each run's candidate.
        groups: Groups of the items for each task; None if each item is a group of its own.

    Returns:
        Candidates x candidates, in score units squared, of thousands as a product of narrow matrices; the
        fewest items or groups of a task, less one.
    """
    count = int(candidate.max()) + 1
    many = count > MOST_DENSE
    total, factors = np.zeros((0 if many else count,) * 2), [np.zeros((count, 0))]
    df = math.inf
    for table, weight, group in zip(tables, weights, groups or [None] * len(tables), strict=True):
        kept = np.isfinite(table).all(axis=0)
        if kept.sum() < 2 or weight == 0.0:
            continue
        sums = _group_sums(table[:, kept], None if group is None else group[kept])
        if many:
            factors.append(abs(weight) * _task_factor(sums, candidate, count))
        else:
            total += weight**2 * _task_covariance(sums, candidate, count)
        df = min(df, sums.shape[1] - 1.0)
    if not many:
        return total, df
    factor = np.concatenate(factors, axis=1)
    inner = np.eye(factor.shape[1])
    return Covariance(diagonal=np.zeros(count), factor=factor, inner=inner), df


def _group_sums(table: Floats, group: Groups) -> Floats:
    """Return runs x groups whose plain mean varies as that of the items: deviations, summed by group.

    A group's value is the sum of its items' deviations from the run's mean, over the mean group size.
    """
    if group is None:
        return table
    names, position = np.unique(group, return_inverse=True)
    # A group that all items share is the subject of the task, not one draw of many.
    if len(names) in (1, len(group)):
        return table
    member = np.zeros((len(group), len(names)))
    member[np.arange(len(group)), position] = len(names) / len(group)
    deviations = table - table.mean(axis=1, keepdims=True)
    return np.asarray(deviations @ member, dtype=np.float64)


def _task_covariance(table: Floats, candidate: NDArray[np.int64], count: int) -> Floats:
    means, runs, residual = _candidate_means(table, candidate, count)
    covariance = np.atleast_2d(np.cov(means)) / table.shape[1]
    if residual == 0.0:
        return np.asarray(covariance, dtype=np.float64)
    values, vectors = np.linalg.eigh(covariance - np.diag(residual / runs / table.shape[1]))
    # The subtraction may overshoot by chance; a covariance has no negative eigenvalue.
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T, dtype=np.float64)


def _task_factor(table: Floats, candidate: NDArray[np.int64], count: int) -> Floats:
    """Return candidates x columns whose product with its transpose is :func:`_task_covariance`.

    What a run's noise adds to the items' is subtracted as if all candidates had as many runs as the one
    with most. So the covariance of candidates with fewer runs is a little too large, and never too small.
    """
    means, runs, residual = _candidate_means(table, candidate, count)
    items = table.shape[1]
    means = (means - means.mean(axis=1, keepdims=True)) / math.sqrt((items - 1.0) * items)
    if residual == 0.0:
        return np.asarray(means, dtype=np.float64)
    values, vectors = np.linalg.eigh(means.T @ means)
    kept = values > residual / runs.max() / items
    shrunk = np.sqrt(1.0 - residual / runs.max() / items / values[kept])
    return np.asarray(means @ vectors[:, kept] * shrunk, dtype=np.float64)


def _candidate_means(
    table: Floats, candidate: NDArray[np.int64], count: int
) -> tuple[Floats, NDArray[np.int64], float]:
    """Return means of candidates x items, runs of each candidate, and the variance of a run's rest.

    The rest is what varies between runs of one candidate and from item to item; 0 without replicates.
    """
    runs = np.bincount(candidate, minlength=count)
    sums = np.zeros((count, table.shape[1]))
    np.add.at(sums, candidate, table)
    means = sums / runs[:, None]
    df = int((runs - 1).sum())
    if df == 0:
        return means, runs, 0.0
    rest = table - means[candidate]
    rest -= rest.mean(axis=1, keepdims=True)
    return means, runs, float((rest**2).sum()) / (df * (table.shape[1] - 1))


def paired_error(first: Floats, second: Floats, group: Groups = None) -> tuple[float, float, int]:
    """Return the mean difference over the items that both have, its paired standard error, their number.

    Both numbers are NaN with fewer than two items.
    """
    both = np.isfinite(first) & np.isfinite(second)
    difference = first[both] - second[both]
    if len(difference) < 2:
        return math.nan, math.nan, len(difference)
    sums = _group_sums(difference[None, :], None if group is None else group[both])[0]
    error = float(sums.std(ddof=1)) / math.sqrt(len(sums))
    return float(difference.mean()), error, len(difference)


def hierarchical_bootstrap(
    first: Sequence[Floats],
    second: Sequence[Floats],
    weights: Sequence[float],
    *,
    run_sd: float = 0.0,
    shared_seeds: bool = False,
    groups: Sequence[Groups] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Floats:
    """Return draws of the score difference, first minus second: seeds resampled, then items, both paired.

    Resampling S seeds shows only (S - 1)/S of their variance, half of it at two seeds, so the runs are
    first spread about their mean by sqrt(S / (S - 1)). A side with one run cannot be resampled: normal
    noise of ``run_sd`` replaces its seeds.

    Args:
        first: Seeds x items for each task.
        second: The same for the other candidate, items in the same order.
        weights: Weight of each task's mean in the score, with its sign.
        run_sd: Training noise of one run, in score units, for a side with one run.
        shared_seeds: True if row s of both is the same seed, so that seeds are drawn together.
        groups: Groups of items that are drawn together, for each task; None if there are none.
        draws: Number of bootstrap draws.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    picks = [_seed_weights(len(side[0]), draws, rng) for side in (first, second)]
    if shared_seeds and len(first[0]) == len(second[0]):
        picks[1] = picks[0]
    total = np.zeros(draws)
    for a, b, weight, group in zip(
        first, second, weights, groups or [None] * len(first), strict=True
    ):
        whole = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
        chosen = _item_draws(int(whole.sum()), None if group is None else group[whole], draws, rng)
        sides = [
            ((chosen @ _spread(side[:, whole]).T) * pick).sum(axis=1)
            for side, pick in zip((a, b), picks, strict=True)
        ]
        total += weight * (sides[0] - sides[1])
    alone = sum(len(side[0]) == 1 for side in (first, second))
    return np.asarray(total + rng.normal(0.0, run_sd * math.sqrt(alone), draws), dtype=np.float64)


def _item_draws(items: int, group: Groups, draws: int, rng: np.random.Generator) -> Floats:
    """Return draws x items: the weight of each item after items, or whole groups, are resampled."""
    position = np.arange(items) if group is None else np.unique(group, return_inverse=True)[1]
    if not position.any():
        position = np.arange(items)
    count = int(position.max()) + 1
    times = rng.multinomial(count, np.full(count, 1.0 / count), size=draws)[:, position]
    return np.asarray(times / np.maximum(times.sum(axis=1, keepdims=True), 1))


def _seed_weights(seeds: int, draws: int, rng: np.random.Generator) -> Floats:
    return np.asarray(rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=draws) / seeds)


def _spread(runs: Floats) -> Floats:
    """Return the runs moved away from their mean so that resampling them shows their whole variance."""
    count = len(runs)
    if count == 1:
        return runs
    mean = runs.mean(axis=0)
    return np.asarray(mean + math.sqrt(count / (count - 1.0)) * (runs - mean))


def permutation_p(first: Floats, second: Floats) -> float | None:
    """Return the exact two-sided p-value of a difference of means under all relabellings of the runs.

    It assumes nothing about the noise. In return it cannot go below 1 / (number of splits): 0.1 for
    three runs against three. None if there are more than 20,000 splits.
    """
    pooled, size = np.concatenate([first, second]), len(first)
    if math.comb(len(pooled), size) > _MOST_SPLITS:
        return None
    observed = abs(float(first.mean() - second.mean()))
    splits = np.array(list(itertools.combinations(range(len(pooled)), size)))
    ours = pooled[splits].mean(axis=1)
    theirs = (pooled.sum() - ours * size) / (len(pooled) - size)
    scale = max(1.0, float(np.abs(pooled).max()))
    return float((np.abs(ours - theirs) >= observed - 1e-12 * scale).mean())
