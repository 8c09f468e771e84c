"""Loop of a study: launch runs, wait, collect results, until the scheduler has no more runs.

    scheduler ──runs──▶ launcher ──▶ run folders ──results──▶ study ──▶ scheduler …

Only the run folder decides how a job ended, never the job's return value. A job that ended without a
result was killed (by a user, a node, the kernel) and is launched again, up to ``search.attempts``
times; it resumes from its last checkpoint. A job that raised has failed. The study continues without
it, up to ``search.max_failures`` failures; the same command tries it again, unless it diverged. If
an orphan of an earlier driver still works on a run, the driver waits for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Protocol

from ablations.errors import HeldError, HostLostError, UserError, WorkError
from sweeps.study.executor import Executor, Returned
from sweeps.study.missing_runs import shortfall
from sweeps.study.pruning import Pruner
from sweeps.study.run_results import is_held, run_folder
from sweeps.study.scheduler import Scheduler
from sweeps.study.study_state import Run, StudyState
from sweeps.study.trial import Outcome, Trial

__all__ = ["Driver", "StudyError", "View"]

_TICK_SECONDS = 0.5
"""Interval between updates of the view and checks of held runs while no run ends."""


class StudyError(WorkError):
    """Error at the end of a study: runs failed or have no score, or it stopped after too many failures."""


class View(Protocol):
    """Interface of a progress display."""

    def show(self, study: StudyState, in_flight: dict[Run, float], total: int | None) -> None:
        """Draw the study; ``in_flight`` is run → launch time in seconds since the epoch."""


class Driver:
    """Driver that runs one study to its end.

    Args:
        study: Study, opened by a caller that holds its lock.
        scheduler: Source of the runs to launch.
        launching: Executor of the runs.
        overrides: Run → task overrides of its job.
        check: Called once with the overrides of the first job; raises if its config is invalid.
        view: Progress display.
        pruner: Ends runs that fall behind; None = no run is ended early.
        retry_diverged: Also launch runs again that diverged.
        waits: Run → what it waits for; of several runs that wait for the same, one is in flight. None = the
            run waits for nothing.
    """

    def __init__(
        self,
        study: StudyState,
        scheduler: Scheduler,
        launching: Executor,
        *,
        overrides: Callable[[Run], list[str]],
        check: Callable[[list[str]], object],
        view: View,
        pruner: Pruner | None = None,
        retry_diverged: bool = False,
        waits: Callable[[Run], Hashable | None] = lambda run: None,
    ) -> None:
        self._study, self._scheduler, self._launching = study, scheduler, launching
        self._overrides, self._check, self._view = overrides, check, view
        self._in_flight: dict[Future[Returned], Run] = {}
        self._before: dict[Run, tuple[Run, ...]] = {}
        self._held: set[Run] = set()
        self._since: dict[Run, float] = {}
        self._launches: Counter[Run] = Counter()
        self._stopping: str | None = None
        self._pruner = pruner
        self._retry_diverged, self._waits = retry_diverged, waits

    def run(self) -> None:
        """Run until all runs of the scheduler have ended.

        Raises:
            StudyError: a run failed or has no score, or more trials failed than
                ``search.max_failures``.
            UserError: the first run was refused; no result is lost.
        """
        ended = self._scheduler.ended_runs(self._study)
        self._study.retry_failures(ended, diverged=self._retry_diverged)
        try:
            while self._fill():
                self._draw()
                settled = self._ended()
                # The last of a job first: where it died, runs behind the first lost one did not begin.
                for future in [one for one in reversed(self._in_flight) if one in settled]:
                    self._settle(self._in_flight.pop(future), future.result())
                self._check_held()
                self._prune()
        except BaseException:
            self._launching.stop()
            raise
        finally:
            self._study.write_ledger(now=True)
            self._draw()
        if wrong := self._stopping or shortfall(
            self._study, self._scheduler.ended_runs(self._study)
        ):
            raise StudyError(wrong)

    def _fill(self) -> bool:
        """Launch runs on the free workers; return whether any run is in flight or held."""
        busy = {*self._in_flight.values(), *self._held}
        free_workers = self._launching.free_workers(len(busy))
        self._stopping = self._stopping or self._too_many_failures()
        if free_workers and not self._stopping:
            runs = self._scheduler.next_runs(self._study, busy, free_workers)
            self._launch([run for run in self._leaders(runs, busy) if not self._hold_back(run)])
        return bool(self._in_flight or self._held)

    def _leaders(self, runs: list[Run], busy: set[Run]) -> list[Run]:
        """Return the runs without those that wait for another one of them, or for one in flight."""
        led, leaders = {self._waits(run) for run in busy}, []
        for run in runs:
            waits = self._waits(run)
            if waits is None or waits not in led:
                leaders.append(run)
                led.add(waits)
        return leaders

    def _hold_back(self, run: Run) -> bool:
        """Return whether another process works on the run; such a run is watched, not launched."""
        if not is_held(self._folder(run)):
            return False
        self._held.add(run)
        self._since.setdefault(run, time.time())
        return True

    def _launch(self, runs: list[Run]) -> None:
        if not runs:
            return
        jobs = [self._overrides(run) for run in runs]
        if not self._launches:
            self._check(jobs[0])
        for run in runs:
            self._study.prepare(run)
            self._launches[run] += 1
            self._since[run] = time.time()
        size = self._launching.runs_per_job
        for place, run in enumerate(runs):
            self._before[run] = tuple(runs[place - place % size : place])
        futures = self._launching.submit(jobs, runs[0].number)
        self._in_flight |= dict(zip(futures, runs, strict=True))

    def _ended(self) -> set[Future[Returned]]:
        if not self._in_flight:
            time.sleep(_TICK_SECONDS if self._held else 0.0)
            return set()
        return wait(self._in_flight, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED).done

    def _settle(self, run: Run, returned: Returned) -> None:
        """Read the result of a run; if there is none, decide whether it was killed or failed."""
        outcome = self._study.collect(run)
        if outcome is None:
            raised = _raised(returned)
            if isinstance(raised, HeldError):
                self._held.add(run)
                self._launches[run] -= 1
                return
            self._refuse_first(raised)
            outcome = self._without_result(run, returned, raised)
        self._since.pop(run, None)
        if outcome is not None:
            self._study.record(run, outcome)

    def _without_result(
        self, run: Run, returned: Returned, raised: BaseException | None
    ) -> Outcome | None:
        """Return the outcome of a run without a result; None = launch it again."""
        if raised is not None and not _was_ended(returned, raised):
            return self._study.fail(run, _described(raised))
        if isinstance(returned, BaseException) and self._was_not_reached(run):
            self._launches[run] -= 1
            return None
        if self._launches[run] < self._study.spec.attempts:
            return None
        last = f"; last: {_described(returned)}" if isinstance(returned, BaseException) else ""
        times = self._launches[run]
        return self._study.fail(run, f"ended {times} times without a result{last}")

    def _was_not_reached(self, run: Run) -> bool:
        """Return whether a job of several runs ended before this one: another, before it, has no result."""
        return any(
            before not in self._held and self._study.collect(before) is None
            for before in self._before.get(run, ())
        )

    def _refuse_first(self, raised: BaseException | None) -> None:
        """Raise a user's mistake that shows in the first run, before it counts as failed trials."""
        if isinstance(raised, UserError) and not any(t.outcomes for t in self._study.trials):
            self._launching.cancel()
            raise raised

    def _check_held(self) -> None:
        for run in sorted(self._held, key=lambda run: (run.number, run.seed)):
            if is_held(self._folder(run)):
                continue
            self._held.discard(run)
            outcome = self._study.collect(run)
            self._since.pop(run, None)
            if outcome is not None:
                self._study.record(run, outcome)

    def _prune(self) -> None:
        if self._pruner is None:
            return
        folders = {self._folder(run): run for run in self._in_flight.values()}
        done = [
            self._folder(Run(trial.number, outcome.seed))
            for trial in self._study.trials
            for outcome in trial.replicates
        ]
        for folder in self._pruner.look(list(folders), done):
            self._launching.end(folder.name)

    def _folder(self, run: Run) -> Path:
        return run_folder(self._study.folder, self._study.trial(run.number).spec, run.seed)

    def _too_many_failures(self) -> str | None:
        failed = self._study.failures(self._scheduler.phases)
        allowed = self._study.spec.max_failures
        if len(failed) <= allowed:
            return None
        count = f"{len(failed)} trial{'s' if len(failed) > 1 else ''} failed"
        return (
            f"study {self._study.study!r}: {count}, more than "
            f"search.max_failures={allowed}; {_last_reason(failed)}"
        )

    def _draw(self) -> None:
        in_flight = {run: self._since[run] for run in [*self._in_flight.values(), *self._held]}
        self._view.show(self._study, in_flight, self._scheduler.total(self._study))


def _raised(returned: Returned) -> BaseException | None:
    """Return the exception that ended the job; Hydra may store it as the return value."""
    if isinstance(returned, BaseException):
        return returned
    value = getattr(returned, "_return_value", None)
    return value if isinstance(value, BaseException) else None


def _was_ended(returned: Returned, raised: BaseException) -> bool:
    """Return whether the launcher, a signal of the queue or a lost host ended the job, not the job itself."""
    by_the_queue = type(raised).__module__.partition(".")[0] == "submitit"
    return isinstance(returned, BaseException) or by_the_queue or isinstance(raised, HostLostError)


def _described(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _last_reason(failed: list[Trial]) -> str:
    last = failed[-1]
    return f"last: {last.spec.trial}: {last.reason}"
