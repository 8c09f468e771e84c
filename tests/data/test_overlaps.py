"""A report of what a source holds of the tasks is kept until something changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ablations.data import contamination_report as module
from ablations.data.contamination import OverlapRule
from ablations.data.contamination_report import REPORT, overlaps
from ablations.data.prepare import Prepared
from ablations.data.synthetic import documents
from ablations.errors import DataError


@pytest.fixture
def data(tmp_path: Path, skills: dict[str, Prepared], data_dir: Path) -> Path:
    shutil.copytree(data_dir / "tokenizers", tmp_path / "tokenizers")
    shutil.copytree(skills["synthetic_facts"].folder, tmp_path / "facts")
    (tmp_path / "benchmarks").mkdir()
    write_items(tmp_path, "told", [text.text for text in documents("facts", 3, seed=0)])
    write_items(tmp_path, "new", ["one two three four five six seven eight nine ten eleven"])
    return tmp_path


def write_items(data: Path, task: str, questions: list[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"id": str(n), "query": q, "question": q, "choices": ["a"], "gold": 0, "joiner": " "}
        for n, q in enumerate(questions)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (data / "benchmarks" / f"{task}.jsonl").write_text(lines)


def test_items_of_the_text_are_reported_by_task(data: Path) -> None:
    told, new = overlaps({"facts": data / "facts"}, data, ["told", "new"])["facts"]
    assert (told.task, told.items, len(told.contaminated)) == ("told", 3, 3)
    assert (new.task, new.items, new.contaminated) == ("new", 1, set())


def test_a_report_is_kept_until_items_rule_or_store_change(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[list[str]] = []
    real = module.scan
    monkeypatch.setattr(
        module,
        "scan",
        lambda index, texts: (scans.append(list(index.sizes)), real(index, texts))[1],
    )
    stores = {"facts": data / "facts"}
    first = overlaps(stores, data, ["told"])
    assert overlaps(stores, data, ["told"]) == first
    assert scans == [["told"]]
    overlaps(stores, data, ["told", "new"])
    assert scans[1:] == [["new"]]
    overlaps(stores, data, ["told"], OverlapRule(words=8))
    write_items(data, "new", ["other words of another question that stand in no text at all"])
    overlaps(stores, data, ["new"])
    assert scans[2:] == [["told"], ["new"]]
    (data / "facts" / REPORT).write_text("{")
    overlaps(stores, data, ["new"])
    assert scans[4:] == [["new"]]


def test_a_task_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(DataError, match="unknown task 'tolt'"):
        overlaps({"facts": data / "facts"}, data, ["tolt"])
