"""Files are whole or absent; a torn last line costs nothing but itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablations.errors import DamagedError
from ablations.files import (
    append_json_line,
    finite_or_none,
    mend_lines,
    read_json,
    read_json_lines,
    replacing,
    sealed,
    write_json,
    write_sealed,
    write_text,
)


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"new": 2})
    assert read_json(path) == {"old": 1}


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_block_wrote_takes_the_name_only_if_it_ended_well(
    tmp_path: Path, fails: bool
) -> None:
    path = tmp_path / "table"
    path.write_text("old")
    with contextlib.suppress(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        1 / (not fails)
    assert path.read_text() == ("old" if fails else "new")
    assert list(tmp_path.iterdir()) == [path]


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "value.json", float("nan"))
    assert not (tmp_path / "value.json").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.integers()), max_size=5), st.integers(0, 60)
)
def test_rows_survive_a_torn_end(tmp_path: Path, rows: list[dict[str, int]], cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    for row in rows:
        append_json_line(path, row)
    whole = path.read_bytes() if rows else b""
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = list(read_json_lines(path))
    assert kept == rows[: len(kept)]
    mend_lines(path)
    append_json_line(path, {"next": 1})
    assert list(read_json_lines(path)) == [*kept, {"next": 1}]


def test_a_long_torn_line_is_cut_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_json_line(path, {"a": 1})
    with path.open("a") as stream:
        stream.write("x" * 10_000)
    mend_lines(path)
    assert path.read_text() == '{"a": 1}\n'


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert list(read_json_lines(tmp_path / "none.jsonl")) == []
    mend_lines(tmp_path / "none.jsonl")
    write_text(tmp_path / "one.txt", "é")
    assert (tmp_path / "one.txt").read_bytes() == "é".encode()


@pytest.mark.parametrize("torn", ["", '{"torn": ', "x" * 5_000])
@pytest.mark.parametrize("rows", [1, 40, 900])
def test_a_file_of_many_blocks_loses_its_torn_end_alone(
    tmp_path: Path, rows: int, torn: str
) -> None:
    path = tmp_path / "rows.jsonl"
    whole = "".join(json.dumps({"step": step, "loss": 0.5}) + "\n" for step in range(rows))
    path.write_text(whole + torn)
    mend_lines(path)
    assert path.read_text() == whole


def test_content_reaches_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size == len('{\n "a": 1\n}\n')
        calls.append("fsync")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_json(tmp_path / "value.json", {"a": 1})
    assert calls == ["fsync", "rename"]


# --------------------------------------------------------------------------------------- seals


@given(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_sealed_comes_back(tmp_path: Path, value: dict[str, object]) -> None:
    value = json.loads(json.dumps(value).replace("Infinity", "0"))
    write_sealed(tmp_path / "value.json", value)
    assert read_json(tmp_path / "value.json") == value
    (tmp_path / "rows.jsonl").unlink(missing_ok=True)
    append_json_line(tmp_path / "rows.jsonl", value, seal=True)
    assert list(read_json_lines(tmp_path / "rows.jsonl")) == [value]


@pytest.mark.parametrize(
    "number",
    [
        1e-5,
        1.5e-8,
        9.9e-4,
        1e15,
        1e16,
        1.25e22,
        -3.5e-120,
        5e-324,
        -0.0,
        0,
        2**63,
        2**64,
        -(2**63) - 1,
    ],
)
def test_numbers_that_two_writers_write_differently_keep_their_seal(
    tmp_path: Path, number: float
) -> None:
    value = {"eps": number, "list": [number, number], "text": "a,1e-5,0.00001]", "é": "…"}
    write_sealed(tmp_path / "value.json", value)
    append_json_line(tmp_path / "rows.jsonl", value, seal=True)
    for found in (read_json(tmp_path / "value.json"), *read_json_lines(tmp_path / "rows.jsonl")):
        assert found == value
        assert type(found["eps"]) is type(number)
        assert math.copysign(1.0, found["eps"]) == math.copysign(1.0, number)


def test_a_seal_of_python_s_own_writer_is_compared_as_before(tmp_path: Path) -> None:
    """The checksum is that of Python's JSON with sorted keys: versions before orjson compare it too."""
    plain = {"b": 1e-5, "a": ["ü", 1e16, {"d": None, "c": True}]}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert sealed(plain)["content_sha256"] == digest
    path = tmp_path / "value.json"
    path.write_text(json.dumps({**plain, "content_sha256": digest}))
    assert read_json(path) == plain
    path.write_text(json.dumps({**plain, "b": 1.1e-5, "content_sha256": digest}))
    with pytest.raises(DamagedError, match="not what was written"):
        read_json(path)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '"\\ud800"', "1e999"])
def test_what_python_s_parser_takes_is_still_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "old.json").write_text(text)
    found = read_json(tmp_path / "old.json")
    assert repr(found) == repr(json.loads(text))


def test_keys_that_are_numbers_are_sealed_as_they_are_read(tmp_path: Path) -> None:
    write_sealed(tmp_path / "value.json", {"steps": {10: "b", 9: "a"}})
    assert read_json(tmp_path / "value.json") == {"steps": {"10": "b", "9": "a"}}


def test_every_flipped_bit_of_a_sealed_file_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    value = {"score": 0.25, "metrics": {"quiz/acc": None, "web/bpb": 1.5e-7}, "status": "done"}
    path = tmp_path / "result.json"
    write_sealed(path, value)
    content = path.read_bytes()
    unnoticed = 0
    for place in range(len(content)):
        for bit in range(8):
            harmed = bytearray(content)
            harmed[place] ^= 1 << bit
            path.write_bytes(harmed)
            with contextlib.suppress(DamagedError):
                # A flipped bit of the name of the checksum's key leaves the object without one.
                found = {k: v for k, v in read_json(path).items() if not k.startswith("content")}
                unnoticed += {k: found.get(k) for k in value} != value
    assert unnoticed == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "not JSON"), ("", "not JSON"), ("[" * 100_000, "not JSON"), ('"\ud800', "not JSON")],
)
def test_a_file_that_is_no_json_is_damaged_by_name(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DamagedError, match=rf"value\.json: damaged: {words}"):
        read_json(path)


@pytest.mark.parametrize("row", ["{", '{"a": 1'])
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, row: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' + row + '\n{"a": 3}\n')
    with pytest.raises(DamagedError, match=r"rows\.jsonl:2"):
        list(read_json_lines(path))


def test_a_changed_row_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for step in range(3):
        append_json_line(path, {"step": step, "loss": 0.5}, seal=True)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1].replace("0.5", "0.4") + lines[2])
    with pytest.raises(DamagedError, match=r"rows\.jsonl:2: damaged"):
        list(read_json_lines(path))


@pytest.mark.parametrize(
    ("value", "written"),
    [(3, "3"), (3.0, "3.0"), (np.float64(0.5), "0.5"), (math.nan, "null"), (-math.inf, "null")],
)
def test_unknown_numbers_are_null_and_whole_ones_stay_whole(value: float, written: str) -> None:
    assert json.dumps(finite_or_none(value)) == written
