"""State of Slurm jobs that write no result: cancelled, out of time, lost with their node.

submitit reads the end of a job from its result file, else from ``sacct``. On a cluster without
accounting, ``sacct`` fails and a cancelled job would be waited for without end; and it is called at most
every ten minutes. This watcher asks the queue itself. A queue that does not answer, because the
controller restarts, changes nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import Any

__all__ = ["cancel_jobs", "watch_queue"]

_POLL_SECONDS = 10
"""Between two calls of ``squeue``, each for all jobs."""

_GONE = "GONE"


def watch_queue() -> None:
    """Make submitit's Slurm jobs ask the queue."""
    # Imported here: only studies on Slurm have submitit.
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class QueueWatcher(SlurmInfoWatcher):  # type: ignore[misc]
        """States of all jobs of this driver, from one call of ``squeue``."""

        def __init__(self) -> None:
            super().__init__(delay_s=_POLL_SECONDS)
            self._missed: set[str] = set()

        def update(self) -> None:
            """Read the state of each job that has not ended."""
            waiting = {job for job in self._registered if job not in self._finished}
            states = _queue()
            self._last_status_check = time.time()
            if states is None:
                return
            for job in waiting:
                if job in states:
                    self._info_dict[job] = {"JobID": job, "State": states[job]}
                    self._missed.discard(job)
                elif job in self._missed:
                    self._info_dict[job] = {"JobID": job, "State": _GONE}
                else:  # a job that was just submitted may not be listed yet
                    self._missed.add(job)
            self._finished |= {job for job in waiting if self.is_done(job, mode="cache")}

    if type(SlurmJob.watcher).__name__ != QueueWatcher.__name__:
        SlurmJob.watcher = QueueWatcher()


def cancel_jobs() -> None:
    """Cancel the jobs of this driver that have not ended."""
    from submitit.slurm.slurm import SlurmJob

    watcher = SlurmJob.watcher
    if jobs := sorted(watcher._registered - watcher._finished):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["scancel", *jobs], timeout=60, check=False, capture_output=True)


def _queue() -> dict[str, Any] | None:
    """Return id → state of the user's jobs that the controller lists; None if it does not answer."""
    command = ["squeue", "--me", "--states=all", "--noheader", "--array", "--format=%i|%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.partition("|") for line in done.stdout.splitlines() if "|" in line]
    return {job.strip(): state.strip() for job, _, state in lines}
