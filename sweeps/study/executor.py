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
        width: Largest number of runs in flight.
    """

    def __init__(
        self, launcher: Any, mode: Literal["thread", "batch", "inline"], width: int
    ) -> None:
        self._launcher, self.mode, self.width = launcher, mode, width

    def free_workers(self, in_flight: int) -> int:
        """Return the number of runs that can be submitted now."""
        if self.mode == "batch" and in_flight:
            return 0
        return max(0, self.width - in_flight)

    def submit(self, jobs: Sequence[Sequence[str]], index: int) -> list[Future[Returned]]:
        """Launch jobs; each future has the launcher's return value, or its exception as a value."""
        if self.mode == "batch":
            return self._call(jobs, index)
        return [future for i, job in enumerate(jobs) for future in self._call([job], index + i)]

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
                returned: Sequence[Returned] = self._launcher.launch(
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


def launching_of(launcher: Any, workers: int | None) -> Executor:
    """Return the executor of ``launcher``; ``workers`` is ``search.workers``.

    Raises:
        ConfigError: the launcher is Slurm's, and there is no Slurm here or it takes no such job.
    """
    name = type(launcher).__name__
    mode = _MODES.get(name, "batch")
    if name == "SlurmLauncher":
        require_slurm(launcher.params)
        watch_queue()
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
