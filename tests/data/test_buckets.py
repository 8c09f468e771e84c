"""Buckets of a source: the same documents as one store for each threshold, in exact shares, prepared once."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from ablations.data import bucket_stores
from ablations.data.buckets import (
    BucketsSpec,
    SelectSpec,
    bucket_name,
    parent_and_bucket,
    selection_shares,
)
from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.cutting import buckets_of, find_edges, read_scores
from ablations.data.manifest import StoreManifest
from ablations.data.prepare import prepare
from ablations.data.store import TokenStore
from ablations.data.synthetic import documents
from ablations.data.tokenizer import TokenizerSpec, open_tokenizer
from ablations.errors import ConfigError, DataError
from ablations.files import read_json_lines

TOKENIZER = TokenizerSpec(name="t", vocab_size=300, sample_bytes=5_000)
EDGES = BucketsSpec(edges=(1.0, 2.0, 3.0))


def score_of(number: int) -> float | None:
    """Score of a document of :func:`write_scored`: none, then 0 to 4 in steps of a half."""
    return None if number % 23 == 0 else (number * 7 % 9) / 2


def write_scored(path: Path, count: int = 300) -> dict[str, float | None]:
    """Write distinct documents with scores; return text → score."""
    texts = [t.text for t in documents("facts", count, seed=0)]
    scores = {f"{n} {text}": score_of(n) for n, text in enumerate(texts)}
    rows = [{"id": str(n), "text": t, "score": s} for n, (t, s) in enumerate(scores.items())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return scores


def scored_source(path: Path, **more: Any) -> SourceSpec:
    origin = FilesOrigin(kind="files", paths=(str(path),))
    values: dict[str, Any] = {"domain": "x", "tokens_available": 1000, "licence": "MIT"}
    return SourceSpec(
        **{**values, "origin": origin, "score_column": "score", "heldout_share": 0.2, **more}
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scored") / "web.jsonl"
    write_scored(path)
    return path


@pytest.fixture(scope="module")
def made(texts: Path) -> Path:
    """Store of the source in four buckets, written by three ranks."""
    data = texts.parent / "data"
    spec = scored_source(texts, buckets=EDGES, shards=3)
    prepare({"web": spec}, TOKENIZER, data)
    return data / "t/web"


def training_texts(store: TokenStore, data: Path) -> Counter[str]:
    decode = decoder(data)
    return Counter(decode(doc.tolist()) for doc in store.documents())


def decoder(data: Path) -> Callable[[list[int]], str]:
    file = open_tokenizer(data / "tokenizers/t").file
    return tokenizers.Tokenizer.from_file(str(file)).decode


@pytest.mark.parametrize("threshold", range(4))
def test_the_buckets_above_a_threshold_hold_the_documents_of_its_own_store(
    made: Path, texts: Path, threshold: int
) -> None:
    data = made.parent.parent
    own = scored_source(texts, min_score=float(threshold), store=f"min{threshold}")
    if threshold == 0:  # documents without a score are below every threshold
        own = replace(own, min_score=None, score_column=None)
    (alone,) = prepare({"web": own}, TOKENIZER, data)
    expected = training_texts(TokenStore.open(alone.folder), data)
    found: Counter[str] = Counter()
    for bucket in range(threshold, 4):
        found += training_texts(TokenStore.open(made / f"b{bucket}"), data)
    assert found == expected
    held = {row["text"] for row in read_json_lines(alone.folder / "heldout.jsonl")}
    parts = [
        {row["text"] for row in read_json_lines(made / f"b{bucket}/heldout.jsonl")}
        for bucket in range(threshold, 4)
    ]
    assert set.union(*parts) == held
    assert sum(map(len, parts)) == len(held)


def test_each_document_keeps_its_score_through_the_shuffle(made: Path, texts: Path) -> None:
    rows = read_json_lines(texts)
    scores = {row["text"]: row["score"] for row in rows}
    decode = decoder(made.parent.parent)
    for bucket in range(4):
        store = TokenStore.open(made / f"b{bucket}", full=True)
        kept = np.concatenate(
            [read_scores(store.folder / "train" / file.name) for file in store.manifest.files]
        )
        for document, score in zip(store.documents(), kept.tolist(), strict=True):
            given = scores[decode(document.tolist())]
            assert (math.isnan(score) and bucket == 0) if given is None else score == given
            assert given is None or min(3, math.floor(given)) == bucket


def test_the_source_itself_stays_a_store_of_all_its_buckets(made: Path) -> None:
    whole = TokenStore.open(made, full=True)
    parts = [TokenStore.open(made / f"b{bucket}") for bucket in range(4)]
    assert whole.num_tokens == sum(part.num_tokens for part in parts)
    assert whole.manifest.buckets["tokens"] == [part.num_tokens for part in parts]
    assert whole.manifest.buckets["edges"] == [1.0, 2.0, 3.0]
    assert parts[2].manifest.buckets == {"bucket": 2, "low": 2.0, "high": 3.0}
    assert not (made / "uncut").exists()
    read = whole.read(np.arange(whole.num_windows(16)), 16)
    assert read.shape == (whole.num_windows(16), 17)


def test_a_cut_that_died_gives_the_same_store(
    texts: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"web": scored_source(texts, buckets=EDGES, shards=3)}
    calls = []

    def dies(path: Path, *rest: Any) -> Any:
        calls.append(path)
        if len(calls) == 3:
            raise OSError("killed")
        return describe(path, *rest)

    describe = bucket_stores.describe
    monkeypatch.setattr(bucket_stores, "describe", dies)
    with pytest.raises(OSError, match="killed"):
        prepare(spec, TOKENIZER, tmp_path)
    assert not (tmp_path / "t/web").exists()
    monkeypatch.undo()
    prepare(spec, TOKENIZER, tmp_path)
    for bucket in range(4):
        found = StoreManifest.read(tmp_path / f"t/web/b{bucket}")
        assert found.checksums() == StoreManifest.read(made / f"b{bucket}").checksums()


def test_quantiles_have_as_many_tokens_each(tmp_path: Path) -> None:
    rows = [
        {"id": t.id, "text": t.text, "score": n / 400}
        for n, t in enumerate(documents("facts", 400, seed=1))
    ]
    path = tmp_path / "web.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = scored_source(path, buckets=BucketsSpec(quantiles=5))
    (store,) = prepare({"web": spec}, TOKENIZER, tmp_path / "data")
    assert store.manifest is not None
    tokens = store.manifest.buckets["tokens"]
    assert max(tokens) - min(tokens) <= 200  # two documents
    assert store.manifest.buckets["edges"] == sorted(store.manifest.buckets["edges"])


def test_quantiles_of_too_few_distinct_scores_are_refused() -> None:
    scores = np.array([1, 1, 1, 2, 2, 3], dtype=np.float32)
    with pytest.raises(DataError, match="several buckets would be the same"):
        find_edges(BucketsSpec(quantiles=4), scores, np.full(6, 10), "web")


def test_a_bucket_without_a_held_out_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "web.jsonl"
    rows = [
        {"id": str(n), "text": t.text, "score": 5 if n == 0 else 1}
        for n, t in enumerate(documents("facts", 60, seed=2))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = scored_source(path, buckets=BucketsSpec(edges=(4.0,)))
    with pytest.raises(DataError, match="not one held-out document falls into bucket 1"):
        prepare({"web": spec}, TOKENIZER, tmp_path / "data")


@given(
    tokens=st.lists(st.floats(0.0, 1e12), min_size=2, max_size=8),
    threshold=st.integers(0, 7),
    tilt=st.floats(0.01, 100.0),
)
def test_shares_of_a_selection_sum_to_one(tokens: list[float], threshold: int, tilt: float) -> None:
    select = SelectSpec(min_bucket=threshold, tilt=tilt)
    if sum(tokens[threshold:]) < 1.0:
        return
    shares = selection_shares(select, tokens)
    assert math.isclose(sum(shares), 1.0, rel_tol=1e-9)
    assert all(share == 0.0 for share in shares[:threshold])
    rates = [s / t for s, t in zip(shares, tokens, strict=True) if t > 1.0 and s > 1e-12]
    for low, high in pairwise(rates):
        assert (low <= high * (1 + 1e-9)) if tilt >= 1.0 else (high <= low * (1 + 1e-9))


def test_a_selection_that_drops_and_down_samples() -> None:
    shares = selection_shares(SelectSpec(keep={0: 0.0, 1: 0.25, 2: 0.5}), [10, 20, 20, 10])
    assert shares == pytest.approx([0.0, 0.2, 0.4, 0.4])


@pytest.mark.parametrize(
    ("score", "bucket"),
    [(None, 0), (-1.0, 0), (0.999, 0), (1.0, 1), (2.3, 2), (3.0, 3), (99.0, 3), (0.1 + 0.9, 1)],
)
def test_a_bucket_begins_at_its_edge(score: float | None, bucket: int) -> None:
    value = math.nan if score is None else score
    assert buckets_of([value], (1.0, 2.3, 3.0)).tolist() == [bucket]


def test_names_of_buckets_are_read_back() -> None:
    assert parent_and_bucket(bucket_name("a-b1", 12)) == ("a-b1", 12)
    assert parent_and_bucket("web") is None
    assert parent_and_bucket("web-b01") is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"edges": (2.0, 1.0)}, "not rising"),
        ({"edges": (1.0, math.nan)}, "not rising"),
        ({}, "either edges or quantiles"),
        ({"edges": (1.0,), "quantiles": 3}, "either edges or quantiles"),
        ({"quantiles": 1}, "too few"),
        ({"quantiles": 3, "shares": (0.5, 0.5)}, "not one for each bucket"),
        ({"edges": (1.0,), "shares": (0.5, 0.6)}, "sum to 1"),
        ({"edges": (1.0,), "shares": (-0.5, 1.5)}, "sum to 1"),
    ],
)
def test_buckets_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BucketsSpec(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"buckets": EDGES, "score_column": None}, "buckets need a score too"),
        ({"buckets": EDGES, "select": SelectSpec(min_bucket=4)}, "allowed: a bucket, 0 to 3"),
        ({"buckets": EDGES, "select": SelectSpec(keep={7: 1.0})}, "allowed: a bucket, 0 to 3"),
        ({"min_score": 1.0, "select": SelectSpec()}, "there are no buckets"),
    ],
)
def test_sources_whose_buckets_cannot_be_are_refused(
    tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        scored_source(tmp_path / "x.jsonl", **values)


@pytest.mark.parametrize(
    "values",
    [{"tilt": 0.0}, {"tilt": math.inf}, {"min_bucket": -1}, {"keep": {0: -0.1}}],
)
def test_selections_outside_their_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="outside its range"):
        SelectSpec(**values)


def test_a_selection_of_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="selects buckets without text"):
        selection_shares(SelectSpec(min_bucket=1), [10.0, 0.0])


def test_what_is_selected_does_not_decide_the_store(tmp_path: Path) -> None:
    spec = scored_source(tmp_path / "x.jsonl", buckets=EDGES)
    other = replace(
        spec,
        select=SelectSpec(min_bucket=2),
        buckets=replace(EDGES, shares=(0.25, 0.25, 0.25, 0.25)),
    )
    assert spec.fingerprint() == other.fingerprint()
    assert spec.fingerprint() != replace(spec, buckets=BucketsSpec(edges=(2.0,))).fingerprint()
