"""Start two isolated processes: the player runs the program, and the judge runs its tests.

    judge   forks the player, then reads program and tests; sends the program to the player and executes
            the tests, in which a name that the program defines is a ``Remote`` (module ``judge``)
    player  executes the program, then serves the judge's requests: call this, get that (module ``player``)

The player never sees the tests and has no descriptor that the result could be written to. It sends
values (module ``wire``), and the judge compares them: nothing that a program does to its own interpreter
makes a wrong value right. Both processes get every layer of the module ``lock``.

The process is started with ``python -I -S``: neither the environment nor site-packages are read. Modules
that take milliseconds to import (``typing``, ``re``, ``signal``, ``dataclasses``) are not used. Lines on
standard output are for the caller: ``ready``, then ``pass`` or nothing; or ``unable`` with a reason.
"""

from __future__ import annotations

import os
import struct

from ablations.evaluation.sandbox import lock
from ablations.evaluation.sandbox.judge import Judge
from ablations.evaluation.sandbox.player import play
from ablations.evaluation.sandbox.wire import Broken, Channel

__all__ = ["main"]

_THREADS = 64  # of the player at once
_LEAST_FILES = 16  # with fewer, the numbers of the player's two pipes would overlap their originals


def main(arguments: list[str]) -> None:
    """Judge the program on standard input.

    Args:
        arguments: The folder, then numbers: seconds of processor, bytes of memory, bytes of one file,
            open files, bytes of all files, count of all files, 1 to use name spaces, and the newest
            Landlock version to use (0 = any).
    """
    folder = arguments[0]
    cpu, memory, file_bytes, open_files, total, entries, spaces, abi = map(int, arguments[1:])
    limits = (cpu, memory, file_bytes, max(open_files, _LEAST_FILES))
    libc = lock.library()
    # Tests may print what the program returns, so they get another standard output than the caller's.
    result, nothing = os.dup(1), os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 1)
    mounted = bool(spaces) and lock.mount_folder(libc, folder, total, entries)
    to_player, from_player = os.pipe(), os.pipe()
    player = os.fork()
    if player == 0:
        os.dup2(nothing, 0)
        os.dup2(nothing, 2)
        _be_player(libc, folder, limits, abi, (to_player[0], from_player[1]))
    os.close(to_player[0])
    os.close(from_player[1])
    status = _status(player)
    usage = None if mounted else _Usage(folder, total, entries)

    def tick() -> None:
        if _threads(status) > _THREADS or (usage is not None and usage.exceeded()):
            raise Broken("over its limits")

    try:
        _restrict(libc, folder, limits, abi, judged=player)
        every = 0.05 if mounted else 0.01  # a program writes 1 MB a millisecond
        channel = Channel(from_player[0], to_player[1], end=0, tick=tick, seconds=every)
        _judge(channel, result)
    except (lock.CannotHold, OSError, ValueError) as error:
        _write_line(result, f"unable {error}")
    except Broken:
        pass
    finally:
        os.kill(player, 9)
        os.waitpid(player, 0)
        os._exit(0)


def _restrict(
    libc: lock.Library, folder: str, limits: tuple[int, ...], abi: int, judged: int | None = None
) -> None:
    """Apply every layer; ``judged`` is the player's process id if this is the judge."""
    lock.apply_limits(libc, *limits)
    lock.restrict_files(libc, folder, write=judged is None, abi=abi or None)
    lock.restrict_calls(libc, judged)


def _be_player(
    libc: lock.Library, folder: str, limits: tuple[int, ...], abi: int, pipes: tuple[int, int]
) -> None:
    """Keep two pipes and the three standard descriptors, apply the layers, and play; never return."""
    # Numbers above the program's own: many programs close the first descriptors by mistake.
    read, write = (os.dup2(pipe, limits[3] - 1 - at) for at, pipe in enumerate(pipes))
    os.closerange(3, write)
    channel = Channel(read, write)
    try:
        os.chdir(folder)
        _restrict(libc, folder, limits, abi)
    except (lock.CannotHold, OSError, ValueError) as error:
        channel.send(f"unable {error}".encode())
        os._exit(0)
    channel.send(b"ready")
    play(channel)
    os._exit(0)


def _judge(channel: Channel, result: int) -> None:
    began = channel.receive()
    if began != b"ready":
        raise lock.CannotHold(began.decode(errors="replace").removeprefix("unable "))
    os.dup2(1, 2)  # errors after this point have no reader
    _write_line(result, "ready")
    program, tests, given = _read_input()
    if Judge(channel).passes(program, tests, given):
        _write_line(result, "pass")


def _read_input() -> list[str]:
    """Read three texts, each after its length (8 bytes)."""
    return [_take(*struct.unpack("<Q", _take(8))).decode() for _ in range(3)]


def _take(size: int) -> bytes:
    taken = bytearray()
    while len(taken) < size:
        part = os.read(0, size - len(taken))
        if not part:
            raise Broken("the caller gave up")
        taken += part
    return bytes(taken)


def _write_line(result: int, line: str) -> None:
    os.write(result, line.encode() + b"\n")


# ---------------------------------------------------------------------------------------- usage


def _status(player: int) -> int | None:
    """Open the player's status while files can still be opened."""
    try:
        return os.open(f"/proc/{player}/stat", os.O_RDONLY)
    except OSError:
        return None


def _threads(status: int | None) -> int:
    """Return the number of the player's threads: field 20, counted after the name, which may be any text."""
    if status is None:
        return 0
    try:
        return int(os.pread(status, 4096, 0).rpartition(b")")[2].split()[17])
    except (OSError, ValueError, IndexError):
        return 0


class _Usage:
    """Usage of a folder on an ordinary file system, where nothing else limits the sum."""

    def __init__(self, folder: str, total: int, entries: int) -> None:
        self._folder, self._total, self._entries = folder, total, entries

    def exceeded(self) -> bool:
        """Return True if the folder has more bytes, more files or deeper folders than allowed."""
        size = count = 0
        waiting = [(os.fsencode(self._folder), 0)]
        while waiting:
            folder, depth = waiting.pop()
            try:
                entries = list(os.scandir(folder))
            except OSError:  # removed or made unreadable: its content was counted as it grew
                continue
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((os.path.join(folder, entry.name), depth + 1))
                else:
                    size += _blocks(entry)
                if count > self._entries or size > self._total or depth > 64:
                    return True
        return False


def _blocks(entry: os.DirEntry[bytes]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0
