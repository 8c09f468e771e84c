"""State of a study on disk and in memory: folder, journal, trials and their cost.

Opening a study repairs what a killed driver may leave: it cuts off a torn journal line, reads trials
missing in the journal from the run folders, and collects the results of runs that ended meanwhile.
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
from ablations.record.run_record import RunRecord
from sweeps.study.budget import Ledger, ledger_of
from sweeps.study.definition import Definition, record_decision, stored_definition
from sweeps.study.journal import Journal
from sweeps.study.objective import decided_form, restated
from sweeps.study.old_runs import OldRun, kept_evidence, write_check
from sweeps.study.reuse import reuse_sentence
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
from sweeps.study.rungs import Chosen, read_rung, write_chosen
from sweeps.study.specs import SearchSpec, TaskQualitySpec
from sweeps.study.strategy import History, TrialRequest
from sweeps.study.trial import Outcome, Phase, Trial, TrialSpec
from sweeps.study.trunks import trunk_account

__all__ = ["DecideQuality", "Run", "StudyState"]

DecideQuality = Callable[[Path, str, TaskQualitySpec], Mapping[str, Any]]
"""Function that decides a study's score: runs_dir, study, criteria → decision as plain values."""

_LEDGER_SECONDS = 2.0
"""Shortest interval between writes of ``ledger.json``, which is only a view of the trials."""


@dataclass(frozen=True)
class Run:
    """One seed of one trial."""

    number: int
    seed: int


class StudyState:
    """State of one study; the caller holds its lock.

    Args:
        folder: ``runs_dir/<study>``.
        study: Name of the study.
        spec: Specification of the study.
        seed: Seed of the run config, used if ``spec.seeds`` is empty.
    """

    def __init__(self, folder: Path, study: str, spec: SearchSpec, seed: int) -> None:
        self.folder, self.study, self.spec = folder, study, spec
        self.seeds = spec.seeds or (seed,)
        self._ledger_due = 0.0
        self.rung = read_rung(folder)
        self.evidence = kept_evidence(folder)
        self._open(stored_definition(folder))

    def _open(self, definition: Definition | None) -> None:
        """Read the journal, then repair what a killed driver may have left."""
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
        """Decide once which metrics make the score, write it to ``study.json``, and use it from now on."""
        decision = decide(self.folder.parent, self.study, self.spec.task_quality)
        self._open(record_decision(self.folder, decision))

    def _recover_trials(self, runs: Mapping[int, set[int]]) -> None:
        """Add trials to the journal that have folders and no journal line."""
        lost = sorted(set(runs) - set(self._journal.trials))
        for spec in trial_specs_in(self.folder, lost, runs).values():
            self._journal.add(spec)
        # If a driver died while it wrote a trial.json, that number is free and is used again.
        begun = [number for number in lost if holds_record(self.folder, number, runs[number])]
        self._next = max([-1, *begun, *self._journal.trials]) + 1

    def _recover_outcomes(self, runs: Mapping[int, set[int]]) -> None:
        """Read runs that ended without a driver, and seeds added after the end of their trial."""
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
            # Folders of failed runs are read again: the runs may have been repeated since.
            continued = self.rung is not None and number in self.rung.continued
            trial = replace(trial, outcomes=done, continued=continued)
            self._journal.keep(trial)
            for outcome in outcomes_of(self.folder, trial.spec, sorted(unseen)).values():
                self.record(Run(trial.number, outcome.seed), outcome)
            self._settle(self._journal.trials[trial.number])

    def choose(self, kind: Chosen, numbers: Sequence[int]) -> None:
        """Let trials that paused go on to their end: all are written to ``rungs.json`` at once.

        The runs of a smaller model do not go on; the scheduler adds a full run of each mixture.
        """
        self.rung = write_chosen(self.folder, kind, numbers)
        for number in self.rung.continued.intersection(numbers):
            self._journal.carry_on(replace(self._journal.trials[number], continued=True))

    def retry_failures(self, runs: Iterable[Run], *, diverged: bool = False) -> list[Run]:
        """Forget failures and missing scores of ``runs`` in memory; return the runs to launch again.

        Their folders keep the failure until :meth:`prepare`, so a run that is not launched keeps it.

        Args:
            runs: Runs that ended.
            diverged: Also those that diverged.
        """
        history = self.history()
        # A run that is done without a score is only scored again, not trained.
        unscored = {t.number for t in self.trials if _lacks_a_value(history, t)}
        again = [
            run
            for run in runs
            if (outcome := self.trial(run.number).outcomes.get(run.seed)) is not None
            and (
                run.number in unscored
                or may_be_tried_again(outcome, self._folder(run))
                or (diverged and outcome.status == "failed")
            )
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
        """Return all trials in order of their numbers."""
        return tuple(self._restated(t) for _, t in sorted(self._journal.trials.items()))

    def trial(self, number: int) -> Trial:
        """Return trial ``number``."""
        return self._restated(self._journal.trials[number])

    def _restated(self, trial: Trial) -> Trial:
        """Return the trial with the study's score in place of the recorded one."""
        if self._form is None:
            return trial
        outcomes = {seed: restated(o, self._form) for seed, o in trial.outcomes.items()}
        return replace(trial, outcomes=outcomes)

    def history(self) -> History:
        """Return the trials as the strategy and the proposers see them."""
        return History(
            trials=self.trials,
            objectives=self.spec.objectives,
            constraints=self.spec.constraints,
            baseline=self.spec.strategy.baseline,
            form=self._form,
            rung=None if self.rung is None else self.rung.distance,
            old=self._old_runs(),
        )

    def _old_runs(self) -> tuple[OldRun, ...]:
        evidence = self.evidence
        return () if evidence is None or not evidence.used else tuple(evidence.runs)

    def judge_evidence(self, judge: Callable[[History], Mapping[str, Any]]) -> str:
        """Decide once whether the old runs stay in the fit, write it, and return it as a sentence."""
        self.evidence = write_check(self.folder, judge(self.history()))
        return reuse_sentence(self.evidence)

    def ledger(self) -> Ledger:
        """Return the cost of the study so far, with its budget."""
        trials = self._journal.trials.values()
        return ledger_of(self.spec.budget, trials, trunk_account(self.folder))

    def failures(self, phases: Sequence[Phase]) -> list[Trial]:
        """Return the failed trials of ``phases``."""
        return [t for t in self.trials if t.spec.phase in phases and t.state == "failed"]

    # ---------------------------------------------------------------------------------- changes

    def add_trial(
        self, draft: TrialRequest, *, seeds: Sequence[int] = (), overrides: Sequence[str] = ()
    ) -> Trial:
        """Add a trial with the next number: write its folder first, then its journal line."""
        # A full run has no value at the rung of a smaller model.
        own_model = self.rung is not None and self.rung.model is not None and not draft.pauses
        spec = TrialSpec(
            number=self._next,
            phase=draft.phase,
            name=draft.name,
            point=draft.point,
            overrides=tuple(overrides),
            seeds=tuple(seeds) or self.seeds,
            rung=None if self.rung is None or own_model else self.rung.tokens,
            pauses=draft.pauses,
        )
        write_trial_spec(self.folder, spec, spec.seeds[0])
        self._next += 1
        return self._journal.add(spec)

    def prepare(self, run: Run) -> None:
        """Prepare the run's folder for a launch: write the specification, remove an earlier failure."""
        write_trial_spec(self.folder, self.trial(run.number).spec, run.seed)
        forget_failure(self._folder(run))

    def collect(self, run: Run) -> Outcome | None:
        """Return the outcome of the run, read from its folder; None while it has not ended.

        A run that paused and goes on has not ended.
        """
        trial = self.trial(run.number)
        outcome = outcome_of(self.folder, trial.spec, run.seed)
        paused = outcome is not None and outcome.status == "paused"
        return None if paused and trial.continued else outcome

    def fail(self, run: Run, reason: str) -> Outcome:
        """Record a failure in the folder of a run that recorded none itself, and return it."""
        write_failure(self._folder(run), reason)
        return Outcome(seed=run.seed, status="failed", reason=reason)

    def record(self, run: Run, outcome: Outcome) -> Trial:
        """Add an outcome; the trial ends with the last seed of its specification."""
        trial = self.trial(run.number)
        self._check_direction(outcome)
        RunRecord(self._folder(run)).close()
        trial = replace(trial, outcomes={**trial.outcomes, run.seed: outcome})
        self._journal.keep(trial)
        self._settle(trial)
        self.write_ledger()
        return self.trial(run.number)

    def _settle(self, trial: Trial) -> None:
        if trial.settled or trial.state in ("running", "paused"):
            return
        history = self.history()
        own = self._restated(trial)
        values = history.values(own) if trial.state == "done" else None
        constraints = history.feasibility(own) if self.spec.constraints else None
        self._journal.end(trial, values, constraints or {})

    def _check_direction(self, outcome: Outcome) -> None:
        """Refuse a direction opposite to that of the run's score: it would find the worst mixture."""
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
        """Write ``ledger.json``, unless it was written within the last two seconds."""
        if now or time.monotonic() >= self._ledger_due:
            write_json(self.folder / "ledger.json", self.ledger().plain())
            self._ledger_due = time.monotonic() + _LEDGER_SECONDS


def _lacks_a_value(history: History, trial: Trial) -> bool:
    """Return whether the trial is done and an objective has no value."""
    return trial.state == "done" and history.values(trial) is None
