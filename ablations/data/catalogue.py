"""The source catalogue: what every source is, where it comes from, how much of it there is.

One YAML file a source in ``conf/source/``; the file's name is the source's name::

    >>> load_source("finemath_4plus").domain
    'math'

A source's ``origin`` gives the place of its documents, one of four kinds:

    hub        a dataset of the Hugging Face hub, streamed, its revision recorded
    files      local files or folders: jsonl, parquet, Arrow, text
    package    packages of the Python registry, read as zips, checked against their sha256
    synthetic  generated from a seed

On a machine without a network, one setting replaces the hub and the registry: ``mirror``, a folder
with the hub's repositories as ``<owner>/<name>/…`` and the packages' files beside them. Give it to
``prepare``, or set the environment variable ``ABLATIONS_MIRROR``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ablations.data.buckets import BucketsSpec, PartSpec, SelectSpec
from ablations.data.clean_spec import CleanSpec
from ablations.data.duplicates_spec import DuplicatesSpec
from ablations.data.origins import (
    TEXT_CORPORA,
    FileFormat,
    FilesOrigin,
    HubOrigin,
    Origin,
    PackageOrigin,
    PackagePin,
    SyntheticOrigin,
)
from ablations.data.rows.row_specs import PICTURE_FIELDS, RowSpec
from ablations.errors import ConfigError, Problem, unknown_name
from ablations.ranges import Limit
from ablations.validation import validate
from ablations.yaml_files import read_yaml

__all__ = [
    "TOKENS_OF_A_SHARD",
    "FileFormat",
    "FilesOrigin",
    "HubOrigin",
    "Origin",
    "PackageOrigin",
    "PackagePin",
    "SizeSpec",
    "SourceSpec",
    "SyntheticOrigin",
    "config_folder",
    "load_catalogue",
    "load_source",
    "load_tokenizer_spec",
    "read_config",
    "shards_of",
]

TOKENS_OF_A_SHARD = 5_000_000_000
"""Tokens for which a source gets one more shard: a file of 10 GB (16-bit tokens), an hour of one core."""

_MOST_SHARDS = 1_000
"""Slurm's arrays have 1,001 tasks at most, unless the cluster allows more."""

_BYTES_OF_A_TOKEN, _TOKENS_OF_A_DOCUMENT = 4.0, 1_000.0
"""Taken for the sizes of a source for which none is published."""

_FORBID: dict[str, Any] = {"extra": "forbid"}

_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class SizeSpec:
    """Published size of a text, for plans; a prepared store's own counts go before it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    tokens: Limit
    """Tokens, by the tokenizer of whoever published it."""
    documents: Limit | None = None
    """Number of documents."""
    text_bytes: Limit | None = None
    """UTF-8 bytes of the texts."""
    download_bytes: Limit | None = None
    """Bytes of the files, packed as they are on the hub."""

    @classmethod
    def total(cls, parts: Sequence[SizeSpec]) -> SizeSpec:
        """Return the sum; a figure that one part lacks is lacking."""

        def added(key: str) -> int | None:
            found = [getattr(part, key) for part in parts]
            return None if None in found else sum(found)

        return cls(
            tokens=sum(part.tokens for part in parts),
            documents=added("documents"),
            text_bytes=added("text_bytes"),
            download_bytes=added("download_bytes"),
        )


DESCRIPTIVE = (
    *("domain", "tokens_available", "licence", "url", "note", "store", "size", "subsets"),
    *("select", "part"),
)
"""Fields that describe a source, or how it is read; they do not decide the text of its store."""

ADDED_FILTERS = (
    *("leave_out", "score_shares", "min_tokens", "max_tokens", "drop_duplicates", "rows"),
    *("buckets", "select", "part", "classifier", "clean", "duplicates"),
)
"""Fields that came after stores had been made; without a value they are as if they were not there."""


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """A corpus that can be sampled."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    domain: str
    """Domain: english, code, math, synthetic, books, chat, pictures, video, junk."""
    tokens_available: int
    """Tokens it can give in all; a prepared store's own count goes before this figure."""
    origin: Origin
    """Place of the documents."""
    text_column: str = "text"
    """Column of the text; several, joined by blank lines, are separated by commas."""
    id_column: str | None = "id"
    """Column of the document's id; null or absent = its position."""
    group_column: str | None = None
    """Documents that share this column's value (a file, an article, a host) are held out together;
    null = each document by its own text."""
    score_column: str | None = None
    """Column of a quality classifier's score."""
    classifier: str | None = None
    """Folder of a trained classifier (``ablate classify``) that scores each document when the source is
    prepared, instead of a column."""
    min_score: float | None = None
    """Documents below this score are dropped."""
    score_shares: Mapping[int, float] = field(default_factory=dict)
    """Score, rounded down → share of its documents that is kept, drawn by a hash of the text; a score
    that is not named is kept whole."""
    min_tokens: int | None = None
    """Documents of fewer tokens are dropped, held-out ones too: a long context is trained on long
    documents. The cap on documents counts before this."""
    max_tokens: int | None = None
    """Documents of more tokens are dropped, held-out ones too."""
    buckets: BucketsSpec | None = None
    """Cut its token store into buckets by the score, so that a mixture can weight each; null = whole."""
    select: SelectSpec | None = None
    """Weights over its buckets where a mixture names the source as a whole; null = by their tokens."""
    part: PartSpec | None = None
    """The source and the bucket that this one is; set by the platform for names such as ``web-b3``."""
    keep: Mapping[str, str] = field(default_factory=dict)
    """Column → the value it must have, e.g. a language."""
    leave_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column → values that drop a document."""
    heldout_share: float = 0.05
    """Share of the groups kept out of training for bits per byte."""
    max_documents: int | None = None
    """Stop after so many documents; null = all."""
    max_bytes: int | None = None
    """Stop after so many UTF-8 bytes of text, held-out text included; null = all."""
    drop_duplicates: bool = False
    """Drop each document whose text an earlier document of its shard has, byte for byte. The manifest
    counts such documents in any case."""
    duplicates: DuplicatesSpec | None = None
    """Drop exact or near duplicates over all shards, and those of other sources; the source is read twice
    for it. null = none."""
    clean: CleanSpec | None = None
    """Filters of addresses and languages, and replacement of private data; null = none."""
    decontaminate: tuple[str, ...] = ()
    """Tasks (files of ``data/benchmarks``) whose items' documents are dropped."""
    store: str | None = None
    """Folder of its token store; null = the source's name. A source that is searched over a filter
    needs one for each value: ``web_min${source.web.min_score}``."""
    size: SizeSpec | None = None
    """Published size of what it reads; null = ``tokens_available`` alone."""
    subsets: Mapping[str, SizeSpec] = field(default_factory=dict)
    """Subset of the hub's dataset → its published size, which counts where ``origin.subset`` names it."""
    rows: RowSpec | None = None
    """Conversations, preferences or pictures, for method=sft, dpo and vlm; null = plain text."""
    shards: int | None = None
    """Token files, and tasks that can be prepared side by side; part of the result. null = as many as its
    store has, else one for each 5B tokens that it can give (``tokens_available``, ``size``, caps)."""
    licence: str
    """Licence of the text, as its publisher states it."""
    url: str = ""
    """Page that describes it."""
    note: str = ""
    """Remarks: the source of a figure, an assumption."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"source.{key}", "must be above zero", found=value)
            for key, value in (
                ("tokens_available", self.tokens_available),
                ("min_tokens", self.min_tokens),
                ("max_tokens", self.max_tokens),
                ("max_documents", self.max_documents),
                ("max_bytes", self.max_bytes),
                ("shards", self.shards),
            )
            if value is not None and value <= 0
        ]
        if not (math.isfinite(self.heldout_share) and 0.0 <= self.heldout_share < 1.0):
            problems.append(
                Problem(
                    "source.heldout_share",
                    "not a share",
                    found=self.heldout_share,
                    allowed="0 to 1",
                )
            )
        problems += [*self._filter_problems(), *self._row_problems()]
        if self.store is not None and not _FOLDER.fullmatch(self.store):
            problems.append(Problem("source.store", "not a folder's name", found=self.store))
        if isinstance(self.origin, FilesOrigin) and not self.origin.paths:
            problems.append(Problem("source.origin.paths", "names no file"))
        if problems:
            raise ConfigError(problems)

    def _filter_problems(self) -> Iterator[Problem]:
        asked = self.min_score is not None or bool(self.score_shares or self.buckets)
        given = self.score_column is not None or self.classifier is not None
        if asked != given:
            yield Problem(
                "source.min_score",
                "goes with score_column or classifier: give both or neither",
                do="score_shares and buckets need a score too",
            )
        if self.classifier is not None and self.score_column is not None:
            yield Problem("source.classifier", "there is a score_column too: give one of them")
        if self.classifier is not None and self.score_shares:
            yield Problem(
                "source.score_shares", "goes with score_column", do="use buckets and select.keep"
            )
        if self.select is not None and self.buckets is None:
            yield Problem("source.select", "there are no buckets", do="give source.buckets")
        elif self.select is not None and self.buckets is not None:
            yield from self.select.problems(self.buckets)
        for score, share in self.score_shares.items():
            if not 0.0 <= share <= 1.0:
                yield Problem(
                    f"source.score_shares.{score}", "not a share", found=share, allowed="0 to 1"
                )
        least, most = self.min_tokens, self.max_tokens
        if least is not None and most is not None and least > most:
            yield Problem(
                "source.min_tokens", "above max_tokens: nothing is left", found=f"{least} > {most}"
            )

    def _row_problems(self) -> Iterator[Problem]:
        origin = self.origin
        if isinstance(origin, PackageOrigin):
            of_text = origin.corpus in TEXT_CORPORA
            if of_text == (self.rows is not None):
                what = (
                    "the corpus holds plain text"
                    if of_text
                    else "the corpus holds rows: state them"
                )
                yield Problem("source.rows", what, found=origin.corpus)
        if self.rows is None:
            return
        if isinstance(origin, SyntheticOrigin) or (
            isinstance(origin, FilesOrigin) and origin.format == "text"
        ):
            yield Problem("source.rows", "this origin has no columns", found=origin.kind)
        for name in ("min_tokens", "max_tokens"):
            if getattr(self, name) is not None:
                yield Problem(
                    f"source.{name}", "is for plain text", do="set source.rows.max_tokens"
                )
        if self.duplicates is not None:
            yield Problem("source.duplicates", "is for plain text", do="use source.drop_duplicates")

    def published(self) -> SizeSpec:
        """Return the published size of the source, or of the subsets that it reads."""
        subset = self.origin.subset if isinstance(self.origin, HubOrigin) else None
        named = [part.strip() for part in subset.split(",")] if subset else []
        found = [self.subsets[name] for name in named if name in self.subsets]
        if found and len(found) == len(named):
            return SizeSpec.total(found)
        return self.size or SizeSpec(tokens=self.tokens_available)

    @property
    def shard_count(self) -> int:
        """Return ``shards``, or the number of them by the published size and the caps."""
        if self.shards is not None:
            return self.shards
        size = self.published()
        tokens = float(size.tokens)
        if self.max_bytes is not None:
            width = size.text_bytes / size.tokens if size.text_bytes else _BYTES_OF_A_TOKEN
            tokens = min(tokens, self.max_bytes / width)
        if self.max_documents is not None:
            mean = size.tokens / size.documents if size.documents else _TOKENS_OF_A_DOCUMENT
            tokens = min(tokens, self.max_documents * mean)
        return shards_of(tokens)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over what decides the text of a prepared store.

        A filter that is not used does not count, so stores made before there was one stay good. Shards that
        are left open count as one; ``ablations.data.shards`` settles them before a store is made or compared.
        """
        unused = [key for key in ADDED_FILTERS if not getattr(self, key)]
        deciding = {k: v for k, v in asdict(self).items() if k not in (*DESCRIPTIVE, *unused)}
        deciding["shards"] = self.shards or 1
        if self.rows is not None:
            del deciding["rows"]["available"]
            if self.rows.kind != "pictures":
                for key in PICTURE_FIELDS:
                    del deciding["rows"][key]
        if self.buckets is not None:
            deciding["buckets"].pop("shares")  # what is known of them before they are made
        text = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def shards_of(tokens: float) -> int:
    """Return the number of shards for so many tokens."""
    return max(1, min(_MOST_SHARDS, math.ceil(tokens / TOKENS_OF_A_SHARD)))


def config_folder(group: str) -> Path:
    """``conf/<group>`` of the checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parent.parent
    candidates = (package.parent / "conf", package / "conf")
    return next((c for c in candidates if (c / group).is_dir()), candidates[0]) / group


def load_catalogue(folders: Iterable[Path] | None = None) -> dict[str, Path]:
    """Source name → its YAML file; of two files of one name the later folder's counts."""
    found = folders if folders is not None else [config_folder("source")]
    return {path.stem: path for folder in found for path in sorted(Path(folder).glob("*.yaml"))}


def load_source(name: str, folders: Iterable[Path] | None = None) -> SourceSpec:
    """Return the source called ``name``.

    Raises:
        ConfigError: an unknown name, with the nearest known ones, or a file that breaks a rule.
    """
    known = load_catalogue(folders)
    if name not in known:
        raise ConfigError(unknown_name("source", "source", name, known))
    spec = read_config(SourceSpec, known[name], f"source.{name}")
    assert isinstance(spec, SourceSpec)
    return spec


def load_tokenizer_spec(name: str, folders: Iterable[Path] | None = None) -> Any:
    """Return the :class:`~ablations.data.tokenizer.TokenizerSpec` called ``name``."""
    from ablations.data.tokenizer import TokenizerSpec

    known = load_catalogue(folders if folders is not None else [config_folder("tokenizer")])
    if name not in known:
        raise ConfigError(unknown_name("tokenizer", "tokenizer", name, known))
    return read_config(TokenizerSpec, known[name], f"tokenizer.{name}")


def read_config(kind: type[Any], path: Path, where: str) -> Any:
    """Return the YAML file ``path`` as a dataclass, or raise with every problem at once."""
    values = read_yaml(path)
    return validate(kind, values or {}, where)
