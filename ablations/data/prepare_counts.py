"""Counts of a preparation: each rank's figures, and their sum for the manifest.

    .<source>.partial/counts/<rank>.json   counts of a rank; the file exists once the rank is through
    .<source>.partial/hashes/<rank>.npy    sorted 64-bit hashes of its documents' texts

A document that is left out has one reason, and each reason one count, whatever step it is that drops it:
read = kept + held out + the sum of all reasons.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ablations.files import read_json, write_sealed

__all__ = [
    "BESIDE",
    "LENGTH_QUANTILES",
    "Counting",
    "RankCounts",
    "TextHashes",
    "count_duplicates",
    "counts_file",
    "hashes_file",
    "length_quantiles",
    "text_hash",
]

LENGTH_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

BESIDE = "beside"
"""Key of a document's metadata: what it is beside its text. Documents that differ in it are no duplicates."""

_RANGE_HASHES = 1 << 24
"""Hashes that are compared at once: 128 MiB."""
_BYTES = 8


class Counting(Protocol):
    """A step of a preparation that leaves documents out."""

    dropped: Counter[str]
    """Reason → documents left out."""


@dataclass(kw_only=True)
class RankCounts:
    """Figures of one rank, or of all ranks together."""

    read: int = 0
    """Documents read, those left out included."""
    documents: int = 0
    """Documents kept for training."""
    bytes: int = 0
    """UTF-8 bytes of their texts."""
    heldout_documents: int = 0
    heldout_bytes: int = 0
    replaced_characters: int = 0
    """Lone surrogates; U+FFFD stands in their place."""
    replaced_bytes: int = 0
    """Bytes that were not of the text's encoding; U+FFFD stands in their place."""
    rows: int = 0
    """Of a source of rows: conversations or pairs kept for training."""
    heldout_rows: int = 0
    """Conversations or pairs held out."""
    supervised_tokens: int = 0
    """Tokens of their answers."""
    cut_rows: int = 0
    """Rows that were cut to their length."""
    cut_tokens: int = 0
    """Tokens that were cut off."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason → documents left out."""
    ignored_files: dict[str, int] = field(default_factory=dict)
    """Ending → local files that no reader takes."""
    rewritten: dict[str, int] = field(default_factory=dict)
    """Reason → documents, kept or not, whose text was changed."""

    def write(self, partial: Path, rank: int) -> None:
        """Write the counts of a rank that is through."""
        write_sealed(counts_file(partial, rank), asdict(self))

    @classmethod
    def read_rank(cls, partial: Path, rank: int) -> RankCounts:
        """Return the counts of a rank."""
        content = read_json(counts_file(partial, rank))
        known = {name.name for name in fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})

    @classmethod
    def total(cls, parts: Iterable[RankCounts]) -> RankCounts:
        """Return the sum of several ranks' counts."""
        plain: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        ignored: Counter[str] = Counter()
        rewritten: Counter[str] = Counter()
        for part in parts:
            values = asdict(part)
            dropped.update(values.pop("dropped"))
            ignored.update(values.pop("ignored_files"))
            rewritten.update(values.pop("rewritten"))
            plain.update(values)
        kinds = {"dropped": dropped, "ignored_files": ignored, "rewritten": rewritten}
        sorted_kinds: dict[str, Any] = {k: dict(sorted(v.items())) for k, v in kinds.items()}
        return cls(**{**plain, **sorted_kinds})


def counts_file(partial: Path, rank: int) -> Path:
    """Return the file of the counts of rank ``rank``, written when the rank has finished."""
    return partial / "counts" / f"{rank:05d}.json"


def hashes_file(partial: Path, rank: int) -> Path:
    """Return the file of the hashes of the documents that rank ``rank`` kept or held out."""
    return partial / "hashes" / f"{rank:05d}.npy"


def text_hash(text: str) -> int:
    """Return 64 bits of a BLAKE2b hash of a text: equal texts have equal hashes.

    Of a billion different texts, 0.03 pairs share a hash by chance (n² / 2⁶⁵).
    """
    digest = hashlib.blake2b(text.encode(), digest_size=_BYTES, person=b"duplicate").digest()
    return int.from_bytes(digest, "little")


class TextHashes:
    """Hashes of a rank's texts, eight bytes each."""

    def __init__(self) -> None:
        self._found = array("Q")

    def add(self, text: str) -> None:
        """Add a text."""
        self._found.append(text_hash(text))

    def write(self, path: Path) -> None:
        """Write the hashes, sorted."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.sort(np.frombuffer(self._found, dtype=np.uint64)))


def count_duplicates(paths: Sequence[Path], most: int = _RANGE_HASHES) -> int:
    """Return how many documents have the text of another one that is counted: all minus different.

    Args:
        paths: Files of sorted hashes.
        most: Hashes that are read at once, about.
    """
    parts = [np.load(path, mmap_mode="r") for path in paths if path.stat().st_size]
    documents = sum(part.size for part in parts)
    ranges = max(1, -(-documents // most))
    edges = np.array([i * 2**64 // ranges for i in range(1, ranges)], dtype=np.uint64)
    cuts = [[0, *np.searchsorted(part, edges), part.size] for part in parts]
    different = 0
    for i in range(ranges):
        found = [part[cut[i] : cut[i + 1]] for part, cut in zip(parts, cuts, strict=True)]
        different += np.unique(np.concatenate(found)).size if found else 0
    return int(documents - different)


def length_quantiles(indexes: Iterable[Path]) -> dict[str, int]:
    """Return quantile → length of a document in tokens, its end token included.

    Args:
        indexes: datatrove's ``.index`` files: uint64 ends of the documents, in tokens.

    The quantile q is the smallest length that at least the share q of the documents do not exceed.
    """
    counted: Counter[int] = Counter()
    for path in indexes:
        ends = np.fromfile(path, dtype="<u8").astype(np.int64)
        lengths, times = np.unique(np.diff(ends, prepend=0), return_counts=True)
        counted.update(dict(zip(lengths.tolist(), times.tolist(), strict=True)))
    if not counted:
        return {}
    lengths = np.array(sorted(counted))
    cumulative = np.cumsum([counted[int(length)] for length in lengths])
    asked = np.ceil(np.array(LENGTH_QUANTILES) * cumulative[-1])
    found = lengths[np.searchsorted(cumulative, np.maximum(asked, 1))]
    return {f"{q:g}": int(n) for q, n in zip(LENGTH_QUANTILES, found, strict=True)}
