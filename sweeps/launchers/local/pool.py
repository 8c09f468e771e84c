"""The slots of one machine: a job waits for a free one, runs in a fork of the warm server, gives it back.

A run is forked from a server that imported torch, nanotron and lighteval once: as isolated as a
process of its own, without the seconds of imports (lighteval alone takes 11 CPU-seconds). When the
driver dies the server goes with it; runs in flight finish and leave their results in their folders.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from sweeps.launchers.local.devices import Slot
from sweeps.launchers.local.job_worker import Job, Workplace, run_in_child

__all__ = ["SlotPool", "WorkerDied"]

_GRACE_SECONDS = 10.0
"""Between asking a run to end and ending it."""


class WorkerDied(Exception):  # noqa: N818 - it says what happened
    """A worker process that ended without an answer: killed, or out of memory."""


class SlotPool:
    """Runs jobs on slots; safe to call from several threads.

    Args:
        slots: What there is to hand out.
        preload: Modules that the server imports once; one that is not installed is left out.
    """

    def __init__(self, slots: Sequence[Slot], preload: Sequence[str]) -> None:
        self.slots = tuple(slots)
        self._free: queue.Queue[Slot] = queue.Queue()
        for slot in self.slots:
            self._free.put(slot)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._running: dict[int, str] = {}
        self._lock = threading.Lock()
        self._stopped = False

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

    def stop(self) -> None:
        """End every run, its children included."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for pid in running:
            _signal(pid, signal.SIGTERM)

        def end() -> None:
            for pid in running:
                _signal(pid, signal.SIGKILL)

        timer = threading.Timer(_GRACE_SECONDS, end)
        timer.daemon = True
        timer.start()

    def end(self, name: str) -> None:
        """End the run whose folder is called ``name``, its children included."""
        with self._lock:
            running = [pid for pid, run in self._running.items() if run == name]
        for pid in running:
            _signal(pid, signal.SIGKILL)

    def _run_on(self, slot: Slot, job: Job, log: Path) -> Any:
        import cloudpickle

        if self._stopped:
            raise WorkerDied("the launcher was told to end its runs")

        here, there = self._context.Pipe(duplex=False)
        place = Workplace(log=log, environment=slot.environment, cores=slot.cores)
        process = self._context.Process(
            target=run_in_child,
            args=(cloudpickle.dumps(job), place, there),
            name=f"slot-{slot.name}",
        )
        process.start()
        there.close()
        pid = process.pid
        assert pid is not None
        with self._lock:
            self._running[pid] = log.parent.name
        try:
            answer = _answer(here, process.sentinel)
            process.join()
        finally:
            with self._lock:
                self._running.pop(pid, None)
            here.close()
        if answer is None:
            # What the dead worker started may live on: its session dies with it.
            _signal(pid, signal.SIGKILL)
            raise WorkerDied(f"worker process {pid} {_ended(process.exitcode)}; see {log}")
        returned = cloudpickle.loads(answer)
        if isinstance(returned, Exception):
            raise returned
        return returned


def _answer(results: Connection, sentinel: int) -> bytes | None:
    """What the worker sent, None when it ended first."""
    wait_for([results, sentinel])
    with contextlib.suppress(EOFError, ConnectionResetError):
        if results.poll():
            return results.recv_bytes()
    return None


def _signal(session: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"
