"""Whole-file checksums of token stores and item files, made once for each state of a file.

    data/<tokenizer>/.<source>.verified.json     {"train/00000_….ds": [size, mtime in ns, sha256]}
    data/.benchmarks.verified.json               {"arc_easy.jsonl": …}

Reading a store whole at every start would cost a second a gigabyte. A file whose size and time of
change are those of an entry is not read again; one that was copied, moved or changed is. ``prepare``
enters its own files, which it has just read, so that a fresh store costs nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ablations.files import file_sha256, read_json, write_sealed

__all__ = ["RECORDED_ITEMS", "cache_file", "digests", "note_verified", "unlike"]

RECORDED_ITEMS = "checksums.json"
"""Checksums of the item files of ``data/benchmarks`` when they were made: {"files": {name: sha256}}."""

Entry = tuple[int, int, str]
"""Size in bytes, time of change in nanoseconds, SHA-256 (hex)."""

_seen: dict[tuple[Path, str], dict[str, Entry]] = {}
"""Checksums that this process has read, for stores on a disk that takes no file beside them."""
_seen_lock = threading.Lock()


def cache_file(folder: Path) -> Path:
    """Return the file with the checksums of the store ``folder``."""
    folder = folder.absolute()
    return folder.with_name(f".{folder.name}.verified.json")


def unlike(
    folder: Path,
    expected: Mapping[str, str],
    *,
    only: Collection[str] | None = None,
    anew: bool = False,
) -> list[str]:
    """Names of the files whose content is not the expected one.

    Args:
        folder: The store.
        expected: Name below ``folder`` → SHA-256 (hex). An empty one is unknown: the first content
            that is seen is taken for the right one from then on.
        only: Names to look at; by default all.
        anew: Read every file, whatever was read before.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    store = _name(expected)
    with _seen_lock:
        known = {**_stored(folder, store), **_seen.get((folder.absolute(), store), {})}
    found: dict[str, Entry] = {}
    wrong = []
    for name, digest in expected.items():
        if only is not None and name not in only:
            continue
        size, changed = _state(folder / name)
        before = known.get(name)
        if before is not None and before[:2] == (size, changed) and not anew:
            entry = before
        else:
            entry = (size, changed, file_sha256(folder / name))
        right = digest or (before[2] if before is not None else entry[2])
        if entry[2] == right:
            found[name] = entry
        else:
            wrong.append(name)
    if any(known.get(name) != entry for name, entry in found.items()):
        _keep(folder, store, {**known, **found})
    return wrong


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Name → SHA-256 (hex) of those files of ``folder`` that are there; each state is read once.

    Raises:
        OSError: a file is there and cannot be read.
    """
    with _seen_lock:
        known = {**_stored(folder, ""), **_seen.get((folder.absolute(), ""), {})}
    found: dict[str, Entry] = {}
    for name in names:
        if not (folder / name).is_file():
            continue
        size, changed = _state(folder / name)
        before = known.get(name)
        same = before is not None and before[:2] == (size, changed)
        found[name] = (
            before if before is not None and same else (size, changed, file_sha256(folder / name))
        )
    if any(known.get(name) != entry for name, entry in found.items()):
        _keep(folder, "", {**known, **found})
    return {name: entry[2] for name, entry in found.items()}


def note_verified(folder: Path) -> None:
    """Enter the files of a store that was just written, by the checksums of its manifest."""
    from ablations.data.manifest import StoreManifest

    expected = StoreManifest.read(folder).checksums()
    entries = {name: (*_state(folder / name), sha) for name, sha in expected.items() if sha}
    _keep(folder, _name(expected), entries)


def _name(expected: Mapping[str, str]) -> str:
    """Return a key that distinguishes a store from another one in the same folder."""
    return hashlib.sha256(repr(sorted(expected.items())).encode()).hexdigest()[:16]


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _stored(folder: Path, store: str) -> dict[str, Entry]:
    """Return the entries on disk; none where the file is missing, damaged or another store's."""
    try:
        content = read_json(cache_file(folder))
        if content["store"] != store:
            return {}
        entries = content["files"].items()
        return {name: (int(size), int(at), str(sha)) for name, (size, at, sha) in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(folder: Path, store: str, entries: Mapping[str, Entry]) -> None:
    with _seen_lock:
        _seen[folder.absolute(), store] = dict(entries)
    content = {"store": store, "files": {name: list(entry) for name, entry in entries.items()}}
    with contextlib.suppress(OSError):  # a store on a read-only disk
        write_sealed(cache_file(folder), content)
