"""Items of a task, read from item files, held-out documents, hub data sets or their local mirrors.

    TaskSpec ──load_items──▶ Pool(items, shots)    one pool for each subject, so that few-shot
                                                   examples are of the item's own subject

Items of every origin have the fields of ``docs/benchmark_items.md``. A mirror is a directory of
``<owner>/<name>/[<subset>/]<split>*.{parquet,jsonl,json,arrow}``; a hub snapshot with its README works too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.data.verified import RECORDED_ITEMS, digests
from ablations.errors import DamagedError, DataError, Problem, unknown_name
from ablations.evaluation.dataset_readers import COLUMNS, Item
from ablations.evaluation.heldout_items import heldout_items
from ablations.evaluation.item_lines import json_lines, rank
from ablations.evaluation.specs import HubData, TaskSpec
from ablations.files import read_json

__all__ = ["ItemSources", "Pool", "group_of", "item_digests", "load_items", "rank"]


@dataclass(frozen=True, kw_only=True)
class ItemSources:
    """Places on this machine that items are read from."""

    benchmarks: Path
    """Folder of the item files, ``<data_dir>/benchmarks``."""
    stores: Mapping[str, Path] = field(default_factory=dict)
    """Source → its token store, which contains ``heldout.jsonl``."""
    mirror: Path | None = None
    """Directory of hub data sets; None = the hub itself."""
    prefer_hub: bool = False
    """Read hub data if a task names both an item file and hub data."""
    heldout_chars: int | None = None
    """Characters read of each held-out document, from its beginning; None = all."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """Digests that :func:`item_digests` returned when the run began; items that differ are refused."""


@dataclass(frozen=True)
class Pool:
    """Items that share their few-shot examples."""

    name: str
    items: list[Item]
    shots: list[Item] = field(default_factory=list)


def load_items(task: TaskSpec, sources: ItemSources, limit: int | None = None) -> list[Pool]:
    """Return the items of ``task``, each with a stable ``id``.

    Args:
        task: The task.
        sources: Places of its items.
        limit: Number of held-out documents that are scored: no others are returned; None = all.

    Raises:
        DataError: the file, split or data set is missing or empty, or has another layout.
    """
    if task.source is not None:
        if task.source not in sources.stores:
            raise DataError(unknown_name("evaluation", "source", task.source, sources.stores))
        store = Path(sources.stores[task.source])
        return [Pool("", heldout_items(task.source, store, sources.heldout_chars, limit))]
    if task.hub is not None and _from_hub(task, sources):
        items, shots = _hub_sets(task.hub, sources)
    else:
        items, shots = _item_files(task, sources)
    if not items:
        raise DataError(Problem(task.items or str(task.hub), "no items"))
    if task.shots and not shots:
        items, shots = _set_aside(items, task.shots)
    by_subject = _by_subject(shots) if task.shots else {}
    return [
        Pool(name, group, by_subject.get(name) or shots)
        for name, group in _by_subject(items).items()
    ]


def group_of(item: Item) -> str | None:
    """Return the group of an item; a model tends to be right or wrong on all items of a group together.

    The group is the item's stated ``group``, else its passage, else its subject; None if it has none of
    them. A passage is identified by the first 16 hex digits of its SHA-256.
    """
    if item.get("group"):
        return str(item["group"])
    if item.get("passage"):
        return hashlib.sha256(str(item["passage"]).encode()).hexdigest()[:16]
    return str(item["subject"]) if item.get("subject") else None


def item_digests(tasks: Iterable[TaskSpec], sources: ItemSources) -> dict[str, str]:
    """Return the SHA-256 of the content of each item file, or data set and split, of ``tasks``.

    Files that do not exist are left out. So is data from the hub itself, which a revision identifies, and
    held-out documents, which belong to their store.

    Raises:
        DataError: a file that ``prepare`` made has changed since.
    """
    found: dict[str, str] = {}
    for task in tasks:
        if task.source is not None:
            continue
        if not _from_hub(task, sources):
            names = [f"{name}.jsonl" for name in (task.items, _shots(task)) if name]
            found |= _file_digests(sources.benchmarks, names)
        elif task.hub is not None and sources.mirror is not None:
            found |= _mirror_digests(task.hub, sources.mirror)
    return found


def _from_hub(task: TaskSpec, sources: ItemSources) -> bool:
    return task.hub is not None and (sources.prefer_hub or task.items is None)


def _shots(task: TaskSpec) -> str | None:
    return task.shots_items if task.shots else None


def _splits(hub: HubData) -> Iterator[tuple[str, str]]:
    for subset in hub.subsets:
        yield subset, hub.split
        if hub.shots_split:
            yield subset, hub.shots_split


def _file_digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return name → SHA-256 of the item files that exist.

    Raises:
        DataError: a file is unreadable, or was made by ``prepare`` and has changed since.
    """
    try:
        found = digests(folder, names)
    except OSError as error:
        where = str(error.filename or folder)
        raise DataError(Problem(where, "cannot be read", found=error.strerror)) from error
    prepared = _recorded(folder)
    problems = [
        Problem(
            str(folder / name),
            "not the items that were prepared",
            found=f"sha256 {digest[:12]}",
            allowed=f"sha256 {prepared[name][:12]}",
            do="run `ablate prepare` again to restore them; give your own items another name",
        )
        for name, digest in found.items()
        if name in prepared and prepared[name] != digest
    ]
    if problems:
        raise DataError(problems)
    return found


def _recorded(folder: Path) -> Mapping[str, str]:
    """Return the checksums that ``prepare`` wrote; empty for an older version or a folder of other items."""
    path = folder / RECORDED_ITEMS
    if not os.path.lexists(path):
        return {}
    try:
        recorded: Mapping[str, str] = read_json(path)["files"]
    except (KeyError, TypeError) as error:
        raise DamagedError(
            Problem(str(path), "damaged: not a list of checksums", do="run `ablate prepare` again")
        ) from error
    return recorded


def _mirror_digests(hub: HubData, mirror: Path) -> dict[str, str]:
    """Return ``repo/subset/split`` → SHA-256 for each split that the mirror has."""
    return {
        f"{hub.repo}/{subset}/{split}": _joined_digest(files)
        for subset, split in _splits(hub)
        if (files := _mirrored_files(hub, subset, split, mirror))
    }


def _joined_digest(files: Sequence[Path]) -> str:
    joined = "".join(digests(file.parent, [file.name])[file.name] for file in files)
    return hashlib.sha256(joined.encode()).hexdigest()


def _require_same(key: str, where: str, digest: str, sources: ItemSources) -> None:
    """Refuse items that changed since the run began."""
    expected = sources.expected.get(key)
    if expected is not None and digest != expected:
        raise DataError(
            Problem(
                where,
                "items changed since the run began",
                found=f"sha256 {digest[:12]}",
                allowed=f"sha256 {expected[:12]}",
                do="restore the file, or start a new run",
            )
        )


def _set_aside(items: list[Item], count: int) -> tuple[list[Item], list[Item]]:
    """Split items into those to score and, as few-shot examples, the last ``count`` by :func:`rank`."""
    ordered = sorted(items, key=rank)
    shots = ordered[-count:]
    named = {shot["id"] for shot in shots}
    return [item for item in items if item["id"] not in named], shots


def _numbered(items: Iterable[Item], prefix: str = "") -> list[Item]:
    """Give each item an id: its own, or its position in the data set."""
    return [
        {**item, "id": prefix + str(index if item.get("id") is None else item["id"])}
        for index, item in enumerate(items)
    ]


def _item_files(task: TaskSpec, sources: ItemSources) -> tuple[list[Item], list[Item]]:
    items = _numbered(_read_items(sources, str(task.items)))
    shots = _shots(task)
    return items, list(_read_items(sources, shots)) if shots else []


def _read_items(sources: ItemSources, name: str) -> list[Item]:
    folder = sources.benchmarks
    path = folder / f"{name}.jsonl"
    if not path.exists():
        known = [file.name.removesuffix(".jsonl") for file in sorted(folder.glob("*.jsonl"))]
        if not known:
            do = "run `ablate prepare`"
            raise DataError(Problem(str(path), "no benchmark items are prepared", do=do))
        raise DataError(unknown_name(str(folder), "item file", name, known))
    for key, digest in _file_digests(folder, [path.name]).items():
        _require_same(key, str(path), digest, sources)
    return list(json_lines(path))


def _by_subject(items: Iterable[Item]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(str(item.get("subject") or ""), []).append(item)
    return groups


# --------------------------------------------------------------------------------- hub data sets


def _hub_sets(hub: HubData, sources: ItemSources) -> tuple[list[Item], list[Item]]:
    """Return items and few-shot examples of all subsets; if there are several, ids begin with the subset."""
    if hub.columns not in COLUMNS:
        raise DataError(unknown_name("hub.columns", "layout", hub.columns, COLUMNS))
    mirror = sources.mirror
    if mirror is not None and sources.expected:
        for key, digest in _mirror_digests(hub, mirror).items():
            _require_same(key, f"{mirror}/{key}", digest, sources)
    items: list[Item] = []
    shots: list[Item] = []
    for subset in hub.subsets:
        named = f"{subset}/" if len(hub.subsets) > 1 else ""
        items += _numbered(_hub_items(hub, subset, hub.split, mirror), named)
        if hub.shots_split:
            shots += _hub_items(hub, subset, hub.shots_split, mirror)
    return items, shots


def _hub_items(hub: HubData, subset: str, split: str, mirror: Path | None) -> list[Item]:
    rows = (
        _hub_rows(hub, subset, split) if mirror is None else _mirrored(hub, subset, split, mirror)
    )
    read = COLUMNS[hub.columns]
    try:
        return [item for item in map(read, rows) if item is not None]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        problem = Problem(
            f"{hub.repo} {subset} {split}",
            f"rows are not laid out as {hub.columns!r}",
            found=f"{type(error).__name__}: {error}; columns {', '.join(rows[0]) if rows else '-'}",
        )
        raise DataError(problem) from None


def _hub_rows(hub: HubData, subset: str, split: str) -> list[dict[str, Any]]:
    # Imported here: a suite of item files alone does not need it (about one second of CPU).
    from datasets import load_dataset

    try:
        data = load_dataset(hub.repo, subset, split=split, revision=hub.revision)
    except Exception as error:  # datasets, fsspec, httpx and the hub client each raise their own
        problem = Problem(
            hub.repo,
            "cannot be read from the hub",
            found=f"{type(error).__name__}: {error}".splitlines()[0],
            do="set evaluation.mirror to a directory that contains it",
        )
        raise DataError(problem) from error
    rows: list[dict[str, Any]] = data.to_list()
    return rows


def _mirrored(hub: HubData, subset: str, split: str, mirror: Path) -> list[dict[str, Any]]:
    root = Path(mirror) / hub.repo
    if not root.is_dir():
        known = [f"{path.parent.name}/{path.name}" for path in Path(mirror).glob("*/*")]
        raise DataError(unknown_name(str(mirror), "data set", hub.repo, known))
    if files := _mirrored_files(hub, subset, split, mirror):
        return [row for file in files for row in _read_rows(file)]
    if (root / "README.md").exists():
        local = HubData(repo=str(root), columns=hub.columns, split=split)
        return _hub_rows(local, subset, split)
    raise DataError(
        Problem(
            str(root),
            f"no files of split {split!r} of {subset!r}",
            found=", ".join(sorted(p.name for p in root.rglob("*") if p.is_file())[:10]) or "empty",
            allowed=f"[{subset}/]{split}*.parquet, .jsonl, .json or .arrow",
        )
    )


def _mirrored_files(hub: HubData, subset: str, split: str, mirror: Path) -> list[Path]:
    """Return the files of a split from the first folder that has any."""
    root = Path(mirror) / hub.repo
    for folder in (root / subset, root / subset / "data", root / "data", root):
        files = [
            file
            for suffix in (".parquet", ".jsonl", ".json", ".arrow")
            for pattern in (f"{split}{suffix}", f"{split}-*{suffix}", f"{split}_*{suffix}")
            for file in sorted(folder.glob(pattern))
        ]
        if files:
            return files
    return []


def _read_rows(file: Path) -> Sequence[dict[str, Any]]:
    if file.suffix in (".jsonl", ".json"):
        return list(json_lines(file))
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return rows
    with pa.memory_map(str(file)) as stream:
        streamed: list[dict[str, Any]] = pa.ipc.open_stream(stream).read_all().to_pylist()
    return streamed
