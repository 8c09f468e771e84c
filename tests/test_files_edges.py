"""Check files at their edges: seals, torn lines of any length, folders that step aside, syncing."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations import files as module
from ablations.errors import DamagedError
from ablations.files import (
    LineTail,
    append_json_line,
    finite_or_none,
    free_bytes,
    is_intact,
    mend_lines,
    read_json,
    read_json_lines,
    replace_folder,
    restore_folder,
    sealed,
    sync_folder,
    unsealed,
    write_json,
    write_once,
    write_sealed,
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_seal_is_the_beginning_of_the_checksum_of_sorted_content() -> None:
    found = sealed({"b": 1, "a": "ä"})
    assert found == {"b": 1, "a": "ä", "content_sha256": digest('{"a":"\\u00e4","b":1}')}
    assert sealed(found) == found
    assert sealed({**found, "b": 2})["content_sha256"] != found["content_sha256"]


@pytest.mark.parametrize(
    "value",
    [
        {"text": "ä → 猫", "small": 1e-8},
        {"text": "plain", "small": [1e-8, 0.00001, -1.5e-12, 1e300]},
        {"text": "ä", "n": 2**70, "m": -(2**70)},
        {"n": 2**64, "m": -(2**63) - 1, "edge": [2**64 - 1, -(2**63)]},
        {"empty": {}, "none": None, "deep": [[{"a": [1, 2.0, True]}]]},
        {},
    ],
)
def test_what_is_sealed_is_read_back_exactly_and_a_change_refused(
    tmp_path: Path, value: dict[str, Any]
) -> None:
    path = tmp_path / "value.json"
    write_sealed(path, value)
    found = read_json(path)
    assert found == value
    assert json.dumps(found) == json.dumps(value)
    write_json(path, {**sealed(value), "more": 1})
    with pytest.raises(DamagedError, match=r"value\.json: damaged: its content is not"):
        read_json(path)


@pytest.mark.parametrize("value", [1, None, [1], ["content_sha256"], "content_sha256", {"a": 1}])
def test_what_carries_no_seal_is_taken_as_it_is(value: object) -> None:
    assert unsealed(value, "here") == value


@pytest.mark.parametrize(
    "number", [2**64, -(2**63) - 1, 12345678901234567890123, -98765432109876543210]
)
def test_whole_numbers_beyond_64_bits_stay_whole(tmp_path: Path, number: int) -> None:
    path = tmp_path / "n.json"
    path.write_text(f'{{"n": {number}}}')
    assert read_json(path) == {"n": number}
    assert isinstance(read_json(path)["n"], int)


def test_an_unsealed_row_is_the_row_alone_and_a_sealed_one_ends_with_its_checksum(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.jsonl"
    append_json_line(path, {"a": "ä"})
    append_json_line(path, {"a": 1}, seal=True)
    append_json_line(path, {}, seal=True)
    one, two = '{"a": 1, ', "{"
    assert path.read_text().splitlines() == [
        '{"a": "ä"}',
        f'{one}"content_sha256": "{digest(one)}"}}',
        f'{two}"content_sha256": "{digest(two)}"}}',
    ]
    assert list(read_json_lines(path)) == [{"a": "ä"}, {"a": 1}, {}]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_not_written(tmp_path: Path, value: float) -> None:
    for write in (write_json, append_json_line):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(tmp_path / "x", {"a": value})
    assert finite_or_none(value) is None
    assert finite_or_none(0.5) == 0.5


@pytest.mark.parametrize(
    ("line", "intact"),
    [
        (b'{"a": 1}\n', True),
        (f'"content_sha256": "{digest("")}"}}'.encode(), True),
        (b'"content_sha256": "0000000000000000"}', False),
        (f'{{"content_sha256": "{digest("{")}"}}\n'.encode(), True),
        (f'{{"content_sha256": "{digest("{")}"}} x'.encode(), False),
        (f'{{"content_sha256": "{digest("{")}", "b": 1}}'.encode(), False),
    ],
)
def test_a_line_is_compared_with_the_checksum_at_its_end(line: bytes, intact: bool) -> None:
    assert is_intact(line) is intact


@pytest.mark.parametrize("row", ["1", "[]", "null", '"a"'])
def test_a_row_that_is_no_object_or_lacks_its_key_is_named_by_its_line(
    tmp_path: Path, row: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n{row}\n')
    with pytest.raises(DamagedError, match=r"rows\.jsonl:2: damaged"):
        list(read_json_lines(path))
    path.write_text('{"a": 1}\n{"b": 1}\n{"torn": ')
    assert len(list(read_json_lines(path))) == 2
    with pytest.raises(DamagedError, match=r"rows\.jsonl:2: damaged"):
        list(read_json_lines(path, needs="a"))


@pytest.mark.parametrize("torn", [0, 1, 4095, 4096, 4097, 9000])
@pytest.mark.parametrize("whole", [0, 1, 2, 4095, 4096, 4097, 9000])
def test_a_torn_end_of_any_length_is_cut_and_nothing_else(
    tmp_path: Path, whole: int, torn: int
) -> None:
    path = tmp_path / "rows.jsonl"
    kept = b"x" * (whole - 1) + b"\n" if whole else b""
    path.write_bytes(kept + b"y" * torn)
    mend_lines(path)
    assert path.read_bytes() == kept


def test_mending_makes_no_file(tmp_path: Path) -> None:
    mend_lines(tmp_path / "none")
    assert list(read_json_lines(tmp_path / "none")) == []
    assert list(tmp_path.iterdir()) == []


def test_lines_that_are_appended_are_read_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail, later = LineTail(path), LineTail(path, 4)
    assert tail.read() == []
    path.write_bytes(b"one\ntwo\nth")
    assert (tail.read(), later.read()) == (["one", "two"], ["two"])
    assert tail.read() == []
    with path.open("ab") as stream:
        stream.write(b"ree\n\nfour\n")
    assert (tail.read(), later.read()) == (["three", "", "four"],) * 2


def test_of_two_writers_the_first_one_s_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new/once.json"
    write_once(path, {"a": 1})
    assert path.read_text() == json.dumps(sealed({"a": 1}), indent=1) + "\n"
    write_once(path, {"a": 2})
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # as it was a moment ago
    write_once(path, {"a": 3})
    monkeypatch.undo()
    monkeypatch.setattr(module, "claimed_file", lambda path: pytest.fail("it is there already"))
    write_once(path, {"a": 4})
    assert read_json(path) == {"a": 1}
    assert [one.name for one in path.parent.iterdir()] == ["once.json"]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes that were synced to the disk."""
    nodes: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        nodes.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return nodes


def test_files_and_folders_are_synced(tmp_path: Path, synced: list[int]) -> None:
    write_once(tmp_path / "once.json", {})
    write_json(tmp_path / "value.json", {})
    sync_folder(tmp_path)
    assert synced == [
        path.stat().st_ino for path in (tmp_path / "once.json", tmp_path / "value.json", tmp_path)
    ]


def test_free_space_is_that_of_the_nearest_folder_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def disk_usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(total=9, used=4, free=5)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert free_bytes(tmp_path / "a/b/c") == 5
    (tmp_path / "a").mkdir()
    assert free_bytes(tmp_path / "a") == 5
    assert asked == [tmp_path, tmp_path / "a"]


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "file").write_text(content)
    return path


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.iterdir())


def test_a_folder_takes_the_place_of_another(tmp_path: Path, synced: list[int]) -> None:
    for content in ("first", "second"):
        replace_folder(folder(tmp_path / "new", content), tmp_path / "x")
        assert (tmp_path / "x/file").read_text() == content
        assert names(tmp_path) == ["x"]
    assert synced == [tmp_path.stat().st_ino] * 2


def test_a_folder_that_was_moved_aside_is_not_lost_where_the_next_try_fails(tmp_path: Path) -> None:
    folder(tmp_path / ".x.old", "kept")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "none", tmp_path / "x")
    restore_folder(tmp_path / "x")
    assert (tmp_path / "x/file").read_text() == "kept"
    assert names(tmp_path) == ["x"]


def test_what_was_replaced_is_removed_and_what_was_not_put_back(tmp_path: Path) -> None:
    restore_folder(tmp_path / "x")
    assert names(tmp_path) == []
    folder(tmp_path / "x", "new")
    folder(tmp_path / ".x.old", "old")
    restore_folder(tmp_path / "x")
    assert (tmp_path / "x/file").read_text() == "new"
    assert names(tmp_path) == ["x"]
