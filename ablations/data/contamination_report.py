"""Report which task items occur in prepared sources: one report for each, kept beside its store.

    data/<tokenizer>/<source>/contamination.json      task → items, checked, contaminated ids, examples

Each rank of a preparation seeks the items in the documents that it writes (``overlap_step``), and the last
step merges what they found. A store that was prepared without, or for other tasks, is decoded and searched
here. A report is kept for as long as the task's items, the store and the rule are the same, so asking again
costs nothing::

    for task in overlaps({"math": Path("data/demo_bpe/math")}, Path("data"), ["gsm8k"])["math"]:
        print(task.task, len(task.contaminated), "of", task.items)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ablations.data.contamination import (
    OverlapRule,
    TaskIndex,
    TaskReport,
    read_tasks,
    scan,
    store_texts,
)
from ablations.data.manifest import StoreManifest
from ablations.errors import DamagedError
from ablations.files import file_sha256, read_json, write_sealed

__all__ = [
    "REPORT",
    "merge_rank_reports",
    "overlaps",
    "rank_report_file",
    "task_keys",
    "write_rank_report",
]

REPORT = "contamination.json"


def overlaps(
    stores: Mapping[str, Path],
    data_dir: Path,
    tasks: Iterable[str],
    rule: OverlapRule | None = None,
) -> dict[str, list[TaskReport]]:
    """Source → a report of every task, from the training text of its store.

    Args:
        stores: Source → its store.
        data_dir: The data folder: its ``benchmarks`` hold the items, its ``tokenizers`` decode.
        tasks: Files of ``data/benchmarks``.
        rule: When an item counts as contaminated.

    Raises:
        DataError: a task or a store that is not there.
    """
    rule = rule or OverlapRule()
    items = read_tasks(data_dir / "benchmarks", dict.fromkeys(tasks))
    keys = task_keys(data_dir, items, rule)
    found: dict[str, list[TaskReport]] = {}
    index: dict[tuple[str, ...], TaskIndex] = {}
    for source, folder in stores.items():
        kept = _read(folder)
        missing = tuple(task for task in items if kept.get(task, {}).get("key") != keys[task])
        if missing:
            if missing not in index:
                index[missing] = TaskIndex({task: items[task] for task in missing}, rule)
            for report in scan(index[missing], store_texts(folder, data_dir / "tokenizers")):
                kept[report.task] = {"key": keys[report.task], **_plain(report)}
            write_sealed(folder / REPORT, {"store": _store_key(folder), "tasks": kept})
        found[source] = [_report(kept[task]) for task in items]
    return found


def task_keys(
    data_dir: Path, tasks: Iterable[str], rule: OverlapRule | None = None
) -> dict[str, str]:
    """Return task → key of its report: a checksum of the task's items and of the rule."""
    rule = rule or OverlapRule()
    return {task: _task_key(data_dir / "benchmarks" / f"{task}.jsonl", rule) for task in tasks}


def rank_report_file(folder: Path, rank: int) -> Path:
    """Return the file of what rank ``rank`` of a preparation found."""
    return folder / "overlaps" / f"{rank:05d}.json"


def write_rank_report(
    folder: Path, rank: int, reports: Iterable[TaskReport], keys: Mapping[str, str]
) -> None:
    """Write what a rank found, for :func:`merge_rank_reports`."""
    path = rank_report_file(folder, rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    tasks = {report.task: {"key": keys[report.task], **_plain(report)} for report in reports}
    write_sealed(path, {"tasks": tasks})


def merge_rank_reports(folder: Path, ranks: Iterable[int]) -> None:
    """Write the report of a store from those of its ranks, for the tasks that every rank has sought.

    The manifest is in ``folder`` already. A task that a rank lacks, or has sought by other items, is left
    out; :func:`overlaps` seeks it in the whole store.
    """
    parts = [_rank_tasks(folder, rank) for rank in ranks]
    first, *others = parts
    kept = {}
    for task, values in first.items():
        if any(other.get(task, {}).get("key") != values["key"] for other in others):
            continue
        whole = _report(values)
        for other in others:
            whole.merge(_report(other[task]))
        kept[task] = {"key": values["key"], **_plain(whole)}
    if kept:
        write_sealed(folder / REPORT, {"store": _store_key(folder), "tasks": kept})


def _rank_tasks(folder: Path, rank: int) -> dict[str, dict[str, Any]]:
    """Return task → what a rank found; nothing if the rank did not look, or its file is damaged."""
    with contextlib.suppress(OSError, DamagedError, KeyError):
        tasks: dict[str, dict[str, Any]] = read_json(rank_report_file(folder, rank))["tasks"]
        return tasks
    return {}


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the reports kept of this very store."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        content = read_json(folder / REPORT)
        if content["store"] == _store_key(folder):
            tasks: dict[str, dict[str, Any]] = content["tasks"]
            return tasks
    return {}


def _store_key(folder: Path) -> str:
    files = StoreManifest.read(folder).files
    return hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()


def _task_key(path: Path, rule: OverlapRule) -> str:
    text = file_sha256(path) + json.dumps(asdict(rule), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(report: TaskReport) -> dict[str, Any]:
    return {**asdict(report), "contaminated": sorted(report.contaminated)}


def _report(kept: Mapping[str, Any]) -> TaskReport:
    values = {key: value for key, value in kept.items() if key != "key"}
    values["contaminated"] = set(values["contaminated"])
    values["examples"] = [(item, document) for item, document in values["examples"]]
    return TaskReport(**values)
