"""Intervals of the law of repeats on runs that it was not fitted on.

    python benchmarks/repeats.py [--studies 200] [--study runs/repeats]

Simulated studies: R* is log-normal around 15 with a factor of 2 either way, beta between 0.2 and 0.6, the
noise between 0.003 and 0.03 of a loss around 3.5. Each is fitted to 12 runs of up to 8 epochs at two
budgets, and predicts 8 runs of up to 16 epochs. With a folder of a real study, its runs are left out one
at a time. Prints how many 90% intervals hold (85% to 95% is asked), and how often that of R* holds the
truth.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from sweeps.repeats.law_fit import RepeatRun, fit_repeats
from sweeps.repeats.study_runs import runs_of_study


def simulated(
    constant: float, exponent: float, runs: int, most: float, noise: float, rng: np.random.Generator
) -> list[RepeatRun]:
    found = []
    for number, epochs in enumerate(np.exp(np.linspace(0.0, math.log(most), runs)).tolist()):
        read = (1e6, 3e6)[number % 2]
        unique = read / epochs
        effective = unique * (1.0 - constant * math.expm1(-(epochs - 1.0) / constant))
        loss = 2.0 + 1.5 * (effective / 1e6) ** -exponent + float(rng.normal(0.0, noise))
        found.append(RepeatRun(unique={"a": unique}, read={"a": read}, loss=loss))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--study", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    hits = total = inside = determined = 0
    for _ in range(given.studies):
        constant = math.exp(rng.normal(math.log(15.0), math.log(2.0)))
        exponent, noise = float(rng.uniform(0.2, 0.6)), float(np.exp(rng.uniform(-5.8, -3.5)))
        fitted = fit_repeats(simulated(constant, exponent, 12, 8.0, noise, rng))
        low, _, high = fitted.interval()
        inside += low <= constant <= high
        determined += fitted.determined
        for run in simulated(constant, exponent, 8, 16.0, noise, rng):
            low, _, high = fitted.predict(run)
            hits += low <= run.loss <= high
            total += 1
    print(
        f"simulated: {hits} of {total} runs that were not fitted in their interval: {hits / total:.1%}"
    )
    print(f"R*: the truth in {inside / given.studies:.1%} of the 90% intervals; ", end="")
    print(f"{determined} of {given.studies} studies determine it")
    if given.study is not None:
        runs = runs_of_study(given.study.parent, given.study.name)
        hits = 0
        for left_out, run in enumerate(runs):
            fitted = fit_repeats([r for n, r in enumerate(runs) if n != left_out])
            low, _, high = fitted.predict(run)
            hits += low <= run.loss <= high
        print(f"{given.study}: {hits} of {len(runs)} left-out runs in their interval")


if __name__ == "__main__":
    main()
