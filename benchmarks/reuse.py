"""Rank of predictions when a source is added to a study: old runs kept, against starting over.

    python benchmarks/reuse.py ../shared/data/swarms/regmix            # a few CPU-minutes
    python benchmarks/reuse.py ../shared/data/swarms/regmix --draws 1 --sources arxiv github

From RegMix's 512 runs at 1M: 128 old runs without the source, and new ones that read at least 1% of
it. The old runs are points of the face where its weight is zero. The truth is the 256 test runs; the
figure is the mean rank correlation over 13 targets. The new runs are drawn at random among those that
the table has, so a designed set may do better.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from sweeps.search.surrogates import ProcessFamily, Surrogate
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.swarm.swarm_tables import Swarm, read_pair

Floats = NDArray[np.float64]
ADDED = (
    *("arxiv", "freelaw", "pubmed_central", "wikipedia_en"),
    *("github", "stackexchange", "pile_cc", "dm_mathematics"),
)
OLD_RUNS = 128
READ = 0.01
"""Least weight of the added source in a new run."""


def ranks(predicted: Floats, truth: Floats) -> float:
    """Return the mean rank correlation over the metrics."""
    columns = range(truth.shape[1])
    return float(np.mean([rank_correlation(predicted[:, t], truth[:, t]) for t in columns]))


def measured(train: Swarm, test: Swarm, source: str, counts: list[int], draw: int) -> Floats:
    """Return the rank for each number of new runs, old runs kept and without them, ``[counts, 2]``."""
    column = next(i for i, name in enumerate(train.sources) if name.endswith(source))
    rng = np.random.default_rng((draw, column))
    weight = train.weights[:, column]
    old = rng.permutation(np.flatnonzero(weight == 0.0))[:OLD_RUNS]
    able = rng.permutation(np.flatnonzero(weight >= READ))
    found = []
    for count in counts:
        new = able[:count]
        row = []
        for rows in (np.r_[old, new], new):
            if len(rows) < 8:
                row.append(np.nan)
                continue
            model = Surrogate(ProcessFamily()).fit(train.weights[rows], train.values[rows])
            row.append(ranks(model.predict(test.weights), test.values))
        found.append(row)
    return np.array(found)


def main() -> None:
    """Print one line for each number of new runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("regmix", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--sources", nargs="+", default=list(ADDED))
    parser.add_argument("--new", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    options = parser.parse_args()
    folder, start = options.regmix, time.process_time()
    train = read_pair(folder / "train_mixture_1m.csv", folder / "train_pile_loss_1m.csv")
    test = read_pair(folder / "test_mixture_1m.csv", folder / "test_pile_loss_1m.csv")
    table = np.array(
        [
            measured(train, test, source, options.new, draw)
            for source in options.sources
            for draw in range(options.draws)
        ]
    )
    error = table.std(axis=0, ddof=1) / np.sqrt(len(table)) if len(table) > 1 else table[0] * 0
    print(f"{'new runs':>8}  {'128 old runs kept':>18}  {'started over':>16}   rank over targets")
    for i, count in enumerate(options.new):
        cells = [f"{table[:, i, j].mean():.4f} ± {error[i, j]:.4f}" for j in (0, 1)]
        print(f"{count:>8}  {cells[0]:>18}  {cells[1]:>16}")
    print(f"{len(table)} draws, {time.process_time() - start:.0f} CPU-s")


if __name__ == "__main__":
    main()
