"""Compare batches that are read with the windows of their stores, and count how often samples are placed."""

from __future__ import annotations

import numpy as np
import pytest

from ablations.data.store import TokenStore
from ablations.mixture.mixture import Mixture
from ablations.mixture.reader import BatchReader
from ablations.mixture.sampler import Placement, Sampler
from ablations.mixture.schedule import Schedule, Stage
from tests.oracles.stores import write_store

LENGTH = 8
AHEAD = 1024
"""Samples that are placed together."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenStore]:
    folder = tmp_path_factory.mktemp("stores")
    return {
        name: TokenStore.open(
            write_store(folder / name, vocab_size=64, tokens=tokens, seed=tokens, document_tokens=9)
        )
        for name, tokens in (("web", 900), ("code", 400))
    }


class CountedSampler(Sampler):
    """Keeps how many samples each call asked for."""

    def __init__(self, stores: dict[str, TokenStore], steps: int) -> None:
        schedule = Schedule(
            stages=(
                Stage(name="one", steps=5, mixture=Mixture({"web": 0.75, "code": 0.25})),
                Stage(name="two", steps=steps - 5, mixture=Mixture({"web": 0.25, "code": 0.75})),
            ),
            sequence_length=LENGTH,
            batch_size=4,
        )
        super().__init__(schedule, {k: s.num_windows(LENGTH) for k, s in stores.items()}, 3)
        self.asked: list[int] = []

    def locate(self, indices: object) -> Placement:
        self.asked.append(int(np.size(indices)))  # type: ignore[arg-type]
        return super().locate(indices)  # type: ignore[arg-type]


def require_read(
    reader: BatchReader, sampler: CountedSampler, stores: dict[str, TokenStore], index: list[int]
) -> None:
    """Compare a batch with its windows, each read alone."""
    tokens, placed = reader.read(index)
    assert tokens.shape == (len(index), LENGTH + 1)
    expected = Sampler.locate(sampler, index)
    for name, part in vars(placed).items():
        assert part.tolist() == vars(expected)[name].tolist()
    for row, source, window in zip(tokens, expected.source, expected.window, strict=True):
        alone = stores[sampler.sources[source]].read(np.array([window]), LENGTH)
        assert row.tolist() == np.ravel(alone).tolist()


def test_batches_are_the_windows_that_the_sampler_names_in_any_order(
    stores: dict[str, TokenStore],
) -> None:
    sampler = CountedSampler(stores, 600)
    reader = BatchReader(sampler, stores, LENGTH)
    for index in ([100, 101, 102], [20, 19, 18, 30], [7], [1030, 1029], [2399, 2398], [0, 2399]):
        require_read(reader, sampler, stores, index)


def test_batches_one_after_another_are_placed_together(stores: dict[str, TokenStore]) -> None:
    sampler = CountedSampler(stores, 2000)
    reader = BatchReader(sampler, stores, LENGTH)
    first = 1500
    for index in ([first, first + 3], [first], [first + AHEAD - 1], [first + 5, first + 2]):
        require_read(reader, sampler, stores, index)
    assert sampler.asked == [AHEAD]
    require_read(reader, sampler, stores, [first + AHEAD])
    assert sampler.asked == [AHEAD, AHEAD]
    require_read(reader, sampler, stores, [first + AHEAD - 1, first + AHEAD])
    require_read(reader, sampler, stores, [first, first + 1])
    assert sampler.asked == [AHEAD] * 4


def test_indices_far_apart_are_placed_alone(stores: dict[str, TokenStore]) -> None:
    sampler = CountedSampler(stores, 2000)
    reader = BatchReader(sampler, stores, LENGTH)
    require_read(reader, sampler, stores, [10, 10 + AHEAD, 500])
    assert sampler.asked == [3]
    require_read(reader, sampler, stores, [10, 9 + AHEAD, 500])
    assert sampler.asked == [3, AHEAD]


def test_no_more_is_placed_than_the_schedule_has(stores: dict[str, TokenStore]) -> None:
    sampler = CountedSampler(stores, 10)
    reader = BatchReader(sampler, stores, LENGTH)
    require_read(reader, sampler, stores, [30, 39])
    assert sampler.asked == [10]


@pytest.mark.parametrize("index", [[40], [38, 40], [41], [99], [-1, 2], [3000, 39]])
def test_an_index_outside_the_schedule_is_refused(
    stores: dict[str, TokenStore], index: list[int]
) -> None:
    reader = BatchReader(CountedSampler(stores, 10), stores, LENGTH)
    with pytest.raises(IndexError, match=r"sample index outside 0\.\.39"):
        reader.read(index)
