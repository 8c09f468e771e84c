"""Held-out documents of a store as items: those that are scored are read, not the whole file.

    data/<tokenizer>/.<source>.heldout.npy     size and time of change of heldout.jsonl, a checksum, then the
                                               byte at which each item begins, in the fixed random order

A run scores ``evaluation.heldout_max_items`` documents of each source, the first in that order. The first run
reads the file whole and leaves the order beside the store; those after it read as many rows as they score.
For 3 GB of held-out text that is a few megabytes. An order of another state of the file is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.manifest import HELDOUT, MANIFEST, StoreManifest
from ablations.data.verified import unlike
from ablations.errors import DataError, Problem
from ablations.evaluation.dataset_readers import Item
from ablations.evaluation.item_lines import item_row, rank
from ablations.files import replacing

__all__ = ["heldout_items", "order_file"]

_HEAD = 3
"""Numbers before the places: size and time of change of the file, and a checksum of the places."""


def order_file(store: Path) -> Path:
    """Return the file with the order of a store's held-out documents."""
    store = store.absolute()
    return store.with_name(f".{store.name}.heldout.npy")


def heldout_items(source: str, store: Path, chars: int | None, limit: int | None) -> list[Item]:
    """Return the held-out documents of a store, in the order of the file.

    Args:
        source: Name of the source, for messages.
        store: Its store.
        chars: Characters read of each document, from its beginning; None = all.
        limit: The first so many in the order of :func:`rank`; None = all.

    Raises:
        DataError: the file is missing, empty, damaged, or not the one that the manifest describes.
    """
    path = store / HELDOUT
    if not path.exists():
        raise DataError(
            Problem(str(path), "no held-out documents", do=f"run `ablate prepare` for {source}")
        )
    if (store / MANIFEST).exists() and unlike(
        store, StoreManifest.read(store).checksums(), only=(HELDOUT,)
    ):
        raise DataError(
            Problem(
                str(path),
                "not the documents that were held out: their checksum differs from the manifest's",
                do="prepare the source again with prepare.force=true",
            )
        )
    state = _state(path)
    places = _places(store, state, limit) if limit is not None else None
    if places is not None:
        return [item for _, item in _read(path, chars, places.tolist())]
    found = list(_read(path, chars))
    if not found:
        raise DataError(Problem(str(path), "no held-out documents", found="an empty file"))
    items = [item for _, item in found]
    if limit is None or len(items) <= limit:
        return items
    ordered = sorted(found, key=lambda one: rank(one[1]))
    if len({item["id"] for item in items}) == len(items) and state == _state(path):
        _keep(store, state, [place for place, _ in ordered])
    last = rank(ordered[limit - 1][1])
    return [item for item in items if rank(item) <= last]


def _read(
    path: Path, chars: int | None, places: list[int] | None = None
) -> Iterator[tuple[int, Item]]:
    """Yield the first byte of each item, and the item; of the whole file, or of the rows at ``places``."""
    with path.open("rb") as stream:
        for number, line in enumerate(_lines(stream, places), start=1):
            place, content = line
            where = f"{path}:{number}" if places is None else f"{path}, byte {place}"
            row = item_row(content, where)
            if "choices" in row:
                yield place, row
            elif row["text"]:
                yield place, {"id": str(row["id"]), "query": row["text"][:chars]}


def _lines(stream: Any, places: list[int] | None) -> Iterator[tuple[int, bytes]]:
    place = 0
    for line in stream if places is None else ():
        yield place, line
        place += len(line)
    for place in places or ():
        stream.seek(place)
        yield place, stream.readline()


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _places(store: Path, state: tuple[int, int], limit: int) -> npt.NDArray[np.int64] | None:
    """Return the places of the first ``limit`` items in the file's order; None if they are not known."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept = np.load(order_file(store))
        places = kept[_HEAD:]
        if kept.dtype == np.int64 and kept[:_HEAD].tolist() == [*state, _checksum(places)]:
            return np.sort(places[:limit])
    return None


def _checksum(places: npt.NDArray[np.int64]) -> int:
    digest = hashlib.sha256(places.tobytes()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _keep(store: Path, state: tuple[int, int], places: list[int]) -> None:
    ordered = np.array(places, dtype=np.int64)
    content = np.concatenate([np.array([*state, _checksum(ordered)], dtype=np.int64), ordered])
    # A store on a read-only disk is read whole by every run.
    with (
        contextlib.suppress(OSError),
        replacing(order_file(store)) as temporary,
        temporary.open("wb") as stream,
    ):
        np.save(stream, content)
