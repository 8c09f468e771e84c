"""Exact and near duplicates over shards and sources: counted, the same for any shards, resumable."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.data import duplicates as module
from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.contamination import store_texts
from ablations.data.duplicates import marks_of
from ablations.data.duplicates_spec import DuplicatesSpec
from ablations.data.expected import expected_of
from ablations.data.manifest import StoreManifest
from ablations.data.prepare import needed_bytes, prepare
from ablations.data.synthetic import documents
from ablations.data.tokenizer import TokenizerSpec
from ablations.errors import ConfigError, DataError
from ablations.files import read_json_lines

TOKENIZER = TokenizerSpec(name="t", vocab_size=300, sample_bytes=5_000)
NEAR = DuplicatesSpec(kind="near")


def passages(count: int, seed: int = 0) -> list[str]:
    """Texts of some 120 words with nothing in common but their vocabulary."""
    words = " ".join(text.text for text in documents("facts", 60, seed=5)).split()
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=120)) for _ in range(count)]


def edited(text: str) -> str:
    """The text with its last word replaced: it shares 0.99 of its runs of five words."""
    return f"{text.rsplit(' ', 1)[0]} otherwise"


def write_rows(path: Path, texts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"{path.stem}{n}", "text": text} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def source(folder: Path, name: str, **more: Any) -> SourceSpec:
    return SourceSpec(
        **{
            "domain": "x",
            "tokens_available": 1000,
            "origin": FilesOrigin(kind="files", paths=(str(folder / name),)),
            "licence": "none",
            "heldout_share": 0.2,
            **more,
        }
    )


def made(folder: Path, sources: Mapping[str, SourceSpec], **more: Any) -> dict[str, StoreManifest]:
    found = {}
    for one in prepare(sources, TOKENIZER, folder / "data", **more):
        assert one.manifest is not None
        found[one.name] = one.manifest
        kept = one.manifest.documents + one.manifest.heldout.documents
        assert one.manifest.documents_read == kept + sum(one.manifest.dropped.values())
    return found


def texts_of(folder: Path, name: str) -> list[str]:
    """Every text of a store, held out or not, sorted."""
    store = folder / "data/t" / name
    found = [text for _, text in store_texts(store, folder / "data/tokenizers")]
    found = [text.removesuffix("<|endoftext|>") for text in found]
    return sorted([*found, *(row["text"] for row in read_json_lines(store / "heldout.jsonl"))])


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (3, 1), (3, 2)])
def test_exact_duplicates_are_dropped_over_all_shards(
    tmp_path: Path, shards: int, workers: int
) -> None:
    texts = passages(40)
    for name in "abc":
        write_rows(tmp_path / f"web/{name}.jsonl", [*texts, edited(texts[0])])
    spec = source(tmp_path, "web", duplicates=DuplicatesSpec(), shards=shards)
    found = made(tmp_path, {"web": spec}, workers=workers)["web"]
    assert found.dropped == {"exact duplicate": 2 * 41}
    assert found.duplicates == 0
    assert texts_of(tmp_path, "web") == sorted([*texts, edited(texts[0])])


def test_near_duplicates_are_dropped_and_the_same_stay_for_any_number_of_shards(
    tmp_path: Path,
) -> None:
    texts = passages(40)
    write_rows(tmp_path / "web/a.jsonl", texts)
    write_rows(tmp_path / "web/b.jsonl", [edited(text) for text in texts[:15]])
    write_rows(tmp_path / "web/c.jsonl", [*texts[:5], *passages(10, seed=9)])
    kept = []
    for shards in (1, 2, 4):
        name = f"web{shards}"
        (tmp_path / name).symlink_to(tmp_path / "web")
        spec = source(tmp_path, name, duplicates=NEAR, shards=shards)
        found = made(tmp_path, {name: spec})[name]
        # The five texts that are there twice and once edited lose two documents, the ten others one.
        assert sum(found.dropped.values()) == 20
        assert set(found.dropped) <= {"exact duplicate", "near duplicate"}
        kept.append(texts_of(tmp_path, name))
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 50


def test_another_source_keeps_its_documents(tmp_path: Path) -> None:
    texts = passages(60)
    write_rows(tmp_path / "wiki/a.jsonl", [*texts[:30], texts[0]])
    write_rows(
        tmp_path / "web/a.jsonl", [*texts[:10], *map(edited, texts[10:25]), *texts[30:], texts[59]]
    )
    near = replace(NEAR, against=("wiki",))
    sources = {
        "web": source(tmp_path, "web", duplicates=near, shards=2),
        "wiki": source(tmp_path, "wiki"),
    }
    found = made(tmp_path, sources)
    assert list(found) == ["wiki", "web"]  # the source that keeps its documents comes first
    assert found["wiki"].dropped == {}
    assert found["web"].dropped == {
        "exact duplicate": 1,
        "exact duplicate of wiki": 10,
        "near duplicate of wiki": 15,
    }
    assert texts_of(tmp_path, "web") == sorted(texts[30:])


def test_exact_alone_keeps_texts_that_are_nearly_equal(tmp_path: Path) -> None:
    texts = passages(30)
    write_rows(tmp_path / "wiki/a.jsonl", texts)
    write_rows(tmp_path / "web/a.jsonl", [*texts[:5], *map(edited, texts)])
    sources = {
        "wiki": source(tmp_path, "wiki"),
        "web": source(tmp_path, "web", duplicates=DuplicatesSpec(against=("wiki",))),
    }
    assert made(tmp_path, sources)["web"].dropped == {"exact duplicate of wiki": 5}


def test_a_store_is_refused_when_the_other_source_is_another(tmp_path: Path) -> None:
    write_rows(tmp_path / "wiki/a.jsonl", passages(30))
    write_rows(tmp_path / "web/a.jsonl", passages(30, seed=1))
    wiki = source(tmp_path, "wiki")
    web = source(tmp_path, "web", duplicates=DuplicatesSpec(against=("wiki",)))
    with pytest.raises(DataError, match="'wiki' is not prepared"):
        made(tmp_path, {"web": web})
    made(tmp_path, {"wiki": wiki})
    made(tmp_path, {"web": web})  # the other source's store is enough
    write_rows(tmp_path / "wiki/a.jsonl", passages(31))
    made(tmp_path, {"wiki": wiki}, force=True)
    with pytest.raises(DataError, match="another version of 'wiki'"):
        made(tmp_path, {"web": web})


def test_sources_that_leave_their_duplicates_to_each_other_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "a/a.jsonl", passages(5))
    sources = {
        "a": source(tmp_path, "a", duplicates=DuplicatesSpec(against=("b",))),
        "b": source(tmp_path, "a", duplicates=DuplicatesSpec(against=("a",))),
    }
    with pytest.raises(ConfigError, match="leaves its duplicates to the next"):
        made(tmp_path, sources)


def test_the_search_goes_on_after_it_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = passages(30)
    for name in "abc":
        write_rows(tmp_path / f"web/{name}.jsonl", [*texts, *map(edited, texts[:4])])
    spec = source(tmp_path, "web", duplicates=NEAR, shards=3)
    read: list[int] = []
    ranks, marks = module.ReadTexts.run, module.MarkDuplicates.run

    def counted(self: Any, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        read.append(rank)
        if len(read) == 2:
            raise OSError("gone")
        return ranks(self, data, rank, world_size)

    def dies(self: Any, *_: Any, **__: Any) -> Any:
        raise OSError("gone too")

    monkeypatch.setattr(module.ReadTexts, "run", counted)
    monkeypatch.setattr(module.MarkDuplicates, "run", dies)
    with pytest.raises(OSError, match="gone"):
        made(tmp_path, {"web": spec})
    with pytest.raises(OSError, match="gone too"):
        made(tmp_path, {"web": spec})
    assert sorted(read) == [0, 1, 1, 2]  # the rank that was through is not read again
    monkeypatch.setattr(module.MarkDuplicates, "run", marks)
    found = made(tmp_path, {"web": spec})["web"]
    assert found.dropped == {"exact duplicate": 68, "near duplicate": 4}
    assert sorted(read) == [0, 1, 1, 2]
    assert not (tmp_path / "data/t/web/duplicates").exists()


def test_text_that_changed_between_the_readings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "web/a.jsonl", passages(30))
    spec = source(tmp_path, "web", duplicates=DuplicatesSpec())
    marks = module.MarkDuplicates.run

    def changed(self: Any, *given: Any, **more: Any) -> Any:
        write_rows(tmp_path / "web/a.jsonl", passages(29))
        return marks(self, *given, **more)

    monkeypatch.setattr(module.MarkDuplicates, "run", changed)
    with pytest.raises(DataError, match="changed while its duplicates were sought"):
        made(tmp_path, {"web": spec})


def test_the_disk_of_the_search_is_counted_before_it_begins(tmp_path: Path) -> None:
    write_rows(tmp_path / "web/a.jsonl", passages(100))
    plain = source(tmp_path, "web")
    expected = expected_of(plain, TOKENIZER, tmp_path)
    assert expected.documents == 100
    least = needed_bytes(plain, expected, 2)
    exact = replace(plain, duplicates=DuplicatesSpec())
    assert needed_bytes(exact, expected, 2) == least + 100 * 16
    # 14 bands of 8 hashes and a number.
    near = replace(plain, duplicates=NEAR)
    assert needed_bytes(near, expected, 2) == least + 100 * (16 + 14 * 68)


def test_numbers_count_where_they_are_asked_to(tmp_path: Path) -> None:
    texts = [f"{text} the sum is {n}" for n, text in enumerate(passages(30))]
    other = [text.replace("the sum is ", "the sum is 7") for text in texts[:10]]
    write_rows(tmp_path / "web/a.jsonl", [*texts, *other])
    for name, spec, dropped in (
        ("same", NEAR, 10),
        ("short", replace(NEAR, words=200), 0),  # texts shorter than a run have nothing to compare
    ):
        (tmp_path / name).symlink_to(tmp_path / "web")
        found = made(tmp_path, {name: source(tmp_path, name, duplicates=spec)})[name]
        assert sum(found.dropped.values()) == dropped
    lines = [f"{n} plus {n + 1} is {2 * n + 1} and not {n + 5}" for n in range(30)]
    write_rows(tmp_path / "sums/a.jsonl", lines)
    spec = source(tmp_path, "sums", duplicates=replace(NEAR, ignore_numbers=False))
    assert made(tmp_path, {"sums": spec})["sums"].dropped == {}


def test_marks_agree_with_a_search_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        count = int(rng.integers(1, 40))
        texts = rng.integers(0, 12, (count, 2)).astype(np.uint64)
        texts[:, 1] = rng.permutation(count)
        origin = rng.integers(-1, 2, count)
        near = rng.integers(0, count, (int(rng.integers(0, 12)), 2))
        group = list(range(count))
        equal = [(i, j) for i in range(count) for j in range(i) if texts[i, 0] == texts[j, 0]]
        for a, b in [*equal, *near.tolist()]:
            group = [group[b] if g == group[a] else g for g in group]

        def order(n: int, texts: Any = texts, origin: Any = origin) -> tuple[int, ...]:
            return (99 if origin[n] < 0 else int(origin[n]), *texts[n].tolist())

        expected = []
        for n in range(count):
            members = [m for m in range(count) if group[m] == group[n]]
            first = min(members, key=order)
            twin = min((m for m in members if texts[m, 0] == texts[n, 0]), key=order)
            stays = origin[n] >= 0 or first == n
            keeper = int(origin[twin if twin != n else first])
            expected.append(0 if stays else 2 * (keeper + 1) + (1 if twin != n else 2))
        assert marks_of(texts, origin, near).tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"words": 0}, "outside its range"),
        ({"bands": 0}, "outside its range"),
        ({"against": ("a", "a")}, "names a source twice"),
    ],
)
def test_duplicates_that_cannot_be_sought_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DuplicatesSpec(**values)
