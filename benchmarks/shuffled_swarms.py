"""For how many swarms whose metrics were shuffled does ``ablate fit`` offer an optimum?

    python benchmarks/shuffled_swarms.py ../shared/data/swarms               # the figure: 20 shuffles
    python benchmarks/shuffled_swarms.py ../shared/data/swarms --shuffles 4 --real

Rows of the metrics are permuted against the mixtures, so that nothing is left to know; then the whole
fit is made. By turns: Olmix dclm with every ninth of its 110 metrics (a score of 13, as RegMix has),
and 64 of RegMix's 512 runs. ``--real`` also fits the two swarms as they are.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from sweeps.swarm.fit_swarm import FitOptions, fit_swarm
from sweeps.swarm.swarm_tables import Swarm, read_pair


def swarms(folder: Path) -> dict[str, Swarm]:
    """The two public swarms."""
    regmix = folder / "regmix"
    return {
        "olmix": read_pair(folder / "olmix_dclm/ratios.csv", folder / "olmix_dclm/metrics.csv"),
        "regmix": read_pair(regmix / "train_mixture_1m.csv", regmix / "train_pile_loss_1m.csv"),
    }


def some(swarm: Swarm, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Swarm:
    """Some runs of a swarm."""
    return replace(
        swarm,
        runs=tuple(swarm.runs[row] for row in rows),
        weights=swarm.weights[rows],
        values=swarm.values[rows],
    )


def line(name: str, swarm: Swarm, options: FitOptions) -> bool:
    """Fit, print, and tell whether an optimum was offered."""
    start = time.process_time()
    fit = fit_swarm(swarm, options)
    known = fit.evidence.skill
    answer = "OFFERED" if fit.optimum else f"not enough evidence, {fit.evidence.more_runs} more"
    print(
        f"{name:14} {len(swarm.runs):>4} runs  {fit.surrogate:11} skill {known.correlation:+.2f} "
        f"needed {known.needed:.2f}  {answer}  {time.process_time() - start:.0f} CPU-s",
        flush=True,
    )
    return fit.optimum is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("swarms", type=Path, help="folder with regmix/ and olmix_dclm/")
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--families", nargs="+", help="fewer families, to save time")
    parser.add_argument("--real", action="store_true", help="the swarms as they are, too")
    given = parser.parse_args()
    options = FitOptions(families=tuple(given.families)) if given.families else FitOptions()
    known = swarms(given.swarms)
    if given.real:
        for name, swarm in known.items():
            line(f"{name} as it is", swarm, options)
    offered = 0
    for seed in range(given.shuffles):
        name = list(known)[seed % 2]
        rng = np.random.default_rng((seed, 0x5FF1E))
        swarm = known[name]
        if name == "olmix":
            swarm = replace(swarm, metrics=swarm.metrics[::9], values=swarm.values[:, ::9])
        else:
            swarm = some(swarm, np.sort(rng.permutation(len(swarm.runs))[:64]))
        shuffled = replace(swarm, values=rng.permutation(swarm.values, axis=0))
        offered += line(f"{name} {seed}", shuffled, options)
    print(f"an optimum was offered for {offered} of {given.shuffles} shuffled swarms")


if __name__ == "__main__":
    main()
