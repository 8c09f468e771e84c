"""Contamination: which task items stand in a source's text, word for word or nearly so.

The rule of the SmolLM2 paper (arXiv 2502.02737): an item is contaminated by a document that shares a
13-word n-gram with it and whose longest common subsequence with it covers at least 0.6 of the
item's words. Numbers count as one word, since the same problem with other numbers is the same
problem; the subsequence is sought around the shared n-gram, since in a long document a subsequence of
common words is always found. Items shorter than 13 words are sought whole, down to 8 words; below
that a match proves nothing, and the report counts them as not checked.

The tasks are hashed once. Documents stream past, some hundreds at a time. Most are rejected by their bytes
(:mod:`ablations.data.word_runs`); in the others a dictionary look-up a word, then
array operations alone, until an n-gram is found.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ablations.data.word_runs import RunFilter
from ablations.errors import DataError, Problem, unknown_name
from ablations.files import read_json_lines

__all__ = [
    "Hit",
    "OverlapRule",
    "Scan",
    "TaskIndex",
    "TaskReport",
    "item_text",
    "read_tasks",
    "scan",
    "store_texts",
]

_WORDS = re.compile(r"\w+")
_NUMBER = re.compile(r"\b\d+(?:[.,]\d+)*\b")
_MASK = "0"
_END = "\0"
_WORDS_AND_ENDS = re.compile(rf"\w+|{_END}")
_EXAMPLES = 5
_FILTER_BITS = 25
_BATCH_DOCUMENTS = 256
# An odd 64-bit multiplier; sums of id * POWER**position wrap, and equal n-grams have equal sums.
_POWER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class OverlapRule:
    """Rule for counting an item as contaminated."""

    words: int = 13
    """Length of the n-gram that a document must share with the item."""
    fewest_words: int = 8
    """Items shorter than this are not checked."""
    common_share: float = 0.6
    """Least share of the item's words in the longest common subsequence."""
    mask_numbers: bool = True
    """All numbers are the same word."""


Ids = npt.NDArray[np.uint64]


class Hit(NamedTuple):
    """An item found in a document."""

    task: str
    item: str
    share: float
    """Share of the item's words in the longest common subsequence."""


@dataclass(kw_only=True)
class TaskReport:
    """Items of one task that occur in a source."""

    task: str
    items: int
    checked: int
    """Items long enough to be checked."""
    contaminated: set[str] = field(default_factory=set)
    """Ids of the items found."""
    documents: int = 0
    """Documents that contain an item."""
    examples: list[tuple[str, str]] = field(default_factory=list)
    """(item, document), the first few."""

    def add(self, item: str, document: str) -> None:
        """Count an item that was found in a document."""
        if item not in self.contaminated and len(self.examples) < _EXAMPLES:
            self.examples.append((item, document))
        self.contaminated.add(item)

    def merge(self, other: TaskReport) -> None:
        """Add what was found in other documents of the same source."""
        for item, document in other.examples:
            self.add(item, document)
        self.contaminated |= other.contaminated
        self.documents += other.documents

    @property
    def share(self) -> float:
        """Contaminated items as a share of all."""
        return len(self.contaminated) / self.items if self.items else 0.0


@dataclass(frozen=True)
class _Table:
    """The n-grams of one length: sorted hashes, the item of each, and a filter before the search."""

    length: int
    keys: Ids
    owners: npt.NDArray[np.int64]
    maybe: npt.NDArray[np.bool_]
    """Return whether any key begins with these bits. A look into a small table avoids most searches."""

    @classmethod
    def build(cls, length: int, keys: Ids, owners: npt.NDArray[np.int64]) -> _Table:
        order = np.argsort(keys, kind="stable")
        bits = int(np.clip(np.ceil(np.log2(16 * max(1, keys.size))), 10, _FILTER_BITS))
        maybe = np.zeros(1 << bits, dtype=np.bool_)
        maybe[keys >> np.uint64(64 - bits)] = True
        return cls(length, keys[order], owners[order], maybe)

    def find(self, grams: Ids) -> Iterator[tuple[int, int]]:
        """(place among ``grams``, item) of every n-gram that is a key."""
        shift = np.uint64(64 - (self.maybe.size.bit_length() - 1))
        places = np.flatnonzero(self.maybe[grams >> shift] & (grams != 0))
        first = np.searchsorted(self.keys, grams[places], side="left")
        last = np.searchsorted(self.keys, grams[places], side="right")
        for place, start, stop in zip(places.tolist(), first.tolist(), last.tolist(), strict=True):
            for owner in self.owners[start:stop].tolist():
                yield place, owner


class TaskIndex:
    """The items of some tasks, ready to be sought.

    Args:
        tasks: Task → rows of ``docs/benchmark_items.md``.
        rule: When an item counts as contaminated.
    """

    def __init__(
        self, tasks: Mapping[str, Iterable[Mapping[str, Any]]], rule: OverlapRule | None = None
    ) -> None:
        self.rule = rule or OverlapRule()
        self.sizes: dict[str, tuple[int, int]] = {}
        """Task → (items, items long enough to be checked)."""
        # Id 0 is a word that no task uses, id 1 is every number.
        self._vocabulary: dict[str, int] = {_MASK: 1} if self.rule.mask_numbers else {}
        self._names: list[tuple[str, str]] = []
        self._items: list[Ids] = []
        for task, rows in tasks.items():
            kept, before = list(rows), len(self._items)
            learnt = self._learn([item_text(row, self.rule.words) for row in kept])
            for row, ids in zip(kept, learnt, strict=True):
                if ids.size >= self.rule.fewest_words:
                    self._names.append((task, str(row["id"])))
                    self._items.append(ids)
            self.sizes[task] = (len(kept), len(self._items) - before)
        self._tables, self._filter = self._build_tables()

    def _build_tables(self) -> tuple[list[_Table], RunFilter]:
        by_length: dict[int, list[int]] = defaultdict(list)
        for position, ids in enumerate(self._items):
            by_length[min(self.rule.words, ids.size)].append(position)
        tables, parts, places, base = [], [], [], 0
        for length, positions in sorted(by_length.items()):
            ids, owners = _joined([self._items[position] for position in positions])
            grams = self._ngrams(ids, [length])[length]
            live = np.flatnonzero(grams)
            parts.append(ids)
            places.append((base + live, np.full(live.size, length)))
            base += ids.size
            tables.append(_Table.build(length, grams[live], np.array(positions)[owners[live]]))
        words = [""] * (max(self._vocabulary.values(), default=0) + 1)
        for word, number in self._vocabulary.items():
            words[number] = word
        nothing = np.zeros(0, dtype=np.int64)
        every = np.concatenate([nothing, *(part.astype(np.int64) for part in parts)])
        first, lengths = (
            np.concatenate([nothing, *(one[side] for one in places)]) for side in (0, 1)
        )
        return tables, RunFilter(words, every, first, lengths)

    def hits(self, text: str) -> list[Hit]:
        """Return the items that ``text`` contains, each once."""
        return self.hits_of_many([text])[0]

    def hits_of_many(self, texts: Sequence[str]) -> list[list[Hit]]:
        """:meth:`hits` of each text; a few hundred at a time cost the least."""
        found: list[list[Hit]] = [[] for _ in texts]
        there = np.flatnonzero(self._filter.may_hold(texts)).tolist()
        if there:
            for place, hits in zip(there, self._sought([texts[i] for i in there]), strict=True):
                found[place] = hits
        return found

    def _sought(self, texts: Sequence[str]) -> list[list[Hit]]:
        """Return the items of each text, word by word."""
        ids, owners = _joined([self._known(text) for text in texts])
        starts = np.searchsorted(owners, np.arange(len(texts) + 1))
        shares: list[dict[int, float]] = [{} for _ in texts]
        looked: dict[tuple[int, int], int] = {}
        grams = self._ngrams(ids, [table.length for table in self._tables])
        for table in self._tables:
            for place, item in table.find(grams[table.length]):
                text = int(owners[place])
                known, size = shares[text], self._items[item].size
                # Once found, or looked at from a place so near that the same words were seen.
                if known.get(item, 0.0) >= self.rule.common_share:
                    continue
                if (text, item) in looked and place - looked[text, item] < size:
                    continue
                looked[text, item] = place
                low = max(int(starts[text]), place - size)
                high = min(int(starts[text + 1]), place + table.length + size)
                common = _common_subsequence(self._items[item].tolist(), ids[low:high].tolist())
                known[item] = max(known.get(item, 0.0), common / size)
        return [
            [
                Hit(*self._names[i], share)
                for i, share in sorted(known.items())
                if self._enough(share)
            ]
            for known in shares
        ]

    def _enough(self, share: float) -> bool:
        return share >= self.rule.common_share

    def _learn(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text's words, new words included."""
        known = self._vocabulary
        ids = defaultdict(itertools.count(len(known) + 2).__next__, known)
        ids[_END] = 0
        # One text for all items: thousands of short calls took most of the time.
        whole = f"\n{_END}\n".join(text.replace(_END, " ") for text in texts)
        words = _WORDS_AND_ENDS.findall(self._plain(whole))
        found = np.fromiter(map(ids.__getitem__, words), dtype=np.uint64, count=len(words))
        del ids[_END]
        self._vocabulary = dict(ids)
        ends = np.flatnonzero(found == 0).tolist() if texts else []
        bounds = zip([0, *(end + 1 for end in ends)], [*ends, len(words)], strict=True)
        return [found[start:stop] for start, stop in bounds][: len(texts)]

    def _known(self, text: str) -> Ids:
        words, get = self._split(text), self._vocabulary.get
        known = map(get, words, itertools.repeat(0))
        return np.fromiter(known, dtype=np.uint64, count=len(words))

    def _split(self, text: str) -> list[str]:
        return _WORDS.findall(self._plain(text))

    def _plain(self, text: str) -> str:
        text = text.lower()
        return _NUMBER.sub(_MASK, text) if self.rule.mask_numbers else text

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskIndex:
        """Return the index itself, which never changes: executors copy their steps for each rank."""
        return self

    def _ngrams(self, ids: Ids, lengths: Iterable[int]) -> dict[int, Ids]:
        """Return a hash of every run of each length; 0 where a word is unknown, where two documents meet,
        and where most words are numbers: a list of numbers is no quotation."""
        unknown, numbers = (np.concatenate([[0], np.cumsum(ids == which)]) for which in (0, 1))
        # Mixing each id first keeps small ids from cancelling in the sum.
        mixed = (ids ^ (ids << np.uint64(31))) * _POWER
        total, done, found = np.zeros(ids.size, dtype=np.uint64), 0, {}
        for length in sorted(set(lengths)):
            count = max(0, ids.size - length + 1)
            for offset in range(done, length):
                total = total[:count] * _POWER + mixed[offset : offset + count]
            done = length
            dead = unknown[length:] != unknown[:count] if count else np.zeros(0, dtype=np.bool_)
            dead |= (numbers[length:] - numbers[:count] > length // 2) if count else dead
            found[length] = np.where(dead, np.uint64(0), total[:count])
        return found


def _joined(parts: Sequence[Ids]) -> tuple[Ids, npt.NDArray[np.int64]]:
    """Return the parts in one array, a zero after each, and the number of the part at every place."""
    zero = np.zeros(1, dtype=np.uint64)
    joined = np.concatenate([piece for part in parts for piece in (part, zero)] or [zero])
    return joined, np.repeat(np.arange(len(parts)), [part.size + 1 for part in parts])


def _common_subsequence(short: Sequence[int], long: Sequence[int]) -> int:
    """Length of the longest common subsequence (Hyyrö 2004: one row of bits a word of ``long``)."""
    places: dict[int, int] = defaultdict(int)
    for position, word in enumerate(short):
        places[word] |= 1 << position
    full = (1 << len(short)) - 1
    row = full
    for word in long:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(short) - row.bit_count()


def item_text(row: Mapping[str, Any], words: int = 13) -> str:
    """Return the text of an item that must not occur in a source.

    It is the question, with the passage it shows, and with the answer if the question alone is shorter
    than the n-gram.
    """
    parts = [row["question"]]
    if row.get("passage") and row["passage"] in row["query"]:
        parts.insert(0, row["passage"])
    if len(_WORDS.findall(" ".join(parts))) < words:
        parts.append(row["choices"][row["gold"]])
    return " ".join(parts)


def read_tasks(benchmarks: Path, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the items of the tasks called ``names``, from ``data/benchmarks``.

    Raises:
        DataError: a task that is not there.
    """
    known = {path.stem: path for path in benchmarks.glob("*.jsonl") if "." not in path.stem}
    names = list(names)
    problems = [
        unknown_name("decontaminate", "task", name, known)
        if known
        else Problem(str(benchmarks), "no task items", do="run `ablate prepare` first")
        for name in names
        if name not in known
    ]
    if problems:
        raise DataError(problems)
    return {name: list(read_json_lines(known[name])) for name in names}


def scan(index: TaskIndex, texts: Iterable[tuple[str, str]]) -> list[TaskReport]:
    """Seek every item in (id, text) documents; one report a task."""
    found = Scan(index)
    for batch in _batches(texts):
        found.add(batch)
    return found.reports


class Scan:
    """Search for items in documents that come in batches."""

    def __init__(self, index: TaskIndex) -> None:
        self._index = index
        self._reports = {
            task: TaskReport(task=task, items=items, checked=checked)
            for task, (items, checked) in index.sizes.items()
        }

    def add(self, documents: Sequence[tuple[str, str]]) -> None:
        """Seek every item in (id, text) documents; a few hundred at a time cost the least."""
        found = self._index.hits_of_many([text for _, text in documents])
        for (name, _), hits in zip(documents, found, strict=True):
            for task in {hit.task for hit in hits}:
                self._reports[task].documents += 1
            for hit in hits:
                self._reports[hit.task].add(hit.item, name)

    @property
    def reports(self) -> list[TaskReport]:
        """Return what was found so far, one report a task."""
        return list(self._reports.values())


def _batches(texts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    stream = iter(texts)
    while batch := list(itertools.islice(stream, _BATCH_DOCUMENTS)):
        yield batch


def store_texts(folder: Path, tokenizers: Path) -> Iterable[tuple[str, str]]:
    """(position, text) of a prepared source's training documents, decoded from its tokens."""
    from tokenizers import Tokenizer as Fast

    from ablations.data.store import TokenStore

    store = TokenStore.open(folder)
    fast = Fast.from_file(str(tokenizers / store.manifest.tokenizer / "tokenizer.json"))
    for position, tokens in enumerate(store.documents()):
        yield str(position), fast.decode(tokens.tolist(), skip_special_tokens=False)
