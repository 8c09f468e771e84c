"""Prepared rows, memory-mapped.

    data/<tokenizer>/<source>/
        manifest.json          as of a token store, and ``rows``: counts of what was kept, cut and supervised
        train/00000_rows.ds    tokens of all rows, one after the other
        train/….ds.index       uint64 row ends
        train/….ds.loss        one byte for each token: 1 = part of an answer
        train/….ds.pictures    different pictures of the rows: uint8 [pictures, 3, S, S]
        train/….ds.refs        uint32 number of the picture of each ``<image>`` token, in order
        train/….ds.refs.index  uint64 end of each row in those
        heldout.jsonl          items of the held-out rows (docs/benchmark_items.md)
        heldout.pictures       uint8 [pictures, 3, S, S], by the numbers in an item's ``pictures``

Only a source of pictures has the files of pictures. In tokens a picture is one ``<image>``: how many a model
makes of it does not concern the store. A sample of preferences is two rows that follow each other, the
chosen answer's first::

    store = RowStore.open(Path("data/demo_chat/chat_turns"))
    (row,) = store.read(17)                     # tokens, mask and pictures
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.manifest import (
    HELDOUT_PICTURES,
    PICTURES,
    REFS,
    REFS_INDEX,
    TRAIN,
    StoreManifest,
)
from ablations.data.rows.rendering import NO_PICTURES, Row
from ablations.data.rows.row_specs import RowKind
from ablations.data.store import TokenStore
from ablations.errors import DataError, Problem

__all__ = ["Pictures", "RowStore", "heldout_pictures"]

Ints = npt.NDArray[np.int64]

Pictures = npt.NDArray[np.uint8]
"""Pictures [n, 3, S, S], red, green, blue from 0 to 255."""


class RowStore:
    """A prepared source of rows. Make one with :meth:`open`; it holds no more than memory maps."""

    def __init__(self, folder: Path, manifest: StoreManifest) -> None:
        if manifest.rows is None:
            raise DataError(
                Problem(
                    str(folder),
                    "holds plain text, not rows",
                    do="give the source rows (conf/source), or train it with method=pretrain",
                )
            )
        self.folder, self.manifest, self.counts = folder, manifest, manifest.rows
        dtype = np.dtype("<u2" if manifest.token_bytes == 2 else "<u4")
        files = [file for file in manifest.files if file.tokens]
        train = folder / TRAIN
        self._tokens = [_mapped(train / file.name, dtype) for file in files]
        self._masks = [_mapped(train / f"{file.name}.loss", np.dtype(bool)) for file in files]
        self._ends = [
            np.fromfile(train / f"{file.name}.index", dtype="<u8").astype(np.int64)
            for file in files
        ]
        self._first = np.cumsum([0, *(ends.size for ends in self._ends)])
        self._shown = [_Shown(train / file.name, self.counts.picture_size) for file in files]

    @classmethod
    def open(cls, folder: Path, *, full: bool = False) -> RowStore:
        """Check a store as :meth:`TokenStore.open` does, and map it.

        Raises:
            DataError: a file is missing, cut, swapped or foreign, or the store holds plain text.
        """
        return cls(Path(folder), TokenStore.open(folder, full=full).manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.manifest)

    @property
    def kind(self) -> RowKind:
        """Return what a sample is."""
        return self.counts.kind

    def __len__(self) -> int:
        return self.counts.rows

    def read(self, sample: int) -> tuple[Row, ...]:
        """Return the row of a conversation, or the rows of a pair, chosen before rejected.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= sample < len(self):
            raise IndexError(f"sample outside 0..{len(self) - 1} of {self.folder}")
        width = self.counts.width
        return tuple(self._row(sample * width + place) for place in range(width))

    def _row(self, document: int) -> Row:
        file = int(np.searchsorted(self._first, document, side="right")) - 1
        place = document - int(self._first[file])
        ends = self._ends[file]
        start, end = int(ends[place - 1]) if place else 0, int(ends[place])
        tokens = self._tokens[file][start:end].astype(np.uint32)
        return Row(tokens, np.array(self._masks[file][start:end]), self._shown[file].of(place))

    def shown(self) -> Ints:
        """Return the pictures of each sample, [samples]."""
        documents = np.concatenate(
            [one.counts(ends.size) for one, ends in zip(self._shown, self._ends, strict=True)]
        )
        total: Ints = documents.reshape(-1, self.counts.width).sum(axis=1)
        return total

    def lengths(self, *, supervised: bool) -> Ints:
        """Return the tokens of each sample, [samples]; of answers alone where ``supervised``."""
        parts: list[Ints] = []
        for ends, masks in zip(self._ends, self._masks, strict=True):
            if supervised:
                starts = np.concatenate([[0], ends[:-1]])
                parts.append(np.add.reduceat(masks, starts, dtype=np.int64))
            else:
                parts.append(np.diff(ends, prepend=0))
        documents = np.concatenate(parts)
        total: Ints = documents.reshape(-1, self.counts.width).sum(axis=1)
        return total


class _Shown:
    """Pictures of the rows of one file; of a source without pictures, none."""

    def __init__(self, file: Path, side: int | None) -> None:
        self._ends: Ints | None = None
        if side is None:
            return
        self._ends = _beside(file, REFS_INDEX, np.dtype("<u8")).astype(np.int64)
        self._refs = _beside(file, REFS, np.dtype("<u4"))
        self._pictures = _beside(file, PICTURES, np.dtype(np.uint8)).reshape(-1, 3, side, side)

    def of(self, place: int) -> Pictures:
        """Return the pictures of the row at ``place`` of the file."""
        if self._ends is None:
            return NO_PICTURES
        start = int(self._ends[place - 1]) if place else 0
        found: Pictures = self._pictures[self._refs[start : int(self._ends[place])]]
        return found

    def counts(self, rows: int) -> Ints:
        """Return the pictures of each of the file's rows."""
        if self._ends is None:
            return np.zeros(rows, dtype=np.int64)
        return np.diff(self._ends, prepend=0)


def heldout_pictures(folder: Path) -> Pictures:
    """Return the pictures of a store's held-out items, [pictures, 3, S, S], memory-mapped.

    Raises:
        DataError: there is no store, it holds no pictures, or their file is missing or cut.
    """
    manifest = StoreManifest.read(folder)
    side = manifest.rows.picture_size if manifest.rows else None
    if side is None:
        raise DataError(Problem(str(folder), "holds no pictures", do="take a source of pictures"))
    path = folder / HELDOUT_PICTURES
    shape = (manifest.heldout.pictures, 3, side, side)
    size = path.stat().st_size if path.is_file() else None
    if size != math.prod(shape):
        raise DataError(
            Problem(
                str(path),
                "missing" if size is None else "not of the size that its manifest states",
                found=None if size is None else f"{size:,} bytes",
                allowed=f"{math.prod(shape):,} bytes",
                do="prepare the source again with prepare.force=true",
            )
        )
    return _mapped(path, np.dtype(np.uint8)).reshape(shape)


def _beside(file: Path, ending: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return _mapped(file.with_name(file.name + ending), dtype)


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if not path.stat().st_size:  # no file of no bytes can be mapped
        return np.zeros(0, dtype=dtype)
    mapped: npt.NDArray[Any] = np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
    return mapped
