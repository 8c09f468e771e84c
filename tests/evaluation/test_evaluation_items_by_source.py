"""Check where items come from and what they are compared with: files, mirrors, and the hub."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations.errors import DamagedError, DataError
from ablations.evaluation import items as module
from ablations.evaluation.items import ItemSources, item_digests, load_items
from ablations.evaluation.specs import HubData, TaskSpec
from ablations.files import file_sha256, write_sealed

Row = dict[str, Any]


def row(**changes: Any) -> Row:
    return {"query": "q", "choices": ["a", "b"], "gold": 0, **changes}


def write(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def task(**changes: Any) -> TaskSpec:
    values = {"form": "cloze", "domain": "d", "items": "quiz", "metrics": ("acc",), **changes}
    return TaskSpec(**values)


def hub(**changes: Any) -> TaskSpec:
    shots = changes.pop("shots", 0)
    return task(
        items=None, shots=shots, hub=HubData(**{"repo": "o/set", "columns": "item", **changes})
    )


def ids(rows: list[Row]) -> list[str]:
    return [one["id"] for one in rows]


def test_an_item_without_an_id_has_its_place_and_another_keeps_its_own(tmp_path: Path) -> None:
    write(tmp_path / "quiz.jsonl", [row(id=7), row(), row(id=None), row(id=0), row(id="x")])
    (pool,) = load_items(task(), ItemSources(benchmarks=tmp_path))
    assert ids(pool.items) == ["7", "1", "2", "0", "x"]
    assert (pool.name, pool.shots) == ("", [])


def test_a_file_without_items_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "quiz.jsonl", [])
    with pytest.raises(DataError, match="quiz: no items"):
        load_items(task(), ItemSources(benchmarks=tmp_path))
    write(tmp_path / "o/set/test.jsonl", [])
    with pytest.raises(DataError, match="no items"):
        load_items(hub(), ItemSources(benchmarks=tmp_path, mirror=tmp_path))


def test_an_unknown_source_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    rolling = task(form="rolling", items=None, source="wiki", metrics=("bpb",))
    stores = {"wikis": tmp_path, "chat": tmp_path}
    with pytest.raises(DataError, match=r"unknown source 'wiki'; allowed: chat, wikis; did you"):
        load_items(rolling, ItemSources(benchmarks=tmp_path, stores=stores))


def test_items_of_a_subject_without_examples_get_all(tmp_path: Path) -> None:
    write(tmp_path / "quiz.jsonl", [row(subject="x"), row(), row(subject="x"), row(subject="z")])
    write(tmp_path / "s.jsonl", [row(subject="x", id="sx"), row(id="s")])
    spec = task(shots=1, shots_items="s")
    pools = load_items(spec, ItemSources(benchmarks=tmp_path))
    assert [(pool.name, ids(pool.items), ids(pool.shots)) for pool in pools] == [
        ("x", ["0", "2"], ["sx"]),
        ("", ["1"], ["s"]),
        ("z", ["3"], ["sx", "s"]),
    ]


# ------------------------------------------------------------------------------- files and digests


def test_own_items_beside_prepared_ones_are_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "quiz.jsonl", [row()])
    write(tmp_path / "own.jsonl", [row(), row()])
    write_sealed(
        tmp_path / "checksums.json", {"files": {"quiz.jsonl": file_sha256(tmp_path / "quiz.jsonl")}}
    )
    tasks = [task(), task(items="own"), task(items="absent")]
    assert item_digests(tasks, ItemSources(benchmarks=tmp_path)) == {
        f"{name}.jsonl": file_sha256(tmp_path / f"{name}.jsonl") for name in ("quiz", "own")
    }


def test_every_changed_file_is_named_with_both_its_digests(tmp_path: Path) -> None:
    made = {name: write(tmp_path / name, [row()]) for name in ("a.jsonl", "b.jsonl", "c.jsonl")}
    before = {name: file_sha256(path) for name, path in made.items()}
    write_sealed(tmp_path / "checksums.json", {"files": before})
    for name in ("a.jsonl", "c.jsonl"):
        write(tmp_path / name, [row(), row()])
    with pytest.raises(DataError) as refused:
        item_digests(
            [task(items="b"), task(items="a", shots_items="c", shots=1)],
            ItemSources(benchmarks=tmp_path),
        )
    assert [(Path(p.where).name, p.found, p.allowed) for p in refused.value.problems] == [
        (name, f"sha256 {file_sha256(made[name])[:12]}", f"sha256 {before[name][:12]}")
        for name in ("a.jsonl", "c.jsonl")
    ]


@pytest.mark.parametrize("content", [{}, [], {"file": {}}])
def test_a_damaged_list_of_prepared_items_is_refused(tmp_path: Path, content: object) -> None:
    write(tmp_path / "quiz.jsonl", [row()])
    (tmp_path / "checksums.json").write_text(json.dumps(content))
    with pytest.raises(DamagedError, match=r"checksums\.json: damaged: not a list of checksums"):
        load_items(task(), ItemSources(benchmarks=tmp_path))


@pytest.mark.parametrize("named", [True, False])
def test_items_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    where = tmp_path / "quiz.jsonl"
    write(where, [row()])

    def refuses(folder: Path, names: object) -> dict[str, str]:
        raise OSError(5, "broken disk", *([str(where)] if named else []))

    monkeypatch.setattr(module, "digests", refuses)
    with pytest.raises(DataError) as refused:
        load_items(task(), ItemSources(benchmarks=tmp_path))
    (problem,) = refused.value.problems
    assert problem.where == str(where if named else tmp_path)
    assert (problem.what, problem.found) == ("cannot be read", "broken disk")


def test_items_are_compared_with_those_of_the_run_where_it_had_them(tmp_path: Path) -> None:
    path = write(tmp_path / "quiz.jsonl", [row()])
    other = ItemSources(benchmarks=tmp_path, expected={"other.jsonl": "0" * 64})
    assert len(load_items(task(), other)[0].items) == 1
    sources = ItemSources(benchmarks=tmp_path, expected={"quiz.jsonl": "0123456789abcdef"})
    with pytest.raises(DataError) as refused:
        load_items(task(), sources)
    (problem,) = refused.value.problems
    assert (problem.where, problem.allowed) == (str(path), "sha256 0123456789ab")
    assert problem.found == f"sha256 {file_sha256(path)[:12]}"


def test_digests_are_of_every_split_that_a_mirror_has(tmp_path: Path) -> None:
    for name in ("a/test", "a/dev", "b/test"):
        write(tmp_path / "o/set" / f"{name}.jsonl", [row(query=name)])
    spec = hub(subsets=("a", "b", "c"), shots_split="dev")
    rolling = task(form="rolling", items=None, source="wiki", metrics=("bpb",))
    with_mirror = ItemSources(benchmarks=tmp_path, mirror=tmp_path)
    found = item_digests([spec, rolling], with_mirror)
    assert list(found) == ["o/set/a/test", "o/set/a/dev", "o/set/b/test"]
    assert len(set(found.values())) == 3
    assert item_digests([spec, rolling], ItemSources(benchmarks=tmp_path)) == {}
    both = task(hub=spec.hub)
    assert list(item_digests([both], ItemSources(benchmarks=tmp_path))) == []
    hub_first = ItemSources(benchmarks=tmp_path, mirror=tmp_path, prefer_hub=True)
    assert item_digests([both], hub_first) == found


# --------------------------------------------------------------------------- mirrors and the hub


def test_parts_of_a_split_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for number in (3, 0, 5, 1, 4, 2):
        path = tmp_path / "o/set/a" / f"test-{number}.jsonl"
        write(path, [row(id=f"{number}.{one}") for one in range(2)])
    write(tmp_path / "o/set/a/test_6.json", [row(id="json")])
    write(tmp_path / "o/set/a/tests.jsonl", [row(id="another split")])
    write(tmp_path / "o/set/test.jsonl", [row(id="of another folder")])
    sources = ItemSources(benchmarks=tmp_path, mirror=tmp_path)
    (pool,) = load_items(hub(subsets=("a",)), sources)
    assert ids(pool.items) == [*(f"{n}.{one}" for n in range(6) for one in range(2)), "json"]


def test_rows_without_an_answer_take_no_number(tmp_path: Path) -> None:
    arc = {"question": "?", "choices": {"label": ["A", "B"], "text": ["x", "y"]}}
    rows: list[Row] = [{**arc, "answerKey": key} for key in ("", "A", "", "B")]
    write(tmp_path / "o/set/test.jsonl", rows)
    sources = ItemSources(benchmarks=tmp_path, mirror=tmp_path)
    (pool,) = load_items(hub(columns="arc"), sources)
    assert [(item["id"], item["gold"]) for item in pool.items] == [("0", 0), ("1", 1)]


def test_examples_come_from_their_own_split_of_every_subset(tmp_path: Path) -> None:
    for subset in ("a", "b"):
        write(tmp_path / "o/set" / subset / "test.jsonl", [row(subject=subset)])
        write(tmp_path / "o/set" / subset / "dev.jsonl", [row(id=f"s{subset}", subject=subset)])
    spec = hub(subsets=("a", "b"), shots_split="dev", shots=1)
    pools = load_items(spec, ItemSources(benchmarks=tmp_path, mirror=tmp_path))
    assert [(ids(pool.items), ids(pool.shots)) for pool in pools] == [
        (["a/0"], ["sa"]),
        (["b/0"], ["sb"]),
    ]


Calls = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Record what the hub's library is asked for; answer with two rows."""
    made: Calls = []

    def load_dataset(repo: str, subset: str, **named: Any) -> SimpleNamespace:
        made.append((repo, subset, named))
        if repo == "o/none":
            raise RuntimeError("no such set\nand more")
        return SimpleNamespace(to_list=lambda: [row(), row(id="own")])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return made


def test_the_hub_is_asked_for_subset_split_and_revision(tmp_path: Path, calls: Calls) -> None:
    expected = {"quiz.jsonl": "0" * 64}
    sources = ItemSources(benchmarks=tmp_path, expected=expected)
    (pool,) = load_items(hub(subsets=("a", "b", "c"), split="dev", revision="r1"), sources)
    assert ids(pool.items) == [f"{subset}/{one}" for subset in "abc" for one in (0, "own")]
    named = {"split": "dev", "revision": "r1"}
    assert calls == [("o/set", subset, named) for subset in "abc"]


def test_a_failing_hub_is_told_in_one_line(tmp_path: Path, calls: Calls) -> None:
    with pytest.raises(DataError) as refused:
        load_items(hub(repo="o/none"), ItemSources(benchmarks=tmp_path))
    (problem,) = refused.value.problems
    assert (problem.where, problem.found) == ("o/none", "RuntimeError: no such set")


def test_a_snapshot_of_the_hub_is_read_by_its_readme(tmp_path: Path, calls: Calls) -> None:
    root = tmp_path / "o/set"
    write(root / "README.md", [])
    sources = ItemSources(benchmarks=tmp_path, mirror=tmp_path)
    (pool,) = load_items(hub(subsets=("a",), split="dev", revision="r1"), sources)
    assert ids(pool.items) == ["0", "own"]
    assert calls == [(str(root), "a", {"split": "dev", "revision": None})]
    write(root / "dev.jsonl", [row()])
    assert len(load_items(hub(split="dev"), sources)[0].items) == 1
    assert len(calls) == 1


def test_a_mirror_without_the_split_lists_what_it_has(tmp_path: Path, calls: Calls) -> None:
    for number in range(12):
        write(tmp_path / f"o/set/x{number:02}.jsonl", [row()])
    sources = ItemSources(benchmarks=tmp_path, mirror=tmp_path)
    listed = ", ".join(f"x{number:02}.jsonl" for number in range(10))
    with pytest.raises(DataError, match=f"found: {re.escape(listed)}; allowed"):
        load_items(hub(), sources)
    with pytest.raises(DataError, match="unknown data set 'o/sett'"):
        load_items(hub(repo="o/sett"), sources)
    assert calls == []
