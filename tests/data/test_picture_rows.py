"""Rows with pictures, prepared: what they show, what is held out, left out, merged and checked."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.data.catalogue import HubOrigin
from ablations.data.expected import expected_of
from ablations.data.manifest import StoreManifest
from ablations.data.rows.row_specs import PICTURE_FIELDS, RowSpec
from ablations.data.rows.row_store import RowStore, heldout_pictures
from ablations.data.store import TokenStore
from ablations.errors import AblationError, ConfigError, DataError
from tests.oracles.chats import CHAT_TOKENIZER, make_base_tokenizer
from tests.oracles.drawn import (
    PICTURES,
    ROWS,
    SIDE,
    VISION_TOKENIZER,
    asked,
    heldout_items,
    packed,
    picture_source,
    pixels,
    prepare_pictures,
    training_rows,
    write_jsonl,
    write_pictures,
    write_shown,
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shown(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def folder(raw: Path, data_dir: Path) -> Path:
    return prepare_pictures(data_dir, {"shown": picture_source(raw)})["shown"]


@pytest.fixture(scope="module")
def tokenizer(folder: Path, data_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data_dir / "tokenizers/tiny_vision")


# ---------------------------------------------------------------------------------------- rows


def test_a_row_shows_its_pictures_at_their_tokens(folder: Path, tokenizer: Any) -> None:
    store = RowStore.open(folder)
    numbers = set()
    for sample in range(len(store)):
        (row,) = store.read(sample)
        text = tokenizer.decode(row.tokens.tolist())
        number = int(text.split("what ")[1].split("?")[0])
        numbers.add(number)
        shown = [number % PICTURES] if number < ROWS else [number - 200, number - 199]
        shown = [] if ROWS <= number < 200 else shown
        assert text.count("<image>") == len(shown)
        assert text.startswith("User:" + "<image>" * len(shown))
        want = [pixels(seed).transpose(2, 0, 1) for seed in shown]
        assert row.pictures.shape[0] == len(shown)
        assert all(np.array_equal(a, b) for a, b in zip(row.pictures, want, strict=True))
        answer = tokenizer.decode(row.tokens[row.mask].tolist())
        assert answer == f" a thing {number}<end_of_utterance>"
    assert len(numbers) == len(store)


def test_counts_of_pictures_are_those_of_the_rows(folder: Path) -> None:
    store = RowStore.open(folder)
    rows = [store.read(sample)[0] for sample in range(len(store))]
    shown = [len(row.pictures) for row in rows]
    counts = store.counts
    assert store.shown().tolist() == shown
    assert (counts.pictures, counts.most_pictures) == (sum(shown), max(shown)) == (sum(shown), 2)
    assert counts.rows_with_pictures == sum(n > 0 for n in shown)
    assert counts.picture_size == SIDE
    different = {picture.tobytes() for row in rows for picture in row.pictures}
    assert counts.different_pictures == len(different) < counts.pictures
    size = (folder / "train/00000_rows.ds.pictures").stat().st_size
    assert size == counts.different_pictures * 3 * SIDE * SIDE
    manifest = store.manifest
    assert "pillow" in manifest.versions
    left_out = sum(manifest.dropped.values())
    assert manifest.documents_read == counts.rows + counts.heldout_rows + left_out == ROWS + 15


def test_a_picture_never_stands_on_both_sides(folder: Path) -> None:
    store = RowStore.open(folder)
    trained = {p.tobytes() for k in range(len(store)) for p in store.read(k)[0].pictures}
    items = heldout_items(folder)
    held = {picture for _, _, pictures in items for picture in pictures}
    assert held
    assert not trained & held
    assert len(held) == StoreManifest.read(folder).heldout.pictures == len(heldout_pictures(folder))


def test_an_item_ends_before_its_answer_and_names_its_pictures(folder: Path) -> None:
    lines = (folder / "heldout.jsonl").read_text().splitlines()
    items = [json.loads(line) for line in lines]
    for item in items:
        assert item["query"].endswith("Assistant:")
        assert item["query"].count("<image>") == len(item["pictures"])
        assert item["choices"][0].startswith(" a thing ")
        assert not {"row", "shown"} & set(item)
    manifest = StoreManifest.read(folder)
    assert manifest.heldout.documents == len(items) == manifest.rows.heldout_rows  # type: ignore[union-attr]
    assert manifest.heldout.bytes == sum(len(item["choices"][0].encode()) for item in items)


def test_rows_that_share_one_of_several_pictures_with_the_training_are_not_held_out(
    tmp_path: Path,
) -> None:
    # A chain: each row shows a picture of the row before it, so any cut through it shares one.
    write_pictures(tmp_path, range(61))
    rows = [asked(n, f"{n}.png", f"{n + 1}.png") for n in range(60)]
    source = picture_source(write_jsonl(tmp_path / "r.jsonl", rows), heldout_share=0.5, shards=3)
    folder = prepare_pictures(tmp_path / "data", {"some": source})["some"]
    manifest = StoreManifest.read(folder)
    assert manifest.rows is not None
    assert manifest.dropped["held out, and shows what is trained on"] > 0
    assert manifest.heldout.documents == manifest.rows.heldout_rows > 0
    read = manifest.rows.rows + manifest.rows.heldout_rows + sum(manifest.dropped.values())
    assert manifest.documents_read == read == 60
    trained = {picture for *_, picture in training_rows(folder)}
    size = 3 * SIDE * SIDE
    parts = {row[k : k + size] for row in trained for k in range(0, len(row), size)}
    assert not parts & {p for *_, pictures in heldout_items(folder) for p in pictures}


def test_a_stated_group_keeps_its_rows_together(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(30))
    rows = [{**asked(n, f"{n}.png"), "book": f"book {n % 6}"} for n in range(30)]
    source = picture_source(
        write_jsonl(tmp_path / "r.jsonl", rows), heldout_share=0.4, group_column="book"
    )
    folder = prepare_pictures(tmp_path / "data", {"some": source})["some"]
    held = {int(query.split("what ")[1].split("?")[0]) % 6 for query, *_ in heldout_items(folder)}
    assert len(heldout_items(folder)) == 5 * len(held)


# --------------------------------------------------------------------------------------- ranks


@pytest.mark.parametrize(("shards", "workers"), [(3, 1), (4, 2)])
def test_several_ranks_make_the_rows_of_one(
    raw: Path, folder: Path, tmp_path: Path, shards: int, workers: int
) -> None:
    source = picture_source(raw, shards=shards)
    made = prepare_pictures(tmp_path, {"shown": source}, workers=workers)["shown"]
    assert training_rows(made) == training_rows(folder)
    assert heldout_items(made) == heldout_items(folder)
    one, many = StoreManifest.read(folder), StoreManifest.read(made)
    assert many.heldout.pictures == one.heldout.pictures
    assert (many.dropped, many.duplicates) == (one.dropped, one.duplicates)
    assert many.rows is not None
    assert many.rows.pictures == one.rows.pictures  # type: ignore[union-attr]


def test_a_preparation_is_the_same_bytes_again(raw: Path, folder: Path, tmp_path: Path) -> None:
    made = prepare_pictures(tmp_path, {"shown": picture_source(raw)})["shown"]
    assert StoreManifest.read(made).checksums() == StoreManifest.read(folder).checksums()


# ------------------------------------------------------------------------------------- reading


def test_a_store_is_read_by_another_process(folder: Path) -> None:
    store = RowStore.open(folder)
    again: RowStore = pickle.loads(pickle.dumps(store))
    for sample in (0, len(store) - 1):
        assert np.array_equal(again.read(sample)[0].pictures, store.read(sample)[0].pictures)


@pytest.mark.parametrize(
    "name",
    [
        "train/00000_rows.ds.pictures",
        "train/00000_rows.ds.refs",
        "train/00000_rows.ds.refs.index",
        "heldout.pictures",
    ],
)
@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_changed_file_of_pictures_is_noticed(
    raw: Path, tmp_path: Path, name: str, change: str
) -> None:
    folder = prepare_pictures(tmp_path, {"shown": picture_source(raw)})["shown"]
    path = folder / name
    content = bytearray(path.read_bytes())
    if change == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    elif change == "cut":
        path.write_bytes(bytes(content[:-1]))
    else:
        path.unlink()
    with pytest.raises(DataError, match="prepare"):
        RowStore.open(folder)


def test_the_pictures_of_items_are_refused_when_cut(raw: Path, tmp_path: Path) -> None:
    folder = prepare_pictures(tmp_path, {"shown": picture_source(raw)})["shown"]
    path = folder / "heldout.pictures"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="not of the size"):
        heldout_pictures(folder)


def test_a_store_without_pictures_has_none_to_read(tmp_path: Path) -> None:
    from tests.oracles.chats import prepare_two_kinds

    short = prepare_two_kinds(tmp_path)["short"]
    with pytest.raises(DataError, match="holds no pictures"):
        heldout_pictures(short)
    (row,) = RowStore.open(short).read(0)
    assert row.pictures.shape == (0, 3, 0, 0)
    plain = json.loads((short / "manifest.json").read_text())
    assert not {"picture_size", "pictures"} & set(plain["rows"])
    assert not {"pictures", "refs_sha256"} & set(plain["files"][0])


def test_the_disk_that_pictures_take_is_expected(raw: Path, tmp_path: Path) -> None:
    picture = 3 * SIDE * SIDE

    def expected(**rows: Any) -> float:
        source = picture_source(raw, max_documents=rows.pop("max_documents", None), rows=rows)
        return expected_of(source, VISION_TOKENIZER, tmp_path).store_bytes

    without = expected_of(
        replace(picture_source(raw), rows=None, origin=HubOrigin(kind="hub", repo="a/b")),
        VISION_TOKENIZER,
        tmp_path,
    ).store_bytes
    assert expected(available=100) == without + 100 * picture
    assert expected(available=100, frames=4) == without + 400 * picture
    assert expected(available=100, max_documents=30) - expected(max_documents=30) == 0
    assert expected(max_documents=30) >= 30 * picture


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"picture_size": None}, "missing: the pixels"),
        ({"picture_size": 4}, "too small"),
        ({"max_pictures": 0}, "too small"),
        ({"answer_column": None}, "goes with answer_column"),
        ({"texts_column": "texts"}, "there is a question_column too"),
        ({"frames": 9}, "above max_pictures"),
    ],
)
def test_rows_of_pictures_that_cannot_be_are_refused(rows: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        picture_source(Path("r.jsonl"), rows=rows)


@pytest.mark.parametrize("name", PICTURE_FIELDS)
def test_fields_of_pictures_are_refused_elsewhere(name: str) -> None:
    value: Any = 64 if name in ("picture_size", "max_pictures", "frames") else "column"
    with pytest.raises(ConfigError, match="is for kind=pictures"):
        RowSpec(kind="conversations", max_tokens=48, **{name: value})


def test_a_source_without_a_picture_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(20))
    rows = [asked(n, f"{n}.png") for n in range(20)]
    source = picture_source(
        write_jsonl(tmp_path / "r.jsonl", rows), rows={"pictures_column": "picture"}
    )
    with pytest.raises(DataError, match="no row has a picture"):
        prepare_pictures(tmp_path / "data", {"some": source})


def test_a_tokenizer_without_a_token_of_pictures_is_refused(tmp_path: Path) -> None:
    from ablations.data.prepare import prepare

    write_pictures(tmp_path, range(3))
    path = write_jsonl(tmp_path / "r.jsonl", [asked(n, f"{n}.png") for n in range(3)])
    make_base_tokenizer(tmp_path / "data")
    with pytest.raises(AblationError, match="has no token of pictures"):
        prepare({"some": picture_source(path)}, CHAT_TOKENIZER, tmp_path / "data")


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(30))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "cut.png").write_bytes(packed(pixels(1, 200, 200))[:-5000])
    good = [asked(n, f"{n}.png") for n in range(30)]
    bad: list[tuple[dict[str, Any], str]] = [
        (asked(100, "bad.png"), "a picture that cannot be decoded"),
        (asked(101, "cut.png"), "a picture that cannot be decoded"),
        (asked(102, "none.png"), "a picture that is not there"),
        (asked(103, "\0"), "a picture that is not there"),
        (asked(104, 7), "a picture that is not there"),
        (asked(105, *["0.png"] * 9), "more than 8 pictures"),
        ({**asked(106), "question": "<image> what?"}, "places another number"),
        ({**asked(107, "0.png"), "question": "<image><image>?"}, "places another number"),
        ({**asked(108, "0.png"), "answer": "<image>"}, "contains a marker"),
        ({**asked(109, "0.png"), "question": "<fake_token_around_image>?"}, "contains a marker"),
        ({**asked(110, "0.png"), "answer": " "}, "an empty message"),
    ]
    path = write_jsonl(tmp_path / "r.jsonl", [*good, *(row for row, _ in bad)])
    source = picture_source(path, heldout_share=0.0)
    manifest = StoreManifest.read(prepare_pictures(tmp_path / "d", {"some": source})["some"])
    assert sum(manifest.dropped.values()) == len(bad)
    for _, reason in bad:
        want = sum(other == reason for _, other in bad)
        assert sum(n for text, n in manifest.dropped.items() if text.startswith(reason)) == want


def test_rows_of_equal_texts_and_other_pictures_are_no_duplicates(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(20))
    rows = [{**asked(0, f"{n}.png"), "answer": "yes"} for n in (*range(20), 3, 4)]
    source = picture_source(write_jsonl(tmp_path / "r.jsonl", rows), heldout_share=0.0)
    folders = prepare_pictures(
        tmp_path / "d", {"all": source, "once": replace(source, drop_duplicates=True)}
    )
    manifests = {name: StoreManifest.read(path) for name, path in folders.items()}
    assert manifests["all"].duplicates == 2
    assert manifests["once"].dropped == {"exact duplicate": 2}


def test_pictures_behind_the_cut_are_not_shown(tmp_path: Path) -> None:
    write_pictures(tmp_path, range(20))
    turns = [{"role": "user", "content": "<image>first?"}, {"role": "assistant", "content": "one"}]
    turns += [
        {"role": "user", "content": "long " * 60 + "<image>second?"},
        {"role": "assistant", "content": "two"},
    ]
    rows = [{"images": [f"{n}.png", f"{n + 1}.png"], "messages": turns} for n in range(0, 20, 2)]
    columns = {"question_column": None, "answer_column": None}
    source = picture_source(
        write_jsonl(tmp_path / "r.jsonl", rows), heldout_share=0.0, rows=columns
    )
    store = RowStore.open(prepare_pictures(tmp_path / "d", {"some": source})["some"])
    assert store.counts.cut_rows == 10
    assert store.shown().tolist() == [1] * 10
    assert store.counts.different_pictures == 10


def test_the_whole_store_of_pictures_stands_a_full_check(folder: Path) -> None:
    TokenStore.open(folder, full=True)


def test_a_row_whose_text_holds_an_item_is_dropped(tmp_path: Path) -> None:
    question = "how many of the nine green bottles on the old wall by the river fell down at last"
    item = {"id": "1", "query": question, "question": question, "choices": ["two"], "gold": 0}
    write_jsonl(tmp_path / "d/benchmarks/bottles.jsonl", [item])
    write_pictures(tmp_path, range(20))
    rows = [asked(n, f"{n}.png") for n in range(20)]
    placed = question.replace("wall", "wall <image>")
    rows.append({"images": ["0.png"], "question": placed, "answer": "two"})
    source = picture_source(write_jsonl(tmp_path / "r.jsonl", rows), decontaminate=("bottles",))
    manifest = StoreManifest.read(prepare_pictures(tmp_path / "d", {"some": source})["some"])
    assert manifest.dropped == {"contains bottles": 1}
