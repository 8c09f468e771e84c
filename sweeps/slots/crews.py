"""Who gets the next free slot: one job, or several that wait for it at the same time.

    job 0 ─┐                    ┌─▶ slot 0: jobs 0, 1, 2
    job 1 ─┼─ wait for a slot ──┤
    job 2 ─┤                    └─▶ slot 1: job 3
    job 3 ─┘

Jobs come one by one, each in a thread of its own. The first that sees a free slot takes it, waits a
moment for others where several may share one, and leads them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sweeps.slots.devices import Slot
from sweeps.slots.worker import Job

__all__ = ["Crew", "Crews"]

_GATHER_SECONDS = 2.0
"""That a slot waits for further jobs: a driver asks for runs one after another, in milliseconds each."""

Reasons = dict[int, str | None]
"""id of a job → why it failed in what it did with the others."""


class Crew:
    """Jobs that share a slot, until the last of them is over."""

    def __init__(self, slot: Slot, jobs: Sequence[tuple[Job, Path]]) -> None:
        self.slot, self.jobs = slot, tuple(jobs)
        self.left = len(self.jobs)
        # On its own cores a slot holds one job at a time; a GPU can hold those of a crew at once.
        self.turn = threading.Semaphore(1 if slot.devices is None else len(slot.cores))
        self._lock = threading.Lock()
        self._result: Reasons | None = None

    def result(self, work: Callable[[Crew], Reasons]) -> Reasons:
        """What ``work`` returned; the first thread that asks does it, the others wait for that."""
        with self._lock:
            if self._result is None:
                self._result = work(self)
            return self._result


class Crews:
    """The slots, and the jobs that wait for one.

    Args:
        together: Most jobs of a crew.
    """

    def __init__(self, slots: Sequence[Slot], together: int) -> None:
        self._free, self._together = list(slots), together
        self._waiting: dict[int, tuple[Job, Path]] = {}
        self._crews: dict[int, Crew] = {}
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def join(self, job: Job, log: Path) -> Iterator[Crew]:
        """Wait for a slot, alone or in a crew; its last job gives the slot back."""
        crew = self._joined(job, log)
        try:
            yield crew
        finally:
            with self._changed:
                crew.left -= 1
                if not crew.left:
                    self._free.append(crew.slot)
                    self._changed.notify_all()

    def _joined(self, job: Job, log: Path) -> Crew:
        key = id(job)
        with self._changed:
            self._waiting[key] = (job, log)
            self._changed.notify_all()
            self._changed.wait_for(lambda: key in self._crews or self._free)
            if key not in self._crews:
                self._lead(key)
            return self._crews.pop(key)

    def _lead(self, key: int) -> None:
        """Take a free slot for this job, and for others that wait."""
        slot = self._free.pop(0)
        jobs = {key: self._waiting.pop(key)}
        others = self._together - 1
        self._changed.wait_for(lambda: len(self._waiting) >= others, timeout=_GATHER_SECONDS)
        for other in list(self._waiting)[:others]:
            jobs[other] = self._waiting.pop(other)
        crew = Crew(slot, list(jobs.values()))
        self._crews |= dict.fromkeys(jobs, crew)
        self._changed.notify_all()
