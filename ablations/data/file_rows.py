"""Local files of a source: which ones a path means, and their rows.

jsonl, parquet and Arrow files give their rows; a text file is one row. A row comes with its number in
the file, counted from 1 (the line of a jsonl file), so that an error can name it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.data.catalogue import FilesOrigin
from ablations.data.text import decoded
from ablations.errors import DataError, Problem

__all__ = [
    "Row",
    "count_rows",
    "file_format",
    "file_rows",
    "find_files",
    "ignored_files",
    "row_place",
]

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
_BATCH_BYTES = 64 << 20
"""Unpacked bytes that are read at once, about: rows with pictures have some hundred thousand each."""
_SAMPLE_BYTES = 4_000_000
"""Unpacked bytes of a file from which the length of its rows is estimated."""


def find_files(origin: FilesOrigin) -> list[Path]:
    """Return the files that ``paths`` mean, sorted, each once.

    Raises:
        DataError: a path that names no file of a known format.
    """
    found: dict[Path, None] = {}
    problems = []
    for given in origin.paths:
        files = [path for path in _matches(given) if file_format(path, origin) is not None]
        if not files:
            allowed = (
                "jsonl, parquet, arrow or text files" if origin.format == "auto" else origin.format
            )
            problems.append(Problem(given, "no file of the source there", allowed=allowed))
        found.update(dict.fromkeys(files))
    if problems:
        raise DataError(problems)
    return list(found)


def ignored_files(origin: FilesOrigin) -> Counter[str]:
    """Return ending → number of files under ``paths`` that are not read; hidden files are one kind."""
    files = {path for given in origin.paths for path in _matches(given)}
    return Counter(_ending(path) for path in files if file_format(path, origin) is None)


def _ending(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    inner = path.with_suffix("") if path.suffix in _PACKED else path
    return (inner.suffix + (path.suffix if inner is not path else "")).lower() or "no ending"


def _matches(given: str) -> list[Path]:
    """Return the files that one path means, sorted."""
    path = Path(given)
    if any(sign in given for sign in "*?["):
        anchor = Path(path.anchor or ".")
        matches = sorted(anchor.glob(str(path.relative_to(path.anchor) if path.anchor else path)))
    elif path.is_dir():
        matches = sorted(path.rglob("*"))
    else:
        matches = [path] if path.exists() else []
    return [match for match in matches if match.is_file()]


def file_format(path: Path, origin: FilesOrigin) -> str | None:
    """Return the format that a file is read in; None if the source does not read it."""
    if path.name.startswith("."):
        return None
    inner = path.with_suffix("") if path.suffix in _PACKED else path
    by_ending = _ENDINGS.get(inner.suffix.lower())
    if origin.format == "auto":
        return by_ending
    # A stated format takes files of any ending but those of another format, inside a folder too.
    return origin.format if by_ending in (None, origin.format) or origin.format == "text" else None


def row_place(path: Path, kind: str) -> str:
    """Return the words that stand before the number of a row when an error names it."""
    return f"{path}:" if kind in ("jsonl", "text") else f"{path}, row "


def file_rows(path: Path, kind: str, replaced: Counter[str]) -> Iterator[tuple[int, Row]]:
    """Yield number and content of each row.

    Args:
        path: The file, packed or not.
        kind: Its format.
        replaced: ``bytes`` of it is raised by the bytes of a text file that are not UTF-8.

    Raises:
        DataError: the file cannot be read, or a line of it is not a JSON object.
    """
    try:
        if kind == "jsonl":
            yield from _json_rows(path)
        elif kind == "text":
            with _open(path) as stream:
                text, invalid = decoded(stream.read())
            replaced["bytes"] += invalid
            yield 1, {"text": text}
        else:
            batches = _parquet_batches(path) if kind == "parquet" else _arrow_batches(path)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        raise DataError(
            Problem(str(path), f"cannot be read as {kind}", found=str(error).splitlines()[0])
        ) from error


def count_rows(files: Sequence[Path], origin: FilesOrigin) -> float:
    """Return the rows of all files, about: parquet files and text files are counted; those of jsonl and
    Arrow are taken to have rows as long as the first ones of the first file."""
    kinds = {path: str(file_format(path, origin)) for path in files}
    counted = sum(_parquet_rows(path) for path, kind in kinds.items() if kind == "parquet")
    counted += sum(kind == "text" for kind in kinds.values())
    long = [path for path, kind in kinds.items() if kind in ("jsonl", "arrow")]
    if not long:
        return float(counted)
    return counted + sum(path.stat().st_size for path in long) / _row_bytes(long[0], kinds[long[0]])


def _parquet_rows(path: Path) -> int:
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, ValueError) as error:
        raise DataError(Problem(str(path), "cannot be read as parquet", found=error)) from error


def _row_bytes(path: Path, kind: str) -> float:
    """Return the bytes on disk for each row at the beginning of a file, packed as it is."""
    import pyarrow

    if kind == "arrow":
        rows = sum(int(batch.num_rows) for batch in _arrow_batches(path))
        return path.stat().st_size / max(1, rows)
    with pyarrow.OSFile(str(path)) as raw:
        packed = pyarrow.Codec.detect(str(path)) if path.suffix in _PACKED else None
        stream = raw if packed is None else pyarrow.CompressedInputStream(raw, packed.name)
        block: bytes = stream.read(_SAMPLE_BYTES)
        read = int(raw.tell()) if len(block) == _SAMPLE_BYTES else path.stat().st_size
    return read / max(1, block.count(b"\n") + (not block.endswith(b"\n")))


def _parquet_batches(path: Path) -> Iterator[Any]:
    """Record batches of a parquet file, whose pages are compared with their checksums where it has any."""
    from pyarrow import parquet

    file = parquet.ParquetFile(path, page_checksum_verification=True)
    size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
    mean = max(1, size // max(1, file.metadata.num_rows))
    yield from file.iter_batches(max(1, min(_BATCH_ROWS, _BATCH_BYTES // mean)))


def _open(path: Path) -> Any:
    import pyarrow

    return pyarrow.input_stream(str(path), compression="detect")


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
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
            yield number, row


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
