"""Rows with pictures as a vision-language model takes them.

    a row in the store      …  <image>  …                         one token a picture
    as the model takes it   …  <around> <global> <image>·n <around>  …    n by the vision part

The markers are those that SmolVLM's processor writes around a picture that is not divided. The loss counts
none of these tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ablations.data.rows.chat_template import picture_tokens
from ablations.errors import DataError, Problem

if TYPE_CHECKING:
    import torch

    from ablations.data.rows.row_store import RowStore
    from ablations.training.vision import VisionSpec

__all__ = ["IGNORED", "PictureBlock", "longest_row", "pixel_values"]

IGNORED = -100
"""Label of a token that the loss does not count."""

Ints = npt.NDArray[np.int64]
Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class PictureBlock:
    """Tokens that stand for one picture."""

    picture_id: int
    """Id of ``<image>``: in a store the picture, for the model one of its tokens."""
    ids: tuple[int, ...]
    """All of the block."""

    @classmethod
    def of(cls, tokenizer: Path, tokens_per_picture: int) -> PictureBlock:
        """Return the block of a tokenizer's folder.

        Raises:
            DataError: the tokenizer has no tokens for pictures.
        """
        found = picture_tokens(tokenizer)
        if found is None:
            raise DataError(
                Problem(
                    f"tokenizer {tokenizer.name}",
                    "has no tokens for pictures",
                    do="take one with tokenizer.chat.picture, such as tokenizer=demo_vision",
                )
            )
        inside = (found.picture_id,) * tokens_per_picture
        ids = (found.around_id, found.global_id, *inside, found.around_id)
        return cls(picture_id=found.picture_id, ids=ids)

    @property
    def added(self) -> int:
        """Return the tokens that a row grows by with each picture."""
        return len(self.ids) - 1

    def expand(self, tokens: npt.ArrayLike, mask: npt.ArrayLike) -> tuple[Ints, Ints]:
        """Return ids and labels of a row.

        Args:
            tokens: Ids [n] with one ``<image>`` for each picture.
            mask: True [n] where the loss counts the token.

        Returns:
            Ids and labels [n + added · pictures]; labels are ``IGNORED`` where the loss does not count.
        """
        ids = np.asarray(tokens, dtype=np.int64)
        labels = np.where(np.asarray(mask, dtype=bool), ids, IGNORED)
        shown = ids == self.picture_id
        if not shown.any():
            return ids, labels
        times = np.where(shown, len(self.ids), 1)
        ids, labels = np.repeat(ids, times), np.repeat(labels, times)
        starts = (np.cumsum(times) - times)[shown]
        places = starts[:, None] + np.arange(len(self.ids))
        ids[places] = self.ids
        labels[places] = IGNORED
        return ids, labels


def longest_row(store: RowStore, vision: VisionSpec) -> int:
    """Return the tokens of the longest row of a store, with those of its pictures."""
    lengths = store.lengths(supervised=False) + (vision.block_tokens - 1) * store.shown()
    return int(lengths.max(initial=0))


def pixel_values(pictures: Sequence[Pictures]) -> torch.Tensor | None:
    """Return the pictures of a batch as the model takes them; None if there are none.

    Args:
        pictures: Of each row, uint8 [n, 3, S, S].

    Returns:
        float32 [1, pictures of the batch, 3, S, S] from -1 to 1, in the order of their tokens: Idefics3's
        (x / 255 - 0.5) / 0.5. No pixel becomes 0: the model leaves out pictures of zeros as padding.
    """
    import torch

    shown = [one for one in pictures if one.shape[0]]
    if not shown:
        return None
    stacked = torch.from_numpy(np.concatenate(shown))
    return stacked.float().div_(127.5).sub_(1.0)[None]
