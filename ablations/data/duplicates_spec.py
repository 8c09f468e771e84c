"""Duplicates of a source: which documents are dropped because the text is there already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ablations.errors import ConfigError, Problem

__all__ = ["DuplicatesSpec"]

_HASH_BYTES, _NUMBER_BYTES = 8, 4
"""Of a hash, and of a document's number in datatrove's signatures."""


@dataclass(frozen=True, kw_only=True)
class DuplicatesSpec:
    """Duplicates that are dropped, over all shards of the source and of other sources.

    Of documents that are duplicates of each other, the one whose text has the smallest hash stays. So
    the result is the same for any number of shards.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    kind: Literal["exact", "near"] = "exact"
    """``exact``: equal texts. ``near``: these, and texts that share most of their runs of words, by
    datatrove's MinHash."""
    against: tuple[str, ...] = ()
    """Sources that keep theirs: a document that one of them has too is dropped here. They are prepared
    before this source."""
    words: int = 5
    """near: words of a run that is compared."""
    bands: int = 14
    """near: bands of hashes; documents that agree in all hashes of one band are duplicates."""
    band_hashes: int = 8
    """near: hashes of a band. With 14 bands of 8, a pair that shares 0.8 of its runs is found in 92% of
    the cases, one that shares 0.5 in 5%."""
    ignore_numbers: bool = True
    """near: all numbers count as the same. False for mathematics, where problems differ in them alone."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ConfigError(problems)

    @property
    def document_bytes(self) -> int:
        """Return the disk that a document takes while duplicates are sought."""
        signature = self.bands * (_HASH_BYTES * self.band_hashes + _NUMBER_BYTES)
        return 2 * _HASH_BYTES + (signature if self.kind == "near" else 0)

    def _problems(self) -> Iterator[Problem]:
        for key in ("words", "bands", "band_hashes"):
            value = getattr(self, key)
            if value < 1:
                yield Problem(
                    f"source.duplicates.{key}", "outside its range", found=value, allowed=">= 1"
                )
        if len(set(self.against)) < len(self.against):
            yield Problem(
                "source.duplicates.against", "names a source twice", found=list(self.against)
            )
