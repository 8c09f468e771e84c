"""Samples of a step, divided over data-parallel ranks and their micro-batches.

    step s of a batch of 8, dp = 2, micro-batches of 2     samples s·8 + …
        rank 0      0 1 | 4 5
        rank 1      2 3 | 6 7

The samples of a step depend on the step alone; ranks and micro-batches only divide them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablations.data.store import TokenStore
from ablations.errors import DataError, Problem
from ablations.mixture.audit import WindowCounts
from ablations.mixture.reader import BatchReader
from ablations.mixture.sampler import Placement, Sampler
from ablations.training.train_job import TrainJob

__all__ = ["Feed", "Share", "sampler_of"]

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """Share of a batch that one data-parallel rank reads."""

    rank: int
    ranks: int
    micro_batch_size: int

    def rows(self, batch_size: int) -> npt.NDArray[np.int64]:
        """Return the rank's positions within the batch: [micro-batches, samples]."""
        grid = np.arange(batch_size).reshape(-1, self.ranks, self.micro_batch_size)
        return grid[:, self.rank]


def sampler_of(job: TrainJob, stores: Mapping[str, TokenStore]) -> Sampler:
    """Return the sampler of a job over its opened stores."""
    length = job.training.sequence_length
    windows = {name: store.num_windows(length) for name, store in stores.items()}
    return Sampler(job.schedule, windows, job.seed, job.slices)


class Feed:
    """Reader of a job's steps for one rank; it counts the windows that it reads.

    Args:
        read_before: Windows [stage][source] that all ranks read before this feed was made.
    """

    def __init__(
        self,
        job: TrainJob,
        share: Share,
        read_before: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        stores = {name: TokenStore.open(job.stores[name]) for name in job.schedule.sources}
        self.eos_id = _end_token(job, stores)
        length = job.training.sequence_length
        self._reader = BatchReader(sampler_of(job, stores), stores, length)
        self._batch_size = job.training.batch_size
        self._rows = share.rows(self._batch_size)
        # The counts of all ranks are summed, so only the first one starts from the earlier count.
        before = np.array(read_before) if read_before and share.rank == 0 else None
        self.counts = WindowCounts(job.schedule, before)

    def step(self, step: int) -> Tokens:
        """Return the tokens [micro-batches, samples, length + 1] of step ``step``, counted from 0."""
        tokens, placement = self._read(step)
        self.counts.add(placement)
        return tokens

    def steps(self, first: int, stop: int, *, ahead: int = 0) -> Iterator[Tokens]:
        """Yield the steps ``first`` to ``stop - 1``; a thread reads ``ahead`` of them in advance.

        A step is counted when it is yielded, so that a checkpoint counts what was trained.
        """
        if not ahead:
            yield from map(self.step, range(first, stop))
            return
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed") as reader:
            coming = deque(
                reader.submit(self._read, s) for s in range(first, min(stop, first + ahead))
            )
            for step in range(first + ahead, stop + ahead):
                tokens, placement = coming.popleft().result()
                if step < stop:
                    coming.append(reader.submit(self._read, step))
                self.counts.add(placement)
                yield tokens
                if not coming:
                    return

    def _read(self, step: int) -> tuple[Tokens, Placement]:
        indices = step * self._batch_size + self._rows
        tokens, placement = self._reader.read(indices.reshape(-1))
        return tokens.reshape(*indices.shape, -1), placement


def _end_token(job: TrainJob, stores: Mapping[str, TokenStore]) -> int:
    """Return the token that ends a document, which must be the same in every store.

    Raises:
        DataError: the stores disagree, or have token ids beyond the model's embedding.
    """
    problems = [
        Problem(
            f"source.{name}",
            "token ids beyond the model's vocabulary",
            found=f"vocabulary of {store.manifest.vocab_size}",
            allowed=f"at most model.vocab_size = {job.model.vocab_size}",
        )
        for name, store in stores.items()
        if store.manifest.vocab_size > job.model.vocab_size
    ]
    ends = {name: store.manifest.eos_id for name, store in stores.items()}
    if len(set(ends.values())) != 1:
        problems.append(Problem("stores", "documents end in different tokens", found=ends))
    if problems:
        raise DataError(problems)
    return next(iter(ends.values()))
