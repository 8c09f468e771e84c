"""Held-out items of a source of pictures, of all ranks: one file of items, and one of their pictures.

A rank decides about a row by its group alone and knows no other rank's rows. So a picture can come to stand
on both sides: rows that share one of several pictures, or whose stated groups differ. The last step knows
what all ranks train on, and leaves out the held-out rows that show any of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ablations.data.manifest import HELDOUT, HELDOUT_PICTURES, HeldOut
from ablations.data.rows.pictures import pixels_digest
from ablations.data.rows.rank_pictures import heldout_pictures_file, shown_file

__all__ = ["ROW_KEY", "SHOWN_KEY", "MergedItems", "answer_bytes", "merge_items"]

ROW_KEY, SHOWN_KEY = "row", "shown"
"""Keys of a rank's item that the merged one lacks: the number of its row, and hashes of what it shows."""


@dataclass(frozen=True, kw_only=True)
class MergedItems:
    """Held-out items of all ranks."""

    heldout: HeldOut
    rows: int
    """Rows that they come from."""
    left_out: int
    """Rows whose pictures are trained on."""


def answer_bytes(items: Sequence[dict[str, Any]]) -> int:
    """Return the UTF-8 bytes of the answers that are scored, of a pair the chosen one's."""
    return sum(len(item["choices"][0].encode()) for item in items)


def merge_items(partial: Path, parts: Sequence[Path], side: int) -> MergedItems:
    """Write ``heldout.jsonl`` and ``heldout.pictures`` of a store.

    Args:
        partial: Folder of the preparation.
        parts: The ranks' items, by rank.
        side: Pixels of a side.
    """
    trained = [np.load(shown_file(partial, rank)) for rank in range(len(parts))]
    rows = left_out = documents = size = 0
    with (
        _Hashed(partial / HELDOUT) as texts,
        _Hashed(partial / HELDOUT_PICTURES) as pictures,
    ):
        merged = _Merged(pictures, side)
        for rank, part in enumerate(parts):
            path = heldout_pictures_file(partial, rank)
            for items in _rows(part):
                if _any_in(items[0][SHOWN_KEY], trained):
                    left_out += 1
                    continue
                rows, documents = rows + 1, documents + len(items)
                size += answer_bytes(items)
                for item in items:
                    kept = {k: v for k, v in item.items() if k not in (ROW_KEY, SHOWN_KEY)}
                    kept["pictures"] = merged.numbers(path, item["pictures"])
                    texts.write((json.dumps(kept, ensure_ascii=False) + "\n").encode())
    return MergedItems(
        heldout=HeldOut(
            documents=documents,
            bytes=size,
            sha256=texts.sha256,
            pictures=merged.count,
            pictures_sha256=pictures.sha256,
        ),
        rows=rows,
        left_out=left_out,
    )


def _rows(part: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the items of each row of a rank."""
    with part.open(encoding="utf-8") as lines:
        read = (json.loads(line) for line in lines)
        for _, items in itertools.groupby(read, key=lambda item: item[ROW_KEY]):
            yield list(items)


def _any_in(hashes: Sequence[int], trained: Sequence[npt.NDArray[np.uint64]]) -> bool:
    asked = np.array(hashes, dtype=np.uint64)
    for known in trained:
        places = np.searchsorted(known, asked)
        inside = places < known.size
        if known.size and bool(np.any(known[places[inside]] == asked[inside])):
            return True
    return False


class _Merged:
    """Pictures of all ranks' items, each different one once."""

    def __init__(self, out: _Hashed, side: int) -> None:
        self._out, self._shape = out, (3, side, side)
        self._numbers: dict[bytes, int] = {}
        self._of_part: dict[tuple[Path, int], int] = {}

    @property
    def count(self) -> int:
        """Return the different pictures so far."""
        return len(self._numbers)

    def numbers(self, part: Path, numbers: Sequence[int]) -> list[int]:
        """Return the numbers of a rank's pictures in the merged file."""
        return [self._number(part, number) for number in numbers]

    def _number(self, part: Path, number: int) -> int:
        known = self._of_part.get((part, number))
        if known is None:
            size = int(np.prod(self._shape))
            with part.open("rb") as stream:
                stream.seek(number * size)
                content = stream.read(size)
            digest = pixels_digest(np.frombuffer(content, dtype=np.uint8).reshape(self._shape))
            if digest not in self._numbers:
                self._out.write(content)
                self._numbers[digest] = len(self._numbers)
            known = self._of_part[part, number] = self._numbers[digest]
        return known


class _Hashed:
    """File that is written once, with its checksum, and is on the disk when it is closed."""

    def __init__(self, path: Path) -> None:
        self._digest = hashlib.sha256()
        self._stream: IO[bytes] = path.open("wb")

    def __enter__(self) -> _Hashed:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def write(self, content: bytes) -> None:
        """Write and hash some bytes."""
        self._digest.update(content)
        self._stream.write(content)

    @property
    def sha256(self) -> str:
        """Return the checksum (hex) of what was written."""
        return self._digest.hexdigest()
