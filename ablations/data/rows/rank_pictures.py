"""Pictures of one rank of a preparation: what its rows and held-out items show, each different one once.

    .<source>.partial/train/<rank>_rows.ds.pictures  and .refs, .refs.index: beside the rank's rows
    .<source>.partial/heldout/<rank>.pictures        of its held-out items
    .<source>.partial/heldout/<rank>.shown.npy       sorted 64-bit hashes of what its rows show

A picture is known by its pixels as they are stored. What a file has held before is not decoded again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from ablations.data.manifest import PICTURES, REFS, REFS_INDEX
from ablations.data.rows.pictures import Packed, Pixels, pixels_digest, pixels_of

__all__ = ["RankPictures", "Shown", "heldout_pictures_file", "shown_file"]

_HASH_BYTES = 8


def heldout_pictures_file(folder: Path, rank: int) -> Path:
    """Return the pictures of the items that rank ``rank`` held out."""
    return folder / "heldout" / f"{rank:05d}.pictures"


def shown_file(folder: Path, rank: int) -> Path:
    """Return the sorted hashes of what the training rows of rank ``rank`` show."""
    return folder / "heldout" / f"{rank:05d}.shown.npy"


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a row, decoded where that was needed."""

    packed: Packed
    digest: bytes
    pixels: Pixels | None


class RankPictures:
    """Writer of a rank's pictures; a context, since it holds files open.

    Args:
        folder: Partial folder of the store.
        rows: The rank's token file, which the files of pictures stand beside.
        rank: The rank.
        side: Pixels of a side.
        video: Pictures of a row are frames: rows share what they show if they share all of them.
    """

    def __init__(self, folder: Path, rows: Path, rank: int, side: int, *, video: bool) -> None:
        self._side, self._video = side, video
        self._known: dict[bytes, bytes] = {}
        self._hashes: set[int] = set()
        self._shown_file = shown_file(folder, rank)
        self._train = _File(rows.with_name(rows.name + PICTURES))
        self._aside = _File(heldout_pictures_file(folder, rank))
        self._refs: IO[bytes] = rows.with_name(rows.name + REFS).open("wb")
        self._index: IO[bytes] = rows.with_name(rows.name + REFS_INDEX).open("wb")
        self._end = 0

    def __enter__(self) -> RankPictures:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._train.stream, self._aside.stream, self._refs, self._index):
            file.close()
        if kind is None:
            np.save(self._shown_file, np.array(sorted(self._hashes), dtype=np.uint64))

    def look(self, pictures: Sequence[Packed]) -> list[Shown]:
        """Return the pictures of a row with their digests; a known one is not decoded.

        Raises:
            LeftOut: one cannot be decoded.
        """
        found = []
        for packed in pictures:
            key = packed.key
            digest, pixels = self._known.get(key), None
            if digest is None:
                pixels = pixels_of(packed, self._side)
                digest = self._known[key] = pixels_digest(pixels)
            found.append(Shown(packed, digest, pixels))
        return found

    def hashes(self, shown: Sequence[Shown]) -> list[int]:
        """Return the hashes that must not stand on both sides: of each picture, or of a video's frames."""
        digests = [one.digest for one in shown]
        if self._video and digests:
            digests = [hashlib.blake2b(b"".join(digests), digest_size=16).digest()]
        return [int.from_bytes(digest[:_HASH_BYTES], "little") for digest in digests]

    def group(self, shown: Sequence[Shown]) -> str:
        """Return the group of a row that shows pictures: rows with the same ones are held out together."""
        digests = sorted({one.digest for one in shown})
        return f"pictures/{hashlib.blake2b(b''.join(digests), digest_size=16).hexdigest()}"

    def train(self, shown: Sequence[Shown], kept: int) -> None:
        """Write the pictures of a training row: the first ``kept`` ones, those within its length."""
        numbers = [self._train.number(one, self._side) for one in shown[:kept]]
        self._refs.write(np.array(numbers, dtype="<u4").tobytes())
        self._end += len(numbers)
        self._index.write(np.array([self._end], dtype="<u8").tobytes())
        self._hashes.update(self.hashes(shown if self._video else shown[:kept]))

    def aside(self, shown: Sequence[Shown]) -> list[int]:
        """Write the pictures of a held-out item; return their numbers."""
        return [self._aside.number(one, self._side) for one in shown]


class _File:
    """File of different pictures, numbered as they come."""

    def __init__(self, path: Path) -> None:
        self.stream: IO[bytes] = path.open("wb")
        self._numbers: dict[bytes, int] = {}

    def number(self, shown: Shown, side: int) -> int:
        """Return the number of a picture, written if the file does not have it yet."""
        number = self._numbers.get(shown.digest)
        if number is None:
            pixels = shown.pixels if shown.pixels is not None else pixels_of(shown.packed, side)
            self.stream.write(pixels.tobytes())
            number = self._numbers[shown.digest] = len(self._numbers)
        return number
