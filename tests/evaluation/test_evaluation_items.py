"""Items from files, held-out documents and hub mirrors; the layouts of published data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.data.manifest import HeldOut, StoreManifest
from ablations.errors import DataError
from ablations.evaluation.dataset_readers import COLUMNS
from ablations.evaluation.items import (
    ItemSources,
    group_of,
    item_digests,
    load_items,
    rank,
)
from ablations.evaluation.prompts import make_prompt
from ablations.evaluation.specs import HubData, TaskSpec
from ablations.files import file_sha256, write_sealed
from tests.oracles.stores import write_store

LETTERS = {"label": ["A", "B", "C"], "text": ["red", "blue", "green"]}
HUB_ROWS: dict[str, tuple[dict[str, Any], str, list[str], int]] = {
    "arc": (
        {"question": "Sky?", "choices": LETTERS, "answerKey": "B"},
        "Question: Sky?\nAnswer:",
        ["red", "blue", "green"],
        1,
    ),
    "openbookqa": (
        {"question_stem": "Sky is", "choices": LETTERS, "answerKey": " C "},
        "Question: Sky is\nAnswer:",
        ["red", "blue", "green"],
        2,
    ),
    "hellaswag": (
        {
            "activity_label": "Roof",
            "ctx_a": "A man [step] sits.",
            "ctx_b": "he",
            "endings": ["rips.", "skis. [title] Then"],
            "label": "0",
        },
        "Roof: A man sits. He",
        ["rips.", "skis.. Then"],
        0,
    ),
    "mmlu": (
        {"question": "2+2?", "choices": ["3", "4"], "answer": 1, "subject": "high_school"},
        "Question: 2+2?\nAnswer:",
        ["3", "4"],
        1,
    ),
    "mmlu_pro": (
        {"question": "2+2?", "options": ["3", "4"], "answer_index": 1, "category": "math"},
        "Question: 2+2?\nAnswer:",
        ["3", "4"],
        1,
    ),
    "piqa": (
        {"goal": "Dry it", "sol1": "sun", "sol2": "rain", "label": 0},
        "Question: Dry it\nAnswer:",
        ["sun", "rain"],
        0,
    ),
    "winogrande": (
        {"sentence": "Ann met Bo so _ ran.", "option1": "Ann", "option2": "Bo", "answer": "2"},
        "Ann met Bo so",
        ["ran.", "ran."],
        1,
    ),
    "boolq": (
        {"passage": "P.", "question": "is it", "answer": True},
        "P.\nQuestion: is it?\nAnswer:",
        ["no", "yes"],
        1,
    ),
    "siqa": (
        {
            "context": "T.",
            "question": "Why?",
            "answerA": "a",
            "answerB": "b",
            "answerC": "c",
            "label": "3",
        },
        "Question: T. Why?\nAnswer:",
        ["a", "b", "c"],
        2,
    ),
    "triviaqa": (
        {"question": "Who?", "question_id": "t1", "answer": {"value": "X", "aliases": ["Y", "X"]}},
        "Question: Who?\nAnswer:",
        ["X"],
        0,
    ),
    "gsm8k": (
        {"question": "2+2?", "answer": "It is\n#### 1,004"},
        "Question: 2+2?\nAnswer:",
        ["It is\n#### 1,004"],
        0,
    ),
    "math": (
        {"problem": "2+2?", "solution": "\\boxed{4}"},
        "Problem:\n2+2?\n\nSolution:",
        ["\\boxed{4}"],
        0,
    ),
    "humaneval": (
        {
            "task_id": "H/0",
            "prompt": "def f():\n",
            "canonical_solution": "    pass\n",
            "test": "T",
            "entry_point": "f",
        },
        "def f():\n",
        ["    pass\n"],
        0,
    ),
}
HUB_ROWS["ifeval"] = (
    {
        "key": 7,
        "prompt": "Do not use commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{"num_words": None}],
    },
    "Do not use commas.",
    [],
    0,
)
HUB_ROWS["commonsenseqa"] = HUB_ROWS["arc"]


@pytest.mark.parametrize("layout", sorted(set(COLUMNS) - {"item"}))
def test_a_published_row_becomes_an_item(layout: str) -> None:
    row, query, choices, gold = HUB_ROWS[layout]
    item = COLUMNS[layout](row)
    assert item is not None
    assert (item["query"], item["choices"], item["gold"]) == (query, choices, gold)
    assert make_prompt(item, "cloze", "{query}").query == query


def test_winogrande_puts_each_option_in_the_blank() -> None:
    item = COLUMNS["winogrande"](HUB_ROWS["winogrande"][0])
    assert item is not None
    assert item["contexts"] == ["Ann met Bo so Ann", "Ann met Bo so Bo"]


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("arc", {"answerKey": ""}),
        ("hellaswag", {"label": ""}),
        ("piqa", {"label": -1}),
        ("winogrande", {"answer": ""}),
    ],
)
def test_a_row_without_its_answer_is_no_item(layout: str, change: dict[str, Any]) -> None:
    assert COLUMNS[layout]({**HUB_ROWS[layout][0], **change}) is None


# ---------------------------------------------------------------------------------------- files


def items_task(**changes: Any) -> TaskSpec:
    values = {"form": "cloze", "domain": "d", "items": "quiz", "metrics": ("acc",), **changes}
    return TaskSpec(**values)


def test_items_keep_their_own_ids(data_dir: Path) -> None:
    pools = load_items(items_task(), ItemSources(benchmarks=data_dir / "benchmarks"))
    assert [item["id"] for pool in pools for item in pool.items] == [f"q{n}" for n in range(30)]


def test_shots_are_set_aside_where_they_have_no_file(data_dir: Path) -> None:
    sources = ItemSources(benchmarks=data_dir / "benchmarks")
    (pool,) = load_items(items_task(shots=3), sources)
    assert len(pool.items) == 27
    assert len(pool.shots) == 3
    assert not {item["id"] for item in pool.items} & {shot["id"] for shot in pool.shots}
    assert max(map(rank, pool.items)) < min(map(rank, pool.shots))


def test_shots_are_of_the_items_own_subject(tmp_path: Path) -> None:
    rows = [{"query": "q", "choices": ["a"], "gold": 0, "subject": s} for s in ("x", "y", "z")]
    write(tmp_path / "m.jsonl", rows)
    write(tmp_path / "m.shots.jsonl", rows[:2])
    task = items_task(items="m", shots_items="m.shots", shots=1)
    pools = load_items(task, ItemSources(benchmarks=tmp_path))
    assert {pool.name: [shot["subject"] for shot in pool.shots] for pool in pools} == {
        "x": ["x"],
        "y": ["y"],
        "z": ["x", "y"],
    }
    assert [pool.items[0]["id"] for pool in pools] == ["0", "1", "2"]


def test_a_missing_item_file_names_the_nearest(data_dir: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'quiz'"):
        load_items(items_task(items="quizz"), ItemSources(benchmarks=data_dir / "benchmarks"))


def test_a_folder_without_items_names_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ablate prepare"):
        load_items(items_task(), ItemSources(benchmarks=tmp_path))


def test_a_damaged_line_is_reported_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "quiz.jsonl").write_text('{"id": "1"}\n{"id": \n')
    with pytest.raises(DataError, match=r"quiz\.jsonl:2: not JSON"):
        load_items(items_task(), ItemSources(benchmarks=tmp_path))


def test_held_out_documents_are_cut_at_their_beginning(data_dir: Path) -> None:
    stores = {"wiki": data_dir / "store" / "wiki"}
    task = TaskSpec(form="rolling", domain="wiki", source="wiki", metrics=("bpb",))
    sources = ItemSources(benchmarks=data_dir, stores=stores, heldout_chars=10)
    (pool,) = load_items(task, sources)
    assert len(pool.items) == 8
    assert max(len(item["query"]) for item in pool.items) == 10


@pytest.mark.parametrize("stores", [{}, {"wiki": Path("nowhere")}])
def test_held_out_documents_that_do_not_exist_are_refused(stores: Mapping[str, Path]) -> None:
    task = TaskSpec(form="rolling", domain="wiki", source="wiki", metrics=("bpb",))
    with pytest.raises(DataError, match="wiki"):
        load_items(task, ItemSources(benchmarks=Path(), stores=stores))


# --------------------------------------------------------------------------------------- mirror


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".arrow":
        import pyarrow as pa

        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def hub_task(**changes: Any) -> TaskSpec:
    hub = {"repo": "owner/set", "columns": "arc", "subsets": ("easy",), "split": "test", **changes}
    return items_task(items=None, hub=HubData(**hub))


@pytest.mark.parametrize(
    "name",
    [
        "easy/test.jsonl",
        "easy/test-00000-of-00001.parquet",
        "easy/data/test-0.arrow",
        "data/test.parquet",
        "test.json",
    ],
)
def test_a_mirror_is_read_by_split(tmp_path: Path, name: str) -> None:
    write(tmp_path / "owner" / "set" / name, [HUB_ROWS["arc"][0]] * 2)
    (pool,) = load_items(hub_task(), ItemSources(benchmarks=tmp_path, mirror=tmp_path))
    assert [item["id"] for item in pool.items] == ["0", "1"]
    assert pool.items[0]["choices"] == ["red", "blue", "green"]


def test_subsets_are_pooled_and_their_ids_differ(tmp_path: Path) -> None:
    for subset in ("easy", "hard"):
        write(tmp_path / "owner" / "set" / subset / "test.jsonl", [HUB_ROWS["arc"][0]])
    sources = ItemSources(benchmarks=tmp_path, mirror=tmp_path)
    (pool,) = load_items(hub_task(subsets=("easy", "hard")), sources)
    assert [item["id"] for item in pool.items] == ["easy/0", "hard/0"]


def test_the_origin_decides_where_both_are_named(tmp_path: Path, data_dir: Path) -> None:
    write(tmp_path / "owner" / "set" / "test.jsonl", [HUB_ROWS["arc"][0]])
    task = items_task(hub=HubData(repo="owner/set", columns="arc"))
    both = {"benchmarks": data_dir / "benchmarks", "mirror": tmp_path}
    assert len(load_items(task, ItemSources(**both))[0].items) == 30
    assert len(load_items(task, ItemSources(**both, prefer_hub=True))[0].items) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repo": "owner/sett"}, "did you mean 'owner/set'"),
        ({"split": "validation"}, "no files of split 'validation'"),
        ({"columns": "piqa"}, "not laid out as 'piqa'"),
        ({"columns": "arcc"}, "did you mean 'arc'"),
    ],
)
def test_a_mirror_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write(tmp_path / "owner" / "set" / "easy" / "test.jsonl", [HUB_ROWS["arc"][0]])
    with pytest.raises(DataError, match=message):
        load_items(hub_task(**changes), ItemSources(benchmarks=tmp_path, mirror=tmp_path))


@pytest.mark.parametrize(
    ("layout", "more", "grouped_by"),
    [
        ("boolq", {}, hashlib.sha256(b"P.").hexdigest()[:16]),
        ("mmlu", {}, "high school"),
        ("siqa", {"context": "Ann fell."}, "Ann fell."),
        ("hellaswag", {"source_id": "wikihow~7"}, "wikihow~7"),
        ("hellaswag", {}, None),
        ("piqa", {}, None),
    ],
)
def test_items_are_grouped_by_what_they_share(
    layout: str, more: dict[str, Any], grouped_by: str | None
) -> None:
    item = COLUMNS[layout]({**HUB_ROWS[layout][0], **more})
    assert item is not None
    assert group_of(item) == grouped_by


def test_a_stated_group_comes_before_the_passage_and_that_before_the_subject() -> None:
    item: dict[str, Any] = {"subject": "law", "passage": "", "group": None}
    assert group_of(item) == "law"
    by_passage = group_of({**item, "passage": "P."})
    assert by_passage not in (None, "law", "P.")
    assert by_passage != group_of({**item, "passage": "Q."})
    assert group_of({**item, "passage": "P.", "group": "article 3"}) == "article 3"


# ----------------------------------------------------------------------------------------- digests

QUIZ = TaskSpec(form="cloze", domain="d", items="quiz", metrics=("acc",))


def quiz(folder: Path, rows: int = 3) -> ItemSources:
    folder.mkdir(parents=True, exist_ok=True)
    row = '{{"id": "{}", "query": "q", "choices": ["a", "b"], "gold": 0, "joiner": " "}}\n'
    (folder / "quiz.jsonl").write_text("".join(row.format(i) for i in range(rows)))
    return ItemSources(benchmarks=folder)


def test_the_digest_of_items_follows_their_content_alone(tmp_path: Path) -> None:
    first = item_digests([QUIZ], quiz(tmp_path / "a"))
    assert list(first) == ["quiz.jsonl"]
    assert item_digests([QUIZ], quiz(tmp_path / "b")) == first
    assert item_digests([QUIZ], quiz(tmp_path / "a", rows=2)) != first
    assert item_digests([QUIZ], quiz(tmp_path / "a")) == first
    assert item_digests([QUIZ], ItemSources(benchmarks=tmp_path / "none")) == {}


@pytest.mark.parametrize(
    ("task", "files"),
    [
        ({"shots": 1, "shots_items": "shots"}, ["quiz.jsonl", "shots.jsonl"]),
        ({"shots": 0, "shots_items": "shots"}, ["quiz.jsonl"]),
        ({"items": None, "hub": HubData(repo="o/set", columns="arc")}, ["o/set/default/test"]),
        ({"hub": HubData(repo="o/set", columns="arc")}, ["quiz.jsonl"]),
    ],
)
def test_every_file_that_a_task_reads_has_a_digest(
    tmp_path: Path, task: dict[str, Any], files: list[str]
) -> None:
    quiz(tmp_path)
    (tmp_path / "shots.jsonl").write_text("{}\n")
    (tmp_path / "mirror/o/set").mkdir(parents=True)
    (tmp_path / "mirror/o/set/test.jsonl").write_text("{}\n")
    values = {"form": "cloze", "domain": "d", "items": "quiz", "metrics": ("acc",), **task}
    sources = ItemSources(benchmarks=tmp_path, mirror=tmp_path / "mirror")
    assert sorted(item_digests([TaskSpec(**values)], sources)) == files


def test_items_that_are_not_those_expected_are_refused(tmp_path: Path) -> None:
    began = item_digests([QUIZ], quiz(tmp_path))
    same = replace(quiz(tmp_path), expected=began)
    assert len(load_items(QUIZ, same)[0].items) == 3
    changed = replace(quiz(tmp_path, rows=2), expected=began)
    with pytest.raises(DataError, match="items changed since the run began"):
        load_items(QUIZ, changed)


def test_items_of_a_mirror_that_are_not_those_expected_are_refused(tmp_path: Path) -> None:
    task = TaskSpec(
        form="cloze", domain="d", hub=HubData(repo="o/set", columns="arc"), metrics=("acc",)
    )
    (tmp_path / "o/set").mkdir(parents=True)
    row = HUB_ROWS["arc"][0]
    file = tmp_path / "o/set/test.jsonl"
    file.write_text(json.dumps(row) + "\n")
    sources = ItemSources(benchmarks=tmp_path, mirror=tmp_path)
    began = replace(sources, expected=item_digests([task], sources))
    assert len(load_items(task, began)[0].items) == 1
    file.write_text(2 * (json.dumps(row) + "\n"))
    with pytest.raises(DataError, match="items changed since the run began"):
        load_items(task, began)


def test_prepared_items_that_were_changed_are_refused(tmp_path: Path) -> None:
    sources = quiz(tmp_path)
    made = item_digests([QUIZ], sources)
    write_sealed(tmp_path / "checksums.json", {"files": made})
    assert load_items(QUIZ, sources)
    quiz(tmp_path, rows=2)
    for read in (lambda: load_items(QUIZ, sources), lambda: item_digests([QUIZ], sources)):
        with pytest.raises(DataError, match="not the items that were prepared"):
            read()


def test_held_out_text_is_compared_with_its_store(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "web", vocab_size=64, tokens=2_000, seed=0)
    text = '{"id": "0", "text": "kept out"}\n'
    (folder / "heldout.jsonl").write_text(text)
    stored = StoreManifest.read(folder)
    digest = file_sha256(folder / "heldout.jsonl")
    replace(stored, heldout=HeldOut(documents=1, bytes=8, sha256=digest)).write(folder)
    task = TaskSpec(form="rolling", domain="web", source="web", metrics=("bpb",))
    sources = ItemSources(benchmarks=tmp_path, stores={"web": folder})
    assert len(load_items(task, sources)[0].items) == 1
    (folder / "heldout.jsonl").write_text(text.replace("kept", "left"))
    with pytest.raises(DataError, match="not the documents that were held out"):
        load_items(task, sources)
