"""Cleaning: addresses, languages and private data, each counted, and read = kept + held out + dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.clean_spec import CleanSpec
from ablations.data.manifest import StoreManifest
from ablations.data.prepare import prepare
from ablations.data.quality.fasttext_training import train_fasttext, training_options
from ablations.data.synthetic import documents
from ablations.data.tokenizer import TokenizerSpec
from ablations.errors import ConfigError, DataError
from ablations.files import read_json_lines

TOKENIZER = TokenizerSpec(name="t", vocab_size=300, sample_bytes=5_000)
DUTCH = "het meisje loopt door de straat en koopt brood bij de bakker om de hoek"


def rows() -> list[dict[str, Any]]:
    found = []
    for number, text in enumerate(documents("facts", 90, seed=0)):
        kind = number % 3
        body = f"{DUTCH} {number}" if kind == 1 else f"{text.text} {number}"
        if kind == 2:
            body += f" write to user{number}@company.com or 8.8.8.{number}, never to 10.0.0.1"
        site = "spam.example.net" if number % 9 == 0 else "good.org"
        url = None if number % 10 == 7 else f"https://{site}/page/{number}"
        found.append({"id": str(number), "text": body, "url": url})
    return found


def prepared(folder: Path, clean: CleanSpec, shards: int = 1) -> StoreManifest:
    path = folder / "web.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    spec = SourceSpec(
        domain="x",
        tokens_available=1000,
        licence="MIT",
        origin=FilesOrigin(kind="files", paths=(str(path),)),
        heldout_share=0.2,
        shards=shards,
        clean=clean,
    )
    (made,) = prepare({"web": spec}, TOKENIZER, folder / "data")
    assert made.manifest is not None
    found = made.manifest
    assert found.documents_read == 90
    kept = found.documents + found.heldout.documents
    assert kept + sum(found.dropped.values()) == 90
    return found


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lid")
    english = [f"__label__en {t.text}" for t in documents("facts", 60, seed=9)]
    dutch = [f"__label__nl {DUTCH} {n}" for n in range(60)]
    (folder / "train.txt").write_text("\n".join(english + dutch))
    options = training_options(len(english + dutch), seed=0)
    train_fasttext(folder / "train.txt", options, folder / "lid.bin")
    return folder / "lid.bin"


def test_documents_of_blocked_domains_are_dropped_and_counted(tmp_path: Path) -> None:
    clean = CleanSpec(url_column="url", blocked_domains=("example.net",), url_lists=False)
    found = prepared(tmp_path, clean)
    # Nine of the ten have an address; number 27 has none and is on no list.
    assert found.dropped == {"address on a block list: domain": 9}


def test_other_languages_are_dropped_and_counted(tmp_path: Path, language_model: Path) -> None:
    clean = CleanSpec(languages=("en",), language_model=str(language_model))
    assert prepared(tmp_path, clean, shards=2).dropped == {"language is not en": 30}


def test_private_data_is_replaced_in_all_text_and_counted(tmp_path: Path) -> None:
    found = prepared(tmp_path, CleanSpec(pii=True))
    assert found.rewritten == {"private data replaced": 30}
    held = list(read_json_lines(tmp_path / "data/t/web/heldout.jsonl"))
    private = [row["text"] for row in held if "write to" in row["text"]]
    assert private
    for text in private:
        assert "@company.com" not in text
        assert "8.8.8." not in text
        assert "10.0.0.1" in text  # a private network's address is nobody's


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"language_threshold": 1.0}, "not a probability"),
        ({"blocked_domains": ("a.com",)}, "give url_column"),
        ({"language_model": "x.bin"}, "give languages"),
    ],
)
def test_cleaning_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CleanSpec(**values)


def test_a_missing_model_and_a_missing_column_are_named(tmp_path: Path) -> None:
    gone = CleanSpec(languages=("en",), language_model=str(tmp_path / "gone.bin"))
    with pytest.raises(DataError, match="no such file"):
        prepared(tmp_path, gone)
    with pytest.raises(DataError, match="no column 'link'"):
        prepared(tmp_path, CleanSpec(url_column="link"))
