"""A study on disk and in memory: its folder, its journal, its trials, what they spent.

Opening one puts everything right that a kill can leave: a torn journal line is cut, trials that the
journal lost are read back from the run folders, runs that ended unseen are collected.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem
from ablations.files import write_json
from sweeps.search.space import Point
from sweeps.study.budget import Ledger, ledger_of
from sweeps.study.definition import Definition, record_decision, stored_definition
from sweeps.study.journal import Journal
from sweeps.study.objective import decided_form, restated
from sweeps.study.run_results import (
    forget_failure,
    has_lost_its_result,
    holds_record,
    may_be_tried_again,
    outcome_of,
    outcomes_of,
    run_folder,
    runs_in,
    trial_specs_in,
    write_failure,
    write_trial_spec,
)
from sweeps.study.specs import SearchSpec, TaskQualitySpec
from sweeps.study.strategy import Draft, History
from sweeps.study.trial import Outcome, Phase, Trial, TrialSpec

__all__ = ["DecideQuality", "Run", "StudyState"]

DecideQuality = Callable[[Path, str, TaskQualitySpec], Mapping[str, Any]]
"""Decides a study's score: runs_dir, study, thresholds → the decision, plain."""

_LEDGER_SECONDS = 2.0
"""``ledger.json`` is a view: written at most this often, and at the end."""


@dataclass(frozen=True)
class Run:
    """One replicate of one trial."""

    number: int
    seed: int


class StudyState:
    """The trials of one study; the caller holds its lease.

    Args:
        folder: ``runs_dir/<study>``.
        study: The name.
        spec: What is asked of it.
        seed: The runs' own seed, used where ``spec.seeds`` says nothing.
    """

    def __init__(self, folder: Path, study: str, spec: SearchSpec, seed: int) -> None:
        self.folder, self.study, self.spec = folder, study, spec
        self.seeds = spec.seeds or (seed,)
        self._ledger_due = 0.0
        self._open(stored_definition(folder))

    def _open(self, definition: Definition | None) -> None:
        """Read the journal, then put right what a kill may have left."""
        self._form = decided_form(definition)
        self.decided = definition is not None and definition.decision is not None
        objectives = {name: o.direction or "minimize" for name, o in self.spec.objectives.items()}
        parameters = self.spec.space.parameters if self.spec.space else {}
        scale = "" if self._form is None else json.dumps(dict(self._form.weights), sort_keys=True)
        self._journal = Journal(self.folder, self.study, objectives, parameters, scale)
        runs = runs_in(self.folder)
        self._recover_trials(runs)
        self._recover_outcomes(runs)

    def decide_quality(self, decide: DecideQuality) -> None:
        """Decide once which metrics make the score, keep it in ``study.json``, and go on with it."""
        decision = decide(self.folder.parent, self.study, self.spec.task_quality)
        self._open(record_decision(self.folder, decision))

    def _recover_trials(self, runs: Mapping[int, set[int]]) -> None:
        """Trials whose folders are there and whose journal lines are not."""
        lost = sorted(set(runs) - set(self._journal.trials))
        for spec in trial_specs_in(self.folder, lost, runs).values():
            self._journal.add(spec)
        # A driver that died while it wrote a trial.json decided nothing: that number is given again.
        begun = [number for number in lost if holds_record(self.folder, number, runs[number])]
        self._next = max([-1, *begun, *self._journal.trials]) + 1

    def _recover_outcomes(self, runs: Mapping[int, set[int]]) -> None:
        """Runs that ended while nobody watched, and replicates added after their trial's end."""
        history = self.history()
        for number, trial in list(self._journal.trials.items()):
            done = {
                seed: o
                for seed, o in trial.outcomes.items()
                if o.status == "done" and not has_lost_its_result(self._folder(Run(number, seed)))
            }
            if _lacks_a_value(history, trial):
                done = {}
            unseen = {*runs.get(trial.number, ()), *trial.outcomes} - set(done)
            # Of a run that failed the folder is asked again: it may have been tried again since.
            self._journal.keep(replace(trial, outcomes=done))
            for outcome in outcomes_of(self.folder, trial.spec, sorted(unseen)).values():
                self.record(Run(trial.number, outcome.seed), outcome)
            self._settle(self._journal.trials[trial.number])

    def retry_failures(self, runs: Iterable[Run]) -> list[Run]:
        """Take back what ``runs`` lack and may get by now: failures, scores; the runs to launch again.

        Their folders keep the failure until :meth:`prepare`: one that is not launched is not lost.
        """
        history = self.history()
        # A run that is done without a score is scored again; nothing of it is trained.
        unscored = {t.number for t in self.trials if _lacks_a_value(history, t)}
        again = [
            run
            for run in runs
            if (outcome := self.trial(run.number).outcomes.get(run.seed)) is not None
            and (run.number in unscored or may_be_tried_again(outcome, self._folder(run)))
        ]
        for run in again:
            trial = self.trial(run.number)
            kept = {seed: o for seed, o in trial.outcomes.items() if seed != run.seed}
            self._journal.keep(replace(trial, outcomes=kept))
        return again

    def _folder(self, run: Run) -> Path:
        return run_folder(self.folder, self.trial(run.number).spec, run.seed)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial, by number."""
        return tuple(self._restated(t) for _, t in sorted(self._journal.trials.items()))

    def trial(self, number: int) -> Trial:
        """Trial ``number``."""
        return self._restated(self._journal.trials[number])

    def _restated(self, trial: Trial) -> Trial:
        """Return the trial with the study's score in place of the runs' own."""
        if self._form is None:
            return trial
        outcomes = {seed: restated(o, self._form) for seed, o in trial.outcomes.items()}
        return replace(trial, outcomes=outcomes)

    def history(self) -> History:
        """What the strategy sees."""
        return History(
            trials=self.trials,
            objectives=self.spec.objectives,
            constraints=self.spec.constraints,
            baseline=self.spec.strategy.baseline,
            form=self._form,
        )

    def ledger(self) -> Ledger:
        """What was spent so far."""
        return ledger_of(self.spec.budget, self._journal.trials.values())

    def failures(self, phases: Sequence[Phase]) -> list[Trial]:
        """Failed trials of ``phases``."""
        return [t for t in self.trials if t.spec.phase in phases and t.state == "failed"]

    # ---------------------------------------------------------------------------------- changes

    def add_trial(
        self, draft: Draft, *, seeds: Sequence[int] = (), overrides: Sequence[str] = ()
    ) -> Trial:
        """Give a draft its number: its folder first, then the journal."""
        point: Point = draft.point
        spec = TrialSpec(
            number=self._next,
            phase=draft.phase,
            name=draft.name,
            point=point,
            overrides=tuple(overrides),
            seeds=tuple(seeds) or self.seeds,
        )
        write_trial_spec(self.folder, spec, spec.seeds[0])
        self._next += 1
        return self._journal.add(spec)

    def prepare(self, run: Run) -> None:
        """Make the run's folder ready for a launch: what it is, and no failure of an earlier try."""
        write_trial_spec(self.folder, self.trial(run.number).spec, run.seed)
        forget_failure(self._folder(run))

    def collect(self, run: Run) -> Outcome | None:
        """How the run ended, as its folder says; None while it has not."""
        return outcome_of(self.folder, self.trial(run.number).spec, run.seed)

    def fail(self, run: Run, reason: str) -> Outcome:
        """Record a failure in the folder of a run that did not record one itself."""
        write_failure(self._folder(run), reason)
        return Outcome(seed=run.seed, status="failed", reason=reason)

    def record(self, run: Run, outcome: Outcome) -> Trial:
        """Add an outcome; the trial ends with the last seed it was asked with."""
        trial = self.trial(run.number)
        self._check_direction(outcome)
        trial = replace(trial, outcomes={**trial.outcomes, run.seed: outcome})
        self._journal.keep(trial)
        self._settle(trial)
        self.write_ledger()
        return self.trial(run.number)

    def _settle(self, trial: Trial) -> None:
        if trial.settled or trial.state == "running":
            return
        history = self.history()
        own = self._restated(trial)
        values = history.values(own) if trial.state == "done" else None
        constraints = history.feasibility(own) if self.spec.constraints else None
        self._journal.end(trial, values, constraints or {})

    def _check_direction(self, outcome: Outcome) -> None:
        """A study that minimises what its runs call better when higher finds the worst mixture."""
        for name, objective in self.spec.objectives.items():
            wrong = outcome.direction is not None and outcome.direction != objective.direction
            if objective.metrics == ("score",) and wrong:
                raise ConfigError(
                    Problem(
                        f"search.objectives.{name}.direction",
                        "not the way in which the run's score is better",
                        found=objective.direction,
                        allowed=outcome.direction,
                    )
                )

    def write_ledger(self, *, now: bool = False) -> None:
        """Write ``ledger.json``, unless it was written just now."""
        if now or time.monotonic() >= self._ledger_due:
            write_json(self.folder / "ledger.json", self.ledger().plain())
            self._ledger_due = time.monotonic() + _LEDGER_SECONDS


def _lacks_a_value(history: History, trial: Trial) -> bool:
    """Return whether every run of the trial is done and an objective has no value all the same."""
    return trial.state == "done" and history.values(trial) is None
