"""Compare layouts and batches of a few requests with those written down by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.evaluation.prefix_packing import (
    Batch,
    Branch,
    Layout,
    Request,
    lay_out,
    plan_batches,
)

Columns = dict[str, list[int]]


def columns(layout: Layout) -> Columns:
    names = ("tokens", "segments", "positions", "reads", "targets", "owners")
    return {name: getattr(layout, name).tolist() for name in names}


def test_branches_of_one_context_are_packed_behind_it() -> None:
    (layout,) = lay_out([Request([10, 11, 12], [[20, 21, 22], [30], [], [40, 41]])], 6)
    assert columns(layout) == {
        "tokens": [10, 11, 12, 20, 21, 40],
        "segments": [0, 0, 0, 1, 1, 3],
        "positions": [0, 1, 2, 3, 4, 3],
        "reads": [2, 3, 4, 2, 2, 5],
        "targets": [20, 21, 22, 30, 40, 41],
        "owners": [0, 0, 0, 1, 2, 2],
    }
    assert layout.branches == (Branch(0, 0, 0), Branch(0, 1, 0), Branch(0, 3, 0))
    assert layout.context.tolist() == [10, 11, 12]
    assert layout.packed


def test_a_context_that_is_one_token_too_long_is_cut_for_each_branch() -> None:
    requests = [Request([7], [[8]]), Request([10, 11, 12], [[20, 21], [30, 31, 32]])]
    first, second, third = lay_out(requests, 5)
    assert first.branches == (Branch(0, 0, 0),)
    assert columns(second)["tokens"] == [10, 11, 12, 20]
    assert columns(third) == {
        "tokens": [11, 12, 30, 31],
        "segments": [0, 0, 1, 1],
        "positions": [0, 1, 2, 3],
        "reads": [1, 2, 3],
        "targets": [30, 31, 32],
        "owners": [0, 0, 0],
    }
    assert (second.branches, third.branches) == ((Branch(1, 0, 0),), (Branch(1, 1, 1),))
    assert not second.packed
    assert not third.packed


@pytest.mark.parametrize(
    ("branches", "window", "pack", "laid_out"),
    [
        ([[1], [2]], 4, True, [(0, 1)]),
        ([[1], [2]], 4, False, [(0,), (1,)]),
        ([[1], [2, 3]], 4, True, [(0,), (1,)]),
        ([[1], [2, 3]], 5, True, [(0, 1)]),
        ([[1], [2, 3, 4]], 3, True, [(0,)]),
        ([[1, 2], []], 9, True, [(0,)]),
        ([[1, 2, 3]], 3, True, []),
        ([[1, 2]], 3, True, [(0,)]),
    ],
)
def test_branches_are_packed_where_their_whole_context_fits(
    branches: list[list[int]], window: int, pack: bool, laid_out: list[tuple[int, ...]]
) -> None:
    layouts = lay_out([Request([5, 6, 7], branches)], window, pack=pack)
    assert [tuple(one.index for one in layout.branches) for layout in layouts] == laid_out


def test_branches_are_packed_unless_told_otherwise() -> None:
    assert len(lay_out([Request([5], [[1], [2]])], 9)) == 1


@pytest.mark.parametrize(
    ("branches", "packed"),
    [
        ([[1]], False),
        ([[1, 2]], False),
        ([[1, 2, 3]], False),
        ([[1], [2]], False),
        ([[1, 2], [3]], False),
        ([[1], [3, 4]], False),
        ([[1, 2], [3, 4]], True),
        ([[1, 2], [3], [4, 5]], True),
    ],
)
def test_a_layout_is_packed_where_two_branches_are_fed(
    branches: list[list[int]], packed: bool
) -> None:
    (layout,) = lay_out([Request([5, 6], branches)], 20)
    assert layout.packed is packed


def test_a_layout_behind_its_prefix_reads_the_same_tokens() -> None:
    (layout,) = lay_out([Request([10, 11, 12], [[20, 21], [30, 31]])], 9)
    after = layout.after(2)
    assert columns(after) == {
        "tokens": [12, 20, 30],
        "segments": [0, 1, 2],
        "positions": [2, 3, 3],
        "reads": [0, 1, 0, 2],
        "targets": [20, 21, 30, 31],
        "owners": [0, 0, 1, 1],
    }
    assert after.context.tolist() == [12]


def told(batches: list[Batch]) -> list[tuple[int, bool, int, list[list[int]]]]:
    return [
        (
            batch.length,
            batch.packed,
            len(batch.prefix),
            [layout.tokens.tolist() for layout in batch.layouts],
        )
        for batch in batches
    ]


def test_batches_begin_with_the_longest_and_keep_packed_layouts_apart() -> None:
    requests = [
        Request([1], [[9]]),
        Request([2, 3], [[4, 5], [6, 7]]),
        Request([1, 2, 3], [[9]]),
        Request([3, 4, 5, 6], [[4, 5], [6, 7]]),
        Request([1, 2], [[9]]),
    ]
    layouts = lay_out(requests, 20)
    assert told(plan_batches(layouts, 6)) == [
        (3, False, 0, [[1, 2, 3], [1, 2]]),
        (1, False, 0, [[1]]),
        (6, True, 0, [[3, 4, 5, 6, 4, 6]]),
        (4, True, 0, [[2, 3, 4, 6]]),
    ]
    assert told(plan_batches(layouts, 1)) == [
        *((size, False, 0, [list(range(1, size + 1))]) for size in (3, 2, 1)),
        (6, True, 0, [[3, 4, 5, 6, 4, 6]]),
        (4, True, 0, [[2, 3, 4, 6]]),
    ]


def test_a_prefix_costs_a_row_an_eighth_of_its_tokens() -> None:
    shots = list(range(100, 164))
    layouts = lay_out([Request([*shots, 1, n], [[9]]) for n in range(25)], 200)
    # Two tokens and an eighth of 65: ten rows in a batch of 100 tokens.
    batches = plan_batches(layouts, 90)
    assert [len(batch.layouts) for batch in batches] == [10, 10, 5]
    for batch in batches:
        assert (batch.length, batch.packed) == (1, False)
        assert batch.prefix.tolist() == [*shots, 1]
    assert np.concatenate([one.tokens for b in batches for one in b.layouts]).tolist() == list(
        range(25)
    )
    assert {id(batch.prefix) for batch in batches} == {id(batches[0].prefix)}


def test_without_sharing_every_row_is_whole() -> None:
    shots = list(range(100, 164))
    layouts = lay_out([Request([*shots, n], [[9]]) for n in range(4)], 200)
    apart = plan_batches(layouts, 130, share=False)
    assert [(batch.length, len(batch.layouts)) for batch in apart] == [(65, 2), (65, 2)]
    assert all(batch.prefix.size == 0 for batch in apart)
    (shared,) = plan_batches(layouts, 130)
    assert (shared.length, shared.prefix.size) == (1, 64)
