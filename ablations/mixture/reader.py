"""Batches of tokens: the sampler's placements, read from the token stores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ablations.data.store import TokenStore
from ablations.mixture.sampler import Placement, Sampler

__all__ = ["BatchReader"]

_LOOK_AHEAD = 1024
"""Samples placed together: placing costs some 0.5 ms however few are asked for."""


class BatchReader:
    """Sample indices → windows of tokens.

    Args:
        sampler: Places the samples.
        stores: A token store for every source of the sampler.
        sequence_length: Trained tokens of a sample; a window holds one more.
    """

    def __init__(
        self, sampler: Sampler, stores: Mapping[str, TokenStore], sequence_length: int
    ) -> None:
        self._sampler = sampler
        self._stores = [stores[name] for name in sampler.sources]
        self._sequence_length = sequence_length
        self._start = 0
        self._ahead: Placement | None = None

    def read(self, indices: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Placement]:
        """Tokens [n, sequence_length + 1] of the samples, and where each came from."""
        index = np.asarray(indices, dtype=np.int64)
        placement = self._place(index)
        tokens = np.empty((index.size, self._sequence_length + 1), dtype=np.int64)
        for source in np.unique(placement.source).tolist():
            mine = np.flatnonzero(placement.source == source)
            windows = placement.window[mine]
            tokens[mine] = self._stores[source].read(windows, self._sequence_length)
        return tokens, placement

    def _place(self, index: npt.NDArray[np.int64]) -> Placement:
        """Return the placements, from those made ahead where they cover the request."""
        first, last = int(index.min()), int(index.max())
        if last - first >= _LOOK_AHEAD:
            return self._sampler.locate(index)
        ahead = self._ahead
        if ahead is None or first < self._start or last >= self._start + ahead.window.size:
            stop = min(first + max(_LOOK_AHEAD, last + 1 - first), len(self._sampler))
            if last >= stop:
                raise IndexError(f"sample index outside 0..{len(self._sampler) - 1}")
            self._start = first
            ahead = self._ahead = self._sampler.locate(np.arange(first, stop))
        rows = index - self._start
        return Placement(
            ahead.stage[rows], ahead.source[rows], ahead.epoch[rows], ahead.window[rows]
        )
