"""The sampler: what sample i of a schedule is, as a pure function of (schedule, seed, i).

    i ──▶ stage ──▶ source ──▶ how many samples of that source came before ──▶ epoch, window

* The source of a stage's sample j is the interval of the cumulative weights in which point j of a
  shifted van der Corput sequence falls (van der Corput 1935; base 2, the shift drawn from the seed).
  Every prefix of n samples holds each source within log2(n)/2 + 2 windows of weight · n, and the
  exact prefix count has a closed form: the bits of n cut 0..n-1 into at most 60 blocks whose points
  are evenly spaced. That count, summed over the stages before, is the source's place.
* The window is a keyed bijection of the place within its epoch (a Feistel network with cycle
  walking; Black and Rogaway 2002), so an epoch reads each window once, in an order that depends on
  the seed, the source's NAME and the epoch, but on no stored permutation.

So there is no state but i: resume, more ranks, another micro-batch and a jump to sample 5·10⁹ give
the same samples, in time that does not grow with i, tokens or steps::

    >>> stage = Stage(name="a", steps=50, mixture=Mixture({"web": 0.75, "code": 0.25}))
    >>> schedule = Schedule(stages=(stage,), sequence_length=64, batch_size=2)
    >>> sampler = Sampler(schedule, {"web": 40, "code": 1000}, seed=0)
    >>> sampler.counts(100)
    {'web': 75, 'code': 25}
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ablations.errors import ConfigError, Problem
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import Schedule, Stage

__all__ = ["Mixture", "Placement", "Sampler", "Schedule", "Stage"]

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_BITS = 60
"""Resolution of the van der Corput points; sample indices of a stage stay below 2**60."""

_ONE = 1 << _BITS

_ROUNDS = 4
"""Feistel rounds; four make a strong pseudo-random permutation (Luby and Rackoff 1988)."""

_ROUND_KEYS = [np.uint64(turn * 0x9E3779B97F4A7C15 % 2**64) for turn in range(1, _ROUNDS + 1)]
"""Multiples of the golden ratio: SplitMix64's own way to make streams from one key."""

_BLOCK = 4096
"""Samples located together where the indices asked for are scattered."""


@dataclass(frozen=True)
class Placement:
    """Origin of samples: arrays with one entry for each sample."""

    stage: npt.NDArray[np.int32]
    """Index into ``schedule.stages``."""
    source: npt.NDArray[np.int32]
    """Index into ``Sampler.sources``."""
    epoch: npt.NDArray[np.int32]
    """Number of complete passes over the source before this sample."""
    window: Ints
    """Window of the source's token store."""


class Sampler:
    """Sample index → stage, source, epoch, window.

    Args:
        schedule: Stages and their mixtures.
        windows: Windows available per source, at the schedule's sequence length.
        seed: Orders windows and shifts the van der Corput sequence.
        slices: Windows of a source that may be read (simulated epoching, Olmix section 3):
            a fixed pseudo-random subset of that size; sources not named are read whole.

    Raises:
        ConfigError: a source with a weight above zero that has no window.
    """

    def __init__(
        self,
        schedule: Schedule,
        windows: Mapping[str, int],
        seed: int,
        slices: Mapping[str, int] | None = None,
    ) -> None:
        self.schedule = schedule
        self.sources = schedule.sources
        self._windows = np.array([windows.get(name, 0) for name in self.sources], dtype=np.int64)
        self._limits = np.array(
            [
                min(size, (slices or {}).get(name, size))
                for name, size in zip(self.sources, self._windows.tolist(), strict=True)
            ],
            dtype=np.int64,
        )
        self._check()
        self._edges = np.cumsum([0] + [s.steps * schedule.batch_size for s in schedule.stages])
        self._upper = [self._cumulative(stage.mixture) for stage in schedule.stages]
        self._shifts = [_key(seed, "shift", stage) % _ONE for stage in range(len(self._upper))]
        self._epoch_keys = np.array([_key(seed, "epoch", s) for s in self.sources], np.uint64)
        self._slice_keys = np.array([_key(seed, "slice", s) for s in self.sources], np.uint64)
        self._before = self._places_before_stages()

    def _check(self) -> None:
        problems = [
            Problem(
                f"source.{name}",
                "no window to read",
                found=f"{self._windows[k]} windows of {self.schedule.sequence_length + 1} tokens",
                allowed=">= 1",
                do="prepare more text of it, shorten training.sequence_length, or give it weight 0",
            )
            for k, name in enumerate(self.sources)
            if self._limits[k] < 1
            and any(s.mixture.get(name, 0.0) > 0 for s in self.schedule.stages)
        ]
        if problems:
            raise ConfigError(problems)

    def _cumulative(self, mixture: Mixture) -> Ints:
        """Upper edges of the sources' intervals in units of 2**-60, zero-width where the weight is 0."""
        weights = np.array([mixture.get(name, 0.0) for name in self.sources], dtype=np.float64)
        edges = np.rint(np.cumsum(weights) * float(_ONE)).astype(np.int64)
        edges[np.flatnonzero(weights)[-1] :] = _ONE  # rounding must not leave a gap at the end
        return edges

    def _places_before_stages(self) -> Ints:
        """[stage, source]: samples of each source before each stage begins, and after the last."""
        before = np.zeros((len(self._upper) + 1, len(self.sources)), dtype=np.int64)
        for stage in range(len(self._upper)):
            length = int(self._edges[stage + 1] - self._edges[stage])
            before[stage + 1] = before[stage] + self._stage_counts(stage, length)
        return before

    # -------------------------------------------------------------------------------- lookups

    def __len__(self) -> int:
        return int(self._edges[-1])

    @property
    def windows(self) -> dict[str, int]:
        """Windows that an epoch of each source holds, simulated epoching included."""
        return dict(zip(self.sources, self._limits.tolist(), strict=True))

    def counts(self, n: int) -> dict[str, int]:
        """Windows of every source among samples 0..n-1, exactly."""
        return dict(zip(self.sources, self._places(n).tolist(), strict=True))

    def locate(self, indices: npt.ArrayLike) -> Placement:
        """Return the placement of every sample index; in any order, repeats allowed.

        Costs least where the indices are consecutive: what a step reads.

        Raises:
            IndexError: an index outside ``range(len(self))``.
        """
        index = np.asarray(indices, dtype=np.int64)
        if not index.size:
            few = np.empty(0, dtype=np.int32)
            return Placement(few, few, few, np.empty(0, dtype=np.int64))
        if index.min() < 0 or index.max() >= len(self):
            raise IndexError(f"sample index outside 0..{len(self) - 1}")
        if np.array_equal(index, np.arange(index[0], index[0] + index.size)):
            return self._consecutive(int(index[0]), int(index[0]) + index.size)
        blocks, which = np.unique(index // _BLOCK, return_inverse=True)
        parts = [
            self._consecutive(start, min(start + _BLOCK, len(self)))
            for start in (blocks * _BLOCK).tolist()
        ]
        return _take(parts, which * _BLOCK + index % _BLOCK)

    def rows_of(self, source: int, places: Ints) -> tuple[Ints, Ints]:
        """Return epoch and window of the samples that come ``places``-th of one source, in any stage."""
        epoch, offset = np.divmod(places, self._limits[source])
        number = np.full(places.shape, source, dtype=np.int64)
        return epoch, self._window(number, epoch, offset)

    def _consecutive(self, start: int, stop: int) -> Placement:
        """Samples ``start`` to ``stop - 1``."""
        index = np.arange(start, stop, dtype=np.int64)
        stage = np.searchsorted(self._edges[1:-1], index, side="right").astype(np.int32)
        source = np.empty(index.shape, dtype=np.int64)
        place = np.empty(index.shape, dtype=np.int64)
        for which in range(int(stage[0]), int(stage[-1]) + 1):
            mine = slice(*np.searchsorted(stage, [which, which + 1]).tolist())
            points = _shifted(index[mine] - self._edges[which], self._shifts[which])
            source[mine] = np.searchsorted(self._upper[which], points, side="right")
            place[mine] = _ranks(source[mine], self._places(int(index[mine.start])))
        epoch, offset = np.divmod(place, self._limits[source])
        window = self._window(source, epoch, offset)
        return Placement(stage, source.astype(np.int32), epoch.astype(np.int32), window)

    def _places(self, n: int) -> Ints:
        """[source]: samples of every source among samples 0..n-1."""
        stage = int(np.searchsorted(self._edges[1:-1], n, side="right"))
        places: Ints = self._before[stage] + self._stage_counts(stage, n - int(self._edges[stage]))
        return places

    def _stage_counts(self, stage: int, n: int) -> Ints:
        """[source]: how many of the first ``n`` shifted points of a stage fall to every source."""
        upper = self._upper[stage]
        edges = np.concatenate([np.zeros(1, np.int64), upper]) - self._shifts[stage]
        # Shifting the points forward is shifting the edges back, around the circle.
        below = _count_below(n, edges % _ONE) + n * (edges // _ONE)
        counts: Ints = np.diff(below)
        return counts

    def _window(self, source: Ints, epoch: Ints, offset: Ints) -> Ints:
        """Keyed bijection of the offset within each (source, epoch), then into the slice, if any."""
        keys = _mix(self._epoch_keys[source] + _mix(epoch.astype(np.uint64)))
        window = _permute(offset, self._limits[source], keys)
        sliced = np.flatnonzero(self._limits[source] < self._windows[source])
        if sliced.size:
            rows = source[sliced]
            window[sliced] = _permute(window[sliced], self._windows[rows], self._slice_keys[rows])
        return window


def _key(*parts: object) -> int:
    """Return a 64-bit key of the parts: stable over processes, machines and Python versions."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _reverse(index: Ints) -> Words:
    """Return the base-2 radical inverse of ``index`` in units of 2**-60: its low 60 bits mirrored."""
    word = index.astype(np.uint64)
    for shift, mask in (
        (1, 0x5555555555555555),
        (2, 0x3333333333333333),
        (4, 0x0F0F0F0F0F0F0F0F),
        (8, 0x00FF00FF00FF00FF),
        (16, 0x0000FFFF0000FFFF),
    ):
        step, keep = np.uint64(shift), np.uint64(mask)
        word = ((word >> step) & keep) | ((word & keep) << step)
    word = (word >> np.uint64(32)) | (word << np.uint64(32))
    return word >> np.uint64(64 - _BITS)


def _shifted(position: Ints, shift: int) -> Ints:
    """Return the van der Corput points of ``position``, moved by ``shift`` around the circle."""
    return (_reverse(position).astype(np.int64) + shift) & (_ONE - 1)


def _count_below(n: int, thresholds: Ints) -> Ints:
    """#{j < n: radical inverse of j < threshold}, for every threshold.

    Each set bit e of n contributes the block of 2**e indices that share the bits of n above e; their
    points are c, c + 2**(60-e), c + 2·2**(60-e), … with c the mirror image of the shared bits.
    """
    total = np.zeros(thresholds.shape, dtype=np.int64)
    for bit in range(n.bit_length()):
        if n >> bit & 1:
            start = (n >> (bit + 1)) << (bit + 1)
            first = int(f"{start:0{_BITS}b}"[::-1], 2)
            spacing = _BITS - bit
            below = (thresholds - first + ((1 << spacing) - 1)) >> spacing
            total += np.clip(below, 0, 1 << bit)
    return total


def _ranks(source: Ints, start: Ints) -> Ints:
    """Return the running number of every entry among those of its source, from ``start[source]`` on."""
    order = np.argsort(source, kind="stable")
    first = np.searchsorted(source[order], np.arange(start.size))
    ranks = np.empty(source.shape, dtype=np.int64)
    ranks[order] = np.arange(source.size) - first[source[order]]
    return ranks + start[source]


def _take(parts: list[Placement], rows: Ints) -> Placement:
    return Placement(
        *(
            np.concatenate([getattr(part, name) for part in parts])[rows]
            for name in ("stage", "source", "epoch", "window")
        )
    )


def _permute(values: Ints, sizes: Ints, keys: Words) -> Ints:
    """Entry by entry, the image of ``values`` under the bijection of 0..sizes-1 that ``keys`` names.

    A balanced Feistel network over the smallest even number of bits that holds the size; values that
    land outside walk on until they land inside (fewer than four steps on average).
    """
    # Bits of size - 1, exactly: frexp's exponent is right up to 2**53 windows.
    halves = np.maximum(1, (np.frexp((sizes - 1).astype(np.float64))[1] + 1) // 2).astype(np.uint64)
    out = _feistel(values.astype(np.uint64), halves, keys)
    limits = sizes.astype(np.uint64)
    while True:
        outside = np.flatnonzero(out >= limits)
        if not outside.size:
            return out.astype(np.int64)
        out[outside] = _feistel(out[outside], halves[outside], keys[outside])


def _feistel(word: Words, halves: Words, keys: Words) -> Words:
    mask = (np.uint64(1) << halves) - np.uint64(1)
    left, right = word >> halves, word & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ (_mix(right ^ (keys + _ROUND_KEYS[turn])) & mask)
    return (left << halves) | right


def _mix(word: Words) -> Words:
    """Return SplitMix64's finaliser (Steele, Lea, Flood 2014): every output bit needs every input bit."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
