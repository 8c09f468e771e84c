"""The index of tasks' items that is kept beside them: never of other items, never of other bytes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from ablations.data.contamination import OverlapRule, TaskIndex, read_tasks
from ablations.data.task_index import INDEX, task_index
from ablations.data.word_runs import RunFilter
from ablations.errors import DataError

FIRST = "a heron waits by the weir until the sluice opens and 17 eels come down"
SECOND = "nine barges of coal were towed past the mill before the frost closed the cut"
TEXT = f"Once {FIRST.replace('17', '4')}, they said; {SECOND.upper()}!"


def write(folder: Path, name: str, *questions: str) -> None:
    rows = [
        {"id": str(n), "question": q, "query": q, "choices": ["yes"], "gold": 0}
        for n, q in enumerate(questions)
    ]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def items(tmp_path: Path) -> Path:
    write(tmp_path, "birds", FIRST, "too short")
    write(tmp_path, "boats", SECOND)
    return tmp_path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note each index that is made anew."""
    found: list[object] = []
    make = RunFilter.__init__

    def noted(self: RunFilter, *arguments: Any) -> None:
        found.append(self)
        make(self, *arguments)

    monkeypatch.setattr(RunFilter, "__init__", noted)
    return found


def kept_file(items: Path) -> Path:
    (file,) = (items / INDEX).iterdir()
    return file


def hits_of(index: TaskIndex) -> list[tuple[str, str]]:
    return [(hit.task, hit.item) for hit in index.hits(TEXT)]


BOTH = [("birds", "0"), ("boats", "0")]


def test_a_kept_index_finds_what_a_new_one_finds(items: Path, made: list[object]) -> None:
    names = ["birds", "boats"]
    new = TaskIndex(read_tasks(items, names))
    assert hits_of(task_index(items, names)) == BOTH
    assert len(made) == 2
    for _ in range(2):
        kept = task_index(items, names)
        assert hits_of(kept) == hits_of(new) == BOTH
        assert kept.sizes == new.sizes == {"birds": (2, 1), "boats": (1, 1)}
        assert kept.rule == new.rule
    assert len(made) == 2


def test_other_tasks_and_rules_have_an_index_of_their_own(items: Path, made: list[object]) -> None:
    for _ in range(2):
        assert hits_of(task_index(items, ["birds"])) == BOTH[:1]
        assert hits_of(task_index(items, ["boats", "birds"])) == BOTH[::-1]
        plain = task_index(items, ["birds"], OverlapRule(mask_numbers=False, common_share=1.0))
        assert hits_of(plain) == []
    assert len(made) == 3


def test_items_that_change_are_hashed_again(items: Path, made: list[object]) -> None:
    task_index(items, ["boats"])
    write(items, "boats", SECOND.replace("nine", "nino"))
    assert hits_of(task_index(items, ["boats"])) == [("boats", "0")]
    write(items, "boats", FIRST)
    assert hits_of(task_index(items, ["boats"])) == [("boats", "0")]
    assert len(made) == 3
    assert kept_file(items).is_file()  # one for each set of tasks


@pytest.mark.parametrize("place", [0, 20, 100, -1])
def test_a_byte_that_differs_makes_it_anew(items: Path, made: list[object], place: int) -> None:
    task_index(items, ["boats"])
    file = kept_file(items)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert hits_of(task_index(items, ["boats"])) == [("boats", "0")]
    assert len(made) == 2
    task_index(items, ["boats"])
    assert len(made) == 2


@pytest.mark.parametrize("size", [0, 10, 300])
def test_a_file_that_is_cut_makes_it_anew(items: Path, made: list[object], size: int) -> None:
    task_index(items, ["boats"])
    os.truncate(kept_file(items), size)
    assert hits_of(task_index(items, ["boats"])) == [("boats", "0")]
    assert len(made) == 2


def test_a_file_with_anything_but_an_index_is_not_unpickled(items: Path, tmp_path: Path) -> None:
    task_index(items, ["boats"])
    file = kept_file(items)
    body = pickle.dumps(Planted(str(tmp_path / "planted")))
    head = json.loads(file.read_bytes().partition(b"\n")[0])
    head["sha256"] = hashlib.sha256(body).hexdigest()
    file.write_bytes(json.dumps(head).encode() + b"\n" + body)
    assert hits_of(task_index(items, ["boats"])) == [("boats", "0")]
    assert not (tmp_path / "planted").exists()


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def test_a_folder_that_cannot_be_written_costs_only_the_time(items: Path) -> None:
    (items / INDEX).write_text("a file in place of the folder")
    assert hits_of(task_index(items, ["boats"])) == [("boats", "0")]


def test_a_task_that_is_not_there_is_named(items: Path) -> None:
    with pytest.raises(DataError, match="boat"):
        task_index(items, ["boat"])
    with pytest.raises(DataError, match="no task items"):
        task_index(items / "none", ["boats"])
