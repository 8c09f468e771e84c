"""A report of what a source holds of the tasks is kept until something changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ablations.data import contamination_report as module
from ablations.data import overlap_step
from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.contamination import OverlapRule, TaskReport
from ablations.data.contamination_report import REPORT, overlaps, rank_report_file
from ablations.data.prepare import Prepared, prepare
from ablations.data.synthetic import documents
from ablations.errors import DataError
from ablations.files import read_json
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.data.test_prepare_counts import TEXTS, TOKENIZER, write_rows


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


SHARDS = 3


def prepared_with_report(folder: Path) -> Path:
    """Prepare the texts of the counting tests in three ranks that seek two tasks; return the store."""
    for number in range(SHARDS):
        write_rows(folder / "texts" / f"{number}.jsonl", TEXTS[number::SHARDS])
    (folder / "benchmarks").mkdir(exist_ok=True)
    write_items(
        folder, "told", [*TEXTS[4:7], "words that no document of any rank has at all today"]
    )
    write_items(folder, "new", ["one two three four five six seven eight nine ten eleven"])
    spec = SourceSpec(
        domain="x",
        tokens_available=1000,
        origin=FilesOrigin(kind="files", paths=(str(folder / "texts"),)),
        licence="none",
        heldout_share=0.2,
        shards=SHARDS,
    )
    (store,) = prepare({"talk": spec}, TOKENIZER, folder, overlap_tasks=("told", "new", "absent"))
    return store.folder


def found(reports: list[TaskReport]) -> list[tuple[Any, ...]]:
    return [(r.task, r.items, r.checked, r.contaminated, r.documents) for r in reports]


def test_the_merged_report_of_ranks_is_that_of_the_whole_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = prepared_with_report(tmp_path)
    assert not (store / "overlaps").exists()
    with monkeypatch.context() as patch:
        patch.setattr(module, "scan", lambda *_: pytest.fail("the store was searched again"))
        merged = overlaps({"talk": store}, tmp_path, ["told", "new"])["talk"]
    assert merged[0].contaminated >= {"0", "1", "2"}
    assert merged[0].documents > SHARDS
    assert 0 < len(merged[0].examples) <= 5
    (store / REPORT).unlink()
    whole = overlaps({"talk": store}, tmp_path, ["told", "new"])["talk"]
    assert found(merged) == found(whole)


@pytest.mark.parametrize("how", ["missing", "damaged", "of other items"])
def test_a_task_that_a_rank_did_not_seek_is_sought_in_the_whole_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    real = overlap_step.write_rank_report

    def spoilt(folder: Path, rank: int, reports: Any, keys: dict[str, str]) -> None:
        other = how == "of other items" and rank == 1
        real(folder, rank, reports, {**keys, "told": "x"} if other else keys)
        path = rank_report_file(folder, rank)
        if rank == 1 and how == "missing":
            path.unlink()
        if rank == 1 and how == "damaged":
            path.write_text(path.read_text().replace("told", "tolt"))

    monkeypatch.setattr(overlap_step, "write_rank_report", spoilt)
    store = prepared_with_report(tmp_path)
    searched: list[list[str]] = []
    scan = module.scan
    monkeypatch.setattr(
        module,
        "scan",
        lambda index, texts: (searched.append(list(index.sizes)), scan(index, texts))[1],
    )
    reports = overlaps({"talk": store}, tmp_path, ["told", "new"])["talk"]
    assert searched == [["told"] if how == "of other items" else ["told", "new"]]
    assert reports[0].contaminated >= {"0", "1", "2"}


@pytest.mark.parametrize("asked", [True, False])
def test_the_command_seeks_the_items_of_the_suite_in_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate, asked: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "scan", lambda *_: pytest.fail("a store was searched afterwards"))
    answer = ablate(
        "prepare",
        *TINY,
        *SHORT_SOURCES,
        f"prepare.contamination={'true' if asked else 'false'}",
    )
    assert answer.code == 0, answer.err
    reports = list(tmp_path.glob(f"data/*/*/{REPORT}"))
    assert bool(reports) is asked
    for path in reports:
        assert sorted(read_json(path)["tasks"]) == ["synthetic_arithmetic", "synthetic_facts"]
