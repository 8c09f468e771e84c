"""Contamination: which task items stand in a source's text, word for word or nearly so.

The rule of the SmolLM2 paper (arXiv 2502.02737): an item is contaminated by a document that shares a
13-word n-gram with it and whose longest common subsequence with it covers at least 0.6 of the
item's words. Numbers count as one word, since the same problem with other numbers is the same
problem; the subsequence is sought around the shared n-gram, since in a long document a subsequence of
common words is always found. Items shorter than 13 words are sought whole, down to 8 words; below
that a match says nothing, and the report counts them as not checked.

The tasks are hashed once; documents stream past: words that no task uses are zero, and an n-gram with
a zero cannot match, so almost all text costs a dictionary look-up a word and a few array operations.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ablations.errors import DataError, Problem, unknown_name
from ablations.files import read_json_lines

__all__ = [
    "Hit",
    "OverlapRule",
    "TaskIndex",
    "TaskReport",
    "item_text",
    "read_tasks",
    "scan",
    "store_texts",
]

_WORDS = re.compile(r"\w+")
_NUMBER = re.compile(r"\b\d+(?:[.,]\d+)*\b")
_EXAMPLES = 5
# An odd 64-bit multiplier; sums of id * POWER**position wrap, and equal n-grams have equal sums.
_POWER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class OverlapRule:
    """When an item counts as contaminated."""

    words: int = 13
    """Length of the n-gram that a document must share with the item."""
    fewest_words: int = 8
    """Items shorter than this are not checked."""
    common_share: float = 0.6
    """Least share of the item's words in the longest common subsequence."""
    mask_numbers: bool = True
    """All numbers are the same word."""


class Hit(NamedTuple):
    """An item found in a document."""

    task: str
    item: str
    share: float
    """Share of the item's words in the longest common subsequence."""


@dataclass(kw_only=True)
class TaskReport:
    """What a source holds of one task."""

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

    @property
    def share(self) -> float:
        """Contaminated items as a share of all."""
        return len(self.contaminated) / self.items if self.items else 0.0


class _Item(NamedTuple):
    task: str
    id: str
    ids: npt.NDArray[np.uint64]


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
        self._vocabulary: dict[str, int] = {}
        self._items: list[_Item] = []
        by_length: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for task, rows in tasks.items():
            count = checked = 0
            for row in rows:
                count += 1
                ids = self._learn(item_text(row, self.rule.words))
                if ids.size >= self.rule.fewest_words:
                    checked += 1
                    self._add(_Item(task, str(row["id"]), ids), by_length)
            self.sizes[task] = (count, checked)
        self._tables = {
            length: (np.array(sorted(table), dtype=np.uint64), dict(table))
            for length, table in by_length.items()
        }

    def _add(self, item: _Item, by_length: dict[int, dict[int, list[int]]]) -> None:
        position = len(self._items)
        self._items.append(item)
        length = min(self.rule.words, item.ids.size)
        for key in set(_ngrams(item.ids, length).tolist()):
            by_length[length][key].append(position)

    def hits(self, text: str) -> list[Hit]:
        """The items that ``text`` contains, each once."""
        ids = self._known(text)
        found: dict[int, float] = {}
        for length, (keys, table) in self._tables.items():
            grams = _ngrams(ids, length)
            places = np.flatnonzero(_isin_sorted(grams, keys))
            for place in places.tolist():
                for position in table[int(grams[place])]:
                    if position not in found or found[position] < self.rule.common_share:
                        found[position] = self._share(position, ids, place, length)
        return [
            Hit(self._items[position].task, self._items[position].id, share)
            for position, share in sorted(found.items())
            if share >= self.rule.common_share
        ]

    def _share(self, position: int, ids: npt.NDArray[np.uint64], place: int, length: int) -> float:
        item = self._items[position].ids
        around = ids[max(0, place - item.size) : place + length + item.size]
        return _common_subsequence(item.tolist(), around.tolist()) / item.size

    def _learn(self, text: str) -> npt.NDArray[np.uint64]:
        vocabulary = self._vocabulary
        words = self._split(text)
        return np.array(
            [vocabulary.setdefault(word, len(vocabulary) + 1) for word in words], dtype=np.uint64
        )

    def _known(self, text: str) -> npt.NDArray[np.uint64]:
        words, get = self._split(text), self._vocabulary.get
        return np.fromiter((get(word, 0) for word in words), dtype=np.uint64, count=len(words))

    def _split(self, text: str) -> list[str]:
        text = text.lower()
        return _WORDS.findall(_NUMBER.sub("0", text) if self.rule.mask_numbers else text)


def _ngrams(ids: npt.NDArray[np.uint64], length: int) -> npt.NDArray[np.uint64]:
    """A hash of every run of ``length`` words; 0 where a word of it is unknown."""
    count = ids.size - length + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    # Mixing each id first keeps small ids from cancelling in the sum.
    mixed = (ids ^ (ids << np.uint64(31))) * _POWER
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        total = total * _POWER + mixed[offset : offset + count]
    unknown = np.concatenate([[0], np.cumsum(ids == 0)])
    total[unknown[length:] != unknown[:count]] = 0
    return total


def _isin_sorted(
    values: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.bool_]:
    """Whether each value is among the sorted ``keys``; zero never is."""
    live = np.flatnonzero(values)
    found = np.zeros(values.size, dtype=np.bool_)
    if live.size and keys.size:
        place = np.searchsorted(keys, values[live])
        found[live] = keys[np.minimum(place, keys.size - 1)] == values[live]
    return found


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
    """What must not stand in the text: the question, with the passage it shows, and with the answer
    where the question alone is shorter than the n-gram."""
    parts = [row["question"]]
    if row.get("passage") and row["passage"] in row["query"]:
        parts.insert(0, row["passage"])
    if len(_WORDS.findall(" ".join(parts))) < words:
        parts.append(row["choices"][row["gold"]])
    return " ".join(parts)


def read_tasks(benchmarks: Path, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """The items of the tasks called ``names``, from ``data/benchmarks``.

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
    reports = {
        task: TaskReport(task=task, items=items, checked=checked)
        for task, (items, checked) in index.sizes.items()
    }
    for name, text in texts:
        hits = index.hits(text)
        for task in {hit.task for hit in hits}:
            reports[task].documents += 1
        for hit in hits:
            report = reports[hit.task]
            if hit.item not in report.contaminated and len(report.examples) < _EXAMPLES:
                report.examples.append((hit.item, name))
            report.contaminated.add(hit.item)
    return list(reports.values())


def store_texts(folder: Path, tokenizers: Path) -> Iterable[tuple[str, str]]:
    """(position, text) of a prepared source's training documents, decoded from its tokens."""
    from tokenizers import Tokenizer as Fast

    from ablations.data.store import TokenStore

    store = TokenStore.open(folder)
    fast = Fast.from_file(str(tokenizers / store.manifest.tokenizer / "tokenizer.json"))
    for position, tokens in enumerate(store.documents()):
        yield str(position), fast.decode(tokens.tolist(), skip_special_tokens=False)
