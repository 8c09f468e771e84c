"""Compare the order of rows with the two rules that make it, sample by sample."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from ablations.mixture import row_order
from ablations.mixture.mixture import Mixture
from ablations.mixture.row_order import RowOrder
from ablations.mixture.schedule import Schedule, Stage

ROWS = {"a": 30, "b": 50, "c": 20}


def schedule_of(*weights: dict[str, float], steps: int = 20) -> Schedule:
    stages = tuple(
        Stage(name=f"s{number}", steps=steps, mixture=Mixture(own))
        for number, own in enumerate(weights)
    )
    return Schedule(stages=stages, sequence_length=1, batch_size=2)


def names(order: RowOrder) -> str:
    return "".join(order.sources[k] for k in order.locate(np.arange(len(order))).source)


def test_samples_come_by_their_due_times() -> None:
    # By hand: of those that may come, the one that is due first; of two due together, the first named.
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    order = RowOrder(schedule_of(weights, steps=10), ROWS, 0)
    assert names(order) == "abacababac" * 2


def test_each_stage_begins_its_own_order() -> None:
    stages = {"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}, {"b": 1.0, "c": 0.0}
    order = RowOrder(schedule_of(*stages, steps=4), ROWS, 0)
    assert names(order) == "abababab" + "bbabbbab" + "bbbbbbbb"
    assert order.locate([7, 8, 15, 16]).stage.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_equal_length_come_at_even_distances_from_a_phase_of_the_seed(seed: int) -> None:
    weights, sizes = {"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 10, "b": 30, "c": 20}
    lengths = {name: np.full(ROWS[name], size) for name, size in sizes.items()}
    order = RowOrder(schedule_of(weights, steps=60), ROWS, seed, lengths=lengths)
    phases = np.random.default_rng(seed).random(3)
    times = [
        [((phase + turn) * sizes[name] / weights[name], name) for turn in range(120)]
        for name, phase in zip(sizes, phases, strict=True)
    ]
    assert names(order) == "".join(name for _, name in list(heapq.merge(*times))[:120])


def test_the_source_whose_tokens_lag_most_comes_next() -> None:
    random = np.random.default_rng(5)
    lengths = {name: random.integers(1, 100, size) for name, size in ROWS.items()}
    weights = {"a": 0.2, "b": 0.5, "c": 0.3}
    order = RowOrder(schedule_of(weights, steps=80), ROWS, 3, lengths=lengths)
    placed = order.locate(np.arange(160))
    phases = np.random.default_rng(3).random(3)
    read = {name: phases[k] * lengths[name].mean() for k, name in enumerate(ROWS)}
    for source, row in zip(placed.source.tolist(), placed.window.tolist(), strict=True):
        name = order.sources[source]
        assert name == min(read, key=lambda one: read[one] / weights[one])
        read[name] += float(lengths[name][row])


@pytest.mark.parametrize("in_tokens", [False, True])
@pytest.mark.parametrize("block", [1, 7])
def test_rows_are_the_same_in_whatever_blocks_they_are_placed(
    monkeypatch: pytest.MonkeyPatch, in_tokens: bool, block: int
) -> None:
    random = np.random.default_rng(0)
    lengths = {name: random.integers(1, 9, size) for name, size in ROWS.items()}
    found = []
    for size in (row_order._BLOCK, block):
        monkeypatch.setattr(row_order, "_BLOCK", size)
        order = RowOrder(
            schedule_of({"a": 0.25, "b": 0.75}), ROWS, 1, lengths=lengths if in_tokens else None
        )
        placed = order.locate(np.arange(40))
        found.append([part.tolist() for part in vars(placed).values()])
    assert found[0] == found[1]
    sources, rows = found[0][1], found[0][3]
    of_a = [row for source, row in zip(sources, rows, strict=True) if source == 0]
    assert len(set(of_a)) == len(of_a) > 5


@pytest.mark.parametrize("index", [[-1], [40], [0, 40], [-1, 5], [3, 40, 2]])
def test_an_index_outside_the_schedule_is_refused(index: list[int]) -> None:
    order = RowOrder(schedule_of({"a": 1.0}), ROWS, 0)
    with pytest.raises(IndexError, match=r"sample index outside 0\.\.39"):
        order.locate(index)
    assert order.locate([0, 39]).window.size == 2


def test_no_index_has_no_placement() -> None:
    placed = RowOrder(schedule_of({"a": 1.0}), ROWS, 0).locate([])
    assert [part.size for part in vars(placed).values()] == [0, 0, 0, 0]
