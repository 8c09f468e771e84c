"""A store gives back the tokens that were written, and refuses files that are not its own."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.data import verified
from ablations.data.manifest import (
    TRAIN,
    HeldOut,
    StoreFile,
    StoreManifest,
    edges_sha256,
)
from ablations.data.prepare import Prepared
from ablations.data.store import TokenStore
from ablations.errors import DamagedError, DataError
from ablations.files import file_sha256, write_json


def make_store(folder: Path, files: list[np.ndarray], *, token_bytes: int = 2) -> Path:
    train = folder / TRAIN
    train.mkdir(parents=True)
    described = []
    for number, tokens in enumerate(files):
        path = train / f"{number:05d}_00000_doc_shuffled.ds"
        path.write_bytes(tokens.astype("<u2" if token_bytes == 2 else "<u4").tobytes())
        ends = np.array([len(tokens)] if len(tokens) else [], dtype="<u8")
        path.with_name(path.name + ".index").write_bytes(ends.tobytes())
        described.append(
            StoreFile(
                name=path.name,
                tokens=len(tokens),
                documents=len(ends),
                sha256=file_sha256(path),
                edges_sha256=edges_sha256(path),
            )
        )
    (folder / "heldout.jsonl").write_text("")
    heldout = HeldOut(documents=0, bytes=0, sha256=file_sha256(folder / "heldout.jsonl"))
    total = sum(len(tokens) for tokens in files)
    StoreManifest(
        source=folder.name, domain="test", tokenizer="t", tokenizer_hash="hash", vocab_size=1000,
        eos_id=0, token_bytes=token_bytes, tokens=total, documents=len(files), bytes=total,
        files=tuple(described), heldout=heldout,
    ).write(folder)  # fmt: skip
    return folder


def reference_windows(files: list[np.ndarray], length: int) -> np.ndarray:
    width = length + 1
    cut = [f[k : k + width] for f in files for k in range(0, len(f) - width + 1, width)]
    return np.array(cut).reshape(-1, width)


@given(
    sizes=st.lists(st.integers(0, 90), min_size=1, max_size=5),
    length=st.integers(1, 20),
    token_bytes=st.sampled_from([2, 4]),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_windows_are_those_of_each_file_in_turn(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    length: int,
    token_bytes: int,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(sum(sizes))
    files = [rng.integers(0, 1000, size) for size in sizes]
    folder = make_store(tmp_path_factory.mktemp("s") / "x", files, token_bytes=token_bytes)
    store, expected = TokenStore.open(folder), reference_windows(files, length)
    assert store.num_windows(length) == len(expected)
    assert store.num_tokens == sum(sizes)
    if len(expected):
        index = np.array(
            data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=12)), dtype=int
        )
        got = store.read(index, length)
        assert got.dtype.itemsize == token_bytes
        np.testing.assert_array_equal(got, expected[index].reshape(-1, length + 1))
        out = np.full((len(index) + 2, length + 1), -1, dtype=np.int64)
        store.read_into(out, index, length, rows=np.arange(len(index)) + 2)
        np.testing.assert_array_equal(out[2:], expected[index].reshape(-1, length + 1))
        assert (out[:2] == -1).all()


def test_a_window_outside_the_store_is_refused(tmp_path: Path) -> None:
    store = TokenStore.open(make_store(tmp_path / "x", [np.arange(50)]))
    for window in (-1, store.num_windows(4)):
        with pytest.raises(IndexError, match="window outside"):
            store.read(np.array([window]), 4)
    with pytest.raises(ValueError, match="at least 1"):
        store.num_windows(0)


def test_a_store_survives_pickling(tmp_path: Path) -> None:
    store = TokenStore.open(make_store(tmp_path / "x", [np.arange(50)]))
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read([1], 4), store.read([1], 4))


def first_file(folder: Path) -> Path:
    return sorted((folder / TRAIN).glob("*.ds"))[0]


def truncate(folder: Path) -> None:
    path = first_file(folder)
    path.write_bytes(path.read_bytes()[:-2])


def grow(folder: Path) -> None:
    with first_file(folder).open("ab") as stream:
        stream.write(b"\0\0")


def swap(folder: Path) -> None:
    path = first_file(folder)
    tokens = np.fromfile(path, dtype="<u2")
    path.write_bytes(tokens[::-1].tobytes())


def remove(folder: Path) -> None:
    first_file(folder).unlink()


def remove_index(folder: Path) -> None:
    first_file(folder).with_name(first_file(folder).name + ".index").unlink()


def add_stranger(folder: Path) -> None:
    (folder / TRAIN / "stranger.ds").write_bytes(b"\0\0")


def remove_heldout(folder: Path) -> None:
    (folder / "heldout.jsonl").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def spoil_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1}')


@pytest.mark.parametrize(
    ("damage", "named", "said"),
    [
        (truncate, "00000_00000_doc_shuffled.ds", "truncated"),
        (grow, "00000_00000_doc_shuffled.ds", "longer than its manifest says"),
        (swap, "00000_00000_doc_shuffled.ds", "not the file that was prepared"),
        (remove, "00000_00000_doc_shuffled.ds", "missing"),
        (remove_index, "doc_shuffled.ds.index", "missing"),
        (add_stranger, "stranger.ds", "does not know"),
        (remove_heldout, "heldout.jsonl", "missing"),
        (remove_manifest, "x", "not a prepared token store"),
        (spoil_manifest, "manifest.json", "cannot be read"),
    ],
)
def test_a_damaged_store_is_refused_by_the_name_of_the_file(
    tmp_path: Path, damage: Callable[[Path], None], named: str, said: str
) -> None:
    folder = make_store(tmp_path / "x", [np.arange(500)])
    damage(folder)
    with pytest.raises(DataError, match=said) as caught:
        TokenStore.open(folder)
    assert named in str(caught.value)


def flip(path: Path, *, keep_time: bool = False) -> None:
    """Change one bit in the middle of a file."""
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


PARTS = ("*.ds", "*.ds.index", "heldout.jsonl")


def make_large(tmp_path: Path) -> Path:
    """A store whose files reach beyond their edges, held-out text included."""
    folder = make_store(tmp_path / "x", [np.arange(200_000) % 1000])
    index = first_file(folder).with_name(first_file(folder).name + ".index")
    ends = np.array([70_000, 140_000, 200_000], dtype="<u8")
    index.write_bytes(ends.tobytes())
    (folder / "heldout.jsonl").write_text('{"id": "0", "text": "kept out"}\n')
    stored = StoreManifest.read(folder)
    file = replace(stored.files[0], documents=3, index_sha256=file_sha256(index))
    heldout = HeldOut(documents=1, bytes=8, sha256=file_sha256(folder / "heldout.jsonl"))
    replace(stored, files=(file,), heldout=heldout).write(folder)
    return folder


@pytest.mark.parametrize("part", PARTS)
def test_a_byte_changed_in_the_middle_of_a_file_is_found(tmp_path: Path, part: str) -> None:
    folder = make_large(tmp_path)
    TokenStore.open(folder)
    flip(next(folder.rglob(part)))
    with pytest.raises(DataError, match="checksum"):
        TokenStore.open(folder)


def test_a_file_is_read_whole_once_for_each_state_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_large(tmp_path)
    read: list[str] = []

    def counting(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(verified, "file_sha256", counting)
    TokenStore.open(folder)
    assert len(read) == 3
    monkeypatch.setattr(verified, "_seen", {})  # as another process
    TokenStore.open(folder)
    assert len(read) == 3
    os.utime(folder / "heldout.jsonl")
    TokenStore.open(folder)
    assert read[3:] == ["heldout.jsonl"]
    verified.cache_file(folder).write_text("{")  # damaged: everything is read again
    monkeypatch.setattr(verified, "_seen", {})
    TokenStore.open(folder)
    assert len(read) == 7


def test_a_full_check_finds_what_kept_its_time_of_change(tmp_path: Path) -> None:
    folder = make_large(tmp_path)
    TokenStore.open(folder)
    flip(first_file(folder), keep_time=True)
    with pytest.raises(DataError, match="checksum"):
        TokenStore.open(folder, full=True)


def test_an_index_without_a_checksum_is_taken_once_and_compared_from_then_on(
    tmp_path: Path,
) -> None:
    folder = make_large(tmp_path)
    stored = StoreManifest.read(folder)
    plain = asdict(replace(stored, files=(replace(stored.files[0], index_sha256=""),)))
    del plain["files"][0]["index_sha256"]
    write_json(folder / "manifest.json", plain)  # as the version before wrote it
    TokenStore.open(folder)
    index = next(folder.rglob("*.index"))
    flip(index)
    with pytest.raises(DataError, match="checksum"):
        TokenStore.open(folder)


def test_an_index_of_zeros_is_refused_without_a_checksum(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "x", [np.arange(500)])
    index = next(folder.rglob("*.index"))
    index.write_bytes(bytes(8))
    with pytest.raises(DataError, match="does not end where the tokens do"):
        TokenStore.open(folder)


@pytest.mark.parametrize("field", ["eos_id", "vocab_size", "bytes", "source_fingerprint"])
def test_a_manifest_that_was_changed_is_refused(tmp_path: Path, field: str) -> None:
    folder = make_store(tmp_path / "x", [np.arange(500)])
    path = folder / "manifest.json"
    stored = json.loads(path.read_text())
    stored[field] = "other" if isinstance(stored[field], str) else stored[field] + 1
    path.write_text(json.dumps(stored))
    with pytest.raises(DamagedError, match=r"manifest\.json: damaged"):
        TokenStore.open(folder)


def test_a_store_that_cannot_be_read_is_told_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_large(tmp_path)

    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(verified, "file_sha256", refuse)
    with pytest.raises(DataError, match=r"\.ds: cannot be read; found: Permission denied"):
        TokenStore.open(folder)


def test_every_damaged_file_is_named_at_once(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "x", [np.arange(500), np.arange(300)])
    truncate(folder)
    add_stranger(folder)
    with pytest.raises(DataError) as caught:
        TokenStore.open(folder)
    assert len(caught.value.problems) == 2


def test_a_manifest_of_a_newer_layout_is_refused(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "x", [np.arange(500)])
    replace(StoreManifest.read(folder), format=99).write(folder)
    with pytest.raises(DataError, match="newer version"):
        TokenStore.open(folder)


def test_the_train_folder_is_what_datatroves_own_reader_reads(
    skills: dict[str, Prepared], tmp_path: Path
) -> None:
    from datatrove.utils.dataset import DatatroveFolderDataset

    folder = skills["synthetic_arithmetic"].folder
    store, length = TokenStore.open(folder), 32
    dataset = DatatroveFolderDataset(
        str(folder / TRAIN), length, filename_pattern="*.ds", token_size=2, return_positions=True,
        positions_from_eos_token_id=store.manifest.eos_id,
    )  # fmt: skip
    assert len(dataset) == store.num_windows(length)
    index = np.arange(0, len(dataset), 7)
    theirs = np.array([dataset[int(i)]["input_ids"].numpy() for i in index])
    np.testing.assert_array_equal(store.read(index, length), theirs)
    metadata = next((folder / TRAIN).glob("*.metadata")).read_text().splitlines()
    assert metadata[:2] == ["tiny_bpe|2", str(store.num_tokens)]


def test_documents_end_where_the_end_tokens_are(skills: dict[str, Prepared]) -> None:
    store = TokenStore.open(skills["synthetic_facts"].folder)
    documents = store.documents()
    assert len(documents) == store.manifest.documents
    assert sum(len(tokens) + 1 for tokens in documents) == store.num_tokens
    assert not any((tokens == store.manifest.eos_id).any() for tokens in documents)
    assert len(store.documents(limit=3)) == 3


def test_an_open_store_goes_on_reading_after_it_was_replaced(
    skills: dict[str, Prepared], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(skills["synthetic_facts"].folder, folder)
    store = TokenStore.open(folder)
    before = store.read([0, 1], 16).copy()
    shutil.rmtree(folder)
    np.testing.assert_array_equal(store.read([0, 1], 16), before)
