"""Locks and leases on folders: one process at a time, also on file systems without locks.

    <lock>      flock: decides on one machine, however the holder died
    <lease>     {"host", "pid", "started", "token", "beat"}: renewed every :data:`BEAT_SECONDS`

A file system that hosts share may not support locks. There the lease decides: a lease of another host
is alive while it changes. Clocks of two hosts are not compared: the lease is watched for
:data:`STALE_SECONDS` by the clock of the process that wants it. A holder that was stopped for that
long finds another token in the lease at its next heartbeat, and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ablations.errors import HeldError, Problem
from ablations.files import read_json, write_json

__all__ = [
    "BEAT_SECONDS",
    "STALE_SECONDS",
    "beats_elsewhere",
    "forget_dead",
    "hold",
    "only_process",
]

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A lease that has not changed for this long belongs to a dead holder: it missed six beats."""

_LOOKS = 60
"""Number of checks of another host's lease before it is taken over."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of the kernel for a file system without locks."""

Refusal = Callable[[str], Problem]
"""The problem to raise, made from a description of the holder."""


class _Lost(BaseException):
    """Raised in the thread that holds a lease when another process has taken it."""


@contextlib.contextmanager
def hold(lock: Path, lease: Path, refusal: Refusal) -> Iterator[None]:
    """Hold ``lease`` as the only process.

    Args:
        lock: The lock file.
        lease: The lease file; removed at the end.
        refusal: Makes the problem from a description of the holder.

    Raises:
        HeldError: another process holds it, or took it over while this one was stopped.
    """
    # Imported here: `ablate ls` reads records without it.
    from filelock import FileLock, Timeout

    kernel = FileLock(lock)
    locked = True
    try:
        kernel.acquire(timeout=0)
    except Timeout:
        raise HeldError(refusal(_who(_read(lease)))) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        locked = False
    try:
        _wait_for_silence(lease, locked, refusal)
        with _beating(lease, refusal):
            yield
    finally:
        kernel.release()


def forget_dead(lock: Path, lease: Path) -> None:
    """Remove a lease whose holder was a process of this host and is gone; nothing else, and no error.

    Args:
        lock: The lock file.
        lease: The lease file.
    """
    if not lease.exists():
        return
    from filelock import FileLock, Timeout

    with (
        contextlib.suppress(Timeout, NotImplementedError, OSError),
        FileLock(lock).acquire(timeout=0),
    ):
        holder = _read(lease)
        if holder is None or holder.get("host") == socket.gethostname():
            lease.unlink(missing_ok=True)


def beats_elsewhere(lease: Path) -> bool:
    """Return whether a process of another host seems to hold ``lease``, as far as this process observed it.

    A lease that is seen for the first time counts as alive, until it was seen unchanged for
    :data:`STALE_SECONDS`.
    """
    holder, key = _read(lease), lease.absolute()
    if holder is None or holder.get("host") == socket.gethostname():
        _observed.pop(key, None)
        return False
    before = _observed.get(key)
    if before is None or before[0] != holder:
        before = _observed[key] = (holder, time.monotonic())
    return time.monotonic() - before[1] < STALE_SECONDS


_observed: dict[Path, tuple[dict[str, Any], float]] = {}
"""Lease → its content, and when this process first saw it."""


def _wait_for_silence(lease: Path, locked: bool, refusal: Refusal) -> None:
    """Return once the lease that is there is a dead holder's."""
    first = _read(lease)
    if first is None or (locked and first.get("host") == socket.gethostname()):
        return  # this host's lock is ours, so its holder is gone
    print(
        f"{lease}: held by {_who(first)}; it is taken over if nothing changes for "
        f"{STALE_SECONDS:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    for _ in range(_LOOKS):
        time.sleep(STALE_SECONDS / _LOOKS)
        now = _read(lease)
        if now is None:
            return
        if now != first:
            raise HeldError(refusal(_who(now)))


@contextlib.contextmanager
def _beating(lease: Path, refusal: Refusal) -> Iterator[None]:
    heart = _Heart(lease)
    heart.start()
    try:
        try:
            yield
        finally:
            heart.stop()
    except _Lost:
        heart.stop()  # it may have been delivered while the heart was being stopped
    finally:
        if not heart.lost:
            lease.unlink(missing_ok=True)
    if heart.lost:
        raise HeldError(refusal(_who(_read(lease)))) from None


class _Heart:
    """Renews a lease, and ends the thread that holds it when the lease is another's."""

    def __init__(self, lease: Path) -> None:
        self._lease = lease
        self._holder = threading.get_ident()
        self._token = uuid.uuid4().hex
        self._began = time.time()
        self._beats = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self.lost = False

    def start(self) -> None:
        """Take the lease."""
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """End the heartbeat, and withdraw an exception that was not delivered yet."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._holder), None)

    def _beat(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            if not self._ours():
                self.lost = True
                # An interrupt would be ignored by a process in the background of a shell.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._holder), ctypes.py_object(_Lost)
                )
                return
            with contextlib.suppress(OSError):  # a full disk: the next beat tries again
                self._write()

    def _ours(self) -> bool:
        try:
            return bool(read_json(self._lease)["token"] == self._token)
        except FileNotFoundError:
            return False  # the one who took it over has ended
        except (OSError, ValueError):
            return True  # nobody else's: written anew
        except (KeyError, TypeError):
            return False

    def _write(self) -> None:
        self._beats += 1
        write_json(
            self._lease,
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": self._began,
                "token": self._token,
                "beat": self._beats,
            },
        )


def _who(holder: dict[str, Any] | None) -> str:
    if not holder or "pid" not in holder:
        return "another process"
    return f"process {holder['pid']} on {holder.get('host')}"


def _read(lease: Path) -> dict[str, Any] | None:
    try:
        holder = read_json(lease)
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) else None


_LOCK_SECONDS = 30.0
"""Waited for a process whose caller was killed: it is gone in a second."""


@contextlib.contextmanager
def only_process(directory: Path, name: str, otherwise: str) -> Iterator[None]:
    """Hold the lock ``name`` of ``directory`` for one process; the kernel frees it at death.

    Args:
        directory: The run folder.
        name: File name of the lock.
        otherwise: What the error states where another process holds it.

    Raises:
        HeldError: after half a minute.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(directory / name)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise HeldError(Problem(str(directory), otherwise, do="wait, or stop it")) from None
    try:
        yield
    finally:
        lock.release()
