"""Check what is read of files and when: checksums that are kept, documents by number, files by name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ablations.data import store as store_module
from ablations.data import verified
from ablations.data.manifest import PICTURES, REFS, REFS_INDEX, TRAIN, RowCounts, StoreManifest
from ablations.data.store import TokenStore
from ablations.data.verified import cache_file, digests, note_verified, unlike
from ablations.errors import DataError
from ablations.files import file_sha256
from tests.data.test_store import make_store


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read whole, in order."""
    names: list[str] = []

    def noted(path: Path) -> str:
        names.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(verified, "file_sha256", noted)
    monkeypatch.setattr(verified, "_seen", {})
    return names


def write(folder: Path, **texts: str) -> dict[str, str]:
    """Write files; return name → checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {name: digest(text) for name, text in texts.items()}


def another_process() -> None:
    verified._seen.clear()


def test_digests_are_made_once_for_each_state_of_a_file(tmp_path: Path, read: list[str]) -> None:
    made = write(tmp_path / "x", a="one", b="two")
    assert digests(tmp_path / "x", ["a", "b", "none"]) == made
    assert digests(tmp_path / "x", ["b", "a"]) == made
    another_process()
    assert digests(tmp_path / "x", ["a", "b"]) == made
    assert read == ["a", "b"]
    made |= write(tmp_path / "x", b="three")
    for _ in range(2):
        assert digests(tmp_path / "x", ["a", "b"]) == made
        another_process()
    assert read == ["a", "b", "b"]


def test_a_file_of_the_same_size_and_another_time_is_read_again(
    tmp_path: Path, read: list[str]
) -> None:
    for text in ("one", "two"):
        made = write(tmp_path / "x", a=text)
        (tmp_path / "x/a").touch()
        assert digests(tmp_path / "x", ["a"]) == made
        assert unlike(tmp_path / "x", made) == []
    assert len(read) == 4


def test_files_unlike_their_checksums_are_named_and_read_again(
    tmp_path: Path, read: list[str]
) -> None:
    made = write(tmp_path / "x", a="one", b="two", c="three")
    wrong = {**made, "a": digest("other"), "c": digest("else")}
    for _ in range(2):
        assert unlike(tmp_path / "x", wrong) == ["a", "c"]
        another_process()
    assert read == ["a", "b", "c", "a", "c"]
    assert unlike(tmp_path / "x", wrong, only=["b", "c"]) == ["c"]
    assert unlike(tmp_path / "x", wrong, only=[]) == []


def test_the_order_of_names_is_no_other_store_and_other_checksums_are(
    tmp_path: Path, read: list[str]
) -> None:
    made = write(tmp_path / "x", a="one", b="two")
    assert unlike(tmp_path / "x", made) == []
    another_process()
    assert unlike(tmp_path / "x", dict(reversed(made.items()))) == []
    assert read == ["a", "b"]
    another_process()
    other = {**made, "b": ""}
    assert unlike(tmp_path / "x", other) == []
    assert read == ["a", "b", "a", "b"]
    stored = json.loads(cache_file(tmp_path / "x").read_text())
    assert stored["store"] == digest(repr(sorted(other.items())))[:16]
    assert {name: entry[0] for name, entry in stored["files"].items()} == {"a": 3, "b": 3}


def test_an_unknown_checksum_is_that_of_the_first_content(tmp_path: Path, read: list[str]) -> None:
    write(tmp_path / "x", a="one")
    assert unlike(tmp_path / "x", {"a": ""}) == []
    write(tmp_path / "x", a="other")
    assert unlike(tmp_path / "x", {"a": ""}) == ["a"]
    write(tmp_path / "x", a="one")
    assert unlike(tmp_path / "x", {"a": ""}) == []


def test_everything_is_read_anew_where_that_is_asked(tmp_path: Path, read: list[str]) -> None:
    made = write(tmp_path / "x", a="one", b="two")
    for anew in (False, True, False):
        assert unlike(tmp_path / "x", made, anew=anew) == []
    assert read == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"store": ""}', '{"store": "", "files": {"a": 1}}']
)
def test_a_damaged_list_of_checksums_is_no_list(
    tmp_path: Path, read: list[str], content: str
) -> None:
    made = write(tmp_path / "x", a="one")
    cache_file(tmp_path / "x").write_text(content)
    assert digests(tmp_path / "x", ["a"]) == made
    assert read == ["a"]


def test_a_store_that_was_just_written_is_not_read(tmp_path: Path, read: list[str]) -> None:
    folder = make_store(tmp_path / "x", [np.arange(50)])
    note_verified(folder)
    another_process()
    TokenStore.open(folder)
    assert not [name for name in read if name.endswith((".ds", ".jsonl"))]


# ----------------------------------------------------------------------------------------- tokens


def split_store(folder: Path, *sizes: tuple[int, ...]) -> tuple[Path, list[list[int]]]:
    """Write a file for each group of documents; return the documents without their end tokens."""
    flat = [size for group in sizes for size in group]
    files = [np.arange(sum(group)) + 1_000 * number for number, group in enumerate(sizes)]
    make_store(folder, files)
    stored = StoreManifest.read(folder)
    entries, documents = [], []
    for entry, tokens, group in zip(stored.files, files, sizes, strict=True):
        ends = np.cumsum(group).astype("<u8")
        (folder / TRAIN / f"{entry.name}.index").write_bytes(ends.tobytes())
        entries.append(replace(entry, documents=len(group)))
        parts = np.split(tokens, ends[:-1].astype(int)) if len(group) else []
        documents += [part[:-1].tolist() for part in parts]
    replace(stored, files=tuple(entries), documents=len(flat)).write(folder)
    return folder, documents


@pytest.mark.parametrize("limit", [None, 0, 1, 2, 3, 5, 6, 9])
def test_documents_are_those_of_each_file_in_turn_up_to_the_limit(
    tmp_path: Path, limit: int | None
) -> None:
    folder, documents = split_store(tmp_path / "x", (3, 5, 2), (), (4, 6, 7))
    found = TokenStore.open(folder).documents(limit)
    assert [part.tolist() for part in found] == documents[:limit]


@pytest.mark.parametrize("dtype", ["<u2", "<i8"])
@pytest.mark.parametrize("sizes", [(12,), (12, 9, 16)])
def test_windows_go_to_their_rows_and_widen(
    tmp_path: Path, dtype: str, sizes: tuple[int, ...]
) -> None:
    files = [np.arange(size) + 100 * number for number, size in enumerate(sizes)]
    store = TokenStore.open(make_store(tmp_path / "x", files))
    assert store.num_windows(2) == sum(size // 3 for size in sizes)
    windows = [3, 0, 2] if len(sizes) == 1 else [5, 0, 8, 3]
    whole = np.concatenate([file[: len(file) // 3 * 3].reshape(-1, 3) for file in files])
    out = np.zeros((len(windows), 3), dtype=dtype)
    store.read_into(out, windows, 2)
    assert out.tolist() == whole[windows].tolist()
    spread = np.zeros((6, 3), dtype=dtype)
    rows = np.array([4, 1, 5, 0][: len(windows)])
    store.read_into(spread, windows, 2, rows)
    assert spread[rows].tolist() == whole[windows].tolist()
    assert not spread[np.setdiff1d(np.arange(6), rows)].any()
    store.read_into(np.zeros((0, 3), dtype=dtype), [], 2)


@pytest.mark.parametrize("window", [-1, 4])
def test_a_window_beyond_either_end_is_refused(tmp_path: Path, window: int) -> None:
    store = TokenStore.open(make_store(tmp_path / "x", [np.arange(12)]))
    for wrong in ([window], [0, window]):
        with pytest.raises(IndexError, match=r"window outside 0\.\.3 of"):
            store.read(wrong, 2)


@pytest.mark.parametrize("length", [0, -1])
def test_a_window_has_two_tokens_at_least(tmp_path: Path, length: int) -> None:
    store = TokenStore.open(make_store(tmp_path / "x", [np.arange(12)]))
    assert store.read([5], 1).tolist() == [[10, 11]]
    with pytest.raises(ValueError, match=f"at least 1, found {length}"):
        store.num_windows(length)


# ------------------------------------------------------------------------------------------ files


def test_token_files_that_are_not_known_are_named_in_order(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "x", [np.arange(12)])
    for name in ("d", "b", "e", "a", "c"):
        (folder / TRAIN / f"{name}.ds").write_bytes(b"")
    (folder / "heldout.jsonl").unlink()
    with pytest.raises(DataError) as refused:
        TokenStore.open(folder)
    assert [Path(problem.where).name for problem in refused.value.problems] == [
        *(f"{name}.ds" for name in "abcde"),
        "heldout.jsonl",
    ]


@pytest.mark.parametrize("named", [True, False])
def test_content_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    folder = make_store(tmp_path / "x", [np.arange(12)])

    def refuses(*_: object, **__: object) -> list[str]:
        raise OSError(5, "broken disk", *(["the/file"] if named else []))

    monkeypatch.setattr(store_module, "unlike", refuses)
    with pytest.raises(DataError) as refused:
        TokenStore.open(folder)
    (problem,) = refused.value.problems
    assert (problem.where, problem.found) == ("the/file" if named else str(folder), "broken disk")


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    """A store of two pictures of 3 by 3, shown by five of its tokens."""
    folder = make_store(tmp_path / "x", [np.arange(12)])
    stored = StoreManifest.read(folder)
    (entry,) = stored.files
    path = folder / TRAIN / entry.name
    sizes = {PICTURES: 2 * 3 * 9, REFS: 5 * 4, REFS_INDEX: 8}
    sums = {}
    for ending, size in sizes.items():
        part = path.with_name(path.name + ending)
        part.write_bytes(bytes(size))
        sums[ending] = file_sha256(part)
    rows = RowCounts(
        kind="pictures",
        rows=1,
        heldout_rows=0,
        supervised_tokens=0,
        longest=12,
        cut_rows=0,
        cut_tokens=0,
        max_tokens=64,
        template_sha256="",
        picture_size=3,
    )
    shown = replace(
        entry,
        pictures=2,
        placeholders=5,
        pictures_sha256=sums[PICTURES],
        refs_sha256=sums[REFS],
        refs_index_sha256=sums[REFS_INDEX],
    )
    replace(stored, files=(shown,), rows=rows).write(folder)
    return folder


@pytest.mark.parametrize("ending", [PICTURES, REFS, REFS_INDEX, ".index", ""])
@pytest.mark.parametrize("change", [-1, 0, 1])
def test_the_files_of_pictures_have_their_sizes(pictured: Path, ending: str, change: int) -> None:
    path = next((pictured / TRAIN).glob("*.ds"))
    part = path.with_name(path.name + ending)
    content = part.read_bytes()
    part.write_bytes(content + b"\0" if change > 0 else content[: len(content) + change])
    if not change:
        assert TokenStore.open(pictured).num_tokens == 12
        return
    with pytest.raises(DataError) as refused:
        TokenStore.open(pictured)
    (problem,) = refused.value.problems
    assert problem.where == str(part)
    assert problem.what == ("truncated" if change < 0 else "longer than its manifest says")
    assert problem.found == f"{len(content) + change:,} bytes"
    assert problem.allowed == f"{len(content):,} bytes"
