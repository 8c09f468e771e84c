"""What a preparation is expected to give is what it gives, measured or published."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.data.catalogue import FilesOrigin, HubOrigin, SizeSpec, SourceSpec
from ablations.data.expected import Expected, bytes_per_token, expected_of
from ablations.data.manifest import StoreManifest
from ablations.data.prepare import needed_bytes, prepare
from ablations.data.synthetic import documents
from ablations.data.tokenizer import TokenizerSpec

TOKENIZER = TokenizerSpec(name="t", vocab_size=300, sample_bytes=5_000)
SIZE = SizeSpec(tokens=1000, documents=10, text_bytes=4600, download_bytes=2000)


def rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": text.id, "text": text.text, "lang": "en" if n % 4 else "fr"}
        for n, text in enumerate(documents("dialogue", count, seed=seed))
    ]


def write(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(count)))


def source(**more: Any) -> SourceSpec:
    origin = FilesOrigin(kind="files", paths=("texts",))
    return SourceSpec(
        **{"domain": "x", "tokens_available": 10**12, "origin": origin, "licence": "MIT", **more}
    )


def hub(**more: Any) -> SourceSpec:
    origin = HubOrigin(kind="hub", repo="team/web", **more.pop("origin", {}))
    return source(origin=origin, size=SIZE, **more)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with text, and its tokenizer made."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "texts/a.jsonl", 120)
    prepare({"first": source()}, TOKENIZER, tmp_path / "data")
    return tmp_path


def compared(
    folder: Path, spec: SourceSpec, mirror: Path | None = None
) -> tuple[Expected, StoreManifest]:
    """What is expected of a source, and the manifest of its store."""
    expected = expected_of(spec, TOKENIZER, folder / "data", mirror=mirror)
    (store,) = prepare({"talk": spec}, TOKENIZER, folder / "data", mirror=mirror)
    assert store.manifest is not None
    return expected, store.manifest


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"max_documents": 50},
        {"max_bytes": 9_000},
        {"keep": {"lang": "en"}},
        {"min_tokens": 60},
        {"keep": {"lang": "en"}, "max_bytes": 9_000, "heldout_share": 0.3},
    ],
    ids=str,
)
def test_text_that_is_here_is_counted_with_its_filters_and_caps(
    folder: Path, more: dict[str, Any]
) -> None:
    expected, manifest = compared(folder, source(**more))
    assert expected.basis == "its text"
    assert expected.documents == manifest.documents + manifest.heldout.documents
    assert expected.text_bytes == manifest.bytes + manifest.heldout.bytes
    assert expected.tokens == manifest.tokens
    stored = folder / "data/t/talk"
    size = sum(path.stat().st_size for path in stored.rglob("*.*") if path.suffix != ".json")
    assert expected.store_bytes == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    "more",
    [{}, {"keep": {"lang": "en"}}, {"max_bytes": 3_000_000}, {"max_documents": 20_000}],
    ids=str,
)
def test_a_sample_of_more_text_is_scaled(
    folder: Path, more: dict[str, Any], packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablations.data.expected.SAMPLE_BYTES", 200_000)
    write(folder / "more/a.jsonl", 6_000)
    if packed:
        import gzip

        text = (folder / "more/a.jsonl").read_bytes()
        (folder / "more/a.jsonl.gz").write_bytes(gzip.compress(text))
        (folder / "more/a.jsonl").unlink()
    more = {key: value // 10 if isinstance(value, int) else value for key, value in more.items()}
    spec = source(origin=FilesOrigin(kind="files", paths=("more",)), **more)
    expected, manifest = compared(folder, spec)
    assert expected.basis == "a sample of its text"
    assert expected.text_bytes == pytest.approx(manifest.bytes + manifest.heldout.bytes, rel=0.05)
    assert expected.tokens == pytest.approx(manifest.tokens, rel=0.05)


def test_a_mirror_is_looked_at_and_not_the_published_size(folder: Path) -> None:
    mirror = folder / "mirror"
    write(mirror / "team/web/part.jsonl", 80)
    expected, manifest = compared(folder, hub(tokens_available=10**15), mirror)
    assert expected.basis == "its text"
    assert (expected.tokens, expected.download_bytes) == (manifest.tokens, 0.0)
    assert expected.peak_bytes < 1e6


@pytest.mark.parametrize(
    ("more", "text", "download"),
    [
        ({}, 4600.0, 2000.0),
        ({"max_bytes": 2530}, 2300.0, 1000.0),  # less half a document of 460 bytes
        ({"max_documents": 5}, 2300.0, 1000.0),
        ({"max_documents": 50}, 4600.0, 2000.0),
    ],
    ids=str,
)
def test_published_figures_are_cut_to_the_caps(
    tmp_path: Path, more: dict[str, Any], text: float, download: float
) -> None:
    found = expected_of(hub(heldout_share=0.1, **more), TOKENIZER, tmp_path)
    assert found.basis == "published size"
    assert found.text_bytes == pytest.approx(text)
    assert found.download_bytes == pytest.approx(download)
    assert found.tokens == pytest.approx(text / 4.6)


def test_a_named_subset_counts_with_its_own_size(tmp_path: Path) -> None:
    subsets = {"small": SizeSpec(tokens=10), "large": SizeSpec(tokens=100, documents=2)}
    for named, tokens in (("small", 10), ("small, large", 110), ("other", 1000), (None, 1000)):
        spec = hub(subsets=subsets, heldout_share=0.0, origin={"subset": named})
        assert expected_of(spec, TOKENIZER, tmp_path).tokens == pytest.approx(tokens)


def test_without_a_size_the_stated_tokens_and_the_vocabulary_count(tmp_path: Path) -> None:
    spec = replace(hub(heldout_share=0.0), size=None, tokens_available=5000)
    found = expected_of(spec, TOKENIZER, tmp_path, vocab_size=1024)
    assert found.tokens == pytest.approx(5000)
    assert found.text_bytes == pytest.approx(5000 * 2.3)
    assert bytes_per_token(1024) < bytes_per_token(32_000) < bytes_per_token(10**6) == 4.8


def test_the_disk_of_text_that_was_not_seen_is_not_counted_too_low(tmp_path: Path) -> None:
    spec = replace(hub(heldout_share=0.0), size=None, tokens_available=10**12)
    for given, needed in ((spec, 4 * 10**12), (replace(spec, max_bytes=2_000), 4_000)):
        found = expected_of(given, TOKENIZER, tmp_path, vocab_size=1024)
        assert needed_bytes(given, found, 2) == needed


def test_published_sizes_do_not_change_what_a_store_is() -> None:
    assert hub().fingerprint() == replace(hub(), size=None).fingerprint()


def test_a_tokenizer_of_the_hub_is_taken_from_the_mirror(folder: Path) -> None:
    mirror = folder / "mirror"
    shutil.copytree(folder / "data/tokenizers/t", mirror / "team/words")
    spec = TokenizerSpec(name="w", kind="hub", repo="team/words")
    (store,) = prepare({"talk": source()}, spec, folder / "other", mirror=mirror)
    first = StoreManifest.read(folder / "data/t/first")
    assert store.manifest is not None
    assert store.manifest.tokens == first.tokens
    assert expected_of(source(), spec, folder / "third", mirror=mirror).tokens == first.tokens
