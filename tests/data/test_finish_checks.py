"""Check the last step of a preparation in the small: what it refuses, counts, copies and removes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ablations.data import finalize
from ablations.data.finalize import (
    Finish,
    describe_rank,
    described_file,
    heldout_file,
    remove_scratch,
)
from ablations.data.manifest import REFS_INDEX, TRAIN, StoreFile
from ablations.data.prepare_counts import RankCounts
from ablations.errors import DataError
from ablations.files import read_json, write_json


def spec(**changes: Any) -> Any:
    values = {"heldout_share": 0.1, "rows": None, "buckets": None, "shard_count": 2, **changes}
    return SimpleNamespace(**values)


def finish(folder: Path, **changes: Any) -> Finish:
    tokenizer: Any = SimpleNamespace(token_bytes=2, folder=folder / "tokenizer", name="t")
    partial = folder / "partial"
    partial.mkdir(exist_ok=True)
    return Finish(
        name="web",
        spec=spec(**changes),
        tokenizer=tokenizer,
        partial=partial,
        folder=folder / "store",
    )


def file(tokens: int, documents: int, placeholders: int = 0, pictures: int = 0) -> StoreFile:
    return StoreFile(
        name="x.ds",
        tokens=tokens,
        documents=documents,
        sha256="",
        edges_sha256="",
        placeholders=placeholders,
        pictures=pictures,
    )


GONE = "no document left to train on"
NONE = "too little data held out: not one group of documents fell to it"
ASTRAY = "documents went astray"


@pytest.mark.parametrize(
    ("files", "documents", "heldout", "share", "whats"),
    [
        ([file(9, 2), file(0, 0)], 2, 1, 0.1, []),
        ([file(0, 0), file(9, 2)], 2, 0, 0.0, []),
        ([file(9, 2)], 2, 0, 0.1, [NONE]),
        ([file(9, 2)], 2, 0, 1e-9, [NONE]),
        ([file(0, 0)], 0, 1, 0.1, [GONE]),
        ([], 0, 0, 0.1, [GONE, NONE]),
        ([file(9, 2), file(3, 1)], 2, 1, 0.1, [ASTRAY]),
        ([file(9, 1)], 2, 1, 0.1, [ASTRAY]),
        ([file(9, 1)], 2, 0, 0.1, [NONE]),
    ],
)
def test_a_store_holds_what_was_counted(
    tmp_path: Path,
    files: list[StoreFile],
    documents: int,
    heldout: int,
    share: float,
    whats: list[str],
) -> None:
    counts = RankCounts(documents=documents, heldout_documents=heldout)
    last = finish(tmp_path, heldout_share=share)
    if not whats:
        last._check(counts, tuple(files))
        return
    with pytest.raises(DataError) as refused:
        last._check(counts, tuple(files))
    assert [problem.what for problem in refused.value.problems] == whats
    assert refused.value.problems[0].where.startswith("source.web")


@pytest.mark.parametrize(
    ("shown", "size", "refused"),
    [
        ((0, 0), 16, True),
        ((), 16, True),
        ((0, 3), 16, False),
        ((3, 0), 16, False),
        ((0, 0), None, False),
    ],
)
def test_a_source_of_pictures_shows_one_at_least(
    tmp_path: Path, shown: tuple[int, ...], size: int | None, refused: bool
) -> None:
    rows = SimpleNamespace(picture_size=size, pictures_column="images")
    files = tuple(file(9, 1, placeholders) for placeholders in shown) or (file(9, 0),)
    counts = RankCounts(documents=sum(one.documents for one in files), heldout_documents=1)
    last = finish(tmp_path, rows=rows)
    if not refused:
        last._check(counts, files)
        return
    with pytest.raises(DataError, match=r"no row has a picture; found: images; set it"):
        last._check(counts, files)


def test_every_rank_that_is_not_through_is_named(tmp_path: Path) -> None:
    last = finish(tmp_path, shard_count=4)
    (last.partial / "counts").mkdir()
    for rank in (0, 2):
        RankCounts(read=rank + 1, dropped={"short": rank}).write(last.partial, rank)
    with pytest.raises(DataError, match=r"found: missing: 00001, 00003;"):
        last._counts()
    for rank in (1, 3):
        RankCounts(read=rank + 1, dropped={"short": rank}).write(last.partial, rank)
    total = last._counts()
    assert (total.read, total.dropped) == (10, {"short": 6})


def test_held_out_documents_are_joined_in_the_order_of_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finalize, "_COPIED_BYTES", 5)
    last = finish(tmp_path, shard_count=3)
    parts = [b"first rank\n", b"", b"third\n"]
    heldout_file(last.partial, 0).parent.mkdir()
    for rank, part in enumerate(parts):
        heldout_file(last.partial, rank).write_bytes(part)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    found = last._merge_heldout(RankCounts(heldout_documents=2, heldout_bytes=7))
    merged = last.partial / "heldout.jsonl"
    assert merged.read_bytes() == b"".join(parts)
    assert (found.documents, found.bytes) == (2, 7)
    assert found.sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    assert synced == [merged.stat().st_ino]
    assert last._merge_pictures(RankCounts()) is None


def test_items_with_pictures_are_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    merged = SimpleNamespace(
        rows=4, left_out=3, heldout=SimpleNamespace(documents=5, bytes=60, sha256="s")
    )

    def merge(*given: Any) -> SimpleNamespace:
        asked.append(given)
        return merged

    monkeypatch.setattr(finalize, "merge_items", merge)
    last = finish(tmp_path, rows=SimpleNamespace(picture_size=16))
    counts = RankCounts(heldout_rows=7, heldout_documents=8, dropped={"short": 1})
    assert last._merge_pictures(counts) is merged.heldout
    parts = [heldout_file(last.partial, rank) for rank in range(2)]
    assert asked == [(last.partial, parts, 16)]
    assert (counts.heldout_rows, counts.heldout_documents, counts.heldout_bytes) == (4, 5, 60)
    assert counts.dropped == {"short": 1, "held out, and shows what is trained on": 3}
    merged.left_out = 0
    fresh = RankCounts()
    last._merge_pictures(fresh)
    assert fresh.dropped == {}


def test_versions_of_the_classifier_and_of_compared_sources_are_kept(tmp_path: Path) -> None:
    last = finish(tmp_path)
    asked = {
        "source": "fingerprint",
        "classifier": "c1",
        "against web": "w1",
        "against none": "",
        "other": "o",
    }
    write_json(last.partial / "asked.json", asked)
    assert last._read_with() == {"classifier": "c1", "against web": "w1"}
    write_json(last.partial / "asked.json", {**asked, "classifier": None, "against web": None})
    assert last._read_with() == {}


def test_the_versions_name_what_read_the_source() -> None:
    plain = finalize._versions(pictures=False)
    assert list(plain) == ["python", "datatrove", "tokenizers", "datasets", "pyarrow"]
    shown = finalize._versions(pictures=True)
    assert list(shown) == [*plain, "pillow"]
    assert {name: shown[name] for name in plain} == plain


@pytest.mark.parametrize("ranks", [0, 1, 2])
def test_pictures_of_all_rows_are_counted(tmp_path: Path, ranks: int) -> None:
    each = [[2, 0, 3], [1, 0, 0, 5]][:ranks]
    paths = [tmp_path / f"{rank}.ds" for rank in range(ranks)]
    for path, shown in zip(paths, each, strict=True):
        np.cumsum(shown).astype("<u8").tofile(path.with_name(path.name + REFS_INDEX))
    files = [file(9, 3, pictures=rank + 4) for rank in range(ranks)]
    assert finalize._shown(files, paths) == {
        "pictures": [0, 5, 11][ranks],
        "most_pictures": [0, 3, 5][ranks],
        "different_pictures": [0, 4, 9][ranks],
        "rows_with_pictures": [0, 2, 4][ranks],
    }


def test_what_only_the_preparation_needed_is_removed(tmp_path: Path) -> None:
    kept = ("manifest.json", "heldout.jsonl", "train")
    folders = ("counts", "described", "duplicates", "hashes", "heldout", "overlaps", "uncut")
    for name in (*folders, "train"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    for name in ("asked.json", "manifest.json", "heldout.jsonl"):
        (tmp_path / name).write_text("")
    for _ in range(2):
        remove_scratch(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert (tmp_path / "train/file").exists()


def test_the_files_of_a_rank_are_described_in_order(tmp_path: Path) -> None:
    tokenizer: Any = SimpleNamespace(token_bytes=2)
    (tmp_path / TRAIN).mkdir()
    for rank, part in ((3, 2), (3, 0), (4, 0), (3, 1), (13, 0)):
        path = tmp_path / TRAIN / f"{rank:05d}_{part:05d}_x.ds"
        path.write_bytes(bytes(2 * (5 + part)))
        path.with_name(path.name + ".index").write_bytes(bytes(8 * (part + 1)))
    describe_rank(tmp_path, 3, tokenizer)
    found = read_json(described_file(tmp_path, 3))["files"]
    assert [(one["name"], one["tokens"], one["documents"]) for one in found] == [
        (f"00003_{part:05d}_x.ds", 5 + part, part + 1) for part in range(3)
    ]
    last = finish(tmp_path)
    assert last._cut() is None


def test_a_store_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = finish(tmp_path)
    calls: list[tuple[str, Path]] = []
    for name in ("sync_folder", "remove_scratch", "note_verified"):
        monkeypatch.setattr(finalize, name, lambda folder, name=name: calls.append((name, folder)))
    monkeypatch.setattr(
        finalize, "replace_folder", lambda new, folder: calls.append(("replace", folder))
    )
    last._put_in_place()
    assert calls == [
        ("sync_folder", last.partial),
        ("replace", last.folder),
        ("remove_scratch", last.folder),
        ("note_verified", last.folder),
    ]
