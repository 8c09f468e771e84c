"""The index of tasks' items, kept beside them: every process of a preparation reads it in place of hashing.

    data/benchmarks/.index/<tasks and rule>     one line of JSON with checksums, then the pickled index

It is that of the item files, of the rule and of the code that made it. Where a byte of any of them or of the
file itself differs, it is made anew. Of 6,000 items it is 7 MB, and reading it takes a sixth of making it.
Only classes of the index are unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ablations.data import contamination, word_runs
from ablations.data.contamination import OverlapRule, TaskIndex, read_tasks
from ablations.files import file_sha256, write_bytes

__all__ = ["INDEX", "task_index"]

INDEX = ".index"
"""Folder below ``benchmarks``."""

_CODE = (contamination, word_runs)
_CLASSES = {
    (contamination.__name__, "OverlapRule"),
    (contamination.__name__, "TaskIndex"),
    (contamination.__name__, "_Table"),
    (word_runs.__name__, "RunFilter"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
}


def task_index(
    benchmarks: Path, names: Iterable[str], rule: OverlapRule | None = None
) -> TaskIndex:
    """Return the index of the items of the tasks called ``names``; make it and keep it if it is not there.

    Args:
        benchmarks: Folder of the item files. If it cannot be written, the index is not kept.
        names: Tasks, in the order of the index.
        rule: When an item counts as contaminated.

    Raises:
        DataError: a task that is not there.
    """
    names, rule = list(dict.fromkeys(names)), rule or OverlapRule()
    asked = json.dumps([names, asdict(rule)], sort_keys=True)
    file = benchmarks / INDEX / hashlib.sha256(asked.encode()).hexdigest()[:16]
    of = _content(benchmarks, names)
    if of is not None and (kept := _read(file, of)) is not None:
        return kept
    index = TaskIndex(read_tasks(benchmarks, names), rule)
    if of is not None and _content(benchmarks, names) == of:  # not changed while it was read
        with contextlib.suppress(
            OSError
        ):  # a folder that others own: it is made again by each process
            file.parent.mkdir(exist_ok=True)
            _write(file, of, index)
    return index


def _content(benchmarks: Path, names: Iterable[str]) -> str | None:
    """Return a checksum of the item files and of the code; None if a file is missing."""
    code = [Path(str(module.__file__)) for module in _CODE]
    try:
        digests = [file_sha256(path) for path in (*_files(benchmarks, names), *code)]
    except OSError:
        return None
    return hashlib.sha256(" ".join((*digests, np.__version__)).encode()).hexdigest()


def _files(benchmarks: Path, names: Iterable[str]) -> list[Path]:
    return [benchmarks / f"{name}.jsonl" for name in names]


def _write(file: Path, of: str, index: TaskIndex) -> None:
    body = pickle.dumps(index, protocol=5)
    head = {"of": of, "sha256": hashlib.sha256(body).hexdigest()}
    write_bytes(file, json.dumps(head).encode() + b"\n" + body)


def _read(file: Path, of: str) -> TaskIndex | None:
    """Return the index in a file; None if it is of other items, or is not what was written."""
    try:
        head, _, body = file.read_bytes().partition(b"\n")
        stated = json.loads(head)
        if stated != {"of": of, "sha256": hashlib.sha256(body).hexdigest()}:
            return None
        index = _Unpickler(io.BytesIO(body)).load()
    except (OSError, ValueError, pickle.UnpicklingError, AttributeError, ImportError):
        return None
    return index if isinstance(index, TaskIndex) else None


class _Unpickler(pickle.Unpickler):
    """Unpickler of an index and its arrays, and of nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function that an index consists of."""
        if (module, name) not in _CLASSES:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)
