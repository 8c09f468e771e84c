"""Measure a study's driver without its runs and its surrogate: CPU for each trial, and loading a long study.

    python benchmarks/study_driver.py [--trials 200] [--load 10000]

Runs are instant: a launcher that writes their results. The yardstick of a trial is the same work done
by Optuna's own journal alone, in the same process: ask, suggest the weights, tell.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.search.space import SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.study.driver import Driver
from sweeps.study.executor import Executor
from sweeps.study.job_overrides import job_overrides
from sweeps.study.progress_table import SilentView
from sweeps.study.resources import Resources
from sweeps.study.samplers import random_proposer
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import BudgetSpec, ConfirmSpec, ObjectiveSpec, SearchSpec, StrategySpec
from sweeps.study.strategy import plan_strategy
from sweeps.study.study_state import StudyState

SOURCES = ("wiki", "chat", "math", "code")


class InstantLauncher:
    """Runs that take no time and leave a result of the usual size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 0.0

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        began = time.thread_time()
        for job in jobs:
            named = dict(override.split("=", 1) for override in job)
            run = self.folder / named["hydra.sweep.subdir"]
            metrics = {f"task_{i}/{m}": 0.5 for i in range(12) for m in ("acc", "acc_char", "bpb")}
            result = {"status": "done", "reason": None, "score": 1.0, "direction": "minimize"}
            cost = {"wall_seconds": 20.0, "flops": 1e12}
            content = {**result, "metrics": metrics, "tokens": 1, "cost": cost}
            (run / "result.json").write_text(json.dumps(content))
        self.seconds += time.thread_time() - began
        return [None for _ in jobs]


def search(trials: int) -> SearchSpec:
    return SearchSpec(
        space=SearchSpaceSpec(mixtures={"mixture.weights": SimplexSpec(sources=SOURCES)}),
        strategy=StrategySpec(baselines=("uniform",), baseline="uniform", proposer="random"),
        objectives={"score": ObjectiveSpec(direction="minimize")},
        budget=BudgetSpec(trials=trials),
        confirm=ConfirmSpec(finalists=0),
    )


def drive(folder: Path, trials: int) -> float:
    """CPU seconds of a whole study, its instant runs not counted."""
    spec = search(trials)
    assert spec.space is not None
    space = SearchSpace.build(spec.space)
    planned = plan_strategy(spec.strategy, space, Resources(), trials, random_proposer(space, 0))
    launcher = InstantLauncher(folder)
    began = time.process_time()
    state = StudyState(folder, "s", spec, seed=0)
    Driver(
        state,
        SearchScheduler(planned, None),
        Executor(launcher, "inline", 1),
        overrides=lambda run: job_overrides(state.trial(run.number).spec, run.seed, "s", []),
        check=lambda _: None,
        view=SilentView(),
    ).run()
    assert len(state.trials) == trials
    return time.process_time() - began - launcher.seconds


def optuna_alone(folder: Path, trials: int) -> float:
    """CPU seconds of the same number of trials in Optuna's journal, and nothing else."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began = time.process_time()
    path = str(folder / "journal.log")
    storage = JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler())
    for _ in range(trials):
        trial = study.ask()
        for name in SOURCES[:-1]:
            trial.suggest_float(name, 0.0, 1.0)
        study.tell(trial, 1.0)
    return time.process_time() - began


def load(folder: Path, trials: int) -> tuple[float, float]:
    """Wall and CPU seconds to open a study of ``trials`` trials that ended."""
    _write_study(folder, trials)
    wall, cpu = time.perf_counter(), time.process_time()
    state = StudyState(folder, "s", search(trials), seed=0)
    found = time.perf_counter() - wall, time.process_time() - cpu
    assert sum(trial.state == "done" for trial in state.trials) == trials
    return found


def _write_study(folder: Path, trials: int) -> None:
    """A long study's journal and folders, written from a short one's by numbering it on."""
    short = folder.parent / "short"
    short.mkdir()
    drive(short, 1)
    lines = (short / "journal.log").read_text().splitlines()
    head, body = lines[:1], lines[1:]
    with (folder / "journal.log").open("w") as journal:
        journal.write("\n".join(head) + "\n")
        for number in range(trials):
            for line in body:
                row = json.loads(line)
                if "trial_id" in row:
                    row["trial_id"] = number
                if "ask" in row.get("user_attrs", {}):
                    row["user_attrs"]["ask"]["number"] = number
                journal.write(json.dumps(row, separators=(",", ":")) + "\n")
    for number in range(trials):
        (folder / f"trial-{number:04d}-0").mkdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--load", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        rows = []
        for repeat in range(3):
            ours, alone = (Path(root) / f"{name}-{repeat}" for name in ("ours", "alone"))
            ours.mkdir()
            alone.mkdir()
            rows.append((drive(ours, options.trials), optuna_alone(alone, options.trials)))
        ours_ms = min(row[0] for row in rows) / options.trials * 1e3
        alone_ms = min(row[1] for row in rows) / options.trials * 1e3
        print(f"driver: {ours_ms:.1f} ms CPU a trial (at most 50)")
        print(f"Optuna's journal alone: {alone_ms:.1f} ms; ratio {ours_ms / alone_ms:.2f}")
        long = Path(root) / "long"
        long.mkdir()
        wall, cpu = load(long, options.load)
        print(f"loading {options.load:,} trials: {wall:.2f} s, {cpu:.2f} s CPU (at most 5 s)")


if __name__ == "__main__":
    main()
