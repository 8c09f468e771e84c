"""The number of shards of a source whose config leaves it open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.config.schema import load
from ablations.data import catalogue
from ablations.data.catalogue import (
    TOKENS_OF_A_SHARD,
    HubOrigin,
    SizeSpec,
    SourceSpec,
    load_catalogue,
    load_source,
)
from ablations.data.prepare import prepare
from ablations.data.shards import with_shards
from ablations.data.tokenizer import TokenizerSpec
from ablations.errors import DataError
from ablations.execute import identity
from tests.data.test_prepare import TOKENIZER, source, write_texts
from tests.test_conf import composed

B = 1_000_000_000
LARGE = 10 * B + 1
"""Tokens of a source that gets three shards."""


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a shard have 5,000 tokens, of which the files of these tests have 14,000 bytes and more."""
    monkeypatch.setattr(catalogue, "TOKENS_OF_A_SHARD", 5_000)


def hub(tokens: int, **more: Any) -> SourceSpec:
    origin = more.pop("origin", HubOrigin(kind="hub", repo="a/b"))
    return SourceSpec(domain="x", tokens_available=tokens, origin=origin, licence="MIT", **more)


@pytest.mark.parametrize(
    ("tokens", "more", "shards"),
    [
        (1, {}, 1),
        (5 * B, {}, 1),
        (5 * B + 1, {}, 2),
        (1_300 * B, {}, 260),
        (20_000 * B, {}, 1000),  # an array of Slurm
        (1_300 * B, {"shards": 8}, 8),
        (1_300 * B, {"size": SizeSpec(tokens=12 * B)}, 3),
        (1_300 * B, {"max_bytes": 40 * B}, 2),  # 4 bytes a token
        (1_300 * B, {"max_bytes": 40 * B, "size": SizeSpec(tokens=B, text_bytes=10 * B)}, 1),
        (1_300 * B, {"max_documents": 6_000_000}, 2),  # 1,000 tokens a document
        (1_300 * B, {"max_documents": 300}, 1),
        (
            1_300 * B,
            {"max_documents": 6_000_000, "size": SizeSpec(tokens=900 * B, documents=3 * B)},
            1,
        ),
        (
            1_300 * B,
            {
                "origin": HubOrigin(kind="hub", repo="a/b", subset="small"),
                "subsets": {"small": SizeSpec(tokens=11 * B)},
            },
            3,
        ),
    ],
)
def test_a_source_has_a_shard_for_each_five_billion_tokens(
    tokens: int, more: dict[str, Any], shards: int
) -> None:
    spec = hub(tokens, **more)
    assert spec.shard_count == shards
    assert with_shards({"talk": spec}, Path("nowhere"), "t")["talk"].shards == shards


def test_a_shipped_source_that_is_small_keeps_its_one_shard_and_a_large_one_is_shared() -> None:
    counts = {name: load_source(name).shard_count for name in load_catalogue()}
    assert counts["wiki"] == counts["code"] == counts["smol_smoltalk"] == 1
    assert counts["fineweb_edu"] == 8  # as its file states
    assert counts["starcoderdata"] == 50
    for name, count in counts.items():
        spec = load_source(name)
        if spec.shards is None:
            assert spec.published().tokens / count <= TOKENS_OF_A_SHARD, name


@pytest.mark.usefixtures("small_shards")
def test_a_store_of_another_number_of_shards_stays_the_sources(tmp_path: Path) -> None:
    texts, data = write_texts(tmp_path / "texts"), tmp_path / "data"
    open_, one = (source(texts, tokens_available=LARGE, **more) for more in ({}, {"shards": 1}))
    (made,) = prepare({"talk": one}, TOKENIZER, data)
    assert with_shards({"talk": open_}, data, TOKENIZER.name)["talk"].shards == 1
    (again,) = prepare({"talk": open_}, TOKENIZER, data)
    assert again.skipped
    assert again.manifest == made.manifest
    with pytest.raises(DataError, match="other settings of the source"):
        prepare({"talk": replace(open_, shards=2)}, TOKENIZER, data)
    with pytest.raises(DataError, match="other settings of the source"):
        prepare({"talk": replace(open_, heldout_share=0.2)}, TOKENIZER, data)


@pytest.mark.usefixtures("small_shards")
def test_a_store_that_is_made_new_has_as_many_files_as_its_size_asks_for(tmp_path: Path) -> None:
    texts, data = write_texts(tmp_path / "texts"), tmp_path / "data"
    large = source(texts, tokens_available=10_001)
    (made,) = prepare({"talk": large}, TOKENIZER, data)
    assert made.manifest is not None
    assert len(made.manifest.files) == 3
    # A figure that is corrected later does not make another store of it.
    for tokens in (5_001, 10**12):
        (again,) = prepare({"talk": replace(large, tokens_available=tokens)}, TOKENIZER, data)
        assert again.skipped


@pytest.mark.usefixtures("small_shards")
def test_the_identity_of_a_run_has_the_number_of_its_store(tmp_path: Path) -> None:
    texts, data = write_texts(tmp_path / "texts"), tmp_path / "data"
    tokenizer = TokenizerSpec(name="t", vocab_size=300, sample_bytes=5_000)
    prepare({"talk": source(texts, tokens_available=LARGE, shards=1)}, tokenizer, data)
    of_source = (
        f"{{domain: x, licence: MIT, tokens_available: {LARGE}, "
        f"origin: {{kind: files, paths: [{texts}]}}}}"
    )
    overrides = (
        *(f"data_dir={data}", f"+source.talk={of_source}", "+mixture.weights={talk: 1}"),
        *("tokenizer.name=t", "tokenizer.vocab_size=300", "tokenizer.sample_bytes=5000"),
        *("model.vocab_size=300", "schedule.total_tokens=4096", "evaluation.tasks={}"),
        "evaluation.score=null",
    )
    plain = composed(*overrides)
    plain["mixture"]["weights"] = {"talk": 1.0}
    assert load(plain).source["talk"].shards == 1
    before = {**plain, "source": {"talk": {**plain["source"]["talk"], "shards": 1}}}
    assert identity(load(plain)) == identity(load(before))


def test_a_store_that_cannot_be_read_decides_nothing(tmp_path: Path) -> None:
    large = hub(LARGE)
    folder = tmp_path / "t" / "talk"
    folder.mkdir(parents=True)
    for content in ("", "{}", '{"source_fingerprint": "x", "files": 3}', "[1"):
        (folder / "manifest.json").write_text(content)
        assert with_shards({"talk": large}, tmp_path, "t")["talk"].shards == 3


@pytest.mark.usefixtures("small_shards")
def test_local_files_are_looked_at_instead_of_trusting_a_large_figure(tmp_path: Path) -> None:
    spec = source(write_texts(tmp_path / "texts"), tokens_available=10**12)
    size = sum(path.stat().st_size for path in (tmp_path / "texts").iterdir())
    assert with_shards({"talk": spec}, tmp_path, "t")["talk"].shards == -(-size // 5_000)
    absent = source(tmp_path / "nowhere", tokens_available=10_001)
    assert with_shards({"talk": absent}, tmp_path, "t")["talk"].shards == 3
