"""Duplicates over all shards of a source, and of other sources: found in one reading, dropped in the next.

    ReadTexts ─▶ NoteTexts (─▶ MinHash signatures)   per rank, and one more for each other source
    (pairs of equal bands                            per band)
    (clusters ─▶) MarkDuplicates                     once
    … ─▶ DropMarked ─▶ …                             per rank, in the preparation itself

    .<source>.partial/duplicates/texts/<rank>.npy    hash of text and id of each document, in its order
                                 marks/<rank>.npy    number of the reason to drop it; 0 = it stays

Signatures, pairs and clusters are datatrove's. Which document of a group stays is decided by hashes of
the texts, not by datatrove's order of files, so that it is the same for any number of shards.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import (
    SENTINEL,
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupSignature,
)
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from ablations.data.contamination import store_texts
from ablations.data.duplicates_spec import DuplicatesSpec
from ablations.data.manifest import HELDOUT
from ablations.data.pipeline import DropStep
from ablations.data.prepare_counts import text_hash
from ablations.data.store import TokenStore
from ablations.errors import DataError, Problem
from ablations.files import read_json_lines

__all__ = ["DropMarked", "Stage", "marked", "stages"]

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """A part of the search for duplicates: a pipeline of datatrove and its tasks."""

    name: str
    steps: list[Any]
    tasks: int


class ReadTexts(PipelineStep):  # type: ignore[misc]
    """Pass on the texts of a rank of the source, or of one of the other sources.

    Args:
        reading: Steps that read the source and drop documents, before its duplicates.
        shards: Ranks of the source; the ranks after them read one other source each.
        others: Token stores of the other sources.
        tokenizers: Folder of the tokenizers, to decode those stores.
    """

    name, type = "texts", "READER"

    def __init__(
        self, reading: Sequence[Any], shards: int, others: Sequence[Path], tokenizers: Path
    ) -> None:
        super().__init__()
        self.reading, self.shards = list(reading), shards
        self.others, self.tokenizers = tuple(others), tokenizers

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents."""
        del world_size
        if rank >= self.shards:
            yield from self._stored(self.others[rank - self.shards])
            return
        for step in self.reading:
            data = step.run(data, rank, self.shards)
        yield from data

    def _stored(self, folder: Path) -> Iterator[Document]:
        end = _end_of_text(folder, self.tokenizers)
        for position, text in store_texts(folder, self.tokenizers):
            yield Document(text=text.removesuffix(end), id=position)
        for row in read_json_lines(folder / HELDOUT):
            yield Document(text=str(row["text"]), id=str(row["id"]))


def _end_of_text(folder: Path, tokenizers: Path) -> str:
    from tokenizers import Tokenizer as Fast

    manifest = TokenStore.open(folder).manifest
    fast = Fast.from_file(str(tokenizers / manifest.tokenizer / "tokenizer.json"))
    return str(fast.decode([manifest.eos_id], skip_special_tokens=False))


class NoteTexts(PipelineStep):  # type: ignore[misc]
    """Write the hashes of each document's text and id when the rank is through."""

    name, type = "note texts", "FILTER"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield every document."""
        del world_size
        found: list[tuple[int, int]] = []
        for document in data:
            found.append((text_hash(document.text), text_hash(document.id)))
            yield document
        _write(_texts_file(self.folder, rank), np.array(found, np.uint64).reshape(-1, 2))


class Words(WordTokenizer):  # type: ignore[misc]
    """Words by white space: datatrove simplifies the text first. Its own tokenizers need spaCy."""

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words."""
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the text as one sentence."""
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the span of the text."""
        return [(0, len(text))]


class Clusters(MinhashDedupCluster):  # type: ignore[misc]
    """datatrove's clusters, without its progress bar."""

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write the cluster of each document that has duplicates."""
        with contextlib.redirect_stderr(io.StringIO()):
            super().run(data, rank, world_size)


class MarkDuplicates(PipelineStep):  # type: ignore[misc]
    """Decide which documents are dropped and why.

    Args:
        folder: Folder of the search.
        shards: Ranks of the source.
        others: Number of other sources.
        near: Read the clusters of near duplicates too.
    """

    name, type = "mark duplicates", "DEDUP"

    def __init__(self, folder: Path, shards: int, others: int, *, near: bool) -> None:
        super().__init__()
        self.folder, self.shards, self.others, self.near = folder, shards, others, near

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the marks of every rank."""
        del data, rank, world_size
        texts = [np.load(_texts_file(self.folder, r)) for r in range(self.shards + self.others)]
        ends = np.cumsum([len(part) for part in texts])
        starts = ends - [len(part) for part in texts]
        every = np.concatenate(texts)
        file = np.repeat(np.arange(len(texts)), [len(part) for part in texts])
        own = file < self.shards
        pairs = self._clusters(starts) if self.near else np.zeros((0, 2), np.int64)
        marks = marks_of(every, np.where(own, -1, file - self.shards), pairs)
        for r in range(self.shards):
            _write(_marks_file(self.folder, r), marks[starts[r] : ends[r]])
        return iter(())

    def _clusters(self, starts: Numbers) -> Numbers:
        """Return pairs of documents of one cluster, as numbers over all ranks: [n, 2]."""
        numbers, clusters = [], []
        for path in sorted((self.folder / "clusters").glob("*.clusters")):
            rank = int(path.stem)
            if rank != SENTINEL:
                rows = np.fromfile(path, "<u4").reshape(-1, 2).astype(np.int64)
                numbers.append(rows[:, 0] + starts[rank])
                clusters.append(rows[:, 1])
        if not numbers:
            return np.zeros((0, 2), np.int64)
        number, cluster = np.concatenate(numbers), np.concatenate(clusters)
        order = np.argsort(cluster, kind="stable")
        return _neighbours(number[order], cluster[order])


def marks_of(texts: Hashes, origin: Numbers, near: Numbers) -> npt.NDArray[np.uint16]:
    """Return the number of the reason to drop each document; 0 = it stays.

    1 = its text is in the source already, 2 = nearly; 3 + 2k and 4 + 2k = it is in the other source k.

    Args:
        texts: Hash of the text and of the id of each document: [n, 2].
        origin: -1 for a document of the source, else the number of the other source.
        near: Pairs of documents that are near duplicates: [m, 2].
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(texts)
    # The other sources in their order, then the source; there by hash, so that no order of files counts.
    last = np.iinfo(np.int64).max
    order = np.lexsort((texts[:, 1], texts[:, 0], np.where(origin < 0, last, origin)))
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    by_text = np.lexsort((place, texts[:, 0]))
    equal = _neighbours(by_text, texts[by_text, 0])
    joined = np.concatenate([equal, near])
    edges = coo_array((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), (count, count))
    _, group = connected_components(edges, directed=False)
    first = _first_of(group, place)
    same_text = np.unique(texts[:, 0], return_inverse=True)[1]
    twin = _first_of(same_text, place)
    exact = twin != np.arange(count)
    keeper = origin[np.where(exact, twin, first)]
    reason = 2 * (keeper + 1) + np.where(exact, 1, 2)
    dropped = (origin < 0) & (first != np.arange(count))
    return np.where(dropped, reason, 0).astype(np.uint16)


def _first_of(group: Numbers, place: Numbers) -> Numbers:
    """Return for each document the one of its group that stays: the first by ``place``."""
    order = np.argsort(place)
    groups, first = np.unique(group[order], return_index=True)
    stays = np.empty(int(groups.max(initial=-1)) + 1, np.int64)
    stays[groups] = order[first]
    return stays[group]


def _neighbours(numbers: Numbers, keys: npt.NDArray[Any]) -> Numbers:
    """Return the pairs of neighbours in ``numbers`` whose keys are equal: [n, 2]."""
    same = keys[1:] == keys[:-1]
    return np.stack([numbers[:-1][same], numbers[1:][same]], axis=1)


class DropMarked(DropStep):
    """Leave out the documents that the search marked.

    Args:
        folder: Folder of the search.
        source: Name of the source, for messages.
        others: Names of the other sources.
    """

    name = "duplicates"

    def __init__(self, folder: Path, source: str, others: Sequence[str]) -> None:
        super().__init__()
        self.folder, self.source = folder, source
        self.reasons = ["", "exact duplicate", "near duplicate"]
        for other in others:
            self.reasons += [f"exact duplicate of {other}", f"near duplicate of {other}"]

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents that stay.

        Raises:
            DataError: the source does not give as many documents as at the first reading.
        """
        del world_size
        marks = np.load(_marks_file(self.folder, rank))
        read = 0
        for document in data:
            mark = int(marks[read]) if read < len(marks) else 0
            read += 1
            if mark:
                self.drop(self.reasons[mark])
            else:
                yield document
        if read != len(marks):
            raise DataError(
                Problem(
                    f"source.{self.source}",
                    "its text changed while its duplicates were sought",
                    found=f"{read:,} documents in shard {rank}",
                    allowed=f"{len(marks):,}",
                    do="prepare it again with prepare.force=true",
                )
            )


def stages(
    spec: DuplicatesSpec,
    folder: Path,
    reading: Sequence[Any],
    shards: int,
    others: Sequence[Path],
    tokenizers: Path,
) -> list[Stage]:
    """Return the stages of the search, in the order in which they run.

    Args:
        spec: What counts as a duplicate.
        folder: Folder of the search.
        reading: Steps that read the source and drop documents, before its duplicates.
        shards: Ranks of the source.
        others: Token stores of ``spec.against``.
        tokenizers: Folder of the tokenizers.
    """
    near = spec.kind == "near"
    read = [ReadTexts(reading, shards, others, tokenizers), NoteTexts(folder)]
    mark = MarkDuplicates(folder, shards, len(others), near=near)
    ranks = shards + len(others)
    if not near:
        return [Stage("texts", read, ranks), Stage("marks", [mark], 1)]
    config = MinhashConfig(
        n_grams=spec.words,
        num_buckets=spec.bands,
        hashes_per_bucket=spec.band_hashes,
        norm_config=TextNormConfig(norm_numbers=spec.ignore_numbers),
    )
    parts = {name: str(folder / name) for name in ("signatures", "pairs", "clusters")}
    signature = MinhashDedupSignature(parts["signatures"], config, language=Words())
    pairs = MinhashDedupBuckets(parts["signatures"], parts["pairs"], config=config)
    cluster = Clusters(parts["pairs"], parts["clusters"], config, save_cluster_id=True)
    return [
        Stage("texts", [*read, signature], ranks),
        Stage("pairs", [pairs], spec.bands),
        Stage("marks", [cluster, mark], 1),
    ]


def marked(folder: Path, shards: int) -> bool:
    """Return whether the marks of every rank are there."""
    return all(_marks_file(folder, rank).is_file() for rank in range(shards))


def _texts_file(folder: Path, rank: int) -> Path:
    return folder / "texts" / f"{rank:05d}.npy"


def _marks_file(folder: Path, rank: int) -> Path:
    return folder / "marks" / f"{rank:05d}.npy"


def _write(path: Path, values: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    with beside.open("wb") as stream:
        np.save(stream, values)
        stream.flush()
        os.fsync(stream.fileno())
    beside.rename(path)
