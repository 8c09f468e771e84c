"""Names that are written under before a file or a folder takes its own; what a killed writer left goes.

    .<name>.<8 digits of the host>.tmp            a file: the next writer of the same file takes it over
    .<name>.<8 digits of the host>-<random>.tmp   a file that two write at once; a folder in the making

Who writes holds a lock (``flock``), which ends with its process. One whose lock is free was left by
a writer that was killed. Where a file system carries no locks, such names stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["claimed_file", "is_left", "making_folder", "remove_folder"]

_TRIES = 3


@contextlib.contextmanager
def claimed_file(path: Path) -> Iterator[Path]:
    """Yield an empty sibling of ``path`` that this process alone writes to; gone at the end unless renamed.

    Args:
        path: The file that the sibling is to become.
    """
    temporary, descriptor = _taken_over(path) or _new_file(path)
    try:
        yield temporary
    finally:
        # Renamed, the name is free for another writer, whose file is not ours to remove.
        if _is_named(descriptor, temporary):
            temporary.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def making_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty sibling folder to fill, which the caller renames to ``folder``; else it is removed.

    Siblings that killed processes left are removed first. The parent is made where it is missing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        _remove_left(left)
    while True:
        building = _unique(folder)
        building.mkdir()
        try:
            descriptor = os.open(building, os.O_RDONLY)
        except FileNotFoundError:
            continue  # another process took it for one that was left
        _lock(descriptor)
        if _is_named(descriptor, building):
            break
        os.close(descriptor)
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)
        os.close(descriptor)


def is_left(path: Path) -> bool:
    """Return whether a temporary file or folder was left by a writer of this host that is gone."""
    if not (path.name.startswith(".") and path.name.endswith(".tmp") and _host() in path.name):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that no reader sees a part of it: it gets a temporary name first.

    If the process dies in between, what is left has that name, and :func:`is_left` finds it.
    """
    leaving = _unique(folder)
    folder.rename(leaving)
    shutil.rmtree(leaving)


def _taken_over(path: Path) -> tuple[Path, int] | None:
    """Return the usual name, and the descriptor that locks it; None where another writer has it."""
    usual = path.with_name(f".{path.name}.{_host()}.tmp")
    for _ in range(_TRIES):
        try:
            descriptor = os.open(usual, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError:
            return None  # another user's, or not a file: try the next name
        if not _lock(descriptor):
            os.close(descriptor)
            return None
        # The writer before may have given it its own name since it was opened.
        if _is_named(descriptor, usual):
            os.ftruncate(descriptor, 0)
            return usual, descriptor
        os.close(descriptor)
    return None


def _new_file(path: Path) -> tuple[Path, int]:
    temporary = _unique(path)
    return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _unique(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_host()}-{secrets.token_hex(4)}.tmp")


def _remove_left(folder: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _lock(descriptor) and _is_named(descriptor, folder):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Return whether the lock is ours now; it is nobody's where the file system carries none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    """Return whether ``path`` is the name of what the descriptor is of."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


@cache
def _host() -> str:
    """Eight digits: hosts that share a folder may not see each other's locks."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
