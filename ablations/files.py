"""Files that are written whole or not at all, and files that only grow.

A reader never sees half a file: text goes to a temporary sibling, reaches the disk, and takes its
name by one rename. A line file may end in a torn line when its writer was killed; readers drop it,
and the next writer cuts it off before it appends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "append_json_line",
    "free_bytes",
    "mend_lines",
    "read_json",
    "read_json_lines",
    "replacing",
    "sync_folder",
    "write_bytes",
    "write_json",
    "write_text",
]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A sibling to write to, which takes the name ``path`` when the block has ended well.

    The old file stands until the new one is on disk; a block that raises leaves nothing behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` by rename."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """:func:`write_text` of indented JSON; NaN is refused, since a missing number is null."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in ``path``."""
    return json.loads(path.read_bytes())


def append_json_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row in one write, so that rows of several processes do not mix."""
    line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab", buffering=0) as stream:
        stream.write(line.encode())


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of ``path``; nothing where there is no file; a torn last line is left out."""
    if not path.exists():
        return
    with path.open("rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                yield json.loads(line)


def mend_lines(path: Path) -> None:
    """Cut a torn last line off, so that the next row does not grow onto it."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 4096)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            stream.truncate(end)


def free_bytes(folder: Path) -> int:
    """Free space where ``folder`` is, or where it would be made."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
