"""The last step of a preparation takes sizes and checksums from the ranks, and reads what none described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.data import finalize, pipeline
from ablations.data.finalize import described_file
from ablations.data.manifest import store_folder
from ablations.data.store import TokenStore
from ablations.files import read_json, write_sealed
from tests.data.test_prepare_counts import TEXTS, prepared, write_rows

SHARDS = 3


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for number in range(SHARDS):
        write_rows(tmp_path / "texts" / f"{number}.jsonl", TEXTS[number::SHARDS])
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the token files that were read whole, in order."""
    names: list[str] = []
    real = finalize.describe

    def noted(path: Path, name: str, tokenizer: Any) -> Any:
        names.append(path.name)
        return real(path, name, tokenizer)

    monkeypatch.setattr(finalize, "describe", noted)
    return names


def test_each_token_file_is_read_once_by_its_rank(texts: Path, read: list[str]) -> None:
    made = prepared(texts, shards=SHARDS)
    assert [file.name for file in made.files] == sorted(read)
    assert len(set(read)) == SHARDS
    folder = store_folder(texts / "data", "t", "talk")
    TokenStore.open(folder, full=True)
    assert not (folder / "described").exists()


@pytest.mark.parametrize("how", ["missing", "damaged", "of other sizes"])
def test_a_file_that_its_rank_did_not_describe_is_read_by_the_last_step(
    texts: Path, read: list[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    real = finalize.describe_rank

    def spoilt(folder: Path, rank: int, tokenizer: Any) -> None:
        real(folder, rank, tokenizer)
        path = described_file(folder, rank)
        if rank != 1:
            return
        if how == "missing":
            path.unlink()
        elif how == "damaged":
            path.write_text(path.read_text().replace("sha256", "sha257", 1))
        else:
            (file,) = read_json(path)["files"]
            write_sealed(path, {"files": [{**file, "tokens": file["tokens"] + 1}]})

    monkeypatch.setattr(pipeline, "describe_rank", spoilt)
    made = prepared(texts, shards=SHARDS)
    assert len(read) == SHARDS + 1
    assert read[-1] == made.files[1].name
    TokenStore.open(store_folder(texts / "data", "t", "talk"), full=True)
