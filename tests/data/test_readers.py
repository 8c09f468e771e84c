"""Documents come out the same from every kind of file, filtered, capped and sharded."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ablations.data.catalogue import FilesOrigin, HubOrigin, SourceSpec, SyntheticOrigin
from ablations.data.file_rows import find_files
from ablations.data.readers import Place, heldout, read_source
from ablations.data.synthetic import Text
from ablations.errors import DataError

ROWS = [
    {
        "id": f"d{n}",
        "text": f"text number {n}",
        "score": n / 4,
        "lang": "en" if n % 2 else "fr",
        "site": f"s{n // 3}",
    }
    for n in range(12)
]


def write_jsonl(folder: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_gz(folder: Path) -> Path:
    path = folder / "a.jsonl.gz"
    path.write_bytes(gzip.compress(write_jsonl(folder).read_bytes()))
    (folder / "a.jsonl").unlink()
    return path


def write_parquet(folder: Path) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / "a.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=5)
    return path


def write_arrow_file(folder: Path) -> Path:
    import pyarrow as pa

    table = pa.Table.from_pylist(ROWS)
    path = folder / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return path


def write_arrow_stream(folder: Path) -> Path:
    import pyarrow as pa

    table = pa.Table.from_pylist(ROWS)
    path = folder / "a.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return path


def spec(*paths: Path | str, **more: Any) -> SourceSpec:
    origin = FilesOrigin(kind="files", paths=tuple(map(str, paths)))
    return SourceSpec(
        **{"domain": "x", "tokens_available": 1, "origin": origin, "licence": "MIT", **more}
    )


def read(source: SourceSpec, tmp_path: Path, rank: int = 0, ranks: int = 1) -> list[Text]:
    return list(
        read_source(source, Place(downloads=tmp_path / "downloads", rank=rank, ranks=ranks))
    )


@pytest.mark.parametrize(
    "write", [write_jsonl, write_gz, write_parquet, write_arrow_file, write_arrow_stream]
)
def test_every_format_gives_the_same_documents(tmp_path: Path, write: Any) -> None:
    texts = read(spec(write(tmp_path), group_column="site"), tmp_path)
    assert [(t.id, t.text, t.group) for t in texts] == [
        (r["id"], r["text"], r["site"]) for r in ROWS
    ]


def test_text_files_are_one_document_each(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / ".hidden.txt").write_text("never")
    assert [text.text for text in read(spec(tmp_path), tmp_path)] == ["first", "second"]


def test_filters_drop_and_count(tmp_path: Path) -> None:
    source = spec(write_jsonl(tmp_path), keep={"lang": "en"}, score_column="score", min_score=1.0)
    place = Place(downloads=tmp_path)
    assert [text.id for text in read_source(source, place)] == ["d5", "d7", "d9", "d11"]
    assert place.dropped == {"lang is not en": 6, "score below 1": 2}


def test_scores_are_thinned_by_a_hash_of_the_text(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": f"document {n}", "score": n % 4 + 0.4} for n in range(2000)]
    source = spec(
        write_jsonl(tmp_path, rows),
        score_column="score",
        min_score=1,
        score_shares={1: 0.25, 2: 0.5},
    )
    place = Place(downloads=tmp_path)
    kept = [int(text.id) % 4 for text in read_source(source, place)]
    assert [kept.count(score) for score in range(4)] == [
        0,
        pytest.approx(125, abs=35),
        pytest.approx(250, abs=50),
        500,
    ]
    assert place.dropped["score below 1"] == 500
    assert place.dropped["score 1, not drawn"] == 500 - kept.count(1)
    assert place.dropped["score 2, not drawn"] == 500 - kept.count(2)
    again = [text.id for text in read_source(source, Place(downloads=tmp_path))]
    assert len(again) == len(kept)


def test_values_that_are_left_out_drop_and_are_counted(tmp_path: Path) -> None:
    source = spec(write_jsonl(tmp_path), leave_out={"site": ("s0", "s1")})
    place = Place(downloads=tmp_path)
    assert [text.id for text in read_source(source, place)] == [f"d{n}" for n in range(6, 12)]
    assert place.dropped == {"site is s0": 3, "site is s1": 3}


def test_empty_documents_are_dropped_and_lists_are_lines(tmp_path: Path) -> None:
    rows = [{"text": " "}, {"text": None}, {"text": ["a", None, "b"]}]
    place = Place(downloads=tmp_path)
    texts = list(read_source(spec(write_jsonl(tmp_path, rows), id_column=None), place))
    assert [text.text for text in texts] == ["a\nb"]
    assert place.dropped == {"empty": 2}


def test_columns_are_joined_by_blank_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, [{"q": "why", "a": "because"}])
    (text,) = read(spec(path, text_column="q,a"), tmp_path)
    assert (text.text, text.id) == ("why\n\nbecause", "a.jsonl:0")


@pytest.mark.parametrize("files", [1, 5])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_the_documents_without_loss(tmp_path: Path, files: int, ranks: int) -> None:
    for number in range(files):
        rows = [{"id": f"{number}-{n}", "text": "t"} for n in range(7)]
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    parts = [read(spec(tmp_path), tmp_path, rank, ranks) for rank in range(ranks)]
    ids = [text.id for part in parts for text in part]
    assert sorted(ids) == sorted(f"{a}-{b}" for a in range(files) for b in range(7))
    assert all(parts)


def test_caps_hold(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path)
    assert len(read(spec(path, max_documents=5), tmp_path)) == 5
    texts = read(spec(path, max_bytes=50), tmp_path)
    assert len(texts) == 3  # 13 bytes each, so a fourth would pass 50
    assert len(read(spec(path, max_documents=5), tmp_path, 0, 2)) == 3


def test_a_missing_column_is_named_with_those_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'body', 'host'") as caught:
        read(spec(write_jsonl(tmp_path), text_column="body", group_column="host"), tmp_path)
    assert "site" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text"', "a.jsonl:2: not a JSON object"),
        ("a.jsonl", b"[1]\n", "a.jsonl:1: not a JSON object"),
        ("a.parquet", b"no parquet", "cannot be read as parquet"),
        ("a.arrow", b"no arrow at all", "cannot be read as arrow"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(spec(tmp_path / name), tmp_path)


def test_paths_that_name_nothing_are_told_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    origin = FilesOrigin(
        kind="files",
        paths=(str(tmp_path / "no.jsonl"), str(tmp_path / "empty"), str(tmp_path / "*.x")),
    )
    with pytest.raises(DataError) as caught:
        find_files(origin)
    assert len(caught.value.problems) == 3


def test_patterns_and_formats_choose_files(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.log", "d.parquet"):
        (tmp_path / name).write_text("")
    pattern = FilesOrigin(
        kind="files", paths=(str(tmp_path / "*.jsonl"), str(tmp_path / "a.jsonl"))
    )
    assert [path.name for path in find_files(pattern)] == ["a.jsonl", "b.jsonl"]
    stated = FilesOrigin(kind="files", paths=(str(tmp_path),), format="jsonl")
    assert [path.name for path in find_files(stated)] == ["a.jsonl", "b.jsonl", "c.log"]


def test_heldout_groups_are_a_share_and_do_not_depend_on_the_source() -> None:
    out = [heldout(f"group {n}", 0.05) for n in range(20_000)]
    assert 0.045 < sum(out) / len(out) < 0.055
    assert not any(heldout(f"group {n}", 0.0) for n in range(100))
    assert all(heldout(f"group {n}", 0.2) for n, is_out in enumerate(out) if is_out)


def hub(**more: Any) -> SourceSpec:
    return spec(origin=HubOrigin(kind="hub", repo="team/set", **more), id_column="id")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror" / "team" / "set"
    for part in ("one", "two"):
        (folder / part).mkdir(parents=True)
        rows = [
            {"id": f"{part}{n}", "text": f"{part} {n}", "blob_id": f"{part}{n}"} for n in range(3)
        ]
        (folder / part / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files: one/train.jsonl\n"
        "- config_name: two\n  data_files: two/train.jsonl\n---\n"
    )
    return tmp_path / "mirror"


def test_a_mirror_stands_for_the_hub_and_subsets_take_turns(tmp_path: Path, mirror: Path) -> None:
    place = Place(downloads=tmp_path, mirror=mirror)
    assert [t.id for t in read_source(hub(subset="two"), place)] == ["two0", "two1", "two2"]
    both = [text.id for text in read_source(hub(subset="one,two"), place)]
    assert both == ["one0", "two0", "one1", "two1", "one2", "two2"]
    by_file = hub(files=("one/*.jsonl",))
    assert [text.id for text in read_source(by_file, place)] == ["one0", "one1", "one2"]


def test_listed_files_are_fetched_by_id(tmp_path: Path, mirror: Path) -> None:
    for n in range(3):
        (tmp_path / f"one{n}").write_bytes(gzip.compress(f"file {n}".encode()))
    source = hub(subset="one", blob_url=f"file://{tmp_path}/{{blob_id}}")
    place = Place(downloads=tmp_path, mirror=mirror)
    assert [text.text for text in read_source(source, place)] == ["file 0", "file 1", "file 2"]
    (tmp_path / "one1").unlink()
    with pytest.raises(DataError, match=r"one1: cannot be fetched"):
        list(read_source(source, place))


def test_a_dataset_that_is_not_in_the_mirror_is_named(tmp_path: Path, mirror: Path) -> None:
    source = spec(origin=HubOrigin(kind="hub", repo="team/other"))
    with pytest.raises(DataError, match="team/other: not in the mirror"):
        list(read_source(source, Place(downloads=tmp_path, mirror=mirror)))


def test_synthetic_documents_are_shared_by_ranks(tmp_path: Path) -> None:
    origin = SyntheticOrigin(kind="synthetic", skill="junk", documents=10)
    parts = [read(spec(origin=origin), tmp_path, rank, 3) for rank in range(3)]
    assert sorted(len(part) for part in parts) == [3, 3, 4]
