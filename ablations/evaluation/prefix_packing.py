"""Token requests of the scoring loop, laid out once and scored with any number of checkpoints.

One request is a context with its continuations ("branches"). Branches that share their context are
packed behind one copy of it, and none attends to another::

    tokens     c c c c | a a | b b b        context, then each branch without its last token
    segment    0 0 0 0 | 1 1 | 2 2 2        a token attends to segment 0 and its own
    position   0 1 2 3 | 4 5 | 4 5 6

The last token of a branch is only a target, never an input, so choices of one token (letters,
yes/no) cost nothing beyond their context. If a context must be cut on the left to fit the window, the
cut depends on the branch, and each branch is laid out on its own.

Contexts of many requests begin with the same tokens, as the few-shot examples of a task do. Such a
prefix is a part of the batch, and its layouts hold the tokens after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ablations.evaluation.shared_prefix import group_by_prefix

__all__ = ["Batch", "Branch", "Ints", "Layout", "Request", "lay_out", "plan_batches"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """A context and its possible continuations, as token ids."""

    context: Sequence[int]
    branches: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Branch:
    """Place of one continuation in a layout."""

    request: int
    index: int
    """Index of the branch in its request."""
    cut_tokens: int
    """Tokens cut off the left of the context."""


@dataclass(frozen=True)
class Layout:
    """One row of a batch: tokens to feed and positions to read."""

    tokens: Ints
    segments: Ints
    positions: Ints
    reads: Ints
    """Column whose next-token distribution is needed, for each target."""
    targets: Ints
    owners: Ints
    """Index into ``branches``, for each target."""
    branches: tuple[Branch, ...]

    def after(self, prefix: int) -> Layout:
        """Return the layout without the first ``prefix`` tokens of its context."""
        return replace(
            self,
            tokens=self.tokens[prefix:],
            segments=self.segments[prefix:],
            positions=self.positions[prefix:],
            reads=self.reads - prefix,
        )

    @property
    def context(self) -> Ints:
        """Return the tokens before the branches."""
        return self.tokens[: int(np.count_nonzero(self.segments == 0))]

    @property
    def packed(self) -> bool:
        """True if a plain causal mask would let one branch attend to another."""
        fed = self.segments[self.segments > 0]
        return bool(len(fed)) and bool(fed[0] != fed[-1])


@dataclass(frozen=True)
class Batch:
    """Layouts of similar length, scored by one forward pass."""

    layouts: tuple[Layout, ...]
    length: int
    """Columns, the prefix not counted."""
    packed: bool
    prefix: Ints
    """Tokens before each row, fed once for all batches that share the array; often empty."""


def lay_out(requests: Iterable[Request], window: int, *, pack: bool = True) -> list[Layout]:
    """Return the layouts of all requests for a window of ``window`` positions.

    Context and continuation have to fit the window together. A context that is too long loses its
    beginning. A continuation that leaves no space for one token of context is left out.
    """
    layouts: list[Layout] = []
    for number, request in enumerate(requests):
        lengths = [len(branch) for branch in request.branches]
        fitting = [index for index, length in enumerate(lengths) if 0 < length < window]
        longest = max((lengths[index] for index in fitting), default=0)
        whole = len(request.context) + longest <= window
        if pack and whole and len(fitting) > 1:
            layouts.append(_layout(request, number, fitting, 0))
        else:
            for index in fitting:
                cut = max(0, len(request.context) + lengths[index] - window)
                layouts.append(_layout(request, number, [index], cut))
    return layouts


def _layout(request: Request, number: int, indices: Sequence[int], cut: int) -> Layout:
    context = list(request.context[cut:])
    base = len(context)
    tokens, segments, positions = list(context), [0] * base, list(range(base))
    reads: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for owner, index in enumerate(indices):
        branch = request.branches[index]
        start = len(tokens)
        fed = len(branch) - 1
        reads += [base - 1, *range(start, start + fed)]
        targets += branch
        owners += [owner] * len(branch)
        tokens += branch[:fed]
        segments += [owner + 1] * fed
        positions += range(base, base + fed)
    return Layout(
        _ints(tokens),
        _ints(segments),
        _ints(positions),
        _ints(reads),
        _ints(targets),
        _ints(owners),
        tuple(Branch(number, index, cut) for index in indices),
    )


def _ints(values: Sequence[int]) -> Ints:
    return np.asarray(values, np.int64)


def plan_batches(
    layouts: Sequence[Layout], batch_tokens: int, *, share: bool = True
) -> list[Batch]:
    """Return batches of at most ``batch_tokens`` padded tokens, but of one layout or more.

    The longest come first, so that memory peaks at the start. Packed and plain layouts are kept apart,
    because plain ones without a prefix need no mask. ``share`` computes common prefixes once.
    """
    batches: list[Batch] = []
    contexts = [layout.context if share else layout.context[:0] for layout in layouts]
    for group in group_by_prefix(contexts, least_saved=batch_tokens):
        members = [layouts[index] for index in group.members]
        prefix = members[0].tokens[: group.prefix]
        for packed in (False, True):
            chosen = [one.after(group.prefix) for one in members if one.packed is packed]
            chosen.sort(key=lambda layout: -len(layout.tokens))
            batches += _cut(chosen, batch_tokens, packed, prefix)
    return batches


_PREFIX_COST = 8
"""Prefix tokens that need the memory of one fed token: a row has keys and values of its prefix alone."""


def _cut(
    layouts: Sequence[Layout], batch_tokens: int, packed: bool, prefix: Ints
) -> Iterator[Batch]:
    start = 0
    while start < len(layouts):
        length = len(layouts[start].tokens)
        rows = max(1, batch_tokens // (length + len(prefix) // _PREFIX_COST))
        yield Batch(tuple(layouts[start : start + rows]), length, packed, prefix)
        start += rows
