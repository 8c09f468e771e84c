"""The token stores of a source's buckets, inside the store of the source.

    data/<tokenizer>/web/
        manifest.json        of the whole source: it names the files of the buckets
        heldout.jsonl        all its held-out documents, with their scores
        b0/                  a token store: manifest.json, train/, heldout.jsonl
        b1/ …

A bucket without a training document has no folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.data.buckets import BucketsSpec, bucket_folder, bucket_name
from ablations.data.cutting import SCORES, buckets_of, cut
from ablations.data.manifest import (
    HELDOUT,
    PICTURES,
    REFS,
    REFS_INDEX,
    TRAIN,
    HeldOut,
    StoreFile,
    StoreManifest,
    edges_sha256,
    file_sha256,
)
from ablations.data.prepare_counts import length_quantiles
from ablations.data.tokenizer import Tokenizer
from ablations.errors import DataError, Problem
from ablations.files import read_json_lines

__all__ = ["Cut", "describe", "make_buckets"]

_INDEX_ENTRY_BYTES = 8


def describe(path: Path, name: str, tokenizer: Tokenizer) -> StoreFile:
    """Return the manifest's entry of the token file ``path`` under ``name``, synced to the disk."""
    index, scores, loss = (path.with_name(path.name + end) for end in (".index", SCORES, ".loss"))
    pictures = [path.with_name(path.name + end) for end in (PICTURES, REFS, REFS_INDEX)]
    shown = all(part.is_file() for part in pictures)
    for part in (path, index, *filter(Path.is_file, (scores, loss, *pictures))):
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
    return StoreFile(
        name=name,
        tokens=path.stat().st_size // tokenizer.token_bytes,
        documents=index.stat().st_size // _INDEX_ENTRY_BYTES,
        sha256=file_sha256(path),
        edges_sha256=edges_sha256(path),
        index_sha256=file_sha256(index),
        loss_sha256=file_sha256(loss) if loss.is_file() else "",
        scores_sha256=file_sha256(scores) if scores.is_file() else "",
        **(_pictures(*pictures) if shown else {}),
    )


def _pictures(pictures: Path, refs: Path, index: Path) -> dict[str, Any]:
    """Return the manifest's entries of the pictures beside a token file."""
    numbers = np.fromfile(refs, dtype="<u4")
    return {
        "pictures": int(numbers.max()) + 1 if numbers.size else 0,  # each is numbered as it comes
        "placeholders": int(numbers.size),
        "pictures_sha256": file_sha256(pictures),
        "refs_sha256": file_sha256(refs),
        "refs_index_sha256": file_sha256(index),
    }


@dataclass(frozen=True)
class Cut:
    """Buckets of a source, as they were cut."""

    edges: tuple[float, ...]
    """Lowest score of each bucket but the first."""
    parts: Mapping[int, tuple[StoreFile, ...]]
    """Bucket → its files, named below the bucket's own ``train/``; empty buckets are left out."""

    @property
    def files(self) -> tuple[StoreFile, ...]:
        """Return the files of all buckets, named below the source's ``train/``."""
        return tuple(
            replace(file, name=f"../{bucket_folder(bucket)}/{TRAIN}/{file.name}")
            for bucket, files in self.parts.items()
            for file in files
        )

    def plain(self) -> dict[str, Any]:
        """Return what the source's manifest keeps of its buckets."""
        every = [self.parts.get(bucket, ()) for bucket in range(len(self.edges) + 1)]
        return {
            "edges": list(self.edges),
            "tokens": [sum(file.tokens for file in files) for files in every],
            "documents": [sum(file.documents for file in files) for files in every],
        }

    def write_buckets(self, partial: Path, whole: StoreManifest, heldout_share: float) -> None:
        """Write held-out documents and manifest of each bucket.

        Raises:
            DataError: a bucket that no held-out document falls into.
        """
        rows: dict[int, list[dict[str, Any]]] = {bucket: [] for bucket in self.parts}
        for row in read_json_lines(partial / HELDOUT):
            (bucket,) = buckets_of([row.get("score", np.nan)], self.edges).tolist()
            rows.setdefault(bucket, []).append(row)
        without = [bucket for bucket in self.parts if heldout_share > 0 and not rows[bucket]]
        if without:
            raise DataError([_nothing_held_out(whole, bucket) for bucket in without])
        limits = [None, *self.edges, None]
        for bucket, files in self.parts.items():
            folder = partial / bucket_folder(bucket)
            heldout = _write_heldout(folder / HELDOUT, rows[bucket])
            tokens = sum(file.tokens for file in files)
            replace(
                whole,
                source=bucket_name(whole.source, bucket),
                tokens=tokens,
                documents=sum(file.documents for file in files),
                bytes=round(whole.bytes * tokens / whole.tokens),
                files=files,
                heldout=heldout,
                dropped={},
                replaced_characters=0,
                replaced_bytes=0,
                documents_read=None,
                duplicates=None,
                ignored_files={},
                rewritten={},
                token_lengths=length_quantiles(
                    folder / TRAIN / f"{file.name}.index" for file in files
                ),
                buckets={"bucket": bucket, "low": limits[bucket], "high": limits[bucket + 1]},
            ).write(folder)


def make_buckets(partial: Path, spec: BucketsSpec, tokenizer: Tokenizer, source: str) -> Cut:
    """Cut the token files of a preparation and return its buckets."""
    edges = cut(partial, spec, tokenizer, source)
    parts = {}
    for bucket in range(spec.count):
        train = partial / bucket_folder(bucket) / TRAIN
        paths = sorted(train.glob("*.ds"))
        if paths:
            parts[bucket] = tuple(describe(path, path.name, tokenizer) for path in paths)
    return Cut(edges=edges, parts=parts)


def _write_heldout(path: Path, rows: list[dict[str, Any]]) -> HeldOut:
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return HeldOut(
        documents=len(rows),
        bytes=sum(len(row["text"].encode()) for row in rows),
        sha256=file_sha256(path),
    )


def _nothing_held_out(whole: StoreManifest, bucket: int) -> Problem:
    return Problem(
        f"source.{whole.source}.buckets",
        f"not one held-out document falls into bucket {bucket}",
        found=f"{whole.heldout.documents:,} held-out documents of the source",
        do="join the bucket with its neighbour, raise heldout_share, or take more documents",
    )
