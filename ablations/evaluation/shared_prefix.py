"""Groups of contexts that begin with the same tokens, such as the few-shot examples of a task.

    contexts ──group──▶ groups: (prefix length, members)    each context is in exactly one group

The keys and values of a group's prefix are computed once, and only the rest of each context is fed.
Contexts are sorted, so that those with a common prefix are neighbours. Neighbours are then merged, the
longest common prefix first. Of all such merges, those are kept that save the most tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["LEAST_PREFIX", "Group", "group_by_prefix"]

LEAST_PREFIX = 16
"""Shortest prefix that is shared, in tokens: a shorter one saves less than its mask costs."""


@dataclass(frozen=True)
class Group:
    """Contexts that begin with the same tokens."""

    members: tuple[int, ...]
    """Indices of the contexts."""
    prefix: int
    """Tokens that all members share; shorter than each of them. 0 = nothing is shared."""


@dataclass(frozen=True)
class _Segment:
    """Neighbours in sorted order: one group, or the groups of two parts."""

    first: int
    last: int
    saved: int = 0
    prefix: int = 0
    parts: tuple[_Segment, _Segment] | None = None


def group_by_prefix(contexts: Sequence[npt.NDArray[np.int64]], least_saved: int) -> list[Group]:
    """Return groups that save the most tokens; contexts that share nothing form one group.

    Args:
        contexts: Token ids of each context.
        least_saved: Fewest tokens that a group must save. Each group has its own forward passes, so a
            group that saves less than the tokens of one pass makes scoring slower.
    """
    # Bytes with the highest first sort like the token ids, and are compared by one call.
    keys = [context.astype(">u4").tobytes() for context in contexts]
    order = sorted(range(len(contexts)), key=keys.__getitem__)
    common = [_common(contexts[a], contexts[b]) for a, b in pairwise(order)]
    shared = [
        Group(tuple(sorted(order[one.first : one.last + 1])), one.prefix)
        for one in _best_segments(common, least_saved)
    ]
    rest = set(order).difference(*(group.members for group in shared))
    return [Group(tuple(sorted(rest)), 0), *shared] if rest else shared


def _common(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> int:
    """Return the length of the common prefix, which leaves a token of each context."""
    size = min(len(left), len(right)) - 1
    different = np.flatnonzero(left[:size] != right[:size])
    return int(different[0]) if len(different) else max(0, size)


def _best_segments(common: Sequence[int], least_saved: int) -> list[_Segment]:
    """Return the segments that are one group each, given the common prefix of each pair of neighbours."""
    first_of = {place: _Segment(place, place) for place in range(len(common) + 1)}
    last_of = dict(first_of)
    for pair in sorted(range(len(common)), key=lambda pair: -common[pair]):
        if common[pair] < LEAST_PREFIX:
            break
        left, right = last_of.pop(pair), first_of.pop(pair + 1)
        merged = _merged(left, right, common[pair], least_saved)
        first_of[merged.first] = last_of[merged.last] = merged
    found: list[_Segment] = []
    stack = list(first_of.values())
    while stack:
        one = stack.pop()
        if one.parts is not None:
            stack += one.parts
        elif one.prefix:
            found.append(one)
    return sorted(found, key=lambda one: one.first)


def _merged(left: _Segment, right: _Segment, prefix: int, least_saved: int) -> _Segment:
    """Join two segments to one group if that saves at least as much as their own groups do."""
    saved = (right.last - left.first) * prefix
    apart = left.saved + right.saved
    if saved >= max(least_saved, apart):
        return _Segment(left.first, right.last, saved, prefix)
    return _Segment(left.first, right.last, apart, parts=(left, right))
