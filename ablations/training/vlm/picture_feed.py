"""Rows with pictures, conversations and windows of text in one order, as the model takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ablations.data.manifest import StoreManifest
from ablations.data.rows.rendering import Row
from ablations.data.rows.row_store import RowStore
from ablations.data.store import TokenStore
from ablations.errors import ConfigError, DataError, Problem
from ablations.training.resume import Start
from ablations.training.rows.row_feed import RowFeed, Samples
from ablations.training.train_job import TrainJob
from ablations.training.vision import VisionSpec
from ablations.training.vlm.picture_inputs import IGNORED, PictureBlock, longest_row, pixel_values

__all__ = ["PictureFeed", "TextWindows"]

Ints = npt.NDArray[np.int64]


class TextWindows:
    """Windows of a store of plain text as rows, of which the loss counts every token but the first.

    Args:
        store: The store.
        length: Tokens of a window.
        picture_id: Id that a text may not hold, because it stands for a picture.
        other_id: Id that is read in its place.
    """

    def __init__(self, store: TokenStore, length: int, picture_id: int, other_id: int) -> None:
        self._store, self._length = store, length
        self._picture_id, self._other_id = picture_id, other_id

    def __len__(self) -> int:
        return self._store.num_windows(self._length - 1)

    def read(self, sample: int) -> tuple[Row, ...]:
        """Return the window as one row."""
        tokens = self._store.read([sample], self._length - 1)[0].astype(np.uint32)
        written = tokens == self._picture_id  # "<image>" in a text shows no picture
        mask = ~written
        tokens[written] = self._other_id
        mask[0] = False
        return (Row(tokens, mask),)

    def lengths(self, *, supervised: bool) -> Ints:
        """Return the tokens of each window, [windows]; those that the loss counts where ``supervised``."""
        return np.full(len(self), self._length - 1 if supervised else self._length, dtype=np.int64)


class _Rows:
    """Rows of a source, of which the loss counts answers, or all tokens that are no picture."""

    def __init__(self, store: RowStore, answers: bool) -> None:
        self._store, self._answers = store, answers

    def __len__(self) -> int:
        return len(self._store)

    def read(self, sample: int) -> tuple[Row, ...]:
        """Return the row of a sample."""
        (row,) = self._store.read(sample)
        if self._answers:
            return (row,)
        return (Row(row.tokens, np.ones_like(row.mask), row.pictures),)

    def lengths(self, *, supervised: bool) -> Ints:
        """Return the tokens of each row, [rows]; those that the loss counts where ``supervised``."""
        found = self._store.lengths(supervised=supervised and self._answers)
        return found - self._store.shown() if supervised and not self._answers else found


class PictureFeed(RowFeed):
    """Sample index → inputs of the model, and counts of the rows that were trained on.

    Args:
        job: The training, with its vision part.
        start: Counts of a resumed run go on from its.
        pad_id: Id that fills the ends of shorter rows.

    Raises:
        DataError: a store is damaged.
        ConfigError: a store does not fit the method, or has rows that are too long with their pictures.
    """

    def __init__(self, job: TrainJob, start: Start, pad_id: int) -> None:
        assert job.method.vision is not None
        assert job.tokenizer is not None
        self._vision, self._pad_id = job.method.vision, pad_id
        self.block = PictureBlock.of(job.tokenizer, job.method.vision.tokens_per_picture)
        super().__init__(job, start)

    def open_stores(self) -> Mapping[str, Samples]:
        """Return the samples of each source.

        Raises:
            ConfigError: a store does not fit the method, or has rows that are too long.
        """
        stores: dict[str, Samples] = {}
        problems: list[Problem] = []
        length = self.job.training.sequence_length
        for name in self.job.schedule.sources:
            folder = self.job.stores[name]
            if StoreManifest.read(folder).rows is None:
                text = TokenStore.open(folder)
                ids = self.block.picture_id, self._pad_id
                stores[name] = TextWindows(text, length, *ids)
                continue
            rows = RowStore.open(folder)
            problems += _problems(name, rows, self._vision, length)
            stores[name] = _Rows(rows, self.job.method.supervises_answers)
        if problems:
            raise ConfigError(problems)
        return stores

    def counted_lengths(self, store: Samples) -> Ints:
        """Return the tokens of each sample that the loss counts, [samples]."""
        return store.lengths(supervised=True)

    def batch(self, samples: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the inputs of a batch: ids, mask and labels [n, longest], pictures, and the samples.

        Raises:
            DataError: a row has another number of pictures than of their tokens.
        """
        rows = [row for (row,) in self.read(samples)]
        pairs = [self.block.expand(row.tokens, row.mask) for row in rows]
        for row, sample in zip(rows, samples, strict=True):
            if int((row.tokens == self.block.picture_id).sum()) != row.pictures.shape[0]:
                raise DataError(
                    Problem(f"sample {sample}", "has another number of pictures than of <image>")
                )
        longest = max(ids.size for ids, _ in pairs)
        filled: dict[str, Ints] = {
            "input_ids": np.full((len(rows), longest), self._pad_id, dtype=np.int64),
            "attention_mask": np.zeros((len(rows), longest), dtype=np.int64),
            "labels": np.full((len(rows), longest), IGNORED, dtype=np.int64),
        }
        for place, (ids, labels) in enumerate(pairs):
            filled["input_ids"][place, : ids.size] = ids
            filled["attention_mask"][place, : ids.size] = 1
            filled["labels"][place, : ids.size] = labels
        made = {name: torch.from_numpy(values) for name, values in filled.items()}
        if (pixels := pixel_values([row.pictures for row in rows])) is not None:
            made["pixel_values"] = pixels
        return {**made, "samples": torch.tensor(samples)}


def _problems(name: str, store: RowStore, vision: VisionSpec, length: int) -> list[Problem]:
    """Return what keeps a source of rows from being trained on."""
    counts: Any = store.counts
    if counts.kind == "preferences":
        return [
            Problem(
                f"source.{name}",
                "method=vlm trains on pictures, conversations and plain text",
                found=counts.kind,
                do="take another source, or another method",
            )
        ]
    problems = []
    if counts.picture_size not in (None, vision.image_size):
        problems.append(
            Problem(
                f"source.{name}.rows.picture_size",
                "differs from method.vision.image_size",
                found=counts.picture_size,
                allowed=vision.image_size,
                do="prepare the source with the size that the model takes",
            )
        )
    if (longest := longest_row(store, vision)) > length:
        problems.append(
            Problem(
                "training.sequence_length",
                f"shorter than the longest row of {name!r} with its pictures",
                found=length,
                allowed=f">= {longest}",
                do="rows are cut when they are prepared: lower source.rows.max_tokens or max_pictures, "
                "or raise it",
            )
        )
    return problems
