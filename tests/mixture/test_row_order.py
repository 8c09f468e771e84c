"""The order of rows: shares exact within one row, in samples and in tokens, for any seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.mixture.mixture import Mixture
from ablations.mixture.row_order import RowOrder
from ablations.mixture.schedule import Schedule, Stage

ROWS = {"chat": 300, "code": 700, "math": 500}


def lengths(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {name: random.integers(20, 160, size) for name, size in ROWS.items()}
    made["chat"] = made["chat"] // 3
    return made


def schedule_of(weights: dict[str, float], *, steps: int = 80, stages: int = 1) -> Schedule:
    return Schedule(
        stages=tuple(
            Stage(name=f"s{k}", steps=steps // stages, mixture=Mixture(weights))
            for k in range(stages)
        ),
        sequence_length=1,
        batch_size=8,
    )


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6), seed=st.integers(0, 2**31 - 1))
def test_every_prefix_holds_each_source_within_one_sample(parts: list[float], seed: int) -> None:
    total = sum(parts)
    weights = {f"s{k}": part / total for k, part in enumerate(parts)}
    order = RowOrder(schedule_of(weights), dict.fromkeys(weights, 400), seed)
    source = order.locate(np.arange(640)).source
    for number, name in enumerate(order.sources):
        read = np.cumsum(source == number)
        assert np.abs(read - np.arange(1, 641) * weights[name]).max() < 1 + 1e-6


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.floats(0.02, 1.0), min_size=3, max_size=3), seed=st.integers(0, 2**31 - 1))
def test_shares_of_tokens_are_exact_within_one_row(parts: list[float], seed: int) -> None:
    own = lengths(seed)
    weights = {name: part / sum(parts) for name, part in zip(ROWS, parts, strict=True)}
    order = RowOrder(schedule_of(weights), ROWS, seed, lengths=own)
    placed = order.locate(np.arange(640))
    tokens = np.array(
        [own[name][placed.window[placed.source == k]].sum() for k, name in enumerate(order.sources)]
    )
    asked = np.array([weights[name] for name in order.sources])
    assert np.abs(tokens / tokens.sum() - asked).max() < 0.01
    assert np.abs(tokens - asked * tokens.sum()).max() <= 2 * max(map(max, own.values()))


@pytest.mark.parametrize("in_tokens", [False, True])
def test_an_epoch_reads_each_row_once_and_seeds_read_others(in_tokens: bool) -> None:
    own = lengths() if in_tokens else None
    orders = [
        RowOrder(schedule_of({"chat": 1.0}, stages=2), ROWS, seed, lengths=own) for seed in (0, 1)
    ]
    rows = [order.locate(np.arange(640)).window for order in orders]
    assert sorted(rows[0][:300]) == list(range(300))
    assert sorted(rows[0][300:600]) == list(range(300))
    assert rows[0].tolist() != rows[1].tolist()
    again = RowOrder(schedule_of({"chat": 1.0}, stages=2), ROWS, 0, lengths=own)
    assert again.locate(np.arange(640)).window.tolist() == rows[0].tolist()


def test_samples_are_located_in_any_order() -> None:
    order = RowOrder(schedule_of({"chat": 0.3, "code": 0.7}), ROWS, 3)
    whole = order.locate(np.arange(640))
    index = np.array([639, 0, 17, 17])
    assert order.locate(index).window.tolist() == whole.window[index].tolist()
    with pytest.raises(IndexError):
        order.locate([640])


def test_a_source_without_weight_is_not_read() -> None:
    order = RowOrder(schedule_of({"chat": 0.0, "code": 1.0}), ROWS, 0, lengths=lengths())
    assert set(order.locate(np.arange(640)).source.tolist()) == {1}
