"""Scheduling of a search with a low rung: cheap runs first, and the best of them go on.

    baselines in full ─▶ design pauses ─▶ spread pairs go on ─▶ guard ─▶ proposals pause
        ─▶ finalists by the predicted top go on ─▶ confirmation and verdict on full runs alone

Each step waits for the runs before it, and is decided by the study's trials alone. A driver that is
killed anywhere therefore continues with the same runs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sweeps.search.proposals.rung_policy import (
    FEWEST_PAIRS,
    RungPlan,
    judge_rung,
    spread_rows,
)
from sweeps.search.space import Point
from sweeps.study.confirm import Pick
from sweeps.study.rungs import Rung, write_guard
from sweeps.study.scheduler import SearchScheduler, unfinished
from sweeps.study.strategy import History, Strategy, TrialRequest
from sweeps.study.study_state import Run, StudyState
from sweeps.study.surrogate_proposer import Ranking
from sweeps.study.trial import Trial

__all__ = ["RungScheduler"]


class RungScheduler(SearchScheduler):
    """Scheduler of a search whose explored runs pause.

    Args:
        strategy: Strategy; its design has the size that the plan states.
        pick: Optimum of the surrogate.
        rank: Predicts trials at the top.
        plan: Numbers of runs.
        units: Full runs that the exploring share of the budget pays; None = the number of trials
            alone limits it.
    """

    def __init__(
        self,
        strategy: Strategy,
        pick: Pick | None,
        rank: Callable[[History], Ranking],
        plan: RungPlan,
        units: float | None,
    ) -> None:
        super().__init__(strategy, pick)
        self._rank, self._plan, self._units = rank, plan, units

    def total(self, study: StudyState) -> int | None:
        """Return the number of mixtures to explore; None once the rung was dropped."""
        if self._dropped(study):
            return study.spec.budget.trials
        twins = self._plan.pairs + self._plan.finalists
        own_model = study.rung is not None and study.rung.model is not None
        return len(self._strategy.baselines) + self._plan.low_runs + own_model * twins

    def _explore(
        self, study: StudyState, busy: set[Run], free_workers: int, *, planned_only: bool = False
    ) -> list[Run]:
        """Return runs of new trials, or of trials that go on now; none while a step waits for ``busy``."""
        assert study.rung is not None
        planned = self._planned(study)
        if planned_only and not planned:
            return []
        if planned:
            return self._add(study, planned, busy, free_workers)
        if busy or unfinished(self._mine(study), busy):
            return []
        if missing := [n for n in study.rung.chosen if self._full_run(study, n) is None]:
            # A driver was killed between the choice and the full runs of a smaller model's mixtures.
            return self._continued(study, missing, free_workers)
        low = [trial for trial in self._mine(study) if trial.spec.pauses]
        if self._plan.pairs and study.rung.judged is None:
            if not study.rung.pairs and (pairs := self._pairs(study, low)):
                study.choose("pairs", pairs)
                return self._continued(study, pairs, free_workers)
            self._judge(study)
        if self._dropped(study):
            return self._in_full(study, busy, free_workers)
        if len(low) < self._plan.low_runs:
            left = self._plan.low_runs - len(low)
            drafts = self._proposed(study, min(left, self._plan.batch))
            if drafts:
                return self._add(study, drafts, busy, free_workers, whole=True)
        finalists = self._finalists(study, low)
        if finalists:
            study.choose("finalists", finalists)
        return self._continued(study, finalists, free_workers)

    def _picked_trial(self, study: StudyState) -> int | None:
        """Return the trial at the surrogate's optimum; one that was continued for it is kept."""
        assert study.rung is not None
        return study.rung.picked[0] if study.rung.picked else super()._picked_trial(study)

    def _same_mixture(self, study: StudyState, history: History, point: Point) -> int | None:
        """Return a done trial of the mixture, or a paused one, which goes on from now."""
        number = super()._same_mixture(study, history, point)
        if number is None and study.rung is not None and study.rung.model is None:
            paused = [trial for trial in history.searched if trial.state == "paused"]
            number = self._nearest(paused, point)
            if number is not None:
                study.choose("picked", [number])
        return number

    def _mine(self, study: StudyState) -> list[Trial]:
        return [
            t for t in study.trials if t.spec.phase in self.phases and t.spec.phase != "confirm"
        ]

    def _planned(self, study: StudyState) -> list[TrialRequest]:
        """Return the baselines in full and the design at the low rung that have no trial yet."""
        drafts = self._strategy.planned(study.history())
        return [replace(draft, pauses=draft.phase == "design") for draft in drafts]

    def _proposed(self, study: StudyState, count: int) -> list[TrialRequest]:
        return [
            replace(draft, pauses=True)
            for draft in self._strategy.next_drafts(study.history(), count)
        ]

    def _add(
        self,
        study: StudyState,
        drafts: Sequence[TrialRequest],
        busy: set[Run],
        free_workers: int,
        *,
        whole: bool = False,
    ) -> list[Run]:
        """Add trials: as many as there are workers, or a whole batch of proposals."""
        runs: list[Run] = []
        for draft in drafts:
            if not whole and len(runs) >= free_workers:
                break
            runs += unfinished([study.add_trial(draft)], busy)
        return runs

    def _continued(self, study: StudyState, numbers: Sequence[int], free_workers: int) -> list[Run]:
        """Return the rest of paused runs, or full runs of the mixtures of a smaller model."""
        assert study.rung is not None
        trials = [study.trial(number) for number in numbers]
        if study.rung.model is not None:
            drafts = [TrialRequest(phase="search", point=trial.spec.point) for trial in trials]
            trials = [study.add_trial(draft) for draft in drafts]
        return unfinished(trials, set())[: max(0, free_workers)]

    def _full_run(self, study: StudyState, number: int) -> Trial | None:
        """Return the trial that runs a low trial's mixture in full: itself, or that of the large model."""
        assert study.rung is not None
        trial = study.trial(number)
        if study.rung.model is None:
            return trial if trial.continued else None
        key = self._strategy.space.key
        point = key(trial.spec.point)
        full = (other for other in self._mine(study) if not other.spec.pauses)
        return next((other for other in full if key(other.spec.point) == point), None)

    def _pairs(self, study: StudyState, low: Sequence[Trial]) -> list[int]:
        """Return designed trials far apart that go on for the guard; none if too few have paused."""
        paused = [t for t in low if t.state == "paused" and t.low is not None]
        if len(paused) < self._plan.pairs:
            return []
        points = [trial.spec.point for trial in paused]
        mixtures = self._strategy.space.inputs(
            self._strategy.space.coordinates(points, check=False)
        )
        return [paused[row].number for row in spread_rows(mixtures, self._plan.pairs)]

    def _judge(self, study: StudyState) -> None:
        """Compare low and top scores of all full runs, write the result to ``rungs.json`` and print it.

        The baselines passed the low rung on their way, so they are pairs too.
        """
        (objective,) = study.spec.objectives.values()
        known = [
            (before, after)
            for trial, full in self._both_rungs(study)
            if trial.low is not None
            and (before := trial.low.value(objective)) is not None
            and (after := full.value(objective)) is not None
        ]
        if len(known) < FEWEST_PAIRS:
            return  # too many of the pairs failed: the search goes on unguarded
        guard = judge_rung(*np.array(known).T)
        study.rung = write_guard(study.folder, guard)
        print(f"study {study.study!r}: {guard}", file=sys.stderr, flush=True)

    def _both_rungs(self, study: StudyState) -> list[tuple[Trial, Trial]]:
        """Return the trials at the low rung, each with the finished trial of its mixture at the top."""
        assert study.rung is not None
        if study.rung.model is None:
            return [(trial, trial) for trial in self._mine(study) if trial.state == "done"]
        pairs = [(study.trial(n), self._full_run(study, n)) for n in study.rung.chosen]
        return [(low, full) for low, full in pairs if full is not None and full.state == "done"]

    def _dropped(self, study: StudyState) -> bool:
        rung: Rung | None = study.rung
        return rung is not None and rung.judged is not None and not rung.judged.holds

    def _in_full(self, study: StudyState, busy: set[Run], free_workers: int) -> list[Run]:
        """Return full runs of new trials, as many as the budget still pays after the rung was dropped."""
        assert study.rung is not None
        mine = self._mine(study)
        if self._units is None:
            left = self._plan.low_runs + len(self._strategy.baselines) - len(mine)
        else:
            spent = sum(1.0 if self._is_full(trial) else study.rung.price for trial in mine)
            left = math.floor(self._units - spent + 1e-9)
        if left <= 0:
            return []
        drafts = self._strategy.next_drafts(study.history(), min(left, self._strategy.batch))
        return self._add(study, drafts, busy, free_workers, whole=True)

    @staticmethod
    def _is_full(trial: Trial) -> bool:
        return not trial.spec.pauses or trial.continued

    def _finalists(self, study: StudyState, low: Sequence[Trial]) -> list[int]:
        """Return the paused trials with the best predictions at the top; none once they are chosen."""
        assert study.rung is not None
        history = study.history()
        count = self._plan.finalists - len(study.rung.finalists)
        paused = [
            trial
            for trial in low
            if trial.state == "paused"
            and trial.low is not None
            and trial.number not in study.rung.chosen
        ]
        if count <= 0 or not paused or len(history.low) < _LEAST_RUNS:
            return []
        order = np.argsort(self._rank(history)(paused), kind="stable")
        return [paused[row].number for row in order[:count]]


_LEAST_RUNS = 5
"""Fewest runs that finalists are predicted from."""
