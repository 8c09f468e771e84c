"""Lives of a command that end by SIGKILL: forks of this process, and the moments at which they are killed.

A life is one ``ablate`` command in a fork of a process that has imported what commands need. Processes that
the command starts (its own commands, warm servers of slots, pools and workers) are forks as well, with
the files closed that a new program would not have: else each life would begin with 12 CPU-seconds of imports.
What kills, what is locked and who is whose parent is as with new programs.

A kill comes at a moment, or just before the n-th event of the file system in the case's folder, in
whatever process it happens: files opened for writing, renames, removals, new folders, links, fsyncs.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

__all__ = [
    "LIMIT_SECONDS",
    "Life",
    "Strike",
    "adopt_orphans",
    "end_all",
    "everyone",
    "live",
    "settle",
]

LIMIT_SECONDS = 240.0
"""Of one life; the slowest takes 40 s on two cores that eight others share."""

Target = Literal["driver", "worker", "everything"]

_TARGETS: tuple[Target, ...] = ("driver", "worker", "everything")
_EVENTS = frozenset(
    ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.fsync")
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SUBREAPER = 36
_STATE = struct.Struct("qqqqq")
"""Events so far, event to strike at (0 = none), target, pid of the driver, whether it struck."""


@dataclass(frozen=True)
class Strike:
    """Whom to kill, and when."""

    target: Target
    seconds: float | None = None
    """After the life began, or after the strike before it in the same life."""
    event: int = 0
    """Number of the event of the file system from then on, from 1; 0 = the moment decides."""


@dataclass(frozen=True)
class Life:
    """Course of one life."""

    code: int | None
    """Exit code, negative for a signal; None = it did not end within :data:`LIMIT_SECONDS`."""
    seconds: float
    events: int
    kills: int
    """Strikes that killed something."""


def adopt_orphans() -> None:
    """Make this process the parent of whatever its descendants leave behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def everyone() -> list[int]:
    """The pids of all processes below this one that are not over."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def end_all() -> None:
    """Kill whatever is left of a case."""
    while left := everyone():
        for pid in left:
            _kill(pid)
        _reap({})
        time.sleep(0.02)
    _reap({})


def settle(seconds: float) -> list[str]:
    """Wait until every process of the case is over; the command lines of those that are not."""
    deadline = time.monotonic() + seconds
    while everyone():
        _reap({})
        if time.monotonic() > deadline:
            return [" ".join(psutil.Process(pid).cmdline())[:120] for pid in everyone()]
        time.sleep(0.05)
    _reap({})
    return []


def live(where: Path, command: Sequence[str], strikes: list[Strike], rng: random.Random) -> Life:
    """Give a command in ``where`` and let strikes come over it, one after the other, until it ends.

    Strikes are taken from the front of the list. Processes that the killed leave behind are still there
    when this returns.
    """
    shared = mmap.mmap(-1, _STATE.size)
    shared[:] = _STATE.pack(0, 0, 0, 0, 0)
    began = time.monotonic()
    next_strike = _arm(shared, strikes)
    due = None if next_strike is None else next_strike.seconds
    driver = os.fork()
    if driver == 0:
        _be_driver(where, command, shared)
    codes: dict[int, int] = {}
    kills = 0
    while driver not in codes:
        now = time.monotonic() - began
        hit = bool(_STATE.unpack(shared[:])[4])
        if due is not None and now >= due and next_strike is not None:
            hit = _strike_from_outside(next_strike.target, driver, rng)
        if hit:
            kills += 1
            next_strike = _arm(shared, strikes)
            due = now + next_strike.seconds if next_strike and next_strike.seconds else None
        if now > LIMIT_SECONDS:
            end_all()
            return Life(None, now, _STATE.unpack(shared[:])[0], kills)
        time.sleep(0.002)
        _reap(codes)
    events, _, _, _, struck = _STATE.unpack(shared[:])
    return Life(codes[driver], time.monotonic() - began, events, kills + struck)


def _arm(shared: mmap.mmap, strikes: list[Strike]) -> Strike | None:
    """Take the next strike; one at an event is left to the processes."""
    strike = strikes.pop(0) if strikes else None
    events, _, _, driver, _ = _STATE.unpack(shared[:])
    number = events + strike.event if strike and strike.event else 0
    target = _TARGETS.index(strike.target) if strike else 0
    shared[:] = _STATE.pack(events, number, target, driver, 0)
    return strike


def _strike_from_outside(target: Target, driver: int, rng: random.Random) -> bool:
    others = [pid for pid in everyone() if pid != driver]
    victims = {"driver": [driver], "everything": [driver, *others]}.get(target)
    if victims is None:
        victims = [rng.choice(others)] if others else [driver]
    killed = [_kill(pid) for pid in victims]
    return any(killed)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _reap(codes: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            codes[pid] = os.waitstatus_to_exitcode(status)


# ------------------------------------------------------------------------- inside the processes


def _be_driver(where: Path, command: Sequence[str], shared: mmap.mmap) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(where)
        out = os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        os.environ["TMPDIR"] = str(where / "tmp")
        events, number, kind, _, struck = _STATE.unpack(shared[:])
        shared[:] = _STATE.pack(events, number, kind, os.getpid(), struck)
        _watch_files(shared, where, os.getppid())
        _fork_programs()
        code = _ablate(command)
    except BaseException:
        traceback.print_exc()
    _leave(code)


def _ablate(words: Sequence[str]) -> int:
    """The command, as its console script would run it."""
    from ablations.cli import main

    _forget_hydra()
    try:
        return main(list(words))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1


def _forget_hydra() -> None:
    """Let Hydra begin anew, as it does in a new program."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()


def _leave(code: int) -> None:
    """End without the handlers of the process that this one was forked from."""
    from ablations.processes.warm_server import close_servers

    with contextlib.suppress(Exception):
        close_servers()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _watch_files(shared: mmap.mmap, where: Path, outside: int) -> None:
    """Count the events below ``where``, and strike just before the one that was asked for."""
    inside = f"{where}/"
    fsync = os.fsync

    def audited(descriptor: Any) -> None:
        sys.audit("os.fsync", "")
        fsync(descriptor)

    os.fsync = audited

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & _WRITES:
                return
        elif name not in _EVENTS:
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | Path) else ""
        if path.startswith("/") and not path.startswith(inside):
            return
        events, number, target, driver, struck = _STATE.unpack(shared[:])
        strikes = bool(number) and not struck and events + 1 >= number
        shared[:] = _STATE.pack(events + 1, number, target, driver, struck or strikes)
        if strikes:
            _strike_from_inside(_TARGETS[target], driver, outside)

    sys.addaudithook(hook)


def _strike_from_inside(target: Target, driver: int, outside: int) -> None:
    me = os.getpid()
    below = [child.pid for child in psutil.Process(outside).children(recursive=True)]
    others = [pid for pid in below if pid not in (me, driver)]
    if target == "driver":
        _kill(driver)
    elif target == "everything":
        for pid in (driver, *others):
            if pid != me:
                _kill(pid)
        _kill(me)
    else:
        _kill(me if me != driver or not others else others[-1])


def _fork_programs() -> None:
    """Let a Python program that this process would start be a fork of it."""
    subprocess.Popen = _Forked  # type: ignore[misc]


def _as_new(work: Callable[[], Any]) -> None:
    """Close what a new program would not have open, work, end."""
    code = 1
    try:
        os.closerange(3, 4096)
        code = int(work() or 0)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:
        traceback.print_exc()
    _leave(code)


_PROGRAMS = ("ablations.processes.warm_server", "sweeps.programs.subprocess_cli")


class _Forked(subprocess.Popen):  # type: ignore[type-arg]
    """Popen whose ``python -m`` of one of :data:`_PROGRAMS` is a fork of this process."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        own = isinstance(args, list | tuple) and list(args[:2]) == [sys.executable, "-m"]
        if not (own and args[2] in _PROGRAMS):
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        pipes, new_session = rest[9:15], rest[20]
        ends = (pipes[0], pipes[3], pipes[5])
        self.pid = os.fork()
        if self.pid == 0:
            if new_session:
                os.setsid()
            for end, target in zip(ends, (0, 1, 2), strict=True):
                if end != -1:
                    os.dup2(end, target)
            _as_new(lambda: _program(list(args[2:])))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _program(words: list[str]) -> int:
    """``python -m`` with these words."""
    from ablations.processes.warm_server import serve
    from sweeps.programs.subprocess_cli import called

    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.argv = words
    if words[0] == "sweeps.programs.subprocess_cli":
        _forget_hydra()
        return called(words[1:])
    serve(*words[1:])
    return 0
