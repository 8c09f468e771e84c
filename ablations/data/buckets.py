"""Buckets of a source: parts of its token store, cut by a score that each document has.

    source.web.buckets.edges: [1, 2, 3, 4]      web-b0   score below 1, or no score
                                                web-b1   1 to below 2
                                                …
                                                web-b4   4 and more

Each bucket is a token store of its own below the source's, so that a mixture weights it like any
source, and the audit counts it. A threshold, a tilt or a down-sampled bucket are weights over buckets:
nothing is tokenised again, and the held-out text stays the same::

    >>> shares = selection_shares(SelectSpec(min_bucket=2), [30.0, 30.0, 30.0, 10.0])
    >>> [round(share, 2) for share in shares]
    [0.0, 0.0, 0.75, 0.25]
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from ablations.errors import ConfigError, Problem

__all__ = [
    "BucketsSpec",
    "PartSpec",
    "SelectSpec",
    "bucket_folder",
    "bucket_name",
    "parent_and_bucket",
    "selection_shares",
]

_FORBID: dict[str, Any] = {"extra": "forbid"}
_NAME = re.compile(r"(.+)-b(0|[1-9][0-9]*)")
_SHARE_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class BucketsSpec:
    """Division of a source by score: at given edges, or at quantiles of its tokens."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    edges: tuple[float, ...] = ()
    """Rising scores: bucket 0 is below the first, bucket k begins at the k-th. ``[1, 2, 3, 4, 5]`` makes
    a bucket's number the score, rounded down."""
    quantiles: int | None = None
    """Number of buckets with as many tokens each; the edges are found when the source is prepared."""
    shares: tuple[float, ...] = ()
    """Share of the source's tokens in each bucket, as published or estimated. It is needed to plan a
    selection before the source is prepared; a prepared store's own counts go before it."""

    def __post_init__(self) -> None:
        problems = []
        if bool(self.edges) == (self.quantiles is not None):
            problems.append(Problem("source.buckets", "needs either edges or quantiles"))
        if any(not math.isfinite(edge) for edge in self.edges) or any(
            low >= high for low, high in pairwise(self.edges)
        ):
            problems.append(
                Problem("source.buckets.edges", "not rising numbers", found=list(self.edges))
            )
        if self.quantiles is not None and self.quantiles < 2:
            problems.append(
                Problem("source.buckets.quantiles", "too few", found=self.quantiles, allowed=">= 2")
            )
        problems += self._share_problems() if not problems else []
        if problems:
            raise ConfigError(problems)

    def _share_problems(self) -> list[Problem]:
        where = "source.buckets.shares"
        if not self.shares:
            return []
        if len(self.shares) != self.count:
            return [Problem(where, "not one for each bucket", len(self.shares), self.count)]
        if any(not share >= 0.0 for share in self.shares) or (
            abs(math.fsum(self.shares) - 1.0) > _SHARE_TOLERANCE
        ):
            return [
                Problem(where, "not shares that sum to 1", found=f"{math.fsum(self.shares):.8g}")
            ]
        return []

    @property
    def count(self) -> int:
        """Return the number of buckets."""
        return len(self.edges) + 1 if self.quantiles is None else self.quantiles

    @property
    def stated_shares(self) -> tuple[float, ...]:
        """Return the share of the tokens in each bucket by the config: ``shares``, else equal ones."""
        return self.shares or (1.0 / self.count,) * self.count


@dataclass(frozen=True, kw_only=True)
class SelectSpec:
    """Weights over the buckets of a source that a mixture names as a whole.

    A bucket's share is in proportion to its tokens, times ``keep``, times ``tilt`` to the power of its
    number; buckets below ``min_bucket`` are not read.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    min_bucket: int = 0
    """Threshold: lowest bucket that is read."""
    tilt: float = 1.0
    """Factor by which a bucket is read more often than the one below it; 1 = as often."""
    keep: Mapping[int, float] = field(default_factory=dict)
    """Bucket → factor on how often it is read: ``{0: 0, 1: 0.25}`` drops bucket 0 and reads a quarter
    of bucket 1; a bucket that is not named has 1."""

    def __post_init__(self) -> None:
        problems = []
        if self.min_bucket < 0:
            problems.append(_range("min_bucket", self.min_bucket, ">= 0"))
        if not (math.isfinite(self.tilt) and self.tilt > 0.0):
            problems.append(_range("tilt", self.tilt, "a finite number above 0"))
        problems += [
            _range(f"keep.{bucket}", factor, "a finite number >= 0")
            for bucket, factor in self.keep.items()
            if not (math.isfinite(factor) and factor >= 0.0)
        ]
        if problems:
            raise ConfigError(problems)

    def problems(self, buckets: BucketsSpec) -> list[Problem]:
        """Return a problem for each bucket that is named and does not exist."""
        last = buckets.count - 1
        found = [
            _range(f"keep.{bucket}", bucket, f"a bucket, 0 to {last}")
            for bucket in self.keep
            if not 0 <= bucket <= last
        ]
        if self.min_bucket > last:
            found.append(_range("min_bucket", self.min_bucket, f"a bucket, 0 to {last}"))
        return found


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """Place of a bucket: the source that it is a part of, and its number there."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    of: str
    """Source."""
    bucket: int
    """Number of the bucket."""


def _range(name: str, found: object, allowed: str) -> Problem:
    return Problem(f"source.select.{name}", "outside its range", found=found, allowed=allowed)


def bucket_name(source: str, bucket: int) -> str:
    """Return the name by which mixtures weight a bucket of ``source``: ``web-b3``."""
    return f"{source}-b{bucket}"


def parent_and_bucket(name: str) -> tuple[str, int] | None:
    """Return the source and the number that the name of a bucket stands for; None for other names."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found[1], int(found[2]))


def bucket_folder(bucket: int) -> str:
    """Return the folder of a bucket's token store inside the store of its source."""
    return f"b{bucket}"


def selection_shares(select: SelectSpec, tokens: Sequence[float]) -> list[float]:
    """Return the share of each bucket in what is read of a source; they sum to 1.

    Args:
        select: The selection.
        tokens: Tokens of each bucket, in any unit.

    Raises:
        ConfigError: no bucket that is selected has tokens.
    """
    # The largest power is 1, so that no factor overflows.
    top = len(tokens) - 1
    powers = [
        select.tilt ** (bucket - top) if select.tilt >= 1.0 else select.tilt**bucket
        for bucket in range(len(tokens))
    ]
    read = [
        0.0 if bucket < select.min_bucket else count * power * select.keep.get(bucket, 1.0)
        for bucket, (count, power) in enumerate(zip(tokens, powers, strict=True))
    ]
    total = math.fsum(read)
    if not total > 0.0:
        raise ConfigError(
            Problem(
                "source.select",
                "selects buckets without text",
                found=f"tokens of the buckets: {', '.join(f'{count:,.0f}' for count in tokens)}",
                do="lower min_bucket, or raise keep",
            )
        )
    return [part / total for part in read]
