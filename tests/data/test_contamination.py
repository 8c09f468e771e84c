"""Items are found in text word for word or nearly so, and nowhere else."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.data.contamination import (
    OverlapRule,
    TaskIndex,
    _common_subsequence,
    item_text,
    read_tasks,
    scan,
    store_texts,
)
from ablations.data.prepare import Prepared
from ablations.errors import DataError
from ablations.files import write_text

QUESTION = (
    "A farmer named Ada has 16 hens and each of them lays three eggs on every day of the week "
    "but Sunday so how many eggs does Ada gather in a week?"
)
WORDS = [f"word{number}" for number in range(500)]


def item(question: str, name: str = "q", **more: Any) -> dict[str, Any]:
    row = {"id": name, "query": question, "choices": ["yes", "no"], "gold": 0, "question": question}
    return {**row, **more}


def found(question: str, text: str, rule: OverlapRule | None = None) -> bool:
    return bool(TaskIndex({"task": [item(question)]}, rule).hits(text))


def filler(count: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        QUESTION.upper().replace("?", " !"),
        QUESTION.replace("16", "2,450"),
        f"{filler(300)}. {QUESTION} {filler(300, 1)}",
        QUESTION.replace("Ada", "Bob", 1),
        QUESTION.replace("so how many eggs does Ada gather in a week", "find the eggs of a week"),
    ],
    ids=["itself", "case and marks", "other numbers", "inside text", "a name", "another ending"],
)
def test_an_item_is_found(text: str) -> None:
    assert found(QUESTION, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        filler(2000),
        "A farmer named Ada has 16 hens and each of them sleeps.",  # 11 words in common
        "A farmer named Ada has 16 hens and each of them lays three eggs on a straw bed.",
        " ".join(QUESTION.split()[::-1]),
    ],
    ids=["nothing", "other words", "shorter than the n-gram", "a half", "backwards"],
)
def test_other_text_is_not_an_item(text: str) -> None:
    assert not found(QUESTION, text)


def test_numbers_count_where_they_are_not_masked() -> None:
    question = "what is the sum of 17 and 28 and 39 and 41 and 53 and 67"
    other = question.replace("28", "82").replace("53", "35")
    assert found(question, other)
    assert not found(question, other, OverlapRule(mask_numbers=False))


def test_a_short_item_is_sought_whole_and_a_very_short_one_not_at_all() -> None:
    short, tiny = "which of these ten animals lays the largest egg", "what is two plus two"
    rows = [item(short, "short", choices=["the ostrich"]), item(tiny, "tiny", choices=["four"])]
    (report,) = scan(TaskIndex({"task": rows}), [("doc", f"{short} the ostrich, {tiny} four")])
    assert (report.items, report.checked, report.contaminated) == (2, 1, {"short"})


def test_the_answer_counts_only_where_the_question_is_short() -> None:
    assert item_text(item("why", choices=["because"])) == "why because"
    assert item_text(item(QUESTION)) == QUESTION


def test_a_passage_counts_where_the_item_shows_it() -> None:
    passage = "the long passage"
    assert passage in item_text(item("why", query=f"{passage}\nwhy", passage=passage))
    assert passage not in item_text(item("why", query="why", passage=passage))


def test_a_report_counts_items_documents_and_names_examples() -> None:
    rows = [item(QUESTION, "hens"), item(filler(30, 5), "other")]
    texts = [("a", QUESTION), ("b", filler(100, 9)), ("c", f"so: {QUESTION}")]
    (report,) = scan(TaskIndex({"task": rows}), texts)
    assert report.contaminated == {"hens"}
    assert report.documents == 2
    assert report.examples == [("hens", "a")]
    assert report.share == 0.5


def test_an_index_finds_the_same_after_pickling() -> None:
    index = pickle.loads(pickle.dumps(TaskIndex({"task": [item(QUESTION)]})))
    assert index.hits(QUESTION)[0].share == 1.0


@given(
    st.lists(st.integers(1, 6), max_size=25),
    st.lists(st.integers(1, 6), max_size=40),
)
@settings(max_examples=150, deadline=None)
def test_the_subsequence_is_the_textbooks(short: list[int], long: list[int]) -> None:
    table = [0] * (len(long) + 1)
    for a in short:
        before = 0
        for j, b in enumerate(long, start=1):
            before, table[j] = table[j], before + 1 if a == b else max(table[j], table[j - 1])
    assert _common_subsequence(short, long) == table[-1]


@given(st.lists(st.sampled_from(WORDS[:12]), min_size=13, max_size=40), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_item_is_found_wherever_it_stands(words: list[str], seed: int) -> None:
    text = f"{filler(50, seed)} {' '.join(words)} {filler(50, seed + 1)}"
    assert found(" ".join(words), text)


def test_an_unknown_task_brings_the_nearest_names(tmp_path: Path) -> None:
    write_text(tmp_path / "gsm8k.jsonl", "")
    write_text(tmp_path / "mmlu.shots.jsonl", "")
    with pytest.raises(DataError, match="did you mean 'gsm8k'"):
        read_tasks(tmp_path, ["gsm8"])
    with pytest.raises(DataError, match="no task items"):
        read_tasks(tmp_path / "none", ["gsm8k"])


def test_a_prepared_source_is_read_back_as_text(
    skills: dict[str, Prepared], data_dir: Path
) -> None:
    texts = dict(store_texts(skills["synthetic_facts"].folder, data_dir / "tokenizers"))
    assert len(texts) == skills["synthetic_facts"].manifest.documents  # type: ignore[union-attr]
    assert all(text.endswith(".") for text in texts.values())
    (report,) = scan(TaskIndex({"own": [item(texts["0"], "0")]}), texts.items())
    assert report.contaminated == {"0"}
