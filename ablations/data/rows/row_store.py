"""Prepared rows, memory-mapped.

    data/<tokenizer>/<source>/
        manifest.json          as of a token store, and ``rows``: counts of what was kept, cut and supervised
        train/00000_rows.ds    tokens of all rows, one after the other
        train/….ds.index       uint64 row ends
        train/….ds.loss        one byte for each token: 1 = part of an answer
        heldout.jsonl          items of the held-out rows (docs/benchmark_items.md)

A sample of preferences is two rows that follow each other, the chosen answer's first::

    store = RowStore.open(Path("data/demo_chat/chat_turns"))
    (row,) = store.read(17)                     # tokens and mask
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.manifest import TRAIN, StoreManifest
from ablations.data.rows.rendering import Row
from ablations.data.rows.row_specs import RowKind
from ablations.data.store import TokenStore
from ablations.errors import DataError, Problem

__all__ = ["RowStore"]

Ints = npt.NDArray[np.int64]


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
        return Row(tokens, np.array(self._masks[file][start:end]))

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


def _mapped(path: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    mapped: npt.NDArray[Any] = np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)
    return mapped
