"""Copy token files of a store as a stream, and check them at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ablations.data.manifest import TRAIN, StoreFile
from ablations.errors import DataError, Problem
from sweeps.exporters.export_plan import Source, TokensMode

__all__ = ["blocks", "document_ends", "place_file", "place_index", "store_file"]

BLOCK_BYTES = 1 << 22
"""Bytes in memory at once, 4 MiB: the memory of an export does not grow with its tokens."""


def store_file(source: Source, file: StoreFile) -> Path:
    """Return the path of a token file of a prepared source."""
    assert source.folder is not None
    return source.folder / TRAIN / file.name


def blocks(
    source: Source, file: StoreFile, *, multiple: int = 1, most: int | None = None
) -> Iterator[bytes]:
    """Yield the bytes of a token file in order, and compare its checksum at the end.

    Args:
        source: The source.
        file: One of its token files.
        multiple: Bytes; the length of each block but the last is a multiple of it.
        most: Largest length of a block in bytes, at least one multiple; None = :data:`BLOCK_BYTES`.

    Raises:
        DataError: the file is not the one that was prepared. It is raised after the last block, so
            callers must write into a temporary folder.
    """
    path, digest = store_file(source, file), hashlib.sha256()
    size = max(multiple, (most or BLOCK_BYTES) // multiple * multiple)
    with path.open("rb") as stream:
        while block := stream.read(size):
            digest.update(block)
            yield block
    if digest.hexdigest() != file.sha256:
        raise DataError(
            Problem(
                str(path),
                "not the file that was prepared: its checksum is not the manifest's",
                do="it was swapped or damaged; prepare the source again",
            )
        )


def place_file(source: Source, file: StoreFile, target: Path, mode: TokensMode) -> None:
    """Copy a token file to ``target``, or link to it.

    Raises:
        DataError: see :func:`blocks`.
    """
    if mode == "link":
        target.symlink_to(store_file(source, file).resolve())
        return
    with target.open("wb") as stream:
        for block in blocks(source, file):
            stream.write(block)


def place_index(source: Source, file: StoreFile, target: Path) -> None:
    """Check a token file's ``.index`` and write it to ``target``.

    Raises:
        DataError: see :func:`document_ends`.
    """
    with target.open("wb") as stream:
        for ends in document_ends(source, file):
            stream.write(ends.astype("<u8").tobytes())


def document_ends(source: Source, file: StoreFile) -> Iterator[npt.NDArray[np.int64]]:
    """Yield blocks of the ends of a file's documents, in order: token offsets ``[k]``, int64.

    Raises:
        DataError: ends that do not ascend, do not end with the file, or do not follow an
            end-of-document token.
    """
    assert source.manifest is not None
    path = store_file(source, file)
    index = path.with_name(f"{path.name}.index")
    dtype = np.dtype("<u2" if source.manifest.token_bytes == 2 else "<u4")
    tokens = np.memmap(path, dtype=dtype, mode="r")
    last = 0
    with index.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            ends = np.frombuffer(block, dtype="<u8").astype(np.int64)
            sound = ends[0] > last and bool((np.diff(ends) > 0).all()) and ends[-1] <= file.tokens
            if not sound or not bool((tokens[ends - 1] == source.manifest.eos_id).all()):
                raise _broken(index)
            last = int(ends[-1])
            yield ends
    if last != file.tokens:
        raise _broken(index)


def _broken(index: Path) -> DataError:
    return DataError(
        Problem(
            str(index),
            "its document ends are not those of the token file",
            do="it was swapped or damaged; prepare the source again",
        )
    )
