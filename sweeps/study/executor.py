"""Non-blocking execution of runs by a Hydra launcher, as many at a time as it has workers.

A launcher's ``launch`` blocks until its jobs have ended. The slots launcher and submitit can be called
from several threads, so they get one call for each run and a slot is filled as soon as it is free.
joblib cannot: it gets a batch, and the next batch after the whole batch has ended. Hydra's basic
launcher runs jobs in the driver itself, on its main thread, one at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from ablations.errors import ConfigError, Problem
from sweeps.launchers.slurm_look import require_slurm
from sweeps.launchers.slurm_queue import cancel_jobs, watch_queue

__all__ = ["Executor", "Returned", "launching_of"]

Returned = Any
"""Hydra's ``JobReturn`` of one run, or the exception that the launcher raised."""

_MODES: dict[str, Literal["thread", "batch", "inline"]] = {
    "SlotsLauncher": "thread",
    "SlurmLauncher": "thread",
    "LocalLauncher": "thread",
    "BasicLauncher": "inline",
}
_SLURM_RUNS_IN_FLIGHT = 64
"""Runs queued or running at once if neither the search nor the launcher sets a number."""


class Executor:
    """Launcher with a non-blocking interface.

    Args:
        launcher: A Hydra launcher, after its ``setup``.
        mode: ``thread`` = one call per run in a thread of its own; ``batch`` = one call for several
            runs; ``inline`` = one blocking call per run.
        width: Largest number of jobs in flight.
        groups: Launches several runs in one job; None = each run is a job.
        runs_per_job: Most runs of a job.
    """

    def __init__(
        self,
        launcher: Any,
        mode: Literal["thread", "batch", "inline"],
        width: int,
        groups: Any = None,
        runs_per_job: int = 1,
    ) -> None:
        self._launcher, self.mode, self.width = launcher, mode, width
        self._groups, self.runs_per_job = groups, runs_per_job

    def free_workers(self, in_flight: int) -> int:
        """Return the number of runs that can be submitted now."""
        if self.mode == "batch" and in_flight:
            return 0
        # Of a job whose runs are being collected some are in flight for a moment: whole jobs are counted.
        free = self.width * self.runs_per_job - in_flight
        return max(0, free // self.runs_per_job * self.runs_per_job)

    def submit(self, jobs: Sequence[Sequence[str]], index: int) -> list[Future[Returned]]:
        """Launch jobs; each future has the launcher's return value, or its exception as a value."""
        if self.mode == "batch":
            return self._call(jobs, index)
        starts = range(0, len(jobs), self.runs_per_job)
        groups = [(index + start, jobs[start : start + self.runs_per_job]) for start in starts]
        return [future for first, group in groups for future in self._call(group, first)]

    def stop(self) -> None:
        """Stop the jobs of the launcher if it can; queued jobs go on, and the next driver finds them."""
        stop: Callable[[], None] | None = getattr(self._launcher, "stop", None)
        if stop is not None:
            stop()

    def cancel(self) -> None:
        """Take the jobs of this command out of a queue: each would be refused as the first one was."""
        if type(self._launcher).__name__ == "SlurmLauncher":
            cancel_jobs()

    @property
    def can_end(self) -> bool:
        """Return whether the launcher can end a single run."""
        return hasattr(self._launcher, "end")

    def end(self, name: str) -> None:
        """End the run in the folder ``name``."""
        self._launcher.end(name)

    def _call(self, jobs: Sequence[Sequence[str]], index: int) -> list[Future[Returned]]:
        futures: list[Future[Returned]] = [Future() for _ in jobs]

        def call() -> None:
            try:
                launcher = self._groups if self._groups is not None else self._launcher
                returned: Sequence[Returned] = launcher.launch(
                    [list(job) for job in jobs], initial_job_idx=index
                )
            except Exception as error:  # a killed worker, a cancelled job: the run folders decide
                returned = [error] * len(jobs)
            for future, value in zip(futures, returned, strict=True):
                future.set_result(value)

        if self.mode == "inline":
            call()
        else:
            # Daemon threads, because an interrupted driver must not wait hours for a queue.
            threading.Thread(target=call, name=f"launch-{index}", daemon=True).start()
        return futures


def launching_of(
    launcher: Any, workers: int | None, runs_per_job: int = 1, preload: Sequence[str] = ()
) -> Executor:
    """Return the executor of ``launcher``.

    Args:
        launcher: A Hydra launcher, after its ``setup``.
        workers: ``search.workers``.
        runs_per_job: ``search.runs_per_job``. On slots every run is forked from one server anyway.
        preload: Modules that a job of several runs imports before its first run.

    Raises:
        ConfigError: the launcher is Slurm's, and there is no Slurm here or it takes no such job; or
            several runs are asked for in a job, and the launcher has no jobs.
    """
    name = type(launcher).__name__
    mode = _MODES.get(name, "batch")
    if name == "SlurmLauncher":
        require_slurm(launcher.params)
        watch_queue()
    if runs_per_job > 1 and name != "SlotsLauncher":
        if mode != "thread":
            raise ConfigError(
                Problem(
                    "search.runs_per_job",
                    "this launcher has no jobs that could hold several runs",
                    found=runs_per_job,
                    allowed="1; more with hydra/launcher=slurm or submitit_local",
                )
            )
        # Imported here: only such studies need submitit's launcher.
        from sweeps.launchers.run_groups import RunGroups

        groups = RunGroups(launcher, preload)
        return Executor(launcher, mode, workers or _width(launcher), groups, runs_per_job)
    if mode == "inline":
        return Executor(launcher, mode, 1)
    return Executor(launcher, mode, workers or _width(launcher))


def _width(launcher: Any) -> int:
    slots = getattr(launcher, "width", None)
    if slots is not None:
        return int(slots)
    if type(launcher).__name__ == "SlurmLauncher":
        params = getattr(launcher, "params", {})
        return min(_SLURM_RUNS_IN_FLIGHT, int(params.get("array_parallelism", 256)))
    jobs = int((getattr(launcher, "joblib", None) or {}).get("n_jobs", -1))
    return jobs if jobs > 0 else os.cpu_count() or 1
