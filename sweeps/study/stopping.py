"""Stop a running study: its driver, and the runs that processes of this machine work on.

    driver.json, <run>/holder.json ──▶ process of this host ──SIGTERM──▶ gone, its lock is free

A driver takes SIGTERM as Ctrl-C: it ends the runs of its slots. Jobs in a cluster's queue go on; the next
driver collects them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ablations.errors import DataError, HeldError, Problem, unknown_name
from ablations.record.lease import beats_elsewhere
from ablations.record.run_record import HOLDER, list_runs
from ablations.record.stored import stored_object
from sweeps.study.run_results import is_held

__all__ = ["Stopped", "ending_on_sigterm", "is_driven", "stop_study"]

_LOOK_SECONDS = 0.1
_LOOKS = 20
"""Looks at a lock without a lease before its holder counts as unknown."""


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Runs that were stopped, and those that go on."""

    driver: int | None
    """Process of the driver; None if none was running."""
    runs: tuple[str, ...]
    """Runs that were ended."""
    going_on: tuple[str, ...]
    """Runs on other hosts, such as jobs of a queue, that go on."""


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C meanwhile, so that runs are ended in order; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_driven(folder: Path) -> bool:
    """Return whether a driver runs the study in a folder, as far as this host sees."""
    return _is_locked(folder / "driver.lock") or beats_elsewhere(folder / "driver.json")


def stop_study(runs_dir: Path, study: str, wait_seconds: float = 30.0) -> Stopped:
    """Stop the driver of a study and the runs of this host; a second call does nothing.

    Args:
        runs_dir: Folder of all studies.
        study: Folder under it.
        wait_seconds: Longest time to wait until the processes are gone.

    Raises:
        DataError: no such study.
        HeldError: the driver runs on another host, or a process did not end in time.
    """
    folder = Path(runs_dir) / study
    if not folder.is_dir():
        known = [path.name for path in Path(runs_dir).glob("*") if path.is_dir()]
        raise DataError(unknown_name("study", "study", study, known))
    until = time.monotonic() + wait_seconds
    driver = _end(folder / "driver.lock", folder / "driver.json", f"study {study!r}", until)
    ended, going_on = [], []
    for record in list_runs(runs_dir, study):
        if not is_held(record.path):
            continue
        holder = _holder(record.path / HOLDER)
        if holder is None or holder.get("host") != socket.gethostname():
            going_on.append(record.name)
        elif _end(record.path / "lock", record.path / HOLDER, record.name, until) is not None:
            ended.append(record.name)
    return Stopped(driver=driver, runs=tuple(ended), going_on=tuple(going_on))


def _end(lock: Path, lease: Path, what: str, until: float) -> int | None:
    """End the process that holds a lock; return it, None if nobody holds the lock."""
    holder = None
    for _ in range(_LOOKS):
        if not _is_locked(lock):
            return None
        # A process that only looks whether the lock is free holds it for a moment, without a lease.
        if (holder := _living(lease)) is not None:
            break
        time.sleep(_LOOK_SECONDS)
    host, pid = (holder or {}).get("host"), (holder or {}).get("pid")
    if host != socket.gethostname() or not isinstance(pid, int):
        raise HeldError(
            Problem(
                what,
                "runs on another host",
                found=f"process {pid} on {host}" if pid else "an unknown process",
                do=f"give the same command on {host}" if host else "wait for it",
            )
        )
    with contextlib.suppress(ProcessLookupError):  # it ended by itself in between
        os.kill(pid, signal.SIGTERM)
    while _is_locked(lock):
        if time.monotonic() > until:
            raise HeldError(
                Problem(
                    what,
                    "did not end in time",
                    found=f"process {pid}",
                    do="wait and give the command again, or raise wait_seconds",
                )
            )
        time.sleep(_LOOK_SECONDS)
    return pid


def _living(lease: Path) -> dict[str, Any] | None:
    """Return the holder in a lease; None if its process is of this host and began after the lease."""
    import psutil

    holder = _holder(lease)
    if holder is None or holder.get("host") != socket.gethostname():
        return holder
    try:
        began = psutil.Process(int(holder["pid"])).create_time()
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return None
    return holder if began <= float(holder.get("started", 0.0)) + 1.0 else None


def _holder(lease: Path) -> dict[str, Any] | None:
    try:
        return dict(stored_object(lease))
    except (DataError, OSError, ValueError):
        return None


def _is_locked(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    if not lock.exists():
        return False
    kernel = FileLock(lock)
    try:
        kernel.acquire(timeout=0)
    except Timeout:
        return True
    kernel.release()
    return False
