"""Files are whole or absent; a torn last line costs nothing but itself."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablations.files import (
    append_json_line,
    mend_lines,
    read_json,
    read_json_lines,
    replacing,
    write_json,
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
