"""Regret of the platform's pick on synthetic truths, beside Optuna's samplers in the same script.

    python benchmarks/regret.py --seeds 3                       # the platform alone, and GPSampler
    python benchmarks/regret.py --seeds 10 --samplers gp tpe cmaes --kinds law power mixed

0 is the optimum, 1 an average even mixture. The platform starts with a Sobol design of max(10, 3 ×
sources) runs, at most 20, then batches of 5; its pick is the surrogate's optimum. An Optuna sampler
proposes one run at a time; its pick is the best run seen, and, to be fair to it, the platform's
pick from its runs. One process; every line is printed as soon as it is known.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from truths import KINDS, Floats, Truth

from sweeps.designs import design
from sweeps.proposals import Evidence, pick, propose
from sweeps.space import SearchSpace, SearchSpaceSpec, SimplexSpec

BUDGETS = (20, 50, 100)
BATCH = 5
TARGETS = {20: 0.04, 50: 0.010, 100: 0.006}

Ask = Callable[[Floats, Floats, int], Floats]


def space_of(sources: int) -> SearchSpace:
    spec = SimplexSpec(sources=tuple(f"s{i}" for i in range(sources)))
    return SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))


def evidence_of(space: SearchSpace, truth: Truth, mixtures: Floats, losses: Floats) -> Evidence:
    return Evidence.of(space, space.points(mixtures), losses, objectives=truth.weights)


def platform(space: SearchSpace, truth: Truth, seed: int) -> Ask:
    first = min(20, max(10, 3 * truth.sources))

    def ask(mixtures: Floats, losses: Floats, room: int) -> Floats:
        if not len(mixtures):
            return space.coordinates(design(space, "sobol", first, seed=seed))
        evidence = evidence_of(space, truth, mixtures, losses)
        return space.coordinates(propose(space, evidence, min(BATCH, room), seed=seed))

    return ask


def optuna_sampler(name: str, space: SearchSpace, truth: Truth, seed: int) -> Ask:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = {
        "gp": optuna.samplers.GPSampler,
        "tpe": optuna.samplers.TPESampler,
        "cmaes": optuna.samplers.CmaEsSampler,
    }[name](seed=seed)
    study = optuna.create_study(sampler=made)
    open_trials: list[optuna.Trial] = []

    def ask(mixtures: Floats, losses: Floats, room: int) -> Floats:
        for trial, loss in zip(
            open_trials,
            losses[-len(open_trials) :] @ truth.weights if open_trials else [],
            strict=True,
        ):
            study.tell(trial, float(loss))
        open_trials[:] = [study.ask()]
        box = [[open_trials[0].suggest_float(n, 0.0, 1.0) for n in space.unit_names]]
        return space.from_unit(np.array(box))

    return ask


def run(
    truth: Truth, space: SearchSpace, ask: Ask, seed: int
) -> Iterator[tuple[int, float, float]]:
    """(runs, regret of the pick, regret of the best run seen) at every budget."""
    rng = np.random.default_rng((seed, 555))
    mixtures, losses = np.zeros((0, truth.sources)), np.zeros((0, len(truth.weights)))
    for budget in BUDGETS:
        while len(mixtures) < budget:
            asked = ask(mixtures, losses, budget - len(mixtures))
            losses = np.r_[losses, truth.observe(asked, rng)]
            mixtures = np.r_[mixtures, asked]
        chosen = pick(space, evidence_of(space, truth, mixtures, losses), seed=seed)
        picked = truth.regret(space.coordinates([chosen.point]))[0]
        seen = truth.regret(mixtures[[(losses @ truth.weights).argmin()]])[0]
        yield budget, float(picked), float(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sources", type=int, nargs="+", default=[4, 7])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["law", "power"])
    parser.add_argument("--samplers", nargs="*", choices=("gp", "tpe", "cmaes"), default=["gp"])
    parser.add_argument("--noise", type=float, default=0.3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    table: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for sources in options.sources:
            for kind in options.kinds:
                for method in ("platform", *options.samplers):
                    truth, space = Truth(sources, seed, kind, options.noise), space_of(sources)
                    ask = (
                        platform(space, truth, seed)
                        if method == "platform"
                        else optuna_sampler(method, space, truth, seed)
                    )
                    start, shown = time.process_time(), []
                    for budget, picked, seen in run(truth, space, ask, seed):
                        table.setdefault((method, budget), []).append((picked, seen))
                        shown.append(f"{budget}: {picked:.4f} (seen {seen:.3f})")
                    cpu = time.process_time() - start
                    print(
                        f"{method:9} {sources} {kind:6} seed {seed}  {'  '.join(shown)}  "
                        f"{cpu:.1f} CPU-s",
                        flush=True,
                    )
    print("\nmedian regret              pick of the surrogate    best run seen    target")
    for (method, budget), rows in table.items():
        picked, seen = np.median(np.array(rows), axis=0)
        goal = f"{TARGETS[budget]:.3f}" if method == "platform" else ""
        print(f"{method:9} {budget:>4} runs {picked:>24.4f} {seen:>16.3f} {goal:>9}")


if __name__ == "__main__":
    main()
