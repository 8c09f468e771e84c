"""Report which task items occur in prepared sources: one report for each, kept beside its store.

    data/<tokenizer>/<source>/contamination.json      task → items, checked, contaminated ids, examples

A report is kept for as long as the task's items, the store and the rule are the same, so asking again
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
from ablations.files import file_sha256, read_json, write_sealed

__all__ = ["REPORT", "overlaps"]

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
    keys = {task: _task_key(data_dir / "benchmarks" / f"{task}.jsonl", rule) for task in items}
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
