"""Regret of the platform's pick on synthetic truths, beside Optuna's samplers in the same script.

    python benchmarks/regret.py --seeds 2 --methods platform
    python benchmarks/regret.py --methods platform gp tpe cmaes --record regret.jsonl  # the figures

0 is the optimum, 1 an average even mixture. The platform's part is what a driver runs: the phases of
``plan_strategy`` (baseline, design, batches of proposals) for a study of each budget, the proposer
and the pick of ``sweeps.study.surrogate_proposer``, from trials that recorded six losses and their score.
An Optuna sampler is told the score and proposes one run at a time, in one study that is looked at
after every budget; its pick is the best run seen, and, to be fair to it, the platform's pick from
its runs. One process; a line a study, as soon as it is known. With ``--record`` a study that is in
the file is not run again; ``--repick`` makes the picks of Optuna's recorded runs anew.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from truths import KINDS, Floats, Truth

from sweeps.search.space import SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.study.resources import Resources
from sweeps.study.specs import ObjectiveSpec, StrategySpec
from sweeps.study.strategy import History, TrialRequest, plan_strategy
from sweeps.study.surrogate_proposer import surrogate_pick, surrogate_proposer
from sweeps.study.trial import Outcome, Trial, TrialSpec

BUDGETS = (20, 50, 100)
METHODS = ("platform", "gp", "tpe", "cmaes")
TARGETS = {20: 0.04, 50: 0.010, 100: 0.006}
KEY = ("method", "sources", "kind", "seed", "noise")
OBJECTIVES = {"score": ObjectiveSpec(direction="minimize")}


def space_of(sources: int) -> SearchSpace:
    spec = SimplexSpec(sources=tuple(f"s{i}" for i in range(sources)))
    return SearchSpace.build(SearchSpaceSpec(mixtures={"mixture.weights": spec}))


class Study:
    """Trials of one truth, as a driver would have collected them."""

    def __init__(self, truth: Truth, seed: int) -> None:
        self.truth, self.seed, self.space = truth, seed, space_of(truth.sources)
        self.noise = np.random.default_rng((seed, 555))
        self.trials: list[Trial] = []
        terms = {
            f"d{j}": {"metrics": f"d{j}/loss", "weight": float(w), "direction": "minimize"}
            for j, w in enumerate(truth.weights)
        }
        self.rule: dict[str, Any] = {"direction": "minimize", "terms": terms}

    @property
    def history(self) -> History:
        return History(trials=tuple(self.trials), objectives=OBJECTIVES, baseline="uniform")

    @property
    def mixtures(self) -> Floats:
        return self.space.coordinates([trial.spec.point for trial in self.trials])

    @property
    def scores(self) -> Floats:
        return self.history.losses(self.trials)[:, 0]

    def run(self, draft: TrialRequest, losses: Floats | None = None) -> None:
        """Train and score the draft: six noisy losses and their weighted mean."""
        if losses is None:
            mixture = self.space.coordinates([draft.point])
            losses = self.truth.observe(mixture, self.noise)[0]
        spec = TrialSpec(
            number=len(self.trials), phase=draft.phase, name=draft.name, point=draft.point
        )
        metrics: dict[str, float | None] = {f"d{j}/loss": float(x) for j, x in enumerate(losses)}
        score = float(losses @ self.truth.weights)
        done = Outcome(seed=0, status="done", score=score, direction="minimize", metrics=metrics)
        self.trials.append(Trial(spec=spec, outcomes={0: done}))

    def regrets(self) -> tuple[float, float]:
        """Regret of the platform's pick and of the best run seen."""
        chosen = surrogate_pick(self.space, self.seed, self.rule, judged=False)(self.history)
        assert chosen is not None
        picked = self.truth.regret(self.space.coordinates([chosen.point]))[0]
        return float(picked), float(self.truth.regret(self.mixtures[[self.scores.argmin()]])[0])

    def record(self) -> dict[str, Any]:
        """Runs as JSON values."""
        losses = [list(trial.outcomes[0].metrics.values()) for trial in self.trials]
        return {"mixtures": self.mixtures.tolist(), "losses": losses}


def platform(study: Study, budget: int) -> None:
    """Run a study of ``budget`` trials by the platform's own strategy."""
    # Natural weights and UniMax need token counts, which a truth has not.
    spec = StrategySpec(baselines=("uniform",), baseline="uniform", seed=study.seed)
    propose = surrogate_proposer(study.space, study.seed, study.rule)
    strategy = plan_strategy(spec, study.space, Resources(), budget, propose)
    while len(study.trials) < budget:
        for draft in strategy.next_drafts(study.history, budget - len(study.trials)):
            study.run(draft)


def optuna_study(name: str, study: Study) -> Iterator[None]:
    """Run trials of an Optuna sampler, one each time it is asked."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = {
        "gp": optuna.samplers.GPSampler,
        "tpe": optuna.samplers.TPESampler,
        "cmaes": optuna.samplers.CmaEsSampler,
    }[name](seed=study.seed)
    known = optuna.create_study(sampler=made)
    while True:
        trial = known.ask()
        box = [[trial.suggest_float(n, 0.0, 1.0) for n in study.space.unit_names]]
        point = study.space.points(study.space.from_unit(np.array(box)))[0]
        study.run(TrialRequest(phase="search", point=point))
        known.tell(trial, float(study.scores[-1]))
        yield


Row = dict[str, Any]


def measured(method: str, truth: Truth, seed: int, known: Row | None) -> Row:
    """One method on one truth; ``known`` has the runs of an Optuna study that was recorded."""
    found: list[list[float]] = []
    start = time.process_time()
    study = Study(truth, seed)
    if method == "platform":
        for budget in BUDGETS:
            study = Study(truth, seed)
            platform(study, budget)
            found.append([budget, *study.regrets()])
    else:
        asking = optuna_study(method, study)
        for budget in BUDGETS:
            while len(study.trials) < budget:
                if known is None:
                    next(asking)
                else:
                    at = len(study.trials)
                    point = study.space.points(np.array(known["mixtures"][at : at + 1]))[0]
                    study.run(
                        TrialRequest(phase="search", point=point), np.array(known["losses"][at])
                    )
            found.append([budget, *study.regrets()])
    cpu = time.process_time() - start
    key = {"method": method, "sources": truth.sources, "kind": truth.kind, "seed": seed}
    return {**key, "regrets": found, "cpu": cpu, **study.record()}


def medians(rows: Sequence[Row], column: int) -> Floats:
    """Median regret at every budget with the 90% range of its bootstrap, ``[budgets, 3]``."""
    table = np.array([[entry[column] for entry in row["regrets"]] for row in rows])
    rng = np.random.default_rng(0)
    drawn = np.median(table[rng.integers(0, len(table), (4000, len(table)))], axis=1)
    return np.stack([np.median(table, axis=0), *np.quantile(drawn, (0.05, 0.95), axis=0)], axis=1)


def report(rows: Sequence[Row]) -> None:
    """Medians of every method over all studies, then the platform's per kind and size."""

    def line(name: str, chosen: Sequence[Row], column: int) -> str:
        cells = [f"{m:.4f} ({a:.4f}-{b:.4f})" for m, a, b in medians(chosen, column)]
        return f"{name:26} {len(chosen):>3}  " + "  ".join(f"{cell:>24}" for cell in cells)

    print("\nmedian regret (90% range)  n  " + "  ".join(f"{b:>19} runs" for b in BUDGETS))
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        print(line(f"{method}: surrogate's pick", mine, 1))
        print(line(f"{method}: best run seen", mine, 2))
        print(f"{method}: {np.mean([row['cpu'] for row in mine]):.1f} CPU-s a study")
        for sources, kind in sorted({(row["sources"], row["kind"]) for row in mine}):
            cell = [row for row in mine if (row["sources"], row["kind"]) == (sources, kind)]
            print(line(f"   {sources} sources, {kind}", cell, 1))
    print(f"{'target':26}      " + "  ".join(f"{TARGETS[b]:>24.3f}" for b in BUDGETS))


def recorded(path: Path | None) -> dict[tuple[Any, ...], Row]:
    """Studies of a record file by what they are; the last line of a study counts."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    return {tuple(row[name] for name in KEY): row for row in rows}


def studies(options: argparse.Namespace) -> Iterator[Row]:
    """Every study asked for: from the record where it is there, else run, printed and recorded."""
    kept = recorded(options.record)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed, sources, kind, method in product(
        seeds, options.sources, options.kinds, options.methods
    ):
        known = kept.get((method, sources, kind, seed, options.noise))
        if known is not None and not (options.repick and method != "platform"):
            yield known
            continue
        row = measured(method, Truth(sources, seed, kind, options.noise), seed, known)
        row["noise"] = options.noise
        if options.record:
            with options.record.open("a") as file:
                file.write(json.dumps(row) + "\n")
        shown = "  ".join(f"{b}: {p:.4f} (seen {s:.3f})" for b, p, s in row["regrets"])
        print(
            f"{method:9} {sources} {kind:6} seed {seed}  {shown}  {row['cpu']:.1f} CPU-s",
            flush=True,
        )
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sources", type=int, nargs="+", default=[4, 7])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["platform", "gp"])
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--record", type=Path, help="file of JSON lines, read and added to")
    parser.add_argument("--repick", action="store_true", help="picks of recorded Optuna runs anew")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    report(list(studies(options)))


if __name__ == "__main__":
    main()
