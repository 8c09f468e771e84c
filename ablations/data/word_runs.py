"""Filter before a search for n-grams of words: rejects most texts by their bytes, and none that holds one.

A run is a longest sequence of ASCII letters and underscores, in lower case. Digits, marks and all characters
beyond ASCII end a run. Equal words have equal runs, and two words never share one, so a text that contains
an n-gram of words contains the n-gram's runs side by side. Of each n-gram 8 neighbouring runs are looked for
(4, 2 or 1 where it has fewer), those whose words are rarest among the items. An n-gram without a run, as in
other scripts, switches the filter off.

The bytes of a few hundred texts are taken at once: letters, edges of runs, and 16 bytes of each run as two
integers, from which the hashes of neighbours are sums.

    >>> words, ids = ["the", "cat", "sat", "on", "mat"], np.array([0, 1, 2, 3, 0, 4])
    >>> find = RunFilter(words, ids, np.array([0]), np.array([6]))
    >>> find.may_hold(["The cat, sat on -- the mat", "the cat slept on the mat"]).tolist()
    [True, False]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["RunFilter"]

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_LENGTHS = (8, 4, 2, 1)
"""Numbers of neighbouring runs that are looked for."""

_LETTERS = bytes(
    ord(chr(byte).lower()) if chr(byte).isascii() and (chr(byte).isalpha() or byte == 95) else 0
    for byte in range(256)
)
_BECOME_ASCII = ("\u0130", "\u212a")
"""The characters beyond ASCII whose lower case has an ASCII letter: a text with one is not rejected."""

_WIDTH = 8
_FIRST, _SECOND, _SIZE = (
    np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
)
_NEIGHBOUR = {1: np.uint64(0xD6E8FEB86659FD93), 2: np.uint64(0xA0761D6478BD642F)}
_NEIGHBOUR[4] = np.uint64(0xE7037ED1A0B428DB)
"""Odd multipliers; products wrap."""

_KEPT = np.array([(1 << (8 * size)) - 1 for size in range(_WIDTH + 1)], dtype=np.uint64)
"""Masks of the first bytes of a little-endian integer."""

_FILTER_BITS = 25

_NONE = np.zeros(0, dtype=np.int64)

_CHUNK = 1 << 17
"""Bytes that are hashed at once."""


class RunFilter:
    """Filter of texts that may hold one of a set of n-grams.

    Args:
        words: The vocabulary, in lower case.
        ids: Words of all items, one item after another, by their places in the vocabulary.
        places: First word of each n-gram among ``ids``.
        lengths: Number of words of each.
    """

    def __init__(self, words: Sequence[str], ids: Places, places: Places, lengths: Places) -> None:
        content = [word.encode(errors="surrogatepass") for word in words]
        hashes, ends = _runs(b" ".join(content))
        sizes = np.array([len(word) + 1 for word in content], dtype=np.int64)
        first = np.searchsorted(ends, np.concatenate([[0], np.cumsum(sizes)]), side="right")
        # The runs of every word, one word after another.
        counts = np.diff(first)[ids]
        begins = np.concatenate([[0], np.cumsum(counts)])
        which = np.repeat(first[:-1][ids] - begins[:-1], counts) + np.arange(begins[-1])
        self._rejects = bool((begins[places + lengths] > begins[places]).all())
        self._tables = _tables(hashes, which, begins[places], begins[places + lengths])

    def may_hold(self, texts: Sequence[str]) -> Flags:
        """Return for each text False if it holds none of the n-grams; True says nothing."""
        found = np.ones(len(texts), dtype=np.bool_)
        if self._rejects:
            parts = [text.encode(errors="surrogatepass") for text in texts]
            last = np.cumsum([len(part) + 1 for part in parts])
            # A part that stays in the processor's cache takes three quarters of the time.
            size = int(last[-1]) if parts else 0
            chunks = np.searchsorted(last, np.arange(_CHUNK, size, _CHUNK)).tolist()
            bounds = sorted({0, *chunks, len(parts)})
            for start, stop in itertools.pairwise(bounds):
                found[start:stop] = self._hold(parts[start:stop])
            for character in _BECOME_ASCII:
                found |= np.array([character in text for text in texts], dtype=np.bool_)
        return found

    def _hold(self, parts: Sequence[bytes]) -> Flags:
        """Return for each text, in UTF-8, whether it has the runs of one of the n-grams."""
        hashes, ends = _runs(b"\n".join(parts))
        sums, hits = dict(_neighbours(hashes)), []
        for length, keys, maybe in self._tables:
            grams = sums[length]
            shift = np.uint64(64 - (maybe.size.bit_length() - 1))
            places = np.flatnonzero(maybe[grams >> shift])
            asked = grams[places]
            at = np.minimum(np.searchsorted(keys, asked), keys.size - 1)
            hits.append(ends[places[keys[at] == asked]])
        last = np.cumsum([len(part) + 1 for part in parts])
        found = np.zeros(len(parts), dtype=np.bool_)
        # A few neighbours begin in one text and end in the next.
        found[np.searchsorted(last, np.concatenate([_NONE, *hits]), side="right")] = True
        return found


def _runs(content: bytes) -> tuple[Hashes, Places]:
    """Return a hash and the end of every run of UTF-8 bytes; of long runs the first 16 bytes count."""
    buffer = content.translate(_LETTERS) + bytes(2 * _WIDTH)
    letters = np.frombuffer(buffer, dtype=np.uint8) != 0
    edges = np.flatnonzero(letters[1:] != letters[:-1]) + 1
    if letters[0]:
        edges = np.concatenate([[0], edges])
    starts, ends = edges[0::2], edges[1::2]
    # Eight bytes from any place on, as one integer.
    eight = np.ndarray((len(buffer) - _WIDTH + 1,), "<u8", buffer, 0, (1,))
    sizes = ends - starts
    hashes = (eight[starts] & _KEPT[np.minimum(sizes, _WIDTH)]) * _FIRST
    long = np.flatnonzero(sizes > _WIDTH)
    rest = eight[starts[long] + _WIDTH] & _KEPT[np.minimum(sizes[long] - _WIDTH, _WIDTH)]
    hashes[long] += rest * _SECOND
    hashes += sizes.astype(np.uint64) * _SIZE
    return hashes ^ (hashes >> np.uint64(29)), ends


def _neighbours(hashes: Hashes) -> list[tuple[int, Hashes]]:
    """Return (number, hash of that many neighbouring runs from each run on) for each of ``_LENGTHS``."""
    found, sums = [(1, hashes * _FIRST)], hashes
    for length, power in _NEIGHBOUR.items():
        sums = sums[: max(0, sums.size - length)] * power + sums[length:]
        found.append((2 * length, sums * _FIRST))
    return found


def _tables(
    hashes: Hashes, which: Places, start: Places, stop: Places
) -> list[tuple[int, Hashes, Flags]]:
    """Return (number of runs, their hashes in order, filter of their first bits) for the n-grams.

    Args:
        hashes: Hash of every run of the vocabulary.
        which: Runs of all items by their places among them.
        start: First run of each n-gram among ``which``.
        stop: First run behind it.
    """
    times = np.bincount(which, minlength=hashes.size)
    common = np.concatenate([[0.0], np.cumsum(np.log(np.maximum(times, 1))[which])])
    sums, tables, most = dict(_neighbours(hashes[which])), [], stop - start + 1
    for runs in _LENGTHS:
        own = (stop - start >= runs) & (stop - start < most)
        most = np.full_like(start, runs)
        if own.any():
            places = _rarest(common, start[own], stop[own] - runs, runs)
            keys = np.unique(sums[runs][places])
            bits = int(np.clip(np.ceil(np.log2(16 * keys.size)), 10, _FILTER_BITS))
            maybe = np.zeros(1 << bits, dtype=np.bool_)
            maybe[keys >> np.uint64(64 - bits)] = True
            tables.append((runs, keys, maybe))
    return tables


def _rarest(common: npt.NDArray[np.float64], first: Places, last: Places, runs: int) -> Places:
    """Return for each n-gram the place, ``first`` to ``last``, whose ``runs`` runs are rarest."""
    score = common[runs:] - common[:-runs]
    best, least = first.copy(), score[first]
    for offset in range(1, int((last - first).max()) + 1):
        place = np.minimum(first + offset, last)
        better = score[place] < least
        best[better], least[better] = place[better], score[place[better]]
    return best
