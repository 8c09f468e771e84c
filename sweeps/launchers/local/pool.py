"""Slots of one machine: a job waits for a free slot, runs in a child of the warm server, frees the slot.

A run is forked from a server (:mod:`ablations.processes`) that imported torch, nanotron and lighteval
once: as isolated as a process of its own, without the seconds of imports. If the driver dies, the server
ends with it; runs in flight finish and leave their results in their folders.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablations.processes.child import ChildEnv
from ablations.processes.ended import how_ended
from ablations.processes.warm_server import Child, warm_server
from sweeps.launchers.local.devices import Slot
from sweeps.launchers.local.job_worker import Job, run_job_in_child

__all__ = ["SlotPool", "WorkerDied", "result_of"]

_GRACE_SECONDS = 10.0
"""Between asking a run to end and killing it."""

_POLL_SECONDS = 0.1

_STOPPED = "the launcher is ending its runs"


class WorkerDied(Exception):  # noqa: N818 - the name is the event
    """End of a worker process without an answer: it was killed, or memory ran out."""


class SlotPool:
    """Jobs on slots; safe to call from several threads.

    Args:
        slots: Slots to hand out.
        preload: Modules that the server imports once; one that is not installed is left out.
    """

    def __init__(self, slots: Sequence[Slot], preload: Sequence[str]) -> None:
        self.slots = tuple(slots)
        self._free: queue.Queue[Slot] = queue.Queue()
        for slot in self.slots:
            self._free.put(slot)
        self._preload = tuple(preload)
        self._server = warm_server(self._preload)
        self._running: dict[Child, str] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        weakref.finalize(self, _wait_for, self._running)

    def run(self, job: Job, log: Path) -> Any:
        """Run one job on the next free slot; return what Hydra's ``run_job`` returned.

        Raises:
            WorkerDied: the process ended without an answer.
        """
        slot = self._free.get()
        try:
            return self._run_on(slot, job, log)
        finally:
            self._free.put(slot)

    def also_preload(self, module: str) -> None:
        """Import one more module before runs are forked; call it before the first run."""
        self._preload = (*self._preload, module)
        self._server = warm_server(self._preload)

    def stop(self) -> None:
        """End every run, its children included: ask for it, and after some seconds kill."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        for child in running:
            child.signal(signal.SIGTERM)

        def end() -> None:
            for child in running:
                child.kill()

        timer = threading.Timer(_GRACE_SECONDS, end)
        timer.daemon = True
        timer.start()

    def end(self, name: str) -> None:
        """End the run whose folder is called ``name``, its children included."""
        with self._lock:
            running = [child for child, run in self._running.items() if run == name]
        for child in running:
            child.kill()

    def _run_on(self, slot: Slot, job: Job, log: Path) -> Any:
        import cloudpickle

        child = self._start(slot, cloudpickle.dumps(job), log)
        try:
            return result_of(child, str(log))
        finally:
            with self._lock:
                self._running.pop(child, None)

    def _start(self, slot: Slot, payload: bytes, log: Path) -> Child:
        """Start a child for a job, unless the launcher is ending its runs."""
        if self._stopped.is_set():
            raise WorkerDied(_STOPPED)
        env = ChildEnv(log=log, variables=slot.environment, cores=slot.cores, outlives_server=True)
        child = self._server.start(run_job_in_child, payload, env=env)
        with self._lock:
            if self._stopped.is_set():
                child.kill()
                raise WorkerDied(_STOPPED)
            self._running[child] = log.parent.name
        return child


def result_of(child: Child, log: str) -> Any:
    """Return what the job of a child returned, when it has ended.

    Raises:
        WorkerDied: the process ended without an answer; the message names ``log``.
    """
    import cloudpickle

    result = child.result()
    if result.value is not None:
        return cloudpickle.loads(result.value)
    if isinstance(result.error, Exception):
        raise result.error
    # Processes that the dead worker started may go on: they are in its session.
    child.signal(signal.SIGKILL)
    raise WorkerDied(f"worker process {child.pid} {how_ended(child.code)}; see {log}")


def _wait_for(running: dict[Child, str]) -> None:
    """Wait at the driver's end for the runs in flight: they finish, or are being ended."""
    while running:
        time.sleep(_POLL_SECONDS)
