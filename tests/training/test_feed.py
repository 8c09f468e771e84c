from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.data.store import TokenStore
from ablations.errors import DataError
from ablations.mixture.sampler import Placement
from ablations.training.dataloader import Feed, Share, Tokens, _end_token, sampler_of
from tests.oracles.jobs import TINY, make_job
from tests.oracles.stores import EOS


@given(ranks=st.sampled_from([1, 2, 3]), micro=st.integers(1, 4), passes=st.integers(1, 4))
def test_ranks_and_micro_batches_divide_a_batch(ranks: int, micro: int, passes: int) -> None:
    batch = ranks * micro * passes
    rows = [Share(rank, ranks, micro).rows(batch) for rank in range(ranks)]
    assert all(part.shape == (passes, micro) for part in rows)
    assert sorted(np.concatenate(rows, axis=None).tolist()) == list(range(batch))


def test_a_step_is_the_same_samples_however_it_is_divided(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    job = make_job(tmp_path, stores)
    whole = Feed(job, Share(0, 1, 8)).step(3)[0]
    parts = [Feed(job, Share(rank, 2, 2)) for rank in range(2)]
    halves = [feed.step(3) for feed in parts]
    rejoined = np.stack(halves, axis=1).reshape(8, -1)
    np.testing.assert_array_equal(rejoined, whole)
    assert sum(feed.counts.array.sum() for feed in parts) == 8


def test_the_end_token_comes_from_the_stores(tmp_path: Path, stores: dict[str, Path]) -> None:
    assert Feed(make_job(tmp_path, stores), Share(0, 1, 8)).eos_id == EOS


def test_tokens_beyond_the_embedding_are_refused(tmp_path: Path, stores: dict[str, Path]) -> None:
    job = replace(make_job(tmp_path, stores), model=replace(TINY, vocab_size=32))
    with pytest.raises(DataError, match="beyond the model's vocabulary"):
        Feed(job, Share(0, 1, 8))


@pytest.mark.parametrize("ahead", [0, 1, 3, 20])
def test_reading_ahead_changes_neither_steps_nor_counts(
    tmp_path: Path, stores: dict[str, Path], ahead: int
) -> None:
    job = make_job(tmp_path, stores)
    feed, plain = Feed(job, Share(0, 1, 4)), Feed(job, Share(0, 1, 4))
    for number, tokens in enumerate(feed.steps(2, 7, ahead=ahead), start=2):
        np.testing.assert_array_equal(tokens, plain.step(number))
        np.testing.assert_array_equal(feed.counts.array, plain.counts.array)
    assert number == 6


def test_a_step_is_the_windows_that_the_sampler_names_for_it(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    job = make_job(tmp_path, stores)
    opened = {name: TokenStore.open(folder) for name, folder in stores.items()}
    placed = sampler_of(job, opened).locate(np.arange(24, 32))
    names = job.schedule.sources
    expected = [
        np.ravel(opened[names[source]].read(np.array([window]), 16)).tolist()
        for source, window in zip(placed.source, placed.window, strict=True)
    ]
    # Samples 24 to 31: rank 1 of two has the second two of each four.
    tokens = Feed(job, Share(1, 2, 2)).step(3)
    assert tokens.shape == (2, 2, 17)
    assert tokens.tolist() == [expected[2:4], expected[6:8]]


def test_the_first_rank_alone_goes_on_from_the_earlier_count(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    job, before = make_job(tmp_path, stores), ((30, 10), (5, 15))
    assert Feed(job, Share(0, 2, 2), before).counts.array.tolist() == [[30, 10], [5, 15]]
    for rank in (1, 2):
        assert Feed(job, Share(rank, 4, 2), before).counts.array.tolist() == [[0, 0], [0, 0]]
    for none in (None, ()):
        feed = Feed(job, Share(0, 2, 2), none)
        assert feed.counts.array.tolist() == [[0, 0], [0, 0]]
        feed.step(0)
        assert feed.counts.array.sum() == 4


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_one_step_at_a_time_is_read_and_none_beyond_the_last(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    feed = Feed(make_job(tmp_path, stores), Share(0, 1, 8))
    read = feed._read
    steps: list[int] = []
    reading: list[int] = []

    def watched(step: int) -> tuple[Tokens, Placement]:
        reading.append(step)
        assert reading == [step]
        time.sleep(0.005)
        found = read(step)
        reading.remove(step)
        steps.append(step)
        return found

    monkeypatch.setattr(feed, "_read", watched)
    assert len(list(feed.steps(3, 8, ahead=ahead))) == 5
    assert steps == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(("first", "second", "fails"), [(0, 0, False), (0, 7, True), (7, 7, False)])
def test_stores_whose_documents_end_otherwise_are_refused(
    tmp_path: Path, stores: dict[str, Path], first: int, second: int, fails: bool
) -> None:
    job = make_job(tmp_path, stores)
    opened: dict[str, TokenStore] = {}
    for (name, folder), end in zip(stores.items(), (first, second), strict=True):
        store = TokenStore.open(folder)
        opened[name] = TokenStore(store.folder, replace(store.manifest, eos_id=end))
    if fails:
        with pytest.raises(DataError, match="stores: documents end in different tokens"):
            _end_token(job, opened)
    else:
        assert _end_token(job, opened) == first
