"""The rows of a training in their order, as collators take them, and what of them was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ablations.data.rows.rendering import Row
from ablations.data.rows.row_store import RowStore
from ablations.errors import ConfigError, Problem
from ablations.mixture.row_order import RowOrder
from ablations.training.resume import Start
from ablations.training.train_job import TrainJob

__all__ = ["IGNORED", "RowFeed", "Samples"]

IGNORED = -100
"""Label of a token that the loss does not count."""

Ints = npt.NDArray[np.int64]
Counts = tuple[tuple[int, ...], ...]


class Samples(Protocol):
    """Samples of one source, as a feed reads them."""

    def __len__(self) -> int: ...

    def read(self, sample: int) -> tuple[Row, ...]:
        """Return the rows of a sample."""

    def lengths(self, *, supervised: bool) -> Ints:
        """Return the tokens of each sample, [samples]; of answers alone where ``supervised``."""


class RowFeed:
    """Sample index → row, and counts of the rows that were trained on.

    Args:
        job: The training.
        start: Counts of a resumed run go on from its.

    Raises:
        DataError: a store is damaged, or holds plain text.
        ConfigError: a store holds what the method does not train on, or rows that are too long.
    """

    def __init__(self, job: TrainJob, start: Start) -> None:
        self.job = job
        names = job.schedule.sources
        stores = self.open_stores()
        lengths = {name: self.counted_lengths(stores[name]) for name in names}
        self.order = RowOrder(
            job.schedule,
            {name: len(store) for name, store in stores.items()},
            job.seed,
            lengths=lengths if job.method.unit == "tokens" else None,
            slices=job.slices,
        )
        self._stores = [stores[name] for name in names]
        self._lengths = [lengths[name] for name in names]
        shape = (len(job.schedule.stages), len(names))
        self._rows = _array(start.windows, shape)
        self._tokens = _array(start.supervised, shape)

    def open_stores(self) -> Mapping[str, Samples]:
        """Return the samples of each source of the job.

        Raises:
            DataError: a store is damaged, or holds plain text.
            ConfigError: a store holds what the method does not train on, or rows that are too long.
        """
        names = self.job.schedule.sources
        stores = {name: RowStore.open(self.job.stores[name]) for name in names}
        _check(self.job, stores)
        return stores

    def counted_lengths(self, store: Samples) -> Ints:
        """Return the tokens of each sample that the loss counts, [samples]."""
        return store.lengths(supervised=self.job.method.supervises_answers)

    def read(self, samples: Sequence[int]) -> list[tuple[Row, ...]]:
        """Return the rows of each sample: one of a conversation, two of a pair."""
        placed = self.order.locate(samples)
        found = zip(placed.source.tolist(), placed.window.tolist(), strict=True)
        return [self._stores[source].read(row) for source, row in found]

    def conversations(self, samples: Sequence[int]) -> list[dict[str, Ints]]:
        """Return token ids and labels of each sample, as TRL's collator of SFT takes them."""
        every = not self.job.method.supervises_answers
        rows = [row for (row,) in self.read(samples)]
        return [
            {
                "input_ids": row.tokens.astype(np.int64),
                "labels": np.where(row.mask | every, row.tokens.astype(np.int64), IGNORED),
            }
            for row in rows
        ]

    def pairs(self, samples: Sequence[int]) -> list[dict[str, list[int]]]:
        """Return the token ids of prompt and answers of each sample, as TRL's collator of DPO takes them."""
        made = []
        for chosen, rejected in self.read(samples):
            begin = [int(np.argmax(row.mask)) for row in (chosen, rejected)]
            made.append(
                {
                    "prompt_ids": chosen.tokens[: begin[0]].tolist(),
                    "chosen_ids": chosen.tokens[begin[0] :].tolist(),
                    "rejected_ids": rejected.tokens[begin[1] :].tolist(),
                }
            )
        return made

    def count(self, samples: Sequence[int]) -> None:
        """Count samples that a step was trained on."""
        placed = self.order.locate(samples)
        np.add.at(self._rows, (placed.stage, placed.source), 1)
        tokens = [
            int(self._lengths[source][row])
            for source, row in zip(placed.source.tolist(), placed.window.tolist(), strict=True)
        ]
        np.add.at(self._tokens, (placed.stage, placed.source), tokens)

    def counts(self, device: torch.device) -> tuple[Counts, Counts]:
        """Return rows and counted tokens [stage][source] that all ranks trained on together.

        A resumed run begins with the counts of all ranks in the first one.
        """
        whole = np.stack([self._rows, self._tokens])
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            summed = torch.from_numpy(whole).to(device)
            torch.distributed.all_reduce(summed)
            whole = summed.cpu().numpy()
        rows, tokens = whole.tolist()
        return tuple(map(tuple, rows)), tuple(map(tuple, tokens))

    def only_on_the_first_rank(self, rank: int) -> None:
        """Let other ranks count from zero: the first has what was counted before."""
        if rank:
            self._rows[:] = 0
            self._tokens[:] = 0


def _array(counts: Counts | None, shape: tuple[int, int]) -> Ints:
    if counts is None:
        return np.zeros(shape, dtype=np.int64)
    return np.array(counts, dtype=np.int64).reshape(shape)


def _check(job: TrainJob, stores: dict[str, RowStore]) -> None:
    """Refuse stores that the method cannot train on."""
    wanted = "preferences" if job.method.kind == "dpo" else "conversations"
    problems: list[Problem] = []
    for name, store in stores.items():
        counts: Any = store.counts
        if counts.kind != wanted:
            problems.append(
                Problem(
                    f"source.{name}",
                    f"method={job.method.kind} trains on {wanted}",
                    found=counts.kind,
                    do="take another source, or another method",
                )
            )
        if counts.longest > job.training.sequence_length:
            problems.append(
                Problem(
                    "training.sequence_length",
                    f"shorter than the longest row of {name!r}",
                    found=job.training.sequence_length,
                    allowed=f">= {counts.longest}",
                    do="rows are cut when they are prepared: lower source.rows.max_tokens, or raise it",
                )
            )
    if problems:
        raise ConfigError(problems)
