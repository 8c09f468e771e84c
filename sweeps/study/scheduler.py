"""Scheduling of a study's runs: the phases of a search, or the combinations of a plain sweep.

The driver calls a scheduler after each run that ends. A scheduler reads only the study: trials that
have not ended come first, also those of an earlier driver, so a restart needs no other state.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ablations.files import write_sealed
from ablations.record.stored import damaged, stored_object
from sweeps.search.space import Point
from sweeps.study.confirm import Pick, finalists
from sweeps.study.job_overrides import identity
from sweeps.study.reuse import FEWEST_RUNS
from sweeps.study.strategy import History, Strategy, TrialRequest
from sweeps.study.study_state import DecideQuality, Run, StudyState
from sweeps.study.trial import Phase, Trial, trial_name

__all__ = ["Scheduler", "SearchScheduler", "SweepScheduler", "unfinished"]

_SAME_WEIGHT = 0.01
"""Largest difference of any weight between two mixtures that count as the same."""


class Scheduler(Protocol):
    """Interface of a scheduler: the source of the runs to launch."""

    phases: Sequence[Phase]
    """Phases of the trials that belong to this scheduler."""

    def next_runs(self, study: StudyState, busy: set[Run], free_workers: int) -> list[Run]:
        """Return at most ``free_workers`` runs to launch; none if all are done or depend on ``busy``."""

    def ended_runs(self, study: StudyState) -> list[Run]:
        """Return this scheduler's runs that ended, failed ones included."""

    def total(self, study: StudyState) -> int | None:
        """Return the number of trials in total; None if the budget does not limit it."""


class SweepScheduler:
    """Scheduler of a plain Hydra sweep: one trial for each combination that has none yet."""

    phases: Sequence[Phase] = ("grid",)

    def __init__(self, combinations: Sequence[Sequence[str]], seeds: Sequence[int]) -> None:
        self._combinations = [tuple(combination) for combination in combinations]
        self._wanted = {identity(combination) for combination in combinations}
        self._seeds = tuple(seeds)

    def next_runs(self, study: StudyState, busy: set[Run], free_workers: int) -> list[Run]:
        """Return the missing runs of the combinations, in the order of the command line."""
        mine = self._mine(study)
        runs = _missing(mine.values(), self._seeds, busy)
        for combination in self._combinations:
            if len(runs) >= free_workers:
                break
            if identity(combination) not in mine:
                draft = TrialRequest(phase="grid", point={})
                trial = study.add_trial(draft, seeds=self._seeds, overrides=combination)
                mine[identity(combination)] = trial
                runs += _missing([trial], self._seeds, busy)
        return runs[:free_workers]

    def ended_runs(self, study: StudyState) -> list[Run]:
        """Return the runs of the command's combinations and seeds that ended."""
        ended = _ended(self._mine(study).values())
        return [run for run in ended if run.seed in self._seeds]

    def total(self, study: StudyState) -> int | None:
        """Return the number of combinations."""
        return len(self._wanted)

    def _mine(self, study: StudyState) -> dict[tuple[str, ...], Trial]:
        found = {identity(t.spec.overrides): t for t in study.trials if t.spec.phase == "grid"}
        return {key: trial for key, trial in found.items() if key in self._wanted}


class SearchScheduler:
    """Scheduler of a search: baselines, design, proposals, confirmation, within the budget."""

    phases: Sequence[Phase] = ("baseline", "design", "search", "confirm")

    def __init__(
        self, strategy: Strategy, pick: Pick | None, decide: DecideQuality | None = None
    ) -> None:
        self._strategy, self._pick, self._decide = strategy, pick, decide
        self.judge: Callable[[History], Mapping[str, Any]] | None = None
        """Measures what runs of earlier studies are worth; None = it is not measured."""

    def next_runs(self, study: StudyState, busy: set[Run], free_workers: int) -> list[Run]:
        """Return runs of unfinished trials, then of new trials, then further seeds of the finalists."""
        mine = [trial for trial in study.trials if trial.spec.phase in self.phases]
        runs = unfinished(mine, busy)
        if not self._evidence_is_judged(study, waiting=bool(runs or busy)):
            runs += self._explore(study, busy, free_workers - len(runs), planned_only=True)
            return runs[:free_workers]
        if not self._score_is_settled(study, waiting=bool(runs or busy)):
            runs += self._explore(study, busy, free_workers - len(runs), planned_only=True)
            return runs[:free_workers]
        runs += self._explore(study, busy, free_workers - len(runs))
        if not runs and not busy:
            runs = self._confirm(study, free_workers)
        return runs[:free_workers]

    def _evidence_is_judged(self, study: StudyState, *, waiting: bool) -> bool:
        """Judge the old runs after the planned trials have ended; return whether they are judged."""
        evidence = study.evidence
        if evidence is None or evidence.check is not None or self.judge is None:
            return True
        history = study.history()
        open_plan = self._strategy.planned(history) and study.ledger().may_explore(0)
        if waiting or open_plan:
            return False
        if len({trial.number for trial in (*history.done, *history.low)}) < FEWEST_RUNS:
            return True  # too few new runs to judge by
        said = study.judge_evidence(self.judge)
        print(f"study {study.study!r}: {said}", file=sys.stderr, flush=True)
        return True

    def _score_is_settled(self, study: StudyState, *, waiting: bool) -> bool:
        """Decide the study's score after its planned trials have ended; return whether it is decided."""
        if self._decide is None or study.decided:
            return True
        ledger = study.ledger()
        open_plan = self._strategy.planned(study.history()) and ledger.may_explore(0)
        if waiting or open_plan:
            return False
        study.decide_quality(self._decide)
        return True

    def ended_runs(self, study: StudyState) -> list[Run]:
        """Return the ended runs of the search's phases."""
        return _ended(trial for trial in study.trials if trial.spec.phase in self.phases)

    def total(self, study: StudyState) -> int | None:
        """Return the number of trials in the budget, or in the space if that is smaller."""
        limits = (study.spec.budget.trials, self._strategy.most_trials)
        return min((limit for limit in limits if limit is not None), default=None)

    def _explore(
        self, study: StudyState, busy: set[Run], free_workers: int, *, planned_only: bool = False
    ) -> list[Run]:
        runs: list[Run] = []
        while len(runs) < free_workers:
            if planned_only and not self._strategy.planned(study.history()):
                break
            ledger = study.ledger()
            if not ledger.may_explore(len(busy) + len(runs)):
                break
            left = study.spec.budget.trials
            width = free_workers - len(runs) if left is None else left - ledger.explored_trials
            drafts = self._strategy.next_drafts(study.history(), width)
            if not drafts:
                break
            # Planned trials are added one at a time, but a batch of proposals is added together,
            # because the next call would see other running trials and propose differently.
            batch = drafts if drafts[0].phase == "search" else drafts[:1]
            for draft in batch:
                if study.ledger().may_explore(len(busy) + len(runs)):
                    runs += unfinished([study.add_trial(draft)], busy)
        return runs

    def _confirm(self, study: StudyState, free_workers: int) -> list[Run]:
        chosen, seeds = self._decided(study), study.spec.confirm.seeds
        runs: list[Run] = []
        for seed in (
            seeds
        ):  # seed by seed, so that finalists have equal numbers of seeds if the budget ends
            for number in chosen:
                trial = study.trial(number)
                if trial.is_missing(seed) and trial.state in ("running", "done"):
                    runs.append(Run(number, seed))
        ledger = study.ledger()
        return [run for i, run in enumerate(runs[:free_workers]) if ledger.may_confirm(i)]

    def _decided(self, study: StudyState) -> list[int]:
        """Return the numbers of the finalists; decided once for the explored trials, and kept."""
        path, explored = study.folder / "finalists.json", study.ledger().explored_trials
        spec = study.spec.confirm
        done = sum(trial.spec.phase != "confirm" for trial in study.history().done)
        kept = _kept(path, explored, spec.finalists, done)
        if kept is not None:
            return kept
        picked = self._picked_trial(study) if spec.finalists and spec.pick else None
        chosen = [trial.number for trial in finalists(study.history(), spec, picked)]
        if picked is not None and picked not in chosen:
            chosen.append(picked)
        write_sealed(
            path,
            {"explored": explored, "done": done, "asked": spec.finalists, "finalists": chosen},
        )
        return chosen

    def _picked_trial(self, study: StudyState) -> int | None:
        """Return the trial at the surrogate's optimum: an existing one there, else a new one."""
        history, name = study.history(), f"pick-{study.ledger().explored_trials}"
        added = [trial.number for trial in history.trials if trial.spec.name == name]
        if added or self._pick is None:  # a driver was killed between adding it and pick.json
            return added[0] if added else None
        picked = self._pick(history)
        if picked is None:
            return None
        number = self._same_mixture(study, history, picked.point)
        if number is None:
            draft = TrialRequest(phase="confirm", point=picked.point, name=name)
            number = study.add_trial(draft, seeds=study.spec.confirm.seeds).number
        content = {"trial": trial_name(number), "point": picked.point, **picked.notes}
        write_sealed(study.folder / "pick.json", content)
        return number

    def _same_mixture(self, study: StudyState, history: History, point: Point) -> int | None:
        """Return the done trial whose mixture counts as the same; None if there is none."""
        del study
        return self._nearest(history.done, point)

    def _nearest(self, trials: Sequence[Trial], point: Point) -> int | None:
        """Return the trial whose mixture is nearest, if it counts as the same."""
        if not trials:
            return None
        space = self._strategy.space
        gaps = np.abs(
            space.coordinates([trial.spec.point for trial in trials], check=False)
            - space.coordinates([point], check=False)
        ).max(axis=1)
        return trials[int(gaps.argmin())].number if gaps.min() < _SAME_WEIGHT else None


def _ended(trials: Iterable[Trial]) -> list[Run]:
    return [
        Run(trial.number, seed)
        for trial in trials
        for seed in sorted(trial.outcomes)
        if not trial.is_missing(seed)
    ]


def unfinished(trials: Iterable[Trial], busy: set[Run]) -> list[Run]:
    """Return the missing runs of trials that have not ended."""
    return [
        run
        for trial in trials
        if trial.state == "running"
        for run in _missing([trial], trial.spec.seeds, busy)
    ]


def _missing(trials: Iterable[Trial], seeds: Sequence[int], busy: set[Run]) -> list[Run]:
    return [
        run
        for trial in trials
        if trial.state in ("running", "done")
        for seed in seeds
        if trial.is_missing(seed) and (run := Run(trial.number, seed)) not in busy
    ]


def _kept(path: Path, explored: int, wanted: int, done: int) -> list[int] | None:
    """Return the finalists decided before; None if trials were added or failed ones are done now."""
    if not os.path.lexists(path):
        return None
    kept = stored_object(path)
    now = {"explored": explored, "asked": wanted, "done": done}
    # Older files, from before failed runs were tried again, have no "done".
    if any(kept.get(name, value) != value for name, value in now.items()):
        return None
    numbers = kept.get("finalists")
    if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
        raise damaged(path, "no list of finalists")
    return numbers
