"""The token store: datatrove's files, memory-mapped, read in windows of sequence length + 1.

    data/<tokenizer>/<source>/
        manifest.json                 counts, checksums, tokenizer (ablations.data.manifest)
        train/00000_….ds              tokens, uint16 or uint32, an end-of-document token after each
        train/00000_….ds.index        uint64 document ends
        heldout.jsonl                 {"id", "text"}: documents kept out for bits per byte

A window never spans two files. Windows of a file are ``[k (L+1), (k+1) (L+1))``, its tail is
dropped, so a file is a matrix of windows and a batch is a gather of rows::

    store = TokenStore.open(Path("data/demo_bpe/wiki"))
    tokens = store.read(np.array([0, 17, 3]), sequence_length=64)     # uint16 [3, 65]

``train/`` alone is what datatrove's ``DatatroveFolderDataset`` and nanotron's main branch read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.data.manifest import (
    HELDOUT,
    HELDOUT_PICTURES,
    PICTURES,
    REFS,
    REFS_INDEX,
    TRAIN,
    StoreFile,
    StoreManifest,
    edges_sha256,
)
from ablations.data.verified import unlike
from ablations.errors import DataError, Problem

__all__ = ["TokenStore"]

_INDEX_ENTRY_BYTES = 8
_REF_BYTES = 4

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


class TokenStore:
    """A prepared source. Make one with :meth:`open`; it holds no more than memory maps."""

    def __init__(self, folder: Path, manifest: StoreManifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.dtype = np.dtype("<u2" if manifest.token_bytes == 2 else "<u4")
        self._maps: list[npt.NDArray[Any]] = [
            np.memmap(folder / TRAIN / file.name, dtype=self.dtype, mode="r").view(np.ndarray)
            for file in manifest.files
            if file.tokens
        ]
        self._views: dict[int, tuple[list[npt.NDArray[Any]], npt.NDArray[np.int64]]] = {}

    @classmethod
    def open(cls, folder: Path, *, full: bool = False) -> TokenStore:
        """Check a store and map it.

        Sizes, edges and document counts are compared at every opening, the checksums of whole files
        once for each state of a file (:mod:`ablations.data.verified`).

        Args:
            folder: The store's folder.
            full: Read every byte again, whatever was compared before.

        Raises:
            DataError: a file that is missing, cut, swapped or foreign; every one by name.
        """
        manifest = StoreManifest.read(Path(folder))
        problems = _file_problems(Path(folder), manifest, full)
        if problems:
            raise DataError(problems)
        return cls(Path(folder), manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder, self.manifest)

    @property
    def num_tokens(self) -> int:
        """Training tokens, the tails that no window holds included."""
        return self.manifest.tokens

    def num_windows(self, sequence_length: int) -> int:
        """Windows of ``sequence_length + 1`` tokens."""
        return int(self._windows(sequence_length)[1][-1])

    def read(self, windows: npt.ArrayLike, sequence_length: int) -> Tokens:
        """Tokens [n, sequence_length + 1] of ``windows``, in the store's own type.

        Raises:
            IndexError: a window outside ``0..num_windows - 1``.
        """
        index = np.asarray(windows, dtype=np.int64)
        out = np.empty((index.size, sequence_length + 1), dtype=self.dtype)
        self.read_into(out, index, sequence_length)
        return out

    def read_into(
        self,
        out: npt.NDArray[Any],
        windows: npt.ArrayLike,
        sequence_length: int,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Gather ``windows`` into ``out`` (its rows ``rows``), widening on the way.

        One pass: no intermediate array in the store's own type, so a batch of several sources is
        filled without a copy of its own for each.
        """
        index = np.asarray(windows, dtype=np.int64)
        if not index.size:
            return
        views, ends = self._windows(sequence_length)
        if int(index.min()) < 0 or int(index.max()) >= int(ends[-1]):
            raise IndexError(f"window outside 0..{int(ends[-1]) - 1} of {self.folder}")
        target = np.arange(index.size) if rows is None else rows
        if len(views) == 1:
            _gather(views[0], index, out, None if rows is None else target)
            return
        # searchsorted over file ends: an empty file has the same end as the one before it.
        which = np.searchsorted(ends, index, side="right") - 1
        for file in sorted(set(which.tolist())):
            mine = np.flatnonzero(which == file)
            _gather(views[file], index[mine] - ends[file], out, target[mine])

    def documents(self, limit: int | None = None) -> list[npt.NDArray[Any]]:
        """Return the first ``limit`` training documents, without their end tokens."""
        found: list[npt.NDArray[Any]] = []
        named = [file for file in self.manifest.files if file.tokens]
        for file, tokens in zip(named, self._maps, strict=True):
            ends = np.fromfile(self.folder / TRAIN / f"{file.name}.index", dtype="<u8")
            starts = np.concatenate([[0], ends[:-1].astype(np.int64)])
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                if limit is not None and len(found) >= limit:
                    return found
                found.append(tokens[int(start) : int(end) - 1])
        return found

    def _windows(
        self, sequence_length: int
    ) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.int64]]:
        """Return each file as a matrix of windows, and [0, windows up to each file's end]."""
        if sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, found {sequence_length}")
        if sequence_length not in self._views:
            width = sequence_length + 1
            views = [m[: len(m) // width * width].reshape(-1, width) for m in self._maps]
            ends = np.cumsum([0, *(len(view) for view in views)], dtype=np.int64)
            self._views[sequence_length] = (views, ends)
        return self._views[sequence_length]


def _gather(
    view: npt.NDArray[Any],
    index: npt.NDArray[np.int64],
    out: npt.NDArray[Any],
    rows: npt.NDArray[np.int64] | None,
) -> None:
    # A row is one contiguous copy. `take` with mode="clip" skips numpy's buffering of `out`
    # (the indices are checked already) and beats fancy indexing by a third at 1,025 tokens.
    if rows is None and out.dtype == view.dtype:
        np.take(view, index, axis=0, out=out, mode="clip")
    elif rows is None:
        out[...] = view[index]
    else:
        out[rows] = view[index]


def _file_problems(folder: Path, manifest: StoreManifest, full: bool) -> list[Problem]:
    known = {file.name for file in manifest.files}
    train = folder / TRAIN
    strangers = sorted(p for p in train.glob("*.ds") if p.name not in known)
    problems = [
        Problem(
            str(path),
            "a token file that the manifest does not know",
            do="remove it or prepare again",
        )
        for path in strangers
    ]
    for file in manifest.files:
        problem = _readable(_token_file_problem, train / file.name, file, manifest)
        if problem:
            problems.append(problem)
    aside = [HELDOUT, *([HELDOUT_PICTURES] if manifest.heldout.pictures_sha256 else [])]
    for name in aside:
        if not (folder / name).is_file():
            problems.append(Problem(str(folder / name), "missing", do=_AGAIN))
    return problems or _content_problems(folder, manifest, full)


_AGAIN = "prepare the source again with prepare.force=true"


def _readable(check: Callable[..., Problem | None], path: Path, *rest: Any) -> Problem | None:
    """Return the problem that ``check`` finds, or that it cannot read the file."""
    try:
        return check(path, *rest)
    except OSError as error:
        return Problem(str(path), "cannot be read", found=error.strerror, do="mend its permissions")


def _content_problems(folder: Path, manifest: StoreManifest, full: bool) -> list[Problem]:
    try:
        wrong = unlike(folder, manifest.checksums(), anew=full)
    except OSError as error:
        where = str(error.filename or folder)
        return [Problem(where, "cannot be read", found=error.strerror, do="mend its permissions")]
    return [_swapped(folder / name) for name in wrong]


def _swapped(path: Path) -> Problem:
    return Problem(
        str(path),
        "not the file that was prepared: its checksum is not the manifest's",
        do="it was swapped or damaged; " + _AGAIN,
    )


def _token_file_problem(path: Path, file: StoreFile, manifest: StoreManifest) -> Problem | None:
    index = path.with_name(path.name + ".index")
    parts = [
        (path, file.tokens * manifest.token_bytes),
        (index, file.documents * _INDEX_ENTRY_BYTES),
    ]
    if file.loss_sha256:
        parts.append((path.with_name(path.name + ".loss"), file.tokens))
    if file.pictures_sha256 and manifest.rows and (side := manifest.rows.picture_size):
        sizes = {
            PICTURES: file.pictures * 3 * side * side,
            REFS: file.placeholders * _REF_BYTES,
            REFS_INDEX: file.documents * _INDEX_ENTRY_BYTES,
        }
        parts += [(path.with_name(path.name + ending), size) for ending, size in sizes.items()]
    for part, expected in parts:
        if not part.is_file():
            return Problem(str(part), "missing", do=_AGAIN)
        size = part.stat().st_size
        if size != expected:
            what = "truncated" if size < expected else "longer than its manifest says"
            return Problem(
                str(part), what, found=f"{size:,} bytes", allowed=f"{expected:,} bytes", do=_AGAIN
            )
    if edges_sha256(path) != file.edges_sha256:
        return _swapped(path)
    if file.documents and (end := _last_document_end(index)) != file.tokens:
        return Problem(
            str(index),
            "its last document does not end where the tokens do",
            found=f"{end:,}",
            allowed=f"{file.tokens:,}",
            do=_AGAIN,
        )
    return None


def _last_document_end(index: Path) -> int:
    """Return the last entry of an index: the only check of one in stores of an older version."""
    with index.open("rb") as stream:
        stream.seek(-_INDEX_ENTRY_BYTES, os.SEEK_END)
        return int.from_bytes(stream.read(_INDEX_ENTRY_BYTES), "little")
