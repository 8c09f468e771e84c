"""Files that are written whole or not at all, and files that only grow.

A reader never sees half a file: text goes to a temporary sibling, reaches the disk, and takes its
name by one rename. A line file may end in a torn line when its writer was killed; readers drop it,
and the next writer cuts it off before it appends.

A sealed JSON object carries a checksum of its content under the key ``content_sha256``. Readers compare it
and take it off; an object without one was written by an older version and is taken as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablations.errors import DamagedError, Problem
from ablations.temporary import claimed_file

__all__ = [
    "LineTail",
    "append_json_line",
    "file_sha256",
    "finite_or_none",
    "free_bytes",
    "is_intact",
    "mend_lines",
    "read_json",
    "read_json_lines",
    "replace_folder",
    "replacing",
    "restore_folder",
    "sealed",
    "sync_folder",
    "unsealed",
    "write_bytes",
    "write_json",
    "write_sealed",
    "write_text",
]

_SEAL = "content_sha256"
_SEAL_DIGITS = 16


def finite_or_none(value: float) -> float | None:
    """Return the number, or None if it is NaN or infinite: unknown numbers are null on disk.

    A whole number stays one; a number of numpy becomes Python's.
    """
    if not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(value)


class LineTail:
    """Reader of the complete lines that another process appends to a file.

    Args:
        file: The file. It need not exist yet.
        offset: First byte that is read.
    """

    def __init__(self, file: Path, offset: int = 0) -> None:
        self._file, self._offset = file, offset

    def read(self) -> list[str]:
        """Return each complete line that was added since the last call."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as stream:
            stream.seek(self._offset)
            block = stream.read()
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode().splitlines()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a sibling to write to, which takes the name ``path`` when the block has ended well.

    The old file stands until the new one is on disk. A block that raises leaves nothing behind; what a
    killed process leaves is taken over by the next writer of ``path``.
    """
    with claimed_file(path) as temporary:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)


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


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """:func:`write_json` of an object with a checksum of its content, which readers compare."""
    write_json(path, sealed(value))


def write_once(path: Path, value: Mapping[str, Any]) -> None:
    """:func:`write_sealed` unless ``path`` exists; of several writers at once, the first one's file stays."""
    if os.path.lexists(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with claimed_file(path) as temporary:
        temporary.write_text(json.dumps(sealed(value), indent=1, ensure_ascii=False) + "\n")
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as plain values with its checksum: that of the content as a reader will see it."""
    plain: dict[str, Any] = json.loads(json.dumps(value, ensure_ascii=False))
    plain.pop(_SEAL, None)
    return {**plain, _SEAL: _digest(plain)}


def _digest(plain: Mapping[str, Any]) -> str:
    return _digest_of(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode())


_FLOAT = re.compile(rb"(?<=[:,\[])-?(?:[0-9.]+e[-+]?[0-9]+|0\.0000[0-9]+)(?=[,\]}])")
"""Numbers that orjson may write otherwise than Python does, as 1e-8 for 1e-08."""


def _has_digest(plain: Mapping[str, Any], digest: str) -> bool:
    """Return whether ``digest`` is that of the content; in a fifth of :func:`_digest`'s time if it is.

    orjson writes the same bytes, but for texts beyond ASCII and certain numbers: if its digest is another,
    Python's own writer decides.
    """
    import orjson

    try:
        content = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return _digest(plain) == digest
    if _digest_of(content) == digest:
        return True
    numbers = _FLOAT.sub(lambda found: repr(float(found[0])).encode(), content)
    return _digest_of(numbers) == digest or _digest(plain) == digest


def _digest_of(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()[:_SEAL_DIGITS]


def unsealed(value: Any, where: str) -> Any:
    """Return a JSON value without its checksum, which is compared first.

    Args:
        value: The value as parsed.
        where: The file, or the file and the line, for the message.

    Raises:
        DamagedError: the content is not the one that the checksum was made of.
    """
    if not isinstance(value, dict) or _SEAL not in value:
        return value
    plain = {key: content for key, content in value.items() if key != _SEAL}
    if not _has_digest(plain, value[_SEAL]):
        raise _damaged(where)
    return plain


def _damaged(where: str) -> DamagedError:
    return DamagedError(
        Problem(
            where,
            "damaged: its content is not what was written",
            do="restore it from a copy, or move it away",
        )
    )


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``; the checksum of a sealed object is compared and taken off.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: it cannot be read, holds no JSON, or an object that is not the one that was sealed.
    """
    with _readable(path), open(path, "rb", buffering=0) as stream:
        content = stream.read()
    return unsealed(_parsed(content, str(path)), str(path))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name a file that exists but cannot be read, and the reason."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(
            Problem(
                str(path),
                "cannot be read",
                found=error.strerror,
                do="mend its permissions, or restore it from a copy",
            )
        ) from error


def _parsed(content: bytes, where: str) -> Any:
    import orjson

    digits = content.translate(_EVERY_DIGIT_0)
    if not any(integer in digits for integer in _BEYOND_64_BITS):  # orjson makes a float of one
        with contextlib.suppress(ValueError):  # NaN and a few more that Python's parser takes
            return orjson.loads(content)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            Problem(
                where,
                "damaged: not JSON",
                found=error,
                do="restore it from a copy, or move it away",
            )
        ) from error


_EVERY_DIGIT_0 = bytes.maketrans(b"123456789", b"0" * 9)
_BEYOND_64_BITS = (b"0" * 20, b"-" + b"0" * 19)
"""Digits that an integer beyond 64 bits has at least; a few floats have as many."""


def append_json_line(path: Path, row: Mapping[str, Any], *, seal: bool = False) -> None:
    """Append one row in one write, so that rows of several processes do not mix.

    Args:
        path: The line file.
        row: The row.
        seal: Add a checksum of the row, which :func:`read_json_lines` compares.
    """
    line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    if seal:
        start = line[:-1] + (b", " if row else b"")
        line = start + _SEAL_MARK + _digest_of(start).encode() + b'"}'
    with path.open("ab", buffering=0) as stream:
        stream.write(line + b"\n")


_SEAL_MARK = f'"{_SEAL}": "'.encode()


def is_intact(line: bytes | bytearray) -> bool:
    """Return whether a line of a line file matches its checksum; True if it carries none.

    The checksum is that of the bytes before it: a row need not be parsed to be compared, which
    keeps reading thousands of them cheap.
    """
    place = line.rfind(_SEAL_MARK)
    if place < 0:
        return True
    return line[place + len(_SEAL_MARK) :].rstrip() == _digest_of(line[:place]).encode() + b'"}'


def read_json_lines(path: Path, *, needs: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``path``; nothing where there is no file; a torn last line is left out.

    Args:
        path: The line file.
        needs: A key that each row has to have.

    Raises:
        DamagedError: the file cannot be read; a whole line is no JSON object, not the row that was
            sealed, or lacks the key.
    """
    if not os.path.lexists(path):
        return
    with _readable(path), path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.endswith(b"\n"):
                row = _row(line, f"{path}:{number}")
                if needs is not None and needs not in row:
                    raise _damaged(f"{path}:{number}")
                yield row


def _row(line: bytes, where: str) -> dict[str, Any]:
    row = _parsed(line, where)
    if not isinstance(row, dict):
        raise _damaged(where)
    if _SEAL in row:
        if not is_intact(line):
            raise _damaged(where)
        del row[_SEAL]
    return row


def mend_lines(path: Path) -> None:
    """Cut a torn last line off, so that the next row does not grow onto it.

    Raises:
        DamagedError: the file is there and cannot be read or written.
    """
    if not os.path.lexists(path):
        return
    with _readable(path), path.open("rb+") as stream:
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


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a whole file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def replace_folder(new: Path, folder: Path) -> None:
    """Give the folder ``new`` the name ``folder``; one that is there steps aside and is removed after.

    A folder that is not empty cannot be replaced by one rename. A process that dies between the two
    renames leaves the old folder beside the name, where :func:`restore_folder` finds it.
    """
    old = _aside(folder)
    restore_folder(folder)
    while True:
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
            break
        except OSError:
            if not folder.exists():  # else a reader put the old one back between the two renames
                raise
    with contextlib.suppress(OSError):
        sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Put back what a killed :func:`replace_folder` had moved aside and not replaced."""
    if folder.exists():
        shutil.rmtree(_aside(folder), ignore_errors=True)
    else:
        # Nothing to put back, or another process is quicker: the caller finds a folder or none.
        with contextlib.suppress(OSError):
            _aside(folder).rename(folder)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")
