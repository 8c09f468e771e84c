"""The preparation of one source as a datatrove pipeline.

    ReadSource ─▶ (steps that drop documents) ─▶ HoldOut ─▶ WriteTokens   per rank
    Finish                                                                once, at the end

Each step between reading and holding out is a :class:`DropStep`: it counts what it leaves out by reason.
The steps run in this process, in a pool, or in Slurm jobs (datatrove's executors); each rank writes
files of its own, and :class:`~ablations.data.finalize.Finish` makes a store of them.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.tokens.tokenizer import (
    DocumentTokenizer,
    TokenizedFile,
    get_output_filename,
)
from datatrove.utils.batching import batched
from datatrove.utils.logging import logger
from filelock import FileLock

from ablations.data.catalogue import SourceSpec
from ablations.data.contamination import TaskIndex
from ablations.data.cutting import noting, write_rank_scores
from ablations.data.finalize import describe_rank, described_file, heldout_file
from ablations.data.manifest import TRAIN
from ablations.data.prepare_counts import (
    BESIDE,
    Counting,
    RankCounts,
    TextHashes,
    counts_file,
    hashes_file,
    text_hash,
)
from ablations.data.rank_processes import run_side_by_side
from ablations.data.readers import Place, heldout, read_source
from ablations.data.token_encoder import Ids, TokenEncoder, TokensDifferError
from ablations.data.tokenizer import Tokenizer

__all__ = [
    "DropByLength",
    "DropContaminated",
    "DropDuplicates",
    "DropStep",
    "HoldOut",
    "InProcess",
    "ReadSource",
    "WriteTokens",
]

_SHUFFLE_SEED = 0
_BATCH_DOCUMENTS = 512


class ReadSource(PipelineStep):  # type: ignore[misc]
    """The rank's documents."""

    name, type = "source", "READER"

    def __init__(self, spec: SourceSpec, downloads: Path, mirror: Path | None) -> None:
        super().__init__()
        self.spec, self.downloads, self.mirror = spec, downloads, mirror
        self.dropped: Counter[str] = Counter()
        self.replaced: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield documents; count what is read, left out, replaced and ignored."""
        del data
        place = Place(
            downloads=self.downloads,
            mirror=self.mirror,
            rank=rank,
            ranks=world_size,
            dropped=self.dropped,
            replaced=self.replaced,
            seen=self.seen,
            ignored=self.ignored,
        )
        for text in read_source(self.spec, place):
            metadata: dict[str, Any] = {"group": text.group}
            if text.score is not None:
                metadata["score"] = text.score
            if text.url is not None:
                metadata["url"] = text.url
            yield Document(text=text.text, id=text.id, metadata=metadata)


class DropStep(PipelineStep):  # type: ignore[misc]
    """Base of the steps that leave documents out: each one for a reason, which is counted."""

    type = "FILTER"

    def __init__(self) -> None:
        super().__init__()
        self.dropped: Counter[str] = Counter()

    def drop(self, reason: str) -> None:
        """Count one document that is left out."""
        self.dropped[reason] += 1


class DropDuplicates(DropStep):
    """Leave out documents whose text the rank has passed on before."""

    name = "duplicates"

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the first document of each text."""
        del rank, world_size
        found: set[int] = set()
        for document in data:
            key = text_hash(document.text + document.metadata.get(BESIDE, ""))
            if key in found:
                self.drop("exact duplicate")
            else:
                found.add(key)
                yield document


class DropContaminated(DropStep):
    """Leave out documents that contain items of tasks."""

    name = "contamination"

    def __init__(self, index: TaskIndex) -> None:
        super().__init__()
        self.index = index

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the clean documents."""
        del rank, world_size
        for batch in batched(data, _BATCH_DOCUMENTS):
            found = self.index.hits_of_many([document.text for document in batch])
            for document, hits in zip(batch, found, strict=True):
                if hits:
                    self.drop(f"contains {min(hit.task for hit in hits)}")
                else:
                    yield document


class DropByLength(DropStep):
    """Leave out documents of too few tokens or too many.

    A document's end-of-text token is not counted. Every token of a byte-level tokenizer stands for a
    byte or more, so what has fewer bytes than ``least`` is dropped without being tokenised; what
    passes is tokenised here and once more by :class:`WriteTokens`.
    """

    name = "length"

    def __init__(self, file: Path, least: int | None, most: int | None) -> None:
        super().__init__()
        self.file, self.least, self.most = file, least or 0, most

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents within the limits."""
        del rank, world_size
        counter = TokenEncoder(self.file)
        for batch in batched(self._long_enough(data), _BATCH_DOCUMENTS):
            for document, ids in zip(batch, self._encoded(counter, batch), strict=True):
                length = len(ids)
                if length < self.least:
                    self._drop_short()
                elif self.most is not None and length > self.most:
                    self.drop(f"more than {self.most} tokens")
                else:
                    yield document

    def _encoded(self, counter: TokenEncoder, batch: Sequence[Document]) -> list[Any]:
        texts = [document.text for document in batch]
        try:
            return counter.encode_batch(texts)
        except TokensDifferError as difference:
            # Earlier batches keep their counts: they have passed the comparison of their samples.
            counter.give_up(difference)
            return counter.encode_batch(texts)

    def _long_enough(self, data: Iterable[Document]) -> Iterator[Document]:
        for document in data:
            if len(document.text.encode()) < self.least:
                self._drop_short()
            else:
                yield document

    def _drop_short(self) -> None:
        self.drop(f"fewer than {self.least} tokens")


class HoldOut(PipelineStep):  # type: ignore[misc]
    """Set the held-out groups aside, count the rest, report on both when the rank is through.

    Args:
        folder: Partial folder of the store.
        share: Share of the groups that is held out.
        reader: First step of the rank.
        dropping: The steps after it that leave documents out.
    """

    name, type = "held-out", "FILTER"

    def __init__(
        self, folder: Path, share: float, reader: ReadSource, dropping: Sequence[Counting]
    ) -> None:
        super().__init__()
        self.folder, self.share = folder, share
        self.reader, self.dropping = reader, tuple(dropping)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the training documents."""
        del world_size
        counts, hashes = RankCounts(), TextHashes()
        path = heldout_file(self.folder, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        counts_file(self.folder, rank).parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as aside:
            for document in data:
                size = len(document.text.encode())
                hashes.add(document.text)
                if heldout(document.metadata["group"], self.share):
                    counts.heldout_documents += 1
                    counts.heldout_bytes += size
                    row = {"id": document.id, "text": document.text}
                    if "score" in document.metadata:
                        row["score"] = document.metadata["score"]
                    aside.write(json.dumps(row, ensure_ascii=False) + "\n")
                else:
                    counts.documents += 1
                    counts.bytes += size
                    yield document
        hashes.write(hashes_file(self.folder, rank))
        self._add_steps(counts)
        counts.write(self.folder, rank)

    def _add_steps(self, counts: RankCounts) -> None:
        """Add what the steps before this one counted."""
        reader = self.reader
        dropped: Counter[str] = Counter()
        for step in (reader, *self.dropping):
            dropped.update(step.dropped)
        counts.read = reader.seen["documents"]
        counts.dropped = dict(dropped)
        for step in self.dropping:
            for reason, changed in getattr(step, "rewritten", {}).items():
                counts.rewritten[reason] = counts.rewritten.get(reason, 0) + changed
        counts.replaced_characters = reader.replaced["characters"]
        counts.replaced_bytes = reader.replaced["bytes"]
        counts.ignored_files = dict(reader.ignored)


class WriteTokens(DocumentTokenizer):  # type: ignore[misc]
    """datatrove's writer, with the platform's encoder and the tokenizer's own width.

    The ids are those of Hugging Face's tokenizers (``token_encoder``). One array conversion for each
    document replaces ``struct.pack`` of Python integers (benchmarks/prepare.py has the figures).

    Args:
        folder: Folder of the preparation.
        tokenizer: The tokenizer.
        scored: Keep the score of each document in a file beside its tokens.
    """

    def __new__(cls, *_: Any, **__: Any) -> WriteTokens:
        """Make the step without datatrove's scan of every installed package for ``tokenizers``."""
        made: WriteTokens = object.__new__(cls)
        return made

    def __init__(self, folder: Path, tokenizer: Tokenizer, *, scored: bool = False) -> None:
        super().__init__(
            str(folder / TRAIN),
            tokenizer_name_or_path=str(tokenizer.file),
            eos_token=tokenizer.eos_token,
            batch_size=_BATCH_DOCUMENTS,
            seed=_SHUFFLE_SEED,
        )
        self._folder, self._made, self._scored = folder, tokenizer, scored

    @property
    def token_size(self) -> int:
        """Bytes of a token: by the largest id, not by the number of entries."""
        return self._made.token_bytes

    def write_unshuffled(self, data: Iterable[Document], filename: str) -> TokenizedFile:
        """Tokenise in batches, each document with its end-of-document token."""
        encoder = TokenEncoder(self._made.file, self._made.eos_id)
        unshuffled = self._begin(filename)
        for batch in batched(data, self.batch_size):
            texts = [document.text for document in batch]
            try:
                encoded = encoder.encode_batch(texts)
            except TokensDifferError as difference:
                encoder.give_up(difference)
                unshuffled = self._written_again(unshuffled, encoder)
                encoded = encoder.encode_batch(texts)
            self._add(unshuffled, encoded)
        unshuffled.close()
        return unshuffled

    def _begin(self, filename: str) -> TokenizedFile:
        return TokenizedFile(
            self.output_folder,
            filename,
            # A name, not this machine's path: readers of the metadata compare names.
            tokenizer_name_or_path=self._made.name,
            save_final_metadata=True,
            token_size=self.token_size,
        )

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype("<u2" if self.token_size == 2 else "<u4")

    def _add(self, file: TokenizedFile, encoded: Iterable[Ids]) -> None:
        for ids in encoded:
            file.write_bytes(ids.astype(self._dtype).tobytes())

    def _written_again(self, written: TokenizedFile, encoder: TokenEncoder) -> TokenizedFile:
        """Return a file of the same documents in the encoder's ids: any ids of a text give back the text."""
        written.close()
        former = Path(self.output_folder.resolve_paths(written.filename))
        kept = former.with_name(f"{former.name}.former")
        former.rename(kept)
        ends = np.array(written.doc_ends, np.int64)
        ids = np.memmap(kept, self._dtype, mode="r") if len(ends) else np.zeros(0, self._dtype)
        again = self._begin(written.filename)
        for batch in batched(np.split(ids, ends[:-1]) if len(ends) else [], self.batch_size):
            texts = [encoder.text_of(document) for document in batch]
            self._add(again, encoder.encode_batch(texts))
        kept.unlink()
        return again

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Tokenise, shuffle and describe; remove what a killed attempt left first."""
        described_file(self._folder, rank).unlink(missing_ok=True)
        for stale in Path(self.output_folder.path).glob(f"{rank:05d}_*"):
            stale.unlink()
        noted: list[float] = []
        order = copy.deepcopy(self.rand)
        result = super().run(noting(data, noted) if self._scored else data, rank, world_size)
        if noted:
            # datatrove draws one permutation a file: the same generator draws the same one here.
            write_rank_scores(self._folder, rank, noted, order.permutation(len(noted)))
        unshuffled = get_output_filename(self.save_filename, rank, "unshuffled")
        for stale in Path(self.output_folder.path).glob(f"{unshuffled}*"):
            stale.unlink()
        describe_rank(self._folder, rank, self._made)
        return result


class InProcess(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's local executor, silent, and safe to kill.

    A rank is locked while it runs: one whose parent was killed a moment ago may still write, and the
    next preparation must not write beside it. With one worker there is no helper process.
    """

    def run(self) -> None:
        """Run every rank that is not done."""
        with _quiet():
            ranks = self.get_incomplete_ranks()
            if self.workers > 1 and len(ranks) > 1:
                run_side_by_side(self._run_for_rank, ranks, self.workers)
                return
            # Steps keep what they counted; each rank starts from fresh copies.
            for rank in ranks:
                self._fresh()._run_for_rank(rank)

    def _fresh(self) -> InProcess:
        twin = copy.copy(self)
        twin.pipeline = copy.deepcopy(self.pipeline)
        return twin

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        with _quiet(), FileLock(self.logging_dir.resolve_paths(f"rank-{rank:05d}.lock")):
            return super()._run_for_rank(rank, local_rank, node_rank)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """datatrove reports through loguru to stderr; progress is shown elsewhere, errors are raised."""
    logger.disable("datatrove")
    try:
        yield
    finally:
        logger.enable("datatrove")
