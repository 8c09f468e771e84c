"""The order of rows in a training: which row of which source sample i is.

Rows differ in length, and a post-training reads few of them: shares must be exact within one row. So the
order is made once, when a run begins, as a number for each sample; it depends on nothing but the schedule,
the stores and the seed.

* In shares of samples, sample k of a source with weight w may come from the (k / w)-th sample of its stage
  on, and is due at the ((k + 1) / w)-th; of those that may come, the one that is due first comes. This is
  Pfair scheduling on one processor (Baruah and others 1996): each source always has its share within one.
* In shares of tokens, the next sample comes from the source whose tokens lag most behind its weight (stride
  scheduling, Waldspurger and Weihl 1995): the tokens of a source stay within one row of its share.

Which row of its source a sample is, the sampler decides (:mod:`ablations.mixture.sampler`): each epoch reads
each row once, in an order of the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ablations.mixture.sampler import Placement, Sampler
from ablations.mixture.schedule import Schedule

__all__ = ["RowOrder"]

Ints = npt.NDArray[np.int64]

_BLOCK = 4096
"""Rows of a source that are placed together."""

_TINY = 1e-9
"""Rounding of weight · samples: a sample that is due exactly now may come."""


class RowOrder:
    """Sample index → stage, source, epoch, row.

    Args:
        schedule: Stages and their mixtures, in samples.
        rows: Source → rows that it has.
        seed: Orders rows and sources.
        lengths: Source → tokens of each of its rows, for shares of tokens; None = shares of samples.
        slices: Rows of a source that may be read, as the sampler takes them.
    """

    def __init__(
        self,
        schedule: Schedule,
        rows: Mapping[str, int],
        seed: int,
        *,
        lengths: Mapping[str, Ints] | None = None,
        slices: Mapping[str, int] | None = None,
    ) -> None:
        self._sampler = Sampler(schedule, rows, seed, slices)
        self.schedule, self.sources = schedule, self._sampler.sources
        self._placed = self._place(lengths, seed)

    def __len__(self) -> int:
        return len(self._sampler)

    def locate(self, indices: npt.ArrayLike) -> Placement:
        """Return the placement of each sample index; ``window`` is the row of its source.

        Raises:
            IndexError: an index outside ``range(len(self))``.
        """
        index = np.asarray(indices, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"sample index outside 0..{len(self) - 1}")
        placed = self._placed
        return Placement(
            placed.stage[index], placed.source[index], placed.epoch[index], placed.window[index]
        )

    def _place(self, lengths: Mapping[str, Ints] | None, seed: int) -> Placement:
        """Return the placement of every sample."""
        streams = [
            _Stream(self._sampler, number, None if lengths is None else lengths[name])
            for number, name in enumerate(self.sources)
        ]
        # Where each source stands in its first row: other seeds begin with other sources.
        phases = np.random.default_rng(seed).random(len(streams)).tolist()
        count, at = len(self), 0
        stage, source, epoch = (np.empty(count, dtype=np.int32) for _ in range(3))
        window = np.empty(count, dtype=np.int64)
        for number, part in enumerate(self.schedule.stages):
            weights = [part.mixture.get(name, 0.0) for name in self.sources]
            used = {k: weight for k, weight in enumerate(weights) if weight > 0}
            last = at + part.steps * self.schedule.batch_size
            by_tokens = lengths is not None
            chosen = (
                _by_tokens(used, streams, phases) if by_tokens else _by_samples(used, last - at)
            )
            while at < last:
                source[at] = which = next(chosen)
                epoch[at], window[at] = streams[which].take()
                stage[at] = number
                at += 1
        return Placement(stage, source, epoch, window)


def _by_samples(weights: Mapping[int, float], count: int) -> Iterator[int]:
    """Yield the source of each of ``count`` samples, in shares of samples."""
    taken = dict.fromkeys(weights, 0)
    for place in range(count):
        ready = [k for k, weight in weights.items() if taken[k] <= weight * (place + 1) - _TINY]
        chosen = min(ready or weights, key=lambda k: (taken[k] + 1) / weights[k])
        taken[chosen] += 1
        yield chosen


def _by_tokens(
    weights: Mapping[int, float], streams: Sequence[_Stream], phases: Sequence[float]
) -> Iterator[int]:
    """Yield the source of each sample, in shares of tokens."""
    done = {k: phases[k] * streams[k].mean / weight for k, weight in weights.items()}
    while True:
        chosen = min(done, key=done.__getitem__)
        done[chosen] += streams[chosen].length / weights[chosen]
        yield chosen


class _Stream:
    """The rows of one source in the sampler's order, with their lengths."""

    def __init__(self, sampler: Sampler, source: int, lengths: Ints | None) -> None:
        self._sampler, self._source, self._lengths = sampler, source, lengths
        self.mean = 1.0 if lengths is None else float(lengths.mean())
        self._start = self._at = 0
        self._block: list[tuple[int, int]] = []

    @property
    def length(self) -> int:
        """Return the tokens of the source's next sample."""
        self._fill()
        return 1 if self._lengths is None else int(self._lengths[self._block[self._at][1]])

    def take(self) -> tuple[int, int]:
        """Return epoch and row of the source's next sample, and go on."""
        self._fill()
        self._at += 1
        return self._block[self._at - 1]

    def _fill(self) -> None:
        if self._at == len(self._block):
            places = np.arange(self._start, self._start + _BLOCK)
            epochs, rows = self._sampler.rows_of(self._source, places)
            self._block = list(zip(epochs.tolist(), rows.tolist(), strict=True))
            self._start, self._at = self._start + _BLOCK, 0
