"""What a preparation counts: every document once, whatever the ranks; duplicates, lengths, files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.commands.prepare_table import counts_table, remarks
from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.manifest import StoreManifest
from ablations.data.prepare import prepare
from ablations.data.prepare_counts import (
    RankCounts,
    TextHashes,
    count_duplicates,
    length_quantiles,
)
from ablations.data.store import TokenStore
from ablations.data.tokenizer import TokenizerSpec
from ablations.errors import DataError
from tests.conftest import Ablate

TOKENIZER = TokenizerSpec(name="t", vocab_size=300)

BEFORE = Path(__file__).parents[1] / "fixtures/before/data/synthetic_bpe/synthetic_facts"
"""A store of an earlier version."""


def write_rows(path: Path, texts: Sequence[str], **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": str(n), "text": text, **more} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepared(folder: Path, **more: Any) -> StoreManifest:
    spec = SourceSpec(
        **{
            "domain": "x",
            "tokens_available": 1000,
            "origin": FilesOrigin(kind="files", paths=(str(folder / "texts"),)),
            "licence": "none",
            "heldout_share": 0.2,
            **more,
        }
    )
    (store,) = prepare({"talk": spec}, TOKENIZER, folder / "data")
    assert store.manifest is not None
    return store.manifest


TEXTS = [f"A sentence of document {n}, {'and on ' * (n % 7)}to its end." for n in range(60)]


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_what_is_read_is_kept_held_out_or_dropped(tmp_path: Path, shards: int) -> None:
    write_rows(tmp_path / "texts/a.jsonl", [*TEXTS, "", " "], lang="en")
    write_rows(tmp_path / "texts/b.jsonl", ["autre", "encore"], lang="fr")
    found = prepared(tmp_path, keep={"lang": "en"}, min_tokens=12, shards=shards)
    assert found.documents_read == 64
    assert found.dropped["empty"] == found.dropped["lang is not en"] == 2
    dropped = sum(found.dropped.values())
    assert found.documents_read == found.documents + found.heldout.documents + dropped


def test_a_cap_on_bytes_counts_the_document_that_it_leaves_out(tmp_path: Path) -> None:
    write_rows(tmp_path / "texts/a.jsonl", TEXTS)
    found = prepared(tmp_path, max_bytes=1000)
    assert found.dropped == {"beyond max_bytes": 1}
    assert found.documents_read == found.documents + found.heldout.documents + 1


@pytest.mark.parametrize("shards", [1, 3])
def test_duplicates_are_counted_across_shards_and_kept(tmp_path: Path, shards: int) -> None:
    for name in "abc":
        write_rows(tmp_path / f"texts/{name}.jsonl", TEXTS)
    found = prepared(tmp_path, shards=shards)
    assert found.duplicates == 2 * len(TEXTS)
    assert found.documents + found.heldout.documents == 3 * len(TEXTS)
    assert found.dropped == {}


def test_duplicates_are_dropped_when_asked(tmp_path: Path) -> None:
    for name in "ab":
        write_rows(tmp_path / f"texts/{name}.jsonl", TEXTS)
    found = prepared(tmp_path, drop_duplicates=True)
    assert (found.duplicates, found.dropped) == (0, {"exact duplicate": len(TEXTS)})
    assert found.documents + found.heldout.documents == len(TEXTS)


def test_an_unused_filter_leaves_the_fingerprint_as_it_was(tmp_path: Path) -> None:
    spec = SourceSpec(
        domain="x",
        tokens_available=1,
        origin=FilesOrigin(kind="files", paths=("a",)),
        licence="none",
    )
    assert spec.fingerprint() == replace(spec, drop_duplicates=False).fingerprint()
    assert spec.fingerprint() != replace(spec, drop_duplicates=True).fingerprint()


@pytest.mark.parametrize("most", [1, 7, 1 << 24])
def test_duplicates_do_not_depend_on_how_many_hashes_are_compared_at_once(
    tmp_path: Path, most: int
) -> None:
    rng = np.random.default_rng(0)
    texts = [f"text {n}" for n in rng.integers(0, 50, 200)]
    paths = []
    for rank, part in enumerate((texts[:90], texts[90:], [])):
        hashes = TextHashes()
        for text in part:
            hashes.add(text)
        paths.append(tmp_path / f"{rank}.npy")
        hashes.write(paths[-1])
    assert count_duplicates(paths, most) == len(texts) - len(set(texts))


def test_lengths_are_those_of_the_store(tmp_path: Path) -> None:
    write_rows(tmp_path / "texts/a.jsonl", TEXTS)
    found = prepared(tmp_path, shards=2)
    store = TokenStore.open(tmp_path / "data/t/talk")
    lengths = np.array([len(tokens) + 1 for tokens in store.documents()])
    expected = {
        f"{q:g}": int(np.quantile(lengths, q, method="inverted_cdf"))
        for q in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    }
    assert found.token_lengths == expected


def test_no_document_has_no_lengths() -> None:
    assert length_quantiles([]) == {}


def test_files_that_are_not_read_are_counted_by_ending(tmp_path: Path) -> None:
    write_rows(tmp_path / "texts/a.jsonl", TEXTS)
    for name in ("b.csv", "c.CSV", "d.csv.gz", ".hidden.jsonl", "README"):
        (tmp_path / "texts" / name).write_text("x")
    found = prepared(tmp_path, shards=3)
    assert found.ignored_files == {".csv": 2, ".csv.gz": 1, "hidden": 1, "no ending": 1}


def test_bytes_that_are_not_text_are_counted(tmp_path: Path) -> None:
    for n, text in enumerate(TEXTS):
        path = tmp_path / f"texts/{n}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() + (b" caf\xe9 \xff\xfe" if n < 4 else b""))
    assert prepared(tmp_path).replaced_bytes == 12


def test_counts_of_ranks_add_up() -> None:
    one = RankCounts(read=3, documents=2, bytes=20, dropped={"empty": 1})
    two = RankCounts(read=5, documents=2, dropped={"empty": 2, "short": 1}, ignored_files={".x": 1})
    assert RankCounts.total([one, two]) == RankCounts(
        read=8,
        documents=4,
        bytes=20,
        dropped={"empty": 3, "short": 1},
        ignored_files={".x": 1},
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ['{"text": "x", "score": 1}', "", '{"text": "y"}'],
            "a.jsonl:3: no column 'score'",
        ),
        (
            ['{"text": "x", "score": 1}', '{"text": "y", "score": "high"}'],
            "a.jsonl:2: score: not a number; found: 'high'",
        ),
    ],
)
def test_an_error_names_file_and_line(tmp_path: Path, lines: list[str], said: str) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=said) as caught:
        prepared(tmp_path, score_column="score", min_score=1.0)
    assert str(tmp_path / "texts/a.jsonl") in str(caught.value)


def test_a_parquet_file_is_named_with_the_row(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "texts").mkdir()
    table = pa.table({"text": ["a", "b"], "score": ["1", "no"]})
    parquet.write_table(table, tmp_path / "texts/a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 2: score: not a number"):
        prepared(tmp_path, score_column="score", min_score=1.0)


def test_a_score_that_is_not_there_is_below_every_bound(tmp_path: Path) -> None:
    rows = [{"id": n, "text": text, "score": 2.0} for n, text in enumerate(TEXTS)]
    rows += [{"id": 90, "text": "none", "score": None}, {"id": 91, "text": "nan", "score": "nan"}]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = prepared(tmp_path, score_column="score", min_score=1.0, score_shares={2: 1.0})
    assert found.dropped == {"score below 1": 2}


def test_prepare_prints_what_it_did(tmp_path: Path, ablate: Ablate) -> None:
    write_rows(tmp_path / "texts/a.jsonl", [*TEXTS, TEXTS[0], "", ""])
    (tmp_path / "texts/b.csv").write_text("x")
    origin = f"{{kind:files,paths:[{tmp_path}/texts]}}"
    source = f"+source.talk={{domain:x,tokens_available:1000,licence:none,heldout_share:0.2,origin:{origin}}}"
    mixture = [
        "--config-dir",
        f"{tmp_path}/mine",
        "mixture=mine",
        "tokenizer.name=t",
        "tokenizer.train_on=[talk]",
    ]
    (tmp_path / "mine/mixture").mkdir(parents=True)
    (tmp_path / "mine/mixture/mine.yaml").write_text("weights: {talk: 1.0}\n")
    words = [source, *mixture, "tokenizer.vocab_size=300", f"data_dir={tmp_path}/data"]
    answer = ablate("prepare", *words, "evaluation=heldout")
    assert answer.code == 0, answer.err
    found = StoreManifest.read(tmp_path / "data/t/talk")
    (line,) = [line for line in answer.out.splitlines() if line.startswith("│ talk")]
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    kept, aside = found.documents, found.heldout.documents
    assert cells[:7] == ["talk", "63", str(kept), str(aside), "2", "1", "0"]
    assert "talk: dropped 2 (empty)" in answer.out
    assert "talk: files that are not read: 1 .csv" in answer.out


def test_a_store_of_an_older_version_has_no_figures_and_is_listed() -> None:
    old = StoreManifest.read(BEFORE)
    assert (old.documents_read, old.duplicates, dict(old.token_lengths)) == (None, None, {})
    assert counts_table({"old": old}).row_count == 1
    assert list(remarks({"old": old})) == []
