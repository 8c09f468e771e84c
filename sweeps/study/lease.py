"""One driver a study: a lock that ends with its process, and a lease that tells others who holds it.

The lock (``driver.lock``) decides on one machine, however the holder died. The lease
(``driver.json``: host, pid, heartbeat) decides between machines, where a file system may not carry
locks: a driver of another host whose heartbeat is younger than :data:`STALE_SECONDS` is alive.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablations.errors import HeldError, Problem
from ablations.files import read_json, write_json

__all__ = ["BEAT_SECONDS", "STALE_SECONDS", "drive"]

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A heartbeat older than this is a dead driver's: six beats missed."""


@contextlib.contextmanager
def drive(folder: Path, study: str) -> Iterator[None]:
    """Be the one driver of the study in ``folder``.

    Raises:
        HeldError: another driver is alive; the message says which.
    """
    # Imported here: naming a study needs no lock.
    from filelock import FileLock, Timeout

    lease = folder / "driver.json"
    lock = FileLock(folder / "driver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise HeldError(_refusal(study, _read(lease))) from None
    try:
        _refuse_other_host(study, _read(lease))
        with _heartbeat(lease):
            yield
    finally:
        lock.release()


def _refuse_other_host(study: str, holder: dict[str, Any] | None) -> None:
    if holder is None or holder.get("host") == socket.gethostname():
        return  # this host's lock is ours, so its holder is gone
    if time.time() - float(holder.get("heartbeat", 0.0)) < STALE_SECONDS:
        raise HeldError(_refusal(study, holder))


def _refusal(study: str, holder: dict[str, Any] | None) -> Problem:
    who = "another process"
    if holder:
        age = max(0.0, time.time() - float(holder.get("heartbeat", 0.0)))
        who = f"process {holder.get('pid')} on {holder.get('host')}, heartbeat {age:.0f} s ago"
    return Problem(
        f"study {study!r}",
        "another driver is running it",
        found=who,
        do="wait for it, stop it, or name a new study=",
    )


@contextlib.contextmanager
def _heartbeat(lease: Path) -> Iterator[None]:
    stop = threading.Event()
    who = {"host": socket.gethostname(), "pid": os.getpid(), "started": time.time()}

    def beat() -> None:
        while True:
            write_json(lease, {**who, "heartbeat": time.time()})
            if stop.wait(BEAT_SECONDS):
                return

    write_json(lease, {**who, "heartbeat": time.time()})
    thread = threading.Thread(target=beat, name="study-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        lease.unlink(missing_ok=True)


def _read(lease: Path) -> dict[str, Any] | None:
    try:
        holder: dict[str, Any] = read_json(lease)
    except (OSError, ValueError):
        return None
    return holder
