"""Manifest of a token store: ``manifest.json``, written last and by rename.

A store whose manifest is there is whole. The manifest names the tokenizer by the hash of its
``tokenizer.json``, counts what is in every file, and holds two checksums of each: one of the whole
file, compared once for each state of it, and one of its edges, which costs a millisecond and catches
a swapped or cut file at every opening. The manifest carries a checksum of itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ablations.data.rows.row_specs import RowKind, documents_a_row
from ablations.errors import DamagedError, DataError, Problem
from ablations.files import file_sha256, read_json, write_sealed

__all__ = [
    "FORMAT",
    "HELDOUT",
    "HELDOUT_PICTURES",
    "MANIFEST",
    "PICTURES",
    "REFS",
    "REFS_INDEX",
    "TRAIN",
    "HeldOut",
    "RowCounts",
    "StoreFile",
    "StoreManifest",
    "edges_sha256",
    "file_sha256",
    "store_folder",
]

FORMAT = 1
"""Version of the store layout; a reader refuses a newer one."""
MANIFEST = "manifest.json"
HELDOUT = "heldout.jsonl"
"""The documents kept out of the training: {"id", "text"} a line."""
HELDOUT_PICTURES = "heldout.pictures"
"""Pictures of the held-out items: uint8 [pictures, 3, S, S], the numbers of an item under ``pictures``."""
PICTURES, REFS, REFS_INDEX = ".pictures", ".refs", ".refs.index"
"""Endings after a token file's name: its different pictures, uint8 [pictures, 3, S, S]; the number of the
picture of each placeholder, uint32; and the end of each row in those, uint64."""
TRAIN = "train"
"""The folder of token files inside a store: what datatrove and nanotron read."""

_EDGE_BYTES = 64 * 1024


def store_folder(data_dir: Path, tokenizer: str, store: str) -> Path:
    """Return the folder of the token store ``store`` (by default a source's name); it need not exist yet."""
    return Path(data_dir) / tokenizer / store


@dataclass(frozen=True, kw_only=True)
class StoreFile:
    """One ``.ds`` file."""

    name: str
    """Path below ``train/``; the store of a source with buckets names its buckets' files."""
    tokens: int
    documents: int
    sha256: str
    edges_sha256: str
    """Checksum of the first and the last 64 KiB, compared at every opening."""
    index_sha256: str = ""
    """Checksum of the file's ``.index``; empty in stores of an older version, which had none."""
    loss_sha256: str = ""
    """Checksum of the file's ``.loss``, the mask of a store of rows; empty for plain text."""
    scores_sha256: str = ""
    """Checksum of the file's ``.scores``, which only stores with buckets have."""
    pictures: int = 0
    """Different pictures of the file's rows."""
    placeholders: int = 0
    """Pictures of its rows, each as often as they show it."""
    pictures_sha256: str = ""
    """Checksum of the file's ``.pictures``; empty where the source is none of pictures."""
    refs_sha256: str = ""
    """Checksum of the file's ``.refs``, as above."""
    refs_index_sha256: str = ""
    """Checksum of the file's ``.refs.index``, as above."""


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Counts of a store of rows (``ablations.data.rows``)."""

    kind: RowKind
    rows: int
    """Samples for training: conversations, or pairs."""
    heldout_rows: int = 0
    """Samples held out."""
    supervised_tokens: int
    """Tokens of the answers, their ends of turn included."""
    longest: int
    """Tokens of the longest row."""
    cut_rows: int
    """Rows that were cut to ``max_tokens``."""
    cut_tokens: int
    """Tokens that were cut off."""
    max_tokens: int
    template_sha256: str
    """Checksum of the chat template that wrote the rows."""
    pictures: int = 0
    """Pictures of the rows, each as often as they show it: ``<image>`` tokens."""
    most_pictures: int = 0
    """Pictures of the row with the most of them."""
    different_pictures: int = 0
    """Pictures on the disk: each different one once in each file."""
    rows_with_pictures: int = 0
    """Rows that show any; the others are text alone."""
    picture_size: int | None = None
    """Pixels of a side of each picture; None where the source is none of pictures."""

    @property
    def width(self) -> int:
        """Return the documents of a sample: 1, or 2 for a pair."""
        return documents_a_row(self.kind)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Contents of ``heldout.jsonl``."""

    documents: int
    bytes: int
    """UTF-8 bytes of the texts."""
    sha256: str
    pictures: int = 0
    """Different pictures of the items."""
    pictures_sha256: str = ""
    """Checksum of ``heldout.pictures``; empty where the source is none of pictures."""


@dataclass(frozen=True, kw_only=True)
class StoreManifest:
    """Everything a run needs to know before it reads a token."""

    source: str
    domain: str
    tokenizer: str
    """Folder name under ``data/tokenizers``."""
    tokenizer_hash: str
    vocab_size: int
    eos_id: int
    """The token after each document; document boundaries are read from it."""
    token_bytes: int
    """2 (uint16) or 4 (uint32, vocabularies over 65,536)."""
    tokens: int
    """Training tokens, end-of-document tokens included."""
    documents: int
    bytes: int
    """UTF-8 bytes of the training text; of a bucket: the source's, in proportion to the tokens."""
    files: tuple[StoreFile, ...]
    heldout: HeldOut
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason → documents that the preparation left out."""
    replaced_characters: int = 0
    """Characters that UTF-8 has no bytes for (lone surrogates); U+FFFD stands in their place."""
    replaced_bytes: int = 0
    """Bytes that were not of the text's encoding; U+FFFD stands in their place."""
    documents_read: int | None = None
    """Documents that the preparation read; None in stores of an older version, which did not count them,
    and of buckets."""
    duplicates: int | None = None
    """Documents, held-out ones included, with the text of another one of the store; None as above."""
    ignored_files: Mapping[str, int] = field(default_factory=dict)
    """Ending → files below the source's paths that were not read."""
    rewritten: Mapping[str, int] = field(default_factory=dict)
    """Reason → documents, kept or not, whose text was changed."""
    token_lengths: Mapping[str, int] = field(default_factory=dict)
    """Quantile → length of a training document in tokens, its end token included."""
    source_fingerprint: str = ""
    """SHA-256 over the part of the source's config that decides the text."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the text: the source's ``origin`` as resolved."""
    licence: str = ""
    url: str = ""
    created: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    rows: RowCounts | None = None
    """Counts of a store of rows; None for plain text."""
    buckets: Mapping[str, Any] = field(default_factory=dict)
    """Of a source with buckets: ``edges``, and ``tokens`` and ``documents`` of each; of a bucket: its
    number as ``bucket``, and ``low`` and ``high`` (null = no limit) of its scores."""
    format: int = FORMAT

    def checksums(self) -> dict[str, str]:
        """Name below the store's folder → SHA-256 (hex) of every file that a run reads; empty = unknown."""
        return {
            **{f"{TRAIN}/{file.name}": file.sha256 for file in self.files},
            **{f"{TRAIN}/{file.name}.index": file.index_sha256 for file in self.files},
            **{f"{TRAIN}/{f.name}.loss": f.loss_sha256 for f in self.files if f.loss_sha256},
            **{
                f"{TRAIN}/{file.name}.scores": file.scores_sha256
                for file in self.files
                if file.scores_sha256
            },
            **{
                f"{TRAIN}/{file.name}{ending}": digest
                for file in self.files
                if file.pictures_sha256
                for ending, digest in (
                    (PICTURES, file.pictures_sha256),
                    (REFS, file.refs_sha256),
                    (REFS_INDEX, file.refs_index_sha256),
                )
            },
            **({HELDOUT_PICTURES: kept} if (kept := self.heldout.pictures_sha256) else {}),
            HELDOUT: self.heldout.sha256,
        }

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``: last of all, so that its presence means a whole store."""
        plain = asdict(self)
        if self.rows is None:  # as versions before there were rows read it
            del plain["rows"]
            for file in plain["files"]:
                del file["loss_sha256"]
        if self.rows is None or self.rows.kind != "pictures":  # as before there were pictures
            _leave_out(plain["files"], _PICTURE_FILE_KEYS)
            _leave_out([plain["heldout"]], ("pictures", "pictures_sha256"))
            _leave_out([plain["rows"]] if self.rows else [], _PICTURE_COUNTS)
        write_sealed(folder / MANIFEST, plain)

    @classmethod
    def read(cls, folder: Path) -> StoreManifest:
        """Return the manifest in ``folder``.

        Raises:
            DataError: no manifest, one that cannot be read, or one of a newer layout.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise DataError(
                Problem(str(folder), "not a prepared token store", do="run `ablate prepare` first")
            )
        try:
            values = read_json(path)
            if values["format"] > FORMAT:
                raise DataError(
                    Problem(
                        str(path),
                        "written by a newer version",
                        found=values["format"],
                        allowed=FORMAT,
                    )
                )
            values["files"] = tuple(StoreFile(**file) for file in values["files"])
            values["heldout"] = HeldOut(**values["heldout"])
            if values.get("rows") is not None:
                values["rows"] = RowCounts(**values["rows"])
            return cls(**values)
        except DamagedError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                Problem(str(path), "cannot be read", found=error, do="prepare the source again")
            ) from error


_PICTURE_FILE_KEYS = (
    *("pictures", "placeholders"),
    *("pictures_sha256", "refs_sha256", "refs_index_sha256"),
)
_PICTURE_COUNTS = (
    *("pictures", "most_pictures", "different_pictures", "rows_with_pictures"),
    "picture_size",
)


def _leave_out(parts: Iterable[dict[str, Any]], keys: Iterable[str]) -> None:
    """Remove keys from parts of a plain manifest: versions without them refuse a key they do not know."""
    for part in parts:
        for key in keys:
            del part[key]


def edges_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's first and last 64 KiB."""
    with path.open("rb") as stream:
        digest = hashlib.sha256(stream.read(_EDGE_BYTES))
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _EDGE_BYTES))
        digest.update(stream.read(_EDGE_BYTES))
    return digest.hexdigest()
