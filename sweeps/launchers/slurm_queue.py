"""What a Slurm queue says of jobs that write no result: cancelled, out of time, lost with their node.

submitit learns of a job's end from its result file, else from ``sacct``. Where a cluster keeps no
accounting, ``sacct`` fails and a cancelled job would be waited for for ever; and its answers are asked
for at most every ten minutes. This watcher asks the queue itself. A queue that does not answer (the
controller restarts) changes nothing.
"""

from __future__ import annotations

import subprocess
import time
from typing import Any

__all__ = ["watch_queue"]

_POLL_SECONDS = 10
"""Between two questions to the controller, for all jobs together."""

_GONE = "GONE"


def watch_queue() -> None:
    """Make submitit's Slurm jobs ask the queue."""
    # Imported here: only studies on Slurm have submitit.
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class QueueWatcher(SlurmInfoWatcher):  # type: ignore[misc]
        """Asks ``squeue`` for every job of this driver at once."""

        def __init__(self) -> None:
            super().__init__(delay_s=_POLL_SECONDS)
            self._missed: set[str] = set()

        def update(self) -> None:
            """Learn the state of every job that is not known to have ended."""
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
                else:  # a job that was submitted just now may not be listed yet
                    self._missed.add(job)
            self._finished |= {job for job in waiting if self.is_done(job, mode="cache")}

    if type(SlurmJob.watcher).__name__ != QueueWatcher.__name__:
        SlurmJob.watcher = QueueWatcher()


def _queue() -> dict[str, Any] | None:
    """Id → state of the user's jobs that the controller remembers; None when it does not answer."""
    command = ["squeue", "--me", "--states=all", "--noheader", "--array", "--format=%i|%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.partition("|") for line in done.stdout.splitlines() if "|" in line]
    return {job.strip(): state.strip() for job, _, state in lines}
