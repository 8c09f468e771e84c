"""The last step of a preparation: ranks' files in, one whole token store out."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ablations.data.bucket_stores import Cut, describe, make_buckets
from ablations.data.catalogue import SourceSpec
from ablations.data.contamination_report import merge_rank_reports
from ablations.data.manifest import (
    REFS_INDEX,
    TRAIN,
    HeldOut,
    RowCounts,
    StoreFile,
    StoreManifest,
)
from ablations.data.prepare_counts import (
    RankCounts,
    count_duplicates,
    counts_file,
    hashes_file,
    length_quantiles,
)
from ablations.data.rows.chat_template import TEMPLATE_FILE
from ablations.data.rows.heldout_rows import merge_items
from ablations.data.tokenizer import Tokenizer
from ablations.data.verified import note_verified
from ablations.errors import DamagedError, DataError, Problem
from ablations.files import (
    file_sha256,
    read_json,
    replace_folder,
    sync_folder,
    write_sealed,
)

__all__ = ["Finish", "describe_rank", "described_file", "heldout_file", "remove_scratch"]

_INDEX_ENTRY_BYTES = 8
_COPIED_BYTES = 1 << 20
_SCRATCH = (
    *("counts", "described", "duplicates", "hashes", "heldout", "overlaps"),
    *("asked.json", "uncut"),
)


def heldout_file(folder: Path, rank: int) -> Path:
    """Return the documents that rank ``rank`` held out."""
    return folder / "heldout" / f"{rank:05d}.jsonl"


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Callable as it stands, and as a datatrove pipeline step of its own job."""

    name: str
    spec: SourceSpec
    tokenizer: Tokenizer
    partial: Path
    folder: Path

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Write the manifest and give the store its name.

        Raises:
            DataError: a rank that is not through, or nothing to train on or to hold out.
        """
        del data, rank, world_size
        counts = self._counts()
        heldout = self._merge_pictures(counts) or self._merge_heldout(counts)
        cut = self._cut()
        files = cut.files if cut else self._described(sorted((self.partial / TRAIN).glob("*.ds")))
        paths = [self.partial / TRAIN / file.name for file in files]
        self._check(counts, files)
        manifest = StoreManifest(
            source=self.name,
            domain=self.spec.domain,
            tokenizer=self.tokenizer.name,
            tokenizer_hash=self.tokenizer.hash,
            vocab_size=self.tokenizer.vocab_size,
            eos_id=self.tokenizer.eos_id,
            token_bytes=self.tokenizer.token_bytes,
            tokens=sum(file.tokens for file in files),
            documents=sum(file.documents for file in files),
            bytes=counts.bytes,
            files=files,
            heldout=heldout,
            dropped=counts.dropped,
            replaced_characters=counts.replaced_characters,
            replaced_bytes=counts.replaced_bytes,
            documents_read=counts.read,
            duplicates=count_duplicates([hashes_file(self.partial, rank) for rank in self._ranks]),
            ignored_files=counts.ignored_files,
            rewritten=counts.rewritten,
            token_lengths=length_quantiles(_index(path) for path in paths),
            source_fingerprint=str(self._asked()["source"]),
            origin=json.loads(json.dumps(asdict(self.spec.origin))),
            licence=self.spec.licence,
            url=self.spec.url,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=_versions(pictures=bool(self.spec.rows and self.spec.rows.picture_size))
            | self._read_with(),
            rows=self._rows(counts, files, paths),
            buckets=cut.plain() if cut else {},
        )
        if cut:
            cut.write_buckets(self.partial, manifest, self.spec.heldout_share)
        manifest.write(self.partial)
        merge_rank_reports(self.partial, self._ranks)
        self._put_in_place()
        return iter(())

    def _read_with(self) -> dict[str, str]:
        """Return the versions of the classifier, and of the sources that duplicates were sought in."""
        return {
            key: str(version)
            for key, version in self._asked().items()
            if version and (key == "classifier" or key.startswith("against "))
        }

    def _rows(
        self, counts: RankCounts, files: Iterable[StoreFile], paths: list[Path]
    ) -> RowCounts | None:
        """Return the counts of the rows; None for plain text."""
        rows = self.spec.rows
        if rows is None:
            return None
        return RowCounts(
            kind=rows.kind,
            rows=counts.rows,
            heldout_rows=counts.heldout_rows,
            supervised_tokens=counts.supervised_tokens,
            longest=length_quantiles(_index(path) for path in paths).get("1", 0),
            cut_rows=counts.cut_rows,
            cut_tokens=counts.cut_tokens,
            max_tokens=rows.max_tokens,
            template_sha256=file_sha256(self.tokenizer.folder / TEMPLATE_FILE),
            picture_size=rows.picture_size,
            **(_shown(files, paths) if rows.picture_size else {}),
        )

    def _asked(self) -> dict[str, Any]:
        # The fingerprint of the config as written: a branch that was resolved to a commit is still
        # the same request when it is made again.
        asked: dict[str, Any] = read_json(self.partial / "asked.json")
        return asked

    @property
    def _ranks(self) -> range:
        return range(self.spec.shard_count)

    def _counts(self) -> RankCounts:
        paths = [counts_file(self.partial, rank) for rank in self._ranks]
        missing = [path.stem for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                Problem(
                    f"source.{self.name}",
                    "not every rank is through",
                    found=f"missing: {', '.join(missing)}",
                    do="run `ablate prepare` again; with prepare.force=true it begins anew",
                )
            )
        return RankCounts.total(RankCounts.read_rank(self.partial, rank) for rank in self._ranks)

    def _merge_pictures(self, counts: RankCounts) -> HeldOut | None:
        """Merge items with pictures, and count anew what is left of them; None for other sources."""
        side = self.spec.rows.picture_size if self.spec.rows else None
        if side is None:
            return None
        parts = [heldout_file(self.partial, rank) for rank in self._ranks]
        merged = merge_items(self.partial, parts, side)
        counts.heldout_rows = merged.rows
        counts.heldout_documents = merged.heldout.documents
        counts.heldout_bytes = merged.heldout.bytes
        if merged.left_out:
            reason = "held out, and shows what is trained on"
            counts.dropped = {**counts.dropped, reason: merged.left_out}
        return merged.heldout

    def _merge_heldout(self, counts: RankCounts) -> HeldOut:
        digest = hashlib.sha256()
        with (self.partial / "heldout.jsonl").open("wb") as merged:
            for rank in self._ranks:
                with heldout_file(self.partial, rank).open("rb") as part:
                    while block := part.read(_COPIED_BYTES):
                        digest.update(block)
                        merged.write(block)
            merged.flush()
            os.fsync(merged.fileno())
        return HeldOut(
            documents=counts.heldout_documents,
            bytes=counts.heldout_bytes,
            sha256=digest.hexdigest(),
        )

    def _described(self, paths: Iterable[Path]) -> tuple[StoreFile, ...]:
        """Return what the ranks wrote about their files; a file that none describes is read here."""
        known = {
            file.name: file for rank in self._ranks for file in _read_described(self.partial, rank)
        }
        return tuple(
            file
            if (file := known.get(path.name)) and _sizes(path, self.tokenizer) == _stated(file)
            else describe(path, path.name, self.tokenizer)
            for path in paths
        )

    def _cut(self) -> Cut | None:
        """Return the buckets that the ranks' token files are cut into; None for a source without."""
        if self.spec.buckets is None:
            return None
        return make_buckets(self.partial, self.spec.buckets, self.tokenizer, self.name)

    def _check(self, counts: RankCounts, files: tuple[StoreFile, ...]) -> None:
        where = f"source.{self.name}"
        problems = []
        if not any(file.tokens for file in files):
            problems.append(
                Problem(where, "no document left to train on", found=counts.dropped or None)
            )
        if self.spec.heldout_share > 0 and not counts.heldout_documents:
            problems.append(
                Problem(
                    f"{where}.heldout_share",
                    "too little data held out: not one group of documents fell to it",
                    found=f"{self.spec.heldout_share:g} of {counts.documents:,} documents",
                    do="raise it, take more documents, or set it to 0 and go without held-out "
                    "bits per byte",
                )
            )
        if self.spec.rows and self.spec.rows.picture_size:
            problems += self._picture_problems(files)
        written = sum(file.documents for file in files)
        if not problems and written != counts.documents:
            problems.append(
                Problem(where, "documents went astray", found=written, allowed=counts.documents)
            )
        if problems:
            raise DataError(problems)

    def _picture_problems(self, files: tuple[StoreFile, ...]) -> list[Problem]:
        if any(file.placeholders for file in files):
            return []
        assert self.spec.rows is not None
        return [
            Problem(
                f"source.{self.name}.rows.pictures_column",
                "no row has a picture",
                found=self.spec.rows.pictures_column,
                do="set it to the column of the pictures",
            )
        ]

    def _put_in_place(self) -> None:
        # What the ranks left is needed until the store has its name: a process that dies before
        # that finishes again from it. It is removed after, when it is of no use to anybody.
        sync_folder(self.partial)
        replace_folder(self.partial, self.folder)
        remove_scratch(self.folder)
        note_verified(self.folder)


def remove_scratch(folder: Path) -> None:
    """Remove from a store that has its name what only its preparation needed."""
    for name in _SCRATCH:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def described_file(folder: Path, rank: int) -> Path:
    """Return the file of the sizes and checksums of rank ``rank``'s token files."""
    return folder / "described" / f"{rank:05d}.json"


def describe_rank(folder: Path, rank: int, tokenizer: Tokenizer) -> None:
    """Read the token files of a rank once, and write their sizes and checksums for the last step.

    The last step is one task. Without this it would read all files of a source.
    """
    files = [
        asdict(describe(path, path.name, tokenizer))
        for path in sorted((folder / TRAIN).glob(f"{rank:05d}_*.ds"))
    ]
    described_file(folder, rank).parent.mkdir(parents=True, exist_ok=True)
    write_sealed(described_file(folder, rank), {"files": files})


def _read_described(folder: Path, rank: int) -> list[StoreFile]:
    """Return what a rank wrote; nothing if it is missing, as after an older version, or damaged."""
    try:
        return [StoreFile(**file) for file in read_json(described_file(folder, rank))["files"]]
    except (OSError, DamagedError, KeyError, TypeError):
        return []


def _stated(file: StoreFile) -> tuple[int, int]:
    return file.tokens, file.documents


def _sizes(path: Path, tokenizer: Tokenizer) -> tuple[int, int]:
    """Return the tokens and documents of a token file, by the sizes of it and its index."""
    tokens = path.stat().st_size // tokenizer.token_bytes
    return tokens, _index(path).stat().st_size // _INDEX_ENTRY_BYTES


def _shown(files: Iterable[StoreFile], paths: Iterable[Path]) -> dict[str, int]:
    """Return the counts of the pictures of all rows."""
    counts = [
        np.diff(np.fromfile(path.with_name(path.name + REFS_INDEX), dtype="<u8"), prepend=0)
        for path in paths
    ]
    each = np.concatenate(counts or [np.zeros(0)])
    return {
        "pictures": int(each.sum()),
        "most_pictures": int(each.max(initial=0)),
        "different_pictures": sum(file.pictures for file in files),
        "rows_with_pictures": int(np.count_nonzero(each)),
    }


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.index")


def _versions(*, pictures: bool) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("datatrove", "tokenizers", "datasets", "pyarrow", *(["pillow"] * pictures)):
        found[package] = metadata.version(package)
    return found
