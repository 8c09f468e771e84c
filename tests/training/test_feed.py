from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.errors import DataError
from ablations.training.dataloader import Feed, Share
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
