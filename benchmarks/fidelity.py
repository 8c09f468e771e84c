"""Regret of the policy with rungs on tables of several sizes, on synthetic truths, and on RegMix.

    python benchmarks/fidelity.py ../shared/data/swarms/two_sizes.csv --regmix ../shared/data/swarms/regmix
    python benchmarks/fidelity.py TABLE.csv … --draws 4 --skip-synthetic

A table has columns ``weight_<source>``, ``model_size``, ``n_tokens`` and ``<metric>_loss``, one row for
each checkpoint. The top is the largest size at its most tokens; one unit is the price of one run there.
The low rungs are the largest size and each smaller one, at the checkpoint nearest to 30% of the tokens.
A simulated study looks its runs up in the table. Regret 0 is the best mixture of the table at the top,
1 an average one. Plan, guard, spread of the pairs and surrogate are the platform's.

Synthetic truths (``truths.py``) have 6 domains, 4 or 7 sources and a pool of 300 mixtures. At the low
rung the domains are mixed with those of another truth, so that the scores rank .96 (mild) or .7 (strong)
as at the top, or their sign is turned (reversed).
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from truths import KINDS, Truth

from sweeps.search.proposals.rung_policy import (
    Guard,
    judge_rung,
    plan_rungs,
    rung_family,
    spread_rows,
)
from sweeps.search.surrogates import Surrogate
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.search.surrogates.rung_process import RungFamily, rung_columns
from sweeps.swarm.swarm_tables import read_pair

Floats = NDArray[np.float64]
SHARE = 0.3
BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Mixtures that a simulated study chooses from, with their metrics at two rungs."""

    name: str
    weights: Floats
    low: Floats
    top: Floats
    score: Floats
    """Weight of each metric in the score, of which less is better."""
    truth: Floats
    """Score of each mixture at the top without noise, as far as it is known."""
    rung: Floats
    """Columns of the low rung; the top has zeros."""
    price: float
    same_model: bool

    @property
    def rank(self) -> float:
        """Rank correlation of the scores at the low rung and at the top."""
        return rank_correlation(self.low @ self.score, self.top @ self.score)


@dataclass
class Search:
    """One simulated study."""

    pool: Pool
    rng: np.random.Generator
    at_low: list[int] = field(default_factory=list)
    at_top: list[int] = field(default_factory=list)
    dropped: bool = False
    guard: Guard | None = None

    def fit(self) -> Surrogate:
        """Fit the metrics of all runs."""
        pool = self.pool
        low = [] if self.dropped else self.at_low
        rungs = np.r_[np.tile(pool.rung, (len(low), 1)), np.zeros((len(self.at_top), 2))]
        inputs = rung_columns(pool.weights[[*low, *self.at_top]], rungs)
        values = np.r_[pool.low[low], pool.top[self.at_top]]
        return Surrogate(rung_family(2)).fit(inputs, values)

    def predicted(self) -> Floats:
        """Return the predicted score of every mixture at the top; lookups before three runs."""
        pool = self.pool
        if len(self.at_top) + (0 if self.dropped else len(self.at_low)) < 3:
            return self.rng.random(len(pool.weights))
        zeros = np.zeros((len(pool.weights), 2))
        return self.fit().predict(rung_columns(pool.weights, zeros)) @ pool.score

    def propose(self, taken: list[int], count: int) -> list[int]:
        """Return new mixtures: the best by prediction, and every fifth far from all others."""
        loss = self.predicted()
        loss[taken] = np.inf
        count = min(count, len(loss) - len(taken))
        chosen = np.argsort(loss)[:count].tolist()
        if count and (len(taken) + count) // 5 > len(taken) // 5:
            roots = np.sqrt(self.pool.weights)
            others = [*taken, *chosen[:-1]]
            gaps = ((roots[:, None] - roots[None, others]) ** 2).sum(axis=2).min(axis=1)
            chosen[-1] = int(gaps.argmax())
        return chosen

    def full(self, runs: int) -> None:
        """Spend ``runs`` on full runs alone."""
        goal = len(self.at_top) + runs
        first = max(3, round(0.6 * runs))
        while len(self.at_top) < min(goal, len(self.pool.weights)):
            left = goal - len(self.at_top)
            if len(self.at_top) < first:
                start = int(self.rng.integers(len(self.pool.weights)))
                spread = spread_rows(self.pool.weights, first, start).tolist()
                self.at_top += [row for row in spread if row not in self.at_top][:left]
            else:
                self.at_top += self.propose(self.at_top, min(BATCH, left))

    def rungs(self, units: float, bound: float | None = None) -> None:
        """Spend ``units`` by the policy with rungs; ``bound`` = the guard's, None = the platform's."""
        pool = self.pool
        plan = plan_rungs(
            units, pool.price, pool.weights.shape[1] + 10_000, same_model=pool.same_model
        )
        go_on = 1.0 - pool.price if pool.same_model else 1.0
        size = min(plan.low_runs, len(pool.weights))
        first = int(self.rng.integers(len(pool.weights)))
        self.at_low = spread_rows(pool.weights, min(plan.design, size), first).tolist()
        if plan.pairs:
            rows = spread_rows(pool.weights[self.at_low], plan.pairs)
            self.at_top = [self.at_low[row] for row in rows]
            scores = pool.low[self.at_top] @ pool.score, pool.top[self.at_top] @ pool.score
            self.guard = judge_rung(*scores)
            if bound is not None:
                self.guard = replace(self.guard, needed=bound)
            if not self.guard.holds:
                self.dropped = True
                spent = pool.price * len(self.at_low) + go_on * len(self.at_top)
                self.full(int(units - spent + 1e-9))
                return
        while len(self.at_low) < size:
            self.at_low += self.propose(
                self.at_low, min(BATCH, plan.batch, size - len(self.at_low))
            )
        loss = self.predicted()
        order = [row for row in np.argsort(loss) if row in set(self.at_low) - set(self.at_top)]
        self.at_top += order[: plan.finalists]

    def pick(self) -> int:
        """Return the mixture that the study decides on."""
        return int(self.predicted().argmin())

    def regret(self) -> float:
        """Return the regret of the pick: 0 is the best mixture, 1 an average one."""
        truth = self.pool.truth
        return float((truth[self.pick()] - truth.min()) / (truth.mean() - truth.min()))


def read_table(path: Path) -> tuple[dict[tuple[float, float], dict[str, Floats]], list[str]]:
    """Return (size, tokens) → mixture → losses, and the names of the losses."""
    found: dict[tuple[float, float], dict[str, Floats]] = {}
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    metrics = [name for name in rows[0] if name.endswith("_loss")]
    for row in rows:
        weights = [float(v) for k, v in row.items() if k.startswith("weight_")]
        key = "|".join(f"{value:.6f}" for value in weights)
        losses = np.array([float(row[name] or "nan") for name in metrics])
        if np.isfinite(losses).all():
            found.setdefault((float(row["model_size"]), float(row["n_tokens"])), {})[key] = losses
    return found, metrics


def pools(path: Path) -> Iterator[Pool]:
    """Yield a pool for each size of the table, with it as the low rung; the largest first."""
    table, _ = read_table(path)
    largest = max(size for size, _ in table)
    most = max(tokens for size, tokens in table if size == largest)
    for size in sorted({size for size, _ in table}, reverse=True):
        near = min((t for s, t in table if s == size), key=lambda t: abs(t - SHARE * most))
        low, top = table[size, near], table[largest, most]
        shared = [key for key in top if key in low]
        share = near / most
        weights = np.array([[float(part) for part in key.split("|")] for key in shared])
        values = np.array([top[key] for key in shared])
        count = values.shape[1]
        yield Pool(
            name=f"{path.stem}: {size / 1e6:.0f}M at {share:.0%}",
            weights=weights / weights.sum(axis=1, keepdims=True),
            low=np.array([low[key] for key in shared]),
            top=values,
            score=np.full(count, 1.0 / count),
            truth=values.mean(axis=1),
            rung=np.array([np.log10(largest / size), np.log(1.0 / share) / np.log(1.0 / 0.3)]),
            price=share * size / largest,
            same_model=size == largest,
        )


def synthetic(bias: str, sources: int, seed: int) -> Pool:
    """Return a pool of a truth whose low rung is biased."""
    kind = KINDS[seed % len(KINDS)]
    truth, other = Truth(sources, seed, kind, 0.2), Truth(sources, seed + 500, kind, 0.2)
    rng = np.random.default_rng((sources, seed, 77))
    weights = rng.dirichlet(np.ones(sources), 300)
    weights[150:] = rng.dirichlet(np.full(sources, 0.4), 150)
    own, foreign = truth.domains(weights), other.domains(weights)
    if bias == "reversed":
        low = 2.0 * own.mean(axis=0) - own
    else:
        amount = {"mild": 0.27, "strong": 1.2}[bias]
        low = own + amount * (foreign - foreign.mean(axis=0)) * own.std(axis=0) / foreign.std(
            axis=0
        )
    noise = truth.observe(weights, rng) - own
    return Pool(
        name=f"synthetic, {bias}",
        weights=weights,
        low=low + truth.observe(weights, rng) - own,
        top=own + noise,
        score=truth.weights,
        truth=truth.loss(weights),
        rung=np.array([0.0, 1.0]),
        price=SHARE,
        same_model=True,
    )


def mean_error(values: list[float]) -> str:
    """Return mean and standard error as text."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):.3f} ± {error:.3f}"


def compare(pool: Pool, units: float, draws: int) -> None:
    """Print the regret with rungs and with full runs alone."""
    with_rungs, full = [], []
    for draw in range(draws):
        search = Search(pool, np.random.default_rng((draw, 1)))
        search.rungs(units)
        with_rungs.append(search.regret())
        if units >= 3:
            plain = Search(pool, np.random.default_rng((draw, 1)))
            plain.full(int(units))
            full.append(plain.regret())
    alone = mean_error(full) if full else "–"
    print(
        f"{pool.name:<28} {units:>4g} units  rank {pool.rank:.2f}  regret with rungs "
        f"{mean_error(with_rungs)}  full alone {alone}  {draws} draws",
        flush=True,
    )


def compare_synthetic(bias: str, units: float, seeds: int) -> None:
    """Print mean regrets over synthetic truths, and how often the guard dropped the rung."""
    with_rungs, full, ranks, dropped, doubted = [], [], [], 0, 0
    for sources in (4, 7):
        for seed in range(seeds):
            pool = synthetic(bias, sources, seed)
            ranks.append(pool.rank)
            search = Search(pool, np.random.default_rng((seed, 1)))
            search.rungs(units)
            dropped += search.dropped
            doubted += search.guard is not None and search.guard.doubted
            with_rungs.append(search.regret())
            plain = Search(pool, np.random.default_rng((seed, 1)))
            plain.full(int(units))
            full.append(plain.regret())
    print(
        f"{'synthetic, ' + bias:<28} {units:>4g} units  rank {np.mean(ranks):.2f}  regret with rungs "
        f"{mean_error(with_rungs)}  full alone {mean_error(full)}  rung dropped in "
        f"{dropped} and doubted in {doubted} of {len(full)}",
        flush=True,
    )


def bounds_of_the_guard(bias: str, units: float, seeds: int, first: int) -> None:
    """Print mean regrets for several bounds on the rank correlation of the pairs."""
    rows = []
    for sources in (4, 7):
        for seed in range(first, first + seeds):
            pool = synthetic(bias, sources, seed)
            used, dropped = (Search(pool, np.random.default_rng((seed, 1))) for _ in range(2))
            used.rungs(units, bound=-1.0)
            dropped.rungs(units, bound=1.1)
            assert dropped.guard is not None
            rows.append((pool.rank, dropped.guard.correlation, used.regret(), dropped.regret()))
    rank, pairs, used_regret, dropped_regret = np.array(rows).T
    for bound in (-1.0, 0.6, 0.7, 0.75, 0.8, 0.9, 1.1):
        gone = pairs < bound - 0.002
        regret = np.where(gone, dropped_regret, used_regret)
        print(
            f"{'synthetic, ' + bias:<28} bound {bound:>5.2f}  regret {mean_error(regret.tolist())}  dropped "
            f"{gone.sum()} of {len(rank)}, of those that rank below .6: {(gone & (rank < 0.6)).sum()} of "
            f"{(rank < 0.6).sum()}",
            flush=True,
        )


def intervals(pool: Pool, draws: int, top_runs: int = 8) -> None:
    """Print how often 90% intervals at the top hold, for metrics of mixtures never run there."""
    held, ranks = [], []
    for draw in range(draws):
        rng = np.random.default_rng((draw, 2))
        search = Search(pool, rng)
        search.at_low = rng.permutation(len(pool.weights))[:45].tolist()
        search.at_top = search.at_low[:top_runs]
        left = np.setdiff1d(np.arange(len(pool.weights)), search.at_top)
        inputs = rung_columns(pool.weights[left], np.zeros((len(left), 2)))
        model = search.fit()
        low, high = model.predict_interval(inputs, 0.9)
        held.append(float(((low <= pool.top[left]) & (pool.top[left] <= high)).mean()))
        ranks.append(
            rank_correlation(model.predict(inputs) @ pool.score, pool.top[left] @ pool.score)
        )
    print(
        f"{pool.name:<28} 45 low and {top_runs} top runs: 90% intervals hold {np.mean(held):.3f}, "
        f"rank of the score {np.mean(ranks):.3f}  {draws} draws",
        flush=True,
    )


def regmix(folder: Path, draws: int) -> None:
    """Print the rank of the score at 60M from 64 runs at 1M and a few at 60M."""
    train = read_pair(folder / "train_mixture_1m.csv", folder / "train_pile_loss_1m.csv")
    large = read_pair(folder / "test_mixture_60m.csv", folder / "test_pile_loss_60m.csv")
    for count in (4, 8):
        ranks, held = [], []
        for draw in range(draws):
            rng = np.random.default_rng((draw, 3))
            low = rng.permutation(len(train.runs))[:64]
            order = rng.permutation(len(large.runs))
            top, left = order[:count], order[count:]
            rungs = np.r_[np.tile([np.log10(60.0), 0.0], (64, 1)), np.zeros((count, 2))]
            inputs = rung_columns(np.r_[train.weights[low], large.weights[top]], rungs)
            model = Surrogate(RungFamily(columns=2)).fit(
                inputs, np.r_[train.values[low], large.values[top]]
            )
            at = rung_columns(large.weights[left], np.zeros((len(left), 2)))
            truth = large.values[left]
            ranks.append(rank_correlation(model.predict(at).mean(axis=1), truth.mean(axis=1)))
            lower, upper = model.predict_interval(at, 0.9)
            held.append(float(((lower <= truth) & (truth <= upper)).mean()))
        print(
            f"RegMix: 64 runs at 1M, {count} at 60M: rank of the score {np.mean(ranks):.3f}, 90% "
            f"intervals hold {np.mean(held):.3f}  {draws} draws",
            flush=True,
        )


def main() -> None:
    """Print the figures that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tables", type=Path, nargs="*")
    parser.add_argument("--regmix", type=Path, help="folder of RegMix's tables")
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=12, help="truths of each number of sources")
    parser.add_argument("--skip-synthetic", action="store_true")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--guard", action="store_true", help="compare bounds of the guard, no more")
    options = parser.parse_args()
    start = time.process_time()
    for bias in ("strong", "mild") if options.guard else ():
        bounds_of_the_guard(bias, 16.0, options.seeds, options.first_seed)
    if options.guard:
        print(f"{time.process_time() - start:.0f} CPU-s")
        return
    for path in options.tables:
        for pool in pools(path):
            for units in (4.0, 8.0) if pool.same_model else (1.0, 4.0):
                compare(pool, units, options.draws)
            for top_runs in (4, 8):
                intervals(pool, options.draws, top_runs)
    for bias in () if options.skip_synthetic else ("mild", "strong", "reversed"):
        compare_synthetic(bias, 16.0, options.seeds)
    if options.regmix is not None:
        regmix(options.regmix, options.draws)
    print(f"{time.process_time() - start:.0f} CPU-s")


if __name__ == "__main__":
    main()
