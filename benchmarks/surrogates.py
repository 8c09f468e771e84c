"""Surrogates on the two public swarms: rank correlation, regret and interval coverage.

    python benchmarks/surrogates.py ../shared/data/swarms --draws 3 --families gp lightgbm
    python benchmarks/surrogates.py ../shared/data/swarms --draws 10          # the issue's figures

RegMix: fit on 64 or 128 of the 512 mixtures at 1M parameters, tested on 256 others at 1M and at
60M; means over 13 targets. Olmix dclm: 5-fold, the mean of its 110 metrics. LightGBM is the
yardstick. Regret is that of the run that the surrogate likes best among those it did not see, for
the mean of the targets. Nothing here is chosen on test rows.

Sparse: truths of 24 and 40 sources (``truths.py``, noise 0.3), 48 and 100 runs of which most sources
read nothing; only how often intervals hold.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from truths import KINDS, Truth

from sweeps.search.surrogates import Surrogate, family
from sweeps.search.surrogates.base import folds
from sweeps.search.surrogates.leaderboard import rank_correlation
from sweeps.swarm.swarm_tables import read_pair

Floats = NDArray[np.float64]


def sparse(rng: np.random.Generator, runs: int, sources: int) -> Floats:
    """Mixtures of few sources: even draws of a Dirichlet of 0.15, weights under 1% cut."""
    drawn = rng.dirichlet(np.full(sources, 0.15), runs)
    drawn = np.where(drawn < 0.01, 0.0, drawn)
    return np.asarray(drawn / drawn.sum(axis=1, keepdims=True))


def many_sources(name: str, seeds: int) -> None:
    for sources in (24, 40):
        for runs in (48, 100):
            held = []
            for seed in range(seeds):
                truth = Truth(sources, seed, KINDS[seed % len(KINDS)], 0.3)
                rng = np.random.default_rng(seed)
                mixtures = sparse(rng, runs + 400, sources)
                losses = (truth.observe(mixtures, rng) @ truth.weights)[:, None]
                model = Surrogate(family(name)).fit(mixtures[:runs], losses[:runs])
                held.append(coverage(model, mixtures[runs:], losses[runs:]))
            print(
                f"sparse {name:11} {sources} sources, {runs:>3} runs  90% holds "
                f"{np.mean(held):.3f}  {seeds} seeds",
                flush=True,
            )


def ranks(predicted: Floats, truth: Floats) -> float:
    return float(
        np.mean([rank_correlation(predicted[:, t], truth[:, t]) for t in range(truth.shape[1])])
    )


def regret(predicted: Floats, truth: Floats) -> float:
    guess, loss = predicted.mean(axis=1), truth.mean(axis=1)
    return float((loss[guess.argmin()] - loss.min()) / (loss.mean() - loss.min()))


def coverage(model: Surrogate, inputs: Floats, truth: Floats) -> float:
    low, high = model.predict_interval(inputs, 0.9)
    return float(((low <= truth) & (truth <= high)).mean())


def regmix(folder: Path, name: str, draws: int) -> None:
    train = read_pair(folder / "train_mixture_1m.csv", folder / "train_pile_loss_1m.csv")
    small = read_pair(folder / "test_mixture_1m.csv", folder / "test_pile_loss_1m.csv")
    large = read_pair(folder / "test_mixture_60m.csv", folder / "test_pile_loss_60m.csv")
    for runs in (64, 128):
        rows, start = [], time.process_time()
        for draw in range(draws):
            chosen = np.random.default_rng(draw).permutation(len(train.runs))[:runs]
            model = Surrogate(family(name)).fit(train.weights[chosen], train.values[chosen])
            near, far = model.predict(small.weights), model.predict(large.weights)
            rows.append(
                [
                    *(ranks(near, small.values), ranks(far, large.values)),
                    *(regret(near, small.values), regret(far, large.values)),
                    coverage(model, small.weights, small.values),
                    rank_correlation(far.mean(axis=1), large.values.mean(axis=1)),
                ]
            )
        cpu = time.process_time() - start
        a, b, c, d, e, f = np.mean(rows, axis=0)
        print(
            f"regmix {name:11} {runs:>4} runs  rank 1M {a:.4f} 60M {b:.4f} (score {f:.4f})  "
            f"regret 1M {c:.3f} 60M {d:.3f}  90% holds {e:.3f}  {draws} draws, {cpu:.0f} CPU-s",
            flush=True,
        )


def olmix(folder: Path, name: str) -> None:
    swarm = read_pair(folder / "ratios.csv", folder / "metrics.csv")
    truth = swarm.values.mean(axis=1, keepdims=True)
    fold = folds(len(truth), 5, 0)
    predicted, held = np.zeros_like(truth), []
    for number in range(5):
        out = fold == number
        model = Surrogate(family(name)).fit(swarm.weights[~out], truth[~out])
        predicted[out] = model.predict(swarm.weights[out])
        held.append(coverage(model, swarm.weights[out], truth[out]))
    print(
        f"olmix  {name:11} 5-fold     rank {ranks(predicted, truth):.4f}  "
        f"regret {regret(predicted, truth):.3f}  90% holds {np.mean(held):.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("swarms", type=Path, help="folder with regmix/ and olmix_dclm/")
    parser.add_argument("--families", nargs="+", default=["gp", "lightgbm"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=12, help="seeds of the sparse truths")
    options = parser.parse_args()
    for name in options.families:
        olmix(options.swarms / "olmix_dclm", name)
        regmix(options.swarms / "regmix", name, options.draws)
        many_sources(name, options.seeds)


if __name__ == "__main__":
    main()
