"""Small studies made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.files import write_json
from sweeps.search.space import SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.study.resources import Resources
from sweeps.study.samplers import random_proposer
from sweeps.study.specs import (
    BudgetSpec,
    ConfirmSpec,
    ObjectiveSpec,
    SearchSpec,
    StrategySpec,
)
from sweeps.study.strategy import Strategy, plan_strategy
from sweeps.study.study_state import Run, StudyState
from sweeps.study.trial import Outcome, Phase, Trial, TrialSpec

SOURCES = ("web", "math", "code")
SPACE = SearchSpaceSpec(mixtures={"mixture.weights": SimplexSpec(sources=SOURCES)})


def spec(**changes: Any) -> SearchSpec:
    """Return a search of ten trials: two baselines, a design of three, random proposals."""
    values: dict[str, Any] = {
        "space": SPACE,
        "strategy": StrategySpec(
            baselines=("uniform",),
            mixtures={"half": {"web": 0.5, "math": 0.5}},
            baseline="uniform",
            design_trials=3,
            proposer="random",
            batch=2,
        ),
        "objectives": {"score": ObjectiveSpec(direction="minimize")},
        "budget": BudgetSpec(trials=10),
        "confirm": ConfirmSpec(finalists=2, pick=False, seeds=(0, 1, 2)),
    }
    return SearchSpec(**{**values, **changes})


def strategy(search: SearchSpec, tokens: Mapping[str, float] | None = None) -> Strategy:
    """Return the strategy of a search."""
    assert search.space is not None
    space = SearchSpace.build(search.space)
    return plan_strategy(
        search.strategy,
        space,
        Resources(tokens=tokens),
        search.budget.trials,
        random_proposer(space, search.strategy.seed),
    )


def study(folder: Path, search: SearchSpec | None = None) -> StudyState:
    """Open a study in ``folder/runs/s`` as a driver does."""
    place = folder / "runs" / "s"
    place.mkdir(parents=True, exist_ok=True)
    return StudyState(place, "s", search or spec(), seed=0)


def outcome(score: float | None = 1.0, *, seed: int = 0, **changes: Any) -> Outcome:
    """Return the outcome of a finished run."""
    values: dict[str, Any] = {"status": "done", "direction": "minimize", "tokens": 100.0}
    return Outcome(**{**values, "seed": seed, "score": score, **changes})


def trial(
    number: int, score: float | None = 1.0, *, phase: Phase = "design", **changes: Any
) -> Trial:
    """Return a trial that is done with one seed."""
    values = {"point": {"mixture.weights": dict.fromkeys(SOURCES, 1 / 3)}, **changes}
    spec = TrialSpec(number=number, phase=phase, **values)
    return Trial(spec=spec, outcomes={0: outcome(score)})


def finish(state: StudyState, run: Run, score: float | None = 1.0, **result: Any) -> None:
    """Write the result of a finished run."""
    folder = state.folder / f"trial-{run.number:04d}-{run.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "status": "done",
        "reason": None,
        "score": score,
        "direction": "minimize",
        "metrics": {"web/bpb": score},
        "tokens": 100,
        "cost": {"wall_seconds": 1.0, "flops": 10.0},
    }
    write_json(folder / "result.json", {**values, **result})


def finish_as(state: StudyState, run: Run) -> None:
    """Write a result whose score is a function of the run alone."""
    finish(state, run, score=1.0 + 0.01 * ((run.number * 7 + run.seed) % 10))


def all_runs(state: StudyState, next_runs: Any, free_workers: int = 4) -> Sequence[Run]:
    """Drive a scheduler to its end with runs that always succeed; return the runs in order."""
    done: list[Run] = []
    while runs := next_runs(state, set(), free_workers):
        for run in runs:
            finish_as(state, run)
            found = state.collect(run)
            assert found is not None
            state.record(run, found)
            done.append(run)
    return done
