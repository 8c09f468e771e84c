"""Bulk reading of record folders: the one module of the analysis that opens their JSON files.

`ablations.record.run_record.RunRecord` opens one record at a time and checks it; a study of 10,000 runs needs
the same files in seconds. :func:`scan` reads the small files of every run, :func:`read_lines` joins
the line files of many runs into one Arrow table per chunk, so that Arrow's JSON parser works on tens
of megabytes at once instead of on 10,000 files::

    runs = scan(Path("runs"), study="demo_ratio")
    for table, owner in read_lines(runs, "scores.jsonl"):
        ...                                # owner[i] is the position in `runs` of row i

A running study can be read at any time: a torn last line is dropped, a file that does not exist yet
counts as empty, and a record whose manifest cannot be read is left out.
"""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.errors import DataError, Problem, unknown_name
from ablations.files import is_intact, unsealed
from ablations.record.stored import result_fault

if TYPE_CHECKING:
    import pyarrow as pa

    from sweeps.study.objective import Objective

__all__ = [
    "RunFiles",
    "collector_paused",
    "command_line",
    "read_json_or_none",
    "read_lines",
    "scan",
    "studies",
    "study_objective",
]

CHUNK_BYTES = 16 << 20
"""Number of bytes of joined line files that are parsed at once: four blocks, so that two threads have
work. With 48 MiB the same scores took three times the page faults and 0.2 CPU-seconds more."""

_BLOCK_BYTES = 4 << 20
"""Bytes that Arrow parses in one task; 1 MiB cost 30% more CPU on score rows of 4.5 kB."""


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Contents of the small files of one run at the time of reading."""

    folder: str
    study: str
    run: str
    """Name of the folder, ``<trial>-<seed>``."""
    manifest: Mapping[str, Any]
    result: Mapping[str, Any] | None
    """Result with the ``score`` and ``direction`` of the first objective that the study declares; None
    until the run has ended."""
    audit: Mapping[str, Any] | None
    """Audit of the run; None until it exists."""
    paused: Mapping[str, Any] | None = None
    """Step, tokens and cost of a run that paused; None for other runs."""

    @property
    def reached(self) -> Mapping[str, Any]:
        """Return step, tokens and cost so far: of the result, else of the pause, else nothing.

        The score of a pause is left out, because it does not compare with those of full runs.
        """
        if self.result is not None:
            return self.result
        if self.paused is None:
            return {}
        return {key: self.paused.get(key) for key in ("step", "tokens", "cost", "audit_ok")}

    @property
    def path(self) -> Path:
        """Return the run folder as a path."""
        return Path(self.folder)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the cyclic garbage collector, which would scan many live objects again and again.

    JSON values have no cycles. Parsing 5,000 manifests took 0.55 CPU-seconds with the collector and
    0.22 without.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def studies(runs_dir: Path) -> list[str]:
    """Return the names of the studies under ``runs_dir``, including those without a run."""
    root = Path(runs_dir)
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def scan(runs_dir: Path, study: str | None = None) -> list[RunFiles]:
    """Read manifest, result and audit of every run under ``runs_dir``, or of one study, sorted by name.

    Raises:
        DataError: the study does not exist; the message names the nearest one.
    """
    names = studies(runs_dir)
    if study is not None:
        if study not in names:
            raise DataError(_no_study(runs_dir, study, names))
        names = [study]
    with collector_paused():
        return [record for name in names for record in _records(Path(runs_dir) / name)]


def _records(study: Path) -> Iterator[RunFiles]:
    before: dict[str, Any] = {}
    objective = study_objective(study)
    for run in sorted(entry.name for entry in os.scandir(study) if entry.is_dir()):
        record = _open(study, run, before)
        if record is not None:
            yield _with_objective(record, objective)


def study_objective(folder: Path) -> Objective:
    """Return the first objective of the study in ``folder``; the runs' score if none is declared."""
    from sweeps.study.objective import Objective, objective_of

    try:
        return objective_of(folder)
    except (OSError, TypeError, ValueError):
        return Objective()


def _with_objective(run: RunFiles, objective: Objective) -> RunFiles:
    """Replace the score that the run recorded by the study's objective."""
    if run.result is None or objective.is_recorded:
        return run
    direction = objective.direction or run.result.get("direction")
    result = {**run.result, "score": objective.value(run.result), "direction": direction}
    return replace(run, result=result)


def _no_study(runs_dir: Path, study: str, names: Sequence[str]) -> Problem:
    if not names:
        return Problem("runs_dir", "no study is recorded there", found=runs_dir, do="run one first")
    return unknown_name("study", "study", study, names)


def _open(study: Path, run: str, before: dict[str, Any]) -> RunFiles | None:
    # Strings, not paths: joining 40,000 paths costs 0.4 s.
    folder = os.path.join(study, run)
    manifest = read_json_or_none(f"{folder}/manifest.json")
    if not isinstance(manifest, dict):
        return None
    _share(manifest, before)
    result = _object_or_none(f"{folder}/result.json")
    return RunFiles(
        folder=folder,
        study=study.name,
        run=run,
        manifest=manifest,
        result=result if result and not result_fault(result) else None,
        paused=_object_or_none(f"{folder}/paused.json") if _has_paused(manifest, result) else None,
        audit=_object_or_none(f"{folder}/audit.json"),
    )


def _has_paused(manifest: Mapping[str, Any], result: object) -> bool:
    return result is None and manifest.get("status") == "paused"


def _share(manifest: dict[str, Any], before: dict[str, Any]) -> None:
    """Replace the sections of a manifest by the equal ones of the manifest ``before`` it.

    Runs of a study differ in mixture and seed only: 10,000 manifests that shared nothing took 300 MB.
    """
    config = manifest.get("config")
    for part in (manifest, config if isinstance(config, dict) else {}):
        for key, section in part.items():
            if section is config or not isinstance(section, (dict, list)):
                continue
            if before.get(key) == section:
                part[key] = before[key]
            else:
                before[key] = section


def read_json_or_none(path: Path | str) -> Any:
    """Read the JSON value in ``path``; None if it is absent, not JSON, or changed since it was written."""
    import orjson

    try:
        with open(path, "rb", buffering=0) as stream:
            return unsealed(orjson.loads(stream.read()), str(path))
    except (OSError, ValueError):
        return None


def _object_or_none(path: str) -> dict[str, Any] | None:
    value = read_json_or_none(path)
    return value if isinstance(value, dict) else None


def read_lines(
    runs: Sequence[RunFiles], name: str
) -> Iterator[tuple[pa.Table, np.ndarray[Any, np.dtype[np.int64]]]]:
    """Yield the rows of the line file ``name`` of every run, with many runs in one table.

    A row of scores that was changed since it was written is empty. The checksums of metrics are not
    compared: there are a hundred times as many rows, and no decision depends on one.

    Yields:
        A table, and for each of its rows the position in ``runs`` of the run that wrote it.
    """
    chunk = _Chunk(compared=name == "scores.jsonl")
    for position, record in enumerate(runs):
        path = f"{record.folder}/{name}"
        if not chunk.take(path, position):
            yield chunk.parse()
            chunk.clear()
            chunk.take(path, position)
    if chunk.used:
        yield chunk.parse()


class _Chunk:
    """Line files one after another in one buffer, which is reused for the next chunk.

    New memory has to be zeroed page by page: reading 10,000 files one by one and joining their
    contents cost 0.3 CPU-seconds more.
    """

    def __init__(self, *, compared: bool) -> None:
        self.buffer = bytearray(CHUNK_BYTES)
        self._compared = compared
        self.clear()

    def clear(self) -> None:
        """Empty the buffer."""
        self.used = 0
        self.owners: list[int] = []
        self.ends: list[int] = [0]

    def take(self, path: str, owner: int) -> bool:
        """Append the complete lines of a file, if it exists; return False if they do not fit."""
        try:
            with open(path, "rb", buffering=0) as stream:
                size = os.fstat(stream.fileno()).st_size
                if self.used and self.used + size > CHUNK_BYTES:
                    return False
                self._append(stream, size, owner)
        except OSError:  # absent, or unreadable, which `ablate report` prints
            pass
        return True

    def _append(self, stream: io.FileIO, size: int, owner: int) -> None:
        start = end = self.used
        if start + size > len(self.buffer):
            self.buffer = self.buffer[:start] + bytearray(size)
        with memoryview(self.buffer) as view:
            # Not past `size`, though the file may be growing.
            while end < start + size and (count := stream.readinto(view[end : start + size])):
                end += count
        # Bytes after the last newline are still being written, or were never finished.
        self.used = self.buffer.rfind(b"\n", start, end) + 1 or start
        if self._compared:
            self._empty_damaged(start)
        if self.used > start:
            self.owners.append(owner)
            self.ends.append(self.used)

    def _empty_damaged(self, start: int) -> None:
        """Empty each row from ``start`` on whose checksum does not match its content."""
        while start < self.used:
            end = self.buffer.index(b"\n", start)
            if not is_intact(self.buffer[start:end]):
                self.buffer[start:end] = b"{}".ljust(end - start)
            start = end + 1

    def lines(self) -> list[list[bytes]]:
        """Return the lines of every file, without the blank ones, which Arrow skips too."""
        spans = itertools.pairwise(self.ends)
        contents = (bytes(memoryview(self.buffer)[start:end]) for start, end in spans)
        return [[line for line in content.split(b"\n") if line.strip()] for content in contents]

    def parse(self) -> tuple[pa.Table, np.ndarray[Any, np.dtype[np.int64]]]:
        """Return the rows as a table, and for each row the position of its run."""
        import pyarrow as pa

        spans = itertools.pairwise(self.ends)
        counts = [self.buffer.count(b"\n", start, end) for start, end in spans]
        try:
            table = _arrow(pa.py_buffer(memoryview(self.buffer)[: self.used]))
        except pa.ArrowInvalid:
            table = _repaired([line for lines in self.lines() for line in lines])
        if table.num_rows != sum(counts):
            counts = [len(lines) for lines in self.lines()]
        return table, np.repeat(np.asarray(self.owners, dtype=np.int64), counts)


def _arrow(content: pa.Buffer) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    options = arrow_json.ReadOptions(block_size=_BLOCK_BYTES)
    return arrow_json.read_json(pa.BufferReader(content), read_options=options)


def _repaired(lines: Sequence[bytes]) -> pa.Table:
    """Parse lines of which some cannot be read, or whose types disagree.

    A line that cannot be read becomes an empty row. Rows whose types disagree are built one by one,
    which takes ten times as long.
    """
    import pyarrow as pa

    rows = [_row(line) for line in lines]
    kept = [line if row else b"{}" for line, row in zip(lines, rows, strict=True)]
    try:
        return _arrow(pa.py_buffer(b"\n".join(kept)))
    except pa.ArrowInvalid:
        return pa.Table.from_pylist(_agreeing(rows))


def _row(line: bytes) -> dict[str, Any]:
    import orjson

    try:
        value = orjson.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _agreeing(values: Sequence[Any]) -> list[Any]:
    """Return ``values`` with everything missing that is not of the leading kind.

    Objects lead over numbers, numbers over flags, and flags over texts.
    """
    if any(isinstance(value, dict) for value in values):
        inner = [value if isinstance(value, dict) else None for value in values]
        keys = dict.fromkeys(key for value in inner if value for key in value)
        columns = {key: _agreeing([v.get(key) if v else None for v in inner]) for key in keys}
        return [
            None if value is None else {key: columns[key][place] for key in keys}
            for place, value in enumerate(inner)
        ]
    for kinds in ({int, float}, {bool}, {str}):
        if any(type(value) in kinds for value in values):
            return [value if type(value) in kinds else None for value in values]
    return [None] * len(values)


def command_line(arguments: Sequence[str]) -> str:
    """Join arguments for a shell; the command itself may be one argument, such as `ablate run`."""
    if not arguments:
        return ""
    return " ".join([str(arguments[0]), shlex.join(map(str, arguments[1:]))]).strip()
