"""Checksums of a folder that is written once: checkpoints, exports, per-item details,
configs that a promotion froze.

    <folder>/checksums.json     {"files": {"model/….safetensors": [size in bytes, sha256]}}

It is written last, before the folder takes its name. A folder without one was written by an older
version, or by another program: its files are not compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ablations.errors import DamagedError, Problem
from ablations.files import file_sha256, read_json, write_sealed

__all__ = [
    "CHECKSUMS",
    "damage",
    "has_checksums",
    "listed",
    "require_unchanged",
    "write_checksums",
]

CHECKSUMS = "checksums.json"

_THREADS = 8
"""Files hashed side by side: hashing releases the interpreter."""

Chosen = Callable[[str], bool]
"""Returns whether to read the file of this name below the folder."""


def write_checksums(folder: Path, *, leave_out: str | None = None) -> None:
    """Record size and SHA-256 of every file below ``folder``.

    Args:
        folder: The folder.
        leave_out: A folder inside it whose files come and go.
    """
    names = [
        name
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and (name := path.relative_to(folder).as_posix()) != CHECKSUMS
        and not (leave_out and name.startswith(f"{leave_out}/"))
        and not path.name.startswith(".")
    ]
    with ThreadPoolExecutor(_threads()) as pool:
        digests = list(pool.map(lambda name: file_sha256(folder / name), names))
    sizes = [(folder / name).stat().st_size for name in names]
    files = {n: [size, sha] for n, size, sha in zip(names, sizes, digests, strict=True)}
    write_sealed(folder / CHECKSUMS, {"files": files})


def has_checksums(folder: Path) -> bool:
    """Return whether checksums of ``folder`` were recorded."""
    return os.path.lexists(folder / CHECKSUMS)


def listed(folder: Path) -> dict[str, tuple[int, str]]:
    """Return name → (size in bytes, SHA-256) of the recorded files; empty if none are recorded.

    Raises:
        DamagedError: the record itself is damaged, or cannot be read.
    """
    path = folder / CHECKSUMS
    if not os.path.lexists(path):
        return {}
    try:
        files = read_json(path)["files"].items()
        return {name: (int(size), str(sha)) for name, (size, sha) in files}
    except DamagedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            Problem(str(path), "damaged: not a list of checksums", found=error)
        ) from error


def damage(folder: Path, chosen: Chosen = lambda name: True) -> list[str]:
    """Return the faults of the files of ``folder``, one short text for each; empty if no checksums exist.

    Args:
        folder: The folder.
        chosen: Which of its files to read; by default all.
    """
    try:
        files = {name: entry for name, entry in listed(folder).items() if chosen(name)}
    except (OSError, DamagedError):
        return [f"{CHECKSUMS}: damaged"]
    if not (cut := list(_cut(folder, files))):
        with ThreadPoolExecutor(_threads()) as pool:
            found = pool.map(lambda name: _differs(folder / name, files[name][1]), files)
            return [f"{name}: {what}" for name, what in zip(files, found, strict=True) if what]
    return cut


def require_unchanged(folder: Path, do: str) -> None:
    """Refuse a folder of which a file is not what was written; one without checksums is taken as it is.

    Args:
        folder: The folder.
        do: What to do, for the message.

    Raises:
        DamagedError: each file that is missing, or is not what was written.
    """
    if has_checksums(folder) and (found := damage(folder)):
        raise DamagedError(
            Problem(str(folder), "damaged: not what was written", found="; ".join(found), do=do)
        )


def _cut(folder: Path, files: dict[str, tuple[int, str]]) -> Iterator[str]:
    for name, (size, _) in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name}: missing"
        elif (found := path.stat().st_size) != size:
            yield f"{name}: {found:,} bytes, not {size:,}"


def _differs(path: Path, digest: str) -> str | None:
    try:
        return None if file_sha256(path) == digest else "not what was written"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _threads() -> int:
    return max(1, min(_THREADS, len(os.sched_getaffinity(0))))
